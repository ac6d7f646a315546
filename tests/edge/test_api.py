"""The API on real sockets and disks: nodes in this process, and their blocking twin."""

import asyncio
import gc
import os
import pydoc
import socket
import threading
import traceback
from collections.abc import Awaitable
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import pytest

import xorbit
from xorbit import errors
from xorbit.api import Node, default_home, open_calls
from xorbit.blocking import BlockingClient, BlockingNode, open_client, open_node
from xorbit.config import DEFAULT_LIMITS
from xorbit.core import joblog
from xorbit.ids import Id
from xorbit.items import block_key
from xorbit.keys import UserKey, new_key
from xorbit.run.control_client import ControlClient
from xorbit.run.control_wire import CONTROL_FILE
from xorbit.run.loop import run
from xorbit.store.lmdb import LmdbStore

T = TypeVar("T")
WITHIN_S = 30.0
LOOPBACK = "127.0.0.1:0"
NETWORK = "api tests"
SECRET = b"0123456789abcdef"
NOBODY = "bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(WITHIN_S):
        return await what


def listening(home: Path, *, bootstrap: str = "", **more: Any) -> Node:
    known = [bootstrap] if bootstrap else []
    more.setdefault("network", NETWORK)
    return Node(home, listen=LOOPBACK, bootstrap=known, **more)


def client(home: Path, *, bootstrap: str = "") -> Node:
    return Node(home, bootstrap=[bootstrap] if bootstrap else [], network=NETWORK)


async def address_of(node: Node) -> str:
    return str((await node.status()).node.addresses[0])


def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


# --- One node, several nodes --------------------------------------------------------------------


async def test_a_node_alone_keeps_what_it_is_given(tmp_path: Path) -> None:
    """A node that nobody has joined yet works with the defaults: it stores at itself."""
    async with listening(tmp_path) as node:
        receipt = await soon(node.put_block(b"hello"))
        status = await node.status()
        assert receipt.holders == (status.id,)
        assert await soon(node.get_block(receipt.cid)) == b"hello"
        assert (status.health, node.alone_because) == ("alone", "")
        with pytest.raises(errors.NotFoundError):
            await soon(node.get_block(NOBODY))


async def test_what_one_node_is_given_another_gives(tmp_path: Path) -> None:
    """Blocks and files put at one node are had at another, and at a client that holds nothing."""
    data = os.urandom(300_000)
    async with listening(tmp_path / "a") as a:
        first = await address_of(a)
        async with (
            listening(tmp_path / "b", bootstrap=first) as b,
            client(tmp_path / "c", bootstrap=first) as c,
        ):
            summary = await soon(a.put_file(data))
            ids = {(await node.status()).id for node in (a, b)}
            assert set(summary.holders) == ids
            for node in (b, c):
                assert await soon(node.get_file(str(summary.cid))) == data
            assert await soon(c.get_file_to(summary.cid, tmp_path / "out")) == len(data)
            assert (tmp_path / "out").read_bytes() == data
            assert (await c.status()).store.items == 0


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """A node that starts again has its key, its items and the size of them."""
    async with listening(tmp_path) as node:
        receipt = await soon(node.put_block(b"hello"))
        before = await node.status()
    async with listening(tmp_path) as node:
        assert await soon(node.get_block(receipt.key)) == b"hello"
        after = await node.status()
        assert (after.id, after.store) == (before.id, before.store)


async def test_pings_by_id_and_by_address(tmp_path: Path) -> None:
    """A node is asked whether it is there by its id or where it listens."""
    async with listening(tmp_path / "a") as a:
        where = await address_of(a)
        async with client(tmp_path / "b", bootstrap=where) as b:
            who = (await a.status()).id
            assert (await soon(b.ping(who))).id == (await soon(b.ping(where))).id == who
            assert {peer.id for peer in await b.peers()} == {who}
            with pytest.raises(errors.NoPeersError):
                await soon(b.ping(Id(bytes(32))))
            dead = dead_address()
            with pytest.raises(errors.NoPeersError, match=dead):
                await soon(b.ping(dead))


