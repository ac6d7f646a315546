"""Dials: connections that are being opened, and those that wait until others are.

Bounded: so many at once, so many that wait. Who could not be dialled back is tried again, ever
later. What an open connection carries is the business of links.py. No I/O.
"""

from xorbit.core.effect import Dial
from xorbit.core.job import DialFailed
from xorbit.core.state import DialBack, DialEnded, Dialling, State
from xorbit.ids import Guid, Id
from xorbit.items import Address

TOO_MANY_DIALS = "not dialled: too many others wait to be"


def dial(
    state: State,
    addresses: tuple[Address, ...],
    expected: Id | None,
    work: Guid | None = None,
    *,
    greets: bool = True,
) -> Dialling | None:
    """Open a connection, or join the dial to that id that is under way; tell `work` how it ends.

    None when too many dials wait already.
    """
    under_way = None if expected is None else state.dial_of.get(expected)
    if under_way is not None:
        dialling = state.dials[under_way]
    elif len(state.dials_waiting) < state.limits.dials_waiting_max:
        dialling = _new_dial(state, addresses, expected)
    else:
        dialling = None
    if dialling is not None:
        dialling.greets |= greets
    if work is not None and dialling is not None:
        dialling.works.append(work)
    elif work is not None:
        tried = tuple((address, TOO_MANY_DIALS) for address in addresses)
        failure = DialFailed(state.new_guid(), tried)
        state.deliveries.append(DialEnded(work, None, failure))
    return dialling


def _new_dial(state: State, addresses: tuple[Address, ...], expected: Id | None) -> Dialling:
    dialling = Dialling(state.new_guid(), addresses, expected)
    state.dials[dialling.guid] = dialling
    if expected is not None:
        state.dial_of[expected] = dialling.guid
    if len(state.dials) - len(state.dials_waiting) <= state.limits.dials_max:
        state.emit(Dial(dialling.guid, addresses, expected))
    else:
        state.dials_waiting.append(dialling.guid)
    return dialling


def end(state: State, guid: Guid) -> Dialling | None:
    """Take a dial out that has ended, and begin the next that somebody still wants."""
    dialling = _drop(state, guid)
    if dialling is None:
        return None
    while state.dials_waiting:
        following = state.dials[state.dials_waiting.popleft()]
        if _is_wanted(state, following):
            state.emit(Dial(following.guid, following.addresses, following.expected))
            break
        _drop(state, following.guid)
    return dialling


def _drop(state: State, guid: Guid) -> Dialling | None:
    dialling = state.dials.pop(guid, None)
    if dialling is not None and dialling.expected is not None:
        state.dial_of.pop(dialling.expected, None)
    return dialling


def _is_wanted(state: State, dialling: Dialling) -> bool:
    """Return whether a work still waits for this dial; one for no work is wanted for itself."""
    works = [*dialling.works, *(worker.work for worker in dialling.waiting)]
    return not works or any(work in state.works for work in works)


def note_unreachable(state: State, peer: Id, *, impostor: bool) -> None:
    """Count a dial in vain against a contact; an `impostor` answered where it should have been."""
    state.heard.forget(peer)
    if impostor:
        state.table.forget(peer)
    else:
        state.table.failed(peer)
    if peer in state.possibles:
        _try_back_later(state, peer)


def _try_back_later(state: State, peer: Id) -> None:
    """Dial a possible again after a wait that grows; give up in the end unless it is connected.

    An impostor's as well: who names the address of another node would else have us dial that one
    at each Ping.
    """
    limits = state.limits
    back = state.dial_backs.setdefault(peer, DialBack())
    wait = max(limits.dial_back_s_min, back.wait_s * 2)
    back.wait_s = min(wait, limits.dial_back_s_max)
    back.due = state.now + state.jittered(back.wait_s)
    back.tries += 1
    if back.tries >= limits.dial_back_tries_max and peer not in state.link_of:
        forget_possible(state, peer)


def forget_possible(state: State, peer: Id) -> None:
    """Nobody need be dialled back any more: this one has been, is a liar, or has to make room."""
    state.possibles.pop(peer, None)
    state.dial_backs.pop(peer, None)
