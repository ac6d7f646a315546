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
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import msgspec

from xorbit.sim.run import Result, Simulation, Tell
from xorbit.sim.trial import Trial

NODE_BYTES = 1_400_000
"""What a node of a large network needs, roughly: two such networks may not fit side by side."""
MEMORY_SHARE = 0.85
"""How much of this machine's memory may be taken."""
LARGE_PAGES = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Has glibc (2.35 and later) ask Linux for huge pages: gigabytes of small objects all over the heap
miss the TLB at every step else (1,000 nodes: a tenth of the time, 10,000: a fifth). Read when
Python starts."""
LARGE_NODES_MIN = 500
"""From here on a single run is worth starting Python once more."""
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1_024


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run, and what it took of this machine."""

    result: Result
    real_s: float
    peak_bytes: int
    """The most memory that it had; of several processes together, each at its own time."""

    def facts(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        facts: dict[str, object] = msgspec.to_builtins(self.result)
        facts["mb_per_node"] = round(self.peak_bytes / 1e6 / self.result.nodes, 3)
        facts["real_s"] = round(self.real_s, 1)
        return facts


def use_large_pages(nodes: int) -> None:
    """For a large network start this very command again, with huge pages; else do nothing."""
    if nodes < LARGE_NODES_MIN or sys.platform != "linux" or _has_large_pages():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, words, {**os.environ, **LARGE_PAGES})  # noqa: S606 - our own words


def _has_large_pages() -> bool:
    """Return whether this was asked for, or the user wants something else."""
    return any(name in os.environ for name in LARGE_PAGES)


def perform(simulation: Simulation, tell: Tell) -> Outcome:
    """Run a simulation in this process."""
    began = time.monotonic()
    gc.disable()  # a world is one growing heap of live objects: there is nothing to collect
    try:
        result = simulation.run(tell)
    finally:
        gc.freeze()  # nor later, as this process ends soon: only to look through it takes minutes
        gc.enable()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
    peaks = simulation.shards.gather(peak)
    return Outcome(result, time.monotonic() - began, sum(peaks))


Heard = Callable[[int, str, float], None]
"""Hears the number of a trial, the phase that it is in, and which share of it is over."""


def perform_all(trials: Sequence[Trial], check_every: int, heard: Heard) -> list[Outcome | str]:
    """Run many trials, as many at once as there are cores, and room; return what came of each.

    In the order of the trials. Where a run failed, because its process died (for lack of memory,
    mostly) or its code raised, that is why, in words: it does not take the others with it.
    """
    sizes = [trial.story().nodes for trial in trials]
    # The longest first, so that no core is left alone with it at the end.
    order = sorted(range(len(trials)), key=lambda number: (-sizes[number], number))
    waiting = dict.fromkeys(order)
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    outcomes: dict[int, Outcome | str] = {}
    try:
        while waiting or running:
            under_way = [number for number, _ in running.values()]
            while (number := next_of(waiting, under_way, sizes)) is not None:
                del waiting[number]
                under_way.append(number)
                running.update(start(number, trials[number], check_every))
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection), "nothing else is waited for"
                number, process = running[pipe]
                match _received(pipe):
                    case (str(phase), float(share)):
                        heard(number, phase, share)
                        continue
                    case (Outcome() | str()) as outcome:
                        outcomes[number] = outcome
                    case _:
                        process.join()
                        outcomes[number] = f"its process ended with code {process.exitcode}"
                process.join()
                heard(number, "", 1.0)
                del running[pipe]
    finally:
        for _, process in running.values():
            process.terminate()
    return [outcomes[number] for number in range(len(trials))]


def cores() -> int:
    """Return how many processes can run at once."""
    return os.cpu_count() or 1


def next_of(waiting: Iterable[int], under_way: Sequence[int], sizes: Sequence[int]) -> int | None:
    """Return which trial to start now: the first for which there is a core, and room."""
    if len(under_way) >= cores():
        return None
    room = memory_bytes() * MEMORY_SHARE - sum(NODE_BYTES * sizes[number] for number in under_way)
    fits = (number for number in waiting if NODE_BYTES * sizes[number] <= room)
    return next(fits, None if under_way else next(iter(waiting), None))


def memory_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def start(number: int, trial: Trial, check_every: int) -> dict[Connection, tuple[int, BaseProcess]]:
    """Start the process of one trial; return what is to be heard from it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, trial, check_every), daemon=True)
    if not _has_large_pages():
        os.environ.update(LARGE_PAGES)  # for the children, which start Python anew
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
