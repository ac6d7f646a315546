"""Our own addresses: what we listen on, and where peers that do not depend on each other see us.

One liar must not be able to send others to a wrong place in our name, and we never dial ourselves
in any form. No I/O.
"""

from functools import lru_cache
from ipaddress import ip_address

from xorbit.config import (
    ADDRESS_VOTES_NEEDED,
    ADDRESSES_TOLD_MAX,
    HOSTS_REMEMBERED,
    OWN_FORMS_MAX,
)
from xorbit.core.scope import Scope, in_scope, is_unspecified, scope_of, subnet_of
from xorbit.core.state import Link, State
from xorbit.items import Address, is_literal


def dialable_addresses(state: State) -> tuple[Address, ...]:
    """Return where others may dial us: what we listen on, and how others have seen us."""
    told = dict.fromkeys(address for address in state.listening if not is_unspecified(address))
    told.update(dict.fromkeys(reversed(state.own_addresses)))
    return tuple(told)[:ADDRESSES_TOLD_MAX]


def told_addresses(state: State, peer_host: str) -> tuple[Address, ...]:
    """Return what a Ping tells a peer: an unspecified host stands for "where you see me"."""
    everywhere = [address for address in state.listening if is_unspecified(address)]
    ours = in_scope(dialable_addresses(state), peer_host)
    return tuple(dict.fromkeys((*everywhere, *ours)))[:ADDRESSES_TOLD_MAX]


def published_addresses(state: State) -> tuple[Address, ...]:
    """Return what our connection item tells the whole network: the widest scope that we have.

    Where nobody of that scope has ever dialled us, also the widest in which somebody has: what
    others only say of us must not hide where we can be found.
    """
    ours = dialable_addresses(state)
    scopes = sorted({scope_of(address.host) for address in ours})
    proved = [scope for scope in scopes if scope in state.dialled_from]
    told = {*scopes[:1], *proved[:1]}
    return tuple(address for address in ours if scope_of(address.host) in told)


def note_dialled(state: State, link: Link) -> None:
    """Remember from how far somebody has dialled us: it could only do so where we really are."""
    state.dialled_from[scope_of(link.address.host)] = None


def seen_at(link: Link, told: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return a peer's addresses in our scope, the unspecified ones put where we see it."""
    host = link.address.host
    seen = (Address(host, address.port) if is_unspecified(address) else address for address in told)
    return in_scope(tuple(dict.fromkeys(seen)), host)[:ADDRESSES_TOLD_MAX]


def is_ours(state: State, address: Address) -> bool:
    """Return whether dialling this address would lead back to us, as far as we know for sure.

    What peers say to be our address does not count: a liar could name all others that we know. We
    find out by dialling it once (`note_own_forms`).
    """
    if address in state.own_forms:
        return True
    for listening in state.listening:  # noqa: SIM110 - asked for every contact that is named
        if _is_same(address, listening):
            return True
    return False


def _is_same(address: Address, listening: Address) -> bool:
    if address.port != listening.port:
        return False
    if address.host == listening.host:
        return True
    anywhere, everywhere = is_unspecified(address), is_unspecified(listening)
    if not (anywhere or everywhere):
        return False
    here = anywhere or scope_of(address.host) is Scope.LOOPBACK
    there = everywhere or scope_of(listening.host) is Scope.LOOPBACK
    return here and there and _version(address) == _version(listening)


def _version(address: Address) -> int:
    return _version_of(address.host)


@lru_cache(maxsize=HOSTS_REMEMBERED)
def _version_of(host: str) -> int:
    return ip_address(host).version


def note_own_forms(state: State, addresses: tuple[Address, ...]) -> None:
    """Remember addresses at which we ourselves answered."""
    for address in addresses:
        state.knowns.pop(address, None)
        state.own_forms[address] = None
    while len(state.own_forms) > OWN_FORMS_MAX:
        del state.own_forms[next(iter(state.own_forms))]


def note_observed(state: State, peer_link: Link, observed: Address | None) -> None:
    """Take in how a peer sees us: its host counts, with the port that we listen on.

    It becomes our own address at once where it is in the scope of an address that we listen on;
    a public one when enough peers that do not depend on each other agree. A name is no place at
    which anybody could see us, and a zone means something to the peer's own host only.
    """
    if observed is None or not state.listening or not _is_plain_literal(observed):
        return
    own = Address(observed.host, state.listening[0].port)
    peer_link.observed = own
    scope = scope_of(own.host)
    if scope is Scope.NOWHERE or not (_is_near(state, peer_link, own) or _is_agreed(state, own)):
        return
    state.own_addresses.pop(own, None)
    state.own_addresses[own] = None
    _drop_outdated(state, own)
    while len(state.own_addresses) > ADDRESSES_TOLD_MAX:
        del state.own_addresses[next(iter(state.own_addresses))]


def _is_plain_literal(address: Address) -> bool:
    return is_literal(address) and "%" not in address.host


def _is_near(state: State, link: Link, own: Address) -> bool:
    """Return whether we listen where a peer of the same scope says that it sees us."""
    scope = scope_of(own.host)
    if scope is Scope.PUBLIC:
        return any(own.host == address.host for address in state.listening)
    return scope_of(link.address.host) is scope and any(
        is_unspecified(address) or scope_of(address.host) is scope for address in state.listening
    )


def _voters(state: State, own: Address) -> int:
    """Return how many independent peers see us there now: those of one subnet count once.

    Of a public address only peers at public ones can tell: ids in a scope of our own cost nothing.
    """
    public = scope_of(own.host) is Scope.PUBLIC
    seen_from = (link for link in state.links.values() if link.observed == own)
    subnets = ((subnet_of(link.address.host), link.peer) for link in seen_from)
    return len({subnet or peer: None for subnet, peer in subnets if subnet or not public})


def _is_agreed(state: State, own: Address) -> bool:
    public = scope_of(own.host) is Scope.PUBLIC
    return public and _voters(state, own) >= ADDRESS_VOTES_NEEDED


def _drop_outdated(state: State, own: Address) -> None:
    """Forget where we were: addresses of the same kind at which nobody sees us any more."""
    kind = scope_of(own.host), _version(own)
    for address in list(state.own_addresses):
        same_kind = (scope_of(address.host), _version(address)) == kind
        if address != own and same_kind and not _voters(state, address):
            del state.own_addresses[address]
