"""Directories of this machine as blocks: the names that IPFS gives, and what is refused."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.unit.files.fakes import vector_content, vectors
from xorbit.errors import MisuseError, WorldError
from xorbit.files.cid import Codec, cid_of_block
from xorbit.files.directory import Directory, SymbolicLink
from xorbit.files.local_tree import build_source, cid_of, look_through
from xorbit.files.nodes import parse_node
from xorbit.items import BLOCK_BYTES_MAX, Kind

SHA2 = Kind.BLOCK_SHA2_256


def test_directories_of_the_vectors(tmp_path: Path) -> None:
    """Every file and directory of the vectors gets the name that the JavaScript importer gives."""
    for number, vector in enumerate(vectors("dirs")):
        top = tmp_path / str(number)
        for file in vector["files"]:
            path = top / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(vector_content(file["size"], file["a"], file["b"])))
        for name, cid in vector["cids"].items():
            assert str(cid_of(top / name.removeprefix("root").lstrip("/"), SHA2)) == cid, name


def test_large_directories_of_the_vectors(tmp_path: Path) -> None:
    """Large directories get the names, the blocks and the weight that the vectors say."""
    for vector in vectors("large_dirs"):
        top = tmp_path / str(vector["entries"])
        top.mkdir()
        for number in range(vector["entries"]):
            (top / f"file-{number}.txt").write_text(f"file-{number}\n")
        made = list(build_source(top, SHA2))
        sizes = [len(data) for _, data in made]
        assert str(made[-1][0]) == vector["root"]
        assert (len(made), max(sizes)) == (vector["blocks"], vector["largest_block"])
        assert sum(sizes) == vector["dag_size"]


def test_tree(tmp_path: Path) -> None:
    """A tree has files, directories (empty ones too) and symbolic links, also hidden ones."""
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").write_bytes(b"here")
    (tmp_path / "link").symlink_to("/no/such/place")
    (tmp_path / "sub").symlink_to("empty")
    made = list(build_source(tmp_path))
    blocks = dict(made)
    root = parse_node(made[-1][1])
    assert isinstance(root, Directory)
    found = {entry.name: entry.cid for entry in root.entries}
    assert list(found) == [".hidden", "empty", "link", "sub"]
    assert found[".hidden"] == cid_of_block(b"here", Codec.RAW)
    assert parse_node(blocks[found["empty"]]) == Directory(())
    assert parse_node(blocks[found["link"]]) == SymbolicLink("/no/such/place")
    assert parse_node(blocks[found["sub"]]) == SymbolicLink("empty")


def test_target_is_kept_to_the_letter(tmp_path: Path) -> None:
    """What a symbolic link says is not made tidy."""
    os.symlink("././/x/", tmp_path / "link")  # noqa: PTH211 - a path would be made tidy
    [(_, data), _] = build_source(tmp_path)
    assert parse_node(data) == SymbolicLink("././/x/")


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    """A path that the user gives may be a link to the directory that is meant."""
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("top")
    assert cid_of(tmp_path / "link") == cid_of(tmp_path / "top")


def test_every_block_fits(tmp_path: Path) -> None:
    """No block of a tree is larger than a node takes, however long the names."""
    for number in range(400):
        (tmp_path / f"{number:0255}").touch()
    sizes = [len(data) for _, data in build_source(tmp_path)]
    assert max(sizes) <= BLOCK_BYTES_MAX


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe in a directory is refused by its path, and nobody waits for its other end."""
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "sub" / "pipe")
    with pytest.raises(MisuseError, match=r"sub/pipe is none of them"):
        cid_of(tmp_path)


def test_name_that_is_no_text(tmp_path: Path) -> None:
    """A name that is not UTF-8 is refused, in a message that can be printed."""
    (tmp_path / "sub").mkdir()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/sub/\xff"))).touch()
    with pytest.raises(MisuseError, match=r"sub: the name .* is not UTF-8; rename it") as caught:
        cid_of(tmp_path)
    str(caught.value).encode()


def test_nothing_there(tmp_path: Path) -> None:
    """A path of nothing is the caller's mistake."""
    with pytest.raises(MisuseError, match="there is none at"):
        cid_of(tmp_path / "missing")


def test_too_deep(tmp_path: Path) -> None:
    """Directories inside one another are refused beyond a depth, with the path."""
    path = tmp_path
    for _ in range(128):
        path /= "d"
    path.mkdir(parents=True)
    with pytest.raises(MisuseError, match="deeper than 128 directories"):
        cid_of(tmp_path)
    cid_of(tmp_path / "d")


def test_unreadable(tmp_path: Path) -> None:
    """A directory that cannot be read is the world's fault, and named."""

    def refuse(path: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    for what in ("os.listdir", "pathlib.Path.is_dir"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(what, refuse)
            with pytest.raises(WorldError, match=r"cannot read .*: Permission denied"):
                cid_of(tmp_path)


def test_each_folder_is_looked_at_once(tmp_path: Path) -> None:
    """Whoever may refuse sees the files of each folder, and nothing that a link leads to."""
    (tmp_path / "top" / "sub").mkdir(parents=True)
    (tmp_path / "top" / "sub" / "file").touch()
    (tmp_path / "top" / "up").symlink_to("..")
    (tmp_path / "link").symlink_to("top")
    seen: list[tuple[Path, list[str]]] = []
    look_through(tmp_path / "link", lambda folder, names: seen.append((folder, names)))
    look_through(tmp_path / "link" / "sub" / "file", lambda *both: seen.append(both))
    sub = tmp_path / "top" / "sub"
    assert seen == [(tmp_path / "top", []), (sub, ["file"]), (sub, ["file"])]


def test_looking_leaves_complaints_to_who_reads(tmp_path: Path) -> None:
    """What is too deep, or cannot be read, is for the one who reads it to say."""
    path = tmp_path.joinpath(*["d"] * 200)
    path.mkdir(parents=True)
    seen: list[Path] = []
    look_through(tmp_path, lambda folder, _: seen.append(folder))
    assert len(seen) == 128
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.scandir", _denied)
        look_through(tmp_path, lambda _, names: seen.clear() if not names else None)
    assert seen == []


def _denied(path: Path) -> NoReturn:
    raise PermissionError(13, "Permission denied")
