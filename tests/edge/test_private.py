"""Private content on real nodes: only its name opens it, and it is kept without its key."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.edge.cli_nodes import WITHIN_S, XORBIT, NodeProcess
from tests.edge.conftest import Command
from tests.edge.test_api import NOBODY, address_of, client, listening, soon
from tests.edge.test_pins import names, pinned
from tests.edge.test_trees import LARGE, make_tree
from tests.unit.files.trees import on_disk
from xorbit import errors
from xorbit.api import Node, connect
from xorbit.blocking import BlockingNode
from xorbit.cli.prompt import History
from xorbit.files import trees
from xorbit.files.cid import Cid, Codec, parse_place
from xorbit.files.flow import BlocksToGet
from xorbit.files.seal_key import SealKey, parse_key
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind
from xorbit.run import pinning
from xorbit.run.file_calls import FileCalls

SECRET = b"the words that nobody else may read"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = make_tree(tmp_path_factory.mktemp("tree") / "top")
    (top / "sub" / "name-that-is-secret.txt").write_bytes(SECRET * 100)
    return top


@pytest.fixture(scope="module")
def logged(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[list[NodeProcess], None, None]:
    """Three nodes that know each other; the first writes its jobs to a log."""
    top = tmp_path_factory.mktemp("logged")
    with (
        NodeProcess(top / "a", "--log-jobs", str(top / "a" / "jobs")) as a,
        NodeProcess(top / "b", bootstrap=a.address) as b,
        NodeProcess(top / "c", bootstrap=a.address) as c,
    ):
        yield [a, b, c]


def bytes_below(home: Path) -> bytes:
    """Return all that is on disk below a home: the store, the logs, the job log."""
    return b"\n".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


# --- Commands -----------------------------------------------------------------------------------


def test_a_private_tree_is_got_by_its_name_and_by_nothing_else(
    xorbit: Command, logged: list[NodeProcess], tree: Path, tmp_path: Path
) -> None:
    """Put at one node, read at another; no disk and no log of any node has a word or the key."""
    own, other = ("--home", logged[0].home), ("--home", logged[1].home)
    done = xorbit("put", "--encrypt", tree, *own, "--trace")
    name = done.text.strip()
    cid, key = name.removeprefix("xorbit://").split("#")
    assert (done.code, cid.startswith("bafkr4i"), len(key)) == (0, True, 56)
    assert key not in done.err

    got = xorbit("get", name, "-o", tmp_path / "out", *other, "--json", "--trace")
    assert (got.json["cid"], got.json["links"]) == (cid, 1)
    assert key not in got.text
    assert on_disk(tmp_path / "out") == on_disk(tree)
    assert (
        xorbit("get", f"{name}/large", "--range", "65530-65545", *other).out
        == (LARGE[65_530:65_546])
    )
    assert xorbit("cat", f"{name}/sub/name-that-is-secret.txt", *other).out == SECRET * 100
    listed = xorbit("ls", name, *other, "--json").json
    assert [entry["name"] for entry in listed] == [".hidden", "empty", "large", "many", "sub"]
    assert {entry["cid"][:7] for entry in listed} == {"bafkr4i"}
    assert [entry["bytes"] for entry in listed if entry["name"] == "large"] == [len(LARGE)]
    said = xorbit("stat", name, *other, "--json").json
    assert (said["name"], said["cid"], said["entries"]) == (cid, cid, 5)

    missing = xorbit("get", f"{name}/nothing", *other, "--trace")
    assert (missing.code, key in missing.err) == (3, False)
    directory = xorbit("get", name, *other)
    assert (directory.code, key in directory.err) == (2, False)
    xorbit("cat", f"{name}/sub", *other).failed(2, f"{cid}#.../sub is a directory: ")
    without = xorbit("cat", cid, *other)
    assert (without.code, b"sub" in without.out, b"large" in without.out) == (0, False, False)

    for node in logged:
        everything = bytes_below(node.home)
        for word in (SECRET, b"name-that-is-secret", b"file 17", LARGE[:32], key.encode()):
            assert word not in everything
        assert parse_key(key).secret not in everything


def test_a_private_file_has_a_new_name_each_time(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(SECRET)
    home = ("--home", nodes[0].home)
    puts = [xorbit("put", "--encrypt", tmp_path / "file", *home, "--json").json for _ in range(2)]
    assert [put["bytes"] for put in puts] == [len(SECRET)] * 2
    assert len({put["cid"] for put in puts}) == 2
    for put in puts:
        assert put["name"].startswith(f"xorbit://{put['cid']}#k")
        assert xorbit("get", put["name"], "--home", nodes[2].home).out == SECRET
    plain = xorbit("put", tmp_path / "file", *home, "--json").json
    assert "name" not in plain
    one, two = (put["name"].partition("#") for put in puts)
    wrong = xorbit("get", f"{one[0]}#{two[2]}", *home)
    wrong.failed(1, f"block {puts[0]['cid']} does not open: it was sealed under another key")
    assert two[2] not in wrong.err


def test_what_cannot_be_is_refused_with_what_to_do(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(SECRET)
    home = ("--home", nodes[0].home)
    name = xorbit("put", "--encrypt", tmp_path / "file", *home).text.strip()
    cid, _, key = name.partition("#")
    xorbit("cid", "--encrypt", tmp_path / "file").failed(2, "has no name before it is put")
    out = ("-o", tmp_path / "x.car")
    xorbit("export", name, *out, *home).failed(2, "private content is not exported")
    for text, says in (
        (name[:-1], "was it cut when copied?"),
        (f"{name[:-1]}{'a' if name[-1] != 'a' else 'b'}", "was copied wrongly"),
        (f"{cid}/sub#{key}", "write NAME#KEY/path"),
    ):
        for command in ("get", "cat", "ls", "stat"):
            done = xorbit(command, text, *home)
            done.failed(2, says)
            assert key[:-2] not in done.err
    pinned_with_salt = xorbit("pin", name, "--salt", "s", *home)
    pinned_with_salt.failed(2, "has no salt")
    assert key not in pinned_with_salt.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_at_the_console_the_node_is_not_told_the_key(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """`get`, `pin` and `unpin` work there; other lines with a key are refused before it is sent."""
    (tmp_path / "file").write_bytes(SECRET * 3_000)
    home = ("--home", str(nodes[0].home))
    name = xorbit("put", "--encrypt", tmp_path / "file", *home).text.strip()
    lines = [f"get {name} -o {tmp_path}/out", f"get {name}", f"pin {name}"]
    lines += [f"lookup {name}", f"put {name}", f"unpin {name}"]
    done = subprocess.run(
        [*XORBIT, "console", *home],
        input="\n".join(lines),
        capture_output=True,
        timeout=WITHIN_S,
        text=True,
        check=False,
    )
    for says in ("written", "kept here", "3 items let go of"):
        assert done.stdout.count(says) == 1
    assert done.stderr.count("add -o PATH") == 1
    assert done.stderr.count("goes to `get`, `pin` and `unpin` only") == 2
    assert name.partition("#")[2] not in done.stdout + done.stderr
    assert (tmp_path / "out").read_bytes() == SECRET * 3_000


def test_the_prompt_remembers_no_key(tmp_path: Path) -> None:
    """In the file of its history stand the other lines only."""
    history = History(str(tmp_path / "history"))
    key = SealKey(bytes(32), is_node=True).text
    for line in ("peers", f"get {NOBODY}#{key} -o out", f"get {NOBODY} -o out"):
        history.append_string(line)
    said = (tmp_path / "history").read_text()
    assert "+peers" in said
    assert f"+get {NOBODY} -o out" in said
    assert key not in said


# --- Kept ---------------------------------------------------------------------------------------


async def test_it_is_kept_without_its_key_until_it_is_unpinned(tree: Path, tmp_path: Path) -> None:
    """Through restarts and `gc`; beside a plain put of the same, which shares nothing with it."""
    async with listening(tmp_path) as node:
        plain = await soon(node.put_tree(tree))
        rest = await pinned(node)
        done = await soon(node.put_tree(tree, encrypt=True))
        assert done.not_kept == ""
        mine = await pinned(node) - rest
        assert len(mine) == done.blocks
        [kept] = [kept.root for kept in await node.pins() if kept.root.sealed]
        assert (kept.is_directory, kept.size) == (True, done.bytes)
        assert (pinning.name_of(kept), plain.bytes) == (str(done.cid), done.bytes)
        assert await soon(node.gc()) == 0
    async with listening(tmp_path) as node:
        assert await soon(node.gc()) == 0
        assert await soon(node.unpin(plain.cid)) == len(rest)
        assert await pinned(node) == mine
        out = tmp_path / "out"
        await soon(node.get_tree(done.name, out))
        assert on_disk(out) == on_disk(tree)
        assert await soon(node.unpin(done.name)) == len(mine)
        assert (await names(node), await pinned(node)) == ({}, set())


async def test_others_keep_all_of_it_with_the_key_and_a_block_without(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several rows; a pin of the block alone changes nothing where the whole is kept."""
    monkeypatch.setattr("xorbit.run.pinning.MEMBERS_ROW_KEYS", 7)
    async with listening(tmp_path / "a") as a:
        done = await soon(a.put_tree(tree, encrypt=True))
        whole = await pinned(a)
        async with listening(tmp_path / "b", bootstrap=await address_of(a)) as b:
            held = await pinned(b)
            assert held == set()
            root = await soon(b.pin(done.cid))
            assert (root.sealed, await pinned(b)) == (False, {done.cid.key})
            root = await soon(b.pin(done.name))
            assert (root.sealed, root.size, root.is_directory) == (True, done.bytes, True)
            for _ in range(2):
                assert await pinned(b) == whole
                await soon(b.pin(done.cid))
                await soon(b.pin(done.name))
                assert await soon(b.gc()) == 0
            assert await names(b) == {str(done.cid): "kept"}
            assert await soon(b.unpin(done.cid)) == done.blocks
            assert (await names(b), await pinned(b)) == ({}, set())
            with pytest.raises(errors.NotFoundError, match=f"{done.cid} is not pinned here"):
                await soon(b.unpin(done.name))
            with pytest.raises(errors.MisuseError, match="is pinned as a whole"):
                await soon(b.pin(f"{done.name}/sub"))


