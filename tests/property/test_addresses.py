"""No address that a peer can name, in any message that can be decoded, makes a step raise."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.addresses import published_addresses
from xorbit.core.state import Dialling
from xorbit.errors import WireError
from xorbit.ids import Guid, id_of
from xorbit.items import Address, Contact, make_connection_item
from xorbit.wire import message as m

QUIET = Limits(maintenance_interval_s=1e6)
PEERS = ("198.51.100.1", "192.0.2.1", "10.0.0.9", "127.0.0.1")

literals = st.one_of(st.ip_addresses().map(str), st.sampled_from(["::", "0.0.0.0", "fe80::1"]))
zones = st.text(max_size=250)
hosts = st.one_of(
    literals,
    st.builds("{}%{}".format, st.just("2001:db8::1"), zones),
    st.text(min_size=1, max_size=253),
    st.sampled_from(["evil.example", "::ffff:10.0.0.1%x", "2002:a00:1::1", "\U0001f600" * 253]),
)
raw_addresses = st.tuples(hosts, st.integers(1, 65_535)).map(list)
raw_lists = st.lists(raw_addresses, max_size=4)


def decoded(body: list[Any]) -> Any:
    """Return a message as a peer's bytes would bring it, None where they would be refused."""
    try:
        return m.decode(msgspec.msgpack.encode([bytes(16), bytes(16), body])).body
    except WireError:
        return None


def meet(node: Node, host: str) -> Guid:
    """Let a peer be connected, whom we dialled; it owes us an answer to our Ping."""
    peer = id_of(host.encode())
    link, dial = Guid(peer[:16]), Guid(peer[16:])
    node.machine.state.dials[dial] = Dialling(dial, (), None)
    node.step(jobs.ConnectionOpened(link, peer, Address(host, 4_000), dial))
    return link


@given(raw_addresses, raw_lists)
def test_no_address_of_a_peer_makes_a_step_raise_or_cannot_be_signed(
    observed: list[Any], told: list[Any]
) -> None:
    world = World()
    node = world.node(limits=QUIET)
    node.push(jobs.Listening((Address("0.0.0.0", 4_000), Address("::", 4_000))), "self")
    world.run(0.01)
    ping, pong = decoded([1, told, 0]), decoded([33, observed, told])
    closest = decoded([35, [[bytes(range(32)), told]]])
    for host in PEERS:
        link = meet(node, host)
        for exchange, worker in list(node.machine.state.links[link].out_workers.items()):
            if pong is not None:
                node.step(jobs.HandleResponse(link, exchange, worker.work, pong))
        if ping is not None:
            node.step(jobs.HandleRequest(link, Guid(b"p" * 16), Guid(b"p" * 16), ping))
        asked = jobs.SendRequest(Guid(link), Contact(id_of(host.encode())), m.FindClosest(node.id))
        node.step(asked)
        for exchange, worker in list(node.machine.state.links[link].out_workers.items()):
            if closest is not None:
                node.step(jobs.HandleResponse(link, exchange, worker.work, closest))
    node.step(jobs.Bootstrap(Guid(b"b" * 16)))
    world.run(30.0)
    make_connection_item(node.key, 1, published_addresses(node.machine.state))
