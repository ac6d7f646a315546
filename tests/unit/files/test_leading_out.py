"""Symbolic links that lead out of a directory are found before it is put."""

from pathlib import Path

from xorbit.files.leading_out import LeadingOut, leading_out


def test_links_that_lead_out_are_counted(tmp_path: Path) -> None:
    """The first is named from the directory on; links that stay inside are none of them."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    (tmp_path / "a" / "b" / "out").symlink_to("../../..")
    (tmp_path / "a" / "inside").symlink_to("b")
    (tmp_path / "file").write_bytes(b"file")
    assert leading_out(tmp_path) == LeadingOut("a/b/out", 1)
    (tmp_path / "a" / "etc").symlink_to("/etc")
    assert leading_out(tmp_path) == LeadingOut("a/etc", 2)


def test_files_and_nothing_have_none(tmp_path: Path) -> None:
    """Whoever reads it says what is wrong with it."""
    (tmp_path / "file").write_bytes(b"file")
    assert leading_out(tmp_path / "file") == leading_out(tmp_path / "none") == LeadingOut()
