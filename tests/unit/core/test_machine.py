"""The machine as a whole: stopping, limits, the delivery of jobs, the log of its jobs."""

import io
from random import Random

import pytest

from tests.world import Node, World, check_acknowledgements, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import joblog
from xorbit.ids import Guid, Id, id_of
from xorbit.items import Contact, block_key, key_of, make_block
from xorbit.wire.message import Get, Ping, Refused, Store, Stored

BLOCK = make_block(b"a block of the tests")
KEY = key_of(BLOCK)


# --- Stopping -------------------------------------------------------------------------------------


def test_a_stopping_node_refuses_local_calls_of_every_kind() -> None:
    world = World(disk_s=1.0)
    node, other = world.pair()
    node.get(KEY)  # keeps it busy
    world.run(0.001)
    node.push(jobs.Shutdown())
    guids = [
        node.get(KEY),
        node.put(b"x")[0],
        node.ask(other, Ping()),
        node.connect(other),
        node.bootstrap(),
    ]
    world.run(0.1)
    for guid in guids:
        assert node.outcomes[guid] == fx.Failed("stopping", "this node is stopping")
    assert not node.stopped
    assert node.machine.status().stopping


def test_a_stopping_node_refuses_peers_and_listens_no_more() -> None:
    world = World(disk_s=1.0)
    node, other = world.pair()
    node.get(KEY)
    world.run(0.1)
    node.push(jobs.Shutdown())
    outcome = world.outcome(other, other.ask(node, Store(BLOCK)))
    assert isinstance(outcome, fx.Answered)
    assert outcome.response == Refused("stopping", "this node is stopping")
    assert not node.listening


def test_a_stopping_node_finishes_what_is_in_flight_before_it_says_so() -> None:
    """A peer's store that is being written, and our own put, both end well."""
    world = World(disk_s=0.3)
    nodes = world.network(4)
    node, other = nodes[:2]
    theirs = other.ask(node, Store(make_block(b"theirs")))
    world.run(0.05)
    mine, _ = node.put(b"mine")
    world.run(0.05)
    node.push(jobs.Shutdown())
    node.push(jobs.Shutdown())
    world.until(lambda: node.stopped, within_s=2.0)
    assert len(stored_at(node.outcomes[mine])) == 4
    world.run(0.1)
    answered = other.outcomes[theirs]
    assert isinstance(answered, fx.Answered)
    assert answered.response == Stored()
    check_acknowledgements(node.id, node.log)


def test_a_stopping_node_waits_for_its_disk_though_nobody_waits_for_the_answer() -> None:
    world = World(disk_s=0.5)
    node, other = world.pair()
    other.ask(node, Store(BLOCK))
    world.run(0.05)
    node.cut(node.links_to(other)[0], "cable pulled")
    world.run(0.05)
    node.push(jobs.Shutdown())
    world.run(0.1)
    assert not node.stopped
    world.run(0.5)
    assert node.stopped
    assert node.holds(KEY)


def test_a_stopping_node_with_nothing_in_flight_stops_at_once() -> None:
    world = World()
    node = world.node()
    node.push(jobs.Shutdown())
    world.run(0.0)
    assert node.stopped
    world.run(100.0)  # it says so once: the world holds that


@pytest.mark.parametrize("limit_s", [0.5, 2.0])
def test_a_node_stops_within_the_limit_though_a_peer_is_mute(limit_s: float) -> None:
    world = World()
    node, other = world.pair(Limits(shutdown_s_max=limit_s, request_timeout_s_min=3.0))
    other.mute = True
    node.ask(other, Ping())
    world.run(0.01)
    began = world.now
    node.push(jobs.Shutdown())
    world.until(lambda: node.stopped)
    assert world.now - began == pytest.approx(limit_s)


def test_a_stopping_node_dials_nobody_and_says_why() -> None:
    world = World(disk_s=0.2)
    node = world.node()
    stranger = Contact(id_of(b"stranger"), (world.free_address(),))
    node.machine.state.table.proved(stranger.id, stranger.addresses[0], world.now)
    guid = node.get(KEY)
    world.run(0.001)
    node.push(jobs.Shutdown())
    assert world.outcome(node, guid) == fx.NotFound(0, 1)
    assert not any(isinstance(e, fx.Dial) for _, _, effects in node.log for e in effects)


# --- Limits and dead letters ----------------------------------------------------------------------


def test_works_in_progress_are_bounded_and_the_next_is_told_to_wait() -> None:
    world = World()
    node = world.node(limits=Limits(works_max=2))
    guids = [node.get(KEY) for _ in range(3)]
    world.run(0.001)
    failed = node.outcomes[guids[2]]
    assert isinstance(failed, fx.Failed)
    assert failed.code == "busy"
    assert "2 works" in failed.reason
    world.run(1.0)
    assert node.outcomes[guids[0]] == fx.NotFound(0, 0)


