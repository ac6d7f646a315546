"""The job log: every job comes back as it was; what is no log is refused and never guessed at."""

from contextlib import suppress
from io import BytesIO
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.strategies import (
    address_tuples,
    addresses,
    connection_items,
    contacts,
    guids,
    ids,
    items,
    keys,
    reasons,
    records,
    requests,
    responses,
    sequences,
)
from xorbit.config import FRAME_BYTES_MAX, JOB_LOG_ENTRY_BYTES_MAX, Limits
from xorbit.core import job as jobs
from xorbit.core import joblog
from xorbit.core.job import Job
from xorbit.errors import FormatError
from xorbit.ids import Guid, id_of
from xorbit.items import Address, Contact, Held, make_block
from xorbit.pins import (
    AddRoot,
    EndRoot,
    Kept,
    LeaveRoot,
    LetGo,
    Root,
    ScanPins,
    ScanRoots,
    Stage,
    Told,
)
from xorbit.wire import message

OWN = id_of(b"own")
GUID = Guid(bytes(16))
HEADER = joblog.encode_header(OWN, Limits(replicas=3), b"seed")
STEPS: list[tuple[float, Job]] = [
    (1.0, jobs.Bootstrap(GUID, (Address("192.0.2.1", 4_000),))),
    (1.5, jobs.ConnectionOpened(GUID, OWN, Address("2001:db8::1", 4_000))),
    (2.25, jobs.Tick()),
    (2.25, jobs.Shutdown()),
]
LOG = HEADER + b"".join(joblog.encode_entry(now, job) for now, job in STEPS)

sizes = st.integers(0, 100_000)
ages = st.floats(0, 1e9)
held = st.builds(Held, keys, ages, st.none() | ages)
failures = st.lists(st.tuples(addresses, reasons), max_size=3).map(tuple)
some_keys = st.lists(keys, max_size=3).map(tuple)
counts = st.integers(0, 2**63 - 1)
roots = st.builds(
    Root, keys, st.booleans(), counts, st.sampled_from(get_args(Stage)), reasons.map(str.encode)
)
kept = st.builds(Kept, roots, ages, st.none() | ages, counts)
orders = st.one_of(
    st.builds(AddRoot, roots, st.none() | counts, st.none() | counts),
    st.builds(LeaveRoot, keys, st.booleans(), st.booleans()),
    st.builds(EndRoot, keys, st.booleans(), st.none() | counts),
    st.builds(ScanRoots, counts, st.binary(max_size=34)),
    st.builds(ScanPins, counts, st.none() | keys),
    st.builds(LetGo, some_keys, st.none() | counts),
)
told = st.builds(
    Told, st.booleans(), counts, counts, st.lists(kept, max_size=3).map(tuple), some_keys, reasons
)
JOBS: dict[type[Job], st.SearchStrategy[Job]] = {
    jobs.HandleRequest: st.builds(jobs.HandleRequest, guids, guids, guids, requests, sizes),
    jobs.HandleResponse: st.builds(jobs.HandleResponse, guids, guids, guids, responses, sizes),
    jobs.ConnectionOpened: st.builds(
        jobs.ConnectionOpened, guids, ids, addresses, st.none() | guids
    ),
    jobs.DialFailed: st.builds(jobs.DialFailed, guids, failures, st.booleans(), address_tuples),
    jobs.Restored: st.builds(jobs.Restored, st.lists(contacts, max_size=3).map(tuple)),
    jobs.ConnectionSigned: st.builds(jobs.ConnectionSigned, guids, connection_items),
    jobs.ConnectionLost: st.builds(jobs.ConnectionLost, guids, reasons),
    jobs.Get: st.builds(jobs.Get, guids, keys),
    jobs.Store: st.builds(jobs.Store, guids, keys, items, st.none() | sequences),
    jobs.Follow: st.builds(jobs.Follow, guids, keys),
    jobs.LookUp: st.builds(jobs.LookUp, guids, ids),
    jobs.Revoked: st.builds(jobs.Revoked, st.lists(ids, max_size=3).map(tuple)),
    jobs.Pin: st.builds(jobs.Pin, guids, keys, st.none() | items),
    jobs.TendPins: st.builds(jobs.TendPins, guids, orders),
    jobs.SendRequest: st.builds(jobs.SendRequest, guids, contacts, requests),
    jobs.SendResponse: st.builds(jobs.SendResponse, guids, guids, responses),
    jobs.Connect: st.builds(jobs.Connect, guids, address_tuples, st.none() | ids),
    jobs.HandleStdinLine: st.builds(
        jobs.HandleStdinLine, st.text(), st.none() | guids, st.builds(jobs.QueueFigures)
    ),
    jobs.Listening: st.builds(jobs.Listening, address_tuples),
    jobs.Bootstrap: st.builds(jobs.Bootstrap, guids, address_tuples),
    jobs.ConnectionMaintenance: st.just(jobs.ConnectionMaintenance()),
    jobs.Cancel: st.builds(jobs.Cancel, guids),
    jobs.Shutdown: st.just(jobs.Shutdown()),
    jobs.Tick: st.just(jobs.Tick()),
    jobs.StoreRead: st.builds(jobs.StoreRead, guids, st.none() | items, reasons),
    jobs.StoreWritten: st.builds(jobs.StoreWritten, guids, reasons, reasons, st.none() | records),
    jobs.StoreScanned: st.builds(jobs.StoreScanned, guids, st.lists(held, max_size=3).map(tuple)),
    jobs.StoreDropped: st.builds(jobs.StoreDropped, guids, st.lists(keys, max_size=3).map(tuple)),
    jobs.PinsTended: st.builds(jobs.PinsTended, guids, told),
    jobs.StoreChecked: st.builds(jobs.StoreChecked, guids, st.lists(keys, max_size=3).map(tuple)),
}


