"""Bugs that the simulation found, each with its seeds: as it was the story ends badly, now well.

What was wrong is put back by a patch, so that the seeds show that they still meet the bug.
"""

import pytest

from tests.sim.stories import AMONG_CLIENTS, OVERTAKEN, PARTED, is_caught, told, wrong
from xorbit.core import discovery, links, maintenance
from xorbit.core.job import HandleResponse
from xorbit.core.state import State
from xorbit.sim.run import simulate
from xorbit.sim.scenario import load
from xorbit.wire.message import Updated


def test_networks_that_were_parted_for_long_meet_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part was well by itself and had forgotten the other: nobody dialled across."""
    assert wrong(told(PARTED)) == ""
    monkeypatch.setattr(maintenance, "_try_a_known", lambda _: None)
    monkeypatch.setattr(discovery, "_note_anchor", lambda *_: None)
    assert is_caught(PARTED, "does not find who is closest")


def test_a_push_that_overtakes_the_answer_to_its_follow_is_no_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record was pushed before the follower had heard that it follows: "another question"."""
    assert wrong(told(OVERTAKEN)) == ""
    handle = links.handle_response

    def as_it_was(state: State, job: HandleResponse) -> None:
        link = state.links.get(job.connection)
        if link and job.guid in link.out_workers and isinstance(job.response, Updated):
            links.distrust(state, link.peer, links.ANOTHER_QUESTION)
        handle(state, job)

    monkeypatch.setattr(links, "handle_response", as_it_was)
    assert is_caught(OVERTAKEN, "took an honest one for a liar")


def test_records_are_read_and_mended_where_most_are_clients() -> None:
    """Clients nearer to a record than its holders took all places in its reading."""
    assert wrong(told(AMONG_CLIENTS)) == ""


def test_who_cannot_be_dialled_is_none_of_the_holders() -> None:
    """A node behind a NAT counted itself: its items had a copy less than the receipts said."""
    assert simulate(load("natted").of_nodes(16), 1).faults == ()
