"""How outcomes of the machine become results or errors for a local caller."""

from collections.abc import AsyncGenerator, Callable, Hashable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nacl.signing import SigningKey

from xorbit import errors
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.effect import Failed, Outcome
from xorbit.core.job import Job
from xorbit.core.status import PeerStatus, Status
from xorbit.files.cid import Cid, Codec
from xorbit.ids import Guid, Id
from xorbit.items import (
    Address,
    Contact,
    ItemKey,
    Kind,
    block_key,
    connection_key,
    key_of,
    make_block,
    make_connection_item,
)
from xorbit.keys import UserKey
from xorbit.pins import Order, Told
from xorbit.run.calls import Calls, NodeStatus, cid_from, target_from, whole_id
from xorbit.run.driver import Driver
from xorbit.run.local_calls import LocalCalls, describe
from xorbit.store.base import Usage
from xorbit.wire.message import Closest, Pong, Receipt

DATA = b"hello"
KEY = block_key(DATA)
HERE, THERE, FAR = (Id(bytes([n]) * 32) for n in (1, 2, 3))
ADDRESS = Address("127.0.0.1", 4000)


def status(**changes: Any) -> Status:
    fields: dict[str, Any] = dict.fromkeys(Status.__struct_fields__, 0)
    fields |= {"id": HERE, "addresses": (ADDRESS,), "joined": True, "stopping": False}
    return Status(**{**fields, **changes})


class FakeDriver:
    """Answers each job with the next outcome, and remembers the jobs."""

    def __init__(self, *outcomes: Outcome, peers: int = 0) -> None:
        self.outcomes = list(outcomes)
        self.ordered: list[Order] = []
        self.tended: list[Outcome] = []
        self.asked: list[tuple[Job, Hashable]] = []
        self._peers = peers
        self.machine = SimpleNamespace(state=SimpleNamespace(own=HERE, listening=(ADDRESS,)))

    async def call(self, job: Job, line: Hashable) -> Outcome:
        if isinstance(job, jobs.TendPins):
            self.ordered.append(job.order)
            return self.tended.pop(0) if self.tended else fx.Tended(Told())
        self.asked.append((job, line))
        return self.outcomes.pop(0)

    def new_guid(self) -> Guid:
        return Guid(b"g" * 16)

    def status(self) -> Status:
        return status()

    def peers(self) -> list[PeerStatus]:
        return cast("list[PeerStatus]", [None] * self._peers)

    def usage(self) -> Usage:
        return Usage(1, 2, 3)


def calls(*outcomes: Outcome, alone: str = "", peers: int = 0) -> tuple[LocalCalls, FakeDriver]:
    driver = FakeDriver(*outcomes, peers=peers)
    return LocalCalls(cast(Driver, driver), "ours", "line", lambda: alone), driver


def receipt(node: Id, outcome: str, reason: str = "") -> Receipt:
    return Receipt(node, cast(Any, outcome), reason)


# --- Put ----------------------------------------------------------------------------------------


async def test_a_put_says_who_holds_it() -> None:
    """A put asks for the block under its hash, on the caller's line; holders are who stored it."""
    said = (receipt(HERE, "stored"), receipt(THERE, "refused", "full"), receipt(FAR, "stored"))
    ours, driver = calls(fx.PutDone(said))
    done = await ours.put_block(DATA)
    assert (done.holders, done.others, done.receipts) == ((HERE, FAR), (FAR,), said)
    assert done.cid == Cid(Codec.RAW, KEY)
    assert driver.asked == [(jobs.Store(Guid(b"g" * 16), KEY, make_block(DATA)), "line")]


async def test_a_put_that_nobody_took_says_what_each_node_said() -> None:
    """Stored nowhere is an error with the answer of every node that was asked."""
    said = (receipt(HERE, "refused", "full: no room"), receipt(THERE, "timeout"))
    ours, _ = calls(fx.PutDone(said), peers=1)
    with pytest.raises(errors.NotStoredError) as raised:
        await ours.put_block(DATA)
    assert str(raised.value) == (
        f"no node stored it: {HERE.hex()[:16]} refused (full: no room); {THERE.hex()[:16]} timeout"
    )


