"""Connections that match the table, possibles that get their turn, and the table's next life."""

from itertools import pairwise

import pytest

from tests.world import Node, World
from xorbit.config import ANCHORS_MAX, Limits
from xorbit.core import discovery, links, maintenance
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Id, id_of
from xorbit.items import Address, Contact
from xorbit.wire.message import Ping

HOUR_S = 3_600.0


def connected(node: Node) -> set[Id]:
    return set(node.machine.state.link_of)


def dials(node: Node, since: float = 0.0) -> list[tuple[float, fx.Dial]]:
    return [
        (now, effect)
        for now, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Dial) and now >= since
    ]


# --- Connections match the table ------------------------------------------------------------------


def test_neighbours_and_fingers_stay_connected_and_the_rest_come_and_go() -> None:
    world = World()
    limits = Limits(
        neighbours_connected=2,
        idle_connection_s=90.0,
        look_around_s_max=HOUR_S,
        announce_interval_s=10 * HOUR_S,
        contact_silent_s=10 * HOUR_S,
    )
    nodes = world.network(24, limits)
    world.run(600.0)
    for node in nodes:
        wanted = set(maintenance.wanted_contacts(node.machine.state))
        assert wanted <= connected(node)
        assert len(node.machine.state.table) + len(node.machine.state.heard) == 23
        assert len(node.machine.state.table) >= limits.closest_count
    assert min(len(connected(node)) for node in nodes) < 23


def test_a_wanted_contact_that_is_not_connected_is_dialled() -> None:
    world = World()
    nodes = world.network(4)
    world.run(10.0)
    one, other = nodes[:2]
    for link in one.links_to(other):
        one.cut(link, "cable pulled")
    world.run(7.0)
    assert other.id in connected(one)


def test_kept_connections_are_limited() -> None:
    world = World()
    nodes = world.network(9, Limits(kept_connections_max=2, neighbours_connected=1))
    world.run(10.0)
    for node in nodes:
        assert len(maintenance.wanted_contacts(node.machine.state)) <= 2


# --- Whether they are there -----------------------------------------------------------------------


def test_silent_contacts_are_asked_a_bounded_number_a_minute() -> None:
    world = World()
    limits = Limits(
        contact_silent_s=10.0,
        contact_retry_s=10.0,
        liveness_pings_per_minute_max=12,
        neighbours_connected=1,
        kept_connections_max=1,
        look_around_s_min=1e6,
        look_around_s_max=1e6,
        finger_check_s_min=1e6,
        finger_check_s_max=1e6,
        ping_interval_s=1e6,
        idle_connection_s=1.0,
    )
    nodes = world.network(12, Limits(neighbours_connected=1, kept_connections_max=1))
    world.run(30.0)
    late = world.node(limits=limits)
    for node in nodes:
        world.outcome(late, late.connect(node))
    world.run(30.0)
    before = len(late.sent(Ping))
    world.run(300.0)
    asked = len(late.sent(Ping)) - before
    assert 30 <= asked <= 5 * 15


def test_a_contact_that_is_dead_is_found_out_and_leaves_the_table() -> None:
    world = World()
    nodes = world.network(6, Limits(contact_silent_s=30.0))
    world.run(10.0)
    nodes[5].kill()
    world.run(200.0)
    for node in nodes[:5]:
        assert not node.knows(nodes[5])


# --- Possibles ------------------------------------------------------------------------------------


def test_nated_nodes_in_tables_that_nobody_can_dial() -> None:
    """It is dialled back with growing waits, is never in a table, and is in once it can be."""
    world = World()
    server, hidden = world.network(2)
    hidden.kill()
    hidden.restart()
    server.machine.state.table.forget(hidden.id)
    hidden.listening = False
    since = world.now
    hidden.bootstrap(*([server.address] if server.address else []))
    world.run(200.0)
    assert not server.knows(hidden)
    tries = [now for now, dial in dials(server, since) if dial.expected == hidden.id]
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert 4 <= len(tries) <= 9
    assert waits[-1] > 2 * waits[0]
    hidden.listening = True
    world.run(600.0)
    assert server.knows(hidden)
    assert not server.machine.state.possibles
    assert not server.machine.state.dial_backs


def test_a_possible_that_is_gone_is_forgotten_in_the_end() -> None:
    world = World()
    server, other = world.network(2)
    limits = server.limits
    ghost = Contact(id_of(b"ghost"), (world.free_address(),))
    server.step(jobs.Restored((ghost,)))
    world.run(limits.dial_back_s_min * 2**limits.dial_back_tries_max * 2)
    assert not server.machine.state.possibles
    assert not server.machine.state.dial_backs
    assert server.links_to(other)


def test_a_ping_does_not_hasten_the_next_dial_back() -> None:
    world = World()
    server, hidden = world.network(2)
    server.machine.state.table.forget(hidden.id)
    hidden.listening = False
    since = world.now
    for _ in range(20):
        world.outcome(hidden, hidden.ask(server, Ping((hidden.address,))))
    assert len(dials(server, since)) == 1


def test_a_possible_without_an_address_that_may_be_dialled_is_dropped() -> None:
    """A name is dialled on our user's word only; our own address never."""
    world = World()
    server, other = world.network(2)
    assert server.address is not None
    named = Contact(id_of(b"named"), (Address("node.example", 1),))
    ourselves = Contact(id_of(b"ourselves"), (server.address,))
    server.step(jobs.Restored((named, ourselves, other.contact)))
    world.run(15.0)
    assert not server.machine.state.possibles
    assert dials(server, world.now - 15.0) == []


