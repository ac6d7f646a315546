"""How nodes find each other, and keep each other: told of in the simulated world."""

from itertools import pairwise

import pytest

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import discovery
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid, distance, id_of
from xorbit.items import Address, block_key
from xorbit.wire.message import Closest, FindClosest, Ping, Pong


def at(node: Node) -> Address:
    assert node.address is not None
    return node.address


def dials(node: Node) -> list[tuple[float, fx.Dial]]:
    return [
        (now, effect)
        for now, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Dial)
    ]


def events(node: Node) -> list[str]:
    return [report.event for report in node.reports]


# --- Joining --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 9, 32])
def test_nodes_that_join_through_one_address_all_come_to_know_all(count: int) -> None:
    world = World(count)
    nodes = world.network(count)
    world.run(120.0)
    for node in nodes:
        others = {other.id: other for other in nodes if other is not node}
        count = node.limits.neighbours_connected
        near = sorted(others, key=lambda id: distance(node.id, id))[:count]
        state = node.machine.state
        assert all(node.knows(others[id]) for id in near)  # the neighbours for sure
        assert all(id in state.table or id in state.heard for id in others)
        status = node.machine.status()
        assert status.joined
        assert status.addresses[0] == node.address
        assert status.connections == len(node.machine.peers()) >= len(near)


def test_the_first_node_of_a_network_has_joined_at_once_and_says_so_once_it_has_company() -> None:
    world = World()
    first = world.node()
    assert world.outcome(first, first.bootstrap(), within_s=0.0) == fx.Joined(0)
    assert not first.machine.status().joined
    second = world.node()
    assert world.outcome(second, second.bootstrap(at(first))) == fx.Joined(1)
    world.run(7.0)
    assert first.machine.status().joined
    assert events(first).count("joined the network") == 1


def test_a_client_is_never_handed_on_but_all_works_for_it() -> None:
    world = World()
    nodes = world.network(4)
    client = world.node(listen=False)
    client.bootstrap(at(nodes[0]))
    world.run(10.0)
    assert len(client.machine.state.table) == 4
    for node in nodes:
        assert client.id not in node.machine.state.table
        assert all(
            contact.id != client.id
            for envelope in node.sent(Closest)
            if isinstance(envelope.body, Closest)
            for contact in envelope.body.contacts
        )
    guid, key = client.put(b"by a client")
    done = world.outcome(client, guid)
    assert isinstance(done, fx.PutDone)
    assert len([r for r in done.receipts if r.outcome == "stored"]) == 4
    assert isinstance(world.outcome(nodes[0], nodes[0].get(key)), fx.Got)
    assert isinstance(world.outcome(client, client.get(key)), fx.Got)
    assert client.machine.status().addresses == ()
    guid = nodes[1].ask(client.contact, Ping())  # over the connection that the client opened
    assert isinstance(world.outcome(nodes[1], guid), fx.Answered)


def test_a_bootstrap_that_fails_says_what_happened_at_each_address() -> None:
    world = World()
    node = world.node()
    closed, hole = world.free_address(), world.black_hole()
    outcome = world.outcome(node, node.bootstrap(closed, hole))
    assert isinstance(outcome, fx.Failed)
    assert dict(outcome.tried) == {closed: "connection refused", hole: "timed out"}
    warning = node.reports[-1]
    assert (warning.level, warning.event) == ("warning", "no way into the network")
    assert f"{closed}: connection refused" in warning.detail
    assert f"{hole}: timed out" in warning.detail


def test_one_address_that_answers_is_enough_whatever_the_others_do() -> None:
    world = World()
    node, other = world.node(), world.node()
    outcome = world.outcome(
        node, node.bootstrap(world.black_hole(), at(other), world.free_address())
    )
    assert outcome == fx.Joined(1)
    world.run(10.0)
    assert "no way into the network" not in events(node)


