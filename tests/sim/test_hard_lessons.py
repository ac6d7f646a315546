"""The hard lessons of other networks (HOUSE.md), one test for each row, named after it.

Production machines in a simulated network. The row on networks merged by a stray contact is about
TLS: see tests/edge/test_hard_lessons.py.
"""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid, distance, id_of
from xorbit.items import (
    Address,
    Block,
    Contact,
    ItemKey,
    Record,
    key_of,
    make_block,
    make_record,
    record_key,
)
from xorbit.run.calls import NodeStatus
from xorbit.store.base import Write
from xorbit.wire import message

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))
REPLICAS = Limits().replicas


def address_of(node: Node) -> Address:
    assert node.address is not None
    return node.address


def settled(count: int, limits: Limits | None = None) -> tuple[World, list[Node]]:
    world = World()
    nodes = world.network(count, limits)
    world.run(30.0)
    return world, nodes


def put(world: World, node: Node, data: bytes) -> tuple[ItemKey, fx.PutDone]:
    guid, key = node.put(data)
    done = world.outcome(node, guid)
    assert isinstance(done, fx.PutDone)
    return key, done


def publish(world: World, node: Node, item: Record, cas: int | None = None) -> fx.PutDone:
    done = world.outcome(node, node.call(lambda guid: jobs.Store(guid, NAME, item, cas)))
    assert isinstance(done, fx.PutDone)
    return done


def nearest(nodes: list[Node], key: ItemKey) -> list[Node]:
    return sorted(nodes, key=lambda node: distance(node.id, key.id))[:REPLICAS]


def requests(node: Node, since: int = 0) -> list[jobs.HandleRequest]:
    return [job for _, job, _ in node.log[since:] if isinstance(job, jobs.HandleRequest)]


def health(node: Node) -> str:
    return NodeStatus("world", node.machine.status(), node.store.usage()).health


def test_tables_full_of_dead_nodes_slowed_every_lookup() -> None:
    """A contact enters by proof only; silent ones are checked; failing ones are not handed on."""
    world, nodes = settled(16, Limits(contact_silent_s=30.0))
    dead, alive = nodes[::3], [node for node in nodes if node not in nodes[::3]]
    for node in dead:
        node.kill()
    world.run(150.0)
    gone = {node.id for node in dead}
    marks = {node: len(node.log) for node in alive}
    for node in alive:
        assert not gone & {contact.id for contact in node.machine.state.table.contacts()}
        world.outcome(node, node.call(lambda guid: jobs.LookUp(guid, id_of(b"anywhere"))))
    for node in alive:
        for _, _, effects in node.log[marks[node] :]:
            for effect in effects:
                assert not (isinstance(effect, fx.Dial) and effect.expected in gone)
                if isinstance(effect, fx.Send) and isinstance(
                    effect.envelope.body, message.Closest
                ):
                    assert not gone & {contact.id for contact in effect.envelope.body.contacts}


def test_nated_nodes_in_tables_that_nobody_can_dial() -> None:
    """A node is handed to others only once somebody has dialled it; until then it is a client."""
    world, nodes = settled(6)
    nated = world.node()
    nated.listening = False  # it says where it listens, and nobody gets through
    world.outcome(nated, nated.bootstrap(address_of(nodes[0])))
    key, done = put(world, nodes[3], b"x")
    mine, _ = put(world, nated, b"mine")
    world.run(120.0)
    assert nated.machine.state.links
    assert not any(node.knows(nated) for node in nodes)
    named = {
        contact.id
        for node in nodes
        for envelope in node.sent(message.Closest)
        if isinstance(envelope.body, message.Closest)
        for contact in envelope.body.contacts
    }
    assert nated.id not in named
    assert nated.id not in stored_at(done)
    assert isinstance(world.outcome(nated, nated.get(key)), fx.Got)
    assert isinstance(world.outcome(nodes[4], nodes[4].get(mine)), fx.Got)


