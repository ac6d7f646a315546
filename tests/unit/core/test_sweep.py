"""Sweeps: what is refreshed, sent again, fetched again and compared, and what that costs."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.trace import Event
from xorbit.ids import distance
from xorbit.items import ItemKey, Record, key_of, make_block, make_connection_item, make_record
from xorbit.store.base import Write
from xorbit.wire import message

QUICK = Limits(
    sweep_interval_s=20.0,
    sweep_settle_s=1.0,
    item_lifetime_s=4_000.0,
    refresh_after_s=100.0,
    hand_off_delay_s=1.0,
    newcomer_delay_s=1.0,
)
SLOW = QUICK.replace(sweep_interval_s=3_600.0)
KEY = SigningKey(bytes(range(32)))


def settled(count: int, limits: Limits = QUICK, seed: int = 0) -> tuple[World, list[Node]]:
    world = World(seed)
    nodes = world.network(count, limits)
    world.run(15.0)
    return world, nodes


def by_distance(nodes: list[Node], key: ItemKey) -> list[Node]:
    return sorted(nodes, key=lambda node: distance(node.id, key.id))


def put(world: World, node: Node, data: bytes) -> tuple[ItemKey, fx.PutDone]:
    guid, key = node.put(data)
    done = world.outcome(node, guid)
    assert isinstance(done, fx.PutDone)
    return key, done


def lose(node: Node, key: ItemKey) -> None:
    """Let a copy rot, and be found rotten and dropped, behind the machine's back."""
    node.store.damage(key)
    node.store.drop_damaged([key])


def reported(node: Node, event: str) -> bool:
    return any(report.event == event for report in node.reports)


def sweeping(node: Node) -> bool:
    return node.machine.state.upkeep.sweep is not None


def sweep_now(node: Node) -> None:
    """Have all items looked after at once."""
    node.machine.state.upkeep.full_at = node.world.now
    node.push(jobs.ConnectionMaintenance())


# --- What rotted ----------------------------------------------------------------------------------


def test_a_pin_whose_bytes_are_gone_is_fetched_again_from_the_holders() -> None:
    world, nodes = settled(8)
    owner = by_distance(nodes, key_of(make_block(b"x")))[-1]
    key, _ = put(world, owner, b"x")
    lose(owner, key)
    assert not owner.holds(key)
    world.run(30.0)
    assert owner.holds(key)
    assert owner.pins(key)


def test_a_pin_that_nobody_can_replace_yet_is_fetched_when_a_holder_is_back() -> None:
    world, nodes = settled(4)
    owner, *others = nodes
    key, _ = put(world, owner, b"x")
    for node in others:
        node.kill()
    lose(owner, key)
    world.run(60.0)
    assert not owner.holds(key)
    for node in others:
        node.restart()
    world.run(90.0)
    assert owner.holds(key)
    assert owner.pins(key)


def test_a_copy_that_a_sweep_finds_rotten_is_fetched_again() -> None:
    world, nodes = settled(4)
    key, _ = put(world, nodes[0], b"x")
    nodes[0].damage(key)
    lose(nodes[1], key)
    sweep_now(nodes[0])
    world.run(5.0)
    assert reported(nodes[0], "bad read from the store")
    world.run(40.0)
    assert all(node.holds(key) for node in nodes)


@pytest.mark.parametrize("how", ["resolve", "follow"])
def test_an_owners_rotten_record_is_written_anew_by_whoever_reads_it(how: str) -> None:
    world, nodes = settled(5, SLOW)
    item = make_record(KEY, 1, b"value")
    key = key_of(item)
    world.outcome(nodes[0], nodes[0].call(lambda guid: jobs.Store(guid, key, item)))
    nodes[0].damage(key)
    if how == "resolve":
        world.outcome(nodes[0], nodes[0].get(key))
    else:
        nodes[1].ask(nodes[0], message.Follow(key.id))
    world.run(5.0)
    assert nodes[0].store.read([key]) == [item]
    assert nodes[0].pins(key)


# --- What nobody took -----------------------------------------------------------------------------


