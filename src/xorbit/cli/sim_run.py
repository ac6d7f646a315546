"""Running trials: one in this process, or many at once, each in a process of its own.

A process for each run, not a pool that is used again: the memory that it needed is told, and given
back, and one that dies is told from one that is slow. Nothing is printed here.
"""

import gc
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from xorbit.errors import WorldError
from xorbit.sim.run import Result, Simulation, Tell
from xorbit.sim.trial import Trial

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1_024


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run, and what it took of this machine."""

    result: Result
    real_s: float
    peak_bytes: int
    """The most memory that the process had."""

    def facts(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        facts: dict[str, object] = msgspec.to_builtins(self.result)
        facts["mb_per_node"] = round(self.peak_bytes / 1e6 / self.result.nodes, 3)
        facts["real_s"] = round(self.real_s, 1)
        return facts


def perform(simulation: Simulation, tell: Tell) -> Outcome:
    """Run a simulation in this process."""
    began = time.monotonic()
    gc.disable()  # a world is one growing heap of live objects: there is nothing to collect
    try:
        result = simulation.run(tell)
    finally:
        gc.enable()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    return Outcome(result, time.monotonic() - began, peak)


Heard = Callable[[int, str, float], None]
"""Hears the number of a trial, the phase that it is in, and which share of it is over."""


def perform_all(trials: Sequence[Trial], check_every: int, heard: Heard) -> list[Outcome]:
    """Run many trials, as many at once as there are cores; return what came of each, in order.

    Raises:
        WorldError: the process of one died, for lack of memory mostly, or its code raised.
    """
    # The longest first, so that no core is left alone with it at the end.
    waiting = sorted(range(len(trials)), key=lambda number: _weight(trials[number]))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    outcomes: dict[int, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < cores():
                number = waiting.pop()
                running.update(start(number, trials[number], check_every))
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection), "nothing else is waited for"
                number, process = running[pipe]
                match _received(pipe):
                    case (str(phase), float(share)):
                        heard(number, phase, share)
                    case Outcome() as outcome:
                        outcomes[number] = outcome
                        heard(number, "", 1.0)
                        process.join()
                        del running[pipe]
                    case why:
                        process.join()
                        command = " ".join(trials[number].words())
                        why = why or f"its process ended with code {process.exitcode}"
                        raise WorldError(f"a run failed ({why}); to repeat it: {command}")
    finally:
        for _, process in running.values():
            process.terminate()
    return [outcomes[number] for number in range(len(trials))]


def cores() -> int:
    """Return how many processes can run at once."""
    return os.cpu_count() or 1


def _weight(trial: Trial) -> tuple[int, float]:
    story = trial.story()
    return story.nodes, trial.churn_minutes


def start(number: int, trial: Trial, check_every: int) -> dict[Connection, tuple[int, BaseProcess]]:
    """Start the process of one trial; return what is to be heard from it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, trial, check_every), daemon=True)
    process.start()
    theirs.close()  # the only other end is the child's: we see it close
    return {ours: (number, process)}


def _received(pipe: Connection) -> object:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _child(pipe: Connection, trial: Trial, check_every: int) -> None:
    """Run one trial, and say how far it is, and what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is our parent's to handle
    try:
        simulation = Simulation(trial.story(), trial.seed, check_every=check_every)
        pipe.send(perform(simulation, lambda name, share: pipe.send((name, float(share)))))
    except BrokenPipeError:
        return  # nobody is left to be told
    except Exception as error:  # noqa: BLE001 - told where somebody can read it
        pipe.send(repr(error))
