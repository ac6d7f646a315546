"""Our own addresses: believed when independent peers agree, and never dialled."""

import pytest

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import addresses
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.state import Dialling
from xorbit.ids import Guid, id_of
from xorbit.items import Address, Contact, make_block
from xorbit.wire.message import FindClosest, Ping, Pong, Store

QUIET = Limits(maintenance_interval_s=1e6)
SEEN = Address("203.0.113.77", 50_000)


def node_at(world: World, *listening: str) -> Node:
    node = world.node(limits=QUIET)
    node.push(jobs.Listening(tuple(Address(host, 4000) for host in listening)), "self")
    world.run(0.01)
    return node


def told_by(node: Node, host: str, observed: Address, number: int = 0) -> None:
    """Let a peer, whom we dialled at this host, say where it sees us."""
    peer = id_of(f"{host} {number}".encode())
    link, dial = Guid(peer[:16]), Guid(peer[16:])
    node.machine.state.dials[dial] = Dialling(dial, (), None, greets=True)
    node.step(jobs.ConnectionOpened(link, peer, Address(host, 4000), dial))
    (ping,) = [
        effect.envelope
        for effect in node.log[-1][2]
        if isinstance(effect, fx.Send) and isinstance(effect.envelope.body, Ping)
    ]
    node.step(jobs.HandleResponse(link, ping.guid, ping.work, Pong(observed)))


def own(node: Node) -> list[str]:
    return [address.host for address in node.machine.state.own_addresses]


def test_one_peer_alone_cannot_tell_us_a_public_address() -> None:
    node = node_at(World(), "0.0.0.0")
    told_by(node, "198.51.100.1", SEEN)
    told_by(node, "198.51.100.2", SEEN)  # of the same subnet: no second opinion
    assert own(node) == []
    told_by(node, "192.0.2.1", SEEN)
    assert own(node) == [SEEN.host]
    assert node.machine.status().addresses == (Address(SEEN.host, 4000),)


