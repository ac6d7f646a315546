"""Who stays connected, and which connection gives way where there are too many.

Anybody can open connections to us, under as many ids as they like. So strangers, who dialled us
and whom nobody has proved to be there, go first, and those whom we want, our neighbours and
fingers, never go for them: else a crowd of strangers could cut us out of the network. No I/O.
"""

from xorbit.core import fingers, links
from xorbit.core.scope import subnet_of
from xorbit.core.state import Link, State
from xorbit.ids import Id
from xorbit.items import Contact


def wanted_contacts(state: State) -> dict[Id, Contact]:
    """Return who stays connected: our nearest neighbours and our fingers, up to a limit."""
    limits, table = state.limits, state.table
    if state.wanted_at == table.changes:
        return state.wanted
    wanted = {
        contact.id: contact for contact in table.closest(state.own, limits.neighbours_connected)
    }
    for index in reversed(fingers.useful(state)):
        contact = table.finger(index)
        if contact is not None and len(wanted) < limits.kept_connections_max:
            wanted[contact.id] = contact
    state.wanted, state.wanted_at = wanted, table.changes
    return wanted


def make_room(state: State, newcomer: Link) -> None:
    """Close one connection if the newcomer is one too many, in all or of its public subnet."""
    limits = state.limits
    subnet = None if newcomer.dialled else subnet_of(newcomer.address.host)
    if len(state.links) > limits.connections_max:
        held = [link for link in state.links.values() if not link.closing]
        if len(held) > limits.connections_max:
            _close_one(state, held, newcomer)
            return
    if subnet is not None and state.crowds.get(subnet, 0) > limits.subnet_connections_max:
        held = [link for link in state.links.values() if not link.closing]
        near = [link for link in held if subnet_of(link.address.host) == subnet]
        if len(near) > limits.subnet_connections_max:
            _close_one(state, near, newcomer)


def _close_one(state: State, held: list[Link], newcomer: Link) -> None:
    """Close who has been unused for longest, strangers first; the newcomer where none can go.

    A newcomer that we dialled ourselves even takes the place of a stranger that is being served
    (strangers who all keep us busy could else shut us in), or of an idle one that we want.
    """
    others = [link for link in held if link is not newcomer]
    strangers = [link for link in others if _is_stranger(state, link)]
    idle = [link for link in others if not _is_busy(link)]
    leaving = [link for link in strangers if not _is_busy(link)]
    if not leaving:
        wanted = wanted_contacts(state)
        leaving = [link for link in idle if link.peer not in wanted]
    if not leaving and newcomer.dialled:
        leaving = strangers or idle
    unused = min(leaving, key=lambda link: link.used_at, default=newcomer)
    links.close(state, unused, "too many connections")


def _is_stranger(state: State, link: Link) -> bool:
    return not link.dialled and link.peer not in state.table


def _is_busy(link: Link) -> bool:
    return bool(link.out_workers or link.in_workers)
