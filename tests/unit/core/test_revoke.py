"""Revoked nodes: connections end, handshakes lead nowhere, nobody hands them on."""

from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.links import OWN_REVOKED
from xorbit.core.revoke import REVOKED_THERE
from xorbit.items import key_of
from xorbit.keys import UserKey
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
    assert outcome.tried == ((other.address, REVOKED_THERE),)
    world.run(1.0)
    assert other.address not in one.machine.state.knowns
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
    revoke(one, one)
    world.run(0.5)
    assert [report.event for report in one.reports if report.level == "warning"] == ["revoked"]


def test_a_node_that_is_revoked_itself_tries_nobody_any_more() -> None:
    """Also where it learns it while it is looking for a way in; it is said once."""
    world = World()
    one, other = world.pair(QUIET)
    revoke(other, one)
    revoke(one, one)
    world.run(0.5)
    before = len(one.log)
    assert world.outcome(one, one.bootstrap(other.listen())) == fx.Failed(
        "unreachable", OWN_REVOKED
    )
    world.run(600.0)
    later = [effect for _, _, done in one.log[before:] for effect in done]
    assert not any(isinstance(effect, fx.Dial) for effect in later)
    warned = [report for report in one.reports if report.level == "warning"]
    assert [report.detail for report in warned] == [OWN_REVOKED]


def test_a_node_whom_all_turn_away_without_a_word_says_so_once() -> None:
    world = World()
    one, other = world.node(limits=QUIET), world.node(limits=QUIET)
    revoke(one, other)
    other.bootstrap(one.listen())
    world.run(200.0)
    warned = [report.detail for report in other.reports if report.level == "warning"]
    assert len([detail for detail in warned if "hung up at once" in detail]) == 1


def test_a_list_is_stored_though_the_node_that_it_turns_out_says_nothing() -> None:
    """Its vote counts no more, once the list is known where it is stored from."""
    world = World()
    one, other = world.pair(QUIET)
    operator = world.node(limits=QUIET)
    world.outcome(operator, operator.connect(one))
    world.outcome(operator, operator.connect(other))
    revoke(one, other)
    revoke(operator, other)
    record = UserKey(SigningKey(bytes(32))).sign(1, b"list")
    done = world.outcome(
        operator, operator.call(lambda guid: jobs.Store(guid, key_of(record), record, 0))
    )
    assert isinstance(done, fx.PutDone)
    assert done.won
    assert other.id not in {said.node for said in done.receipts}


def test_a_node_that_learns_while_it_joins_that_it_is_revoked_gives_up() -> None:
    world = World()
    one = world.node(limits=QUIET)
    guid = one.bootstrap(world.black_hole())
    revoke(one, one)
    assert world.outcome(one, guid) == fx.Failed("unreachable", OWN_REVOKED)
    assert len([report for report in one.reports if report.level == "warning"]) == 1


def test_a_node_that_is_revoked_while_it_joins_tries_no_more() -> None:
    world = World()
    node = world.node()
    joining = node.bootstrap(world.black_hole())
    world.run(1.0)
    revoke(node, node)
    assert world.outcome(node, joining) == fx.Failed("unreachable", OWN_REVOKED)
    dials = [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]
    world.run(300.0)
    after = [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]
    assert after == dials
