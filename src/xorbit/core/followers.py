"""Followers elsewhere: peers that we tell of newer versions of a record, for a lease.

A follower is bounded by its lease, by its connection, by one limit for each peer and one over all.
What is told goes out under the guid of the Follow that asked for it. Versions of one record that
come faster than followers are to be told wait: the newest of them is told, the others never. No
I/O.
"""

from xorbit.core.effect import Send
from xorbit.core.leases import Lease
from xorbit.core.state import Link, State, Telling
from xorbit.ids import Guid, Id
from xorbit.items import Item, Record, record_key, version
from xorbit.wire.message import Envelope, Following, Refused, Updated


def accept(
    state: State, record: Id, connection: Guid, exchange: Guid, held: Item | None
) -> Following | Refused:
    """Take a follower in (or prolong its lease); return what to answer."""
    link, limits = state.links[connection], state.limits
    if (record, link.peer) not in state.leases and (no := _refusal(state, link)):
        return no
    told = version(held) if held is not None else None
    work = link.in_workers[exchange].work
    lease = Lease(connection, exchange, work, state.now + limits.lease_s, told)
    state.leases.grant(record, link.peer, lease)
    return Following(limits.lease_s, held if isinstance(held, Record) else None)


def _refusal(state: State, link: Link) -> Refused | None:
    leases, limits = state.leases, state.limits
    leases.drop_ended(state.now)
    if len(leases) >= limits.followers_max:
        return Refused("busy", "this node has as many followers as it may")
    if leases.count_of(link.peer) >= limits.followers_per_peer_max:
        return Refused("busy", "you follow as many records here as one peer may")
    return None


def tell(state: State, item: Item) -> None:
    """Push a record that has been stored here to its followers, those that have an older one."""
    if not isinstance(item, Record):
        return
    record = record_key_id(item)
    telling = state.telling.get(record)
    if telling is None:
        _push(state, record, item)
    else:
        waiting = [each for each in (telling.newest, item) if each is not None]
        telling.newest = max(waiting, key=version)


def tell_waiting(state: State) -> None:
    """Push what has waited long enough."""
    while state.telling:
        record, telling = next(iter(state.telling.items()))
        if telling.due > state.now:
            state.timers.set(("push", None), telling.due)
            return
        del state.telling[record]
        if telling.newest is not None:
            _push(state, record, telling.newest)


def record_key_id(record: Record) -> Id:
    """Return the id under which a record stands."""
    return record_key(record.public_key, record.salt).id


def _push(state: State, record: Id, item: Record) -> None:
    newest, told = version(item), False
    for lease in state.leases.of_record(record):
        lives = not state.links[lease.connection].closing and lease.until > state.now
        if lives and (lease.told is None or lease.told < newest):
            told, lease.told = True, newest
            update = Envelope(lease.exchange, lease.work, Updated(item))
            state.emit(Send(lease.connection, update))
    if told:
        state.telling[record] = Telling(state.now + state.limits.push_interval_s)
        if ("push", None) not in state.timers:
            state.timers.set(("push", None), state.now + state.limits.push_interval_s)
