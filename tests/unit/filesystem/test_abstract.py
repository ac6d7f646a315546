"""fsspec's own tests of `get`, on trees that were put before: no file system makes its files."""

from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from tests.unit.filesystem.home import FakeHome, FakeSystem

SCENARIOS = {
    "fs_bulk_operations_scenario_0": "_bulk_operations_scenario_0",
    "fs_glob_edge_cases_files": "_glob_edge_cases_files",
    "fs_dir_and_file_with_same_name_prefix": "_dir_and_file_with_same_name_prefix",
    "fs_10_files_with_hashed_names": "_10_files_with_hashed_names",
}


class Fixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self, home: FakeHome) -> FakeSystem:
        return home.system()

    @pytest.fixture
    def fs_path(self) -> str:
        return ""


def _scenario(name: str, make: str) -> Any:
    @pytest.fixture(name=name)
    def put(self: Fixtures, home: FakeHome, tmp_path_factory: pytest.TempPathFactory) -> str:
        folder = tmp_path_factory.mktemp("put")
        getattr(self, make)(LocalFileSystem(auto_mkdir=True), _join, str(folder))
        return f"{home.tree(folder)}/source"

    return put


def _join(*parts: str) -> str:
    return str(Path(*parts))


for name, make in SCENARIOS.items():
    setattr(Fixtures, name, _scenario(name, make))


class TestGet(Fixtures, AbstractGetTests):
    """As fsspec wrote them, but for one that makes its directory itself."""

    def test_get_directory_recursive(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, fs: FakeSystem, home: FakeHome, tmp_path: Path
    ) -> None:
        """A directory becomes the new one that is named, and goes into one that is there."""
        made, target = tmp_path / "top" / "made", tmp_path / "target"
        made.mkdir(parents=True)
        (made / "file").touch()
        source = f"{home.tree(tmp_path / 'top')}/made"
        fs.get(source, str(target), recursive=True)
        assert [path.name for path in target.iterdir()] == ["file"]
        fs.get(source, str(target), recursive=True)
        assert (target / "made" / "file").exists()
        fs.get(f"{source}/", str(tmp_path / "new"), recursive=True)
        assert (tmp_path / "new" / "file").exists()
