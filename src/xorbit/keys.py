"""The user's keys: who may write a record. Files `keys/NAME.pem` of a home.

A user's key has nothing to do with a node's: it signs records on whatever machine it lies, and its
private part never leaves the process that signs but into a file of mode 0600. Asyncio and sockets
may not enter.
"""

import re
from pathlib import Path

from nacl.signing import SigningKey

from xorbit.errors import MisuseError
from xorbit.homes import KEY_SUFFIX, KEYS_DIRECTORY
from xorbit.items import PUBLIC_KEY_BYTES, Record, make_record, pasted
from xorbit.keyfiles import make_directory, private_key_pem, read_key, write_new
from xorbit.paths import StrPath, path_from

NAME_CHARACTERS_MAX = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HEX_DIGITS = 2 * PUBLIC_KEY_BYTES


class UserKey:
    """An Ed25519 key that signs records."""

    __slots__ = ("name", "public_key", "signing_key")

    def __init__(self, signing_key: SigningKey, name: str = "") -> None:
        """Take a key that exists already; `new_key` and `load_key` give those of a home."""
        self.signing_key = signing_key
        self.public_key = bytes(signing_key.verify_key)
        self.name = name

    def __repr__(self) -> str:
        """Show the public part only."""
        return f"UserKey({self.name!r}, {self.public_key.hex()})"

    def sign(self, seq: int, value: bytes, salt: bytes = b"") -> Record:
        """Return a signed record.

        Raises:
            MisuseError: `seq` not in 0..2**63-1, value over 60,000 bytes or salt over 64 bytes.
        """
        return make_record(self.signing_key, seq, value, salt)


def new_key(home: StrPath, name: str) -> UserKey:
    """Make a key of this name in a home.

    Raises:
        MisuseError: no name for a key, or there is one of this name already.
        WorldError: it cannot be written.
    """
    return _keep(home, name, SigningKey.generate())


def import_key(home: StrPath, name: str, path: StrPath) -> UserKey:
    """Copy the key in a PEM PKCS #8 file (as `export_key` or OpenSSL writes it) into a home.

    Raises:
        MisuseError: as `new_key`, or the file holds no Ed25519 key.
        WorldError: it cannot be read or written.
    """
    return _keep(home, name, read_key(path_from(path), private=False))


def load_key(home: StrPath, name: str) -> UserKey:
    """Return the key of this name.

    Raises:
        MisuseError: there is none, its file is damaged, or others may read that.
        WorldError: it cannot be read.
    """
    path = _path(home, name)
    if not path.is_file():
        raise MisuseError(
            f"{home} has no key named {name!r}: 'xorbit key list' shows those that it has, "
            f"'xorbit key new {name}' makes one"
        )
    return UserKey(read_key(path), name)


def list_keys(home: StrPath) -> list[UserKey]:
    """Return the keys of a home, by name.

    Raises:
        MisuseError: as `load_key`.
        WorldError: a file cannot be read.
    """
    found = sorted((path_from(home) / KEYS_DIRECTORY).glob(f"*{KEY_SUFFIX}"))
    names = [path.name.removesuffix(KEY_SUFFIX) for path in found]
    return [load_key(home, name) for name in names if _is_name(name)]


def export_key(home: StrPath, name: str, path: StrPath) -> UserKey:
    """Copy a key, private part and all, to a new file of mode 0600.

    Raises:
        MisuseError: there is no such key, or there is something at `path` already.
        WorldError: it cannot be read or written.
    """
    key = load_key(home, name)
    if not write_new(path_from(path), private_key_pem(key.signing_key)):
        raise MisuseError(f"{path} exists already: a private key is never written over it")
    return key


def private_pem(key: UserKey) -> bytes:
    """Return the private key as PEM PKCS #8, for whoever said that it may be seen."""
    return private_key_pem(key.signing_key)


def public_key_from(home: StrPath, text: str) -> bytes:
    """Return the public key that is meant: 64 hexadecimal digits, or the name of a key of the home.

    Raises:
        MisuseError: neither.
    """
    text = pasted(text)
    if len(text) == _HEX_DIGITS:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    if not _is_name(text) or not _path(home, text).is_file():
        near = _is_hex(text) and _HEX_DIGITS // 2 < len(text) < 2 * _HEX_DIGITS
        hint = f", which has {len(text)}: copy it again" if near else ""
        raise MisuseError(
            f"expected a public key ({_HEX_DIGITS} hexadecimal digits) or the name of a key in "
            f"{home}, got {text!r}{hint}"
        )
    return load_key(home, text).public_key


def _keep(home: StrPath, name: str, key: SigningKey) -> UserKey:
    path = _path(home, name)
    make_directory(path.parent)
    if not write_new(path, private_key_pem(key)):
        raise MisuseError(f"{home} has a key named {name!r} already: choose another name")
    return UserKey(key, name)


def _path(home: StrPath, name: str) -> Path:
    if not _is_name(name):
        raise MisuseError(
            f"a key's name is 1..{NAME_CHARACTERS_MAX} of a-z, A-Z, 0-9, '_', '-' and '.', begins "
            f"with none of the last two, and is no public key; got {name!r}"
        )
    return path_from(home) / KEYS_DIRECTORY / f"{name}{KEY_SUFFIX}"


def _is_name(text: str) -> bool:
    """Return whether this may name a key: no path, no option, nothing hidden, no public key."""
    looks_like_key = len(text) == _HEX_DIGITS and _is_hex(text)
    return len(text) <= NAME_CHARACTERS_MAX and bool(_NAME.fullmatch(text)) and not looks_like_key


def _is_hex(text: str) -> bool:
    return not text.strip("0123456789abcdefABCDEF")
