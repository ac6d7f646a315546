"""Trees to disk: whole or not at all, and never a byte outside of the folder."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.unit.files.fakes import names
from tests.unit.files.trees import Shelf, on_disk
from xorbit.errors import FormatError, MisuseError, WorldError
from xorbit.files.cid import Codec
from xorbit.files.local_tree import cid_of
from xorbit.files.new_tree import NewTree, Written
from xorbit.files.partial import Partial


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return the path to write to, in a folder of its own with something beside it."""
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "beside").write_bytes(b"beside")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "around" / "out"


def begun(out: Path) -> tuple[Partial, NewTree]:
    """Return a tree that is being written, and the folder in which it grows."""
    kept = Partial(out, "a tree")
    kept.open()
    tree = NewTree(out, kept.whole)
    tree.open()
    return kept, tree


def assert_nothing_happened(out: Path, kept: int = 0) -> None:
    """Hold that nothing came but what so many gets keep beside the path."""
    assert [name[:8] for name in names(out.parent)] == [".xorbit-"] * kept + ["beside"]
    assert names(out.parent.parent) == ["around", "secret"]
    assert (out.parent.parent / "secret").read_bytes() == b"secret"
    assert (out.parent / "beside").read_bytes() == b"beside"


# --- Honest trees -------------------------------------------------------------------------------


def test_round_trip(shelf: Shelf, out: Path, tmp_path: Path) -> None:
    """A tree comes out as it went in: files, folders, links, names of every kind."""
    top = tmp_path / "top"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    for name in ("a", "A", "ä", "a\\b", " ", "\n", "-rf", "...", "~", "\U0001f600", "x" * 255):
        (top / "sub" / name).write_bytes(name.encode())
    for number in range(1_000):
        (top / "sub" / "deep" / f"name {number}").write_bytes(b"%d" % number)
    (top / "large").write_bytes(os.urandom(200_000))
    (top / "sub" / "up").symlink_to("../large")
    (top / "nowhere").symlink_to("not/there")
    written = shelf.write(shelf.tree(top), out)
    assert on_disk(out) == on_disk(top)
    assert cid_of(out) == cid_of(top)
    files = [content for content in on_disk(top).values() if isinstance(content, bytes)]
    assert written == Written(1_012, 4, 2, sum(map(len, files)))
    assert names(out.parent) == ["beside", "out"]


def test_one_file(shelf: Shelf, out: Path) -> None:
    """A tree of one file is written over the file that was there."""
    out.write_bytes(b"old")
    assert shelf.write(shelf.file(b"0123456789"), out) == Written(files=1, bytes=10)
    assert out.read_bytes() == b"0123456789"
    shelf.write(shelf.file(b"x"), out)
    assert out.read_bytes() == b"x"
    shelf.write(shelf.file(b"x"), Path("/dev/null"))


def test_empty_folder_at_the_path(shelf: Shelf, out: Path) -> None:
    """An empty folder at the path stays the one that it is, with its rights, and is filled."""
    out.mkdir(0o700)
    was = out.stat()
    assert shelf.write(shelf.directory({}), out) == Written(folders=1)
    leaf = shelf.add(b"x", Codec.RAW)
    inner = shelf.directory({"file": leaf, "empty": shelf.directory({})})
    shelf.write(shelf.directory({"a": leaf, "b": inner, "link": shelf.link("a")}), out)
    now = out.stat()
    assert (now.st_ino, now.st_mode) == (was.st_ino, was.st_mode)
    assert on_disk(out) == {
        "a": b"x", "b": None, "b/file": b"x", "b/empty": None, "link": "a",
    }  # fmt: skip
    assert names(out.parent) == ["beside", "out"]