def test_a_node_tries_again_with_growing_waits_and_joins_when_an_address_comes_up() -> None:
    world = World()
    limits = Limits(bootstrap_retry_s_max=8.0)
    node, late = world.node(limits=limits), world.node()
    late.kill()
    world.outcome(node, node.bootstrap(at(late)))
    world.run(60.0)
    times = [now for now, _ in dials(node)]
    waits = [later - now for now, later in pairwise(times)]
    assert len(waits) >= 6
    for wait, wanted in zip(waits, [1, 2, 4, 8, 8, 8], strict=False):
        assert wait == pytest.approx(wanted, rel=0.25)
    late.restart()
    world.run(12.0)
    assert node.knows(late)
    assert late.knows(node)
    assert node.machine.status().joined
    lost_at = world.now
    late.kill()
    world.run(14.0)
    again = [now for now, dial in dials(node) if now > lost_at and dial.expected is None]
    assert again[1] - again[0] == pytest.approx(1, rel=0.25)  # the waits begin anew


def test_all_knowns_get_their_turn_though_only_some_are_dialled_at_once() -> None:
    world = World()
    node, good = world.node(), world.node()
    dead = [world.free_address() for _ in range(discovery.DIALS_PER_BOOTSTRAP_MAX + 4)]
    outcome = world.outcome(node, node.bootstrap(at(good), *dead))
    assert isinstance(outcome, fx.Failed)
    assert len(outcome.tried) == discovery.DIALS_PER_BOOTSTRAP_MAX
    world.run(5.0)
    assert node.knows(good)


def test_a_bootstrap_that_hangs_ends_at_its_deadline_and_a_late_connection_still_joins() -> None:
    world = World()
    node, others = world.node(limits=Limits(work_timeout_s=1.0)), world.network(3)
    outcome = world.outcome(node, node.bootstrap(world.black_hole(), world.black_hole()))
    assert isinstance(outcome, fx.Failed)
    assert node.reports[-1].detail == "no answer in time"
    world.outcome(others[0], others[0].connect(node))
    world.run(20.0)
    assert len(node.machine.state.table) == 3
    assert node.machine.status().joined


def test_a_bootstrap_whose_lookup_hangs_is_content_with_what_there_is() -> None:
    world = World()
    node = world.node(limits=Limits(work_timeout_s=0.5))
    other = world.node()
    guid = node.bootstrap(at(other))
    other.mute = True
    assert world.outcome(node, guid) == fx.Joined(1)


def test_a_node_does_not_dial_itself_to_join_and_says_so() -> None:
    world = World()
    node = world.node()
    assert world.outcome(node, node.bootstrap(at(node))) == fx.Joined(0)
    world.run(20.0)
    assert dials(node) == []
    said = [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Report)]
    assert [report.detail for report in said] == [str(at(node))]


def test_a_node_that_all_hang_up_on_has_not_joined_and_tries_again() -> None:
    """As one whom the network's operator has turned out."""
    world = World()
    other, node = world.node(), world.node()
    other.step(jobs.Revoked((node.id,)))
    outcome = world.outcome(node, node.bootstrap(at(other)))
    assert isinstance(outcome, fx.Failed)
    assert not node.machine.state.joined
    said = [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Report)]
    assert [report.detail for report in said] == [discovery.HUNG_UP]
    world.run(60.0)
    assert len(dials(node)) > 3


def test_who_answers_a_joining_node_with_something_else_is_no_way_in() -> None:
    """It lies, and its connection is closed; with nobody else the node is alone, and says so."""
    world = World()
    node, other = world.node(), world.node()

    def tamper(envelope):
        if isinstance(envelope.body, Closest):
            return type(envelope)(envelope.guid, envelope.work, Pong())
        return envelope

    other.tamper = tamper
    outcome = world.outcome(node, node.bootstrap(at(other)))
    assert isinstance(outcome, fx.Failed)
    assert not node.machine.state.joined
    assert not node.knows(other)


def test_a_silent_contact_does_not_keep_a_node_from_joining() -> None:
    world = World()
    nodes = world.network(5)
    nodes[3].mute = True
    late = world.node()
    began = world.now
    outcome = world.outcome(late, late.bootstrap(at(nodes[0])))
    assert isinstance(outcome, fx.Joined)
    assert world.now - began < 10.0
    assert all(late.knows(node) for node in (nodes[0], nodes[1], nodes[2], nodes[4]))


