"""The survey: a slow walk through the keyspace, after which everybody has been heard of."""

from itertools import pairwise

import pytest

from tests.world import Node, World
from xorbit.config import CONTACTS_MAX, SURVEY_NEAR, SURVEY_QUESTIONS_MAX, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import survey
from xorbit.ids import ID_BITS, Id, as_id, as_number, id_of
from xorbit.items import Address, Contact
from xorbit.wire.message import Closest, Envelope, FindClosest, Ping, Refused

CALM = Limits(
    survey_s_min=1.0,
    maintenance_interval_s=1e6,
    look_around_s_min=1e6,
    look_around_s_max=1e6,
    finger_check_s_min=1e6,
    finger_check_s_max=1e6,
    interval_jitter=1e-9,
    survey_s_max=8.0,
)
"""No upkeep but the survey."""
STEP = (1 << ID_BITS) // SURVEY_QUESTIONS_MAX


def questions(node: Node) -> list[FindClosest]:
    bodies = [envelope.body for envelope in node.sent(FindClosest)]
    return [body for body in bodies if isinstance(body, FindClosest) and body.count]


def points(node: Node) -> list[int]:
    return [as_number(body.target) for body in questions(node)]


def asked_at(node: Node) -> list[float]:
    return [
        now
        for now, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Send)
        and isinstance(effect.envelope.body, FindClosest)
        and effect.envelope.body.count
    ]


def surveyor(world: World, limits: Limits = CALM) -> tuple[Node, Node]:
    """A node that surveys the keyspace, and the only other, which says what a test has it say."""
    one, other = world.node(own=Id(bytes(32)), limits=limits), world.node(limits=CALM)
    other.listen()
    world.outcome(one, one.connect(other))
    world.run(0.2)
    survey.begin(one.machine.state)
    one.step(jobs.Tick())
    return one, other


def answering(node: Node, *named: Contact) -> None:
    def tamper(envelope: Envelope) -> Envelope:
        if isinstance(envelope.body, Closest):
            return Envelope(envelope.guid, envelope.work, Closest(named))
        return envelope

    node.tamper = tamper


def contact_at(number: int) -> Contact:
    return Contact(as_id(number), (Address("10.7.7.7", 7),))


def nameless_at(number: int) -> Contact:
    """Somebody at a name: nobody is dialled there, so it is no hearsay."""
    return Contact(as_id(number), (Address("somewhere.example", 7),))


# --- What comes of it -----------------------------------------------------------------------------


def test_in_the_end_everybody_has_been_heard_of_though_nobody_looks_around() -> None:
    world = World()
    limits = CALM.replace(closest_count=5, lookup_parallel=1)
    nodes = world.network(48, limits)
    world.run(400.0)
    for node in nodes:
        state = node.machine.state
        missing = [
            other
            for other in nodes
            if other is not node and other.id not in state.table and other.id not in state.heard
        ]
        assert not missing


def test_a_small_network_at_rest_is_asked_one_question_a_round() -> None:
    world = World()
    nodes = world.network(3, CALM)
    world.run(100.0)
    before = len(questions(nodes[1]))
    world.run(80.0)
    assert 8 <= len(questions(nodes[1])) - before <= 11  # who is told of all has come round


# --- The walk -------------------------------------------------------------------------------------


def test_it_begins_at_ourselves_and_asks_for_as_many_as_an_answer_holds() -> None:
    world = World()
    one, _ = surveyor(world)
    world.run(1.5)
    assert questions(one) == [FindClosest(one.id, CONTACTS_MAX)]


def test_it_goes_on_behind_the_last_that_it_was_told_of() -> None:
    world = World()
    one, other = surveyor(world)
    far = 100 * STEP
    answering(other, nameless_at(2 * STEP), nameless_at(far))
    world.run(2.5)
    assert points(one) == [0, far + 1]
    world.run(1.0)
    assert points(one)[2] == far + 1 + STEP  # nobody new: at least one step


def test_one_round_takes_a_bounded_number_of_questions_and_the_next_is_slower() -> None:
    world = World()
    one, other = surveyor(world)
    answering(other)
    world.run(SURVEY_QUESTIONS_MAX * (1.0 + 2.0 + 4.0 + 8.0 + 8.0))
    times, walked = asked_at(one), points(one)
    rounds = [0]
    rounds += [at for at, (before, after) in enumerate(pairwise(walked), 1) if after < before]
    assert rounds == [SURVEY_QUESTIONS_MAX * number for number in range(5)]
    waits = [times[first + 2] - times[first + 1] for first in rounds]
    assert waits == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0])


def test_a_network_that_has_grown_is_surveyed_again_as_fast() -> None:
    world = World()
    one, other = surveyor(world)
    answering(other)
    state = one.machine.state
    world.run(SURVEY_QUESTIONS_MAX * 1.0 + 2.0)
    assert state.survey.wait_s == 2.0
    for _ in range(3):
        another = world.node(limits=CALM)
        another.listen()
        answering(another)
        world.outcome(one, one.connect(another))
    world.run(SURVEY_QUESTIONS_MAX * 2.0)
    assert state.survey.wait_s == 1.0
    world.run(SURVEY_QUESTIONS_MAX * 1.0)
    assert state.survey.wait_s == 2.0


