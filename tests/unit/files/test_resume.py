"""Gets that were interrupted go on where they were; what they find there is proved first."""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from tests.unit.files.fakes import FakeBlocks, names
from tests.unit.files.test_trees import get, sample, shelved
from tests.unit.files.trees import Shelf, on_disk
from xorbit.config import PARTIAL_KEPT_S
from xorbit.errors import FormatError, LeadsOutError, MisuseError, NotFoundError, WriteError
from xorbit.files import partial as partials
from xorbit.files import trees
from xorbit.files.cid import Cid, Codec, Place, cid_of_block
from xorbit.files.local import NewFile
from xorbit.files.opened import inner, opened
from xorbit.files.partial import KeptNodes, Partial
from xorbit.files.sealed import Sealer
from xorbit.files.transfer import get_to_path, put_file, write_to_path
from xorbit.items import ItemKey

CONTENT = bytes(range(256))
"""64 leaves of 4 bytes, under nodes of three."""


class Counting(FakeBlocks):
    """Notes what is asked for; from some block on, nobody has any more."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ItemKey] = []
        self.answers = 10**6

    async def get_block(self, key: ItemKey) -> bytes:
        self.asked.append(key)
        if len(self.asked) > self.answers:
            raise NotFoundError("nobody has it")
        return await super().get_block(key)


def counting(shelf: Shelf) -> Counting:
    blocks = Counting()
    blocks.held = shelved(shelf).held
    return blocks


async def interrupt(blocks: Counting, get: Callable[[], object], after: int) -> set[ItemKey]:
    """Let a get end after so many blocks; return which it had got."""
    blocks.asked.clear()
    blocks.answers = after
    with pytest.raises(NotFoundError):
        await get()
    had = set(blocks.asked[:after])
    blocks.asked.clear()
    blocks.answers = 10**6
    return had


@pytest.mark.parametrize("window", [1, 4])
async def test_a_file_goes_on_where_it_was(tmp_path: Path, window: int) -> None:
    """Wherever it ended, only what was missing is asked for, but for what was in flight."""
    path = tmp_path / "file"
    for after in range(2, 95, 7):
        blocks = Counting()
        cid = blocks.add_file(CONTENT, 4, 3)
        told: list[int] = []

        async def fetch(blocks=blocks, cid=cid, told=told) -> int:
            return await get_to_path(
                blocks, cid, path, window=window, progress=lambda done, _: told.append(done)
            )

        had = await interrupt(blocks, fetch, after)
        told.clear()
        assert await fetch() == 256
        assert path.read_bytes() == CONTENT
        assert len(had & set(blocks.asked)) <= 2 * window + 1
        assert told[-1] == 256
        assert told == sorted(told)
        assert names(tmp_path) == ["file"]
        path.unlink()


@pytest.mark.parametrize("window", [1, 4])
async def test_a_tree_goes_on_where_it_was(tmp_path: Path, window: int) -> None:
    """However often it is interrupted, at last it is the tree, and little was fetched twice."""
    shelf = Shelf()
    rng = Random(1)  # no block occurs twice in it

    def folder() -> Cid:
        deep = {"a": shelf.file(rng.randbytes(200)), "link": shelf.link(f"../{rng.random()}")}
        large, one = shelf.file(rng.randbytes(300)), shelf.file(rng.randbytes(3))
        return shelf.directory({"deep": shelf.directory(deep), "large": large, "one": one})

    root = shelf.directory({f"folder {number}": folder() for number in range(4)})
    blocks = counting(shelf)
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    await get(counting(shelf), root, fresh)
    had: set[ItemKey] = set()
    twice = 0
    for after in (3, 20, 1, 50, 40):
        now = await interrupt(blocks, lambda: get(blocks, root, out, window), after)
        twice += len(had & now)
        had |= now
    written = await get(blocks, root, out, window)
    twice += len(had & set(blocks.asked))
    assert on_disk(out) == on_disk(fresh)
    assert (written.files, written.links) == (12, 4)
    asked = {cid: data for cid, data in shelf.held.items() if cid.key in set(blocks.asked)}
    fetched = sum(len(data) for cid, data in asked.items() if cid.codec is Codec.RAW)
    assert 0 < written.resumed_bytes == written.bytes - fetched
    assert twice <= 5 * (2 * window + 2)  # also the root, each time
    assert names(tmp_path) == ["fresh", "out"]


async def test_a_tree_goes_on_in_an_empty_folder(tmp_path: Path) -> None:
    """What came is kept in it, on the disk that it is to be on, and is no part of it at the end."""
    shelf = Shelf()
    root = shelf.directory({"a": shelf.file(CONTENT), "b": shelf.file(b"b")})
    blocks = counting(shelf)
    out = tmp_path / "out"
    out.mkdir()
    had = await interrupt(blocks, lambda: get(blocks, root, out), 60)
    assert [name[:8] for name in names(out)] == [".xorbit-"]
    await get(blocks, root, out)
    assert len(had & set(blocks.asked)) <= 9
    assert names(out) == ["a", "b"]
    assert names(tmp_path) == ["out"]


async def test_what_was_there_of_a_file_is_counted(tmp_path: Path) -> None:
    """It is none where nothing was interrupted."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    await interrupt(blocks, lambda: get_to_path(blocks, cid, path, window=1), 40)
    done = await write_to_path(blocks, cid, path, window=1)
    assert (done.files, done.bytes) == (1, 256)
    assert 0 < 256 - done.resumed_bytes <= 4 * len(blocks.asked)
    path.unlink()
    assert (await write_to_path(blocks, cid, path)).resumed_bytes == 0


