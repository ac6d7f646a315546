"""The user's keys as files of a home."""

import os
import stat
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from xorbit import items, keyfiles, keys
from xorbit.errors import MisuseError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    """The file has mode 0600 whatever the umask, in a directory nobody else may look into."""
    before = os.umask(0)
    try:
        made = keys.new_key(tmp_path, "me")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "keys" / "me.pem") == 0o600
    assert mode_of(tmp_path / "keys") == 0o700
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["me.pem"]
    assert keys.load_key(tmp_path, "me").public_key == made.public_key


def test_a_key_is_never_made_over_another(tmp_path: Path) -> None:
    """A second `new` or `import` of a name is refused and leaves the key as it was."""
    keys.new_key(tmp_path, "me")
    before = (tmp_path / "keys" / "me.pem").read_bytes()
    with pytest.raises(MisuseError, match="has a key named 'me' already"):
        keys.new_key(tmp_path, "me")
    keys.export_key(tmp_path, "me", tmp_path / "out")
    with pytest.raises(MisuseError, match="already"):
        keys.import_key(tmp_path, "me", tmp_path / "out")
    assert (tmp_path / "keys" / "me.pem").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["", "../me", "a/b", ".hidden", "-o", "a b", "x" * 65, "a\0", "ä", "a\n", "ab" * 32]
)
def test_a_name_is_no_path_and_no_option(tmp_path: Path, name: str) -> None:
    """What could leave the directory, hide, or be taken for an option or a key is refused."""
    with pytest.raises(MisuseError, match="a key's name is"):
        keys.new_key(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_the_keys_of_a_home_are_listed_by_name(tmp_path: Path) -> None:
    """Other files in the directory are passed over; a home without keys has none."""
    assert keys.list_keys(tmp_path) == []
    made = {name: keys.new_key(tmp_path, name) for name in ("zoe", "adam", "a.b-c_1")}
    (tmp_path / "keys" / "note.txt").write_text("mine")
    (tmp_path / "keys" / ".adam.pem").write_text("half a key")
    found = [(key.name, key.public_key) for key in keys.list_keys(tmp_path)]
    assert found == [(name, made[name].public_key) for name in sorted(made)]


def test_a_key_moves_to_another_home_by_a_file(tmp_path: Path) -> None:
    """An exported key is imported elsewhere; the file is private and never overwrites another."""
    made = keys.new_key(tmp_path / "a", "me")
    keys.export_key(tmp_path / "a", "me", tmp_path / "out.pem")
    assert mode_of(tmp_path / "out.pem") == 0o600
    taken = keys.import_key(tmp_path / "b", "also-me", tmp_path / "out.pem")
    assert taken.public_key == made.public_key
    with pytest.raises(MisuseError, match="exists already"):
        keys.export_key(tmp_path / "a", "me", tmp_path / "out.pem")


def test_what_is_no_key_is_not_imported(tmp_path: Path) -> None:
    """A file with something else in it is refused, and nothing is kept."""
    (tmp_path / "junk").write_text("no key")
    with pytest.raises(MisuseError, match="holds no private key"):
        keys.import_key(tmp_path, "me", tmp_path / "junk")
    assert keys.list_keys(tmp_path) == []


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    """The user is told how to mend it."""
    keys.new_key(tmp_path, "me")
    (tmp_path / "keys" / "me.pem").chmod(0o644)
    with pytest.raises(MisuseError, match="chmod 600"):
        keys.load_key(tmp_path, "me")


def test_a_missing_key_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="xorbit key new me"):
        keys.load_key(tmp_path, "me")


def test_a_public_key_is_meant_by_its_digits_or_by_a_name(tmp_path: Path) -> None:
    """Hexadecimal digits of either case, or a key of the home; all else is refused."""
    made = keys.new_key(tmp_path, "me")
    digits = made.public_key.hex()
    for text in (digits, digits.upper(), "me"):
        assert keys.public_key_from(tmp_path, text) == made.public_key
    for text in ("you", digits[:-1], digits[:-1] + "g", "../me", ""):
        with pytest.raises(MisuseError, match="expected a public key"):
            keys.public_key_from(tmp_path, text)
    with pytest.raises(MisuseError, match="which has 63: copy it again"):
        keys.public_key_from(tmp_path, digits[:-1])


def test_a_key_signs_records_and_shows_nothing_of_itself() -> None:
    """A record it signs proves itself; its repr has the public part only."""
    secret = SigningKey(bytes(range(32)))
    key = keys.UserKey(secret, "me")
    record = key.sign(3, b"value", b"salt")
    assert items.check(record) == items.record_key(key.public_key, b"salt")
    assert bytes(secret).hex() not in repr(key)
    assert key.public_key.hex() in repr(key)
    assert keys.private_pem(key) == keyfiles.private_key_pem(secret)
