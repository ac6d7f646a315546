"""Scopes and subnets: how far an address reaches, and who stands close together.

Private, loopback and link-local addresses mean something in their own scope only: who is told of
one elsewhere would dial a stranger. Pure, and knows no state.
"""

from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from xorbit.items import Address, Contact
from xorbit.wire.message import Closest, Found, Next, Response


class Scope(IntEnum):
    """How far an address reaches, the widest first."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3
    NOWHERE = 4
    """Nobody can be dialled there: unspecified, multicast, broadcast."""


# RFC 1918, RFC 6598 (the far side of a carrier's NAT) and RFC 4193. Not `is_private` of the
# standard library, which also means addresses for documentation and benchmarks.
_PRIVATE_4 = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_PRIVATE_6 = ip_network("fc00::/7")
_BROADCAST = IPv4Address("255.255.255.255")


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


@lru_cache(maxsize=4_096)
def scope_of(host: str) -> Scope:
    """Return how far a host reaches; a name, which only our user can give, counts as public."""
    ip = _ip(host)
    if ip is None:
        return Scope.PUBLIC
    if ip.is_loopback:
        return Scope.LOOPBACK
    if ip.is_unspecified or ip.is_multicast or ip == _BROADCAST:
        return Scope.NOWHERE
    if ip.is_link_local:
        return Scope.LINK_LOCAL
    if isinstance(ip, IPv6Address):
        return Scope.PRIVATE if ip in _PRIVATE_6 else Scope.PUBLIC
    return Scope.PRIVATE if any(ip in net for net in _PRIVATE_4) else Scope.PUBLIC


@lru_cache(maxsize=4_096)
def subnet_of(host: str) -> str | None:
    """Return the IPv4 /24 or IPv6 /48 of a public host, None for any other.

    Whoever has one address of a subnet can easily have them all.
    """
    ip = _ip(host)
    if ip is None or scope_of(host) is not Scope.PUBLIC:
        return None
    return (
        str(ip_network((int(ip), 24 if ip.version == 4 else 48), strict=False)) + f" {ip.version}"
    )


def is_unspecified(address: Address) -> bool:
    """Return whether an address means "every interface" (0.0.0.0 or ::)."""
    ip = _ip(address.host)
    return ip is not None and ip.is_unspecified


def may_meet(peer_host: str, host: str) -> bool:
    """Return whether a peer seen at `peer_host` and a node at `host` can be in one scope.

    What is public is for all. A peer on our own machine is also on its networks, and one on our
    link is also in our private network; the other way round nothing is known.
    """
    scope = scope_of(host)
    if scope is Scope.PUBLIC:
        return True
    return scope is not Scope.NOWHERE and scope_of(peer_host) >= scope


def within_scope(response: Response, peer_host: str) -> Response:
    """Return an answer with only those addresses that mean something to both ends.

    Applied to what we send and to what we hear. A contact that is left without an address is left
    out of lists; the answer to a FindNext keeps it.
    """
    match response:
        case Closest(contacts):
            kept = contacts_in_scope(contacts, peer_host)
            return response if kept == contacts else Closest(kept)
        case Found(item, contacts) if contacts:
            kept = contacts_in_scope(contacts, peer_host)
            return response if kept == contacts else Found(item, kept)
        case Next(contact, hops):
            return Next(Contact(contact.id, in_scope(contact.addresses, peer_host)), hops)
        case _:
            return response


def contacts_in_scope(contacts: tuple[Contact, ...], peer_host: str) -> tuple[Contact, ...]:
    """Return contacts with those of their addresses that a peer can be in one scope with."""
    kept = ((contact, in_scope(contact.addresses, peer_host)) for contact in contacts)
    return tuple(
        contact if addresses == contact.addresses else Contact(contact.id, addresses)
        for contact, addresses in kept
        if addresses
    )


def in_scope(addresses: tuple[Address, ...], peer_host: str) -> tuple[Address, ...]:
    """Return those of the addresses that a peer can be in one scope with."""
    return tuple(address for address in addresses if may_meet(peer_host, address.host))
