"""Who is no longer welcome in a managed network: its operator's list, as this node last had it.

A revoked node still holds a certificate, so it gets through the handshake and is turned away right
after; nothing that it asks is answered, and it is no contact. Where the list comes from, and that
the operator signed it, is seen to elsewhere (run/revoked.py). No I/O.
"""

from xorbit.core import dials, links
from xorbit.core.effect import Close
from xorbit.core.job import ConnectionOpened, DialFailed, Revoked
from xorbit.core.state import Link, State

REASON = "the network's operator has revoked this node"
REVOKED_THERE = "revoked: the network's operator has turned out the node at this address"


def handle_revoked(state: State, job: Revoked) -> None:
    """Take the whole list in: end what leads to those on it, and forget them as contacts."""
    had_been = state.own in state.revoked
    state.revoked = frozenset(job.ids)
    if state.own in state.revoked and not had_been:
        state.warn("revoked", links.OWN_REVOKED)
    for peer in job.ids:
        if peer != state.own:
            state.table.forget(peer)
            state.heard.forget(peer)
            dials.forget_possible(state, peer)
    for link in [link for link in state.links.values() if _is_unwelcome(state, link)]:
        _leave_alone(state, link)
        links.close(state, link, REASON)


def turn_away(state: State, job: ConnectionOpened) -> bool:
    """Close a new connection of a revoked node; return whether it was one.

    To whoever waited for it that is a failed dial to somebody else than expected.
    """
    if job.peer not in state.revoked or job.peer == state.own:
        return False
    link = Link(job.connection, job.peer, job.address, False, state.now, state.now, state.now)
    link.closing = True
    state.links[link.guid] = link
    state.emit(Close(link.guid, REASON))
    if job.dial is not None:
        _leave_alone(state, link)
        links.handle_dial_failed(
            state, DialFailed(job.dial, ((job.address, REVOKED_THERE),), impostor=True)
        )
    return True


def _leave_alone(state: State, link: Link) -> None:
    """Say who is turned away, and do not dial that address again to find a way in."""
    state.knowns.pop(link.address, None)
    state.tell("revoked", f"the node at {link.address} ({link.peer.hex()}) is turned away")


def _is_unwelcome(state: State, link: Link) -> bool:
    return link.peer in state.revoked and not link.closing
