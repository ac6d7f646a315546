"""The folder of a mirror, and what the mirror notes about it.

Reads and writes the disk; all of it blocks, so it is called on a worker thread. No network and no
asyncio here. Beside what is mirrored stands one folder of the mirror's own, `.xorbit-mirror`:

| in it | |
| --- | --- |
| `state.json` | whose record is mirrored, which version is here, which one is being put in place |
| `seen` | how each file looked when it was known to be as its version names it; may be lost |
| `nodes/` | the inner blocks of these versions, by their CIDs; each proves itself |
| `stage/` | files of a version that is coming, until all of them are there |
| `lock` | held by the one process that works on the folder |
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import msgspec
from msgspec import Struct

from xorbit.config import SYNCED_FILES_MAX
from xorbit.errors import MisuseError, WorldError
from xorbit.files.cid import CID_CHARACTERS, Cid, cid_of_block, parse_cid
from xorbit.files.held_folder import Folder, Look, TreePath, look_of, writing
from xorbit.files.names import MIRROR_FOLDER

STATE_FOLDER = MIRROR_FOLDER
PART = ".part"
LEFT = ".left"

_FORMAT = 1


class Version(Struct, frozen=True):
    """A version of the mirrored tree: the sequence number of its record, the CID of its root."""

    seq: int
    root: str


class State(Struct, frozen=True):
    """What `state.json` says."""

    public_key: str
    salt: str
    """Both in hexadecimal digits."""
    at: Version | None = None
    """What is here, but for what a user changed."""
    coming: tuple[Version, ...] = ()
    """What was being put in place, the latest last: each file is of one of these versions or of
    that before."""

    @property
    def versions(self) -> tuple[Version, ...]:
        """All versions that files here may be of."""
        return self.coming if self.at is None else (self.at, *self.coming)

    format: int = _FORMAT


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """A file that was as its CID says when it looked like this."""

    cid: bytes
    look: Look


class Nodes:
    """The inner blocks of trees, each in a file of its own; a damaged one is as good as none."""

    def __init__(self, path: Path) -> None:
        """Keep them in a folder that is there."""
        self._path = path
        self.failed = False
        """Whether the disk was full, or failed."""

    def read(self, cid: Cid) -> bytes | None:
        """Return the bytes of a block, proved by its hash, or None."""
        try:
            data = (self._path / str(cid)).read_bytes()
        except OSError:
            return None
        return data if cid_of_block(data, cid.codec, cid.key.kind) == cid else None

    def write(self, cid: Cid, data: bytes) -> None:
        """Keep a block.

        Raises:
            WorldError: the disk is full or failed.
        """
        temporary = self._path / f"{token_hex(8)}{PART}"
        with writing(self._path):
            try:
                temporary.write_bytes(data)
                temporary.replace(self._path / str(cid))
            except OSError:
                self.failed = True
                temporary.unlink(missing_ok=True)
                raise

    def sync(self, cids: Collection[Cid]) -> None:
        """See to it that these are on disk, also those that an earlier life wrote.

        Raises:
            WorldError: the disk is full or failed.
        """
        with writing(self._path):
            if len(cids) > SYNCED_FILES_MAX:
                os.sync()
            elif cids:
                for cid in cids:
                    _sync(self._path / str(cid))
                _sync(self._path)

    def keep_only(self, cids: Iterable[Cid]) -> None:
        """Remove all others."""
        wanted = {str(cid) for cid in cids}  # only ever asked whether something is in it
        remove_if(self._path, lambda name: name not in wanted)


class Stage:
    """The files of a version that is coming, written one after the other.

    A name says for which path a file is, and its CID. `.part` is being written; what an earlier
    life left unfinished becomes `.left`, and is a source of what it holds.
    """

    def __init__(self, path: Path) -> None:
        """Use a folder that is there."""
        self._path = path
        self._file: BinaryIO | None = None
        self._part = path
        self._synced: set[Path] = set()  # only ever asked whether something is in it
        self.failed = False
        """Whether the disk was full, or failed."""

    def path_of(self, path: TreePath, cid: Cid) -> Path:
        """Return where the file for a path is, once it is whole."""
        where = blake2b(os.fsencode("/".join(path)), digest_size=16).hexdigest()
        return self._path / f"{where}-{cid}"

    def leftovers(self) -> list[tuple[Path, Cid]]:
        """Return what is here, of this and of earlier lives."""
        with writing(self._path):
            for part in self._path.glob(f"*{PART}"):
                left = part.with_suffix(LEFT)
                if not left.exists() or left.stat().st_size <= part.stat().st_size:
                    part.replace(left)
        found: list[tuple[Path, Cid]] = []
        for path in sorted(self._path.iterdir()):
            with suppress(MisuseError):
                found.append((path, parse_cid(path.name.removesuffix(LEFT)[-CID_CHARACTERS:])))
        return found

    def begin(self, path: TreePath, cid: Cid) -> None:
        """Begin the file for a path, unless the disk fails (WorldError)."""
        whole = self.path_of(path, cid)
        self._part = whole.with_name(whole.name + PART)
        with self._writing():
            self._file = self._part.open("wb")

    def write(self, data: bytes) -> None:
        """Write the next bytes, unless the disk is full or fails (WorldError)."""
        assert self._file is not None, "a file begins before its bytes"
        with self._writing():
            self._file.write(data)

    def end(self) -> None:
        """End the file, unless the disk is full or fails (WorldError)."""
        assert self._file is not None, "a file begins before its end"
        with self._writing():
            self._file.flush()
            whole = self._part.with_name(self._part.name.removesuffix(PART))
            if len(self._synced) < SYNCED_FILES_MAX:
                os.fsync(self._file.fileno())
                self._synced.add(whole)
            self._file.close()
            self._part.replace(whole)

    def copy(self, source: Path, path: TreePath, cid: Cid) -> int:
        """Make the file for a path of one that has the same bytes; return how many these are.

        Raises:
            WorldError: the disk is full or failed.
        """
        self.begin(path, cid)
        assert self._file is not None, "it has begun"
        with self._writing(), source.open("rb") as file:
            shutil.copyfileobj(file, self._file)
            size = file.tell()
        self.end()
        return size

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            with writing(self._part):
                yield
        except WorldError:
            self.failed = True
            raise

    def make_link(self, target: str) -> Path:
        """Make a symbolic link to be moved to its place; raises OSError."""
        link = self._path / f"{token_hex(8)}{LEFT}"
        link.symlink_to(target)
        return link

    def sync(self, files: Sequence[Path]) -> None:
        """See to it that these files are on disk, also those that an earlier life has ended."""
        if any(file not in self._synced for file in files):
            os.sync()
        elif files:
            _sync(self._path)
        self._synced.clear()

    def close(self) -> None:
        """Close what is being written. Never fails."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Remove all but these and what is unfinished of them."""
        wanted = {path.name for path in paths}  # only ever asked whether something is in it
        remove_if(self._path, lambda name: name.removesuffix(PART).removesuffix(LEFT) not in wanted)


