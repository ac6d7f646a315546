"""Upkeep: who is sent what, when, and what a node lets go of."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Id, distance
from xorbit.items import ItemKey, key_of, make_block, make_record
from xorbit.store.base import Write
from xorbit.wire import message

QUICK = Limits(
    sweep_interval_s=20.0,
    sweep_settle_s=1.0,
    item_lifetime_s=400.0,
    refresh_after_s=100.0,
    hand_off_delay_s=1.0,
    sweep_items_max=3,
)


def settled(count: int, limits: Limits = QUICK) -> tuple[World, list[Node]]:
    world = World()
    nodes = world.network(count, limits)
    world.run(15.0)
    return world, nodes


def holders(nodes: list[Node], key: ItemKey) -> list[Node]:
    return [node for node in nodes if node.holds(key)]


def nearest(nodes: list[Node], key: ItemKey) -> list[Node]:
    return sorted(nodes, key=lambda node: distance(node.id, key.id))


# --- Sweeps ---------------------------------------------------------------------------------------


def test_a_sweep_sends_only_what_is_missing() -> None:
    world, nodes = settled(3)
    keys = [nodes[0].keep(bytes([number])) for number in range(10)]
    for key in keys[:5]:
        nodes[1].store.write([Write(key, nodes[0].store.read([key])[0])])
    world.run(60.0)
    assert all(len(holders(nodes, key)) == 3 for key in keys)
    sent = [
        (key_of(envelope.body.item))
        for envelope in nodes[0].sent(message.Store)
        if isinstance(envelope.body, message.Store)
    ]
    assert not set(keys[:5]) & {k for k in sent if sent.count(k) > 1}


def test_what_is_stored_again_while_a_sweep_finds_it_expired_stays() -> None:
    world, [victim, slow, putter] = settled(3, QUICK.replace(sweep_items_max=64))
    key = victim.keep(b"precious")
    world.run(385.0)
    for number in range(8):
        victim.keep(bytes([number]) * 3)
    slow.lag_s = 0.8

    def is_found_expired() -> bool:
        job = victim.log[-1][1]
        entries = job.entries if isinstance(job, jobs.StoreScanned) else ()
        return any(held.key == key and held.age_s > QUICK.item_lifetime_s for held in entries)

    world.until(is_found_expired)
    asked = world.outcome(putter, putter.ask(victim, message.Store(make_block(b"precious"))))
    assert isinstance(asked, fx.Answered)
    assert asked.response == message.Stored()
    world.run(5.0)
    assert victim.holds(key)


def test_a_strangers_refresh_does_not_keep_our_owner_from_refreshing() -> None:
    world, nodes = settled(4)
    owner, stranger = nodes[:2]
    _, key = owner.put(b"mine")
    for _ in range(12):
        world.run(20.0)
        stranger.ask(owner, message.Have((key,), True))
    refreshed = [envelope.body for envelope in owner.sent(message.Have)]
    assert message.Have((key,), True) in refreshed


def test_a_damaged_copy_is_not_handed_over() -> None:
    world, nodes = settled(2)
    key = nodes[0].keep(b"x")
    nodes[0].damage(key)
    world.run(60.0)
    assert not nodes[1].holds(key)
    assert "bad read from the store" in [report.event for report in nodes[0].reports]


def test_a_copy_far_away_that_all_the_closest_have_is_dropped() -> None:
    world, nodes = settled(12)
    key = key_of(make_block(b"x"))
    far = nearest(nodes, key)[-1]
    far.keep(b"x")
    world.run(90.0)
    assert holders(nearest(nodes, key), key) == nearest(nodes, key)[: Limits().replicas]


def test_a_peer_that_refuses_or_talks_nonsense_does_not_stop_a_sweep() -> None:
    world, nodes = settled(3)
    nodes[1].tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Pong())
        if isinstance(envelope.body, message.Missing | message.Stored)
        else envelope
    )
    keys = [nodes[0].keep(bytes([number])) for number in range(10)]
    world.run(60.0)
    assert all(nodes[2].holds(key) for key in keys)


def test_a_peer_that_takes_no_item_is_asked_again_by_the_next_sweep_only() -> None:
    world = World()
    poor = QUICK.replace(store_quota_bytes=10)
    first, second = world.network(1, QUICK)[0], world.node(limits=poor)
    assert first.address is not None
    second.bootstrap(first.address)
    key = first.keep(b"x" * 100)
    world.run(60.0)
    assert not second.holds(key)
    assert first.machine.status().requests_sent < 60


def test_a_newer_record_that_does_not_prove_itself_is_not_taken() -> None:
    world, nodes = settled(2)
    signer = SigningKey(bytes(32))
    old, new = (make_record(signer, seq, b"v") for seq in (1, 2))
    forged = make_record(signer, 9, b"v")
    forged = type(forged)(forged.public_key, 10, b"v", forged.signature)
    nodes[0].store.write([Write(key_of(old), old, pin=True)])
    nodes[1].store.write([Write(key_of(old), new)])
    nodes[1].tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Refused("stale", "", forged))
        if isinstance(envelope.body, message.Refused)
        else envelope
    )
    world.run(200.0)
    assert nodes[0].store.read([key_of(old)]) == [old]


def test_a_node_that_stops_gives_its_sweep_up() -> None:
    world, nodes = settled(3)
    for number in range(100):
        nodes[0].keep(number.to_bytes(2, "big"))
    world.until(lambda: nodes[0].machine.state.upkeep.sweep is not None)
    nodes[0].push(jobs.Shutdown())
    world.until(lambda: nodes[0].stopped, 5.0)
    assert nodes[0].machine.state.upkeep.sweep is None


def test_a_sweep_whose_disk_says_nothing_leaves_the_rest_to_the_next() -> None:
    world, [node] = settled(1)
    world.disk_s = 1e6
    world.until(lambda: node.machine.state.upkeep.sweep is not None)
    stuck = node.machine.state.upkeep.sweep
    world.run(Limits().work_timeout_s + 1.0)
    assert node.machine.state.upkeep.sweep != stuck


def test_a_silent_peer_costs_a_sweep_no_item() -> None:
    world, nodes = settled(3)
    nodes[2].mute = True
    key = nodes[0].keep(b"x")
    world.run(90.0)
    assert nodes[1].holds(key)


@pytest.mark.parametrize("batch", [1, 2])
def test_items_of_one_id_are_looked_after_together_however_small_the_batch(batch: int) -> None:
    world, nodes = settled(2, QUICK.replace(sweep_items_max=batch))
    signer = SigningKey(bytes(32))
    item = make_record(signer, 1, b"v")
    nodes[0].store.write([Write(key_of(item), item)])
    key = nodes[0].keep(b"x")
    world.run(60.0)
    assert nodes[1].holds(key)
    assert nodes[1].holds(key_of(item))
    assert nodes[0].store.scan(Id(bytes(32)), 1)


def test_a_lost_neighbour_is_dialled_and_its_items_find_another_holder() -> None:
    world, nodes = settled(8)
    guid, key = nodes[0].put(b"x")
    world.outcome(nodes[0], guid)
    nodes[0].let_go(key)
    victim = next(node for node in nearest(nodes, key) if node is not nodes[0])
    victim.kill()
    world.run(60.0)
    alive = [node for node in nodes if node.alive]
    assert len(holders(alive, key)) >= Limits().replicas


def test_a_sweep_that_comes_due_while_another_runs_waits_for_it() -> None:
    world, [node] = settled(1)
    world.disk_s = 3.0
    node.keep(b"x")
    world.until(lambda: node.machine.state.upkeep.sweep is not None)
    running = node.machine.state.upkeep.sweep
    node.machine.state.timers.set(("sweep", None), world.now)
    node.step(jobs.Tick())
    assert node.machine.state.upkeep.sweep == running


def test_a_node_that_is_leaving_looks_after_nothing() -> None:
    world, [node] = settled(1)
    node.push(jobs.Shutdown())
    world.until(lambda: node.stopped)
    before = node.machine.state.upkeep.changed_at
    node.push(jobs.ConnectionMaintenance())
    world.run(1.0)
    assert node.machine.state.upkeep.changed_at == before