# --- The next life --------------------------------------------------------------------------------


def test_routing_table_lost_at_restart() -> None:
    """It is saved, and proved again on start: a node comes back with no address given."""
    world = World()
    nodes = world.network(6)
    world.run(60.0)
    node = nodes[3]
    assert len(node.store.load_contacts(b"world")) == 5
    node.kill()
    nodes[0].kill()
    world.run(30.0)
    node.restart()
    assert len(node.machine.state.table) == 0
    outcome = world.outcome(node, node.bootstrap())
    assert isinstance(outcome, fx.Joined)
    world.run(60.0)
    assert {c.id for c in node.machine.state.table.contacts()} == {
        other.id for other in nodes[1:] if other is not node
    }


def test_a_young_table_is_saved_again_as_soon_as_it_has_doubled() -> None:
    """Who is killed soon after joining knows more than the one address that it was given."""
    world = World()
    rare = Limits(save_contacts_s=1e6)
    nodes = world.network(2, rare)
    world.run(10.0)
    assert len(nodes[1].store.load_contacts(b"world")) == 1
    assert nodes[0].address is not None
    for _ in range(9):
        world.node(limits=rare).bootstrap(nodes[0].address)
    world.run(20.0)
    assert len(nodes[1].store.load_contacts(b"world")) > 5


def test_a_saved_contact_is_no_contact_before_it_is_proved_again() -> None:
    world = World()
    node = world.node()
    dead = Contact(id_of(b"dead"), (world.free_address(),))
    ours = Contact(node.id, (Address("10.8.8.8", 1),))
    node.step(jobs.Restored((dead, ours)))
    assert list(node.machine.state.possibles) == [dead.id]
    assert len(node.machine.state.table) == 0
    world.outcome(node, node.bootstrap())
    world.run(60.0)
    assert len(node.machine.state.table) == 0
    assert not [e for _, _, es in node.log for e in es if isinstance(e, fx.SaveContacts)]


def test_a_clean_stop_saves_what_is_known() -> None:
    world = World()
    nodes = world.network(4, Limits(save_contacts_s=1e6))
    world.run(1.0)
    nodes[1].push(jobs.Shutdown())
    world.run(6.0)
    assert nodes[1].stopped
    assert len(nodes[1].store.load_contacts(b"world")) == 3


def test_what_has_not_changed_is_not_saved_again() -> None:
    world = World()
    nodes = world.network(3)
    world.run(60.0)
    saves = [e for _, _, es in nodes[0].log for e in es if isinstance(e, fx.SaveContacts)]
    world.run(300.0)
    again = [e for _, _, es in nodes[0].log for e in es if isinstance(e, fx.SaveContacts)]
    assert len(again) == len(saves) >= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_1_to_3_node_networks_did_not_work_without_flags(count: int) -> None:
    """They do, with the defaults: whoever is there holds what any of them puts."""
    world = World()
    nodes = world.network(count)
    world.run(5.0)
    guid, key = nodes[-1].put(b"few")
    assert isinstance(world.outcome(nodes[-1], guid), fx.PutDone)
    for node in nodes:
        assert isinstance(world.outcome(node, node.get(key)), fx.Got)


def test_an_address_that_once_was_good_is_dialled_now_and_then() -> None:
    """Where a network fell apart, only what is remembered leads to its other part."""
    world = World()
    node, *_ = world.network(3, Limits(known_retry_s=10.0))
    elsewhere = [world.free_address() for _ in range(2)]
    node.machine.state.knowns.update(dict.fromkeys(elsewhere))
    world.run(100.0)
    tried = [
        effect.addresses[0]
        for _, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Dial) and effect.addresses[0] in elsewhere
    ]
    assert 4 <= len(tried) <= 12
    assert {*tried} == {*elsewhere}


def test_who_is_wanted_stays_connected_though_nobody_uses_it() -> None:
    world = World()
    one, _ = world.network(2)
    state = one.machine.state
    (link,) = state.links.values()
    link.used_at, state.unused_due = -1e6, 0.0
    one.step(jobs.ConnectionMaintenance())
    assert not link.closing
    assert not [e for _, _, effects in one.log for e in effects if isinstance(e, fx.Close)]


def test_where_all_dials_of_a_round_are_taken_no_neighbour_is_dialled() -> None:
    world = World()
    one, other = world.network(2)
    since = world.now
    assert maintenance._dial_neighbours(one.machine.state, 0) == 0
    assert dials(one, since) == []
    assert one.knows(other)


def test_whom_we_came_in_by_is_remembered_once_it_is_a_contact() -> None:
    """The latest of them, and not many."""
    world = World()
    nodes = world.network(ANCHORS_MAX + 3)
    state = nodes[0].machine.state
    state.anchors.clear()
    for node in nodes[1:]:
        discovery._note_anchor(state, node.id)
    assert list(state.anchors) == [node.id for node in nodes[-ANCHORS_MAX:]]
    discovery._note_anchor(state, id_of(b"nobody"))
    assert len(state.anchors) == ANCHORS_MAX


def test_who_is_found_to_lie_is_asked_for_no_way_any_more() -> None:
    world = World()
    one, other = world.network(2)
    state = one.machine.state
    state.anchors[other.id] = other.contact
    links.distrust(state, other.id, "it lied")
    assert other.id not in state.anchors