async def test_puts_of_many_callers_at_once(tmp_path: Path) -> None:
    """More calls than a line has room for wait their turn, and all are answered."""
    limits = DEFAULT_LIMITS.replace(line_jobs_max=4)
    async with listening(tmp_path, limits=limits) as node:
        blocks = [number.to_bytes(4, "big") for number in range(200)]
        receipts = await soon(asyncio.gather(*map(node.put_block, blocks)))
        assert [receipt.key for receipt in receipts] == [block_key(block) for block in blocks]


# --- Clients and joining ------------------------------------------------------------------------


async def test_a_client_that_reaches_nobody_says_where_it_tried(tmp_path: Path) -> None:
    """What cannot be done without peers fails with every address and what happened there."""
    dead = dead_address()
    async with client(tmp_path, bootstrap=dead) as node:
        assert dead in node.alone_because
        for ask in (node.put_block(b"x"), node.get_block(NOBODY), node.put_file(b"y")):
            with pytest.raises(errors.NoPeersError, match=f"{dead}: .*refused"):
                await soon(ask)


async def test_a_client_that_knows_no_address_says_what_to_do(tmp_path: Path) -> None:
    """Without any address the error says how to give one."""
    async with client(tmp_path) as node:
        with pytest.raises(errors.NoPeersError, match="--bootstrap HOST:PORT"):
            await soon(node.put_block(b"x"))


async def test_a_listening_node_that_reaches_nobody_goes_on(tmp_path: Path) -> None:
    """A node whose bootstrap fails serves what it has, and says why it finds nothing else."""
    dead = dead_address()
    async with listening(tmp_path, bootstrap=dead) as node:
        receipt = await soon(node.put_block(b"x"))
        assert await soon(node.get_block(receipt.key)) == b"x"
        with pytest.raises(errors.NoPeersError, match=dead):
            await soon(node.get_block(NOBODY))


async def test_peers_are_remembered(tmp_path: Path) -> None:
    """A client that found the network once needs no address the next time."""
    async with listening(tmp_path / "a") as a:
        where = await address_of(a)
        async with client(tmp_path / "b", bootstrap=where):
            pass
        async with client(tmp_path / "b") as b:
            assert len((await soon(b.put_block(b"x"))).holders) == 1


async def test_peers_that_are_gone_do_not_make_it_forget(tmp_path: Path) -> None:
    """A run in which nobody answered leaves the remembered contacts as they were."""
    async with (
        listening(tmp_path / "a") as a,
        client(tmp_path / "b", bootstrap=await address_of(a)),
    ):
        where = await address_of(a)
    for _ in range(2):
        async with client(tmp_path / "b") as b:
            assert where in b.alone_because


async def test_networks_do_not_meet(tmp_path: Path) -> None:
    """A node of another network, or without the secret, gets no connection, and is told so."""
    async with listening(tmp_path / "a", secret=SECRET) as a:
        where = await address_of(a)
        for number, more in enumerate(({}, {"network": "other"}, {"secret": SECRET[::-1]})):
            async with listening(tmp_path / str(number), bootstrap=where, **more) as b:
                assert where in b.alone_because
                assert not await b.peers()
        async with listening(tmp_path / "member", bootstrap=where, secret=SECRET) as b:
            assert len(await b.peers()) == 1


# --- Beginnings and ends --------------------------------------------------------------------------


async def test_a_home_has_one_node(tmp_path: Path) -> None:
    """A second node on the same home is refused, and does no harm to the first."""
    async with listening(tmp_path) as node:
        with pytest.raises(errors.StoreError, match="in use by another process"):
            await soon(listening(tmp_path).start())
        await soon(node.put_block(b"x"))
        assert (tmp_path / CONTROL_FILE).exists()


