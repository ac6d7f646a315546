"""Private content: blocks that are sealed where they are made; opened.py opens them.

Pure but for the chance that a key is drawn from. `make_block` is where the blocks of new trees are
made, sealed or plain; nothing else of this room needs to know which.

A sealed tree is an ordinary one whose blocks are sealed one by one, leaves and nodes alike; a node
names its children by the hashes of their sealed bytes. So a child is bound by its parent's seal,
and nobody but who has the key knows which blocks belong together.

    sealed block = position, masked (8 bytes) | ciphertext | tag (16 bytes)

- The cipher is ChaCha20-Poly1305 (RFC 8439) by `cryptography`. The nonce is the position of the
  block in its put, in the order of making. Every put draws a new key, and a `Sealer` counts up, so
  no key ever meets a nonce twice; that is why a key cannot be chosen.
- The position would tell a holder how large the put is, and how its blocks follow each other. So
  it is masked as QUIC masks the numbers of packets (RFC 9001, 5.4): by a keyed hash (BLAKE3) of
  the tag, which looks random and differs from block to block.
- Both keys are derived from the one in the name (BLAKE3, derive_key).
"""

from secrets import token_bytes
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from xorbit.files.cid import Cid, Codec, cid_of_block
from xorbit.files.seal_key import SECRET_BYTES, SealKey
from xorbit.items import BLOCK_BYTES_MAX, Kind

_POSITION_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
SEAL_BYTES: Final = _POSITION_BYTES + _TAG_BYTES
"""By how much a sealed block is longer than what is in it."""

_CIPHER_CONTEXT: Final = "xorbit private blocks, version 1: ChaCha20-Poly1305 key"
_MASK_CONTEXT: Final = "xorbit private blocks, version 1: key of the positions' mask"


class Seal:
    """Seals and opens single blocks under one key."""

    def __init__(self, secret: bytes) -> None:
        """Take the key that the name carries."""
        self._cipher = ChaCha20Poly1305(blake3(secret, derive_key_context=_CIPHER_CONTEXT).digest())
        self._mask_key = blake3(secret, derive_key_context=_MASK_CONTEXT).digest()

    def close(self, position: int, data: bytes) -> bytes:
        """Return a block with `data` in it; no position twice under one key."""
        sealed = self._cipher.encrypt(position.to_bytes(_NONCE_BYTES, "big"), data, None)
        return self._masked(position, sealed).to_bytes(_POSITION_BYTES, "big") + sealed

    def open(self, block: bytes) -> bytes:
        """Return what is in a block.

        Raises:
            cryptography.exceptions.InvalidTag: it was not sealed under this key, or is damaged.
        """
        sealed = block[_POSITION_BYTES:]
        position = self._masked(int.from_bytes(block[:_POSITION_BYTES], "big"), sealed)
        return self._cipher.decrypt(position.to_bytes(_NONCE_BYTES, "big"), sealed, None)

    def _masked(self, position: int, sealed: bytes) -> int:
        mask = blake3(sealed[-_TAG_BYTES:], key=self._mask_key).digest(_POSITION_BYTES)
        return position ^ int.from_bytes(mask, "big")


# --- Making -------------------------------------------------------------------------------------


class Sealer:
    """Seals the blocks of one put, in one thread, under a key that it draws itself."""

    def __init__(self, kind: Kind = Kind.BLOCK_BLAKE3_256) -> None:
        """Draw a key; `kind` is the hash that names the sealed blocks."""
        self.kind = kind
        self._secret = token_bytes(SECRET_BYTES)
        self._seal = Seal(self._secret)
        self._position = 0

    def seal(self, data: bytes) -> bytes:
        """Return the next block of the put, sealed."""
        position, self._position = self._position, self._position + 1
        return self._seal.close(position, data)

    def key_of(self, root: Cid) -> SealKey:
        """Return the key of the put's name, whose topmost block is `root`."""
        return SealKey(self._secret, is_node=root.codec is Codec.DAG_PB)


Making = Kind | Sealer
"""How blocks are made: plain, named by a hash, or sealed."""


def make_block(data: bytes, codec: Codec, making: Making) -> tuple[Cid, bytes]:
    """Return a block's name and its bytes. The codec is that of `data`, sealed or not.

    Raises:
        MisuseError: a kind that is no hash of blocks.
    """
    if isinstance(making, Sealer):
        data = making.seal(data)
        making = making.kind
    return cid_of_block(data, codec, making), data


def content_bytes(size: int, making: Making) -> int:
    """Return how many bytes are in a block of that size."""
    return size - SEAL_BYTES if isinstance(making, Sealer) else size


def content_bytes_max(making: Making) -> int:
    """Return how many bytes a block has room for."""
    return content_bytes(BLOCK_BYTES_MAX, making)