def test_mass_restart_in_which_every_node_announces_everything_at_once() -> None:
    """Jitter everywhere, last-refreshed times on disk, a ramp from cold; no reply is dropped."""
    limits = Limits(refresh_after_s=600.0, item_lifetime_s=1_800.0)
    world, nodes = settled(12, limits)
    keys = [put(world, nodes[number % 12], bytes([number]))[0] for number in range(32)]
    world.run(100.0)
    for node in nodes:
        node.kill()
    world.run(5.0)
    began = world.now
    for node in nodes:
        node.restart()
        node.bootstrap(address_of(nodes[0]))
    world.run(60.0)
    questions = [when for node in nodes for when, job, _ in node.log if _is_sweep(node, job)]
    assert all(len(node.machine.state.table) == 11 for node in nodes)
    assert all(health(node) == "ok" for node in nodes)
    assert sum(node.machine.status().requests_timed_out for node in nodes) == 0
    blocks = [
        request
        for node in nodes
        for request in requests(node)
        if isinstance(request.request, message.Store) and isinstance(request.request.item, Block)
    ]
    assert blocks == [], "what was refreshed before the restart is not sent again after it"
    assert min(questions) - began > limits.sweep_settle_s / 2
    assert len({round(when, 1) for when in questions}) >= 8, "they do not march in step"
    assert isinstance(world.outcome(nodes[5], nodes[5].get(keys[0])), fx.Got)


def _is_sweep(node: Node, job: object) -> bool:
    return isinstance(job, jobs.StoreScanned)


def test_stored_was_answered_and_the_data_silently_lost() -> None:
    """Acknowledged means on disk at the nodes that the receipt names; who will not, says why."""
    world, nodes = settled(8)
    nodes[4].store._quota_bytes = 1
    for number in range(5):
        key, done = put(world, nodes[0], bytes([number]))
        for node in nodes:  # at this very moment
            node.kill()
        for receipt in done.receipts:
            [node] = [node for node in nodes if node.id == receipt.node]
            assert node.holds(key) == (receipt.outcome == "stored")
            assert receipt.outcome == "stored" or receipt.reason.startswith("full: ")
        for node in nodes:
            node.restart()
        world.run(8.0)


def test_puts_that_hid_conflicts_behind_success() -> None:
    """A put returns a receipt: stored, refused and why, or timed out, for each node."""
    world, nodes = settled(7)
    publish(world, nodes[0], make_record(KEY, 5, b"held"))
    silent = next(node for node in nearest(nodes, NAME) if node not in nodes[:2])
    silent.tamper = lambda envelope: (
        message.Envelope(bytes(16), envelope.work, envelope.body)
        if isinstance(envelope.body, message.Refused)
        else envelope
    )
    done = publish(world, nodes[1], make_record(KEY, 4, b"late"), cas=None)
    said = {receipt.node: receipt for receipt in done.receipts}
    assert not done.won
    assert done.newer == make_record(KEY, 5, b"held")
    assert said[silent.id].outcome == "timeout"
    others = [receipt for receipt in done.receipts if receipt.node != silent.id]
    refused = [receipt for receipt in others if receipt.outcome == "refused"]
    assert len(refused) >= REPLICAS - 1
    assert all(receipt.reason.startswith("stale: ") for receipt in refused)


def test_publishing_thousands_of_keys_took_hours() -> None:
    """Refresh sweeps the keyspace region by region: few messages, not a lookup for each key."""
    limits = Limits(refresh_after_s=60.0, item_lifetime_s=86_400.0)
    world, nodes = settled(24, limits)
    items = [make_block(number.to_bytes(2, "big")) for number in range(2_000)]
    owner = nodes[0]
    for item in items:
        for node in nearest(nodes, key_of(item)):
            node.store.write([Write(key_of(item), item, age_s=50.0)])
        owner.store.write([Write(key_of(item), item, pin=True, age_s=90.0)])
    before = owner.machine.status().requests_sent
    began = world.now
    owner.machine.state.upkeep.full_at = world.now
    owner.push(jobs.ConnectionMaintenance())
    world.until(lambda: owner.machine.state.upkeep.sweep is not None)
    world.until(lambda: owner.machine.state.upkeep.sweep is None, 600.0)
    took_s, asked = world.now - began, owner.machine.status().requests_sent - before
    for item in items[::50]:
        for node in nearest(nodes, key_of(item)):
            [held] = [h for h in node.store.scan(key_of(item).id, 4) if h.key == key_of(item)]
            assert held.age_s <= took_s + 1.0
    one_lookup_each = len(items) * REPLICAS
    assert asked < one_lookup_each / 5
    assert took_s < 60.0