def fill(node: Node) -> None:
    node.store._quota_bytes = 1


def make_room(node: Node) -> None:
    node.store._quota_bytes = 2**30


def pinned_age_s(node: Node, key: ItemKey) -> float:
    [age_s] = [held.pinned_age_s for held in node.store.scan(key.id, 4) if held.key == key]
    assert age_s is not None
    return age_s


def test_what_nobody_took_does_not_count_as_refreshed_and_is_sent_again_soon() -> None:
    world, nodes = settled(4, SLOW)
    owner, *others = nodes
    for node in others:
        fill(node)
    key, _ = put(world, owner, b"x")
    world.run(1.0)
    assert pinned_age_s(owner, key) >= SLOW.refresh_after_s
    world.run(20.0)
    assert not any(node.holds(key) for node in others)
    for node in others:
        make_room(node)
    world.run(60.0)
    assert all(node.holds(key) for node in others)
    assert pinned_age_s(owner, key) <= 80.0
    assert owner.machine.state.upkeep.due_at is None


def test_what_nobody_takes_is_sent_again_ever_more_rarely() -> None:
    world, nodes = settled(2, SLOW)
    owner, other = nodes
    fill(other)
    put(world, owner, b"x")
    asked: list[int] = []
    for _ in range(3):
        before = len(owner.sent(message.Have))
        world.run(300.0)
        asked.append(len(owner.sent(message.Have)) - before)
    assert asked[0] > asked[-1]
    assert asked[0] <= 6


def test_of_two_puts_that_nobody_took_both_are_sent_again_and_what_was_taken_is_not() -> None:
    world, nodes = settled(2, SLOW)
    owner, other = nodes
    taken, _ = put(world, owner, b"taken")
    assert owner.machine.state.upkeep.due_at is None
    fill(other)
    refused = [put(world, owner, data)[0] for data in (b"a", b"b")]
    make_room(other)
    asked = len(owner.sent(message.Have))
    world.run(30.0)
    assert all(other.holds(key) for key in refused)
    questions = [env.body for env in owner.sent(message.Have)[asked:]]
    keys = {key for question in questions for key in question.keys}
    assert set(refused) <= keys
    assert taken not in keys


# --- Who is closest, where the table does not know ------------------------------------------------

LARGE = QUICK.replace(
    closest_count=8, replicas=3, contacts_max=10, sweep_interval_s=3_600.0, refresh_after_s=60.0
)


def regions(node: Node) -> int:
    """Return how often a node asked for who is closest, for its sweeps."""
    events: list[Event] = list(node.machine.state.trace)
    return sum(event.what == "began" and event.kind == "Region" for event in events)


def test_an_owner_refreshes_at_the_true_closest_by_one_lookup_for_a_region() -> None:
    """In a network larger than its routing table; and it asks once for many keys of a place."""
    world, nodes = settled(30, LARGE)
    owner = world.node(listen=False, limits=LARGE)
    assert nodes[0].address is not None
    world.outcome(owner, owner.bootstrap(nodes[0].address))
    keys = [put(world, owner, bytes([number]))[0] for number in range(100)]
    world.run(100.0)
    for node in nodes:
        node.store.drop(keys)
    sweep_now(owner)
    world.run(1.0)
    world.until(lambda: not sweeping(owner), 600.0)
    for key in keys:
        assert all(node.holds(key) for node in by_distance(nodes, key)[: LARGE.replicas])
    assert 3 <= regions(owner) <= len(keys) / 2


def test_in_a_network_that_the_table_knows_nobody_is_asked_who_is_closest() -> None:
    world, nodes = settled(8)
    world.run(30.0)
    before = sum(map(regions, nodes))
    for number in range(20):
        put(world, nodes[0], bytes([number]))
    world.run(60.0)
    assert sum(map(regions, nodes)) == before


def asking(world: World, limits: Limits) -> tuple[Node, list[Node]]:
    """Let a sweep ask for who is closest while nobody answers any more."""
    nodes = world.network(12, limits.replace(closest_count=6, contacts_max=8))
    world.run(15.0)
    owner = nodes[0]
    for number in range(30):
        owner.keep(bytes([number]))
    for node in nodes[1:]:
        node.mute = True
    sweep_now(owner)
    return owner, nodes