def test_room_of_an_empty_folder(shelf: Shelf, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a mount point: its own disk is looked at, and what comes is kept on it."""
    out.mkdir()
    looked_at: list[Path] = []
    usage = namedtuple("usage", "free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda path: looked_at.append(path) or usage(1_000))
    assert Partial(out, "a tree").folder.parent == out
    shelf.write(shelf.directory({"a": shelf.file(b"abcdef")}), out)
    assert looked_at == [out]


def test_where_somebody_works_is_filled(
    shelf: Shelf, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder is still there afterwards, and has the tree in it."""
    out.mkdir()
    monkeypatch.chdir(out)
    shelf.write(shelf.directory({"a": shelf.add(b"x", Codec.RAW)}), Path())
    assert names(Path()) == names(out) == ["a"]


def test_usual_rights(shelf: Shelf, out: Path) -> None:
    """What is written may be read by whoever may read other new files and folders of this user."""
    leaf = shelf.add(b"x", Codec.RAW)
    shelf.write(shelf.directory({"file": leaf, "sub": shelf.directory({})}), out)
    (out.parent / "new").touch()
    (out.parent / "folder").mkdir()
    assert (out / "file").stat().st_mode == (out.parent / "new").stat().st_mode
    for path in (out, out / "sub"):
        assert path.stat().st_mode == (out.parent / "folder").stat().st_mode


@pytest.mark.parametrize("what", ["file", "folder", "link", "dangling link"])
def test_something_at_the_path(shelf: Shelf, out: Path, what: str) -> None:
    """What is at the path already is not touched."""
    other = out.parent / "beside"
    match what:
        case "file":
            out.write_bytes(b"old")
        case "folder":
            out.mkdir()
            (out / "old").touch()
        case "link":
            out.symlink_to(other.parent)
        case _:
            out.symlink_to("nowhere")
    with pytest.raises(MisuseError, match="there is something at"):
        shelf.write(shelf.directory({"x": shelf.add(b"x", Codec.RAW)}), out)
    assert names(out.parent) == ["beside", "out"]
    assert other.read_bytes() == b"beside"


def test_no_folder_to_write_to(shelf: Shelf, out: Path) -> None:
    """A path in a folder that is not there is the caller's mistake."""
    for path in (out / "x", out.parent / "beside" / "x"):
        with pytest.raises(MisuseError, match="make it first"):
            shelf.write(shelf.directory({}), path)


def test_folder_that_cannot_be_made(
    shelf: Shelf, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that refuses a folder is the world's fault."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WorldError, match=r"cannot write .*Read-only file system"):
        shelf.write(shelf.directory({}), out)


def test_something_comes_to_the_path_meanwhile(shelf: Shelf, out: Path) -> None:
    """Who else writes to the path meanwhile keeps what he wrote."""
    kept, tree = begun(out)
    out.mkdir()
    (out / "other").touch()
    with pytest.raises(WorldError, match="cannot write"):
        tree.commit()
    tree.keep()
    kept.discard()
    assert names(out.parent) == ["beside", "out"]
    assert names(out) == ["other"]


def test_something_comes_to_the_folder_meanwhile(shelf: Shelf, out: Path) -> None:
    """Then nothing of the tree comes to it, and what is there stays."""
    out.mkdir()
    kept, tree = begun(out)
    tree.add_folder(("a",))
    (out / "other").touch()
    with pytest.raises(WorldError, match="something has come there meanwhile"):
        tree.commit()
    tree.keep()
    assert names(kept.whole) == ["a"]
    kept.discard()
    assert names(out) == ["other"]


def test_a_folder_that_cannot_be_filled(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was moved to it already is taken back: it stays empty."""
    out.mkdir()
    kept, tree = begun(out)
    for number in range(3):
        tree.add_folder((f"{number}",))
    rename, moved = os.rename, []

    def fail_at_last(old: str, new: str, **folders: int) -> None:
        moved.append(old)
        if len(moved) == 3:
            raise OSError(errno.EIO, "Input/output error")
        rename(old, new, **folders)

    monkeypatch.setattr(os, "rename", fail_at_last)
    with pytest.raises(WorldError, match="Input/output error"):
        tree.commit()
    tree.keep()
    assert names(out) == [kept.folder.name]
    assert names(kept.whole) == ["0", "1", "2"]
    kept.discard()


# --- What goes wrong ----------------------------------------------------------------------------


def test_size_beyond_the_disk(shelf: Shelf, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that says that it is larger than the disk is refused before any of it is fetched."""
    usage = namedtuple("usage", "free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1_000))
    leaf = shelf.add(bytes(600), Codec.RAW)
    for root in (
        shelf.file_node([(leaf, 600), (leaf, 600)]),
        shelf.directory({"a": shelf.file_node([(leaf, 600)]), "b": shelf.file_node([(leaf, 600)])}),
    ):
        with pytest.raises(WorldError, match="200 more than are free at"):
            shelf.write(root, out)
    assert_nothing_happened(out, kept=1)  # the first file of the directory


def test_full_disk(shelf: Shelf, out: Path) -> None:
    """A disk that is full when a file is written is the world's fault, and nothing stays."""

    class Full(NewTree):
        def add_file(self, path: tuple[str, ...]):
            super().add_file(path).close()
            return Path("/dev/full").open("wb")

    leaf = shelf.add(b"x", Codec.RAW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xorbit.files.new_tree.NewTree", Full)
        with pytest.raises(WorldError, match="No space left on device"):
            shelf.write(shelf.directory({"a": leaf}), out)
    assert_nothing_happened(out)


def test_what_no_disk_has_room_for(shelf: Shelf, out: Path) -> None:
    """A name or a link's target that is too long is said as such."""
    name = shelf.directory({"x" * 256: shelf.add(b"x", Codec.RAW)})
    target = shelf.directory({"link": shelf.link("x" * 4_096)})
    for root, says in ((name, "more than 255 bytes"), (target, "more than 4,095 bytes")):
        with pytest.raises(FormatError, match=says):
            shelf.write(root, out)
        assert_nothing_happened(out)


# --- Trees that want out ------------------------------------------------------------------------


NAMES = ("..", "../secret", "../../secret", "/xorbit-escaped", "a\0b", ".")
TARGETS = ("../secret", "../../secret", "/etc/passwd", "a/../../secret", "\0")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_escape(shelf: Shelf, out: Path, name: str) -> None:
    """A file or folder whose name leads outside is refused, and nothing at all is written."""
    leaf = shelf.add(b"evil", Codec.RAW)
    for entry in (leaf, shelf.directory({"secret": leaf})):
        with pytest.raises(FormatError, match="a directory names an entry"):
            shelf.write(shelf.raw_directory([("0 good", leaf), (name, entry)]), out)
        assert_nothing_happened(out)
    assert not Path("/xorbit-escaped").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_links_that_escape(shelf: Shelf, out: Path, target: str) -> None:
    """A symbolic link that leads outside is refused, and nothing comes to the path."""
    leaf = shelf.add(b"evil", Codec.RAW)
    with pytest.raises(FormatError, match=r"at 'link' in the tree: a symbolic link to"):
        shelf.write(shelf.directory({"0 good": leaf, "link": shelf.link(target)}), out)
    assert_nothing_happened(out, kept=1)


def test_links_that_escape_together(shelf: Shelf, out: Path) -> None:
    """A link that would lead outside by way of another one is refused."""
    below = shelf.directory({"up": shelf.link("..")})
    with pytest.raises(FormatError, match="behind a name it could lead outside"):
        shelf.write(shelf.directory({"d": below, "l": shelf.link("d/up/../secret")}), out)
    assert_nothing_happened(out, kept=1)
    below = shelf.directory({"l": shelf.link("../..")})
    with pytest.raises(FormatError, match=r"at 'd/l' in the tree: .* outside the tree"):
        shelf.write(shelf.directory({"d": below}), out)
    assert_nothing_happened(out, kept=2)


def test_link_without_a_tree(shelf: Shelf, out: Path) -> None:
    """A name that is a symbolic link by itself is not written."""
    with pytest.raises(FormatError, match="outside of any tree"):
        shelf.write(shelf.link("x"), out)
    assert_nothing_happened(out)


def test_nothing_is_written_through_a_link(out: Path) -> None:
    """Where a link stands, nothing is made below it, even by a walk that says so."""
    kept, tree = begun(out)
    tree.add_folder(("real",))
    tree.add_link(("link",), "real")
    with pytest.raises(FormatError, match="there is one of that name already"):
        tree.add_folder(("link",))
    with pytest.raises(FormatError, match="there is one of that name already"):
        tree.add_file(("link",))
    with pytest.raises(AssertionError):
        tree.add_file(("link", "x"))
    tree.keep()
    kept.discard()
    assert_nothing_happened(out)


def test_a_link_in_place_of_a_folder(out: Path) -> None:
    """Who swaps our folder for a link while we write gets nothing written where it leads."""
    kept, tree = begun(out)
    tree.add_folder(("sub",))
    (kept.whole / "sub").rmdir()
    (kept.whole / "sub").symlink_to(out.parent.parent)
    with pytest.raises(WorldError):
        tree.add_file(("sub", "evil"))
    tree.keep()
    kept.discard()
    assert_nothing_happened(out)


def test_names_that_clash(out: Path) -> None:
    """Where a file system takes two names for one, the second is refused, whatever it is."""
    kept, tree = begun(out)
    tree.add_file(("a",)).close()
    for add in (
        lambda: tree.add_file(("a",)),
        lambda: tree.add_folder(("a",)),
        lambda: tree.add_link(("a",), "x"),
    ):
        with pytest.raises(FormatError, match=r"at 'a' in the tree: .* maybe in other letters"):
            add()
    tree.keep()
    kept.discard()
    assert_nothing_happened(out)


def test_open_files_of_a_tree(shelf: Shelf, out: Path) -> None:
    """Few files are open at once, however large the tree, and none after it."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    node = shelf.directory({str(number): shelf.directory({}) for number in range(300)})
    for _ in range(100):
        node = shelf.directory({"d": node})
    shelf.write(node, out)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
