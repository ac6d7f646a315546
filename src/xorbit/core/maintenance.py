"""Connection maintenance: connections match the routing table.

No connection at all: dial the knowns. Our nearest neighbours and each bucket's finger stay
connected, up to a limit; the rest come and go by use. Neighbours only heard of are dialled,
possibles are dialled back with growing waits, contacts unheard of for long are asked whether they
are there, and the table is saved for our next life. No I/O.
"""

from math import inf

from xorbit.config import DIALS_PER_ROUND_MAX, PROOFS_PER_ROUND_MAX
from xorbit.core import announce, dials, discovery, links
from xorbit.core.addresses import is_ours
from xorbit.core.discovery import PingWork
from xorbit.core.effect import SaveContacts
from xorbit.core.room import wanted_contacts
from xorbit.core.state import Link, State
from xorbit.ids import Id, distance
from xorbit.items import Contact, is_literal


def maintain(state: State) -> None:
    """Do one round."""
    if state.stopping:
        return
    state.counters.mark(state.now)
    discovery.stay_joined(state)
    wanted = wanted_contacts(state)
    _ask_the_wanted(state, wanted)
    _close_unused(state, wanted)
    if state.link_of:
        dials = _dial_missing(state, wanted)
        dials += _dial_neighbours(state, min(DIALS_PER_ROUND_MAX - dials, PROOFS_PER_ROUND_MAX))
        _dial_back(state, DIALS_PER_ROUND_MAX - dials)
        _ask_silent(state)
        _try_a_known(state)
        announce.keep_up(state)
    if state.now >= state.save_due or len(state.table) >= 2 * max(1, len(state.saved)):
        save(state)  # a young table soon again: a node may be killed before its time to save comes


def save(state: State) -> None:
    """Have the contacts saved, where they have changed; an empty table is nothing to remember."""
    state.save_due = state.now + state.limits.save_contacts_s
    contacts = tuple(state.table.closest(state.own, state.limits.contacts_max))
    if contacts and contacts != state.saved:
        state.saved = contacts
        state.emit(SaveContacts(contacts))


def restore(state: State, contacts: tuple[Contact, ...]) -> None:
    """Take the contacts of an earlier life as knowns and possibles: each must be proved anew."""
    state.saved = contacts
    for contact in reversed(contacts):
        for address in contact.addresses[:1]:
            discovery.note_known(state, address)
    for contact in contacts[: state.limits.possibles_max - len(state.possibles)]:
        if contact.id != state.own and contact.id not in state.table:
            state.possibles[contact.id] = contact
    state.save_due = state.now + state.limits.save_contacts_s


def _ask_the_wanted(state: State, wanted: dict[Id, Contact]) -> None:
    """Ping who is to stay connected and has been silent: neighbours sooner than fingers."""
    limits = state.limits
    for number, peer in enumerate(wanted):
        connection = state.link_of.get(peer)
        link = state.links[connection] if connection else None
        near = number < limits.neighbours_connected
        silent_s = limits.ping_interval_s if near else limits.finger_ping_interval_s
        if link and not _is_busy(link) and link.heard_at <= state.now - silent_s:
            state.start_work(PingWork(state, Contact(peer)))


def _close_unused(state: State, wanted: dict[Id, Contact]) -> None:
    """Now and then close what nobody has used for long."""
    if state.now < state.unused_due:
        return
    limits = state.limits
    state.unused_due = state.now + state.jittered(limits.ping_interval_s)
    since = state.now - limits.idle_connection_s
    for link in list(state.links.values()):
        if link.used_at > since or link.closing or _is_busy(link):
            continue
        if link.peer not in wanted or state.link_of.get(link.peer) != link.guid:
            links.close(state, link, "unused")


def _is_busy(link: Link) -> bool:
    return bool(link.out_workers or link.waiting or link.in_workers)


def _dial_missing(state: State, wanted: dict[Id, Contact]) -> int:
    missing = [
        contact
        for contact in wanted.values()
        if contact.id not in state.link_of and contact.id not in state.dial_of
    ]
    return sum(_dial(state, contact) for contact in missing[:DIALS_PER_ROUND_MAX])


def _dial_neighbours(state: State, count: int) -> int:
    """Have those prove themselves who are only heard of though near: no neighbour may be missing.

    Who keeps which item follows from the table (regions.py).
    """
    if count <= 0:
        return 0
    reach = _reach(state)
    near = [
        contact
        for contact in state.heard.closest(state.own, count + len(state.dial_of))
        if contact.id not in state.dial_of and distance(state.own, contact.id) < reach
    ]
    for contact in near[:count]:
        if not _dial(state, contact):
            state.heard.forget(contact.id)
    return len(near[:count])


def _reach(state: State) -> float:
    """Return how far the k closest contacts are; everywhere while there are fewer."""
    known = state.table.closest(state.own, state.limits.closest_count)
    full = len(known) == state.limits.closest_count
    return distance(state.own, known[-1].id) if full else inf


def _dial_back(state: State, count: int) -> None:
    """See whether possibles can be dialled by others too.

    Neighbours, and who is gone again, soon; others that are connected to us now and then.
    """
    due: list[Contact] = []
    reach = _reach(state)
    for peer, contact in state.possibles.items():
        back = state.dial_backs.get(peer)
        if peer in state.dial_of or (back is not None and back.due > state.now):
            continue
        if peer in state.link_of and distance(state.own, peer) >= reach:
            if state.now < state.dial_back_due:
                continue
            state.dial_back_due = state.now + state.jittered(state.limits.dial_back_connected_s)
        due.append(contact)
        if len(due) >= count:
            break
    for contact in due:
        if contact.id in state.table or not _dial(state, contact):
            dials.forget_possible(state, contact.id)


def _try_a_known(state: State) -> None:
    """Now and then dial an address that once was good: where a network fell apart, its other part.

    Both parts may be well by themselves; only what is remembered leads across.
    """
    if state.now < state.known_due:
        return
    state.known_due = state.now + state.jittered(state.limits.known_retry_s)
    connected = {link.address for link in state.links.values()}
    for contact in state.table.contacts():
        connected.update(contact.addresses)
    for address in list(state.knowns):
        if address not in connected and not is_ours(state, address):
            discovery.note_known(state, address)  # the next time it is another's turn
            dials.dial(state, (address,), None)
            return


def _ask_silent(state: State) -> None:
    """Ask some contacts whether they are there: who failed, and who is unheard of for longest."""
    limits = state.limits
    share = limits.maintenance_interval_s / 60
    count = max(1, round(limits.liveness_pings_per_minute_max * share))
    silent_s, retry_s = limits.contact_silent_s, limits.contact_retry_s
    for contact in state.table.to_test(state.now, silent_s, retry_s, count):
        state.table.tested(contact.id, state.now)
        state.start_work(PingWork(state, contact))


def _dial(state: State, contact: Contact) -> bool:
    addresses = tuple(
        address
        for address in contact.addresses
        if is_literal(address) and not is_ours(state, address)
    )
    if addresses:
        dials.dial(state, addresses, contact.id)
    return bool(addresses)