async def test_a_put_of_a_client_without_peers_says_why_it_has_none() -> None:
    """With nobody to ask, the error is the reason for being alone."""
    ours, _ = calls(fx.PutDone(()), alone="127.0.0.1:1: refused")
    with pytest.raises(errors.NoPeersError, match=r"127\.0\.0\.1:1: refused"):
        await ours.put_block(DATA)


async def test_a_put_with_peers_of_which_none_could_be_asked() -> None:
    """A node with peers is not alone, whatever its beginning was like."""
    ours, _ = calls(fx.PutDone(()), alone="long ago", peers=2)
    with pytest.raises(errors.NotStoredError, match="no node could be asked"):
        await ours.put_block(DATA)


@pytest.mark.parametrize(
    ("data", "kind"), [(bytes(65_537), Kind.BLOCK_BLAKE3_256), (DATA, Kind.RECORD)]
)
async def test_what_is_no_block_is_not_put(data: bytes, kind: Kind) -> None:
    """Too many bytes or a wrong kind is the caller's mistake; nothing is asked of the node."""
    ours, driver = calls()
    with pytest.raises(errors.MisuseError):
        await ours.put_block(data, kind)
    assert not driver.asked


# --- Get ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [KEY, Cid(Codec.RAW, KEY), str(Cid(Codec.RAW, KEY))])
async def test_a_block_is_had_by_any_form_of_its_name(name: Any) -> None:
    """A key, a CID and its text all ask for the same item."""
    ours, driver = calls(fx.Got(make_block(DATA), THERE))
    assert await ours.get_block(name) == DATA
    assert driver.asked == [(jobs.Get(Guid(b"g" * 16), KEY), "line")]


@pytest.mark.parametrize(
    ("asked", "failed", "says"),
    [
        (1, 0, "nobody has it: 1 node asked"),
        (7, 2, "nobody has it: 7 nodes asked, 2 did not answer"),
        (0, 0, "nobody has it: 0 nodes asked"),
    ],
)
async def test_not_found_says_how_many_were_asked(asked: int, failed: int, says: str) -> None:
    """Not found says how many nodes were asked and how many were silent."""
    ours, _ = calls(fx.NotFound(asked, failed))
    with pytest.raises(errors.NotFoundError) as raised:
        await ours.get_block(KEY)
    assert str(raised.value) == says


async def test_a_get_of_a_client_without_peers_says_why_it_has_none() -> None:
    """Not to have found anybody is not the same as not to have found the item."""
    ours, _ = calls(fx.NotFound(0, 3), alone="nobody answers")
    with pytest.raises(errors.NoPeersError, match="nobody answers"):
        await ours.get_block(KEY)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("timeout", errors.WorldError),
        ("unreachable", errors.NoPeersError),
        ("busy", errors.WorldError),
        ("stopping", errors.StoppedError),
        ("disk", errors.StoreError),
        ("refused", errors.WorldError),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda ours: ours.put_block(DATA),
        lambda ours: ours.get_block(KEY),
        lambda ours: ours.ping(HERE),
        lambda ours: ours.ping(ADDRESS),
    ],
    ids=["put", "get", "ping id", "ping address"],
)
async def test_each_failure_is_an_error_of_its_kind(
    code: Any, kind: type[Exception], ask: Callable[[Calls], Any]
) -> None:
    """Whatever was asked, a failure's code decides the kind of error, its reason the message."""
    ours, _ = calls(Failed(code, "because"), peers=1)
    with pytest.raises(kind, match="because") as raised:
        await ask(ours)
    assert type(raised.value) is kind


def test_a_failure_names_each_address_once() -> None:
    """Every address tried and what happened there stands in the message, once."""
    tried = ((ADDRESS, "refused"), (Address("::1", 9), "timeout"))
    text = "127.0.0.1:4000: refused; [::1]:9: timeout"
    assert describe(Failed("unreachable", "no way", tried)) == f"no way: {text}"
    assert describe(Failed("unreachable", text, tried)) == text
    assert describe(Failed("timeout", "too late")) == "too late"


# --- Ping, status -------------------------------------------------------------------------------


async def test_a_ping_by_id_asks_that_node() -> None:
    """A ping tells where we listen, and answers with the time it took and how we are seen."""
    pong = Pong(Address("10.0.0.1", 5), (Address("10.0.0.2", 6),))
    ours, driver = calls(fx.Answered(THERE, pong, 0.25))
    answer = await ours.ping(THERE.hex())
    assert (answer.id, answer.round_trip_s) == (THERE, 0.25)
    assert (answer.observed, answer.addresses) == (pong.observed, pong.addresses)
    [(job, _)] = driver.asked
    assert isinstance(job, jobs.SendRequest)
    assert job.to.id == THERE