def test_waiting_for_the_last_straggler() -> None:
    """Hedge, and return once enough have answered: neither reads nor writes wait for one node."""
    world, nodes = settled(12)
    publish(world, nodes[0], make_record(KEY, 1, b"value"))
    block, _ = put(world, nodes[0], b"x")
    straggler = nearest(nodes, NAME)[0]
    nearest(nodes, block)[0].lag_s = straggler.lag_s = 30.0
    reader = next(node for node in nodes if not node.lag_s and not node.holds(block))
    for ask in (lambda: reader.get(NAME), lambda: reader.get(block)):
        began = world.now
        assert isinstance(world.outcome(reader, ask()), fx.Got)
        assert world.now - began < 2.0
    began = world.now
    _, done = put(world, reader, b"y")
    assert len(stored_at(done)) == REPLICAS
    assert world.now - began < 4.0


def test_a_wrong_clock_pinned_or_hid_records() -> None:
    """Wall time never orders anything; only sequence numbers do."""
    world, nodes = settled(7)
    for number, node in enumerate(nodes):
        wrong_s = (-1e9, 0.0, 4e9)[number % 3]
        node.store._clock = lambda wrong_s=wrong_s: world.now + wrong_s
    for seq in range(1, 8):
        publisher = nodes[seq % len(nodes)]
        item = make_record(KEY, seq, b"value")
        assert publish(world, publisher, item, cas=seq - 1).won
        for node in nodes:
            found = world.outcome(node, node.get(NAME))
            assert isinstance(found, fx.Got)
            assert found.item == item
    late = publish(world, nodes[2], make_record(KEY, 3, b"z"))
    assert late.newer == make_record(KEY, 7, b"value")


