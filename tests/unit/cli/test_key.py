"""`xorbit key`: what it prints, and what it keeps to itself."""

import json
from pathlib import Path

from tests.unit.cli.conftest import Command

PRIVATE = "PRIVATE KEY"


def test_new_show_and_list_tell_the_public_part_only(xorbit: Command, tmp_path: Path) -> None:
    """The public key alone on stdout; JSON has name and public key."""
    home = ("--home", tmp_path)
    made = xorbit("key", "new", "me", *home)
    digits = made.out.strip()
    assert (made.code, len(bytes.fromhex(digits))) == (0, 32)
    shown = xorbit("key", "show", "me", *home)
    assert shown.out == made.out
    facts = {"name": "me", "public_key": digits}
    assert json.loads(xorbit("key", "list", "--json", *home).out) == [facts]
    assert json.loads(xorbit("key", "show", "me", "--json", *home).out) == facts
    listed = xorbit("key", "list", *home)
    assert digits in listed.out
    for ran in (made, shown, listed):
        assert PRIVATE not in ran.out + ran.err


def test_a_home_without_keys_lists_none(xorbit: Command, tmp_path: Path) -> None:
    assert json.loads(xorbit("key", "list", "--json", "--home", tmp_path).out) == []
    assert "xorbit key new" in xorbit("key", "list", "--home", tmp_path).err


def test_a_private_key_is_never_shown_by_accident(xorbit: Command, tmp_path: Path) -> None:
    """`export` wants a path, or to be told twice."""
    home = ("--home", tmp_path / "a")
    xorbit("key", "new", "me", *home)
    refused = xorbit("key", "export", "me", *home)
    assert refused.code == 2
    assert PRIVATE not in refused.out + refused.err
    assert PRIVATE in xorbit("key", "export", "me", "--yes", *home).out
    written = xorbit("key", "export", "me", "-o", tmp_path / "me.pem", *home)
    assert (written.code, written.out) == (0, "")
    taken = xorbit("key", "import", "me", tmp_path / "me.pem", "--home", tmp_path / "b")
    assert taken.out == xorbit("key", "show", "me", *home).out


def test_wrong_names_are_wrong_usage(xorbit: Command, tmp_path: Path) -> None:
    for words in (("new", "../me"), ("show", "nobody"), ("export", "nobody", "--yes")):
        ran = xorbit("key", *words, "--home", tmp_path)
        assert (ran.code, ran.out) == (2, "")