class MirrorFolder:
    """A folder that one process keeps as a version of a tree is; `close` it at the end."""

    def __init__(self, path: Path, public_key: bytes, salt: bytes) -> None:
        """Open the folder, or make it, for the trees of a record.

        Raises:
            MisuseError: it is no folder and cannot become one, holds something and is no mirror,
                mirrors another record, or another process works on it.
            WorldError: the disk is full or failed.
        """
        self.path = Path(os.path.realpath(path))
        own = self.path / STATE_FOLDER
        self._is_new = not self.path.exists()
        with writing(self.path):
            _make_top(self.path)
            _make_own(own)
            self._lock = _take_lock(own / "lock")
        try:
            with writing(own):
                self._open(State(public_key.hex(), salt.hex()))
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, wanted: State) -> None:
        own = self.path / STATE_FOLDER
        for name in ("nodes", "stage"):
            (own / name).mkdir(exist_ok=True)
        self.state = wanted
        state = _read_state(own / "state.json")
        if state is None or not state.versions:
            self.note(wanted)
        elif (state.public_key, state.salt) != (wanted.public_key, wanted.salt):
            raise MisuseError(
                f"{self.path} mirrors another record, that of {state.public_key}"
                f"{' with a salt' if state.salt else ''}: choose another folder"
            )
        else:
            self.state = state
        self.own_inode = own.stat().st_ino
        self.nodes = Nodes(own / "nodes")
        self.stage = Stage(own / "stage")
        self.folder = Folder(self.path)

    def close(self) -> None:
        """Let go of the folder; one to which nothing ever came is left as it was found."""
        self.stage.close()
        self.folder.close()
        if not self.state.versions:
            self._remove_traces()
        os.close(self._lock)

    def _remove_traces(self) -> None:
        own = self.path / STATE_FOLDER
        with suppress(OSError):
            for name in ("nodes", "stage"):  # with what may go on later in it the rest stays
                (own / name).rmdir()
            remove_if(own, lambda name: name != "lock")
            (own / "lock").unlink()  # last: who finds it gone begins anew
            own.rmdir()
            if self._is_new:
                self.path.rmdir()

    def note(self, state: State) -> None:
        """Write the state down, durably.

        Raises:
            WorldError: the disk is full or failed.
        """
        self._write("state.json", msgspec.json.encode(state), sync=True)
        self.state = state

    def read_seen(self) -> dict[str, Seen]:
        """Return how files looked when they were known to be as named; nothing if it is lost."""
        try:
            data = (self.path / STATE_FOLDER / "seen").read_bytes()
            return msgspec.msgpack.decode(data, type=dict[str, Seen])
        except (OSError, msgspec.DecodeError):
            return {}

    def write_seen(self, known: dict[TreePath, tuple[Cid, Look]]) -> None:
        """Note how files look that are known to be as named.

        One that was changed in this very moment is left out: it could change once more and look the
        same. The clock that tells is that of the file system.

        Raises:
            WorldError: the disk is full or failed.
        """
        marker = self.path / STATE_FOLDER / f"now{PART}"
        with writing(marker):
            marker.unlink(missing_ok=True)
            marker.touch()
            now = marker.stat().st_mtime_ns
            marker.unlink()
        seen: dict[str, Seen] = {}
        for path, (cid, look) in known.items():
            status = self.folder.status(path)
            if status is not None and look_of(status) == look and look[-1] < now:
                seen["/".join(path)] = Seen(bytes(cid), look)
        self._write("seen", msgspec.msgpack.encode(seen), sync=False)

    def _write(self, name: str, data: bytes, *, sync: bool) -> None:
        own = self.path / STATE_FOLDER
        temporary = own / f"{name}{PART}"
        with writing(own / name):
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(own / name)
            if sync:
                _sync(own)


