"""The trace: bounded, by the work that caused it, and one operation as a tree."""

import pytest
from nacl.signing import SigningKey

from tests.world import World
from xorbit.config import TRACE_CHARACTERS_MAX, Limits
from xorbit.core import job as jobs
from xorbit.core.trace import Trace, in_words, on_disk, operation, said
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, key_of, make_block, make_record
from xorbit.wire import message

ONE, OTHER = Guid(b"1" * 16), Guid(b"2" * 16)
PEER, THIRD = Id(b"p" * 32), Id(b"t" * 32)


def test_a_trace_forgets_the_oldest_first() -> None:
    world = World()
    limits = Limits(trace_events_max=8)
    first, second = world.pair(limits)
    for number in range(9):
        first.ask(second, message.Ping(seq=number))
    world.run(1.0)
    assert len(first.machine.state.trace) == 8


def test_a_put_is_remembered_request_by_request() -> None:
    """Each exchange is there with its peer, its answer, its time; nobody else's are."""
    world = World()
    nodes = world.network(5)
    guid, _ = nodes[0].put(b"hello")
    world.outcome(nodes[0], guid)
    found = operation(guid, nodes[0].machine.state.trace_of(guid))
    assert found.kind == "Put"
    assert found.took_s is not None
    asked = [(step.kind, step.said) for step in found.steps if not step.served]
    assert asked.count(("Store", "Stored")) == 4
    assert {node.id for node in nodes[1:]} == {it.peer for it in found.steps if not it.local}
    assert all(0 <= step.at_s <= found.took_s for step in found.steps)
    assert nodes[0].machine.state.trace_of(OTHER) == ()


def test_those_who_served_know_their_piece_by_the_same_guid() -> None:
    """One operation can be followed from node to node by the guid of the work that caused it."""
    world = World()
    nodes = world.network(5)
    guid, _ = nodes[0].put(b"hello")
    world.outcome(nodes[0], guid)
    found = operation(guid, nodes[1].machine.state.trace_of(guid))
    assert (found.kind, found.took_s) == ("", None)
    assert {(step.peer, step.served) for step in found.steps} == {(nodes[0].id, True)}
    [head, *_] = in_words(found)
    assert "another node" in head


def test_our_own_disk_is_a_step_as_well() -> None:
    """What was read and written here, how long it took and what came of it; it is no exchange."""
    world = World()
    nodes = world.network(3)
    put, key = nodes[0].put(b"hello")
    world.outcome(nodes[0], put)
    found = operation(put, nodes[0].machine.state.trace_of(put))
    own = [step for step in found.steps if step.local]
    assert {(step.kind, step.said) for step in own} == {("Write", "stored")}
    assert all(step.peer == nodes[0].id for step in own)
    assert found.exchanges == len(found.steps) - len(own) > 0
    got = nodes[0].get(key)
    world.outcome(nodes[0], got)
    lines = in_words(operation(got, nodes[0].machine.state.trace_of(got)))
    assert "0 exchanges here" in lines[0]
    assert "own disk: Read  -> 5 bytes  (" in lines[1]


def test_the_disk_of_a_holder_stands_under_the_request_that_wanted_it() -> None:
    world = World()
    nodes = world.network(4)
    guid, _ = nodes[0].put(b"hello")
    world.outcome(nodes[0], guid)
    found = operation(guid, nodes[1].machine.state.trace_of(guid))
    stored = [step for step in found.steps if step.kind == "Store"]
    assert [(it.local, it.kind, it.said) for it in stored[0].passed_on] == [
        (True, "Write", "stored")
    ]
    assert found.exchanges == len(found.steps)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (jobs.StoreRead(ONE, make_record(SigningKey(b"k" * 32), 7, b"v")), ("Read", "sequence 7")),
        (jobs.StoreRead(ONE), ("Read", "not here")),
        (jobs.StoreRead(ONE, None, "damaged"), ("Read", "damaged")),
        (jobs.StoreWritten(ONE, "full", "no room"), ("Write", "full: no room")),
        (jobs.StoreChecked(ONE, (key_of(make_block(b"")),)), ("Check", "1 missing")),
        (jobs.StoreScanned(ONE, ()), ("StoreScanned", "done")),
    ],
)
def test_what_the_disk_did_is_a_few_words(result: jobs.Job, words: tuple[str, str]) -> None:
    *said, failed = on_disk(result)
    assert tuple(said) == words
    assert failed == (words[1] in ("damaged", "full: no room"))


