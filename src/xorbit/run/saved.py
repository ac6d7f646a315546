"""The addresses of live peers that a home remembers, so that the next start finds its network.

One small JSON file, replaced whole; the addresses of each network stand under its authority's key,
so that networks never meet by a stray address. Nothing here is ever waited for: no asyncio.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from xorbit.errors import MisuseError, StoreError
from xorbit.items import Address, parse_address
from xorbit.run.driver import Driver

SAVED_FILE = "peers.json"
SAVED_BYTES_MAX = 2**20
ADDRESSES_MAX = 64
"""Addresses kept for each network."""
NETWORKS_MAX = 16
"""Networks kept; the one unused for longest is forgotten."""


def live_addresses(driver: Driver) -> tuple[Address, ...]:
    """Return addresses that led to peers: of those connected now, then of those known."""
    state = driver.machine.state
    dialled = [peer.address for peer in driver.peers() if peer.dialled]
    proved = [
        address
        for contact in state.table.closest(state.own, ADDRESSES_MAX)
        for address in contact.addresses[:1]
    ]
    return tuple(dict.fromkeys([*dialled, *proved]))[:ADDRESSES_MAX]


def load_addresses(home: Path, authority_key: bytes) -> list[Address]:
    """Return the addresses saved for this network; none where the file is missing or damaged."""
    found: list[Address] = []
    for text in _load(home).get(authority_key.hex(), []):
        with suppress(MisuseError):
            found.append(parse_address(text))
    return found


def save_addresses(home: Path, authority_key: bytes, addresses: Sequence[Address]) -> None:
    """Replace the addresses saved for this network. Only the one owner of a home may call it.

    Raises:
        StoreError: the file cannot be written.
    """
    saved = _load(home)
    saved.pop(authority_key.hex(), None)
    saved[authority_key.hex()] = [str(address) for address in addresses[:ADDRESSES_MAX]]
    kept = dict(list(saved.items())[-NETWORKS_MAX:])
    try:
        _replace(home / SAVED_FILE, msgspec.json.format(msgspec.json.encode(kept), indent=2))
    except OSError as error:
        raise StoreError(f"cannot write {home / SAVED_FILE}: {error.strerror}") from error


def _load(home: Path) -> dict[str, list[str]]:
    try:
        with (home / SAVED_FILE).open("rb") as file:
            return msgspec.json.decode(file.read(SAVED_BYTES_MAX), type=dict[str, list[str]])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
