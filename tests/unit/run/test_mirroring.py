"""Folders that follow a record: what moves, what shows when, whose is what. No network."""

import asyncio
import os
import resource
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from pathlib import Path
from random import Random
from typing import NoReturn

import msgspec
import pytest

from tests.unit.files.trees import Shelf, on_disk
from xorbit.errors import FormatError, MisuseError, NotFoundError, WorldError
from xorbit.files.cid import Cid, Codec, parse_cid
from xorbit.files.held_folder import Folder, look_of
from xorbit.files.leading_out import leading_out
from xorbit.files.local_tree import build_source, cid_of, tree_bytes
from xorbit.files.mirror import Listing
from xorbit.files.mirror_folder import STATE_FOLDER, MirrorFolder, Seen, Stage, State
from xorbit.files.pointer import RecordPlace, TreeVersion, pointer_to, tree_version
from xorbit.files.tree import Entry, Found, all_blocks, finish
from xorbit.items import ItemKey, Record
from xorbit.run.mirroring import Mirrored, NotMirrored, mirror, mirror_once

WITHIN_S = 20.0
PLACE = RecordPlace(bytes(32), b"s")
CHUNK = 65_536
LEAF = cid_of(b"a leaf that nobody holds")


class Source:
    """A node that has the blocks of a shelf, and a record that a test publishes to."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.held: dict[ItemKey, bytes] = {}
        self.asked: list[ItemKey] = []
        self.missing: set[Cid] = set()
        self.records: list[Record] = []
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()

    def publish(self, root: Cid | bytes) -> int:
        """Publish a tree that the shelf has, or any value; return its sequence number."""
        value = pointer_to(root) if isinstance(root, Cid) else root
        self.records.append(Record(PLACE.public_key, len(self.records) + 1, value, b"", PLACE.salt))
        self.held = {cid.key: data for cid, data in self.shelf.held.items()}
        self._changed.set()
        return len(self.records)

    def tree(self, path: Path) -> int:
        return self.publish(self.shelf.tree(path))

    async def asked_again(self, times: int) -> None:
        """Wait until blocks were asked for so many times more."""
        for _ in range(times):
            self._asked.clear()
            await self._asked.wait()

    async def get_block(self, key: ItemKey) -> bytes:
        self.asked.append(key)
        self._asked.set()
        if key in {cid.key for cid in self.missing} or key not in self.held:
            raise NotFoundError("nobody has it")
        return self.held[key]

    async def newest_tree(self, place: RecordPlace) -> TreeVersion:
        assert place == PLACE
        if not self.records:
            raise NotFoundError("nobody has it")
        return tree_version(self.records[-1])

    async def follow(self, public_key: bytes, salt: bytes = b"") -> AsyncGenerator[Record]:
        assert (public_key, salt) == (PLACE.public_key, PLACE.salt)
        given = 0
        while True:
            while given < len(self.records):
                given = len(self.records)
                yield self.records[-1]
            self._changed.clear()
            await self._changed.wait()


def shown(path: Path) -> dict[str, object]:
    """Return what a mirror shows: all of the folder but its notes."""
    return {
        name: what for name, what in on_disk(path).items() if name.split("/")[0] != STATE_FOLDER
    }


def left_at(path: Path) -> list[str] | None:
    """Return what a folder has in it, None where there is none."""
    return [entry.name for entry in path.iterdir()] if path.exists() else None


async def bring(source: Source, path: Path) -> Mirrored:
    async with asyncio.timeout(WITHIN_S):
        return await mirror_once(source, PLACE, path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "large").write_bytes(Random(1).randbytes(10 * CHUNK))
    (top / "small").write_bytes(b"small")
    (top / "sub" / "other").write_bytes(b"other")
    (top / "sub" / "deep" / "nothing").touch()
    (top / "sub" / "link").symlink_to("../large")
    return top


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def source() -> Source:
    return Source()


# --- Only what changed moves ----------------------------------------------------------------------


async def test_a_folder_becomes_the_tree(source: Source, tree: Path, out: Path) -> None:
    """Each block is fetched once, and the next time nothing is."""
    source.tree(tree)
    done = await bring(source, out)
    assert shown(out) == on_disk(tree)
    assert (done.seq, done.cid, done.left_out) == (1, cid_of(tree), ())
    assert (done.files, done.removed) == (5, 0)
    assert set(source.asked) == {cid.key for cid, _ in build_source(tree)}
    assert len(set(source.asked)) == len(source.asked)
    assert done.fetched_blocks == len(source.asked)
    again = await bring(source, out)
    assert (again.files, again.removed, again.fetched_blocks) == (0, 0, 0)
    assert shown(out) == on_disk(tree)


async def test_only_changed_blocks_move(source: Source, tree: Path, out: Path) -> None:
    """Of a version only the blocks that the one before has not, whatever was moved or changed."""
    source.tree(tree)
    await bring(source, out)
    had = {cid.key for cid, _ in build_source(tree)}
    changed = bytearray((tree / "large").read_bytes())
    changed[3 * CHUNK + 5] ^= 1
    (tree / "large").write_bytes(changed)
    (tree / "sub").rename(tree / "moved")
    for name in ("new", "new as well", "copy of new"):
        (tree / name).write_bytes(b"new")
    (tree / "small").unlink()
    source.tree(tree)
    source.asked.clear()
    done = await bring(source, out)
    assert shown(out) == on_disk(tree)
    assert set(source.asked) == {cid.key for cid, _ in build_source(tree)} - had
    assert len(source.asked) == done.fetched_blocks == 4  # two nodes, two leaves
    assert done.reused_bytes == 9 * CHUNK + len(b"other") + 2 * len(b"new")
    assert (done.files, done.removed) == (7, 4)


async def test_what_was_not_touched_is_not_read_again(
    source: Source, tree: Path, out: Path
) -> None:
    """How a file looks tells that; where the note of it is lost it is hashed, and not fetched."""
    source.tree(tree)
    await bring(source, out)
    os.utime(out / "large", ns=(1, 1))  # as restored from a backup: hashed once
    (out / STATE_FOLDER / "seen").unlink()
    source.asked.clear()
    assert (await bring(source, out)).files == 0
    assert source.asked == []


async def test_a_large_directory_moves_by_shards(source: Source, tmp_path: Path, out: Path) -> None:
    top = tmp_path / "many"
    top.mkdir()
    for number in range(1_500):
        (top / f"a file of many {number}").write_bytes(b"%d" % number)
    source.tree(top)
    await bring(source, out)
    (top / "a file of many 7").write_bytes(b"changed")
    source.tree(top)
    done = await bring(source, out)
    assert done.fetched_blocks <= 4
    assert shown(out) == on_disk(top)


async def test_other_layouts_are_compared_as_they_are(
    source: Source, tmp_path: Path, out: Path
) -> None:
    """A file that another tool cut otherwise is known again by its own blocks."""
    shelf, data = source.shelf, Random(2).randbytes(4_000)
    file = shelf.file(data, chunk_bytes=100, children_max=4)
    source.publish(shelf.directory({"file": file}))
    await bring(source, out)
    (out / STATE_FOLDER / "seen").unlink()
    assert (await bring(source, out)).fetched_blocks == 0
    data = data[:1_000] + b"x" + data[1_001:]
    file = shelf.file(data, chunk_bytes=100, children_max=4)
    source.publish(shelf.directory({"file": file}))
    done = await bring(source, out)
    assert (out / "file").read_bytes() == data
    assert (done.left_out, done.reused_bytes) == ((), 3_900)


# --- What is whose --------------------------------------------------------------------------------


async def test_what_the_user_put_stays(source: Source, tree: Path, out: Path) -> None:
    """Also in folders that vanish; where it is in the way of the version, that is told."""
    source.tree(tree)
    await bring(source, out)
    (out / "mine").write_bytes(b"mine")
    (out / "sub" / "deep" / "mine").write_bytes(b"mine too")
    (out / "new").write_bytes(b"my new")
    (out / "folder").symlink_to(out / "mine")
    (out / "file").mkdir()
    (tree / "new").write_bytes(b"new")
    (tree / "folder" / "sub").mkdir(parents=True)
    (tree / "folder" / "sub" / "x").write_bytes(b"x")
    (tree / "file").write_bytes(b"file")
    for path in ("deep/nothing", "other", "link"):
        (tree / "sub" / path).unlink()
    (tree / "sub" / "deep").rmdir()
    (tree / "sub").rmdir()
    source.tree(tree)
    done = await bring(source, out)
    assert sorted(done.left_out) == ["'file'", "'folder'", "'new'"]
    assert (out / "mine").read_bytes() == b"mine"
    assert (out / "sub" / "deep" / "mine").read_bytes() == b"mine too"
    assert not (out / "sub" / "other").exists()
    assert (out / "new").read_bytes() == b"my new"
    assert (out / "folder").readlink() == out / "mine"
    assert list((out / "file").iterdir()) == []
    (out / "new").unlink()
    (out / "folder").unlink()
    (out / "file").rmdir()
    assert (await bring(source, out)).left_out == ()
    assert {**on_disk(tree), **shown(out)} == shown(out)


async def test_what_the_user_changed_stays(source: Source, tree: Path, out: Path) -> None:
    """Neither replaced nor removed; what was deleted comes back."""
    source.tree(tree)
    await bring(source, out)
    (out / "small").write_bytes(b"mine!")
    (out / "sub" / "other").write_bytes(b"other, and mine")
    (out / "sub" / "link").unlink()
    (out / "sub" / "link").symlink_to("elsewhere")
    (out / "large").unlink()
    (tree / "small").write_bytes(b"newer")
    (tree / "sub" / "other").unlink()
    source.tree(tree)
    done = await bring(source, out)
    assert sorted(done.left_out) == ["'small'", "'sub/link'"]
    assert (out / "small").read_bytes() == b"mine!"
    assert (out / "sub" / "other").read_bytes() == b"other, and mine"
    assert (out / "sub" / "link").readlink() == Path("elsewhere")
    assert (out / "large").read_bytes() == (tree / "large").read_bytes()
    again = await bring(source, out)
    assert again.left_out == done.left_out


async def test_kinds_change_into_one_another(source: Source, tree: Path, out: Path) -> None:
    """A file becomes a folder, a folder a file or a link, a link a file; permissions stay."""
    source.tree(tree)
    await bring(source, out)
    (out / "large").chmod(0o640)
    (tree / "small").unlink()
    (tree / "small" / "in").mkdir(parents=True)
    (tree / "small" / "in" / "it").write_bytes(b"it")
    (tree / "sub" / "deep" / "nothing").unlink()
    (tree / "sub" / "deep").rmdir()
    (tree / "sub" / "deep").write_bytes(b"now a file")
    (tree / "empty").rmdir()
    (tree / "empty").symlink_to("large")
    (tree / "sub" / "link").unlink()
    (tree / "sub" / "link").write_bytes(b"no link")
    (tree / "large").write_bytes(b"short")
    source.tree(tree)
    done = await bring(source, out)
    assert (shown(out), done.left_out) == (on_disk(tree), ())
    assert (out / "large").stat().st_mode & 0o777 == 0o640
    (tree / "sub" / "link").unlink()
    (tree / "sub" / "link").symlink_to("other")
    (tree / "empty").unlink()
    (tree / "empty").symlink_to("small")
    source.tree(tree)
    assert (await bring(source, out)).files == 2
    assert shown(out) == on_disk(tree)


async def test_a_folder_with_something_in_it_is_refused(
    source: Source, tree: Path, tmp_path: Path
) -> None:
    """Also a mirror of another record, a file, a place that is not there; nothing is touched."""
    source.tree(tree)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    for name, says in (
        ("full", "is no mirror and not empty"),
        ("file", "expected a folder to mirror into"),
        ("no/where", "no folder"),
    ):
        with pytest.raises(MisuseError, match=says):
            await bring(source, tmp_path / name)
    assert list((tmp_path / "full").iterdir()) == [tmp_path / "full" / "mine"]
    (tmp_path / "empty").mkdir()
    await bring(source, tmp_path / "empty")
    with pytest.raises(MisuseError, match="mirrors another record"):
        await mirror_once(source, RecordPlace(bytes(32)), tmp_path / "empty")
    (tmp_path / "empty" / STATE_FOLDER / "state.json").write_bytes(b"{")
    with pytest.raises(WorldError, match="is damaged"):
        await bring(source, tmp_path / "empty")


async def test_a_key_that_was_mistyped_binds_no_folder(
    source: Source, tree: Path, out: Path
) -> None:
    """Nor is a new folder left behind; what a kill leaves is good for any other key."""
    with pytest.raises(NotFoundError):
        await bring(source, out)
    assert left_at(out) is None
    (out / STATE_FOLDER).mkdir(parents=True)
    with pytest.raises(NotFoundError):
        await bring(source, out)
    assert left_at(out) == []
    mistyped = MirrorFolder(out, bytes([1]) * 32, b"")
    (out / STATE_FOLDER / "stage" / "left").touch()
    mistyped.close()
    assert (out / STATE_FOLDER / "state.json").exists()
    source.tree(tree)
    await bring(source, out)
    assert shown(out) == on_disk(tree)


async def test_what_came_of_a_first_version_stays(source: Source, tree: Path, out: Path) -> None:
    """A new folder is not removed with what the next try goes on from."""
    source.tree(tree)
    source.missing = {cid_of(tree / "small")}
    with pytest.raises(NotFoundError):
        await bring(source, out)
    source.missing = set()
    source.asked.clear()
    await bring(source, out)
    assert cid_of(tree).key not in source.asked


async def test_a_published_file_is_told_as_such(source: Source, out: Path, tmp_path: Path) -> None:
    """A folder cannot mirror it; it is said how to get it, once, and nothing is left behind."""
    (tmp_path / "file").write_bytes(bytes(3 * CHUNK))
    source.tree(tmp_path / "file")
    get = f"what is published is a file, .* 'xorbit get {PLACE.public_key.hex()} --salt s -o FILE'"
    with pytest.raises(NotFoundError, match=get):
        await bring(source, out)
    assert left_at(out) is None


async def test_a_mirror_has_the_name_of_what_it_mirrors(
    source: Source, tree: Path, out: Path
) -> None:
    """Its notes are no part of it, so it is verified by its name, and can be put on."""
    source.tree(tree)
    done = await bring(source, out)
    assert cid_of(out) == done.cid == cid_of(tree)
    assert tree_bytes(out) == tree_bytes(tree)
    (out / STATE_FOLDER / "outside").symlink_to("/")
    assert leading_out(out).count == 0
    (tree / "sub" / STATE_FOLDER).mkdir()
    assert cid_of(tree) != done.cid  # below the top it is a name like others
    (out / "sub" / STATE_FOLDER).mkdir()
    assert cid_of(out) == cid_of(tree)
    plain = out.parent / "plain"
    plain.mkdir()
    empty = cid_of(plain)
    (plain / STATE_FOLDER).touch()
    assert cid_of(plain) != empty  # a file of that name is nobody's notes


# --- Versions that cannot be had ------------------------------------------------------------------


async def test_a_version_shows_whole_or_not_at_all(source: Source, tree: Path, out: Path) -> None:
    """Where its last leaf is missing all stays; what came before is not fetched again."""
    source.tree(tree)
    await bring(source, out)
    before = shown(out)
    (tree / "small").write_bytes(b"changed")
    (tree / "large").write_bytes(Random(9).randbytes(100 * CHUNK))
    (tree / "z").write_bytes(b"last")
    source.tree(tree)
    source.missing = {cid_of(b"last")}
    with pytest.raises(NotFoundError, match=str(cid_of(b"last"))):
        await bring(source, out)
    assert shown(out) == before
    source.missing, source.asked = set(), []
    await bring(source, out)
    assert shown(out) == on_disk(tree)
    assert len(source.asked) < 50


def test_what_an_earlier_life_wrote_is_on_disk_before_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was killed may not have come to sync its files; our own are synced one by one."""
    syncs: list[str] = []
    monkeypatch.setattr(os, "sync", lambda: syncs.append("all"))
    monkeypatch.setattr(os, "fsync", lambda _: syncs.append("one"))
    stage = Stage(tmp_path)
    stage.begin(("a",), LEAF)
    stage.write(b"a leaf that nobody holds")
    stage.end()
    stage.sync([stage.path_of(("a",), LEAF)])
    assert syncs == ["one", "one"]  # the file, and the folder that names it
    Stage(tmp_path).sync([stage.path_of(("a",), LEAF)])
    assert syncs[2:] == ["all"]