async def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """After a failed start everything is closed: the next start on the home works."""
    async with listening(tmp_path / "a") as a:
        taken = await address_of(a)
        node = Node(tmp_path / "b", listen=taken, network=NETWORK)
        with pytest.raises(errors.WorldError, match=f"cannot listen at {taken}"):
            await soon(node.start())
    job_log = tmp_path / "missing" / "jobs"
    with pytest.raises(errors.WorldError, match=str(job_log)):
        await soon(listening(tmp_path / "b", job_log=job_log).start())
    async with listening(tmp_path / "b") as b:
        await soon(b.put_block(b"x"))
    assert not (tmp_path / "b" / CONTROL_FILE).exists()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Cancelling a start, wherever it stands, closes what was open."""
    async with listening(tmp_path / "a") as a:
        node = listening(tmp_path / "b", bootstrap=await address_of(a))
        for ticks in range(1, 12):
            starting = asyncio.create_task(node.start())
            for _ in range(ticks):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                await soon(node.stop())
        async with node:
            await soon(node.put_block(b"x"))


async def test_a_start_cancelled_while_the_store_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread was opening when the start was cancelled is closed all the same."""
    opening, go_on = threading.Event(), threading.Event()

    def slow(*where: Any) -> LmdbStore:
        opening.set()
        assert go_on.wait(WITHIN_S)
        return LmdbStore(*where)

    with monkeypatch.context() as patched:
        patched.setattr("xorbit.api.LmdbStore", slow)
        starting = asyncio.create_task(listening(tmp_path).start())
        assert await asyncio.to_thread(opening.wait, WITHIN_S)
        starting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(starting)
    async with listening(tmp_path) as node:
        await soon(node.put_block(b"x"))


async def test_misuse_is_told(tmp_path: Path) -> None:
    """A node that does not run answers nothing; one that runs does not start again."""
    node = listening(tmp_path)
    for ask in (node.put_block(b"x"), node.status(), node.ping(bytes(32))):
        with pytest.raises(errors.MisuseError, match="not running"):
            await ask
    async with node:
        with pytest.raises(errors.MisuseError, match="already"):
            await node.start()
        with pytest.raises(errors.MisuseError, match="65,536"):
            await node.put_block(bytes(65_537))
        with pytest.raises(errors.MisuseError, match="expected a name"):
            await node.get_file("nonsense")
    await node.stop()


@pytest.mark.parametrize(
    "words",
    [
        {"listen": "nowhere"},
        {"listen": "127.0.0.1"},
        {"listen": ":0"},
        {"bootstrap": "127.0.0.1:0"},
        {"bootstrap": ["127.0.0.1:1", "x"]},
    ],
)
def test_addresses_are_checked_at_once(tmp_path: Path, words: dict[str, Any]) -> None:
    """An address that is none is refused before anything is made."""
    with pytest.raises(errors.MisuseError, match="expected HOST:PORT"):
        Node(tmp_path / "home", **words)
    assert not (tmp_path / "home").exists()


async def test_a_node_stops_when_its_console_says_so(tmp_path: Path) -> None:
    """What is typed is answered by `show`; after `stop`, `ended` returns."""
    shown: list[str] = []
    async with listening(tmp_path, show=shown.append) as node:
        node.type_line("nonsense")
        node.type_line("stop")
        await soon(node.ended())
    assert "unknown command 'nonsense'" in shown[0]
    assert shown[-1] == "stopping"


async def test_jobs_are_logged_for_a_replay(tmp_path: Path) -> None:
    """With `job_log` every job of the run is in the file, in order."""
    log = tmp_path / "jobs.log"
    async with listening(tmp_path / "home", job_log=log) as node:
        await soon(node.put_block(b"hello"))
    with log.open("rb") as source:
        header, entries = joblog.read(source)
        steps = list(joblog.replay(joblog.new_machine(header), entries))
    names = [type(job).__name__ for _, job, _ in steps]
    ours = [name for name in names if name in ("Listening", "Store", "StoreWritten", "Shutdown")]
    # Written as the closest node, and pinned for its owner; then due to be sent to others again.
    assert ours == ["Listening", "Store", *["StoreWritten"] * 3, "Shutdown"]


def test_the_home_is_where_one_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XORBIT_HOME names the home; without it, it is in the user's data directory."""
    monkeypatch.setenv("XORBIT_HOME", str(tmp_path / "named"))
    assert Node().home == default_home() == tmp_path / "named"
    monkeypatch.delenv("XORBIT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home().name == "xorbit"
    assert Node(str(tmp_path)).home == tmp_path


# --- Somebody's node ----------------------------------------------------------------------------


async def test_a_running_node_is_used(tmp_path: Path) -> None:
    """Whoever opens a home with a running node on it gets that node."""
    async with listening(tmp_path) as node, open_calls(tmp_path) as calls:
        assert isinstance(calls, ControlClient)
        receipt = await soon(calls.put_block(b"hello"))
        assert await soon(node.get_block(receipt.key)) == b"hello"
        assert (await calls.status()).id == (await node.status()).id


async def test_without_a_running_node_a_client_comes_and_goes(tmp_path: Path) -> None:
    """Nothing is left on the home but its key, its network, its store and the remembered peers."""
    async with listening(tmp_path / "a") as a:
        where = await address_of(a)
        async with open_calls(tmp_path / "b", bootstrap=where, network=NETWORK) as calls:
            assert isinstance(calls, Node)
            await soon(calls.put_block(b"hello"))
            assert not (tmp_path / "b" / CONTROL_FILE).exists()
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "network.json",
        "node.key",
        "store",
    }