# --- Addresses ------------------------------------------------------------------------------------


def test_a_node_that_listens_everywhere_is_known_by_where_others_see_it() -> None:
    """0.0.0.0 stands for "where you see me"; what a Pong says of us becomes our own address."""
    world = World()
    other, node = world.node(), world.node()
    node.push(jobs.Listening((Address("0.0.0.0", 4000), Address("::", 4000))), "self")
    assert node.machine.status().addresses == ()
    world.outcome(node, node.bootstrap(at(other)))
    world.run(1.0)
    assert other.machine.state.table.get(node.id)
    assert other.machine.state.table.closest(node.id, 1)[0].addresses == (at(node),)
    assert node.machine.status().addresses == (at(node),)
    pongs = [envelope.body for envelope in node.sent(Pong)]
    assert all(isinstance(pong, Pong) and pong.addresses == (at(node),) for pong in pongs[1:])


def test_no_peer_can_make_us_take_the_address_of_another_for_our_own() -> None:
    """All nodes listen at one port by default: a liar need only name another's host."""
    world = World()
    node, good, liar = world.node(), world.node(), world.node()
    seen = Address(at(good).host, 50_000)
    liar.tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Pong(seen))
        if isinstance(envelope.body, Pong)
        else envelope
    )
    world.outcome(node, node.connect(liar))
    world.run(1.0)
    assert Address(seen.host, at(node).port) == at(good) in node.machine.state.own_addresses
    liar.kill()
    world.run(0.1)
    world.outcome(node, node.bootstrap(at(good)))
    assert node.knows(good)


def test_a_name_is_no_place_at_which_a_peer_could_see_us() -> None:
    world = World()
    one, other = world.node(), world.node()
    other.tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Pong(Address("victim.example", 1)))
        if isinstance(envelope.body, Pong)
        else envelope
    )
    world.outcome(one, one.connect(other))
    world.run(1.0)
    assert one.machine.state.own_addresses == {}


def test_an_answer_to_a_ping_that_tells_no_address_teaches_nothing() -> None:
    world = World()
    one, other = world.node(), world.node()
    other.tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Closest(()))
        if isinstance(envelope.body, Pong)
        else envelope
    )
    world.outcome(one, one.connect(other))
    world.run(0.02 * 2)
    assert one.machine.state.own_addresses == {}


# --- Whom we have met -----------------------------------------------------------------------------


def test_whoever_pings_us_is_dialled_back_and_only_then_a_contact() -> None:
    world = World()
    one, other = world.node(), world.node()
    world.outcome(one, one.connect(other))
    world.until(lambda: bool(other.machine.state.possibles))
    assert not other.knows(one)
    world.run(1.0)
    assert other.knows(one)
    assert not other.machine.state.possibles


def test_whoever_cannot_be_dialled_back_stays_a_possible() -> None:
    world = World()
    one, other = world.node(), world.node()
    one.listening = False
    world.outcome(one, one.connect(other))
    world.run(5.0)
    assert list(other.machine.state.possibles) == [one.id]
    assert not other.knows(one)
    assert one.knows(other)


def test_who_pings_from_where_it_cannot_be_dialled_is_dialled_back_ever_more_rarely() -> None:
    world = World()
    limits = Limits(interval_jitter=0.01, dial_back_s_max=16.0)
    one, other = world.node(), world.node(limits=limits)
    one.listening = False
    world.outcome(one, one.connect(other))
    for _ in range(120):
        world.outcome(one, one.ask(other, Ping((at(one),))))
        world.run(0.5)
    times = [now for now, dial in dials(other) if dial.expected == one.id]
    waits = [later - now for now, later in pairwise(times)]
    assert waits == pytest.approx([2, 4, 8, 16, 16], abs=1.2)
    assert len(waits) == 5


def test_who_pings_with_the_address_of_another_does_not_have_it_dialled_at_each_ping() -> None:
    world = World()
    liar, other, victim = world.node(listen=False), world.node(), world.node()
    world.outcome(liar, liar.connect(other))
    for _ in range(20):
        world.outcome(liar, liar.ask(other, Ping((at(victim),))))
        world.run(0.05)
    assert len(dials(other)) == 1
    assert not other.knows(liar)


