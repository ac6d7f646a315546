"""Files, directories and symbolic links that are written from blocks, and nowhere but where asked.

Writes the disk; all of it blocks, so it is called on a worker thread. No network and no asyncio
here. A tree is written beside its path (`partial.py` says where) and renamed when it is whole; an
empty folder at the path stays what it is, and gets what is in the tree then. What
a stranger named is made relative to a folder that is held open, never through a symbolic link, so
it is inside that folder whatever the tree says; where this file system takes two names for one (A
and a), the second is refused.
"""

import errno
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from xorbit.config import SYNCED_FILES_MAX
from xorbit.errors import FormatError, LeadsOutError, MisuseError, WorldError, WriteError
from xorbit.files.cid import Cid
from xorbit.files.directory import Directory, SymbolicLink
from xorbit.files.hamt import Shard
from xorbit.files.local import Identity, remove, skip, take_over
from xorbit.files.names import check_file_name, check_target, shown
from xorbit.files.partial import is_empty_folder
from xorbit.files.tree import Entry, Found
from xorbit.files.unixfs import FileNode

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o777
_FILE_MODE = 0o666
"""Less what the umask takes, as for every other new file of this user."""
_ENDLESS_BYTES = 2**64


class NewTree:
    """A folder that appears at its path, or fills an empty one, only when everything is there.

    Entries come as a walk comes by them: a folder before what is in it, and nothing more into it
    once something outside has come. `keep` at the end.
    """

    def __init__(self, path: Path, temporary: Path) -> None:
        """Write to a path; `temporary` is what an interrupted get left, or where it would be.

        What is taken over from there is opened as new things are made: in a folder that is held
        open, and through no link. What the walk does not come by is removed.
        """
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - links in it stay
        self._temporary = temporary
        self._names: list[str] = []
        self._folders: list[int] = []
        """Descriptors of the top and of the folders below it that `_names` names."""
        self._left: list[set[str]] = []
        """What was in each of them before, and has not come yet."""

    def open(self) -> None:
        """Make the temporary folder.

        Raises:
            MisuseError: the folder around it does not exist, or something is at the path already
                (an empty folder is filled).
            WorldError: the folder cannot be made.
        """
        if not self._path.parent.is_dir():
            raise MisuseError(f"no folder {self._path.parent} to write to; make it first")
        try:
            if os.path.lexists(self._path) and not is_empty_folder(self._path):
                raise MisuseError(
                    f"expected a path for a new folder, but there is something at {self._path}: "
                    "choose another path, or remove it"
                )
            self._make_top()
        except OSError as error:
            raise self._failed(error) from error

    def add_folder(self, path: tuple[str, ...]) -> None:
        """Make a folder.

        Raises:
            FormatError: a name that may not be written, or that is there already.
            WorldError: the disk is full or failed.
        """
        with self._making(path) as (folder, name):
            old = self._take(name)
            if old and not _is_folder(name, folder):
                remove(name, folder)
                old = False
            if not old:
                os.mkdir(name, _FOLDER_MODE, dir_fd=folder)
            self._push(os.open(name, _FOLDER, dir_fd=folder), old=old)
            self._names.append(name)

    def add_file(self, path: tuple[str, ...]) -> BinaryIO:
        """Make a file and return it open, to be written to and closed by the caller.

        Raises:
            FormatError: a name that may not be written, or that is there already.
            WorldError: the disk is full or failed.
        """
        with self._making(path) as (folder, name):
            if self._take(name) and (file := take_over(name, folder)):
                return file
            return os.fdopen(os.open(name, _NEW_FILE, _FILE_MODE, dir_fd=folder), "wb")

    def add_link(self, path: tuple[str, ...], target: str) -> None:
        """Make a symbolic link, which nothing is ever written through.

        Raises:
            FormatError: a name that may not be written, or that is there already.
            LeadsOutError: a target that may lead outside the tree; nothing is changed then.
            WorldError: the disk is full or failed.
        """
        with self._making(path) as (folder, name):
            said = check_target(target, len(path) - 1)
            if self._take(name):
                remove(name, folder)
            os.symlink(said, name, dir_fd=folder)

    def commit(self, *, sync: bool = True) -> None:
        """Put everything on disk, unless its caller has, and give the folder its name.

        An empty folder at the path may be a mount point, or where somebody works, and has rights of
        its own: it is not replaced.

        Raises:
            WorldError: the disk is full or failed, or something is at the path meanwhile.
        """
        try:
            self._clear_left(self._left)
            if sync:
                os.sync()  # of 5,000 files: 0.1 s, where one fsync for each takes 20 s
            if os.path.lexists(self._path):
                self._fill()
            else:
                self._temporary.rename(self._path)
        except OSError as error:
            raise self._failed(error) from error

    def keep(self) -> None:
        """Close, and leave what has come where it is. Never fails."""
        while self._folders:
            with suppress(OSError):
                os.close(self._folders.pop())

    @contextmanager
    def _making(self, path: tuple[str, ...]) -> Generator[tuple[int, str]]:
        """Give the folder in which to make a path, and its name there; say what went wrong."""
        try:
            name = check_file_name(path[-1])
            yield self._enter(path[:-1]), name
        except FormatError as error:
            raise type(error)(f"at {shown('/'.join(path))} in the tree: {error}") from error
        except FileExistsError as error:
            raise FormatError(
                f"at {shown('/'.join(path))} in the tree: for this file system there is one of "
                "that name already, maybe in other letters"
            ) from error
        except OSError as error:
            raise self._failed(error, "/".join(path)) from error

    def _enter(self, path: tuple[str, ...]) -> int:
        while len(self._names) > len(path):
            self._clear_left(self._left[-1:])
            os.close(self._folders.pop())
            self._left.pop()
            self._names.pop()
        assert tuple(self._names) == path, "a folder comes before what is in it"
        return self._folders[-1]

    def _make_top(self) -> None:
        old = os.path.lexists(self._temporary)
        if old and not _is_folder(self._temporary):
            remove(self._temporary)
            old = False
        if not old:
            self._temporary.mkdir()
        self._push(os.open(self._temporary, _FOLDER), old=old)

    def _fill(self) -> None:
        """Move what is in the tree to the empty folder at the path."""
        if not is_empty_folder(self._path):
            raise FileExistsError(errno.EEXIST, "something has come there meanwhile")
        target = os.open(self._path, _FOLDER)
        try:
            _move_all(self._folders[0], target)
        finally:
            os.close(target)

    def _push(self, folder: int, *, old: bool) -> None:
        self._folders.append(folder)
        self._left.append(set(os.listdir(folder)) if old else set())

    def _take(self, name: str) -> bool:
        """Return whether a name in the innermost folder was there before, and has not come yet."""
        left = self._left[-1]
        if name not in left:
            return False
        left.remove(name)
        return True

    def _clear_left(self, levels: list[set[str]]) -> None:
        """Remove what was in the last so many open folders and is no part of the tree."""
        for folder, left in zip(self._folders[-len(levels) :], levels, strict=True):
            for name in left:
                remove(name, folder)
            left.clear()

    def _failed(self, error: OSError, below: str = "") -> WorldError:
        where = self._path / below if below else self._path
        return WriteError(f"cannot write {shown(str(where))}: {error.strerror}")


