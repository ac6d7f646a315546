"""The local end: what can be read, and files that appear only when they are whole."""

import errno
import os
from io import BufferedReader, BytesIO, UnsupportedOperation
from pathlib import Path

import pytest

from tests.unit.files.fakes import SlowPipe, file_vectors, names, vector_content
from xorbit.errors import MisuseError, WorldError
from xorbit.files.cid import Codec, cid_of_block
from xorbit.files.local import NewFile, open_source, read_pieces, read_up_to, size_left
from xorbit.files.local_tree import cid_of
from xorbit.items import Kind

CONTENT = b"some bytes" * 10_000
TOO_LONG = Path("x" * 300)


def test_name_without_a_network(tmp_path: Path) -> None:
    """Bytes, the file that holds them and the same file opened have one name, the vectors'."""
    vector = next(vector for vector in file_vectors() if vector["size"] == 200_000)
    content = b"".join(vector_content(200_000, vector["a"], vector["b"]))
    path = tmp_path / "file"
    path.write_bytes(content)
    for source in (content, path, BytesIO(content)):
        assert str(cid_of(source, Kind.BLOCK_SHA2_256)) == vector["cid"]


def test_open_file_is_read_from_where_it_stands() -> None:
    """What the caller has read of an open file is not part of the file, and it stays open."""
    file = BytesIO(b"header" + b"body")
    file.seek(6)
    assert cid_of(file) == cid_of_block(b"body", Codec.RAW)
    assert not file.closed


def test_what_is_typed_ends_once() -> None:
    """One Ctrl-D ends it: whoever asked a terminal for more after that would wait for another."""
    leader, follower = os.openpty()
    try:
        os.write(leader, b"typed\n\x04")
        with os.fdopen(follower, "rb") as file:
            assert list(read_pieces(file)) == [b"typed\n"]
    finally:
        os.close(leader)


def test_path_is_closed(tmp_path: Path) -> None:
    """A file that was opened by its path is closed after use."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with open_source(path) as file:
        assert file.read() == CONTENT
    assert file.closed


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing", MisuseError, "there is none at"),
        ("", MisuseError, "is a directory"),
        (str(TOO_LONG), WorldError, "cannot read .*File name too long"),
    ],
    ids=["missing", "directory", "unreadable"],
)
def test_no_source(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    """A source that cannot be opened says whose fault it is."""
    with pytest.raises(error, match=message), open_source(tmp_path / name):
        pass


def test_source_breaks_off() -> None:
    """A disk that fails in the middle of a file is the world's fault."""

    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(WorldError, match="Input/output error"):
        cid_of(Broken())


def test_a_pipe_that_does_not_block_is_read_to_its_end() -> None:
    """That nothing is there at the moment is not the end: it is waited for, also under a buffer."""
    parts = (b"a" * 1_000, b"b" * 10, b"c")
    with SlowPipe(*parts) as pipe:
        assert cid_of(pipe) == cid_of(b"".join(parts))
    with BufferedReader(SlowPipe(*parts)) as pipe:
        assert cid_of(pipe) == cid_of(b"".join(parts))
    with SlowPipe(*parts) as pipe:
        assert read_up_to(pipe, 1_005) == b"".join(parts)[:1_005]


def test_a_file_that_cannot_be_waited_for_is_not_cut_off() -> None:
    """Without a descriptor there is no way to wait for more, and that is said."""

    class Nothing(BytesIO):
        def read(self, size: int | None = -1) -> bytes | None:
            return super().read(size) or (None if size else b"")

    with pytest.raises(WorldError, match="no descriptor by which to wait for more"):
        cid_of(Nothing(CONTENT))


def test_size_left() -> None:
    """The size of what is left to read is known where the file can be wound, and only there."""
    file = BytesIO(CONTENT)
    file.seek(10)
    assert size_left(file) == len(CONTENT) - 10
    assert file.tell() == 10

    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert size_left(pipe) is None

    class Liar(BytesIO):
        def tell(self) -> int:
            raise UnsupportedOperation("tell")

    assert size_left(Liar()) is None


# --- New files ----------------------------------------------------------------------------------


def test_new_file_appears_whole(tmp_path: Path) -> None:
    """Until it is committed, a path shows what was there before; then the new file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    file = NewFile(path)
    file.open()
    file.write(b"new ")
    assert path.read_bytes() == b"old"
    file.write(b"file")
    file.commit()
    file.discard()
    assert path.read_bytes() == b"new file"
    assert names(tmp_path) == ["file"]


def test_new_file_has_usual_rights(tmp_path: Path) -> None:
    """A new file may be read by whoever may read any other new file of this user."""
    file = NewFile(tmp_path / "file")
    file.open()
    file.commit()
    (tmp_path / "other").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444, 0o4755])
def test_a_file_that_is_replaced_keeps_its_rights(tmp_path: Path, mode: int) -> None:
    """What was prepared to be private is so from the first byte on; nothing runs as its owner."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    file = NewFile(path)
    file.open()
    file.write(b"x")
    [growing] = tmp_path.glob(".xorbit-*.part")
    assert growing.stat().st_mode & 0o7777 == mode & 0o777
    file.commit()
    assert path.stat().st_mode & 0o7777 == mode & 0o777


def test_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    """What was not committed leaves no trace, whether or not it was opened."""
    NewFile(tmp_path / "file").discard()
    file = NewFile(tmp_path / "file")
    file.open()
    file.write(b"half")
    file.discard()
    assert names(tmp_path) == []


def test_symbolic_link_stays(tmp_path: Path) -> None:
    """Writing to a symbolic link replaces the file that it names, not the link."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    file = NewFile(tmp_path / "link")
    file.open()
    file.write(b"new")
    file.commit()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", MisuseError, "is a folder: name the new file in it"),
        ("/", MisuseError, "is a folder"),
        ("fifo", MisuseError, "is not a regular file"),
        ("missing/file", MisuseError, "no folder .*make it first"),
        ("plain/file", MisuseError, "no folder .*make it first"),
        ("/proc/x", WorldError, "cannot write /proc/x: No such file"),
        (str(TOO_LONG), WorldError, "cannot write .*File name too long"),
    ],
    ids=["directory", "root", "fifo", "no folder", "file as folder", "proc", "unusable"],
)
def test_no_target(tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    """A path that cannot be written to is refused before a byte is fetched, and left as it was."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "plain").touch()
    file = NewFile(tmp_path / name)
    with pytest.raises(error, match=message):
        file.open()
    file.discard()
    assert names(tmp_path) == ["fifo", "plain"]


def test_a_character_device_is_written_to_as_it_is() -> None:
    """/dev/null takes everything, stays what it is, and nothing appears beside it."""
    file = NewFile(Path("/dev/null"))
    file.open()
    file.write(b"gone")
    file.commit()
    file.discard()
    assert Path("/dev/null").is_char_device()
    assert not list(Path("/dev").glob(".xorbit-*"))


class FullDisk(BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        self.write(b"")


def test_full_disk(tmp_path: Path) -> None:
    """A full disk is the world's fault, is said so, and leaves no half file behind."""
    file = NewFile(tmp_path / "file")
    file.open()
    assert file._file is not None
    file._file.close()
    file._file = FullDisk()
    with pytest.raises(WorldError, match=r"cannot write .*No space left on device"):
        file.write(b"more")
    with pytest.raises(WorldError, match="No space left on device"):
        file.commit()
    file.discard()
    assert names(tmp_path) == []
