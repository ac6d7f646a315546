"""The local end of a transfer: what a file is read from, and where it is written to.

With its neighbours local_tree.py and new_tree.py (the same for directories) the only files of this
room that touch the disk. All of it blocks, so transfer.py calls it on a worker thread. No network
and no asyncio here.
"""

import errno
import os
import select
import shutil
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from io import SEEK_CUR, SEEK_END, BufferedReader, BytesIO
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, cast

from xorbit.errors import MisuseError, WorldError, WriteError
from xorbit.files.unixfs import CHUNK_BYTES

Source = bytes | Path | BinaryIO
"""What a file is read from: its bytes, its path, or an open binary file from where it stands."""


Identity = tuple[int, int]
"""Device and inode: which file it was that was looked at."""

_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHER_THINGS = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EMLINK)
"""What opening a link, a folder or a socket says."""
_RIGHTS = 0o777
"""Not what makes a program run as its owner: what is in it is new."""


@contextmanager
def open_source(source: Source) -> Generator[BinaryIO]:
    """Open a source for reading; what the caller opened stays open.

    Raises:
        MisuseError: no such file, or a directory.
        WorldError: it cannot be opened.
    """
    if isinstance(source, bytes):
        yield BytesIO(source)
    elif isinstance(source, Path):
        with _open(source) as file:
            yield file
    else:
        yield source


def check_there(path: Path) -> None:
    """Refuse a path at which nothing is, before anything is done for it; opens nothing.

    Raises:
        MisuseError: nothing is there.
        WorldError: it cannot be looked at.
    """
    with _naming(path):
        path.stat()


def _open(path: Path) -> BinaryIO:
    with _naming(path):
        return path.open("rb")