def remove_if(folder: Path, unwanted: Callable[[str], bool]) -> None:
    """Remove the files of a folder whose names are unwanted; what cannot be removed stays."""
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names are enough
            if unwanted(name):
                with suppress(OSError):
                    (folder / name).unlink()


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _make_top(path: Path) -> None:
    if not path.parent.is_dir():
        raise MisuseError(f"no folder {path.parent} to write to; make it first")
    if not path.exists():
        path.mkdir()
    if not path.is_dir():
        raise MisuseError(f"expected a folder to mirror into, but {path} is none")
    state = path / STATE_FOLDER / "state.json"
    others = (name for name in os.listdir(path) if name != STATE_FOLDER)  # noqa: PTH208
    if not state.exists() and next(others, None) is not None:
        raise MisuseError(
            f"{path} is no mirror and not empty, and nothing of yours is to be touched: choose a "
            "new or an empty folder"
        )


def _make_own(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir()
    if path.is_symlink() or not path.is_dir():
        raise MisuseError(f"expected the mirror's own folder, but {path} is none")


def _take_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise MisuseError(
            f"another process mirrors into {path.parent.parent} at this moment"
        ) from error
    return lock


def _read_state(path: Path) -> State | None:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise WorldError(f"{path} is damaged ({error}): mirror into a new folder") from error
    if state.format != _FORMAT:
        raise MisuseError(f"{path} was written by a later version of xorbit")
    return state
