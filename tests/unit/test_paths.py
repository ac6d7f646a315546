"""Paths as callers give them."""

import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from xorbit.errors import MisuseError
from xorbit.paths import path_from


class Entry(os.PathLike[Any]):
    """What stands for a path, as `os.DirEntry` does."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


@pytest.mark.parametrize("given", ["d/a", Path("d/a"), PurePosixPath("d/a"), Entry("d/a")])
def test_all_that_the_standard_library_takes_is_a_path(given: Any) -> None:
    """Text, a path and whatever stands for one are the same path."""
    assert path_from(given) == Path("d/a")


@pytest.mark.parametrize("given", ["", "a\0b", b"d/a", Entry(b"d/a"), None, 3, ["d"]])
def test_what_is_no_path_is_misuse(given: Any) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(MisuseError, match=r"expected a path \(text or os.PathLike\), got "):
        path_from(given)