async def test_what_came_of_a_version_serves_the_next(
    source: Source, tree: Path, out: Path
) -> None:
    (tree / "large").write_bytes(Random(9).randbytes(100 * CHUNK))
    (tree / "z").write_bytes(b"last")
    source.tree(tree)
    source.missing = {cid_of(b"last")}
    with pytest.raises(NotFoundError):
        await bring(source, out)
    (tree / "z").unlink()
    (tree / "large").rename(tree / "larger")
    source.tree(tree)
    source.asked = []
    done = await bring(source, out)
    assert shown(out) == on_disk(tree)
    assert done.reused_bytes > 50 * CHUNK


async def test_what_was_begun_and_is_nowhere_any_more_keeps_from_nothing(
    source: Source, tree: Path, out: Path
) -> None:
    """A version that a kill left in part gives way to the newest; nothing of it stays."""
    source.tree(tree)
    await bring(source, out)
    half = source.shelf.directory({"gone": source.shelf.file(b"0123"), "small": LEAF})
    source.missing = {LEAF}
    note_as_coming(out, half)
    (out / "gone").write_bytes(b"0123")
    source.publish(b"no tree")
    steps = mirror(source, PLACE, out, retry_s=WITHIN_S)
    async with asyncio.timeout(WITHIN_S), aclosing(steps) as outcomes:
        told = await anext(outcomes)
        assert isinstance(told, NotMirrored)
        assert (told.seq, told.at) == (2, 1)
    (tree / "small").write_bytes(b"three")
    source.tree(tree)
    assert (await bring(source, out)).removed == 1
    assert shown(out) == on_disk(tree)


