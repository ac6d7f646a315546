"""What our owner keeps: an item is found and pinned, and the store is asked and told."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.job import Job
from xorbit.ids import Guid
from xorbit.items import ItemKey, key_of, make_block, make_record
from xorbit.pins import NOTHING, AddRoot, Root, ScanRoots, Told
from xorbit.store.base import Write

GUID = Guid(b"g" * 16)


def pin(world: World, node: Node, key: ItemKey) -> fx.Outcome:
    return world.outcome(node, node.call(lambda guid: jobs.Pin(guid, key)))


def order_of(node: Node, job: Job) -> fx.Effect:
    [order] = node.machine.step(1.0, job)
    return order


def test_what_is_held_is_pinned_and_let_go_of() -> None:
    world = World()
    node = world.node()
    key = node.keep(b"mine")
    assert pin(world, node, key) == fx.Got(make_block(b"mine"), node.id)
    assert node.pins(key)
    assert world.outcome(node, node.let_go(key)) == fx.Tended(Told(unpins=1, keys=(key,)))
    assert not node.pins(key)


def test_what_another_holds_is_fetched_before_it_is_pinned_and_is_due_to_be_refreshed() -> None:
    world = World()
    here, there = world.pair()
    key = there.keep(b"yours")
    assert pin(world, here, key) == fx.Got(make_block(b"yours"), there.id)
    [held] = here.store.scan(key.id, 1)
    assert held.key == key
    assert held.pinned_age_s is not None
    # The clock of the world began too lately for more.
    assert held.pinned_age_s >= min(Limits().refresh_after_s, 100.0)


def test_what_nobody_has_is_not_pinned() -> None:
    world = World()
    here, _ = world.pair()
    key = key_of(make_block(b"nobody's"))
    assert isinstance(pin(world, here, key), fx.NotFound)
    assert not here.pins(key)


def test_a_record_that_is_given_is_pinned_and_a_newer_one_that_is_held_stays() -> None:
    world = World()
    node = world.node()
    signer = SigningKey(bytes(32))
    old, new = (make_record(signer, seq, b"v") for seq in (1, 2))
    key = key_of(new)
    node.store.write([Write(key, new, pin=True)])
    done = world.outcome(node, node.call(lambda guid: jobs.Pin(guid, key, old)))
    assert isinstance(done, fx.Got)
    assert node.store.read([key]) == [new]
    assert node.pins(key)


def test_a_pin_that_the_disk_does_not_take_fails() -> None:
    node = World().node()
    block = make_block(b"mine")
    order = order_of(node, jobs.Pin(GUID, key_of(block), block))
    assert isinstance(order, fx.WriteStore)
    [finish] = node.machine.step(2.0, jobs.StoreWritten(order.guid, "full", "no space"))
    assert finish == fx.Finish(GUID, fx.Failed("disk", "no space"))


@pytest.mark.parametrize(
    "job",
    [
        jobs.Pin(GUID, key_of(make_block(b"x")), make_block(b"x")),
        jobs.TendPins(GUID, NOTHING),
    ],
    ids=["pin", "tend"],
)
def test_a_disk_that_says_nothing_ends_the_call(job: Job) -> None:
    node = World().node()
    node.machine.step(1.0, job)
    effects = node.machine.step(1.0 + Limits().work_timeout_s, jobs.Tick())
    [failed] = [e.outcome for e in effects if isinstance(e, fx.Finish)]
    assert isinstance(failed, fx.Failed)
    assert failed.code == "timeout"


def test_a_pin_of_what_is_not_found_in_time_ends_as_not_found() -> None:
    node = World().node()
    node.machine.step(1.0, jobs.Pin(GUID, key_of(make_block(b"x"))))
    effects = node.machine.step(1.0 + Limits().work_timeout_s, jobs.Tick())
    assert fx.Finish(GUID, fx.NotFound(0, 0)) in effects


def test_an_order_comes_back_as_the_store_answered_it() -> None:
    world = World()
    node = world.node()
    guid, key = node.put(b"mine")
    world.outcome(node, guid)
    root = Root(key, size=4)
    world.outcome(node, node.tend(AddRoot(root)))
    said = world.outcome(node, node.tend(ScanRoots(9)))
    assert isinstance(said, fx.Tended)
    assert [kept.root for kept in said.told.roots] == [root]


def test_an_order_that_the_disk_fails_is_a_failure() -> None:
    node = World().node()
    order = order_of(node, jobs.TendPins(GUID, NOTHING))
    assert isinstance(order, fx.OrderPins)
    fault = Told(done=False, fault="no space")
    [finish] = node.machine.step(2.0, jobs.PinsTended(order.guid, fault))
    assert finish == fx.Finish(GUID, fx.Failed("disk", "no space"))


def test_a_put_says_why_no_copy_is_kept_here() -> None:
    node = World().node()
    node.listen()
    block = make_block(b"mine")
    effects = [
        effect
        for job in (jobs.Listening((node.listen(),)), jobs.Store(GUID, key_of(block), block))
        for effect in node.machine.step(1.0, job)
    ]
    writes = [effect for effect in effects if isinstance(effect, fx.WriteStore)]
    assert [write.pin for write in writes] == [True, False]
    node.machine.step(2.0, jobs.StoreWritten(writes[0].guid, "full", "no space"))
    effects = node.machine.step(3.0, jobs.StoreWritten(writes[1].guid, "stored"))
    [done] = [e.outcome for e in effects if isinstance(e, fx.Finish)]
    assert isinstance(done, fx.PutDone)
    assert done.not_kept == "no space"
    late = jobs.Store(GUID, key_of(block), block)
    writes = [e for e in node.machine.step(4.0, late) if isinstance(e, fx.WriteStore)]
    node.machine.step(5.0, jobs.StoreWritten(writes[1].guid, "stored"))
    effects = node.machine.step(4.0 + Limits().work_timeout_s, jobs.Tick())
    [done] = [e.outcome for e in effects if isinstance(e, fx.Finish)]
    assert isinstance(done, fx.PutDone)
    assert "did not answer" in done.not_kept


def test_a_full_disk_is_told_of_once_in_a_while() -> None:
    """It refuses every block of a file: the log gets a line a minute, with how many they were."""
    node = World().node()
    told: list[str] = []
    for number in range(5):
        block, now = make_block(b"%d" % number), 1.0 + 20 * number
        guid = Guid(b"%016d" % number)
        effects = node.machine.step(now, jobs.Store(guid, key_of(block), block))
        [write] = [e for e in effects if isinstance(e, fx.WriteStore) and e.pin]
        effects = node.machine.step(now, jobs.StoreWritten(write.guid, "full", "no space"))
        told += [effect.detail for effect in effects if isinstance(effect, fx.Report)]
    assert told == ["no space", "no space (3 items since this was last said)"]
