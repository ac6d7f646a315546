"""Paths as callers give them: text, or what stands for a path, as the standard library takes them.

Made into `Path` where they come in, so that everything below knows only that. Nothing here touches
the disk.
"""

import os
from pathlib import Path
from typing import Any, cast

from xorbit.errors import MisuseError

StrPath = str | os.PathLike[str]
"""A path of this machine, as `open` takes it."""


def is_path(given: Any) -> bool:
    """Return whether this was meant to be a path."""
    return isinstance(given, str | os.PathLike)


def path_from(path: StrPath) -> Path:
    """Return the path that is meant.

    Raises:
        MisuseError: what is no path, or an empty one.
    """
    given: Any = path  # callers without types give whatever
    text = cast("str | bytes | None", os.fspath(given) if is_path(given) else None)
    if not isinstance(text, str) or not text or "\0" in text:
        raise MisuseError(f"expected a path (text or os.PathLike), got {given!r:.80}")
    return Path(text)