async def test_what_was_begun_and_is_refused_now_keeps_from_nothing(
    source: Source, tree: Path, out: Path
) -> None:
    """An earlier release may have begun what is a lie for this one."""
    source.tree(tree)
    await bring(source, out)
    lie = source.shelf.directory({"gone": LEAF, "link": source.shelf.link("x" * 5_000)})
    note_as_coming(out, lie)
    (out / "gone").write_bytes(b"a leaf that nobody holds")
    source.publish(lie)
    (tree / "small").write_bytes(b"three")
    source.tree(tree)
    done = await bring(source, out)
    assert (done.seq, done.left_out, done.lost) == (3, (), (2,))
    assert shown(out) == on_disk(tree) | {"gone": b"a leaf that nobody holds"}
    assert read_state(out).coming == ()


def note_as_coming(out: Path, root: Cid) -> None:
    """Have a mirror that is at version 1 begin the second, and be killed at once."""
    state = out / STATE_FOLDER / "state.json"
    coming = f'"coming":[{{"seq":2,"root":"{root}"}}]'
    state.write_text(state.read_text().replace('"coming":[]', coming))


async def test_nodes_of_what_cannot_be_had_take_no_room(
    source: Source, tree: Path, out: Path
) -> None:
    """Those of one such version are kept, for the next try, and of trees that lie none."""
    shelf = source.shelf
    source.tree(tree)
    await bring(source, out)
    before = nodes_kept(out)
    source.missing = {shelf.link("nowhere")}
    for name in ("a", "b", "c"):
        good = shelf.directory({name: shelf.file(b"0123456789")})
        source.publish(shelf.directory({"good": good, "z": shelf.link("nowhere")}))
        with pytest.raises(NotFoundError):
            await bring(source, out)
        assert len(nodes_kept(out) - before) == 3
    source.publish(shelf.directory({"good": good, "z": shelf.link("/etc/passwd")}))
    with pytest.raises(FormatError):
        await bring(source, out)
    assert nodes_kept(out) == before


