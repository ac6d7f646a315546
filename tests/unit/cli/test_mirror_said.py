"""What `xorbit mirror` says of a version: what is said where, in what words."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from xorbit.cli.mirror import _Bar, _Told, tell_outcome
from xorbit.cli.output import stored
from xorbit.config import MIRROR_LEFT_OUT_SHOWN_MAX
from xorbit.files.flow import Progress
from xorbit.files.local_tree import cid_of
from xorbit.files.transfer import PutSummary
from xorbit.ids import Id
from xorbit.run.mirroring import Mirrored, NotMirrored

CID = cid_of(b"tree")


def test_what_was_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The first are told one by one; what was done is a fact."""
    left_out = tuple(f"'file {number}'" for number in range(MIRROR_LEFT_OUT_SHOWN_MAX + 1_000))
    tell_outcome(Mirrored(7, CID, 1_000, 2, 3, 70_000, 0, left_out), json=False)
    said = capsys.readouterr()
    assert said.out == f"7  {CID}  1,000 written, 2 removed; 3 blocks fetched, 70.0 kB\n"
    lines = said.err.splitlines()
    assert lines[0].startswith("left out of version 7: 'file 0', where something is")
    assert lines[MIRROR_LEFT_OUT_SHOWN_MAX:] == ["left out of version 7: 1,000 more"]


def test_versions_whose_nodes_are_lost_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_outcome(Mirrored(7, CID, 1, 0, 2, 70, 0, (), (5, 6)), json=True)
    said = capsys.readouterr()
    assert [line.split(",")[0] for line in said.err.splitlines()] == [
        "version 5",
        "version 6",
    ]
    assert '"lost": [5, 6]' in said.out


def test_one_block_is_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one block nothing is said in the plural."""
    tell_outcome(Mirrored(7, CID, 1, 0, 1, 70, 0, ()), json=False)
    assert capsys.readouterr().out.endswith("; 1 block fetched, 70 bytes\n")


OWN, AWAY, OUT = (Id(bytes([n]) * 32) for n in range(3))


@pytest.mark.parametrize(
    ("blocks", "holders", "held_before", "unasked", "said"),
    [
        (1, (AWAY,), 0, 0, "1 block held by 1 node"),
        (1, (AWAY, OUT), 1, 0, "1 block held by 2 nodes (was there already)"),
        (1, (OWN, AWAY), 0, 1, "1 block held by 2 nodes, this one among them"),
        (2, (AWAY, OUT), 0, 1, "2 blocks, each held by 2 nodes or more"),
        (2, (OWN, AWAY), 2, 0, "each held by 1 other node or more (2 were there already)"),
        (
            9,
            (OWN, AWAY, OUT),
            3,
            5,
            "2 other nodes or more (3 were there already; 5 of less than 1 KiB not asked about)",
        ),
        (9, (OWN,), 0, 0, "held by this node only: it is nowhere else until other nodes join"),
    ],
)
def test_what_was_put_is_told_with_how_many_others_hold_it(
    blocks: int, holders: tuple[Id, ...], held_before: int, unasked: int, said: str
) -> None:
    """Of what was there already no more is said than is known."""
    put = PutSummary(CID, 70, blocks, holders, len(holders), "", holders, None, held_before)
    put = msgspec.structs.replace(put, unasked=unasked)
    text = stored(put, OWN)
    assert text.startswith("70 bytes in ")
    assert text.endswith(said)


@pytest.mark.parametrize(("at", "stays"), [(0, "stays empty"), (6, "stays at version 6")])
def test_what_could_not_be_had_is_no_fact(
    capsys: pytest.CaptureFixture[str], at: int, stays: str
) -> None:
    tell_outcome(NotMirrored(7, at, "nobody has it"), json=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"version 7 cannot be had, the folder {stays}: nobody has it\n"


def test_a_version_that_is_still_there_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """As after the node stopped and started; not so where something was put in place again."""
    told = _Told(json=False)
    for files in (5, 0, 1):
        told(Mirrored(7, CID, files, 0, 0, 0, 0, ()))
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["5", "1"]


def test_a_bar_is_there_only_while_a_version_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who interrupts it hears what is kept, and only then."""
    seen: list[str] = []

    @contextmanager
    def bar_of(what: str) -> Generator[Progress]:
        seen.append(f"{what} opens")
        yield lambda done, total: seen.append(f"{done} of {total}")
        seen.append("closes")

    monkeypatch.setattr("xorbit.cli.mirror.progress", bar_of)
    bar = _Bar(tmp_path)
    with bar.shown():
        assert seen == []
        bar(1, 2)
        bar.close()
    assert seen == ["mirror opens", "1 of 2", "closes"]
    with pytest.raises(asyncio.CancelledError) as idle, bar.shown():
        raise asyncio.CancelledError
    assert not hasattr(idle.value, "__notes__")
    bar(0, 2)
    with pytest.raises(asyncio.CancelledError) as busy, bar.shown():
        raise asyncio.CancelledError
    [note] = busy.value.__notes__
    assert note.startswith(f"what came of this version is kept in {tmp_path}")
