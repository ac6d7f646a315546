"""dag-pb: a node of links and data, in its one canonical encoding, and no other.

Pure; what the data means (UnixFS) may not enter here. What decodes encodes back to the same bytes.

Spec: https://ipld.io/specs/codecs/dag-pb/spec/. In two points the decoder is stricter than it asks,
because no file of ours needs more: data before links (as some tools wrote it) is refused, and so
are links that are not sorted by name.
"""

from collections.abc import Sequence

from msgspec import Struct

from xorbit.errors import FormatError
from xorbit.files.cid import Cid, decode_cid
from xorbit.files.names import shown
from xorbit.files.protobuf import Field, Schema, bytes_field, decode_message, number_field

_HASH = Field(1, "Hash", is_bytes=True)
_NAME = Field(2, "Name", is_bytes=True)
_TSIZE = Field(3, "Tsize")
_LINK = Schema(_HASH, _NAME, _TSIZE)

_LINKS = Field(2, "Links", is_bytes=True, is_repeated=True)
_DATA = Field(1, "Data", is_bytes=True)
_NODE = Schema(_LINKS, _DATA)  # the order on the wire, which is not that of the numbers


class Link(Struct, frozen=True):
    """A link (PBLink): to what, under which name, and how many bytes all blocks below it weigh.

    `tsize` is advice, as the spec has it; nobody may rely on one that came from a peer.
    """

    cid: Cid
    name: str | None = None
    tsize: int | None = None


class Node(Struct, frozen=True):
    """A node (PBNode). Empty data and no data are different nodes."""

    links: tuple[Link, ...] = ()
    data: bytes | None = None


def encode_node(node: Node) -> bytes:
    """Return the canonical bytes of a node: links sorted by name, then data."""
    parts = [bytes_field(_LINKS, _encode_link(link)) for link in _sorted(node.links)]
    if node.data is not None:
        parts.append(bytes_field(_DATA, node.data))
    return b"".join(parts)


def decode_node(data: bytes) -> Node:
    """Return the node of some bytes.

    Raises:
        FormatError: they are not the canonical encoding of a node with links that we can follow.
    """
    message = decode_message(data, _NODE)
    links = tuple(_decode_link(link) for link in message.blobs(_LINKS))
    if links != _sorted(links):
        raise FormatError("links are not sorted by name")
    return Node(links, message.blob(_DATA))


def _sorted(links: Sequence[Link]) -> tuple[Link, ...]:
    # Text sorts by code point, which is the order of its UTF-8 bytes.
    return tuple(sorted(links, key=lambda link: link.name or ""))


def _encode_link(link: Link) -> bytes:
    encoded = bytes_field(_HASH, bytes(link.cid))
    if link.name is not None:
        encoded += bytes_field(_NAME, link.name.encode())
    if link.tsize is not None:
        encoded += number_field(_TSIZE, link.tsize)
    return encoded


def _decode_link(data: bytes) -> Link:
    message = decode_message(data, _LINK)
    target = message.blob(_HASH)
    if target is None:
        raise FormatError("a link has no Hash")
    return Link(decode_cid(target), _decode_name(message.blob(_NAME)), message.number(_TSIZE))


def _decode_name(name: bytes | None) -> str | None:
    if name is None:
        return None
    try:
        return name.decode()
    except UnicodeDecodeError:
        text = shown(name.decode(errors="surrogateescape"))
        raise FormatError(f"a link's Name is not UTF-8: {text}") from None