async def test_versions_that_cannot_be_put_in_place_take_no_room(
    source: Source, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many: of those that nothing in the folder is of any more nothing is kept."""
    source.tree(tree)
    await bring(source, out)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "make_link", refuse)
        for number in range(5):
            (tree / "a").write_bytes(b"%d" % number)
            (tree / f"z{number}").write_bytes(b"%d" % number)
            (tree / "link").unlink(missing_ok=True)
            (tree / "link").symlink_to(f"{number}")
            source.tree(tree)
            with pytest.raises(WorldError, match="Operation not permitted"):
                await bring(source, out)
            assert (out / "a").read_bytes() == b"%d" % number
            state = read_state(out)
            assert (state.at.seq, state.coming[-1].seq) == (1, 2 + number)
            assert len(state.coming) <= 2
            of_versions = {cid for it in state.versions for cid in trees_nodes(source, it.root)}
            assert nodes_kept(out) == of_versions
            assert len(list((out / STATE_FOLDER / "stage").iterdir())) <= 1 + number
    source.tree(tree)
    assert (await bring(source, out)).left_out == ()
    assert shown(out) == on_disk(tree)
    assert read_state(out).coming == ()


async def test_what_many_versions_left_behind_is_the_users(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many are remembered; the newest comes all the same."""
    monkeypatch.setattr("xorbit.run.mirroring.MIRROR_COMING_MAX", 2)
    shelf, leaf = source.shelf, source.shelf.file(b"0")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "make_link", refuse)
        for number in range(4):
            link = shelf.link("a")
            source.publish(shelf.directory({f"a{number}": leaf, "link": link}))
            with pytest.raises(WorldError):
                await bring(source, out)
            assert len(read_state(out).coming) == min(2, 1 + number)
    source.publish(shelf.directory({"a1": shelf.file(b"1"), "b": leaf}))
    assert (await bring(source, out)).left_out == ("'a1'",)
    assert sorted(shown(out)) == ["a0", "a1", "b"]