async def test_a_file_that_is_replaced_keeps_its_rights(tmp_path: Path) -> None:
    """Also where the get was interrupted, and who may not even write it goes on."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    path.touch(0o400)
    await interrupt(blocks, lambda: get_to_path(blocks, cid, path), 40)
    assert (await write_to_path(blocks, cid, path)).resumed_bytes > 0
    assert path.stat().st_mode & 0o7777 == 0o400


async def test_a_part_of_a_file_goes_on_and_is_not_taken_for_another(tmp_path: Path) -> None:
    """Each part has a place of its own; leaves that are cut are fetched again."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    for part in ((0, None), (6, 250), (7, 250)):
        await interrupt(blocks, lambda part=part: get_to_path(blocks, cid, path, part=part), 70)
    assert len(names(tmp_path)) == 3
    assert await get_to_path(blocks, cid, path, part=(6, 250)) == 244
    assert path.read_bytes() == CONTENT[6:250]
    assert len(blocks.asked) < 40
    assert len(names(tmp_path)) == 3


# --- What is there is not believed --------------------------------------------------------------


def files_of(whole: Path) -> list[Path]:
    return [path for path in (whole, *whole.rglob("*")) if path.is_file() and not path.is_symlink()]


def zeroed(whole: Path) -> None:
    for path in files_of(whole):
        path.write_bytes(bytes(path.stat().st_size))


def longer(whole: Path) -> None:
    for path in files_of(whole):
        path.write_bytes(path.read_bytes() + b"more")


