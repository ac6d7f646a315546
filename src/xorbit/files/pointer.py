"""Records that point to a tree: what stands in one, and the names that go by way of one.

Pure. The value of such a record is the ASCII text `xorbit-tree:` and the CID of the tree's root in
its one text form, 71 bytes and nothing else: any other value points to no tree. The tag is there so
that a record of something else that happens to hold a CID is not taken for one. A record is signed
by its owner but holds no key of a private tree: everybody can read it.
"""

from msgspec import Struct

from xorbit.errors import MisuseError, NotFoundError
from xorbit.files.cid import Cid, Place, parse_cid, parse_place, split_name
from xorbit.items import PUBLIC_KEY_BYTES, Record

TREE_TAG = "xorbit-tree:"

_HEX = frozenset("0123456789abcdefABCDEF")
_IPFS = "ipfs:"


class RecordPlace(Struct, frozen=True):
    """A place in the newest tree that a record points to: the record's key, and the path below.

    `str(place)` is `PUBLICKEY/path`; the salt is not in it.
    """

    public_key: bytes
    salt: bytes = b""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the public key in hexadecimal digits, and the path."""
        return "/".join((self.public_key.hex(), *self.path))


class TreeVersion(Struct, frozen=True):
    """A version of a tree that is published under a key: which one, and what its root is named."""

    public_key: bytes
    salt: bytes
    seq: int
    cid: Cid


def pointer_to(cid: Cid) -> bytes:
    """Return the value of a record that points to the tree of this root."""
    return f"{TREE_TAG}{cid}".encode()


def tree_version(record: Record) -> TreeVersion:
    """Return what a record points to.

    Raises:
        NotFoundError: it points to no tree.
    """
    try:
        cid = _pointed_to(record.value)
    except MisuseError as error:
        raise NotFoundError(
            f"version {record.seq} of the record of {record.public_key.hex()} points to no tree "
            f"('xorbit resolve' shows it): {error}"
        ) from error
    return TreeVersion(record.public_key, record.salt, record.seq, cid)


def _pointed_to(value: bytes) -> Cid:
    tag, text = value[: len(TREE_TAG)], value[len(TREE_TAG) :].decode(errors="replace")
    if tag != TREE_TAG.encode():
        raise MisuseError(f"its value does not begin with {TREE_TAG!r}")
    if "/" in text:  # also of a scheme
        raise MisuseError("behind the tag stands more than the name of a tree")
    return parse_cid(text)


def parse_name(text: str, salt: bytes = b"") -> Place | RecordPlace:
    """Return the place that a user wrote: `CID/path` or `PUBLICKEY/path`, after a scheme or alone.

    Args:
        text: A public key is 64 hexadecimal digits; it may stand after `xorbit://` only.
        salt: Which of the key's records.

    Raises:
        MisuseError: neither; as `parse_place`. Or a salt for what is no public key.
    """
    if not text.startswith(_IPFS):
        name, path = split_name(text)
        if len(name) == 2 * PUBLIC_KEY_BYTES and _HEX.issuperset(name):
            return RecordPlace(bytes.fromhex(name), salt, path)
    place = parse_place(text)
    if salt:
        raise MisuseError(f"only a public key's record has a salt; {place.cid} is no public key")
    return place