def refuse(*_: object) -> NoReturn:
    raise PermissionError(1, "Operation not permitted")


def read_state(out: Path) -> State:
    return msgspec.json.decode((out / STATE_FOLDER / "state.json").read_bytes(), type=State)


def trees_nodes(source: Source, root: str) -> set[str]:
    """Return the names of the nodes of a tree."""
    wanted: list[Cid] = []

    def get(cid: Cid) -> bytes:
        wanted.append(cid)
        return source.shelf.held[cid]

    finish(all_blocks(parse_cid(root)), get)
    return {str(cid) for cid in wanted if cid.codec is Codec.DAG_PB}


async def test_nodes_are_on_disk_before_a_version_is_noted(
    source: Source, tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of what is noted depends on them; those that were noted before are not synced again."""
    synced: list[str] = []
    noted: list[set[str]] = []
    real_note = MirrorFolder.note

    def note(folder: MirrorFolder, state: State) -> None:
        noted.append(set(synced))
        real_note(folder, state)

    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    monkeypatch.setattr(MirrorFolder, "note", note)
    source.tree(tree)
    await bring(source, out)
    first = nodes_kept(out)
    assert {*first, "nodes"} <= noted[1]
    (tree / "small").write_bytes(b"new")
    source.tree(tree)
    synced.clear()
    noted.clear()
    await bring(source, out)
    assert nodes_kept(out) & noted[0] == nodes_kept(out) - first == {str(cid_of(tree))}
    monkeypatch.setattr("xorbit.files.mirror_folder.SYNCED_FILES_MAX", 0)
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    (tree / "small").write_bytes(b"newer")
    source.tree(tree)
    noted.clear()
    await bring(source, out)
    assert "all" in noted[0]


async def test_a_version_whose_nodes_are_lost_keeps_from_nothing(
    source: Source, tree: Path, out: Path
) -> None:
    """Where they are nowhere any more: which files are the mirror's own is told by the note."""
    source.tree(tree)
    await bring(source, out)
    files = {"large", "small", "sub/other", "sub/deep/nothing"}
    while noted_files(out) != files:  # what changed in the moment of the note comes with the next
        await bring(source, out)
    lose_nodes(source, out)
    (out / "small").write_bytes(b"mine!")
    (tree / "small").write_bytes(b"newer")
    (tree / "large").write_bytes(Random(1).randbytes(11 * CHUNK))
    (tree / "sub" / "other").unlink()
    source.tree(tree)
    done = await bring(source, out)
    assert (done.left_out, done.lost, done.removed) == (("'small'",), (1,), 1)
    (out / "small").unlink()
    done = await bring(source, out)
    assert (done.left_out, done.lost) == ((), ())
    assert shown(out) == on_disk(tree)


async def test_what_is_not_known_to_be_the_mirrors_is_the_users(
    source: Source, tree: Path, out: Path
) -> None:
    """Where nodes and the note are lost, and where the note is damaged."""
    source.tree(tree)
    await bring(source, out)
    seen = out / STATE_FOLDER / "seen"
    stranger = Seen(bytes(36), look_of(out.parent.stat()))
    outside = Seen(bytes(LEAF), look_of((tree / "small").stat()))
    for number, said in enumerate((None, {"small": stranger, "../tree/small": outside})):
        seen.unlink()
        if said is not None:
            seen.write_bytes(msgspec.msgpack.encode(said))
        lose_nodes(source, out)
        source.publish(source.shelf.directory({"small": source.shelf.file(b"%d" % number)}))
        assert (await bring(source, out)).left_out == ("'small'",)
        assert (out / "large").exists()
        assert (tree / "small").exists()


def noted_files(out: Path) -> set[str]:
    seen = (out / STATE_FOLDER / "seen").read_bytes()
    return set(msgspec.msgpack.decode(seen, type=dict[str, Seen]))


def lose_nodes(source: Source, out: Path) -> None:
    """Lose them as a power cut may; what the network had is expired."""
    source.shelf.held.clear()
    for path in (out / STATE_FOLDER / "nodes").iterdir():
        path.write_bytes(b"")


async def test_nodes_do_not_stay_on_a_full_disk(source: Source, tree: Path, out: Path) -> None:
    source.tree(tree)
    await bring(source, out)
    before = nodes_kept(out)
    shelf = source.shelf
    many = shelf.directory({f"{number:03}": shelf.file(b"0") for number in range(400)})
    source.publish(shelf.directory({"a": shelf.file(b"0123456789"), "z": many}))
    with file_sizes(4_096), pytest.raises(WorldError, match=r"cannot write .*nodes"):
        await bring(source, out)
    assert nodes_kept(out) == before


def nodes_kept(out: Path) -> set[str]:
    return {path.name for path in (out / STATE_FOLDER / "nodes").iterdir()}


@contextmanager
def file_sizes(most: int) -> Generator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)


