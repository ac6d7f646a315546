"""What the parts of a job's way cost, in microseconds: queue, step, codec."""

import random
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.measure import Row
from benchmarks.node import random_blocks
from xorbit.config import DEFAULT_LIMITS
from xorbit.core import job as jobs
from xorbit.core.machine import Machine
from xorbit.core.queue import JobQueue
from xorbit.ids import Guid, Id, new_guid
from xorbit.items import Address, key_of
from xorbit.wire import message

ROUNDS = 7
TIMES = 8_192
LINES = 64
SIZE = 80


def _cost(name: str, run: Callable[[], int], note: str = "") -> Row:
    """Return the row of one part; `run` returns how many jobs it did."""
    run()
    costs: list[float] = []
    for _ in range(ROUNDS):
        began = perf_counter()
        done = run()
        costs.append((perf_counter() - began) / done * 1e6)
    return Row(name, "us", median(costs), note=note)


def _queue(lines: int) -> Callable[[], int]:
    rng = random.Random(1)
    names = [new_guid(rng) for _ in range(lines)]
    guid = new_guid(rng)
    job = jobs.HandleRequest(names[0], guid, guid, message.Ping(), SIZE)
    depth = min(LINES, DEFAULT_LIMITS.line_jobs_max)

    def run() -> int:
        queue = JobQueue(DEFAULT_LIMITS)
        done = 0
        while done < TIMES:
            for number in range(depth):
                queue.push(names[number % lines], job, SIZE)
            while queue.pop() is not None:
                done += 1
        return done

    return run


def _machine() -> tuple[Machine, Guid, random.Random]:
    """Return a machine with one connection."""
    rng = random.Random(1)
    machine = Machine(Id(rng.randbytes(32)), DEFAULT_LIMITS, rng)
    connection = new_guid(rng)
    peer, address = Id(rng.randbytes(32)), Address("127.0.0.1", 1)
    machine.step(0.0, jobs.ConnectionOpened(connection, peer, address))
    return machine, connection, rng


def _step(request: message.Request) -> Callable[[], int]:
    machine, connection, rng = _machine()

    def run() -> int:
        for number in range(TIMES):
            guid = new_guid(rng)
            machine.step(float(number), jobs.HandleRequest(connection, guid, guid, request, SIZE))
        return TIMES

    return run


def _served_get() -> Callable[[], int]:
    machine, connection, rng = _machine()
    block = random_blocks(1)[0]
    request = message.Get(key_of(block))

    def run() -> int:
        for number in range(TIMES):
            guid, now = new_guid(rng), float(number)
            job = jobs.HandleRequest(connection, guid, guid, request, SIZE)
            (read,) = machine.step(now, job)
            machine.step(now, jobs.StoreRead(getattr(read, "guid"), block))  # noqa: B009 - of a union
        return TIMES

    return run


def _codec(body: message.Request | message.Response) -> Callable[[], int]:
    guid = new_guid(random.Random(1))
    envelope = message.Envelope(guid, guid, body)

    def run() -> int:
        for _ in range(TIMES):
            message.decode(message.encode(envelope))
        return TIMES

    return run


async def rows(_: Path) -> list[Row]:
    """Measure."""
    block = random_blocks(1)[0]
    target = key_of(block).id
    both = "push and pop"
    return [
        _cost("a job through the queue, one line", _queue(1), both),
        _cost(f"a job through the queue, {LINES} lines", _queue(LINES), both),
        _cost("step: a Ping is answered", _step(message.Ping()), "HandleRequest -> Send"),
        _cost("step: a FindClosest is answered", _step(message.FindClosest(target))),
        _cost("steps: a Get is answered", _served_get(), "HandleRequest, StoreRead -> Send"),
        _cost("codec: a Ping", _codec(message.Ping()), "encode and decode"),
        _cost("codec: a block of 64 KiB", _codec(message.Found(block)), "encode and decode"),
    ]
