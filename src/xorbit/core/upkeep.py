"""Upkeep: when a node looks after the items that it holds, and its owner's pins.

Neighbours that come and go make the items that this concerns due after a few seconds; all items are
due every `sweep_interval_s`. The looking after itself is a sweep (sweep.py), one at a time. Nothing
here runs in the first seconds of a node, and all intervals are jittered: a network that starts
again as a whole does not do everything at once. No I/O, no clock.
"""

from collections.abc import Iterable

from xorbit.core import dials
from xorbit.core.state import Link, State
from xorbit.core.sweep import Sweep, SweepWork
from xorbit.ids import Id, distance


def note_lost(state: State, link: Link | None) -> None:
    """Note that a connection broke; if to a neighbour, see soon whether it is still there."""
    if link is None or link.closing or state.upkeep.near is None:
        return
    # As the table is now: whoever goes soon after it came was not there in the last round.
    near = state.table.closest(state.own, state.limits.neighbours_max)
    if all(contact.id != link.peer for contact in near):
        return
    if len(state.upkeep.lost) < state.limits.concerned_max:
        state.upkeep.lost[link.peer] = None
        state.hurry(("maintenance", None), state.limits.lost_look_s)


def note_stored(state: State, point: Id) -> None:
    """Look soon at an item that a peer has stored with us though others are to keep it.

    That peer took one of those for gone; we may never notice that it is back.
    """
    limits = state.limits
    keepers = limits.replicas + limits.surplus_holders_max
    known = state.table.closest(point, keepers)
    if len(known) == keepers and distance(point, known[-1].id) < distance(point, state.own):
        _note_changed(state, [known[0].id], limits.hand_off_delay_s)


def look_after(state: State) -> None:
    """See who of our neighbours came or went, and have what this concerns looked after soon."""
    if state.stopping:
        return
    upkeep, limits = state.upkeep, state.limits
    _dial_the_lost(state)
    near = {contact.id: None for contact in state.table.closest(state.own, limits.neighbours_max)}
    if upkeep.near is None:
        upkeep.settled_at = state.now + state.jittered(limits.sweep_settle_s)
        upkeep.full_at = state.now + limits.sweep_interval_s * state.rng.random()
    before = upkeep.near or {}
    upkeep.near = near
    went = [peer for peer in before if peer not in near and not _is_usable(state, peer)]
    came = [peer for peer in near if peer not in before]
    if came:
        _note_changed(state, came, limits.newcomer_delay_s)
    if went:
        _note_changed(state, went, limits.hand_off_delay_s)
    _arm(state)


def _note_changed(state: State, peers: Iterable[Id], wait_s: float) -> None:
    """Have a sweep look after the items near these nodes; near very many, after all items."""
    upkeep = state.upkeep
    upkeep.changed.update(dict.fromkeys(peers))
    due = state.now + state.jittered(wait_s)
    if len(upkeep.changed) > state.limits.concerned_max:
        upkeep.changed, upkeep.changed_at = {}, None
        upkeep.full_at = min(upkeep.full_at, due)
    elif upkeep.changed_at is None or due < upkeep.changed_at:
        upkeep.changed_at = due


def sweep(state: State) -> None:
    """Start the sweep that is due, unless one is under way or we are leaving."""
    upkeep = state.upkeep
    if upkeep.sweep is not None or state.stopping:
        return
    if upkeep.full_at <= state.now:
        upkeep.full_at = state.now + state.jittered(state.limits.sweep_interval_s)
        upkeep.changed, upkeep.left = {}, {}
        upkeep.changed_at = upkeep.left_at = upkeep.due_at = None
        _start(state, Sweep(None, insist=True))
    elif _is_due(state, upkeep.changed_at):
        changed, upkeep.changed, upkeep.changed_at = upkeep.changed, {}, None
        _start(state, Sweep(changed, insist=False))
    elif _is_due(state, upkeep.left_at):
        left, upkeep.left, upkeep.left_at = upkeep.left, {}, None
        _start(state, Sweep(left, insist=True))
    elif _is_due(state, upkeep.due_at):
        upkeep.due_at = None
        _start(state, Sweep(None, insist=True, due_only=True))
    else:
        _arm(state)


def _is_due(state: State, when: float | None) -> bool:
    return when is not None and when <= state.now


def _start(state: State, what: Sweep) -> None:
    work = SweepWork(state, what, _ended)
    state.upkeep.sweep = work.guid
    state.start_work(work)


def _ended(state: State, done: SweepWork) -> None:
    """Name the next sweep; what was left to nearer holders, or taken by nobody, asks for one."""
    upkeep, limits = state.upkeep, state.limits
    upkeep.sweep = None
    concerned = done.sweep.concerned
    if concerned is not None and done.cut:
        _note_changed(state, concerned, limits.work_timeout_s)
    elif concerned is not None and done.left_to_nearer is not None:
        upkeep.left.update(concerned)
        wait_s = limits.hand_off_stagger_s * (1 + done.left_to_nearer)
        upkeep.left_at = state.now + state.jittered(wait_s)
        if len(upkeep.left) > limits.concerned_max:
            upkeep.full_at = min(upkeep.full_at, upkeep.left_at)
            upkeep.left, upkeep.left_at = {}, None
    _come_back_for_far_copies(state, done)
    if done.due_left:
        wait_s = max(2 * upkeep.due_wait_s, limits.send_again_s_min)
        upkeep.due_wait_s = min(wait_s, limits.sweep_interval_s)
        upkeep.due_at = state.now + state.jittered(upkeep.due_wait_s)
    elif upkeep.due_at is None:
        upkeep.due_wait_s = 0.0
    _arm(state)


def _come_back_for_far_copies(state: State, done: SweepWork) -> None:
    """Copies that are not ours to keep, and had to stay yet, are looked at again ever later."""
    upkeep, limits, concerned = state.upkeep, state.limits, done.sweep.concerned
    if concerned is None or done.cut:
        return
    if done.far_left:
        wait_s = max(2 * upkeep.far_wait_s, limits.hand_off_delay_s)
        upkeep.far_wait_s = min(wait_s, limits.sweep_interval_s)
        _note_changed(state, concerned, upkeep.far_wait_s)
    else:
        upkeep.far_wait_s = 0.0


def _arm(state: State) -> None:
    upkeep = state.upkeep
    due = [upkeep.full_at, upkeep.changed_at, upkeep.left_at, upkeep.due_at]
    earliest = min(when for when in due if when is not None)
    state.timers.set(("sweep", None), max(earliest, upkeep.settled_at))


def _dial_the_lost(state: State) -> None:
    """Dial neighbours that we lost: that fails if they are gone, and then they count as failing."""
    lost, state.upkeep.lost = state.upkeep.lost, {}
    for peer in lost:
        entry = state.table.get(peer)
        if entry is not None and peer not in state.link_of:
            dials.dial(state, entry.contact.addresses, peer)


def _is_usable(state: State, peer: Id) -> bool:
    entry = state.table.get(peer)
    return entry is not None and not entry.failures