def test_a_node_that_stops_waits_for_no_region() -> None:
    world = World()
    owner, _ = asking(world, SLOW)
    world.until(lambda: bool(regions(owner)))
    owner.push(jobs.Shutdown())
    world.until(lambda: owner.stopped, SLOW.shutdown_s_max + 1.0)
    world.run(60.0)
    assert not sweeping(owner)


def test_a_sweep_that_is_over_takes_no_region() -> None:
    world = World()
    owner, _ = asking(world, SLOW)
    world.until(lambda: bool(regions(owner)))
    state = owner.machine.state
    work = state.works[state.upkeep.sweep or b""]
    state.timers.set(("work", work.guid), world.now)
    work.deadline = world.now
    owner.step(jobs.Tick())
    assert not sweeping(owner)
    before = regions(owner)
    state.upkeep.full_at = state.upkeep.settled_at = world.now + 1e6
    world.run(120.0)
    assert regions(owner) == before


# --- Versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_holders_of_rival_versions_end_with_the_same_one_though_nobody_reads_it(ahead: int) -> None:
    """At equal numbers the greater value wins: whichever holder had it, and its owner is gone."""
    world, nodes = settled(8)
    low, high = (make_record(KEY, 5, value) for value in (b"a", b"b"))
    key = key_of(low)
    holders = by_distance(nodes, key)[: QUICK.replicas]
    for rank, node in enumerate(holders):
        node.store.write([Write(key, high if rank == ahead else low)])
    world.run(900.0)
    assert {node.store.read([key])[0] for node in holders} == {high}


def test_a_sweep_that_compares_sends_one_copy_of_a_record_and_none_of_a_block() -> None:
    world, nodes = settled(5, SLOW)
    item, block = make_record(KEY, 5, b"value"), make_block(b"x")
    for node in nodes:
        node.store.write([Write(key_of(each), each) for each in (item, block)])
    nearest = by_distance(nodes, key_of(item))[0]
    before = len(nearest.sent(message.Store))
    sweep_now(nearest)
    world.run(10.0)
    sent = [env.body.item for env in nearest.sent(message.Store)[before:]]
    assert [each for each in sent if isinstance(each, Record)] == [item]
    assert block not in sent


# --- Small things of a batch ----------------------------------------------------------------------


def test_items_of_one_id_fill_a_batch_and_the_sweep_goes_on_behind_them() -> None:
    world, nodes = settled(2, QUICK.replace(sweep_items_max=1))
    record, where = make_record(KEY, 1, b"v"), make_connection_item(KEY, 1, ())
    assert key_of(record).id == key_of(where).id
    nodes[0].store.write([Write(key_of(item), item) for item in (record, where)])
    blocks = [nodes[0].keep(bytes([number])) for number in range(8)]
    world.run(60.0)
    assert all(nodes[1].holds(key) for key in (key_of(record), *blocks))


def test_what_goes_while_a_sweep_wants_to_hand_it_over_is_not_handed_over() -> None:
    world = World(disk_s=0.05)
    nodes = world.network(2, QUICK)
    world.run(15.0)
    key = nodes[0].keep(b"x")

    def wanted() -> bool:
        return any(
            isinstance(effect, fx.ReadStore) and effect.key == key
            for _, _, effects in nodes[0].log
            for effect in effects
        )

    world.until(wanted)
    nodes[0].store.drop([key])
    world.until(lambda: not sweeping(nodes[0]), 5.0)
    assert not nodes[1].holds(key)
    assert not reported(nodes[0], "bad read from the store")


def test_a_timer_that_rings_early_starts_no_sweep_and_is_set_anew() -> None:
    world, nodes = settled(2, SLOW)
    node = nodes[0]
    world.until(lambda: not sweeping(node))
    state = node.machine.state
    world.run(60.0)
    state.timers.set(("sweep", None), world.now)
    node.step(jobs.Tick())
    assert not sweeping(node)
    assert ("sweep", None) in state.timers
