"""What the tests of the file system share: a fake home, the file system on it, a tree in it."""

from pathlib import Path

import pytest

from tests.unit.filesystem.home import LARGE, SMALL, FakeHome, FakeSystem


@pytest.fixture
def home() -> FakeHome:
    return FakeHome()


@pytest.fixture
def fs(home: FakeHome) -> FakeSystem:
    return home.system()


@pytest.fixture
def top(home: FakeHome, tmp_path: Path) -> str:
    """A tree with a large file, a small one, a folder with a file, an empty one, and a link."""
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "small").write_bytes(SMALL)
    (tmp_path / "sub" / "deep" / "small").write_bytes(SMALL)
    (tmp_path / "link").symlink_to("small")
    return str(home.tree(tmp_path))
