"""Followers elsewhere: peers that we tell of newer versions of a record, for a lease.

A follower is bounded by its lease, by its connection and by one limit over all. What is told goes
out under the guid of the Follow that asked for it. No I/O.
"""

from xorbit.core.effect import Send
from xorbit.core.state import Follower, State
from xorbit.ids import Guid, Id
from xorbit.items import Item, Record, record_key, version
from xorbit.wire.message import Envelope, Following, Refused, Updated


def accept(
    state: State, record: Id, connection: Guid, exchange: Guid, held: Item | None
) -> Following | Refused:
    """Take a follower in (or prolong its lease); return what to answer."""
    followers = state.followers.setdefault(record, {})
    if connection not in followers and _count(state) >= state.limits.followers_max:
        _forget_ended(state)
        if _count(state) >= state.limits.followers_max:
            return Refused("busy", "this node has as many followers as it may")
    link = state.links[connection]
    told = version(held) if held is not None else None
    until = state.now + state.limits.lease_s
    work = link.in_workers[exchange].work
    state.followers.setdefault(record, {})[connection] = Follower(exchange, work, until, told)
    return Following(state.limits.lease_s, held if isinstance(held, Record) else None)


def tell(state: State, item: Item) -> None:
    """Push a record that has been stored here to its followers, those that have an older one."""
    if not isinstance(item, Record):
        return
    newest = version(item)
    for connection, follower in state.followers.get(record_key_id(item), {}).items():
        link = state.links.get(connection)
        lives = link is not None and not link.closing and follower.until > state.now
        if lives and (follower.told is None or follower.told < newest):
            follower.told = newest
            state.emit(Send(connection, Envelope(follower.exchange, follower.work, Updated(item))))


def record_key_id(record: Record) -> Id:
    """Return the id under which a record stands."""
    return record_key(record.public_key, record.salt).id


def _count(state: State) -> int:
    return sum(map(len, state.followers.values()))


def _forget_ended(state: State) -> None:
    """Let go of those whose lease or connection has ended."""
    for record, followers in list(state.followers.items()):
        kept = {
            connection: follower
            for connection, follower in followers.items()
            if follower.until > state.now and connection in state.links
        }
        if kept:
            state.followers[record] = kept
        else:
            del state.followers[record]
