"""Fingers: for each useful point `own ^ 2**i` the contact nearest to it, kept true by FindNext.

The routing table finds the finger of any point at once; what it cannot know is whether the network
has a nearer node. So one point after the other is asked for, and our own neighbour ("nearest but
not equal"); who comes back is dialled, and enters the table by that proof only. No I/O.
"""

from xorbit.config import FINGER_ROUNDS_SLOWER
from xorbit.core import dials, links
from xorbit.core.addresses import is_ours
from xorbit.core.state import Answer, DialEnded, Link, NoAnswer, State, Work
from xorbit.core.status import FingerStatus
from xorbit.ids import ID_BITS, Id, bucket_index, distance, finger_point
from xorbit.items import Contact, is_literal
from xorbit.wire.message import FindNext, Next


def useful(state: State) -> range:
    """Return the indices of the points worth a finger: from our nearest neighbour's bucket up.

    All points below have the same finger: that neighbour.
    """
    nearest = state.table.closest(state.own, 1)
    first = bucket_index(state.own, nearest[0].id) if nearest else ID_BITS
    return range(first, ID_BITS)


def statuses(state: State) -> list[FingerStatus]:
    """Return the useful fingers, the nearest point first."""
    found = [(index, state.table.finger(index)) for index in useful(state)]
    return [
        FingerStatus(
            index=index,
            point=finger_point(state.own, index),
            contact=contact,
            connected=contact.id in state.link_of,
        )
        for index, contact in found
        if contact is not None
    ]


def begin(state: State) -> None:
    """Check the fingers from now on, unless that is so already."""
    if ("finger", None) not in state.timers:
        _check_later(state)


def check_next(state: State) -> None:
    """Check the finger whose turn it is; rounds follow each other ever more slowly."""
    checks = state.fingers
    indices = useful(state)
    if checks.turn > len(indices):
        checks.turn = 0
        checks.wait_s = min(checks.wait_s * FINGER_ROUNDS_SLOWER, state.limits.finger_check_s_max)
    _check_later(state)
    if state.stopping:
        return
    if checks.turn == 0:
        _check(state, state.own, not_equal=True)
    else:
        _check(state, finger_point(state.own, indices[-checks.turn]))
    checks.turn += 1


def note_lost(state: State, link: Link | None) -> None:
    """Check soon and often again: a neighbour or finger is gone, unless we let them go."""
    if link is None or link.closing or link.peer in state.link_of:
        return
    if ("finger", None) in state.timers and _is_kept(state, link.peer):
        state.fingers.wait_s = state.limits.finger_check_s_min
        _check_later(state)


def _is_kept(state: State, peer: Id) -> bool:
    """Return whether a contact is one of our nearest neighbours, or the finger of its bucket."""
    entry = state.table.get(peer)
    if entry is None:
        return False
    near = state.table.closest(state.own, state.limits.neighbours_connected)
    return entry.contact in (*near, state.table.finger(bucket_index(state.own, peer)))


def _check_later(state: State) -> None:
    checks = state.fingers
    checks.wait_s = max(checks.wait_s, state.limits.finger_check_s_min)
    state.timers.set(("finger", None), state.now + state.jittered(checks.wait_s))


def _check(state: State, point: Id, *, not_equal: bool = False) -> None:
    nearest = state.table.closest(point, 1)
    if nearest and state.link_of:
        state.start_work(FingerWork(state, nearest[0], FindNext(point, not_equal=not_equal)))


class FingerWork(Work):
    """One check: ask the finger itself for somebody nearer to the point, and dial who that is."""

    __slots__ = ("_finger", "_question")

    def __init__(self, state: State, finger: Contact, question: FindNext) -> None:
        """Ask `finger`, the nearest to the point that we know."""
        super().__init__(state.new_guid(), state.now + 2 * state.limits.request_timeout_s_max)
        self._finger = finger
        self._question = question

    def start(self, state: State) -> None:
        """Ask."""
        links.request(state, self._finger, self._question, self)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Have somebody nearer prove itself; what is no nearer changes nothing."""
        if isinstance(answer.response, Next) and self._is_news(state, answer.response.contact):
            contact = answer.response.contact
            addresses = tuple(
                address
                for address in contact.addresses
                if is_literal(address) and not is_ours(state, address)
            )
            if addresses:
                dials.dial(state, addresses, contact.id, self.guid)
                return
        state.end_work(self)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """The connection has noted it; the next round asks again."""
        state.end_work(self)

    def on_dial_ended(self, state: State, ended: DialEnded) -> None:
        """In the table, or not: either way it is settled."""
        state.end_work(self)

    def on_deadline(self, state: State) -> None:
        """The branch was late: it ends here."""
        state.end_work(self)

    def _is_news(self, state: State, found: Contact) -> bool:
        point = self._question.target
        if found.id == state.own or found.id in state.table:
            return False
        if state.stopping or (self._question.not_equal and found.id == point):
            return False
        return distance(found.id, point) < distance(self._finger.id, point)
