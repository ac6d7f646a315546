"""Upkeep: who is sent what, when, and what a node lets go of."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import SWEEP_STALLS_MAX, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import upkeep as upkeep_module
from xorbit.core.state import Answer, NoAnswer
from xorbit.core.sweep import Sweep, SweepWork
from xorbit.ids import Guid, Id, distance
from xorbit.items import Block, ItemKey, key_of, make_block, make_record
from xorbit.store.base import Write
from xorbit.wire import message

QUICK = Limits(
    sweep_interval_s=20.0,
    sweep_settle_s=1.0,
    item_lifetime_s=400.0,
    refresh_after_s=100.0,
    hand_off_delay_s=1.0,
    newcomer_delay_s=1.0,
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


def scans(node: Node) -> int:
    """Return how often a node has read a batch of its items."""
    return sum(isinstance(effect, fx.ScanStore) for _, _, es in node.log for effect in es)


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


def test_a_slow_uplink_hands_all_over_in_one_sweep_however_long_that_takes() -> None:
    limits = QUICK.replace(sweep_interval_s=1e5, refresh_after_s=1e5, item_lifetime_s=1e6)
    world = World()
    node = world.node(limits=limits.replace(sweep_items_max=64, work_timeout_s=20.0))
    node.bootstrap()
    keys = [node.keep(b"%06d" % number * 10_900) for number in range(40)]
    node.byte_s = 8 / 400_000
    newcomer = world.node(limits=limits)
    assert node.address is not None
    newcomer.bootstrap(node.address)
    world.run(120.0)
    assert all(newcomer.holds(key) for key in keys)


def test_who_says_that_it_lacks_items_and_never_takes_any_is_left_out() -> None:
    world = World()
    limits = QUICK.replace(sweep_items_max=64, sweep_interval_s=1e5)
    nodes = world.network(3, limits)
    liar = nodes[2]
    liar.tamper = lambda envelope: (
        message.Envelope(bytes(16), envelope.work, envelope.body)
        if isinstance(envelope.body, message.Stored | message.Refused)
        else envelope
    )
    world.run(10.0)
    keys = [nodes[0].keep(bytes([number])) for number in range(60)]
    upkeep = nodes[0].machine.state.upkeep
    upkeep_module._note_changed(nodes[0].machine.state, [nodes[1].id], 1.0)
    nodes[0].push(jobs.ConnectionMaintenance())
    world.until(lambda: upkeep.sweep is not None)
    world.until(lambda: upkeep.sweep is None)
    assert all(nodes[1].holds(key) for key in keys)
    sent = [e.body.item for e in nodes[0].sent(message.Store) if isinstance(e.body, message.Store)]
    stores = sum(key_of(item) in keys for item in sent)
    assert stores <= len(keys) + limits.sweep_stores_max + SWEEP_STALLS_MAX


@pytest.mark.parametrize("mute", [False, True])
def test_a_batch_that_gets_no_further_is_closed_and_looked_after_again_later(mute: bool) -> None:
    """What comes for it afterwards changes nothing."""
    world = World()
    limits = QUICK.replace(sweep_interval_s=1e5, work_timeout_s=2.0)
    nodes = world.network(3, limits)
    world.run(10.0)
    keys = [nodes[0].keep(bytes([number])) for number in range(20)]
    nodes[2].lag_s, nodes[2].mute = 2.5, mute
    stranger = nodes[1].id
    upkeep_module._note_changed(nodes[0].machine.state, [stranger], 1.0)
    nodes[0].push(jobs.ConnectionMaintenance())
    world.run(200.0)
    assert all(nodes[1].holds(key) for key in keys)


def test_a_copy_that_somebody_stores_far_away_is_let_go_of_though_nobody_came_or_went() -> None:
    """Who stored it took a holder for gone that we never missed."""
    world, nodes = settled(12, QUICK.replace(sweep_interval_s=1e5))
    world.run(60.0)
    key = nodes[0].keep(b"wandering")
    block = nodes[0].store.read([key])[0]
    order = nearest(nodes, key)
    for node in order[:5]:
        node.store.write([Write(key, block)])
    teller, far = order[1], order[-1]
    outcome = world.outcome(teller, teller.ask(far, message.Store(block, age_s=50.0)))
    assert isinstance(outcome, fx.Answered)
    assert far.holds(key)
    world.until(lambda: not far.holds(key), 60.0)
    assert all(node.holds(key) for node in order[:5])


def test_one_batch_may_hold_the_items_of_many_parts_of_the_keyspace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Near each node that came or went, and nowhere else."""
    world, nodes = settled(3, QUICK.replace(sweep_interval_s=3_600.0))
    keys = [nodes[0].keep(bytes([number])) for number in range(60)]
    wanted = sorted(keys, key=lambda key: key.id)[::20]
    parts = {peer.id: (key.id, key.id) for peer, key in zip(nodes, wanted, strict=True)}
    monkeypatch.setattr("xorbit.core.sweep.near", lambda _, peer: parts[peer])
    state = nodes[0].machine.state
    state.limits = QUICK.replace(sweep_items_max=64)
    sweep = Sweep({node.id: None for node in nodes}, insist=True)
    state.start_work(SweepWork(state, sweep, lambda state, work: None))
    nodes[0].step(jobs.Tick())
    world.run(2.0)
    assert {key for key in keys if nodes[1].holds(key)} == {*wanted}