def test_a_possible_that_can_be_dialled_at_last_becomes_a_contact() -> None:
    world = World()
    one, other = world.node(), world.node()
    one.listening = False
    world.outcome(one, one.connect(other))
    world.run(1.0)
    assert other.machine.state.dial_backs
    one.listening = True
    world.run(2.0)
    world.outcome(one, one.ask(other, Ping((at(one),))))
    world.run(1.0)
    assert other.knows(one)
    assert not other.machine.state.dial_backs


def test_possibles_are_bounded_the_oldest_gives_way() -> None:
    world = World()
    server = world.node(limits=Limits(possibles_max=2))
    clients = [world.node() for _ in range(4)]
    for client in clients:
        client.listening = False
        world.outcome(client, client.connect(server))
        world.run(1.0)
    assert list(server.machine.state.possibles) == [client.id for client in clients[2:]]


def test_knowns_are_bounded_the_oldest_gives_way() -> None:
    world = World()
    node = world.node(limits=Limits(knowns_max=3))
    addresses = [world.free_address() for _ in range(5)]
    node.bootstrap(*addresses)
    world.run(0.005)
    assert list(node.machine.state.knowns) == addresses[2:]
    world.run(0.5)
    assert sorted(node.machine.state.knowns) == sorted(addresses[2:])


# --- Upkeep ---------------------------------------------------------------------------------------


def test_maintenance_pings_a_peer_that_was_silent_for_long_and_drops_it_when_dead() -> None:
    world = World()
    limits = Limits(
        look_around_s_min=1000.0,
        look_around_s_max=1000.0,
        finger_check_s_min=1000.0,
        finger_check_s_max=1000.0,
        survey_s_min=1000.0,
        survey_s_max=1000.0,
    )
    one, other = world.pair(limits)
    world.run(12.0)
    before = len(one.sent(Ping)) + len(other.sent(Ping))
    world.run(5.0)
    assert len(one.sent(Ping)) + len(other.sent(Ping)) == before
    world.run(30.0)
    assert len(one.sent(Ping)) + len(other.sent(Ping)) > before
    other.mute = True
    world.run(300.0)
    closes = [e.reason for _, _, effects in one.log for e in effects if isinstance(e, fx.Close)]
    assert "it has not answered several times in a row" in closes


def test_a_ping_that_never_gets_its_turn_is_given_up() -> None:
    world = World()
    one, other = world.node(limits=Limits(workers=1)), world.node()
    other.mute = True
    for _ in range(3):
        one.ask(other, FindClosest(one.id))
    world.run(1.0)
    (link,) = one.machine.state.links.values()
    (ping,) = [worker for worker in link.waiting if isinstance(worker.request, Ping)]
    assert ping.work in one.machine.state.works
    world.run(9.5)
    assert ping.work not in one.machine.state.works
    assert one.sent(Ping) == []


def test_a_spare_connection_that_nobody_uses_is_closed() -> None:
    world = World()
    one, other = world.pair(Limits())
    spare = other.join(one, at(one), None)
    world.run(60.0)
    assert other.ends[spare].there in one.ends
    world.run(120.0)
    assert spare not in other.ends
    assert len(one.links_to(other)) == 1


def test_a_node_that_lost_everybody_finds_them_again() -> None:
    world = World()
    nodes = world.network(4)
    world.run(5.0)
    for node in nodes[1:]:
        node.kill()
    world.run(30.0)
    assert nodes[0].machine.peers() == []
    for node in nodes[1:]:
        node.restart()
    world.run(130.0)
    assert len(nodes[0].machine.peers()) == 3


@pytest.mark.parametrize("lonely", [0, 1])
def test_it_does_not_matter_who_dialled_whom_before_all_were_lost(lonely: int) -> None:
    world = World()
    pair = world.pair(Limits())
    world.run(5.0)
    pair[1 - lonely].kill()
    world.run(10.0)
    pair[1 - lonely].restart()
    world.run(100.0)
    assert pair[lonely].links_to(pair[1 - lonely])


