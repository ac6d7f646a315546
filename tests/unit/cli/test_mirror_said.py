"""What `xorbit mirror` says of a version: what is said where, in what words."""

import pytest

from xorbit.cli.mirror import tell_outcome
from xorbit.config import MIRROR_LEFT_OUT_SHOWN_MAX
from xorbit.files.local_tree import cid_of
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


@pytest.mark.parametrize(("at", "stays"), [(0, "stays empty"), (6, "stays at version 6")])
def test_what_could_not_be_had_is_no_fact(
    capsys: pytest.CaptureFixture[str], at: int, stays: str
) -> None:
    tell_outcome(NotMirrored(7, at, "nobody has it"), json=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"version 7 cannot be had, the folder {stays}: nobody has it\n"
