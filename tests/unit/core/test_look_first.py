"""A put that looks first: a block goes to those who lack it, and to nobody else."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.items import Item, key_of, make_block, make_record
from xorbit.wire import message

BLOCK = make_block(b"a block of some size")
KEY = key_of(BLOCK)


def put(node: Node, item: Item = BLOCK, *, look_first: bool = True) -> fx.PutDone:
    guid = node.call(lambda guid: jobs.Store(guid, key_of(item), item, look_first=look_first))
    outcome = node.world.outcome(node, guid)
    assert isinstance(outcome, fx.PutDone)
    return outcome


def sent(nodes: list[Node]) -> int:
    """Return how often the block was sent to somebody."""
    stores = [envelope.body for node in nodes for envelope in node.sent(message.Store)]
    return sum(store.item == BLOCK for store in stores)


def asked(nodes: list[Node]) -> int:
    return sum(len(node.sent(message.Have)) for node in nodes)


def test_a_block_that_nobody_has_is_sent_to_as_many_as_ever() -> None:
    nodes = World().network(7)
    done = put(nodes[0])
    assert len(stored_at(done)) == Limits().replicas
    assert not done.held_before
    assert nodes[0].pins(KEY)
    assert sent(nodes) >= Limits().replicas - 1
    assert asked(nodes) == 1  # where the first lacks it, so do the others


def test_a_block_that_is_held_is_not_sent_again_by_whomever() -> None:
    """Each that holds it is in the receipt, and the putter keeps a copy."""
    nodes = World().network(7)
    first = stored_at(put(nodes[0]))
    times = sent(nodes)
    for again in nodes[:3]:
        done = put(again)
        assert set(stored_at(done)) == set(first)
        assert done.held_before
        assert again.pins(KEY)
    assert sent(nodes) == times


def test_only_who_lacks_it_is_sent_it() -> None:
    nodes = World().network(3)
    nodes[1].keep(BLOCK.data)
    assert set(stored_at(put(nodes[0]))) == {node.id for node in nodes}
    assert (sent(nodes), asked(nodes)) == (1, 2)


@pytest.mark.parametrize("look_first", [False, True])
def test_a_record_is_never_looked_for_first(look_first: bool) -> None:
    """Who holds a record may hold an older version of it."""
    nodes = World().network(3)
    put(nodes[0], make_record(SigningKey(bytes(32)), 1, b"value"), look_first=look_first)
    assert asked(nodes) == 0
