"""What only the store in memory promises."""

import pytest

from tests.unit.store.samples import block, write
from xorbit.errors import MisuseError
from xorbit.items import key_of
from xorbit.store.memory import MemoryStore


def test_it_outlives_its_closing_as_a_disk_outlives_its_node():
    store = MemoryStore(10_000)
    store.write([write(block(1))])
    store.close()
    assert store.read([key_of(block(1))]) == [block(1)]


def test_a_look_at_what_it_holds_does_not_count_as_asking():
    store, key = MemoryStore(10_000), key_of(block(1))
    store.write([write(block(1))])
    assert store.peek(key) == block(1)
    assert not store._asked.when(key)
    store.read([key])
    assert store._asked.when(key)


def test_only_what_is_held_can_be_damaged():
    with pytest.raises(MisuseError, match="expected a key that is held"):
        MemoryStore(10_000).damage(key_of(block(1)))
