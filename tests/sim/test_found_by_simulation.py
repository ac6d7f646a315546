"""Bugs that the simulation found, each with its seed: as it was the story ends badly, now well.

What was wrong is put back by a patch, so that each seed shows that it still meets the bug.
"""

import pytest

from tests.sim.test_seeded_faults import PARTED, told, wrong
from xorbit.core import links, maintenance, records
from xorbit.core.job import HandleResponse
from xorbit.core.state import State
from xorbit.wire.message import Updated

OVERTAKEN = """
about = "Messages overtake each other while many follow what is published all the time."
nodes = 12
[[phases]]
name = "joining"
seconds = 30
join = 1.0
[[phases]]
name = "publishing"
seconds = 5
publishes = 16
[[phases]]
name = "bad weather"
seconds = 40
overtake = 0.4
follows = 60
publishes = 200
"""

AMONG_CLIENTS = """
about = "Most are clients, and everybody reads records."
nodes = 16
[[phases]]
name = "joining"
seconds = 30
join = 1.0
natted = 0.6
[[phases]]
name = "publishing"
seconds = 20
calm = true
publishes = 24
[[phases]]
name = "reading"
seconds = 30
calm = true
publishes = 24
gets = 200
"""


def test_networks_that_were_parted_for_long_meet_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part was well by itself and had forgotten the other: nobody dialled across."""
    assert wrong(told(PARTED)) == ""
    monkeypatch.setattr(maintenance, "_try_a_known", lambda _: None)
    assert "does not find who is closest" in wrong(told(PARTED))


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
    assert "took an honest one for a liar" in wrong(told(OVERTAKEN))


def test_records_are_read_and_mended_where_most_are_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients nearer to a record than its holders took all places in its reading."""
    assert wrong(told(AMONG_CLIENTS)) == ""
    monkeypatch.setattr(records, "seeds", lambda *_: ())
    assert wrong(told(AMONG_CLIENTS)) != ""