def frames(*payloads: object) -> bytes:
    """Return a file of frames that hold these, whatever they are."""
    encoded = [msgspec.msgpack.encode(payload) for payload in payloads]
    return b"".join(len(data).to_bytes(4, "big") + data for data in encoded)


def entries_of(log: bytes) -> list[tuple[float, Job]]:
    _, entries = joblog.read(BytesIO(log))
    return [(entry.now, entry.job) for entry in entries]


def test_strategies_draw_all_kinds_of_jobs() -> None:
    """The next test leaves no kind of job out."""
    assert set(JOBS) == set(get_args(Job))


@pytest.mark.parametrize("kind", JOBS, ids=lambda kind: kind.__name__)
def test_every_job_comes_back(kind: type[Job]) -> None:
    """Whatever a job holds, the log gives it back equal, at its exact time."""

    @given(JOBS[kind], st.floats(0, 1e9))
    def round_trip(job: Job, now: float) -> None:
        [(then, found)] = entries_of(HEADER + joblog.encode_entry(now, job))
        assert (then, found, type(found)) == (now, job, kind)

    round_trip()


def test_header_says_how_to_make_the_machine_again() -> None:
    header, _ = joblog.read(BytesIO(HEADER))
    assert header == joblog.Header(joblog.LOG_VERSION, OWN, Limits(replicas=3), b"seed")
    one, other = joblog.new_machine(header), joblog.new_machine(header)
    assert one.state.own == OWN
    assert one.state.limits == Limits(replicas=3)
    assert one.state.rng.getstate() == other.state.rng.getstate()


def test_replay_goes_the_same_way() -> None:
    """Two machines made from one log take its jobs at its times and want the same done."""
    header, entries = joblog.read(BytesIO(LOG))
    first = list(joblog.replay(joblog.new_machine(header), entries))
    header, entries = joblog.read(BytesIO(LOG))
    assert list(joblog.replay(joblog.new_machine(header), entries)) == first
    assert [(now, job) for now, job, _ in first] == STEPS
    assert any(effects for _, _, effects in first)


def test_entries_are_read_as_they_are_asked_for() -> None:
    """A log of any length takes the room of one entry."""
    source = BytesIO(LOG)
    _, entries = joblog.read(source)
    assert source.tell() == len(HEADER)
    next(entries)
    assert source.tell() == len(HEADER + joblog.encode_entry(*STEPS[0]))