def test_rounds_do_not_ask_for_the_same_points_again() -> None:
    """Else what lies between them would never be asked for."""
    world = World()
    one, other = surveyor(world)
    answering(other, nameless_at((1 << ID_BITS) - STEP // 3))
    world.run(4.5)
    assert len(set(points(one))) == len(points(one)) >= 3


def test_the_nearest_of_all_that_are_known_or_heard_of_is_asked() -> None:
    world = World()
    one, other = surveyor(world)
    third = world.node(own=as_id(50 * STEP + 4), limits=CALM)
    third.listen()
    answering(other, *(contact_at(50 * STEP + step) for step in range(4)), third.contact)
    world.run(2.5)
    assert points(one) == [0, 50 * STEP + 5]
    assert len(questions(one)) == 2
    asked = [job for _, job, _ in third.log if isinstance(job, jobs.HandleRequest)]
    assert FindClosest(as_id(50 * STEP + 5), CONTACTS_MAX) in [job.request for job in asked]
    assert not third.sent(Ping)


def test_of_the_few_nearest_one_that_is_connected_is_asked() -> None:
    world = World()
    one, other = surveyor(world)
    answering(other, *(contact_at(50 * STEP + step) for step in range(SURVEY_NEAR - 1)))
    world.run(2.5)
    assert len(questions(one)) == 2
    assert not [e for _, _, effects in one.log for e in effects if isinstance(e, fx.Dial)][1:]


# --- What goes wrong ------------------------------------------------------------------------------


def test_who_was_only_heard_of_and_does_not_answer_is_forgotten_and_another_is_asked() -> None:
    world = World()
    one, other = surveyor(world)
    answering(other, *(contact_at(50 * STEP + step) for step in range(SURVEY_NEAR)))
    world.run(3.5)
    point = as_id(50 * STEP + SURVEY_NEAR)
    dials = [e.expected for _, _, effects in one.log for e in effects if isinstance(e, fx.Dial)]
    assert as_id(50 * STEP + SURVEY_NEAR - 1) in dials  # in vain, at the second question
    assert points(one) == [0, as_number(point)]
    assert one.machine.state.survey.point != point


def test_who_refuses_costs_that_point_only() -> None:
    world = World()
    one, other = surveyor(world)

    def tamper(envelope: Envelope) -> Envelope:
        if isinstance(envelope.body, Closest):
            return Envelope(envelope.guid, envelope.work, Refused("busy"))
        return envelope

    other.tamper = tamper
    world.run(2.5)
    assert points(one) == [0, STEP]


def test_an_answer_that_comes_after_the_next_question_moves_the_walk_once() -> None:
    world = World()
    one, other = surveyor(world, CALM.replace(request_timeout_s_min=3.0))
    answering(other)
    other.lag_s = 1.5
    world.run(2.2)
    assert points(one) == [0, 0]
    world.run(1.5)
    assert points(one) == [0, 0, STEP]


def test_a_point_that_nobody_answers_for_in_time_is_left_out() -> None:
    world = World()
    one, _ = surveyor(world)
    state = one.machine.state
    world.run(0.5)
    stray = Contact(id_of(b"nobody"), (world.free_address(),))
    world.black_holes[stray.addresses[0]] = None
    state.survey.point = one.id
    work = survey.SurveyWork(state, stray, one.id)
    work.deadline = world.now + 0.1
    state.start_work(work)
    one.step(jobs.Tick())
    world.run(0.3)
    assert work.guid not in state.works
    assert state.survey.point == as_id(STEP)


def test_without_a_connection_or_anybody_known_nobody_is_asked() -> None:
    world = World()
    one, other = surveyor(world)
    other.kill()
    world.run(5.0)
    assert not questions(one)
    client = world.node(listen=False, limits=CALM)
    world.outcome(client, client.connect(one))
    for node in (one, client):
        node.machine.state.table.forget(client.id)
        node.machine.state.table.forget(one.id)
        node.machine.state.table.forget(other.id)
    survey.go_on(client.machine.state)
    client.step(jobs.Tick())
    works = client.machine.state.works.values()
    assert not [work for work in works if isinstance(work, survey.SurveyWork)]


def test_a_node_that_stops_surveys_no_longer_and_does_not_wait_for_an_answer() -> None:
    world = World()
    one, other = surveyor(world)
    other.mute = True
    world.run(1.2)
    assert one.machine.state.works
    one.push(jobs.Shutdown())
    world.run(0.1)
    assert one.stopped
    asked = len(questions(one))
    survey.go_on(one.machine.state)
    one.step(jobs.Tick())
    assert len(questions(one)) == asked


def test_whoever_begins_twice_asks_no_more_often() -> None:
    world = World()
    one, other = surveyor(world)
    answering(other)
    world.run(0.5)
    survey.begin(one.machine.state)
    world.run(2.0)
    assert len(questions(one)) == 2