async def test_nothing_comes_near_the_notes(source: Source, tree: Path, out: Path) -> None:
    """What a tree has where the mirror's own folder is, is passed over."""
    name = STATE_FOLDER
    (tree / name / "nodes").mkdir(parents=True)
    (tree / name / "state.json").write_bytes(b"{}")
    (tree / "sub" / name).write_bytes(b"here it is a name like others")
    source.tree(tree)
    await bring(source, out)
    assert (await bring(source, out)).files == 0
    assert (out / "sub" / name).exists()
    assert (out / name / "state.json").read_bytes() != b"{}"


async def test_trees_that_lie_are_refused(source: Source, out: Path, tmp_path: Path) -> None:
    """Names and links that lead outside, files of a claimed size, what is no directory."""
    shelf = source.shelf
    leaf = shelf.add(b"leaf", Codec.RAW)
    lies: list[tuple[Cid, type[Exception], str]] = [
        (shelf.raw_directory([("..", leaf)]), FormatError, "the one above"),
        (shelf.directory({"a": shelf.link("../outside")}), FormatError, "leads outside"),
        (shelf.directory({"a": shelf.link("/etc/passwd")}), FormatError, "absolute"),
        (shelf.directory({"a": shelf.link("x" * 5_000)}), FormatError, "more than 4,095 bytes"),
        (shelf.directory({"a" * 300: leaf}), FormatError, "more than 255 bytes"),
        (leaf, NotFoundError, "is a file"),
        (shelf.add(b"no node"), FormatError, "block"),
        (shelf.directory({"a": shelf.file_node([(leaf, 5)])}), FormatError, "its parent says 5"),
        (shelf.directory({"a": shelf.file_node([huge(shelf)])}), WorldError, "free at"),
    ]
    for root, kind, says in lies:
        source.publish(root)
        with pytest.raises(kind, match=says):
            await bring(source, out)
        assert shown(out) == {}
    source.publish(shelf.directory({"a": leaf}))
    await bring(source, out)
    assert (out / "a").read_bytes() == b"leaf"
    assert not (tmp_path / "outside").exists()