def test_what_comes_for_a_batch_that_is_closed_changes_nothing() -> None:
    _, nodes = settled(3)
    state, peer = nodes[0].machine.state, nodes[1].id
    work = SweepWork(state, Sweep(None, insist=False), lambda state, work: None)
    state.start_work(work)
    state.effects.clear()
    work.on_answer(state, Answer(work.guid, Guid(bytes(16)), peer, message.Missing(()), 0.1))
    work.on_no_answer(state, NoAnswer(work.guid, Guid(bytes(16)), peer, "late"))
    work.on_disk(state, jobs.StoreDropped(Guid(bytes(16)), ()))
    one, other = Guid(b"1" * 16), Guid(b"2" * 16)
    work._closing = {one: (), other: ()}
    work.on_disk(state, jobs.StoreDropped(one, ()))  # the batch ends with the last of what it does
    assert [*work._closing] == [other]
    assert (state.effects, state.works[work.guid]) == ([], work)


def test_near_very_many_who_came_and_went_all_items_are_looked_after() -> None:
    _, nodes = settled(3, QUICK.replace(concerned_max=2, sweep_interval_s=1e5))
    state = nodes[0].machine.state
    full_at = state.upkeep.full_at
    upkeep_module._note_changed(state, [node.id for node in nodes], 1.0)
    assert (state.upkeep.changed, state.upkeep.changed_at) == ({}, None)
    assert state.upkeep.full_at < full_at
    state.upkeep.full_at = full_at
    state.upkeep.left = dict.fromkeys(node.id for node in nodes[:2])
    done = SweepWork(state, Sweep({nodes[2].id: None}, insist=False), upkeep_module._ended)
    done.left_to_nearer = 1
    upkeep_module._ended(state, done)
    assert (state.upkeep.left, state.upkeep.left_at) == ({}, None)
    assert state.upkeep.full_at < full_at


def test_of_very_many_neighbours_lost_at_once_only_some_are_dialled() -> None:
    _, nodes = settled(4, QUICK.replace(concerned_max=2))
    state = nodes[0].machine.state
    for link in state.links.values():
        upkeep_module.note_lost(state, link)
    assert len(state.upkeep.lost) == 2


def test_one_that_goes_before_there_was_a_round_of_maintenance_is_dialled_too() -> None:
    """Else it is named to others until its turn to be tested comes."""
    _, nodes = settled(2, QUICK)
    state = nodes[0].machine.state
    [link] = state.links.values()
    state.upkeep.near = {}  # as if the other had just come
    upkeep_module.note_lost(state, link)
    assert list(state.upkeep.lost) == [link.peer]


def test_one_that_joins_far_away_costs_no_walk_through_all_items() -> None:
    world = World()
    limits = QUICK.replace(
        sweep_interval_s=1e6, sweep_items_max=4, replicas=2, surplus_holders_max=1
    )
    nodes = world.network(24, limits)
    world.run(60.0)
    for number in range(300):
        nodes[0].keep(number.to_bytes(2, "big"))
    before = scans(nodes[0])
    newcomer = world.node(limits=limits)
    newcomer.bootstrap(*nodes[1].contact.addresses)
    world.run(40.0)
    assert newcomer.id in nodes[0].machine.state.table
    assert 0 < scans(nodes[0]) - before < 40


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
    stores = [envelope.body.item for envelope in first.sent(message.Store)]
    offers = sum(isinstance(item, Block) for item in stores)
    assert 0 < offers <= len(first.sent(message.Have)) < 10


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
