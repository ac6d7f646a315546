"""What has come of a file or a tree before all of it is there, kept so that a later get goes on.

Beside the target, or in it where it is an empty folder, stands a folder `.xorbit-DIGEST.part`,
named after what is got and where to. In it grows `whole`, the file or the folder that gets the
target's name at last, and `nodes`, the inner nodes that led to it. It is locked while somebody
works on it, stays where a get was interrupted, and is not believed: what of it is taken over is
proved by the hash in the name of each block, which came from the network again or was proved
itself. Nothing is written twice: what is there is not copied, only what is missing is fetched and
written in its place.

Reads and writes the disk; all of it blocks, so it is called on a worker thread. No network and no
asyncio here.
"""

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import BinaryIO

from blake3 import blake3
from msgspec import Struct

from xorbit.config import PARTIAL_KEPT_S, PARTIAL_NODES_MAX
from xorbit.errors import FormatError, MisuseError, WriteError
from xorbit.files.cid import CID_BYTES, Cid, cid_of_block, decode_cid
from xorbit.files.local import Identity
from xorbit.files.names import shown
from xorbit.files.unixfs import Child
from xorbit.items import BLOCK_BYTES_MAX

_NAME = re.compile(r"\.xorbit-[0-9a-f]{16}\.part")
_NAME_BYTES = 8
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SIZE_BYTES = 4
_NOTHING = os.stat_result([0] * 10)


class Partial:
    """A place for what is not whole yet: taken over from an interrupted get, or new.

    `open` it; then `commit` it, `keep` it for a later get, or `discard` it.
    """

    def __init__(self, target: Path, what: str) -> None:
        """Work for `target`; `what` says what is got, down to the last byte."""
        self._target = Path(os.path.abspath(target))  # noqa: PTH100 - links in it stay
        digest = blake3(f"{what}\0{self._target.name}".encode(errors="surrogateescape"))
        self._around = self._target if is_empty_folder(self._target) else self._target.parent
        self.folder = self._around / f".xorbit-{digest.hexdigest(_NAME_BYTES)}.part"
        self._lock = -1
        self._nodes: KeptNodes | None = None
        self._is_named = False
        """Whether a later get finds it."""
        self.is_resumed = False
        """Whether something is there from an earlier get."""

    @property
    def whole(self) -> Path:
        """Where the file or the folder grows."""
        return self.folder / "whole"

    @property
    def nodes(self) -> "KeptNodes":
        """The inner nodes that have come."""
        assert self._nodes is not None, "open() comes first"
        return self._nodes

    def open(self) -> None:
        """Take over what is there, unless somebody works on it; else begin anew.

        Where this fails, `keep` or `discard` it all the same.

        Raises:
            MisuseError: the folder around the target does not exist.
            WriteError: the disk is full or failed.
        """
        if not self._around.is_dir():
            raise MisuseError(f"no folder {self._around} to write to; make it first")
        try:
            clear_old(self._around)
            self._is_named = self._take()
            if not self._is_named:  # another get to the same path: it keeps what it has
                self.folder = self._around / f".xorbit-{token_hex(_NAME_BYTES)}.part"
                self.folder.mkdir(0o700)
                self._lock = os.open(self.folder, _FOLDER)
                _try_lock(self._lock)  # against who clears away what is old
            self._nodes = KeptNodes(self.folder / "nodes")
            self.is_resumed = os.path.lexists(self.whole)
            os.utime(self._lock)
        except OSError as error:
            raise WriteError(f"cannot write {self._target}: {error.strerror}") from error

    def look(self, path: Sequence[str], at: int, leaves: Sequence[Child]) -> "Present | None":
        """Say which of some leaves that follow each other stand in a file from a byte on.

        `path` is that of the file in the tree, () of a file that is all there is.
        """
        with _opened(self.whole, path) as (file, status):
            if file < 0:
                return None
            there: list[bool] = []
            for leaf in leaves:
                there.append(_is_there(file, at, leaf))
                at += leaf.size
            return Present(identity_of(status), tuple(there))

    def look_whole(self, path: Sequence[str], leaf: Cid) -> "tuple[Identity, int] | None":
        """Return which file of one leaf is there, and its size; None where it is not the one."""
        with _opened(self.whole, path) as (file, status):
            if file < 0 or not _is_there(file, 0, Child(leaf, status.st_size)):
                return None
            return identity_of(status), status.st_size

    def bytes_there(self) -> int:
        """Return how much of the disk it takes."""
        return sum(path.lstat().st_blocks * 512 for path in (self.whole, *self.whole.rglob("*")))

    def keep(self) -> bool:
        """Let go of it for a later get, and return whether there is anything to go on from."""
        if not self._is_named or not _has_content(self.whole):
            self.discard()
            return False
        if self._nodes is not None:
            self._nodes.close()
        self._unlock()
        return True

    def discard(self) -> None:
        """Remove all of it. Never fails."""
        if self._nodes is not None:
            self._nodes.close()
        if self._lock >= 0:
            shutil.rmtree(self.folder, ignore_errors=True)  # follows no link
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take(self) -> bool:
        """Lock the folder of this get, made if missing; return whether it is ours alone."""
        with suppress(FileExistsError):
            self.folder.mkdir(0o700)
        try:
            lock = os.open(self.folder, _FOLDER)
        except OSError:
            return False  # no folder: somebody else's
        if _try_lock(lock) and _is_ours(lock) and _is_at(lock, self.folder):
            self._lock = lock
            return True
        os.close(lock)
        return False