def huge(shelf: Shelf) -> tuple[Cid, int]:
    """Return a file that honestly has more bytes than any disk, in seven blocks."""
    cid, size = shelf.add(b"more", Codec.RAW), 4
    for _ in range(6):
        cid, size = shelf.file_node([(cid, size)] * 1_000), size * 1_000
    return cid, size


def test_a_listing_is_bounded(source: Source) -> None:
    listing = Listing(most=1)
    found = Found(source.shelf.add(b"leaf", Codec.RAW), None)
    assert not listing.add(Entry((STATE_FOLDER, "x"), found))
    assert listing.add(Entry(("a",), found))
    with pytest.raises(FormatError, match="at most 1 entries"):
        listing.add(Entry(("b",), found))


async def test_a_links_way_out_is_not_taken(
    source: Source, tree: Path, out: Path, tmp_path: Path
) -> None:
    """Where the user made a link of a folder, nothing is written, read or removed through it."""
    source.tree(tree)
    await bring(source, out)
    (out / "sub").rename(tmp_path / "elsewhere")
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    before = on_disk(tmp_path / "elsewhere")
    (tree / "sub" / "other").write_bytes(b"new other")
    (tree / "sub" / "deep" / "nothing").unlink()
    source.tree(tree)
    done = await bring(source, out)
    assert done.left_out == ("'sub'",)
    assert on_disk(tmp_path / "elsewhere") == before


