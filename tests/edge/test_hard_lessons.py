"""The hard lessons of other networks (HOUSE.md) that only real TLS can show.

The others are in tests/sim/test_hard_lessons.py.
"""

from tests.edge.nodes import House
from xorbit.core import effect as fx
from xorbit.identity import open_network
from xorbit.ids import id_of
from xorbit.items import Address, Contact
from xorbit.store.memory import MemoryStore


async def test_networks_merged_by_a_stray_contact():
    """The network's identity is part of the handshake; saved contacts belong to one network."""
    async with House() as house:
        here = await house.node(network=open_network("one"))
        there = await house.node(network=open_network("another"))
        failed = await here.join(there.address)
        assert isinstance(failed, fx.Failed)
        assert "another network" in dict(failed.tried)[there.address]
        for node in (here, there):
            assert not node.driver.machine.state.links
            assert not node.driver.machine.state.table.contacts()
    store = MemoryStore(1_000)
    store.save_contacts(b"one", [Contact(id_of(b"a"), (Address("10.0.0.1", 1),))])
    assert store.load_contacts(b"another") == ()