async def test_a_pin_that_fails_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    async with listening(tmp_path) as node:
        done = await soon(node.put_file(tree / "large", encrypt=True))
        before = await pinned(node)
        assert done.seal is not None
        wrong = SealKey(bytes(32), is_node=True).text
        with pytest.raises(errors.FormatError, match="does not open"):
            await soon(node.pin(f"{(await soon(node.put_block(SECRET))).cid}#{wrong}"))
        nobody = Cid(Codec.RAW, ItemKey(Kind.BLOCK_BLAKE3_256, Id(bytes(32))))
        with pytest.raises(errors.NotFoundError):
            await soon(node.pin(f"{nobody}#{wrong}"))
        assert before <= await pinned(node)
        assert str(nobody) not in await names(node)
        assert await soon(node.gc()) == 0


@pytest.mark.parametrize("whose", ["put", "pin"])
async def test_gc_meanwhile_takes_nothing_from_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """What `gc` took before all was noted is pinned again, as long as that is not without end."""
    note = pinning.note_members
    taken: list[int] = []

    async def note_late(pins: pinning.Pins, key: ItemKey, blocks: BlocksToGet, root: Cid) -> None:
        if len(taken) < 2:
            taken.append(await node.gc())
        await note(pins, key, blocks, root)

    async with listening(tmp_path) as node:
        done = await soon(node.put_tree(tree, encrypt=True))
        whole = await pinned(node)
        if whose == "put":
            await soon(node.unpin(done.name))
            monkeypatch.setattr(pinning, "note_members", note_late)
            done = await soon(node.put_tree(tree, encrypt=True))
            assert done.not_kept == ""
        else:
            await soon(node.unpin(done.name))
            monkeypatch.setattr(pinning, "note_members", note_late)
            await soon(node.pin(done.name))
            assert await pinned(node) == whole
        assert taken[0] == done.blocks - 1
        assert len(await pinned(node)) == done.blocks
        assert await soon(node.gc()) == 0
        assert await names(node) == {str(done.cid): "kept"}