def _move_all(old: int, new: int) -> None:
    """Move what is in one folder to another one; all of it, or nothing where that fails."""
    moved: list[str] = []
    try:
        for name in os.listdir(old):
            os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
            moved.append(name)
    except OSError:
        for name in moved:
            os.rename(name, name, src_dir_fd=new, dst_dir_fd=old)
        raise


def _is_folder(name: str | Path, folder: int | None = None) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


# --- From blocks --------------------------------------------------------------------------------


class Written(Struct, frozen=True):
    """What was written: how many files, folders (the top one too) and symbolic links, and bytes."""

    files: int = 0
    folders: int = 0
    links: int = 0
    bytes: int = 0
    skipped: int = 0
    """How many symbolic links were left out because they lead out of the folder."""
    resumed_bytes: int = 0
    """What of the bytes an interrupted get had left there."""


def lone_link(root: Found) -> FormatError:
    """Return what to raise where a symbolic link is to be written that is in no tree."""
    assert isinstance(root.node, SymbolicLink), "it is one"
    target = shown(root.node.target)
    return FormatError(f"{root.cid} is a symbolic link to {target}, outside of any tree")


class TreeWriter:
    """A directory that is written entry by entry, as a walk comes by them; counts what it writes.

    `keep` at the end.
    """

    def __init__(
        self, path: Path, temporary: Path, there_bytes: int = 0, *, skip_links: bool = False
    ) -> None:
        """Write to a path at which nothing is, or an empty folder.

        `temporary` is as in `NewTree`; so many bytes are there already. With `skip_links` symbolic
        links that lead out of the folder are left out.
        """
        self._skips_links = skip_links
        self._path = path
        self._tree = NewTree(path, temporary)
        self._room = Room(path, there_bytes)
        self._file: BinaryIO | None = None
        self.written = Written()

    def open(self) -> None:
        """Make the temporary folder; raises as `NewTree.open`."""
        self._tree.open()
        self._count(folders=1)

    def add(self, entry: Entry) -> None:
        """Make a folder, a link, or a file to which `write` and then `end_file` belong.

        Raises:
            FormatError: as `NewTree`.
            WorldError: the disk is full, also for what a file says that it has, or failed.
        """
        match entry.found.node:
            case Directory() | Shard():
                self._tree.add_folder(entry.path)
                self._count(folders=1)
            case SymbolicLink(target):
                self._add_link(entry.path, target)
            case FileNode() | None as node:
                self._room.take(entry.found.cid, 0 if node is None else node.size)
                self._file = self._tree.add_file(entry.path)
                self._count(files=1)

    def _add_link(self, path: tuple[str, ...], target: str) -> None:
        try:
            self._tree.add_link(path, target)
        except LeadsOutError:
            if not self._skips_links:
                raise
            self._count(skipped=1)
        else:
            self._count(links=1)

    def write(self, piece: bytes) -> None:
        """Write the next bytes of the file that was added last.

        Raises:
            WorldError: the disk is full or failed.
        """
        assert self._file is not None, "a file comes before its bytes"
        with self._writing():
            self._file.write(piece)
        self._count(size=len(piece))

    def skip(self, size: int, seen: Identity) -> None:
        """Leave the next bytes of that file as they are, found right in the file `seen`.

        Raises:
            WorldError: this is another file.
        """
        assert self._file is not None, "a file comes before its bytes"
        with self._writing():
            skip(self._file, size, seen, self._path)
        self._count(size=size, resumed=size)

    def end_file(self) -> None:
        """Write what is left of the file that was added last; raises as `write`."""
        assert self._file is not None, "a file comes before its end"
        with self._writing():
            self._file.truncate()
            if self.written.files <= SYNCED_FILES_MAX:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()

    def commit(self) -> None:
        """Give the folder its name; raises as `NewTree.commit`."""
        # To sync all waits for what other programs write as well, which may take minutes.
        self._tree.commit(sync=self.written.files > SYNCED_FILES_MAX)

    def keep(self) -> None:
        """Close, and leave what has come where it is. Never fails."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._tree.keep()

    def _count(
        self,
        files: int = 0,
        folders: int = 0,
        links: int = 0,
        size: int = 0,
        skipped: int = 0,
        resumed: int = 0,
    ) -> None:
        was = self.written
        self.written = Written(
            was.files + files,
            was.folders + folders,
            was.links + links,
            was.bytes + size,
            was.skipped + skipped,
            was.resumed_bytes + resumed,
        )

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(f"cannot write {self._path}: {error.strerror}") from error


class Room:
    """What the disk has left, held against what files say that they are before they are fetched."""

    def __init__(self, path: Path, there_bytes: int = 0) -> None:
        """Look at the disk on which `path` is, or will be; so many bytes are there already."""
        self._path = path
        self._left = _free_bytes(path) + there_bytes

    def take(self, cid: Cid, size: int) -> None:
        """Count in what is to be written of a file.

        Raises:
            WorldError: there is no room for what it says that this is.
        """
        self._left -= size
        if self._left < 0:
            raise WriteError(
                f"{cid} says that there are {size:,} bytes to write, {-self._left:,} more than are "
                f"free at {self._path}"
            )


def _free_bytes(path: Path) -> int:
    if path.is_char_device():
        return _ENDLESS_BYTES
    try:
        return shutil.disk_usage(path if path.is_dir() else path.parent).free
    except OSError:
        return _ENDLESS_BYTES  # who opens the path says what is wrong with it