def test_torn_end() -> None:
    """Cut off at any byte, a log still gives every step that was written whole."""
    ends = [len(HEADER)]
    for now, job in STEPS:
        ends.append(ends[-1] + len(joblog.encode_entry(now, job)))
    for size in range(len(HEADER), len(LOG) + 1):
        whole = sum(end <= size for end in ends) - 1
        assert entries_of(LOG[:size]) == STEPS[:whole]


def test_end_of_zeros() -> None:
    """What a crash of the whole machine leaves behind the last entry is no entry."""
    assert entries_of(LOG + bytes(4_096)) == STEPS


def test_torn_header() -> None:
    for size in range(len(HEADER)):
        with pytest.raises(FormatError, match="expected a job log of xorbit"):
            joblog.read(BytesIO(LOG[:size]))


@pytest.mark.parametrize("version", [0, joblog.LOG_VERSION + 1])
def test_other_version(version: int) -> None:
    log = frames(joblog.Header(version, OWN, Limits(), b"seed"))
    with pytest.raises(FormatError, match=f"of version {joblog.LOG_VERSION}, got {version}"):
        joblog.read(BytesIO(log))


@pytest.mark.parametrize(
    "log",
    [
        b"GIF89a, and so on and so forth",
        b"\0\0\0\x05hello",
        b"\0\0\0\x02\xc4\xff",
        frames({"version": 1}),
        frames({"version": 1, "own": OWN, "limits": {"workers": 0}, "seed": b""}),
        b"\xff\xff\xff\xff" + bytes(100),
        b"\0\0\0\x04\x81\xa2\xff\xfe",
        b"\0\1\0\0" + b"\x91" * 65_536,
    ],
    ids=["text", "word", "cut", "field", "limit", "huge", "no utf-8", "nested"],
)
def test_no_job_log(log: bytes) -> None:
    with pytest.raises(FormatError, match="expected a job log of xorbit"):
        joblog.read(BytesIO(log))


@pytest.mark.parametrize(
    "entry",
    [
        frames([1.0]),
        frames([1.0, {"type": "Explode"}]),
        frames([1.0, {"type": "Cancel"}]),
        frames(["now", {"type": "Tick"}]),
        frames("Tick"),
        b"\0\0\0\x01\xc1",
        frames([1.0, {"type": "HandleStdinLine", "line": "@@"}]).replace(b"@@", b"\xff\xfe"),
        b"\0\1\0\0" + b"\x91" * 65_536,
        (JOB_LOG_ENTRY_BYTES_MAX + 1).to_bytes(4, "big"),
    ],
    ids=["short", "kind", "field", "time", "text", "garbage", "no utf-8", "nested", "huge"],
)
def test_damage_in_the_middle(entry: bytes) -> None:
    """Steps before the damage are given; the damage itself is an error, not the end."""
    _, entries = joblog.read(BytesIO(LOG + entry + LOG[len(HEADER) :]))
    assert [(next(entries).now) for _ in STEPS] == [now for now, _ in STEPS]
    with pytest.raises(FormatError, match=r"expected a (step of the )?job log"):
        next(entries)


def test_job_of_the_largest_frame() -> None:
    """A peer cannot stop a node that logs its jobs by filling a frame to the brim."""
    block = make_block(bytes(65_536))
    room = FRAME_BYTES_MAX - len(message.encode(message.Envelope(GUID, GUID, message.Found(block))))
    names = (Address("h" * 250, 1),) * (room // 256)
    contacts = tuple(Contact(OWN, names[at : at + 14]) for at in range(0, len(names), 14))
    padded = message.Store(block, None, contacts)
    size = len(message.encode(message.Envelope(GUID, GUID, padded)))
    assert FRAME_BYTES_MAX - 400 < size <= FRAME_BYTES_MAX
    job = jobs.HandleRequest(GUID, GUID, GUID, padded, size)
    entry = joblog.encode_entry(1.0, job)
    assert entries_of(HEADER + entry) == [(1.0, job)]


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    """Bytes of any kind, alone or behind a header, give steps or a FormatError, nothing else."""
    for log in (data, HEADER + data, HEADER + frames(data)[:4] + data):
        with suppress(FormatError):
            entries_of(log)
