"""Files, directories and symbolic links of this machine as blocks, and their name.

Reads the disk and writes nothing; all of it blocks, so it is called on a worker thread. No network
and no asyncio here. Modes, times and owners are not part of a tree; a symbolic link is stored as
what it says and not followed, but the path that a user gives may be one. A mirror's own folder at
its top is no part of it, so that a mirror has the name of what it mirrors.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xorbit.config import TREE_DEPTH_MAX
from xorbit.errors import MisuseError, WorldError
from xorbit.files.cid import Cid
from xorbit.files.directory import DirectoryBuilder, Held, build_symbolic_link, check_new_name
from xorbit.files.given import GivenSource, source_from
from xorbit.files.local import Source, open_source, read_pieces
from xorbit.files.names import MIRROR_FOLDER
from xorbit.files.sealed import Making, content_bytes
from xorbit.files.unixfs import build_file
from xorbit.items import Kind

Blocks = Iterator[tuple[Cid, bytes]]
Refuse = Callable[[Path, list[str]], None]
"""Raises where files of a folder, called so, are not to go out."""


def cid_of(source: GivenSource, kind: Kind = Kind.BLOCK_BLAKE3_256) -> Cid:
    """Return the name that a put of this source gives, without a network. Blocks while it reads.

    A mirror has the name of the tree that it mirrors, if nobody changed it: `.xorbit-mirror` at the
    top of a directory is left out.

    Args:
        source: The bytes of a file, the path of a file or directory, or a file open for reading
            bytes.
        kind: The hash that names the blocks.

    Raises:
        MisuseError: nothing is there; in a directory is what is neither file, directory nor
            symbolic link (a socket, a device), or a name that is not UTF-8; too many entries or
            too deep; `kind` is no hash of blocks.
        WorldError: it cannot be read.
    """
    [(cid, _)] = deque(build_source(source_from(source), kind), maxlen=1)
    return cid


def build_source(source: Source, kind: Making = Kind.BLOCK_BLAKE3_256) -> Blocks:
    """Yield the blocks of a file or of a whole directory, children before parents, the root last.

    Memory holds what `build_file` says, and the entries of the directories on the way from the root
    to where it is. Directories are gone through in the order of their names' bytes.

    Raises:
        MisuseError: nothing is there; in a directory is what is neither file, directory nor
            symbolic link (a socket, a device), or a name that is not UTF-8; too many entries or
            too deep; `kind` is no hash of blocks.
        WorldError: it cannot be read.
    """
    if isinstance(source, Path) and _is_directory(source):
        yield from _Tree(kind).directory(source, 1)
        return
    with open_source(source) as file:
        yield from build_file(read_pieces(file), kind)


def look_through(path: Path, refuse: Refuse) -> None:
    """Have a file, or each folder of a directory, looked at before anything of it goes out.

    What is missing, cannot be read or is too deep, whoever reads the tree complains of.

    Raises:
        Exception: whatever `refuse` raised.
    """
    path = Path(os.path.realpath(path))  # what a link or a dot names is what goes out
    if not _is_directory(path):
        refuse(path.parent, [path.name])
        return
    ahead = [(path, 1)]
    while ahead:
        folder, depth = ahead.pop()
        files, folders = _files_and_folders(folder)
        refuse(folder, files)
        if depth < TREE_DEPTH_MAX:
            ahead += [(folder / name, depth + 1) for name in folders]


def _files_and_folders(path: Path) -> tuple[list[str], list[str]]:
    with suppress(OSError), os.scandir(path) as entries:
        found = list(entries)
        return (
            [entry.name for entry in found if entry.is_file(follow_symlinks=False)],
            [entry.name for entry in found if entry.is_dir(follow_symlinks=False)],
        )
    return [], []


def tree_bytes(path: Path) -> int | None:
    """Return how many bytes the files of a directory have together, or one file; None: unknown.

    Only an estimate for people who wait: whoever reads the tree says what is wrong with it.
    """
    try:
        if not path.is_dir():
            return path.stat().st_size if path.is_file() else None
        size = 0
        for top, folders, names in os.walk(path):
            size += sum(_size(Path(top) / name) for name in names)
            if Path(top) == path and MIRROR_FOLDER in folders:
                folders.remove(MIRROR_FOLDER)
        return size
    except OSError:
        return None


def _size(path: Path) -> int:
    status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class _Tree:
    def __init__(self, kind: Making) -> None:
        self._kind = kind
        self._held = Held()

    def directory(self, path: Path, depth: int) -> Blocks:
        if depth > TREE_DEPTH_MAX:
            raise MisuseError(f"{_shown(path)} is deeper than {TREE_DEPTH_MAX} directories")
        builder = DirectoryBuilder(self._kind, self._held)
        names = sorted(_names(path), reverse=True)
        if depth == 1 and MIRROR_FOLDER in names and stat.S_ISDIR(_mode(path / MIRROR_FOLDER)):
            names.remove(MIRROR_FOLDER)
        while names:
            name = names.pop()
            with _naming(path):
                check_new_name(name)  # before much is read for it in vain
            root: Cid | None = None
            dag_size = 0
            for root, data in self._entry(path / name, depth):
                dag_size += content_bytes(len(data), self._kind)
                yield root, data
            assert root is not None, "everything has a root"
            with _naming(path):
                builder.add(name, root, dag_size)
        with _naming(path):
            yield from builder.finish()

    def _entry(self, path: Path, depth: int) -> Blocks:
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            yield from self.directory(path, depth + 1)
        elif stat.S_ISLNK(mode):
            with _naming(path):
                yield build_symbolic_link(_target(path), self._kind)
        elif stat.S_ISREG(mode):
            with open_source(path) as file:
                yield from build_file(read_pieces(file), self._kind)
        else:
            raise MisuseError(
                "expected files, directories and symbolic links, "
                f"but {_shown(path)} is none of them"
            )


@contextmanager
def _naming(path: Path) -> Generator[None]:
    try:
        yield
    except MisuseError as error:
        raise MisuseError(f"{_shown(path)}: {error}") from error


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise WorldError(f"cannot read {_shown(path)}: {error.strerror}") from error


def _is_directory(path: Path) -> bool:
    with _reading(path):
        return path.is_dir()


def _names(path: Path) -> list[str]:
    with _reading(path):
        return os.listdir(path)  # noqa: PTH208 - text takes a fraction of the memory of paths


def _mode(path: Path) -> int:
    with _reading(path):
        return path.lstat().st_mode


def _target(path: Path) -> str:
    with _reading(path):
        return os.readlink(path)  # noqa: PTH115 - a path would lose a leading ./


def _shown(path: Path) -> str:
    # A path that is not UTF-8 could not be printed.
    return os.fsencode(path).decode(errors="backslashreplace")
