"""A managed network whose operator turns a node out."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from nacl.signing import SigningKey

from tests.edge.cli_nodes import Deadline, NodeProcess, xorbit_process
from xorbit import errors
from xorbit.api import Node, connect
from xorbit.core.effect import PutDone
from xorbit.identity import NodeKey, admit_node, create_network, install_membership, load_authority
from xorbit.ids import Id, id_of
from xorbit.items import Record
from xorbit.keys import UserKey
from xorbit.run import revoked
from xorbit.run.calls import Calls
from xorbit.run.loop import run
from xorbit.run.publish import TRIES_MAX
from xorbit.wire.message import Receipt

T = TypeVar("T")
WITHIN_S = 30.0
SECONDS = 5.0
LOOPBACK = "127.0.0.1:0"


async def soon(what: Awaitable[T], within_s: float = WITHIN_S) -> T:
    async with asyncio.timeout(within_s):
        return await what


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = SECONDS) -> None:
    for _ in Deadline(within_s):
        if await holds():
            return
        await asyncio.sleep(0.02)


class Operator:
    """Who runs a network from a directory, and makes homes of members."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.home = place / "operator"
        create_network(self.home, "ours")
        _, authority = load_authority(self.home)
        self.key = UserKey(authority.signing_key)

    def member(self, name: str) -> Path:
        home = self.place / name
        public_key = NodeKey.load_or_create(home).public_key
        install_membership(home, admit_node(self.home, public_key))
        return home

    def node(self, name: str, *bootstrap: str) -> Node:
        return Node(self.member(name), listen=LOOPBACK, bootstrap=bootstrap)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


async def address_of(node: Node) -> str:
    return str((await node.status()).node.addresses[0])


async def id_of_node(node: Node) -> Id:
    return (await node.status()).id


async def knows(calls: Calls, peer: Id) -> bool:
    connected = {other.id for other in await calls.peers()}
    return peer in connected or peer in {other.id for other in await calls.contacts()}


async def test_a_revoked_nodes_connections_end_within_seconds(operator: Operator) -> None:
    """By the command, over any member; nobody has it as a contact any more."""
    async with operator.node("a") as a:
        where = await address_of(a)
        async with operator.node("b", where) as b, operator.node("bad", where) as bad:
            who = await id_of_node(bad)
            for node in (a, b):
                await until(lambda node=node: knows(node, who))
            words = ("network", "revoke", who.hex(), "--bootstrap", where, "--json")
            ran = await asyncio.to_thread(xorbit_process, *words, "--home", operator.home)
            assert ran.returncode == 0, ran.stderr
            said = json.loads(ran.stdout)
            assert (said["revoked"], said["new"]) == (who.hex(), True)
            assert len(said["holders"]) >= 2

            async def is_gone() -> bool:
                return not await knows(a, who) and not await knows(b, who)

            async def is_alone() -> bool:
                return not await bad.peers()

            await until(is_gone)
            await until(is_alone)
            with pytest.raises(errors.WorldError):
                await soon(bad.ping(where))
            receipt = await soon(a.put_block(b"for members"))
            assert who not in receipt.holders
            ran = await asyncio.to_thread(xorbit_process, *words, "--home", operator.home)
            assert json.loads(ran.stdout)["new"] is False


async def test_a_public_key_is_as_good_as_an_id(operator: Operator) -> None:
    async with operator.node("a") as a, operator.node("bad", await address_of(a)) as bad:
        who = await id_of_node(bad)
        public_key = NodeKey.load_or_create(bad.home).public_key
        assert id_of(public_key) == who
        await soon(revoked.revoke(a, operator.key, Id(public_key), operator.home))

        async def is_gone() -> bool:
            return not await knows(a, who)

        await until(is_gone)