def is_empty_folder(path: Path) -> bool:
    """Return whether a folder, and no link to one, holds nothing but what gets have left there."""
    try:
        return not path.is_symlink() and all(map(_is_left, path.iterdir()))
    except OSError:
        return False  # who writes to the path says what is wrong with it


def _is_left(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None


@contextmanager
def _opened(whole: Path, path: Sequence[str]) -> Generator[tuple[int, os.stat_result]]:
    """Give a regular file for reading, or -1. Who writes to it looks whether it is that one."""
    file, status = -1, _NOTHING
    with suppress(OSError):
        file = os.open(os.path.join(whole, *path), _FILE)  # noqa: PTH118 - not normalised
        status = os.fstat(file)
    try:
        yield (file if stat.S_ISREG(status.st_mode) else -1), status
    finally:
        if file >= 0:
            os.close(file)


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells one file from all others."""
    return status.st_dev, status.st_ino


class Present(Struct, frozen=True):
    """Which leaves are there already, and in which file that is."""

    identity: Identity
    there: tuple[bool, ...]


def _is_there(file: int, at: int, leaf: Child) -> bool:
    if leaf.size > BLOCK_BYTES_MAX:
        return False  # it lies, which whoever fetches it will say
    try:
        data = os.pread(file, leaf.size, at)
    except OSError:
        return False
    if len(data) != leaf.size:
        return False
    return cid_of_block(data, leaf.cid.codec, leaf.cid.key.kind) == leaf.cid


def _try_lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # somebody has it, or this file system has no locks
    return True


def _is_ours(folder: int) -> bool:
    status = os.fstat(folder)
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_MAY_WRITE


def _is_at(folder: int, path: Path) -> bool:
    """Return whether a folder is still the one at a path, and was not just finished with."""
    try:
        return os.path.samestat(os.fstat(folder), path.lstat())
    except OSError:
        return False


def _has_content(whole: Path) -> bool:
    """Return whether any byte has come."""
    if not whole.is_dir() or whole.is_symlink():
        return whole.is_file() and whole.stat().st_size > 0
    with os.scandir(whole) as entries:
        return any(entries)


def clear_old(folder: Path) -> None:
    """Remove what gets into a folder left a week ago and nobody went on with. Never fails."""
    oldest = time.time() - PARTIAL_KEPT_S
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with suppress(OSError):
                    _clear(Path(entry.path), oldest)


def _clear(path: Path, oldest: float) -> None:
    status = path.lstat()
    if status.st_mtime >= oldest or status.st_uid != os.geteuid():
        return
    if not stat.S_ISDIR(status.st_mode):
        path.unlink()  # of an earlier version, or of what is not resumed
        return
    lock = os.open(path, _FOLDER)
    try:
        if _try_lock(lock):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


# --- Nodes --------------------------------------------------------------------------------------


class KeptNodes:
    """The inner nodes of a tree in a file, one after the other: size, CID, bytes.

    What is read of them is proved again. At most 65,536 are kept. Several threads may use it.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file; raises OSError."""
        self._adding = Lock()
        self._places: dict[Cid, tuple[int, int]] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "r+b")
        self._end = 0
        self._find_all()

    def get(self, cid: Cid) -> bytes | None:
        """Return a node that is there and proves itself."""
        place = self._places.get(cid)
        if place is None:
            return None
        data = os.pread(self._file.fileno(), place[1], place[0])
        return data if cid_of_block(data, cid.codec, cid.key.kind) == cid else None

    def add(self, cid: Cid, data: bytes) -> None:
        """Keep a node; of private content, which proves itself only sealed, none is.

        Raises:
            WriteError: the disk is full or failed.
        """
        if cid_of_block(data, cid.codec, cid.key.kind) == cid:
            with self._adding:
                self._add(cid, data)

    def _add(self, cid: Cid, data: bytes) -> None:
        if cid in self._places or len(self._places) >= PARTIAL_NODES_MAX:
            return
        entry = len(data).to_bytes(_SIZE_BYTES, "big") + bytes(cid) + data
        try:
            self._file.write(entry)
            self._file.flush()
        except OSError as error:
            raise WriteError(f"cannot write {shown(self._file.name)}: {error.strerror}") from error
        self._places[cid] = (self._end + len(entry) - len(data), len(data))
        self._end += len(entry)

    def close(self) -> None:
        """Let go of the file. Never fails."""
        with suppress(OSError):
            self._file.close()

    def _find_all(self) -> None:
        """Note what is there; cut off what a kill left of the last one."""
        size = os.fstat(self._file.fileno()).st_size
        while len(self._places) < PARTIAL_NODES_MAX:
            head = os.pread(self._file.fileno(), _SIZE_BYTES + CID_BYTES, self._end)
            length = int.from_bytes(head[:_SIZE_BYTES], "big")
            begin = self._end + len(head)
            if len(head) < _SIZE_BYTES + CID_BYTES or begin + length > size:
                break
            if length > BLOCK_BYTES_MAX:
                break
            try:
                self._places[decode_cid(head[_SIZE_BYTES:])] = (begin, length)
            except FormatError:
                break
            self._end = begin + length
        self._file.truncate(self._end)
        self._file.seek(self._end)
