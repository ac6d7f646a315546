"""Revoked nodes: connections end, handshakes lead nowhere, nobody hands them on."""

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.revoke import REASON
from xorbit.wire.message import FindClosest, Ping

QUIET = Limits(maintenance_interval_s=1e6)


def revoke(node: Node, *gone: Node) -> None:
    node.push(jobs.Revoked(tuple(other.id for other in gone)))


def test_a_revoked_peer_loses_its_connection_and_is_forgotten() -> None:
    world = World()
    one, other = world.pair(QUIET)
    third = world.node(limits=QUIET)
    world.outcome(third, third.connect(one))
    assert one.knows(other)
    revoke(one, other)
    world.run(0.5)
    assert one.links_to(other) == other.links_to(one) == []
    assert not one.knows(other)
    assert len(one.links_to(third)) == 1


def test_a_revoked_node_that_dials_is_turned_away_and_nothing_it_asks_is_answered() -> None:
    world = World()
    one, other = world.node(limits=QUIET), world.node(limits=QUIET)
    revoke(one, other)
    guid = other.ask(one, Ping())
    world.run(5.0)
    assert isinstance(other.outcomes[guid], fx.Failed)
    assert one.links_to(other) == other.links_to(one) == []
    assert one.machine.state.counters.requests_served == 0


def test_a_dial_that_leads_to_a_revoked_node_has_failed() -> None:
    world = World()
    one, other = world.node(limits=QUIET), world.node(limits=QUIET)
    revoke(one, other)
    outcome = world.outcome(one, one.connect(other))
    assert isinstance(outcome, fx.Failed)
    assert outcome.tried == ((other.address, REASON),)
    world.run(1.0)
    assert one.links_to(other) == []
    assert not one.knows(other)


def test_a_revoked_node_is_not_even_dialled_for_a_request() -> None:
    world = World()
    one, other = world.node(limits=QUIET), world.node(limits=QUIET)
    revoke(one, other)
    outcome = world.outcome(one, one.ask(other, FindClosest(one.id)))
    assert outcome == fx.Failed("unreachable", "the network's operator has revoked it")
    assert not any(isinstance(effect, fx.Dial) for _, _, done in one.log for effect in done)


def test_a_list_takes_the_place_of_the_one_before() -> None:
    """Whoever is no longer on the list is welcome again."""
    world = World()
    one, other = world.pair(QUIET)
    revoke(one, other)
    world.run(0.5)
    revoke(one)
    world.run(0.5)
    assert isinstance(world.outcome(other, other.connect(one)), fx.Connected)
    world.run(0.5)
    assert len(one.links_to(other)) == 1


def test_a_list_that_comes_again_changes_nothing() -> None:
    """Also while the connections that the first one ended are still closing."""
    world = World()
    one, other = world.pair(QUIET)
    revoke(one, other)
    revoke(one, other)
    world.run(0.5)
    closes = [e for _, _, done in one.log for e in done if isinstance(e, fx.Close)]
    assert len(closes) == 1


def test_a_node_that_is_revoked_itself_says_so() -> None:
    world = World()
    (one,) = world.network(1)
    revoke(one, one)
    world.run(0.5)
    assert [report.event for report in one.reports if report.level == "warning"] == ["revoked"]