def test_what_the_disk_says_to_nobody_changes_nothing() -> None:
    world = World()
    node = world.node()
    world.run(0.1)
    guid = Guid(bytes(16))
    for job in (
        jobs.StoreRead(guid),
        jobs.StoreWritten(guid, "stored"),
        jobs.StoreChecked(guid, ()),
        jobs.SendResponse(guid, guid, Stored()),
        jobs.Cancel(guid),
        jobs.Tick(),
    ):
        assert node.step(job) == []
    cancelled = node.get(KEY)
    world.run(0.001)
    node.push(jobs.Cancel(cancelled))
    world.run(1.0)
    assert cancelled not in node.outcomes
    assert not node.machine.state.disk_of


def test_the_peers_of_a_node_are_told_in_the_order_of_their_ids() -> None:
    world = World()
    nodes = world.network(4)
    world.run(5.0)
    one, other = nodes[:2]
    one.machine.state.timers.cancel(("finger", None))
    world.run(1.0)
    world.disk_s = 0.5
    one.ask(other, Get(block_key(b"")))
    world.run(0.1)
    peers = one.machine.peers()
    assert [peer.id for peer in peers] == sorted(node.id for node in nodes[1:])
    (asked,) = [peer for peer in peers if peer.id == other.id]
    assert asked.waiting_for == 1
    assert asked.round_trip_s == pytest.approx(2 * world.delay_s, rel=0.1)
    assert asked.open_s > 5.0
    (asker,) = [peer for peer in other.machine.peers() if peer.id == one.id]
    assert asker.answering == 1
    assert asker.dialled != asked.dialled


def test_the_deadline_is_the_next_thing_that_time_changes() -> None:
    """A machine without works wants to be woken for its upkeep only, not sooner and not later."""
    node = World().node()
    limits = node.limits
    assert node.machine.next_deadline() is None
    node.machine.step(50.0, jobs.Tick())
    due = node.machine.next_deadline()
    assert due is not None
    assert 50.0 <= due <= 50.0 + limits.maintenance_interval_s
    share = limits.interval_jitter
    assert node.machine.step(due - 0.001, jobs.Tick()) == []
    assert node.machine.step(due, jobs.Tick()) == [fx.Post(jobs.ConnectionMaintenance())]
    again = node.machine.next_deadline()
    assert again is not None
    assert abs((again - due) / limits.maintenance_interval_s - 1) <= share


# --- The same jobs, the same effects --------------------------------------------------------------


def _log_of(node: Node) -> io.BytesIO:
    """Write a node's life as a job log."""
    log = io.BytesIO()
    log.write(joblog.encode_header(node.id, node.limits, node.seed))
    for now, job, _ in node.log:
        log.write(joblog.encode_entry(now, job))
    log.seek(0)
    return log


def test_a_recorded_life_replays_to_the_same_effects() -> None:
    world = World(11)
    nodes = world.network(6)
    for number in range(10):
        guid, key = nodes[number % 6].put(b"block %d" % (number % 9))
        world.outcome(nodes[number % 6], guid)
        world.outcome(nodes[0], nodes[0].get(key))
    held = next(key for key in nodes[0].store.keys_from(Id(bytes(32)), 9))
    nodes[0].damage(held)
    nodes[3].kill()
    world.outcome(nodes[0], nodes[0].get(held))
    nodes[0].push(jobs.HandleStdinLine("status"))
    nodes[0].push(jobs.Shutdown())
    world.run(30.0)
    for node in nodes:
        header, entries = joblog.read(_log_of(node))
        replayed = list(joblog.replay(joblog.new_machine(header), entries))
        assert len(replayed) > 50
        assert replayed == node.log


def test_another_seed_is_another_life() -> None:
    """The replay test can fail: chance that is not the recorded one gives other effects."""
    world = World(11)
    nodes = world.network(2)
    header, entries = joblog.read(_log_of(nodes[0]))
    machine = joblog.new_machine(header)
    machine.state.rng = Random(b"another")
    assert list(joblog.replay(machine, entries)) != nodes[0].log


def test_a_work_ends_once_however_often_it_is_ended() -> None:
    node = World().node()
    guid = node.get(KEY)
    node.world.run(0.001)
    state = node.machine.state
    work = state.works[guid]
    state.end_work(work)
    state.end_work(work)
    assert guid not in state.works
    assert [event.what for event in state.trace_of(guid)] == ["began", "ended"]