@pytest.mark.parametrize("host", ["\x1b[2J", "fe80::1%\x1b[2J", "node.example"])
async def test_a_ping_tells_no_address_that_is_none(host: str) -> None:
    """What a peer says is shown on a terminal."""
    odd = Address(host, 5)
    ours, _ = calls(fx.Answered(THERE, Pong(odd, (odd, ADDRESS)), 0.1))
    answer = await ours.ping(THERE)
    assert (answer.observed, answer.addresses) == (None, (ADDRESS,))


async def test_a_ping_by_address_connects_first() -> None:
    """At an address, whoever answers there is asked."""
    ours, driver = calls(fx.Connected(FAR), fx.Answered(FAR, Pong(), 0.1))
    assert (await ours.ping("127.0.0.1:4000")).id == FAR
    assert [type(job) for job, _ in driver.asked] == [jobs.Connect, jobs.SendRequest]


async def test_another_answer_than_a_pong_is_the_peers_fault() -> None:
    """A peer that answers a ping with something else is named and blamed."""
    ours, _ = calls(fx.Answered(THERE, Closest(()), 0.1))
    with pytest.raises(errors.PeerError, match="Closest"):
        await ours.ping(THERE)


class Knowing:
    """Knows one node as a peer and as a contact, and another as a contact only."""

    async def peers(self) -> list[Contact]:
        return [Contact(THERE)]

    async def contacts(self) -> list[Contact]:
        return [Contact(THERE), Contact(FAR), Contact(Id(b"\x03" + bytes(31)))]


async def test_an_id_may_be_typed_by_its_beginning() -> None:
    """As far as just one peer or contact begins so; a whole one need not be known."""
    knowing = cast(Calls, Knowing())
    assert await whole_id(knowing, "02") == THERE
    assert await whole_id(knowing, "0303") == FAR
    assert await whole_id(knowing, HERE.hex().upper()) == HERE
    with pytest.raises(errors.MisuseError, match="2 known ids begin with '03': type more"):
        await whole_id(knowing, "03")
    with pytest.raises(errors.MisuseError, match=r"begins with '01'.*or HOST:PORT$"):
        await whole_id(knowing, "01", "or HOST:PORT")
    for text in ("01", "127.0.0.1:1", "", "x" * 64):
        with pytest.raises(errors.MisuseError) as raised:
            await whole_id(knowing, text)
        assert "HOST:PORT" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "xyz", "00", "0" * 63, "1.2.3.4:0", ":5", b"short"])
def test_what_is_no_node_is_refused(text: Any) -> None:
    """Neither an id nor an address is the caller's mistake."""
    with pytest.raises(errors.MisuseError):
        target_from(text)


def test_a_node_is_meant_by_id_or_address_in_any_form() -> None:
    """Ids in bytes or digits, addresses parsed or not."""
    assert target_from(HERE) == target_from(HERE.hex().upper()) == HERE
    assert target_from(ADDRESS) == target_from(str(ADDRESS)) == ADDRESS
    assert cid_from(KEY).codec is Codec.RAW


@pytest.mark.parametrize(
    ("changes", "health", "rate"),
    [
        ({"connections": 3, "timeout_rate": 0.1}, "ok", 0.1),
        ({"connections": 3}, "ok", 0.0),
        ({"connections": 0, "requests_answered": 9}, "alone", 0.0),
        ({"connections": 1, "timeout_rate": 0.5}, "failing", 0.5),
        ({"connections": 3, "stopping": True}, "stopping", 0.0),
    ],
)
def test_health_is_peers_that_answer(changes: dict[str, Any], health: str, rate: float) -> None:
    """A node without peers, or whose peers do not answer, never says that it is well."""
    found = NodeStatus("ours", status(**changes), Usage(0, 0, 1))
    assert (found.health, found.timeout_rate, found.id) == (health, rate, HERE)


async def test_status_puts_machine_and_store_together() -> None:
    """The status has the network's name, the machine's state and how full the store is."""
    ours, _ = calls()
    assert await ours.status() == NodeStatus("ours", status(), Usage(1, 2, 3), (ADDRESS,))


