"""`xorbit replay`: a log of jobs made readable."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Command
from xorbit.cli.replay import compact, plain
from xorbit.config import DEFAULT_LIMITS
from xorbit.core import job as jobs
from xorbit.core import joblog, state
from xorbit.core.job import Job
from xorbit.ids import Guid, Id
from xorbit.items import Address, Kind, block_key, make_block

OWN = Id(bytes(range(32)))
BLOCK = make_block(b"z" * 1_000)
STEPS: list[Job] = [
    jobs.Listening((Address("127.0.0.1", 4000),)),
    jobs.Store(Guid(b"g" * 16), block_key(BLOCK.data), BLOCK),
    jobs.HandleStdinLine("peers"),
]


def raise_on_purpose(*_: object) -> None:
    raise ZeroDivisionError("on purpose")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.log"
    parts = [joblog.encode_header(OWN, DEFAULT_LIMITS, b"seed")]
    parts += [joblog.encode_entry(1.5 + at, job) for at, job in enumerate(STEPS)]
    path.write_bytes(b"".join(parts))
    return path


def test_a_step_that_is_not_there_is_told(xorbit: Command, log: Path) -> None:
    ran = xorbit("replay", log, "--from", 9_999)
    assert (ran.code, ran.out) == (0, "")
    assert f"got to step {len(STEPS)}" in ran.err


def test_shows_each_job_and_its_effects(xorbit: Command, log: Path) -> None:
    """Each step is a line with its number, time and job; each effect a line below it."""
    ran = xorbit("replay", log)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "     1  1.500000  Listening(addresses=[127.0.0.1:4000])"
    assert lines[1].startswith("     2  2.500000  Store(guid=6767676767676767..., ")
    assert lines[2].startswith("        -> WriteStore(")
    assert lines[-1] == "        -> Print(text='no peers', session=None, last=True, fault='')"
    assert OWN.hex() in ran.err


def test_a_step_that_raises_is_the_last_and_says_what_and_where(
    xorbit: Command, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state.State, "emit", raise_on_purpose)
    lines = xorbit("replay", log).out.splitlines()
    assert lines[-2].startswith("     2  2.500000  Store(")
    assert lines[-1].startswith("        raised ZeroDivisionError: on purpose (test_replay.py, ")
    last = json.loads(xorbit("replay", log, "--json").out.splitlines()[-1])
    assert (last["step"], last["effects"]) == (2, [])
    assert last["raised"].startswith("ZeroDivisionError: on purpose")


def test_long_bytes_are_shortened(xorbit: Command, log: Path) -> None:
    """A block's bytes do not fill the screen: their beginning and their number are shown."""
    out = xorbit("replay", log).out
    assert "data=7a7a7a7a7a7a7a7a... (1,000 bytes)" in out
    assert max(map(len, out.splitlines())) < 300


def test_json_has_one_object_for_each_step(xorbit: Command, log: Path) -> None:
    """With --json each step is an object on a line: number, time, job, effects; ids in full."""
    steps = [json.loads(line) for line in xorbit("replay", log, "--json").out.splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert steps[0] == {
        "step": 1,
        "now": 1.5,
        "job": {"type": "Listening", "addresses": ["127.0.0.1:4000"]},
        "effects": [],
    }
    key = {"type": "ItemKey", "kind": "BLOCK_BLAKE3_256", "id": block_key(BLOCK.data).id.hex()}
    assert steps[1]["job"]["key"] == key
    assert steps[1]["effects"][0]["type"] == "WriteStore"


def test_shows_only_the_steps_asked_for(xorbit: Command, log: Path) -> None:
    """--from and --to choose steps; those before them are taken all the same."""
    ran = xorbit("replay", log, "--from", 2, "--to", 2, "--json")
    assert [json.loads(line)["step"] for line in ran.out.splitlines()] == [2]
    assert xorbit("replay", log, "--from", 9).out == ""


def test_what_is_no_log_is_refused(xorbit: Command, tmp_path: Path) -> None:
    """A file that is no job log is refused in one line."""
    other = tmp_path / "other"
    other.write_bytes(b"not a log at all")
    ran = xorbit("replay", other)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)


def test_values_in_one_line_and_as_json() -> None:
    """Enums by name, addresses as people write them, bytes as digits, the rest as it is."""
    value = (Kind.RECORD, Address("::1", 9), b"", b"\1\2", None, 1.5, "a\nb")
    assert compact(value) == "[RECORD, [::1]:9, \"\", 0102, None, 1.5, 'a\\nb']"
    assert plain(value) == ["RECORD", "[::1]:9", "", "0102", None, 1.5, "a\nb"]
    assert plain(bytes(65)) == "0000000000000000... (65 bytes)"
