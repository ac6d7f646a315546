"""Lines typed at a node's console, between whoever typed them and the machine.

The answers to one line, in order, on their way to a console that may be slow to read; and what the
driver tells of its queue, which is no part of the machine. Decides nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Protocol

from msgspec import structs

from xorbit.config import CONSOLE_SOURCES_MAX, Limits
from xorbit.core import job as jobs
from xorbit.core.effect import Print
from xorbit.core.job import QueueFigures
from xorbit.core.queue import JobQueue
from xorbit.errors import MisuseError, StoppedError, WorldError
from xorbit.ids import Guid


def figures(queue: JobQueue) -> QueueFigures:
    """Return what a queue holds now and has served, the longest lines first."""
    lengths = sorted(queue.lengths().items(), key=lambda entry: -entry[1])[:CONSOLE_SOURCES_MAX]
    waiting = tuple((_source(line), count) for line, count in lengths if count)
    return QueueFigures(waiting, tuple(queue.served.items()))


def _source(line: Hashable) -> str:
    return line.hex() if isinstance(line, bytes) else str(line)


def as_text(typed: str) -> str:
    """Return a line as text: bytes that are none arrive as surrogates, which nothing can encode."""
    return typed.encode(errors="replace").decode()


class Answers:
    """The answers to one line that its console has not taken yet; the oldest give way."""

    def __init__(self, texts_max: int) -> None:
        self._waiting: asyncio.Queue[Print | None] = asyncio.Queue(texts_max)
        self._lost = 0

    def take(self, answer: Print | None) -> None:
        """Take the next answer; None says that no more come."""
        if self._waiting.full():
            self._waiting.get_nowait()
            self._lost += 1
        self._waiting.put_nowait(answer)

    async def next(self) -> Print:
        """Wait for the next answer.

        Raises:
            StoppedError: the node stopped.
        """
        answer = await self.next_or_end()
        if answer is None:
            raise StoppedError("this node stopped before the line was done")
        return answer

    async def next_or_end(self) -> Print | None:
        """Wait for the next answer; None where there are no more."""
        answer = await self._waiting.get()
        if answer is not None and self._lost:
            text = f"({self._lost:,} answers were too many to show)\n{answer.text}"
            answer, self._lost = structs.replace(answer, text=text), 0
        return answer


class Body(Protocol):
    """What lines need of the driver."""

    async def room(self, line: Hashable) -> None:
        """Wait until this source may bring another job.

        Raises:
            StoppedError: the node has stopped.
        """
        ...

    def post(self, job: jobs.Job, line: Hashable = ..., size: int = ...) -> None:
        """Push a job."""
        ...

    def new_guid(self) -> Guid:
        """Return a fresh guid."""
        ...


class Consoles:
    """Who waits for the answers to which line."""

    def __init__(
        self, body: Body, queue: JobQueue, limits: Limits, show: Callable[[str], None]
    ) -> None:
        self._body = body
        self._queue = queue
        self._limits = limits
        self._show = show
        self._answers: dict[Guid, Answers] = {}

    def post(self, text: str, line: Hashable) -> None:
        """Do what a line of standard input says; the answers go to `show`."""
        job = jobs.HandleStdinLine(as_text(text), None, figures(self._queue))
        self._body.post(job, line, len(text))

    async def typed(self, text: str, line: Hashable) -> AsyncGenerator[str]:
        """Do what a line says and yield each answer; whoever stops to listen ends what it began.

        Raises:
            MisuseError: the line is none that can be done.
            WorldError: it could not be done.
            StoppedError: the node stopped before it was done.
        """
        await self._body.room(line)
        session = self._body.new_guid()
        answers = self._answers[session] = Answers(self._limits.console_texts_max)
        job = jobs.HandleStdinLine(as_text(text), session, figures(self._queue))
        self._body.post(job, line, len(text))
        done = False
        try:
            while not done:
                answer = await answers.next()
                done = answer.last
                if answer.fault:
                    raise (MisuseError if answer.fault == "misuse" else WorldError)(answer.text)
                yield answer.text
        finally:
            del self._answers[session]
            if not done:
                self._body.post(jobs.Cancel(session), line)

    def print(self, answer: Print) -> None:
        """Hand an answer to whoever typed the line."""
        if answer.session is None:
            self._show(answer.text)
        elif answers := self._answers.get(answer.session):
            answers.take(answer)

    def dismiss(self) -> None:
        """Tell all who still wait that the node has stopped."""
        for answers in self._answers.values():
            answers.take(None)
