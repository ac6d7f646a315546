"""The survey: a slow walk through the whole keyspace, asking who is there.

One question after the other goes to whoever we know nearest to the next point, or to one nearly as
near that is connected; what it answers is hearsay (heard.py), and so is enough to begin a lookup
close to its target. One round takes a bounded number of questions however large the network; rounds
follow each other ever more slowly. No I/O.
"""

from xorbit.config import CONTACTS_MAX, SURVEY_GROWTH, SURVEY_NEAR, SURVEY_QUESTIONS_MAX
from xorbit.core import links
from xorbit.core.state import Answer, NoAnswer, State, Work
from xorbit.ids import ID_BITS, Id, as_id, as_number, distance
from xorbit.items import Contact
from xorbit.wire.message import Closest, FindClosest

_STEP_MIN = (1 << ID_BITS) // SURVEY_QUESTIONS_MAX


def begin(state: State) -> None:
    """Survey the keyspace from now on, unless that is so already."""
    if ("survey", None) not in state.timers:
        _later(state)


def go_on(state: State) -> None:
    """Ask for the next point."""
    _later(state)
    if state.stopping or not state.link_of:
        return
    if state.survey.point is None:
        state.survey.known = len(state.table) + len(state.heard)
    point = state.survey.point = state.survey.point or state.own
    near = (*state.table.closest(point, SURVEY_NEAR), *state.heard.closest(point, SURVEY_NEAR))
    nearest = sorted(near, key=lambda contact: distance(contact.id, point))[:SURVEY_NEAR]
    if nearest:
        connected = (contact for contact in nearest if contact.id in state.link_of)
        state.start_work(SurveyWork(state, next(connected, nearest[0]), point))


def _later(state: State) -> None:
    survey = state.survey
    survey.wait_s = max(survey.wait_s, state.limits.survey_s_min)
    state.timers.set(("survey", None), state.now + state.jittered(survey.wait_s))


def _move_on(state: State, done: Id, seen: tuple[Contact, ...] = ()) -> None:
    """Go to the first point beyond those that we were told of; after a whole round, slow down.

    Not where the round has found many more: a network that grows is surveyed again as fast.
    """
    survey = state.survey
    # Whoever is near a point knows all k around it; of those farther off only some.
    whole = seen[: state.limits.closest_count]
    beyond = max((as_number(contact.id) for contact in whole), default=0) + 1
    point = max(beyond, as_number(done) + _STEP_MIN)
    if point >> ID_BITS:
        point -= 1 << ID_BITS
        point %= _STEP_MIN
        known = len(state.table) + len(state.heard)
        if known < SURVEY_GROWTH * survey.known:
            survey.wait_s = min(survey.wait_s * 2, state.limits.survey_s_max)
        else:
            survey.wait_s = state.limits.survey_s_min
        survey.known = known
    survey.point = as_id(point)


class SurveyWork(Work):
    """One question."""

    __slots__ = ("_point", "_to")

    def __init__(self, state: State, to: Contact, point: Id) -> None:
        """Ask `to` for whom it knows around `point`."""
        super().__init__(state.new_guid(), state.now + 2 * state.limits.request_timeout_s_max)
        self._to = to
        self._point = point

    def start(self, state: State) -> None:
        """Ask."""
        links.request(state, self._to, FindClosest(self._point, CONTACTS_MAX), self, greets=False)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Note how far we have come; the contacts themselves were noted on their way here."""
        contacts = answer.response.contacts if isinstance(answer.response, Closest) else ()
        self._end(state, contacts)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Ask another for the same point, next time."""
        state.end_work(self)

    def on_deadline(self, state: State) -> None:
        """Leave this point out."""
        self._end(state)

    def _end(self, state: State, contacts: tuple[Contact, ...] = ()) -> None:
        state.end_work(self)
        if state.survey.point == self._point:
            _move_on(state, self._point, contacts)
