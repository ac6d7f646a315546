"""Connection items: where a node is now, signed by itself, found by its id alone."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import announce
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid
from xorbit.items import Address, ConnectionItem, connection_key, make_connection_item
from xorbit.store.base import Write
from xorbit.wire.message import Found, Get, Ping, Pong, Refused, Store, Stored


def whereis(world: World, asker: Node, wanted: Node) -> ConnectionItem | None:
    outcome = world.outcome(asker, asker.get(connection_key(wanted.id)))
    if not isinstance(outcome, fx.Got):
        return None
    assert isinstance(outcome.item, ConnectionItem)
    return outcome.item


def holds_item_of(holder: Node, node: Node) -> bool:
    return holder.holds(connection_key(node.id))


def move(world: World, node: Node, address: Address) -> None:
    """Let a node listen elsewhere."""
    if node.address is not None:
        world.by_address.pop(node.address, None)
    node.address = address
    node.listen()
    world.run(30.0)


def signed(node: Node) -> list[int]:
    return [e.seq for _, _, es in node.log for e in es if isinstance(e, fx.SignConnection)]


def test_every_node_is_found_by_its_id_from_every_other() -> None:
    world = World()
    nodes = world.network(12)
    world.run(15.0)
    for asker in nodes:
        for wanted in nodes:
            item = whereis(world, asker, wanted)
            assert item is not None
            assert item.addresses == (wanted.address,)
            assert item.seq == 1


def test_a_client_has_no_address_to_tell() -> None:
    world = World()
    nodes = world.network(3)
    client = world.node(listen=False)
    world.outcome(client, client.bootstrap(*nodes[0].contact.addresses))
    world.run(20.0)
    assert whereis(world, nodes[1], client) is None
    assert signed(client) == []


def test_a_node_that_moves_says_so_with_the_next_number() -> None:
    world = World()
    nodes = world.network(5)
    world.run(15.0)
    node = nodes[2]
    assert node.address is not None
    new = world.free_address()
    del world.by_address[node.address]
    world.by_address[new] = node
    node.address = new
    node.push(jobs.Listening((new,)), "self")
    for connection in list(node.ends):
        node.cut(connection, "moved")
    world.run(15.0)
    item = whereis(world, nodes[4], node)
    assert item is not None
    assert (item.seq, item.addresses) == (2, (new,))
    guid = node.ask(nodes[0], Ping())
    world.outcome(node, guid)
    assert max(env.body.seq for env in node.sent(Ping)) >= 1


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_the_number_goes_on_after_a_restart_from_the_disk_or_from_the_network(disk: str) -> None:
    world = World()
    nodes = world.network(5)
    world.run(15.0)
    node = nodes[3]
    node.kill()
    world.run(1.0)
    if disk == "lost":
        node.store = type(node.store)(node.limits.store_quota_bytes)
    node.restart()
    world.outcome(node, node.bootstrap(*nodes[0].contact.addresses))
    world.run(20.0)
    assert signed(node) == [2]
    item = whereis(world, nodes[1], node)
    assert item is not None
    assert item.seq == 2


def test_a_wrong_clock_pinned_or_hid_records() -> None:
    """The number is one more than the last one known, whatever the time is."""
    world = World()
    world.now = 1.0e9
    nodes = world.network(3)
    world.run(15.0)
    assert signed(nodes[1]) == [1]


def test_only_what_our_own_key_signed_counts() -> None:
    """Neither a forged item nor one of another node pushes the number up."""
    world = World()
    nodes = world.network(3)
    liar = SigningKey(bytes(32))
    forged = make_connection_item(liar, 99, ())
    for other in nodes[1:]:
        other.tamper = lambda envelope: (
            type(envelope)(envelope.guid, envelope.work, Found(forged))
            if isinstance(envelope.body, Found) or type(envelope.body).__name__ == "Closest"
            else envelope
        )
    world.run(20.0)
    assert signed(nodes[0]) == [1]


def test_an_old_number_in_the_network_is_passed_by() -> None:
    world = World()
    nodes = world.network(3)
    node = nodes[0]
    for other in nodes[1:]:
        item = make_connection_item(node.key, 41, ())
        other.store.write([Write(connection_key(node.id), item)])
    world.run(1.3 * node.limits.announce_interval_s)
    assert signed(node)[-1] == 42


def test_silent_and_odd_nodes_do_not_keep_us_from_announcing() -> None:
    world = World()
    nodes = world.network(4, Limits(request_timeout_s_max=4.0))
    nodes[1].mute = True
    nodes[2].tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Pong())
        if not isinstance(envelope.body, Ping | Stored)
        else envelope
    )
    world.run(40.0)
    assert signed(nodes[0])
    item = whereis(world, nodes[3], nodes[0])
    assert item is not None


def test_the_same_item_is_put_again_when_the_neighbourhood_changes_and_now_and_then() -> None:
    world = World()
    nodes = world.network(4, Limits(announce_interval_s=50.0))
    world.run(15.0)
    told = nodes[0].machine.state.announced
    first = told.at
    late = world.node()
    world.outcome(late, late.bootstrap(*nodes[0].contact.addresses))
    world.run(10.0)
    second = told.at
    assert second > first
    world.run(70.0)
    assert told.at > second
    assert signed(nodes[0]) == [1]


def test_a_node_that_lost_its_disk_while_the_holders_were_away_is_found_again() -> None:
    """It begins at one again; as soon as they are back it signs above what they hold."""
    world = World()
    nodes = world.network(8)
    world.run(30.0)
    node = nodes[3]
    for number in range(3):
        move(world, node, Address(f"10.9.0.{number + 1}", 4000))
    holders = [other for other in nodes if other is not node and holds_item_of(other, node)]
    witness = next(other for other in nodes if other is not node and other not in holders)
    node.kill()
    node.store = type(node.store)(node.limits.store_quota_bytes)
    for holder in holders:
        holder.kill()
    node.address = Address("10.9.9.99", 4000)
    node.restart()
    node.bootstrap(*witness.contact.addresses)
    world.run(60.0)
    assert node.machine.state.own_seq == 1
    for holder in holders:
        holder.restart()
        holder.bootstrap(*witness.contact.addresses)
    world.run(60.0)
    item = whereis(world, witness, node)
    assert item is not None
    assert (item.seq, item.addresses) == (5, (node.address,))


def test_a_newer_item_of_ours_that_a_peer_stores_with_us_is_passed_by() -> None:
    world = World()
    nodes = world.network(3, Limits(announce_again_s_min=5.0))
    world.run(15.0)
    newer = make_connection_item(nodes[0].key, 7, ())
    world.outcome(nodes[1], nodes[1].ask(nodes[0], Store(newer)))
    world.run(15.0)
    assert signed(nodes[0]) == [1, 8]
    world.outcome(nodes[1], nodes[1].ask(nodes[0], Store(newer)))
    world.run(15.0)
    assert signed(nodes[0]) == [1, 8], "what is older changes nothing"


def test_one_that_only_says_that_it_has_a_newer_one_makes_us_look_once() -> None:
    world = World()
    nodes = world.network(3, Limits(announce_interval_s=300.0))
    world.run(15.0)
    liar = nodes[1]
    liar.tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Refused("stale"))
        if isinstance(envelope.body, Stored)
        else envelope
    )
    before = len(nodes[0].sent(Get))
    world.run(600.0)
    assert signed(nodes[0]) == [1]
    assert len(nodes[0].sent(Get)) - before < 20


def test_what_was_signed_for_nobody_or_too_late_is_not_put() -> None:
    world = World()
    node = world.node()
    item = make_connection_item(node.key, 1, (Address("10.0.0.1", 1),))
    assert node.step(jobs.ConnectionSigned(Guid(bytes(16)), item)) == []
    assert node.machine.state.announced.item is None


def test_a_node_that_does_not_know_where_it_is_announces_nothing() -> None:
    node = World().node()
    state = node.machine.state
    state.joined, state.listening = True, (Address("0.0.0.0", 4000),)
    announce.keep_up(state)
    assert state.effects == []
    assert not state.works