@contextmanager
def _naming(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MisuseError(f"expected the path of a file, but there is none at {path}") from error
    except IsADirectoryError as error:
        raise MisuseError(f"expected the path of a file, but {path} is a directory") from error
    except OSError as error:
        raise WorldError(f"cannot read {path}: {error.strerror}") from error


def size_left(file: BinaryIO) -> int | None:
    """Return how many bytes there are still to read, None where nobody knows (a pipe)."""
    try:
        if not file.seekable():
            return None
        here = file.tell()
        end = file.seek(0, SEEK_END)
        file.seek(here)
        return end - here
    except OSError:
        return None


def read_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of an open file in pieces.

    Raises:
        WorldError: it cannot be read on.
    """
    try:
        while piece := read_some(file, CHUNK_BYTES):
            yield piece
            if len(piece) < CHUNK_BYTES and _was_ended_by_hand(file):
                return
    except OSError as error:
        raise WorldError(f"cannot read the file to its end: {error.strerror}") from error


def _was_ended_by_hand(file: BinaryIO) -> bool:
    """Return whether a short read was the end: asked once more, a terminal wants a second Ctrl-D.

    A buffered reader that may wait gives less than was asked for at the end only.
    """
    return isinstance(file, BufferedReader) and file.isatty() and os.get_blocking(file.fileno())


def read_up_to(file: BinaryIO, size: int) -> bytes:
    """Return the next bytes, less than `size` only where the file ends; as `read_pieces`."""
    data = b""
    for piece in read_pieces(file):
        data += piece
        if len(data) >= size:
            break
    return data[:size]


def read_some(file: BinaryIO, size: int) -> bytes:
    """Return at least one of the next bytes, at most `size`; none at the end, and only there.

    What does not block (O_NONBLOCK, as some parents leave a standard input) is waited for.

    Raises:
        OSError: it cannot be read.
        WorldError: it does not block, and there is nothing to wait for.
    """
    read = cast("Callable[[int], bytes | None]", file.read)  # None: nothing is there at the moment
    while (data := read(size)) is None:
        _wait_for(file)
    return data


def _wait_for(file: BinaryIO) -> None:
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError) as error:
        raise WorldError(
            "cannot read the file to its end: it has nothing to read at this moment, and no "
            "descriptor by which to wait for more"
        ) from error
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    waiting.poll()


class NewFile:
    """A file that appears at its path only when it is whole.

    It is written under a temporary name in the same folder, so that renaming it is atomic. One that
    replaces another has its permissions, so that what was prepared to be private is.
    `discard` at the end removes what was not committed. A character device (/dev/null) is written
    to as it is.
    """

    def __init__(self, path: Path, temporary: Path | None = None) -> None:
        """Write to a path; `temporary` is what an interrupted get left, or where it would be."""
        self._path = Path(os.path.realpath(path))  # what a symbolic link names is replaced, not it
        self._temporary = temporary or self._path.parent / f".xorbit-{token_hex(8)}.part"
        self._goes_on = temporary is not None
        self._file: BinaryIO | None = None
        self._is_device = False

    def open(self) -> None:
        """Make the temporary file.

        Raises:
            MisuseError: the folder does not exist, or at the path is neither a regular file nor a
                character device.
            WorldError: the file cannot be made.
        """
        try:
            self._is_device = self._path.is_char_device()
            if self._path.is_dir():
                raise MisuseError(
                    f"expected a path to write to, but {self._path} is a folder: "
                    "name the new file in it"
                )
            if not self._is_device and self._path.exists() and not self._path.is_file():
                raise MisuseError(
                    f"expected a path to write to, but {self._path} is not a regular file"
                )
            self._file = self._opened()
            if not self._goes_on:  # else nobody looks into the folder in which it grows
                self._take_rights()
        except OSError as error:
            if not self._path.parent.is_dir():
                raise MisuseError(
                    f"no folder {self._path.parent} to write to; make it first"
                ) from error
            raise self._failed(error) from error

    def write(self, data: bytes) -> None:
        """Write the next bytes.

        Raises:
            WorldError: the disk is full or failed.
        """
        assert self._file is not None, "open() comes first"
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def skip(self, size: int, seen: Identity) -> None:
        """Leave the next bytes as they are, which somebody found right in the file `seen`.

        Raises:
            WorldError: this is another file.
        """
        assert self._file is not None, "open() comes first"
        skip(self._file, size, seen, self._path)

    def commit(self) -> None:
        """Put the file on disk and give it its name, over a file that was there before.

        Raises:
            WorldError: the disk is full or failed.
        """
        assert self._file is not None, "open() comes first"
        try:
            self._file.flush()
            if self._is_device:
                return
            self._file.truncate()
            os.fsync(self._file.fileno())
            self._take_rights()  # last: a get that goes on must be able to write to it
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Close, and remove the temporary file if it is still there. Never fails."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def keep(self) -> None:
        """Close, and leave what has come where it is. Never fails."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()

    def _opened(self) -> BinaryIO:
        if self._is_device:
            return self._path.open("wb")
        if not self._goes_on:
            return self._temporary.open("xb")
        return take_over(self._temporary) or self._temporary.open("x+b")

    def _take_rights(self) -> None:
        """Give the new file the permissions, and where one may the owner, of the one before."""
        if self._file is None or not self._path.is_file():
            return
        file, was = self._file.fileno(), self._path.stat()
        now = os.fstat(file)
        if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid):
            with suppress(PermissionError):
                os.fchown(file, was.st_uid, was.st_gid)
        if now.st_mode != was.st_mode:
            os.fchmod(file, was.st_mode & _RIGHTS)

    def _failed(self, error: OSError) -> WorldError:
        return WriteError(f"cannot write {self._path}: {error.strerror}")


def take_over(path: Path | str, folder: int | None = None) -> BinaryIO | None:
    """Open a file that an interrupted get left; remove what is something else, and return None.

    Raises:
        OSError: the disk failed.
    """
    try:
        file = os.open(path, _OLD_FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _OTHER_THINGS:
            raise
        remove(path, folder)
        return None
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return os.fdopen(file, "r+b")
    os.close(file)
    remove(path, folder)
    return None


def remove(path: Path | str, folder: int | None = None) -> None:
    """Remove whatever is at a path, and nothing that a link leads to; raises OSError."""
    try:
        os.unlink(path, dir_fd=folder)
    except (IsADirectoryError, PermissionError):  # macOS says the latter of a folder
        shutil.rmtree(path, dir_fd=folder)


def skip(file: BinaryIO, size: int, seen: Identity, path: Path) -> None:
    """Go on behind bytes that were found right in the file `seen`.

    Raises:
        WorldError: `file` is another one.
    """
    status = os.fstat(file.fileno())
    if (status.st_dev, status.st_ino) != seen:
        raise WriteError(f"cannot write {path}: somebody else changes what is being written")
    file.seek(size, SEEK_CUR)
