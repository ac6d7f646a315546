"""One large run on several cores: processes that share its world, and the pipes between them.

The first process is the one that the user started; it hands round what the others hand in. Each
runs the whole story with the nodes of its own shard (sim/shards.py). Nothing is printed here.
"""

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from xorbit.cli.sim_run import cores, perform
from xorbit.errors import WorldError
from xorbit.sim.run import Simulation
from xorbit.sim.shards import ALONE, Died, Left, Shards
from xorbit.sim.trial import Trial

SHARED_NODES_MIN = 500
"""In a smaller network there is too little to do between two meetings."""
SHARDS_MAX = 2
"""More would wait for each other most of the time."""
PROCESS_ENDS_WITHIN_S = 5.0
"""How long a process that is known to end may take to do so."""

T = TypeVar("T")
_Part = tuple[T, bool]
"""What a shard hands in, and whether it leaves."""


@contextmanager
def shared(trial: Trial, check_every: int) -> Generator[Shards]:
    """Give what a simulation shares its world by; where it is large, other processes run the rest.

    They end with the run, and with this context in any case.

    Raises:
        WorldError: one of them has ended before.
    """
    count = min(cores(), SHARDS_MAX) if trial.story().nodes >= SHARED_NODES_MIN else 1
    if count == 1:
        yield ALONE
        return
    others: list[tuple[Connection, BaseProcess]] = []
    try:
        for number in range(1, count):
            others += [_start(number, count, trial, check_every)]  # one by one, to end them all
        yield _First([pipe for pipe, _ in others])
        for _, process in others:
            process.join()
    except Died as error:
        raise WorldError(_why_ended([process for _, process in others])) from error
    finally:
        for pipe, process in others:
            pipe.close()
            process.terminate()


def _why_ended(processes: Sequence[BaseProcess]) -> str:
    for process in processes:
        process.join(PROCESS_ENDS_WITHIN_S)
    codes = [process.exitcode for process in processes if process.exitcode]
    said = " and ".join(str(code) for code in codes) or "0"
    maybe = ": maybe there was not enough memory" if any(code < 0 for code in codes) else ""
    return f"a process that shared this run ended with code {said}{maybe}"


def _start(
    number: int, count: int, trial: Trial, check_every: int
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    words = _Other(number, count, theirs), trial, check_every
    process = context.Process(target=_run, args=words, daemon=True)
    process.start()
    theirs.close()  # the only other end is the child's: we see it close
    return ours, process


def _run(shard: Shards, trial: Trial, check_every: int) -> None:
    """Run one shard, which tells nobody how far it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is our parent's to handle
    simulation = Simulation(trial.story(), trial.seed, check_every=check_every, shards=shard)
    with suppress(Died):  # then the parent is gone, or knows
        perform(simulation, lambda _name, _share: None)


class _Sharing(ABC):
    """What the first and the others have in common."""

    number: int
    count: int

    def gather(self, mine: T) -> list[T]:
        """See `Shards`."""
        parts = self._exchange((mine, False))
        if any(left for _, left in parts):
            raise Left
        return [part for part, _ in parts]

    def leave(self) -> None:
        """See `Shards`."""
        self._exchange((None, True))

    def _exchange(self, mine: _Part[T]) -> list[_Part[T]]:
        try:
            return self._exchanged(mine)
        except (EOFError, OSError) as error:
            raise Died from error

    @abstractmethod
    def _exchanged(self, mine: _Part[T]) -> list[_Part[T]]: ...


class _First(_Sharing):
    """The shards of a run, seen from the first."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        """Share with whoever is at the other ends."""
        self.number = 0
        self.count = 1 + len(pipes)
        self._pipes = pipes

    def _exchanged(self, mine: _Part[T]) -> list[_Part[T]]:
        parts = [mine, *(pipe.recv() for pipe in self._pipes)]
        for number, pipe in enumerate(self._pipes, 1):  # nobody is sent what it has said itself
            pipe.send([*parts[:number], None, *parts[number + 1 :]])
        return parts


class _Other(_Sharing):
    """The shards of a run, seen from another."""

    def __init__(self, number: int, count: int, pipe: Connection) -> None:
        """Share by a pipe to the first."""
        self.number = number
        self.count = count
        self._pipe = pipe

    def _exchanged(self, mine: _Part[T]) -> list[_Part[T]]:
        self._pipe.send(mine)
        parts = self._pipe.recv()
        parts[self.number] = mine
        return parts