def test_a_request_that_came_to_nothing_says_why() -> None:
    """Silence, a lost connection and an address where nobody is are told apart."""
    world = World()
    first, second = world.pair()
    second.mute = True
    silent = first.ask(second, message.Ping())
    world.outcome(first, silent)
    second.mute = False
    lost = first.ask(second, message.Ping())
    world.run(0.001)
    first.cut(first.links_to(second)[0], "cable cut")
    world.outcome(first, lost)
    nowhere = first.ask(Contact(PEER, (world.free_address(),)), message.Ping())
    world.outcome(first, nowhere)
    why = [
        operation(guid, first.machine.state.trace_of(guid)).steps[-1]
        for guid in (silent, lost, nowhere)
    ]
    assert all(step.failed for step in why)
    assert [str(step.said).split()[0] for step in why] == ["no", "connection", "cannot"]


def test_a_relayed_request_stands_under_the_one_that_it_answers() -> None:
    """What goes on under the same guid is nested; other requests of the same work are not."""
    trace = Trace(100)
    trace.add(10.0, ONE, OTHER, THIRD, "sent", "FindNext")
    trace.add(10.2, ONE, OTHER, THIRD, "answered", "FindNext", "Next", 0.2)
    trace.add(10.3, ONE, OTHER, PEER, "served", "FindNext", "Next", 0.4)
    trace.add(10.3, ONE, Guid(b"3" * 16), PEER, "sent", "Ping")
    found = operation(ONE, trace.of(ONE))
    [served, own] = found.steps
    assert [step.peer for step in served.passed_on] == [THIRD]
    assert (served.at_s, own.said) == (0.0, None)
    lines = in_words(found, {PEER: Address("10.0.0.1", 7)})
    assert "asked us" in lines[1]
    assert "10.0.0.1:7" in lines[1]
    assert lines[2].startswith("        ")
    assert lines[3].endswith("no answer yet")


def test_an_operation_in_progress_says_so() -> None:
    trace = Trace(100)
    trace.add(10.0, ONE, ONE, PEER, "began", "Get")
    trace.add(10.0, ONE, OTHER, PEER, "began", "Relay")
    [head] = in_words(operation(ONE, trace.of(ONE)))
    assert head == f"{ONE.hex()}  Get, in progress, 0 exchanges here"
    trace.add(10.5, ONE, ONE, PEER, "ended", "Get", "", 0.5)
    trace.add(10.5, ONE, OTHER, PEER, "sent", "Ping")
    [head, _] = in_words(operation(ONE, trace.of(ONE)))
    assert head.endswith("Get in 500.0 ms, 1 exchange here")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (message.Pong(), "Pong"),
        (message.Stored(), "Stored"),
        (message.Closest((Contact(PEER),)), "Closest 1"),
        (message.Found(make_block(b"12345")), "Found 5 bytes"),
        (message.Refused("full", "no room"), "Refused full: no room"),
        (message.Next(Contact(PEER), 3), f"Next {PEER.hex()[:8]}, hop 3"),
        (message.Missing((key_of(make_block(b"")),)), "Missing 1"),
    ],
)
def test_what_is_said_is_a_few_words(response: message.Response, words: str) -> None:
    assert said(response) == words


def test_what_a_stranger_writes_upsets_no_terminal() -> None:
    """Control characters are replaced, long reasons cut."""
    assert "\x1b" not in said(message.Refused("full", "\x1b[2J"))
    assert len(said(message.Refused("full", "x" * 256))) < TRACE_CHARACTERS_MAX + 20
