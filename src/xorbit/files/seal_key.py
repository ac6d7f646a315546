"""The secret part of a private name: its text form, and that nothing shows it by accident.

Pure. A private name is `xorbit://CID#KEY`, with a path behind it as behind any name. What stands
behind # is the fragment of that URI (RFC 3986, 3.5): programs keep it to themselves and send it to
nobody. So it is here: the key opens blocks where it was typed, and goes into no message.

The text is base32 as that of a CID, 56 characters: a byte that says what the topmost block holds
(the code of raw or of dag-pb), 32 bytes of key, and two of CRC (CCITT), so that a slip of the hand
is told at once instead of after a search for blocks.
"""

import re
from base64 import b32decode, b32encode
from binascii import crc_hqx
from typing import Any

from msgspec import Struct

from xorbit.errors import MisuseError

KEY_MARK = "#"
SECRET_BYTES = 32
KEY_CHARACTERS = 56

_LEAF, _NODE = 0x55, 0x70
_CRC_BYTES = 2
_KEY = re.compile(f"[a-z2-7]{{{KEY_CHARACTERS}}}")
_MARKED_KEY = re.compile(f"{KEY_MARK}{_KEY.pattern}(?![a-z2-7])")
_TYPED_KEY = re.compile(
    r"""
      ( (?: [#] | %(?:25)*23 ) \s* ) [^\s/'"]{50,}      # the mark, also as URLs have it, and a key
    | ( (?: [#?] | %(?:25)*23 ) \s* ) [A-Za-z0-9]{20,}  # the mark, also mistyped, and part of a key
      (?: (?: \s | \\[nrt] )+ [A-Za-z0-9]{20,} )*       # (on several lines, also as repr has them)
    | (?: \b | (?<= \b[Bb][A-Za-z2-7]{58} ) )           # or no mark, alone or behind a CID,
      [KOko][A-Za-z0-9]{39,}                            # and a key: so its first byte reads
    """,
    re.VERBOSE,
)
"""What may be a key, or most of one, in a line in which anything may be wrong."""


class SealKey(Struct, frozen=True):
    """What opens the blocks of one private put. `text` is its one text form."""

    secret: bytes
    is_node: bool
    """Whether the topmost block holds an inner node (dag-pb), and not the bytes of a file."""

    @property
    def text(self) -> str:
        """Return the 56 characters that stand behind # in a name."""
        data = bytes((_NODE if self.is_node else _LEAF,)) + self.secret
        return b32encode(data + _crc(data)).decode().lower()

    def __repr__(self) -> str:
        """Return no word of the key: this goes into tracebacks and logs."""
        return "SealKey(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say as little as `repr` does."""
        return []


def _crc(data: bytes) -> bytes:
    return crc_hqx(data, 0).to_bytes(_CRC_BYTES, "big")


def parse_key(text: str) -> SealKey:
    """Return the key that stands behind # in a name.

    Raises:
        MisuseError: it is none, or was copied wrongly; the message has no part of it.
    """
    if not _KEY.fullmatch(text):
        raise MisuseError(
            f"behind # stands a key of {KEY_CHARACTERS} characters (a-z and 2-7), here stand "
            f"{len(text)}; was it cut when copied? A path follows the key: NAME#KEY/path"
        )
    data = b32decode(text.upper())
    data, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if _crc(data) != crc or data[0] not in (_LEAF, _NODE):
        raise MisuseError("the key behind # was copied wrongly: some of its characters differ")
    return SealKey(data[1:], data[0] == _NODE)


def holds_key(text: str) -> bool:
    """Return whether in a line or a part of a path stands a key behind #, of the right form."""
    return _MARKED_KEY.search(text) is not None


def may_hold_key(text: str) -> bool:
    """Return whether in a line stands what may be a key, however it was mistyped."""
    return _TYPED_KEY.search(text) is not None


def keys_hidden(text: str) -> str:
    """Return a message with three dots in place of what may be a key, however it was mistyped."""
    return _TYPED_KEY.sub(lambda found: f"{found[1] or found[2] or ''}...", text)


def without_key(text: str) -> str:
    """Return a name that a user wrote as it may be shown: all behind # becomes three dots.

    So does what may be a key at another place.
    """
    name, mark, key = keys_hidden(text).partition(KEY_MARK)
    return f"{name}{mark}..." if key else name + mark
