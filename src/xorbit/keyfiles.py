"""Files that hold keys, and what belongs to them: read if only their owner may, written whole.

Who a node is and what a network is made of stands in identity.py, a user's keys in keys.py; neither
asyncio nor sockets may enter here.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from nacl.signing import SigningKey

from xorbit.errors import MisuseError, WorldError

FILE_BYTES_MAX = 65_536

_File = TypeVar("_File", bound=Struct)

# --- Keys ---------------------------------------------------------------------------------------


def private_key_pem(key: SigningKey, password: bytes | None = None) -> bytes:
    """Return a private key as PEM PKCS #8, encrypted where there is a password."""
    return Ed25519PrivateKey.from_private_bytes(bytes(key)).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


def read_key(path: Path, *, private: bool = True) -> SigningKey:
    """Return the Ed25519 key in a PEM PKCS #8 file.

    Raises:
        MisuseError: it holds no such key, or (`private`) others than its owner may read it.
        WorldError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise WorldError(f"cannot read the key {path}: {error.strerror}") from error
    if private and mode & 0o077:
        raise MisuseError(
            f"others may read the key {path} (mode {mode:04o}); run: chmod 600 '{path}'"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MisuseError(f"{path} holds no private key in PEM PKCS #8; restore it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise MisuseError(f"{path} holds a key of another kind than Ed25519; restore it")
    return SigningKey(key.private_bytes_raw())


# --- Files --------------------------------------------------------------------------------------


def read_file(path: Path) -> bytes:
    """Return what a small file holds, as far as such a file may go on.

    Raises:
        WorldError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise WorldError(f"cannot read {path}: {error.strerror}") from error


def to_json(content: Struct) -> bytes:
    """Return a small file of facts, as its owner may read it."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def from_json(content: bytes, kind: type[_File], source: str) -> _File:
    """Return what a small file of facts says.

    Raises:
        MisuseError: it is damaged; the message names the source.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MisuseError(f"{source} is damaged: {error}") from error


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may look into, unless there is one.

    Raises:
        WorldError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WorldError(f"cannot make the directory {path}: {error.strerror}") from error


def write_new(path: Path, data: bytes) -> bool:
    """Put a file of mode 0600 there unless there is one; whole or not at all.

    Returns:
        Whether it was put.

    Raises:
        WorldError: it cannot be written.
    """
    return _write(path, data, replace=False)


def write_over(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 there, in the place of any that there was; whole or not at all.

    Raises:
        WorldError: it cannot be written.
    """
    _write(path, data, replace=True)


def remove_file(path: Path) -> None:
    """Remove a file, unless it is gone.

    Raises:
        WorldError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WorldError(f"cannot remove {path}: {error.strerror}") from error


def _write(path: Path, data: bytes, *, replace: bool) -> bool:
    try:
        # mkstemp opens with O_EXCL and mode 0600: nobody else can ever have read it.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return _put_in_place(temporary, path, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WorldError(f"cannot write {path}: {error.strerror}") from error


def _put_in_place(temporary: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        temporary.replace(path)
    else:
        try:
            path.hardlink_to(temporary)  # unlike a rename, never overwrites
        except FileExistsError:
            return False
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
