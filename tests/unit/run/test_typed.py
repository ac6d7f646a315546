"""Answers on their way from the machine to who typed the line."""

import asyncio
from collections.abc import Hashable

import pytest

from xorbit.config import Limits
from xorbit.core import job as jobs
from xorbit.core.effect import Print
from xorbit.core.queue import JobQueue
from xorbit.errors import MisuseError, StoppedError, WorldError
from xorbit.ids import Guid
from xorbit.run.typed import Answers, Consoles, figures

SESSION = Guid(b"s" * 16)
LIMITS = Limits(console_texts_max=3)


class FakeBody:
    """Takes every job and gives always the same guid."""

    def __init__(self) -> None:
        self.jobs: list[jobs.Job] = []

    async def room(self, line: Hashable) -> None:
        pass

    def post(self, job: jobs.Job, line: Hashable = None, size: int = 0) -> None:
        self.jobs.append(job)

    def new_guid(self) -> Guid:
        return SESSION


def a_console() -> tuple[Consoles, FakeBody, list[str]]:
    body, shown = FakeBody(), list[str]()
    return Consoles(body, JobQueue(LIMITS), LIMITS, shown.append), body, shown


async def begun(consoles: Consoles, text: str = "follow x") -> "asyncio.Task[list[str]]":
    """Return a task that collects the answers to a line, when the line is on its way."""

    async def collect() -> list[str]:
        return [answer async for answer in consoles.typed(text, "line")]

    task = asyncio.create_task(collect())
    await asyncio.sleep(0)
    return task


async def test_of_too_many_answers_the_oldest_give_way_and_their_number_is_told() -> None:
    """A console that does not read costs the node a bounded number of texts."""
    consoles, _, _ = a_console()
    task = await begun(consoles)
    for number in range(10):
        consoles.print(Print(f"answer {number}", SESSION, last=number == 9))
    assert await task == ["(7 answers were too many to show)\nanswer 7", "answer 8", "answer 9"]


async def test_the_loss_is_told_once_and_the_end_is_never_lost() -> None:
    answers = Answers(2)
    for number in range(4):
        answers.take(Print(str(number), last=False))
    answers.take(None)
    assert await answers.next() == Print("(3 answers were too many to show)\n3", last=False)
    with pytest.raises(StoppedError):
        await answers.next()


@pytest.mark.parametrize(("fault", "error"), [("misuse", MisuseError), ("world", WorldError)])
async def test_a_line_that_could_not_be_done_raises_what_was_said(
    fault: str, error: type[Exception]
) -> None:
    consoles, body, _ = a_console()
    task = await begun(consoles)
    consoles.print(Print("begun", SESSION, last=False))
    consoles.print(Print("it failed", SESSION, fault="misuse" if fault == "misuse" else "world"))
    with pytest.raises(error, match="it failed"):
        await task
    assert len(body.jobs) == 1  # nothing is left to be cancelled


async def test_who_leaves_ends_what_the_line_began_and_nothing_of_it_stays() -> None:
    """What is still said for it goes nowhere."""
    consoles, body, shown = a_console()
    task = await begun(consoles)
    consoles.print(Print("begun", SESSION, last=False))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert body.jobs[1:] == [jobs.Cancel(SESSION)]
    consoles.print(Print("cancelled", SESSION))
    consoles.dismiss()
    assert shown == []


async def test_who_still_waits_when_the_node_stops_is_told() -> None:
    consoles, _, _ = a_console()
    task = await begun(consoles)
    consoles.dismiss()
    with pytest.raises(StoppedError):
        await task


def test_lines_of_standard_input_are_shown_where_the_node_shows_them() -> None:
    consoles, body, shown = a_console()
    consoles.post("status", "stdin")
    assert isinstance(body.jobs[0], jobs.HandleStdinLine)
    assert body.jobs[0].session is None
    consoles.print(Print("the status"))
    assert shown == ["the status"]


def test_figures_name_the_longest_lines_that_have_something() -> None:
    queue = JobQueue(LIMITS)
    for _ in range(2):
        queue.push("clock", jobs.Tick())
    queue.push(SESSION, jobs.Tick())
    assert figures(queue).waiting == (("clock", 2), (SESSION.hex(), 1))
    queue.pop()
    assert figures(queue).served == (("Tick", 1),)
