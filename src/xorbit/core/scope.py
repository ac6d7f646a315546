"""Scopes and subnets: how far an address reaches, and who stands close together.

Private, loopback and link-local addresses mean something in their own scope only: who is told of
one elsewhere would dial a stranger. Pure, and knows no state.
"""

from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from xorbit.config import HOSTS_REMEMBERED
from xorbit.items import Address, Contact
from xorbit.wire.message import Closest, Found, Next, Response


class Scope(IntEnum):
    """How far an address reaches, the widest first."""

    PUBLIC = 0
    PRIVATE = 1
    LINK_LOCAL = 2
    LOOPBACK = 3
    NOWHERE = 4
    """Nobody can be dialled there: unspecified, multicast, reserved, broadcast."""


# RFC 1918 and RFC 6598 (the far side of a carrier's NAT); RFC 4193, site-local before it (RFC 3879)
# and RFC 8215 (translation for a network's own use). Not `is_private` of the standard library,
# which also means addresses for documentation and benchmarks.
_PRIVATE_4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
_PRIVATE_6 = ("fc00::/7", "fec0::/10", "64:ff9b:1::/48")
_PRIVATE = tuple(map(ip_network, (*_PRIVATE_4, *_PRIVATE_6)))
# "This network" (RFC 791) and what is reserved for no use that we know (RFC 1112), with broadcast.
_NOWHERE_4 = tuple(map(ip_network, ("0.0.0.0/8", "240.0.0.0/4")))
# Whose last 32 bits are an IPv4 address: mapped and compatible (RFC 4291), translated (RFC 2765,
# RFC 6052).
_EMBEDDING = tuple(map(ip_network, ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """Return what a literal stands for: an IPv4 address in any IPv6 clothes is that address."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, IPv4Address) or ip.is_loopback or ip.is_unspecified:
        return ip
    if any(ip in net for net in _EMBEDDING):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip.teredo is not None:
        return ip.teredo[1]
    return ip.sixtofour or ip


@lru_cache(maxsize=HOSTS_REMEMBERED)
def scope_of(host: str) -> Scope:
    """Return how far a host reaches; a name, which only our user can give, counts as public."""
    ip = _ip(host)
    if ip is None:
        return Scope.PUBLIC
    if ip.is_loopback:
        return Scope.LOOPBACK
    if ip.is_unspecified or ip.is_multicast or any(ip in net for net in _NOWHERE_4):
        return Scope.NOWHERE
    if ip.is_link_local:
        return Scope.LINK_LOCAL
    return Scope.PRIVATE if any(ip in net for net in _PRIVATE) else Scope.PUBLIC


@lru_cache(maxsize=HOSTS_REMEMBERED)
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
    return _is_unspecified(address.host)


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _is_unspecified(host: str) -> bool:
    ip = _ip(host)
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
    reach = scope_of(peer_host)
    if _all_within(contacts, reach):
        return contacts  # as good as always
    kept = ((contact, in_scope(contact.addresses, peer_host)) for contact in contacts)
    return tuple(
        contact if addresses == contact.addresses else Contact(contact.id, addresses)
        for contact, addresses in kept
        if addresses
    )


_public: set[str] = set()
"""Hosts that have been seen to be public, which nearly all are: to look whether others are takes
several times as long. Nothing is chosen from it."""
_NO_ADDRESS = (Address("0.0.0.0", 1),)  # noqa: S104 - nobody listens there, it is nowhere


def _all_within(contacts: tuple[Contact, ...], reach: Scope) -> bool:
    if reach is Scope.NOWHERE:
        return False
    hosts = [address.host for contact in contacts for address in contact.addresses or _NO_ADDRESS]
    if _public.issuperset(hosts):
        return True
    scopes = [scope_of(host) for host in hosts]
    if len(_public) > HOSTS_REMEMBERED:
        _public.clear()
    _public.update(host for host, scope in zip(hosts, scopes, strict=True) if scope is Scope.PUBLIC)
    return max(scopes) <= reach


def in_scope(addresses: tuple[Address, ...], peer_host: str) -> tuple[Address, ...]:
    """Return those of the addresses that a peer can be in one scope with."""
    return tuple(address for address in addresses if may_meet(peer_host, address.host))