def test_a_node_that_was_alone_and_is_found_by_others_looks_around_again() -> None:
    world = World()
    nodes = world.network(5)
    lonely = nodes[4]
    for peer in nodes[:4]:
        for link in lonely.links_to(peer):
            lonely.cut(link, "cable pulled")
        lonely.machine.state.table.forget(peer.id)
    lonely.machine.state.knowns.clear()
    for node in nodes[:4]:
        node.machine.state.table.forget(lonely.id)
        node.machine.state.knowns.pop(at(lonely), None)
    world.run(100.0)
    assert lonely.machine.peers() == []
    before = len(lonely.sent(FindClosest))
    world.outcome(nodes[0], nodes[0].connect(lonely))
    world.run(130.0)
    assert len(lonely.sent(FindClosest)) > before
    assert len(lonely.machine.state.table) == 4


def test_a_network_at_rest_says_little() -> None:
    """Five nodes that nobody uses exchange no more than one request a second and node."""
    world = World()
    nodes = world.network(5)
    world.run(120.0)
    before = sum(len(node.sent(Ping)) + len(node.sent(FindClosest)) for node in nodes)
    world.run(100.0)
    after = sum(len(node.sent(Ping)) + len(node.sent(FindClosest)) for node in nodes)
    assert 0 < after - before < 5 * 100


def test_what_is_looked_up_is_ourselves_and_each_bucket_in_turn() -> None:
    world = World()
    nodes = world.network(9)
    world.run(300.0)
    one = nodes[0]
    targets = [
        envelope.body.target
        for envelope in one.sent(FindClosest)
        if isinstance(envelope.body, FindClosest) and not envelope.body.count  # no survey's
    ]
    assert one.id in targets
    buckets = {distance(one.id, node.id).bit_length() - 1 for node in nodes[1:]}
    looked_at = {distance(one.id, target).bit_length() - 1 for target in targets} - {-1}
    assert looked_at == buckets
    assert {target for target in targets if target != one.id} == {
        discovery.finger_point(one.id, index) for index in buckets
    }


def test_a_stopping_node_starts_no_upkeep() -> None:
    world = World()
    nodes = world.network(3)
    world.run(5.0)
    nodes[0].push(jobs.Shutdown())
    world.run(0.1)
    assert nodes[0].stopped
    sent = len(nodes[0].sent(Ping)) + len(nodes[0].sent(FindClosest))
    world.run(200.0)
    assert len(nodes[0].sent(Ping)) + len(nodes[0].sent(FindClosest)) == sent
    assert not nodes[0].machine.state.works


def test_a_connection_that_opens_while_stopping_is_not_pinged() -> None:
    world = World(disk_s=1.0)
    one, other = world.node(), world.node()
    guid, _ = one.put(b"keeps it busy")
    one.connect(other)
    world.run(0.005)
    one.push(jobs.Shutdown())
    world.outcome(one, guid)
    assert one.links_to(other)
    assert not one.sent(Ping)


def test_a_dial_back_is_not_repeated_while_it_is_under_way() -> None:
    world = World()
    one, other = world.node(), world.node()
    (here, there) = at(one), world.black_hole()
    one.push(jobs.Listening((there,)), "self")
    world.outcome(one, one.connect(other))
    world.run(0.05)
    world.outcome(one, one.ask(other, Ping((there, here))))
    world.outcome(one, one.ask(other, Ping((there, here))))
    assert len(dials(other)) == 1


def test_unknown_work_is_nobodys_business() -> None:
    """A dial, a store or a request that ends after its work changes nothing."""
    world = World()
    node = world.node()
    guid = node.bootstrap(world.black_hole())
    world.run(0.1)
    node.push(jobs.Cancel(guid))
    node.get(block_key(b""))
    world.run(60.0)
    assert guid not in node.outcomes
    assert node.step(jobs.StoreRead(Guid(bytes(16)))) == []
    assert id_of(b"x") not in node.machine.state.table
