"""A folder that is held open, and what is below it, reached safely.

Reads and writes the disk; all of it blocks, so it is called on a worker thread. What a stranger
named is reached from the top by folders that are held open themselves, never through a symbolic
link, so it is inside whatever the tree says and whatever links the user made.
"""

import errno
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xorbit.errors import WorldError
from xorbit.files.names import shown

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_MODE = 0o777
_PERMISSIONS = 0o777

TreePath = tuple[str, ...]
"""Where something is below the top."""
Look = tuple[int, int, int, int, int]
"""What tells that something is untouched: mode, inode, size, and when it was changed last."""


def look_of(status: os.stat_result) -> Look:
    """Return what of a status tells that something is untouched."""
    return (
        status.st_mode,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def keep_permissions(source: Path, of: Look) -> None:
    """Give a file the permissions of the one that it is to replace; raises OSError."""
    source.chmod(of[0] & _PERMISSIONS)


@contextmanager
def writing(path: Path, below: TreePath = ()) -> Generator[None]:
    """Say what could not be written.

    Raises:
        WorldError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = shown(str(path.joinpath(*below)))
        raise WorldError(f"cannot write {where}: {error.strerror}") from error


class Folder:
    """A folder that is held open, and what is below it."""

    def __init__(self, path: Path) -> None:
        """Open it; raises OSError."""
        self.path = path
        self._names: list[str] = []
        self._folders = [os.open(path, _FOLDER)]

    def close(self) -> None:
        """Let go of it."""
        self.forget()
        while self._folders:
            os.close(self._folders.pop())

    def forget(self) -> None:
        """Let go of the folders below, which may not be where they were any more."""
        while len(self._folders) > 1:
            os.close(self._folders.pop())
        self._names.clear()

    def enter(self, path: TreePath) -> int:
        """Return a descriptor of a folder below, good until the next call; raises OSError."""
        common = 0
        for mine, wanted in zip(self._names, path, strict=False):
            if mine != wanted:
                break
            common += 1
        while len(self._names) > common:
            os.close(self._folders.pop())
            self._names.pop()
        for name in path[common:]:
            self._folders.append(os.open(name, _FOLDER, dir_fd=self._folders[-1]))
            self._names.append(name)
        return self._folders[-1]

    def status(self, path: TreePath) -> os.stat_result | None:
        """Return what is there, of a link the link; None where nothing is, or no way to it.

        Raises:
            WorldError: it cannot be told.
        """
        try:
            return os.stat(path[-1], dir_fd=self.enter(path[:-1]), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # what some systems say of a link on the way
                return None
            where = shown(str(self.path.joinpath(*path)))
            raise WorldError(f"cannot read {where}: {error.strerror}") from error

    def target(self, path: TreePath) -> str:
        """Return what a symbolic link says; raises OSError."""
        return os.readlink(path[-1], dir_fd=self.enter(path[:-1]))

    def open_file(self, path: TreePath) -> BinaryIO | None:
        """Open a file for reading; None where there is none that can be read."""
        try:
            opened = os.open(path[-1], _FILE, dir_fd=self.enter(path[:-1]))
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            return None
        return os.fdopen(opened, "rb")

    # --- Changes; all raise OSError -----------------------------------------------------------

    def make_folder(self, path: TreePath) -> None:
        """Make a folder where nothing is."""
        os.mkdir(path[-1], _FOLDER_MODE, dir_fd=self.enter(path[:-1]))

    def make_link(self, path: TreePath, target: str) -> None:
        """Make a symbolic link where nothing is."""
        os.symlink(target, path[-1], dir_fd=self.enter(path[:-1]))

    def place(self, source: Path, path: TreePath) -> None:
        """Move a file to where nothing is; where something is meanwhile, FileExistsError."""
        folder = self.enter(path[:-1])
        try:
            os.link(source, path[-1], dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system
            if self.status(path) is not None:
                raise FileExistsError from None
            os.rename(source, path[-1], dst_dir_fd=folder)
            return
        source.unlink()

    def replace(self, source: Path, path: TreePath) -> None:
        """Move a file or a link over one that is there."""
        os.rename(source, path[-1], dst_dir_fd=self.enter(path[:-1]))

    def remove(self, path: TreePath) -> None:
        """Remove a file or a link."""
        os.unlink(path[-1], dir_fd=self.enter(path[:-1]))

    def remove_folder(self, path: TreePath) -> bool:
        """Remove a folder unless something is in it; return whether it is gone."""
        parent = self.enter(path[:-1])
        try:
            os.rmdir(path[-1], dir_fd=parent)
        except OSError:
            return False
        return True

    def sync(self, folders: Iterable[TreePath]) -> None:
        """Put on disk what these folders name."""
        for path in folders:
            os.fsync(self.enter(path))
