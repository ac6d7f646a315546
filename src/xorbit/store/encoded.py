"""Items as bytes on disk: a block is its own bytes, a signed item is MessagePack.

Every item is proved on the way out, against the key that it stands under. No files here.
"""

from typing import Final

import msgspec

from xorbit.errors import ItemError
from xorbit.items import (
    BLOCK_KINDS,
    ITEM_OVERHEAD_BYTES,
    Block,
    ConnectionItem,
    Item,
    ItemKey,
    Kind,
    Record,
    block_key,
    check_is,
    size_of,
)
from xorbit.store.base import DAMAGED, ReadResult

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_record: Final = msgspec.msgpack.Decoder(Record).decode
_decode_connection: Final = msgspec.msgpack.Decoder(ConnectionItem).decode


def encode_item(item: Item) -> bytes:
    """Return the bytes of a signed item."""
    return _encode(item)


def prove(key: ItemKey, raw: bytes) -> ReadResult:
    """Return the item that these bytes are, DAMAGED where they do not prove to be it."""
    if key.kind in BLOCK_KINDS:
        return Block(key.kind, raw) if block_key(raw, key.kind).id == key.id else DAMAGED
    try:
        item = _decode(key.kind, raw)
        check_is(item, key)
    except (msgspec.DecodeError, UnicodeDecodeError, ItemError):
        return DAMAGED
    return item


def _decode(kind: Kind, raw: bytes) -> Item:
    return _decode_record(raw) if kind is Kind.RECORD else _decode_connection(raw)


def weigh(key: ItemKey, raw: bytes) -> int:
    """Return the `size_of` what is held; of bytes that are no item any more, their number."""
    if key.kind in BLOCK_KINDS:
        return ITEM_OVERHEAD_BYTES + len(raw)
    try:
        return size_of(_decode(key.kind, raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ITEM_OVERHEAD_BYTES + len(raw)