def test_hosting_companies_banned_nodes_for_dialling_private_addresses() -> None:
    """Private, loopback and link-local addresses are dialled for peers of the same scope only."""
    world = World()
    node = world.node(limits=Limits(maintenance_interval_s=1e6))
    link, peer = Guid(bytes(16)), id_of(b"outsider")
    node.step(jobs.ConnectionOpened(link, peer, Address("198.51.100.1", 50_000)))
    inside = tuple(
        Address(host, 22)
        for host in ("10.0.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "::1", "fe80::1")
    )
    guid = node.call(lambda guid: jobs.LookUp(guid, id_of(b"target")))
    world.run(0.1)
    [asked] = node.sent(message.FindClosest)
    told = message.Closest((Contact(id_of(b"victim"), inside), Contact(id_of(b"other"), inside)))
    node.step(jobs.HandleResponse(link, asked.guid, asked.work, told))
    ping = Guid(b"p" * 16)
    node.step(jobs.HandleRequest(link, ping, ping, message.Ping(inside)))
    world.outcome(node, guid)
    assert not [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]
    public = message.Ping((Address("198.51.100.1", 4000),))
    guid = Guid(b"q" * 16)
    effects = node.step(jobs.HandleRequest(link, guid, guid, public))
    assert [e for e in effects if isinstance(e, fx.Dial)], "what is public is dialled"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_1_to_3_node_networks_did_not_work_without_flags(count: int) -> None:
    """They do, with the defaults: blocks, records, connection items, each node."""
    world, nodes = settled(count)
    key, done = put(world, nodes[-1], b"x")
    assert len(stored_at(done)) == count
    assert publish(world, nodes[0], make_record(KEY, 1, b"value"), cas=0).won
    for node in nodes:
        for wanted in (key, NAME):
            assert isinstance(world.outcome(node, node.get(wanted)), fx.Got)


def test_routing_table_lost_at_restart() -> None:
    """It is saved, and proved again on start: no address need be given a second time."""
    world, nodes = settled(8)
    back = nodes[3]
    back.kill()
    nodes[0].kill()  # the one that it was given the first time
    world.run(10.0)
    back.restart()
    back.bootstrap()
    assert not back.machine.state.table.contacts(), "what was saved is no contact yet"
    world.run(30.0)
    alive = [node for node in nodes if node.alive and node is not back]
    assert all(back.knows(node) and node.knows(back) for node in alive)


def test_bootstrap_failed_without_a_reason() -> None:
    """It says which address was tried, and what happened at each."""
    world = World()
    node, stranger = world.node(), world.node()
    nobody, hole = world.free_address(), world.black_hole()
    failed = world.outcome(node, node.bootstrap(nobody, hole, address_of(node)))
    assert isinstance(failed, fx.Failed)
    said = dict(failed.tried)
    assert said[nobody] == "connection refused"
    assert said[hole] == "timed out"
    [report] = [each for each in node.reports if each.event == "no way into the network"]
    assert str(nobody) in report.detail
    assert "timed out" in report.detail
    world.by_address[nobody] = stranger
    world.run(30.0)
    assert node.machine.status().joined, "it keeps trying"


def test_a_node_that_is_cut_off_still_answers_healthy() -> None:
    """Health is live contacts and the timeout rate."""
    world, nodes = settled(5)
    assert health(nodes[0]) == "ok"
    for node in nodes[1:]:
        node.mute = True
    for node in nodes:  # nothing gets through, handshakes neither
        world.black_holes[address_of(node)] = None
    world.until(lambda: health(nodes[0]) in ("failing", "alone"), 180.0)
    world.until(lambda: health(nodes[0]) == "alone", 180.0)
    world.run(60.0)
    assert health(nodes[0]) == "alone"
    assert nodes[0].machine.status().requests_timed_out > 0


# --- Amplification and memory attacks -------------------------------------------------------------

TIGHT = Limits(
    possibles_max=20,
    followers_max=20,
    relays_per_peer_max=4,
    connections_max=20,
    works_max=40,
    knowns_max=20,
    newcomers_max=8,
    contacts_max=20,
    closest_count=8,
    dials_max=4,
    dials_waiting_max=8,
)


def test_amplification_and_memory_attacks() -> None:
    """Every per-peer state is bounded, and an unproved peer is neither heard nor answered."""
    world, nodes = settled(4, TIGHT)
    victim = nodes[0]
    for number in range(60):
        peer, connection = id_of(number.to_bytes(4, "big")), Guid(number.to_bytes(16, "big"))
        address = Address("10.9.0.1", 1024 + number)
        victim.step(jobs.ConnectionOpened(connection, peer, address))
        for turn in range(60):
            guid = Guid(bytes((1,)) + number.to_bytes(7, "big") + turn.to_bytes(8, "big"))
            target = id_of(guid)
            told = (Address("10.9.0.1", 5000 + number),)
            request = (
                message.Ping(told),
                message.Follow(target),
                message.FindNext(target),
                message.FindClosest(target),
                message.Store(make_block(guid), also=(Contact(target, told),)),
            )[turn % 5]
            victim.step(jobs.HandleRequest(connection, guid, guid, request))
    state = victim.machine.state  # its invariants were checked after each of these steps
    assert len(state.possibles) <= TIGHT.possibles_max
    assert len(state.works) <= TIGHT.works_max
    assert len(state.trace) <= TIGHT.trace_events_max
    world.run(120.0)
    open_links = [link for link in state.links.values() if not link.closing]
    assert len(open_links) <= TIGHT.connections_max
    assert not state.relays
    assert len(state.works) <= 8
    assert isinstance(world.outcome(victim, victim.get(put(world, victim, b"x")[0])), fx.Got)


def test_amplification_by_a_peer_that_has_not_proved_its_id() -> None:
    """Nothing is kept or sent for a connection that no handshake has opened."""
    _, nodes = settled(2)
    victim = nodes[0]
    key = victim.keep(b"x" * 60_000)
    before = len(victim.machine.state.disk_of)
    for number in range(100):
        guid = Guid(number.to_bytes(16, "big"))
        job = jobs.HandleRequest(Guid(b"unknown" + bytes(9)), guid, guid, message.Get(key))
        assert victim.step(job) == []
    assert len(victim.machine.state.disk_of) == before