@pytest.mark.parametrize("named", [{"network": "other"}, {"network": NETWORK, "secret": SECRET}])
async def test_a_node_of_another_network_is_not_used(tmp_path: Path, named: Any) -> None:
    """To name another network than the running node's is a mistake, not a way in."""
    async with listening(tmp_path):
        with pytest.raises(errors.MisuseError, match=f"the open network '{NETWORK}'"):
            async with open_calls(tmp_path, **named):
                pass
        async with open_calls(tmp_path, network=NETWORK):
            pass


async def test_connect_needs_a_running_node(tmp_path: Path) -> None:
    """`connect` reaches the node that runs, or says that none does."""
    with pytest.raises(errors.NotRunningError, match="start one"):
        await xorbit.connect(tmp_path)
    async with listening(tmp_path) as node:
        reached = await soon(xorbit.connect(tmp_path))
        assert (await soon(reached.status())).id == (await node.status()).id
        await soon(reached.close())


async def test_a_client_in_flight_is_answered_when_its_node_stops(tmp_path: Path) -> None:
    """Who waits at the local socket of a node that stops gets an error, soon."""
    node = listening(tmp_path)
    await node.start()
    reached = await soon(xorbit.connect(tmp_path))
    stopping = asyncio.create_task(node.stop())

    async def put_on() -> None:
        while True:
            await soon(reached.put_block(b"x"))

    with pytest.raises(errors.StoppedError):
        await put_on()
    await soon(stopping)
    await soon(reached.close())


# --- The blocking twin --------------------------------------------------------------------------


def test_the_blocking_twin_does_all_that_the_node_does(tmp_path: Path) -> None:
    """Without an event loop of one's own: the same methods, the same results."""
    told: list[tuple[int, int | None]] = []
    data = os.urandom(150_000)
    with open_node(tmp_path / "a", listen=LOOPBACK, network=NETWORK) as a:
        status = a.status()
        where = str(status.node.addresses[0])
        with open_node(tmp_path / "b", bootstrap=where, network=NETWORK) as b:
            receipt = b.put_block(b"hello")
            assert receipt.holders == (status.id,)
            assert a.get_block(receipt.key) == b"hello"
            summary = b.put_file(data, progress=lambda *done: told.append(done))
            assert a.get_file(summary.cid) == data
            assert a.get_file_to(summary.cid, tmp_path / "out") == len(data)
            assert b.ping(where).id == status.id
            assert len(b.peers()) == 1
            assert b.alone_because == ""
    assert told[-1] == (len(data), len(data))


def test_errors_come_out_of_the_blocking_twin(tmp_path: Path) -> None:
    """Errors of the start and of calls are raised where the call was made."""
    with open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
        with pytest.raises(errors.NotFoundError):
            node.get_block(NOBODY)
        for no_name in (b"x", None, 5):
            with pytest.raises(errors.MisuseError, match="expected a name"):
                node.get_block(no_name)  # pyright: ignore[reportArgumentType]
        receipt = node.put_block(b"x")
        assert repr(receipt) == f"<PutReceipt {receipt.cid}, held by 1>"
        with pytest.raises(errors.StoreError, match=r"in use.*xorbit\.open_client") as caught:
            open_node(tmp_path, network=NETWORK)
        assert len(traceback.format_exception(caught.value)) < 10
    with pytest.raises(errors.StoppedError, match="closed"):
        node.status()
    node.close()


def test_nothing_of_a_closed_twin_is_left(tmp_path: Path) -> None:
    """Its thread ends with it."""
    before = threading.active_count()
    node = open_node(tmp_path, network=NETWORK)
    assert isinstance(node, BlockingNode)
    assert threading.active_count() > before
    node.close()
    assert not any(thread.name == "xorbit-node" for thread in threading.enumerate())