async def test_two_pins_at_once_end_with_one_root(tree: Path, tmp_path: Path) -> None:
    async with listening(tmp_path / "a") as a:
        done = await soon(a.put_tree(tree, encrypt=True))
        async with client(tmp_path / "b", bootstrap=await address_of(a)) as b:
            roots = await soon(asyncio.gather(*(b.pin(done.name) for _ in range(3))))
            assert {root.key for root in roots} == {done.cid.key}
            assert await names(b) == {str(done.cid): "kept"}
            assert len(await pinned(b)) == done.blocks
            assert await soon(b.gc()) == 0


async def test_a_life_that_ended_while_it_pinned_leaves_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was noted until then is let go of in the next life, the rest by `gc`."""
    monkeypatch.setattr("xorbit.run.pinning.MEMBERS_ROW_KEYS", 7)
    reached = asyncio.Event()
    all_names = trees.all_names

    async def stuck(blocks: BlocksToGet, root: Cid) -> AsyncGenerator[Cid]:
        count = 0
        async for cid in all_names(blocks, root):
            yield cid
            count += 1
            if count == 30:
                reached.set()
                await asyncio.Event().wait()

    async with listening(tmp_path) as node:
        with monkeypatch.context() as patched:
            patched.setattr(trees, "all_names", stuck)
            putting = asyncio.create_task(node.put_tree(tree, encrypt=True))
            await soon(reached.wait())
            assert list((await names(node)).values()) == ["joining"]
            patched.setattr(pinning, "LeaveRoot", None)  # nobody tidies up who is killed
            putting.cancel()
            await asyncio.wait([putting])
    async with listening(tmp_path) as node:
        await soon(node.gc())  # waits its turn behind what the start lets go of
        assert (await names(node), await pinned(node)) == ({}, set())


# --- Python -------------------------------------------------------------------------------------


async def use(calls: FileCalls, tree: Path, out: Path) -> None:
    """Put a tree and use every call that takes a name."""
    done = await calls.put_tree(tree, encrypt=True)
    assert done.seal is not None
    assert (await calls.ls(f"{done.name}/sub"))[0].name == "deep"
    assert (await calls.stat(f"{done.name}/many")).entries == 60
    [itself] = await calls.ls(f"{done.name}/large")
    assert (itself.name, itself.size, itself.cid.codec) == ("large", len(LARGE), Codec.RAW)
    found = await calls.find(f"{done.name}/large")
    assert found.seal is not None
    assert await calls.get_file(found) == LARGE
    assert (await calls.ls(found))[0].size == len(LARGE)
    async with await calls.open(f"{done.name}/large") as file:
        file.seek(200_000)
        assert await file.read(100) == LARGE[200_000:200_100]
    small = await calls.put_file(SECRET, encrypt=True)
    assert await calls.get_file(small.name, part=(4, 9)) == SECRET[4:9]
    [alone] = await calls.ls(small.name)
    assert (alone.name, alone.cid, alone.size) == (str(small.cid), small.cid, len(SECRET))
    assert (await calls.stat(parse_place(small.name))).name == str(small.cid)
    await calls.get_tree(done.name, out)
    assert on_disk(out) == on_disk(tree)
    with pytest.raises(errors.MisuseError, match="private content is not exported"):
        await calls.export_car(done.name, out / "x.car")


async def test_a_node_and_who_talks_to_it_use_names_with_keys(tree: Path, tmp_path: Path) -> None:
    async with listening(tmp_path / "home") as node:
        await soon(use(node, tree, tmp_path / "one"))
        caller = await connect(tmp_path / "home")
        try:
            await soon(use(caller, tree, tmp_path / "two"))
            done = await soon(caller.put_file(SECRET, encrypt=True))
            assert await soon(caller.unpin(done.name)) == 1
            assert (await soon(caller.pin(done.name))).size == len(SECRET)
        finally:
            await caller.close()


def test_scripts_have_the_same(tree: Path, tmp_path: Path) -> None:
    with BlockingNode(Node(tmp_path / "a", listen="127.0.0.1:0", network="private")) as node:
        name = node.put_tree(tree, encrypt=True).name
        with node.open(f"{name}/large") as file:
            assert file.readall() == LARGE
        assert node.get_file(node.put_file(SECRET, encrypt=True).name) == SECRET
        assert len(node.ls(name)) == 5


# --- On the way ---------------------------------------------------------------------------------


async def test_a_name_with_a_key_to_other_blocks_is_an_error_that_names_them(
    tree: Path, tmp_path: Path
) -> None:
    async with listening(tmp_path) as node:
        one = await soon(node.put_tree(tree, encrypt=True))
        two = await soon(node.put_tree(tree, encrypt=True))
        key = two.name.partition("#")[2]
        for wrong in (f"{one.cid}#{key}", f"{(await soon(node.put_file(SECRET))).cid}#{key}"):
            says = f"block {wrong.partition('#')[0]} does not open"
            with pytest.raises(errors.FormatError, match=says) as caught:
                await soon(node.get_tree(wrong, tmp_path / "out"))
            assert key not in str(caught.value)