def cut(whole: Path) -> None:
    for path in files_of(whole):
        os.truncate(path, path.stat().st_size // 2)


def links(whole: Path) -> None:
    for path in files_of(whole):
        path.unlink()
        path.symlink_to(whole.parent.parent / "secret")


def hard_links(whole: Path) -> None:
    for number, path in enumerate(files_of(whole)):
        os.link(path, whole.parent.parent / f"another {number}")


def folders(whole: Path) -> None:
    for path in files_of(whole):
        path.unlink()
        path.mkdir()
        (path / "junk").touch()


def pipes(whole: Path) -> None:
    for path in files_of(whole):
        path.unlink()
        os.mkfifo(path)


def files_for_folders(whole: Path) -> None:
    for path in list(whole.rglob("*")):
        if path.is_dir():
            partials.shutil.rmtree(path)
            path.write_bytes(b"no folder")


def links_for_folders(whole: Path) -> None:
    around = whole.parent.parent / "around"
    for path in list(whole.rglob("*")):
        if path.is_dir():
            path.rename(around)
            path.symlink_to(around)
            return


def strangers(whole: Path) -> None:
    for folder in [path for path in (whole, *whole.rglob("*")) if path.is_dir()]:
        (folder / "0 stranger").write_bytes(b"x")
        (folder / "zz stranger").mkdir()
        (folder / "zz stranger" / "below").symlink_to("/")


def nodes_of_rubbish(whole: Path) -> None:
    path = whole.parent / "nodes"
    data = path.read_bytes()
    path.write_bytes(data[:60] + b"!" + data[61:] + b"\0\0\0\7 and a half")


def nodes_that_lie(whole: Path) -> None:
    path = whole.parent / "nodes"
    path.write_bytes(b"\xff" * 1_000)


DAMAGES = (
    zeroed, longer, cut, links, hard_links, folders, pipes, files_for_folders, links_for_folders,
    strangers, nodes_of_rubbish, nodes_that_lie,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_whatever_is_done_to_what_was_kept_the_result_is_right(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A get that goes on ends with the tree that was asked for, or says who disturbs it."""
    shelf = Shelf()
    root = shelf.directory(
        {f"{number}": sample(shelf) for number in range(3)} | {"x": shelf.file(CONTENT * 2)}
    )
    blocks = counting(shelf)
    (tmp_path / "secret").write_bytes(b"secret")
    await get(counting(shelf), root, tmp_path / "fresh")
    await interrupt(blocks, lambda: get(blocks, root, tmp_path / "out"), 60)
    kept = tmp_path / names(tmp_path)[0]
    damage(kept / "whole")
    try:
        await get(blocks, root, tmp_path / "out")
    except WriteError:
        assert damage is links_for_folders  # what was looked at is not what is written to
        await get(blocks, root, tmp_path / "out")
    assert on_disk(tmp_path / "out") == on_disk(tmp_path / "fresh")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not names(tmp_path)[0].startswith(".")


@pytest.mark.parametrize("damage", [zeroed, longer, cut, links, hard_links, folders, pipes])
async def test_whatever_is_done_to_a_kept_file_the_result_is_right(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    (tmp_path / "secret").write_bytes(b"secret")
    await interrupt(blocks, lambda: get_to_path(blocks, cid, path), 60)
    kept = tmp_path / names(tmp_path)[0]
    damage(kept / "whole")
    assert await get_to_path(blocks, cid, path) == 256
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not names(tmp_path)[0].startswith(".")


@pytest.mark.parametrize("what", ["a link", "of everybody", "a file"])
async def test_a_place_that_is_not_ours_is_left_alone(tmp_path: Path, what: str) -> None:
    """Its name can be foreseen: what somebody else has put there is neither used nor removed."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    kept = Partial(tmp_path / "file", f"{cid} (0, None)").folder
    match what:
        case "a link":
            (tmp_path / "other").mkdir()
            kept.symlink_to(tmp_path / "other")
        case "of everybody":
            kept.mkdir()
            kept.chmod(0o777)
        case _:
            kept.write_bytes(b"file")
    before = names(tmp_path)
    assert await get_to_path(blocks, cid, tmp_path / "file") == 256
    assert names(tmp_path) == sorted([*before, "file"])


# --- What stays, and for how long ---------------------------------------------------------------


async def test_nothing_is_kept_of_what_lies_nor_where_nothing_came(tmp_path: Path) -> None:
    shelf = Shelf()
    leaf = shelf.add(b"xx", Codec.RAW)
    lying = shelf.directory({"a": shelf.file(CONTENT), "b": shelf.file_node([(leaf, 3)])})
    with pytest.raises(FormatError):
        await get(shelved(shelf), lying, tmp_path / "out")
    blocks = counting(shelf)
    with pytest.raises(NotFoundError):
        await get_to_path(blocks, cid_of_block(b"nobody's", Codec.DAG_PB), tmp_path / "out")
    assert names(tmp_path) == []


async def test_what_cannot_be_gone_on_with_now_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may open no more files has not lost what came before."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    await interrupt(blocks, lambda: get_to_path(blocks, cid, path), 40)

    def refuse(nodes: KeptNodes, path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(KeptNodes, "__init__", refuse)
        with pytest.raises(WriteError, match=r"Too many open files; what came is kept in"):
            await get_to_path(blocks, cid, path)
    assert (await write_to_path(blocks, cid, path)).resumed_bytes > 0


async def test_nothing_is_kept_of_private_content(tmp_path: Path) -> None:
    """Once it is opened no leaf proves itself: nothing is promised that could not be held."""
    blocks = Counting()
    done = await put_file(blocks, bytes(200_000), kind=Sealer())
    opening = opened(blocks, done.seal)
    blocks.answers = 3
    with pytest.raises(NotFoundError, match=r"nobody has it$"):
        await get_to_path(opening, inner(done.cid, done.seal), tmp_path / "file", window=1)
    assert names(tmp_path) == []
    blocks.answers = 10**6
    assert await get_to_path(opening, inner(done.cid, done.seal), tmp_path / "file") == 200_000


@pytest.mark.parametrize(
    ("number", "stays"),
    [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EFBIG, False), (errno.EIO, True)],
)
async def test_a_full_disk_is_not_kept_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stays: bool
) -> None:
    """Where it fails in another way, as a stick that is pulled out does, what came is kept."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    written: list[bytes] = []

    def write(self: NewFile, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        written.append(data)
        if len(written) == 10:
            raise self._failed(OSError(number, "the disk")) from OSError(number, "the disk")

    monkeypatch.setattr(NewFile, "write", write)
    with pytest.raises(WriteError, match=r"cannot write .*: the disk"):
        await get_to_path(blocks, cid, tmp_path / "file")
    assert [name[:8] for name in names(tmp_path)] == [".xorbit-"] * stays


async def test_what_came_before_a_link_that_leads_out_is_kept(tmp_path: Path) -> None:
    """The same get that leaves the link out, as the error advises, goes on from there."""
    shelf = Shelf()
    root = shelf.directory({"a": shelf.file(CONTENT), "z": shelf.link("/etc/hosts")})
    blocks = counting(shelf)
    with pytest.raises(LeadsOutError, match="what came is kept in"):
        await get(blocks, root, tmp_path / "out")
    blocks.asked.clear()
    found = await trees.find(blocks, Place(root))
    written = await trees.get_tree(blocks, found, tmp_path / "out", skip_links=True)
    assert (written.resumed_bytes, written.skipped) == (len(CONTENT), 1)
    assert len(blocks.asked) <= 3  # the nodes of the root, the file and the link
    assert names(tmp_path) == ["out"]


async def test_what_came_is_kept_while_something_is_at_the_path(tmp_path: Path) -> None:
    """That is said, with what is kept; once it is away, the get goes on."""
    shelf = Shelf()
    root = shelf.directory({"a": shelf.file(CONTENT)})
    blocks = counting(shelf)
    out = tmp_path / "out"
    await interrupt(blocks, lambda: get(blocks, root, out), 60)
    (out / "mine").mkdir(parents=True)
    with pytest.raises(MisuseError, match=r"there is something at .*what came is kept in"):
        await get(blocks, root, out)
    out.rename(tmp_path / "other")
    assert (await get(blocks, root, out)).resumed_bytes > 0
    assert names(tmp_path) == ["other", "out"]


async def test_two_gets_to_one_path_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each has a place of its own, and the path shows one of them whole."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    path = tmp_path / "file"
    sizes = await asyncio.gather(*(get_to_path(blocks, cid, path) for _ in range(3)))
    assert sizes == [256] * 3
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]


async def test_the_second_of_two_gets_of_a_tree_is_told(tmp_path: Path) -> None:
    """A folder is never replaced: the path shows the one that ended first."""
    shelf = Shelf()
    root = shelf.directory({"a": shelf.file(CONTENT)})
    gets = (get(counting(shelf), root, tmp_path / "out") for _ in range(2))
    done = await asyncio.gather(*gets, return_exceptions=True)
    [failed] = [one for one in done if isinstance(one, WriteError)]
    assert "something has come there meanwhile" in str(failed)
    assert (tmp_path / "out" / "a").read_bytes() == CONTENT


async def test_a_second_get_that_is_interrupted_keeps_nothing(tmp_path: Path) -> None:
    """No later get would find it; what the first one has is not touched."""
    blocks = Counting()
    cid = blocks.add_file(CONTENT, 4, 3)
    first = Partial(tmp_path / "file", f"{cid} (0, None)")
    first.open()
    first.whole.write_bytes(CONTENT[:100])
    blocks.answers = 60
    with pytest.raises(NotFoundError, match=r"nobody has it$"):
        await get_to_path(blocks, cid, tmp_path / "file")
    assert names(tmp_path) == [first.folder.name]
    assert first.keep()


def test_nodes_are_kept_by_many_threads_at_once(tmp_path: Path) -> None:
    nodes = KeptNodes(tmp_path / "nodes")
    blocks = [b"%d" % number * 1_000 for number in range(200)]
    cids = [cid_of_block(data, Codec.DAG_PB) for data in blocks]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(nodes.add, cids * 2, blocks * 2))
    nodes.close()
    again = KeptNodes(tmp_path / "nodes")
    assert [again.get(cid) for cid in cids] == blocks
    again.close()


def test_what_nobody_went_on_with_is_removed_after_a_week(tmp_path: Path) -> None:
    """But not what is younger, what somebody works on, or what has another name."""
    old = time.time() - PARTIAL_KEPT_S - 60
    for number, age in enumerate((old, old, time.time(), old)):
        folder = tmp_path / f".xorbit-{number:016x}.part"
        folder.mkdir()
        (folder / "whole").write_bytes(b"x")
        os.utime(folder, (age, age))
    (tmp_path / ".xorbit-0123456789abcdef.part").write_bytes(b"x")
    (tmp_path / ".xorbit-mirror").mkdir()
    for name in (".xorbit-0123456789abcdef.part", ".xorbit-mirror"):
        os.utime(tmp_path / name, (old, old))
    lock = os.open(tmp_path / f".xorbit-{3:016x}.part", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    kept = Partial(tmp_path / "file", "x")
    kept.open()
    kept.discard()
    os.close(lock)
    assert names(tmp_path) == [f".xorbit-{2:016x}.part", f".xorbit-{3:016x}.part", ".xorbit-mirror"]
