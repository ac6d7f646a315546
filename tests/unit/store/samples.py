"""Items to fill stores with, and the ways to let them rot. No tests here."""

import random

from nacl.signing import SigningKey

from xorbit.items import (
    Address,
    Block,
    ConnectionItem,
    Item,
    Kind,
    Record,
    key_of,
    make_block,
    make_connection_item,
    make_record,
)
from xorbit.store.base import Write, key_to_bytes
from xorbit.store.lmdb import LmdbStore
from xorbit.store.memory import MemoryStore

QUOTA_BYTES = 2**20
ALICE, BOB = (SigningKey(bytes([n]) * 32) for n in (1, 2))


def block(seed: int, size: int = 1_000, kind: Kind = Kind.BLOCK_BLAKE3_256) -> Block:
    return make_block(random.Random(seed).randbytes(size), kind)


def record(seq: int, value: bytes = b"value", salt: bytes = b"", key: SigningKey = ALICE) -> Record:
    return make_record(key, seq, value, salt)


def connection(seq: int, port: int = 4_000, key: SigningKey = ALICE) -> ConnectionItem:
    return make_connection_item(key, seq, [Address("2001:db8::1", port), Address("node.test", 1)])


def write(item: Item, cas: int | None = None) -> Write:
    return Write(key_of(item), item, cas)


def rot(store: LmdbStore | MemoryStore, item: Item) -> None:
    """Let one byte of a held item's content change, and neither its lengths nor its counts."""
    if isinstance(store, MemoryStore):
        store.damage(key_of(item))
        return
    content = item.data if isinstance(item, Block) else item.signature
    flipped = bytes([content[0] ^ 1]) + content[1:]
    rewrite(store, item, lambda raw: raw.replace(content, flipped, 1))


def rewrite(store: LmdbStore, item: Item, change) -> None:
    """Put other bytes where an item is held, behind the store's back."""
    with store._home.write_txn() as txn:
        raw_key = key_to_bytes(key_of(item))
        txn.put(raw_key, change(txn.get(raw_key)))