async def test_an_older_version_changes_nothing(source: Source, tree: Path, out: Path) -> None:
    source.tree(tree)
    (tree / "small").write_bytes(b"two")
    source.tree(tree)
    await bring(source, out)
    source.records.pop()
    with pytest.raises(WorldError, match="older than version 2"):
        await bring(source, out)
    assert (out / "small").read_bytes() == b"two"


async def test_a_full_disk_leaves_the_version_before(source: Source, tree: Path, out: Path) -> None:
    """And none of the room taken; with room again the version comes."""
    source.tree(tree)
    await bring(source, out)
    before = shown(out)
    (tree / "large").write_bytes(Random(9).randbytes(4 * CHUNK))
    source.tree(tree)
    with file_sizes(2 * CHUNK), pytest.raises(WorldError, match=r"cannot write .*File too large"):
        await bring(source, out)
    assert shown(out) == before
    assert list((out / STATE_FOLDER / "stage").iterdir()) == []
    await bring(source, out)
    assert shown(out) == on_disk(tree)


# --- Following ------------------------------------------------------------------------------------


async def test_versions_are_followed(source: Source, tree: Path, out: Path) -> None:
    """One that cannot be had is told of once, and tried again; what is no tree is told of too."""
    source.tree(tree)
    steps = mirror(source, PLACE, out, retry_s=0.001)
    async with asyncio.timeout(WITHIN_S), aclosing(steps) as outcomes:
        first = await anext(outcomes)
        assert isinstance(first, Mirrored)
        assert first.seq == 1

        (tree / "z").write_bytes(b"last")
        source.missing = {cid_of(b"last")}
        source.tree(tree)
        second = await anext(outcomes)
        assert isinstance(second, NotMirrored)
        assert (second.seq, second.at) == (2, 1)
        assert "nobody has it" in second.error
        third = asyncio.create_task(anext(outcomes))
        await source.asked_again(3)
        source.missing = set()
        came = await third
        assert isinstance(came, Mirrored)
        assert came.seq == 2

        source.publish(b"no tree")
        fourth = await anext(outcomes)
        assert isinstance(fourth, NotMirrored)
        assert (fourth.seq, fourth.at) == (3, 2)
        assert "points to no tree" in fourth.error
        (tree / "z").unlink()
        source.tree(tree)
        fifth = await anext(outcomes)
        assert isinstance(fifth, Mirrored)
        assert fifth.seq == 4
        with pytest.raises(MisuseError, match="another process mirrors"):
            await bring(source, out)
    assert shown(out) == on_disk(tree)
    assert (await bring(source, out)).files == 0


async def test_who_cannot_follow_any_more_is_told(source: Source, out: Path) -> None:
    class Stopped(Source):
        async def follow(self, public_key: bytes, salt: bytes = b"") -> AsyncGenerator[Record]:
            raise WorldError("the node stopped")
            yield  # makes this a generator

    async with asyncio.timeout(WITHIN_S), aclosing(mirror(Stopped(), PLACE, out)) as outcomes:
        with pytest.raises(WorldError, match="the node stopped"):
            await anext(outcomes)
