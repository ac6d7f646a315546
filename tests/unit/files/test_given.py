"""What callers give to be read or written."""

import io
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

import pytest

from xorbit.errors import MisuseError, WriteError
from xorbit.files.cid import Codec, cid_of_block
from xorbit.files.given import sink_from, source_from
from xorbit.files.local_tree import cid_of


class ShortFile(io.RawIOBase):
    """Takes three bytes at a time, as a pipe may."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = b""

    def write(self, data: Any) -> int:
        taken = bytes(data[:3])
        self.taken += taken
        return len(taken)


class FullFile(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def test_sources_of_every_form(tmp_path: Path) -> None:
    """Bytes, a path as text or as such, and a file from where it stands are read alike."""
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        for given in (b"hello", path, str(path), buffered, raw, io.BytesIO(b"hello")):
            assert cid_of(given) == cid_of_block(b"hello", Codec.RAW)


def test_what_cannot_be_read_is_misuse(tmp_path: Path) -> None:
    """A file of text, one to write to, a closed one and what is none are refused, untouched."""
    closed = io.BytesIO(b"x")
    closed.close()
    with (tmp_path / "out").open("wb") as to_write, NamedTemporaryFile("w+") as text:
        for given in (io.StringIO("abc"), text, to_write, closed, None, 5, ["d"], bytearray(b"x")):
            wrong: Any = given
            with pytest.raises(MisuseError, match=r"expected bytes, a path .* or a file open for"):
                source_from(wrong)


def test_sinks_of_every_form(tmp_path: Path) -> None:
    """A path, a function and a file, which stays open, are what may be written to."""
    assert sink_from(str(tmp_path / "out")) == sink_from(tmp_path / "out") == tmp_path / "out"
    parts: list[bytes] = []
    assert sink_from(parts.append) == parts.append
    short = ShortFile()
    with TemporaryFile() as file:
        for given in (file, short):
            sink: Any = sink_from(given)
            sink(b"hello, ")
            sink(b"world")
        file.seek(0)
        assert file.read() == short.taken == b"hello, world"


def test_what_cannot_be_written_to_is_misuse(tmp_path: Path) -> None:
    """A file of text, one to read, a closed one and what is none are refused."""
    closed = io.BytesIO()
    closed.close()
    (tmp_path / "in").write_bytes(b"x")
    with (tmp_path / "in").open("rb") as to_read, NamedTemporaryFile("w+") as text:
        for given in (io.StringIO(), text, to_read, closed, None, 5, b"out"):
            wrong: Any = given
            with pytest.raises(MisuseError, match=r"expected a path .*, a file open for writing"):
                sink_from(wrong)


def test_a_disk_that_is_full_under_the_callers_file() -> None:
    """What the disk says is told as any other failure to write."""
    sink: Any = sink_from(FullFile())
    with pytest.raises(WriteError, match="No space left"):
        sink(b"x")