async def test_a_node_that_restarts_without_a_network_still_refuses(operator: Operator) -> None:
    """The list is in its home."""
    async with operator.node("bad") as bad:
        who = await id_of_node(bad)
        where = await address_of(bad)
        home = operator.member("a")
        async with Node(home, listen=LOOPBACK, bootstrap=where) as a:
            await soon(revoked.revoke(a, operator.key, who, operator.home))

            async def is_kept() -> bool:
                return revoked.load(home, operator.key.public_key) is not None

            await until(is_kept)
        async with Node(home, listen=LOOPBACK) as a:
            for way in (bad.ping(await address_of(a)), a.ping(where)):
                with pytest.raises(errors.WorldError):
                    await soon(way)
            assert not await knows(a, who)


async def test_an_older_list_changes_nothing(operator: Operator) -> None:
    """A network that has only the list of yesterday does not bring a revoked node back."""
    first, second = (Id(bytes([number]) * 32) for number in (1, 2))
    old = operator.key.sign(1, revoked.encode_ids([first]), revoked.SALT)
    new = operator.key.sign(2, revoked.encode_ids([first, second]), revoked.SALT)
    home = operator.member("a")
    revoked.save(home, new)
    async with Node(home, listen=LOOPBACK) as a:
        await soon(a.put_record(old, 0))
        assert await soon(a.resolve(operator.key.public_key, revoked.SALT)) == old
        state = a._started.driver.machine.state
        assert {first, second} <= state.revoked
        assert revoked.load(home, operator.key.public_key) == new
        third = Id(bytes([3]) * 32)
        await soon(revoked.revoke(a, operator.key, third, home))
        found = await soon(a.resolve(operator.key.public_key, revoked.SALT))
        assert revoked.decode_ids(found.value) == (first, second, third)
        assert found.seq == 3


async def test_only_the_operators_list_counts(operator: Operator) -> None:
    """What another key signs is neither followed nor taken from the disk."""
    stranger = UserKey(SigningKey(bytes(32)))
    gone = Id(b"x" * 32)
    home = operator.member("a")
    fake = stranger.sign(9, revoked.encode_ids([gone]), revoked.SALT)
    revoked.save(home, fake)
    async with Node(home, listen=LOOPBACK) as a:
        assert revoked.load(home, operator.key.public_key) is None
        assert gone not in a._started.driver.machine.state.revoked


# --- By the command line, among processes ---------------------------------------------------------