@pytest.mark.parametrize(
    ("listening", "peer", "observed", "believed"),
    [
        ("0.0.0.0", "10.0.0.9", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.9", "10.0.0.1", True),
        ("127.0.0.1", "10.0.0.9", "10.0.0.1", False),
        ("0.0.0.0", "198.51.100.9", "10.0.0.1", False),
        ("203.0.113.77", "198.51.100.9", "203.0.113.77", True),
        ("203.0.113.70", "198.51.100.9", "203.0.113.77", False),
        ("0.0.0.0", "198.51.100.9", "0.0.0.0", False),
    ],
)
def test_one_peer_is_enough_in_the_scope_of_what_we_listen_on(
    listening: str, peer: str, observed: str, believed: bool
) -> None:
    node = node_at(World(), listening)
    told_by(node, peer, Address(observed, 50_000))
    assert bool(own(node)) is believed


def test_ids_in_our_own_scope_cannot_agree_on_a_public_address() -> None:
    """They cost nothing, and a false public address would hide the true one (`whereis`)."""
    node = node_at(World(), "10.0.0.1")
    for host in ("10.0.0.8", "10.0.0.9", "127.0.0.1", "198.51.100.1"):
        told_by(node, host, SEEN)
    assert own(node) == []


def test_ids_elsewhere_cannot_agree_on_an_address_of_our_own_scope() -> None:
    node = node_at(World(), "127.0.0.1")
    for host in ("198.51.100.1", "192.0.2.1", "10.0.0.9"):
        told_by(node, host, Address("10.0.0.1", 50_000))
    assert own(node) == []


def test_what_others_say_of_us_hides_no_address_at_which_somebody_has_dialled_us() -> None:
    node = node_at(World(), "0.0.0.0", "10.0.0.1")
    state = node.machine.state
    for host in ("198.51.100.1", "192.0.2.1"):
        told_by(node, host, SEEN)
    assert [a.host for a in addresses.published_addresses(state)] == [SEEN.host]
    node.step(jobs.ConnectionOpened(Guid(b"i" * 16), id_of(b"in"), Address("10.0.0.7", 50_000)))
    assert [a.host for a in addresses.published_addresses(state)] == ["10.0.0.1", SEEN.host]
    node.step(jobs.ConnectionOpened(Guid(b"o" * 16), id_of(b"out"), Address("192.0.2.7", 50_000)))
    assert [a.host for a in addresses.published_addresses(state)] == [SEEN.host]


@pytest.mark.parametrize("host", ["evil.example", "2001:db8::1%eth0", "2001:db8::1%" + "z" * 200])
def test_what_is_no_plain_literal_is_no_place_at_which_anybody_sees_us(host: str) -> None:
    node = node_at(World(), "0.0.0.0", "::")
    for peer in ("198.51.100.1", "192.0.2.1"):
        told_by(node, peer, Address(host, 1))
    assert own(node) == []


def test_an_old_address_is_dropped_when_nobody_sees_us_there_any_more() -> None:
    node = node_at(World(), "0.0.0.0")
    for host in ("198.51.100.1", "192.0.2.1"):
        told_by(node, host, SEEN)
    for link in list(node.machine.state.links):
        node.step(jobs.ConnectionLost(link))
    assert own(node) == [SEEN.host]
    moved = Address("203.0.113.78", 50_000)
    for host in ("198.51.100.1", "192.0.2.1"):
        told_by(node, host, moved, 1)
    assert own(node) == [moved.host]


def test_own_addresses_are_bounded() -> None:
    node = node_at(World(), "0.0.0.0")
    for number in range(addresses.ADDRESSES_TOLD_MAX + 3):
        told_by(node, f"10.0.0.{number + 1}", Address(f"10.9.9.{number + 1}", 50_000))
    assert len(own(node)) == addresses.ADDRESSES_TOLD_MAX


def test_what_is_told_follows_the_scope_of_who_is_told() -> None:
    node = node_at(World(), "127.0.0.1", "10.0.0.1", "203.0.113.7", "0.0.0.0")
    state = node.machine.state

    def told(host: str) -> list[str]:
        return [address.host for address in addresses.told_addresses(state, host)]

    assert told("198.51.100.1") == ["0.0.0.0", "203.0.113.7"]
    assert told("10.0.0.9") == ["0.0.0.0", "10.0.0.1", "203.0.113.7"]
    assert told("127.0.0.1") == ["0.0.0.0", "127.0.0.1", "10.0.0.1", "203.0.113.7"]
    assert [a.host for a in addresses.published_addresses(state)] == ["203.0.113.7"]


@pytest.mark.parametrize(
    ("listening", "dialled", "ours"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.9.9.9", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("::", "::1", True),
        ("::", "127.0.0.1", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", False),
    ],
)
def test_we_know_ourselves_in_any_form(listening: str, dialled: str, ours: bool) -> None:
    node = node_at(World(), listening)
    assert addresses.is_ours(node.machine.state, Address(dialled, 4000)) is ours
    assert not addresses.is_ours(node.machine.state, Address(dialled, 4001))


def test_an_address_at_which_we_answered_ourselves_is_never_dialled_again() -> None:
    world = World()
    node = world.node()
    assert node.address is not None
    alias = world.free_address()
    world.by_address[alias] = node
    outcome = world.outcome(node, node.bootstrap(alias))
    assert isinstance(outcome, fx.Failed)
    assert outcome.tried == ((alias, "it is ourselves"),)
    assert alias in node.machine.state.own_forms
    assert alias not in node.machine.state.knowns
    world.outcome(node, node.ask(Contact(id_of(b"x"), (alias,)), FindClosest(node.id)))
    world.run(60.0)
    dials = [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]
    assert len(dials) == 1


def test_the_forms_of_ourselves_that_we_remember_are_bounded() -> None:
    node = World().node()
    ours = tuple(Address("10.7.7.7", port) for port in range(1, addresses.OWN_FORMS_MAX + 9))
    node.step(jobs.DialFailed(Guid(bytes(16)), (), ours=ours))
    assert len(node.machine.state.own_forms) == addresses.OWN_FORMS_MAX
    assert ours[-1] in node.machine.state.own_forms


def test_a_peer_cannot_have_us_dial_into_our_own_network() -> None:
    """Neither by what it says of itself, nor by whom it names as further takers of a store."""
    node = node_at(World(), "0.0.0.0")
    link, peer = Guid(bytes(16)), id_of(b"outsider")
    node.step(jobs.ConnectionOpened(link, peer, Address("198.51.100.1", 50_000)))
    inside = (Address("10.0.0.1", 22), Address("127.0.0.1", 22), Address("169.254.169.254", 80))
    guid = Guid(b"p" * 16)
    effects = node.step(jobs.HandleRequest(link, guid, guid, Ping(inside)))
    assert not [effect for effect in effects if isinstance(effect, fx.Dial)]
    also = (Contact(id_of(b"victim"), inside),)
    guid = Guid(b"s" * 16)
    node.step(jobs.HandleRequest(link, guid, guid, Store(make_block(b"x"), also=also)))
    node.world.run(5.0)
    assert not [e for _, _, effects in node.log for e in effects if isinstance(e, fx.Dial)]