# --- Signed items -------------------------------------------------------------------------------

KEY_PAIR = UserKey(SigningKey(bytes(range(32))))
RECORD = KEY_PAIR.sign(1, b"value", b"salt")


async def test_a_record_is_read_by_key_and_salt() -> None:
    """The key as bytes or in hexadecimal digits."""
    for key in (KEY_PAIR.public_key, KEY_PAIR.public_key.hex()):
        ours, driver = calls(fx.Got(RECORD, HERE))
        assert await ours.resolve(key, b"salt") == RECORD
        assert driver.asked == [(jobs.Get(Guid(b"g" * 16), key_of(RECORD)), "line")]


async def test_a_record_that_nobody_has() -> None:
    ours, _ = calls(fx.NotFound(3, 1))
    with pytest.raises(errors.NotFoundError, match="3 nodes asked, 1 did not answer"):
        await ours.resolve(KEY_PAIR.public_key)
    ours, _ = calls(Failed("stopping", "this node is stopping"))
    with pytest.raises(errors.StoppedError):
        await ours.resolve(KEY_PAIR.public_key)


@pytest.mark.parametrize("key", ["", "me", "ab" * 31, b"x" * 31, "zz" * 32])
async def test_what_is_no_public_key_is_the_callers_mistake(key: str | bytes) -> None:
    ours, _ = calls()
    with pytest.raises(errors.MisuseError, match="expected a public key"):
        await ours.resolve(key)


async def test_a_store_of_a_record_says_who_was_newer() -> None:
    """A refusal for a newer record is an outcome; a refusal by all without one is an error."""
    stale = fx.PutDone((receipt(HERE, "refused", "stale"),), RECORD)
    ours, driver = calls(stale)
    assert await ours.put_record(RECORD, 4) is stale
    assert driver.asked == [(jobs.Store(Guid(b"g" * 16), key_of(RECORD), RECORD, 4), "line")]
    ours, _ = calls(fx.PutDone((receipt(HERE, "refused", "full"),)), peers=1)
    with pytest.raises(errors.NotStoredError, match="full"):
        await ours.put_record(RECORD, 0)
    ours, _ = calls(fx.PutDone(()), alone="no way")
    with pytest.raises(errors.NoPeersError, match="no way"):
        await ours.put_record(RECORD, 0)
    ours, _ = calls(Failed("busy", "too many works"))
    with pytest.raises(errors.WorldError, match="too many works"):
        await ours.put_record(RECORD, 0)


async def test_a_lookup_gives_contacts_or_says_why_there_are_none() -> None:
    ours, driver = calls(fx.LookedUp((Contact(THERE),), 1, 0))
    assert await ours.lookup(FAR.hex()) == (Contact(THERE),)
    assert driver.asked == [(jobs.LookUp(Guid(b"g" * 16), FAR), "line")]
    ours, _ = calls(fx.LookedUp((), 0, 0), alone="no way")
    with pytest.raises(errors.NoPeersError, match="no way"):
        await ours.lookup(FAR)
    ours, _ = calls(Failed("timeout", "too late"))
    with pytest.raises(errors.WorldError, match="too late"):
        await ours.lookup(FAR)


async def test_a_node_is_found_by_its_signed_item() -> None:
    item = make_connection_item(KEY_PAIR.signing_key, 1, [ADDRESS])
    ours, driver = calls(fx.Got(item, HERE))
    assert await ours.whereis(FAR.hex()) == item
    assert driver.asked == [(jobs.Get(Guid(b"g" * 16), connection_key(FAR)), "line")]
    with pytest.raises(errors.MisuseError, match="expected a node's id"):
        await ours.whereis("127.0.0.1:1")


async def test_a_follow_that_the_node_cannot_begin_is_an_error() -> None:
    class Busy(FakeDriver):
        async def follow(self, key: ItemKey, line: Hashable) -> AsyncGenerator[object]:
            assert (key, line) == (key_of(RECORD), "line")
            yield RECORD
            yield Failed("busy", "too many works")

    ours = LocalCalls(cast(Driver, Busy()), "ours", "line", lambda: "")
    versions = ours.follow(KEY_PAIR.public_key, b"salt")
    assert await anext(versions) == RECORD
    with pytest.raises(errors.WorldError, match="too many works"):
        await anext(versions)