def told(*words: object) -> bytes:
    """Run a command that works; return what it says."""
    ran = xorbit_process(*words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class Club:
    """A managed network made and kept by commands alone."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self.home = place / "operator"
        said = json.loads(told("network", "create", "club", "--home", self.home, "--json"))
        self.authority_key = bytes.fromhex(said["authority"])

    def admit(self, name: str) -> Path:
        """Admit one more node; return its home."""
        home, file = self._place / name, self._place / f"{name}.membership"
        key = told("network", "join", "--home", home).decode().strip()
        told("network", "admit", key, "-o", file, "--home", self.home)
        told("network", "join", file, "--home", home)
        return home

    def start(self, home: Path, *known: NodeProcess) -> NodeProcess:
        bootstrap = known[0].address if known else ""
        return self._stack.enter_context(NodeProcess(home, bootstrap=bootstrap, network="club"))

    def revoke(self, gone: NodeProcess, over: NodeProcess) -> None:
        told("network", "revoke", gone.id, "--bootstrap", over.address, "--home", self.home)

    async def until_all_know(self, nodes: Sequence[NodeProcess], gone: NodeProcess) -> None:
        """Wait until the list in the home of each names that node."""

        async def is_listed() -> bool:
            lists = [revoked.load(node.home, self.authority_key) for node in nodes]
            return all(one and bytes.fromhex(gone.id) in one.value for one in lists)

        await until(is_listed, WITHIN_S)


@pytest.fixture
def club(tmp_path: Path) -> Generator[Club]:
    with ExitStack() as stack:
        yield Club(tmp_path, stack)


async def peers_of(node: NodeProcess) -> set[str]:
    client = await connect(node.home)
    try:
        return {peer.id.hex() for peer in await client.peers()}
    finally:
        await client.close()


async def until_peers(node: NodeProcess, *others: NodeProcess) -> None:
    """Wait until a node is connected to these and to no others."""

    async def are_they() -> bool:
        return await peers_of(node) == {other.id for other in others}

    await until(are_they, WITHIN_S)


async def test_the_connections_of_a_revoked_process_end(club: Club) -> None:
    """Within seconds; what the others had is still had, and it gets nothing any more."""
    a = club.start(club.admit("a"))
    b, bad = club.start(club.admit("b"), a), club.start(club.admit("bad"), a)
    for node, others in ((a, (b, bad)), (b, (a, bad)), (bad, (a, b))):
        await until_peers(node, *others)
    club.revoke(bad, over=b)
    await until_peers(bad)
    await until_peers(a, b)
    await until_peers(b, a)
    ran = xorbit_process("ping", a.address, "--home", bad.home)
    assert (ran.returncode, ran.stdout) == (4, b""), ran.stderr


async def test_a_node_revoked_while_it_was_offline_stays_out_though_all_others_restart(
    club: Club,
) -> None:
    """It is killed, it is revoked, the others are killed; then they come back, and a newcomer."""
    a = club.start(club.admit("a"))
    b, bad = club.start(club.admit("b"), a), club.start(club.admit("bad"), a)
    await until_peers(bad, a, b)
    bad.kill()
    club.revoke(bad, over=a)
    await club.until_all_know((a, b), bad)
    a.kill()
    b.kill()
    again = club.start(a.home)
    back = club.start(bad.home, again)
    other, newcomer = club.start(b.home, again), club.start(club.admit("newcomer"), again)
    await club.until_all_know((newcomer,), bad)
    for node in (again, other, newcomer):
        ran = xorbit_process("ping", node.address, "--home", back.home)
        assert (ran.returncode, ran.stdout) == (4, b""), ran.stderr
        assert back.id not in await peers_of(node)
    assert await peers_of(back) == set()
    log = back.log.read_text()
    assert log.count("hung up at once") + log.count("revoked this very node") == 1


def test_a_network_is_revoked_from_by_its_operator_only(tmp_path: Path) -> None:
    ran = xorbit_process("network", "revoke", "ab" * 32, "--home", tmp_path)
    assert ran.returncode == 2
    assert b"xorbit network create" in ran.stderr


def test_an_operator_who_reaches_nobody_is_told(operator: Operator) -> None:
    ran = xorbit_process("network", "revoke", "ab" * 32, "--home", operator.home)
    assert ran.returncode == 4, ran.stderr
    assert b"--bootstrap" in ran.stderr


def test_a_revoked_node_is_not_admitted_again(operator: Operator) -> None:
    """By the list in the operator's home, which may name it by its id or by its key."""
    bad = NodeKey.load_or_create(operator.place / "bad")
    words = ("network", "admit", bad.public_key.hex(), "--home", operator.home)
    assert xorbit_process(*words).returncode == 0
    for name in (bad.id, Id(bad.public_key)):
        revoked.save(operator.home, operator.key.sign(1, revoked.encode_ids([name]), revoked.SALT))
        ran = xorbit_process(*words)
        assert (ran.returncode, ran.stdout) == (2, b""), ran.stderr
        assert b"has revoked this node" in ran.stderr


def test_revoke_says_whether_the_node_was_ever_admitted_from_here(club: Club) -> None:
    """It is done all the same; two members are enough, one of whom is turned out."""
    a, bad = club.admit("a"), club.admit("bad")
    one = club.start(a)
    other = club.start(bad, one)
    for gone, is_known in ((other.id, True), ("ab" * 32, False)):
        words = ("network", "revoke", gone, "--bootstrap", one.address, "--home", club.home)
        ran = xorbit_process(*words)
        assert ran.returncode == 0, ran.stderr
        assert (b"never admitted from here" in ran.stderr) is not is_known
        assert b"1 nodes" not in ran.stderr


class Uncertain:
    """Calls at which a store is undecided a few times, then won."""

    def __init__(self, undecided: int) -> None:
        self.undecided = undecided
        self.records: list[Record] = []

    async def resolve(self, public_key: bytes, salt: bytes = b"") -> Record:
        if not self.records:
            raise errors.NotFoundError("nobody has it")
        return self.records[-1]

    async def put_record(self, record: Record, cas: int) -> PutDone:
        self.records.append(record)
        self.undecided -= 1
        return PutDone((Receipt(Id(bytes(32)), "stored"),), won=self.undecided < 0)


@pytest.mark.parametrize("undecided", [0, 1, TRIES_MAX + 1, 1000])
def test_revoke_goes_on_until_the_list_is_sure_to_stay(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, undecided: int
) -> None:
    """The node that it turns out is among those asked; the same list is stored again."""
    hurry = msgspec.structs.replace(revoked.DEFAULT_LIMITS, revoke_wait_s=1e-6)
    monkeypatch.setattr(revoked, "DEFAULT_LIMITS", hurry)
    monkeypatch.setattr("xorbit.run.publish.WAIT_S", 1e-6)
    calls = Uncertain(undecided)
    revoking = revoked.revoke(calls, operator.key, Id(b"x" * 32), operator.home)  # type: ignore[arg-type]
    if undecided == 1000:
        with pytest.raises(errors.NotStoredError) as raised:
            run(revoking)
        assert "cas" not in str(raised.value)
        assert "run this again" in str(raised.value)
        return
    receipt = run(revoking)
    assert receipt is not None
    assert receipt.seq == 1
    assert len(set(calls.records)) == 1
    assert revoked.load(operator.home, operator.key.public_key) == receipt.record


# --- The list -----------------------------------------------------------------------------------


def test_a_list_is_sorted_bounded_and_read_back() -> None:
    ids = [id_of(number.to_bytes(4, "big")) for number in range(revoked.REVOKED_MAX)]
    value = revoked.encode_ids([*ids, *ids[:5]])
    assert revoked.decode_ids(value) == tuple(sorted(ids))
    assert revoked.encode_ids([]) == b""
    with pytest.raises(errors.MisuseError, match="at most 1,800 nodes"):
        revoked.encode_ids([*ids, Id(bytes(32))])


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        bytes(33),
        b"b" * 32 + b"a" * 32,
        bytes(64),
        b"".join(bytes([0, *divmod(n, 256)]) + bytes(29) for n in range(1801)),
    ],
)
def test_what_is_no_list_is_refused(value: bytes) -> None:
    with pytest.raises(errors.FormatError):
        revoked.decode_ids(value)