def test_a_blocking_client_uses_the_node_that_runs(tmp_path: Path) -> None:
    """It has the same methods and gives up nothing of the node but itself."""
    data = os.urandom(150_000)
    with open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
        with open_client(tmp_path) as client:
            assert client.status().id == node.status().id
            name = client.put_file(data).cid
            assert node.get_file(name) == client.get_file(name) == data
            with client.open(name) as file:
                assert file.read(10) == data[:10]
            with pytest.raises(errors.NotFoundError):
                client.get_block(NOBODY)
        with pytest.raises(errors.StoppedError, match="this client was closed"):
            client.status()
        assert node.get_file(name) == data
        left = open_client(str(tmp_path))
    with pytest.raises(errors.StoppedError):
        left.status()
    left.close()
    with pytest.raises(errors.NotRunningError, match="no node runs on"):
        open_client(tmp_path)
    assert not any(thread.name == "xorbit-client" for thread in threading.enumerate())


@pytest.mark.parametrize("twin", [Node, ControlClient, BlockingNode, BlockingClient])
def test_help_has_all_that_is_to_be_known(twin: type) -> None:
    """It says what is given and raised, and sends nobody elsewhere."""
    text = pydoc.render_doc(twin, renderer=pydoc.plaintext)
    assert "a file open for reading bytes, which is read" in text
    assert "more than 65,536 bytes, or a kind that is no hash of blocks" in text
    assert "see `" not in text.replace("see `get_file_to`", "").replace("see `xorbit.", "")


def test_an_interrupt_ends_the_call_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while waiting for the node cancels what was asked; the node goes on."""
    cancelled = threading.Event()
    asked = threading.Event()

    async def never(*_: object) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupt(*_: object) -> None:
        assert asked.wait(WITHIN_S)
        raise KeyboardInterrupt

    with open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
        with monkeypatch.context() as patched:
            patched.setattr(Node, "ping", never)
            patched.setattr("concurrent.futures.Future.result", interrupt)
            with pytest.raises(KeyboardInterrupt):
                node.ping(bytes(32))
        assert cancelled.wait(WITHIN_S)
        node.put_block(b"x")


def leave_open(node: BlockingNode, key: UserKey) -> None:
    """Open what has to be closed, and leave it to the garbage collector."""
    node.publish(key, b"version")
    name = node.put_file(os.urandom(150_000)).cid
    file = BufferedReader(node.open(name))
    versions = node.follow(key.public_key)
    cycle: list[object] = [file, versions]
    cycle.append(cycle)
    assert len(file.read(10)) == 10
    assert next(versions).value == b"version"


def test_garbage_may_be_collected_on_the_thread_of_the_node(tmp_path: Path) -> None:
    """What is closed there by the garbage collector waits for nothing, and the node goes on."""
    node = open_node(tmp_path, listen=LOOPBACK, network=NETWORK)
    collected = threading.Event()
    gc.disable()
    try:
        leave_open(node, new_key(tmp_path, "me"))
        node._loop.call_soon_threadsafe(lambda: (gc.collect(), collected.set()))
        assert collected.wait(WITHIN_S)
    finally:
        gc.enable()
    node.put_block(b"x")
    node.close()


def test_a_call_on_the_thread_of_the_node_is_refused(tmp_path: Path) -> None:
    """It would wait for itself: who calls back from `progress` is told so."""
    with open_node(tmp_path, listen=LOOPBACK, network=NETWORK) as node:
        with pytest.raises(errors.MisuseError, match="on the node's own thread"):
            node.put_file(b"x", progress=lambda *_: node.status())
        node.put_block(b"x")


# --- The package --------------------------------------------------------------------------------


def test_what_the_package_names_can_be_had() -> None:
    """Every public name is there, listed, and loaded when it is asked for."""
    for name in (
        "Node",
        "open_node",
        "open_client",
        "connect",
        "Kind",
        "Limits",
        "NotFoundError",
        "cid_of",
    ):
        assert getattr(xorbit, name)
        assert name in dir(xorbit)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = xorbit.nonsense  # pyright: ignore[reportAttributeAccessIssue]


def test_the_loop_is_the_fast_one() -> None:
    """Where uvloop exists, that is what everything runs on."""

    async def which() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(which()) == "uvloop"