def test_a_damaged_file_counts_as_none(tmp_path: Path, operator: Operator) -> None:
    key = operator.key
    good = key.sign(1, revoked.encode_ids([Id(bytes(32))]), revoked.SALT)
    revoked.save(tmp_path, good)
    assert revoked.load(tmp_path, key.public_key) == good
    path = tmp_path / revoked.REVOKED_FILE
    forged = msgspec.structs.replace(good, seq=2)
    for content in (b"", b"junk", path.read_bytes()[:-1], msgspec.msgpack.encode(forged)):
        path.write_bytes(content)
        assert revoked.load(tmp_path, key.public_key) is None


class Fading:
    """Calls of which the first follow fails, the second gives a list, the third has stopped."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.follows = 0

    async def follow(self, public_key: bytes, salt: bytes = b""):
        self.follows += 1
        if self.follows == 1:
            raise errors.WorldError("too busy")
        if self.follows == 2:
            yield self._record
            return
        raise errors.StoppedError("over")


def test_the_list_is_followed_again_after_a_failure(tmp_path: Path, operator: Operator) -> None:
    gone = Id(b"x" * 32)
    record = operator.key.sign(1, revoked.encode_ids([gone]), revoked.SALT)
    posted: list[object] = []
    calls = Fading(record)
    key = operator.key.public_key
    watching = revoked.watch(calls, posted.append, tmp_path, key, 0.0)  # type: ignore[arg-type]
    run(watching)
    assert posted == [revoked.job_of(record)]
    assert calls.follows == 3
