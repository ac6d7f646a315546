"""What a node keeps for its owner: roots, and the orders by which a store changes them.

A root is the name of something that was put, published or pinned as a whole: a file or a directory
(a tree of blocks, or one block) or a record. Every block of it has a pin of its own in the store;
the root is what a user sees and lets go of. Orders travel in jobs and effects to the store, which
does each of them whole or not at all. Pure data: no clock, no tree is read here.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from xorbit.items import SALT_BYTES_MAX, ItemKey, Kind

Stage = Literal["kept", "joining", "leaving"]
"""Kept; or not whole yet (a pin under way: nothing of it is let go of); or being let go of."""


class Root(Struct, frozen=True, array_like=True, gc=False):
    """Something that is kept as a whole, by the key of its topmost item."""

    key: ItemKey
    tree: bool = False
    """Whether that item is an inner node of a file or directory: dag-pb, not raw."""
    size: Annotated[int, Meta(ge=0)] = 0
    """In bytes, of the file, of what a directory's files hold, or of the record's value."""
    stage: Stage = "kept"
    public_key: bytes = b""
    """Of a record: under which key and salt it stands."""
    salt: Annotated[bytes, Meta(max_length=SALT_BYTES_MAX)] = b""
    is_directory: bool = False
    sealed: bool = False
    """Whether it is a private tree: what it is made of is noted, as its nodes cannot be read."""

    @property
    def is_record(self) -> bool:
        """Return whether this is a record, and no file or directory."""
        return self.key.kind is Kind.RECORD


class Kept(Struct, frozen=True, array_like=True, gc=False):
    """A root as the store tells of it."""

    root: Root
    put_age_s: float
    """How long ago it was put or pinned."""
    refreshed_age_s: float | None
    """How long ago its topmost item was put or refreshed in the network; None: not yet."""
    number: int
    """Higher than that of each root that was there before this one came, or came back."""


# --- Orders -------------------------------------------------------------------------------------


class AddRoot(Struct, frozen=True, array_like=True, tag=1):
    """Note a root, in place of one of that name; the answer has it. One that is kept stays so.

    A sealed one is not replaced by one that is not: less would be known of what belongs to it.

    Refused where its topmost item has no pin (unless it is joining), where pins were let go of
    since `unpins_seen` (some of them may have been meant for this root), or where the root with
    this `number` is there no longer, or leaving. Then the answer has the one that is there, if any.
    """

    root: Root
    unpins_seen: int | None = None
    number: int | None = None


class LeaveRoot(Struct, frozen=True, array_like=True, tag=2):
    """Say of a root that it is being let go of; refused where there is none of that name.

    With `joining_only` also where it is kept.
    """

    key: ItemKey
    tree: bool
    joining_only: bool = False


class EndRoot(Struct, frozen=True, array_like=True, tag=3):
    """Forget a root that was being let go of; refused where it is not, or came back meanwhile."""

    key: ItemKey
    tree: bool
    number: int | None = None


class ScanRoots(Struct, frozen=True, array_like=True, tag=4):
    """Tell of up to `count` roots in the order of their names, behind `after`."""

    count: int
    after: bytes = b""


class ScanPins(Struct, frozen=True, array_like=True, tag=5):
    """Tell of up to `count` pinned keys in keyspace order, behind `after`."""

    count: int
    after: ItemKey | None = None


class LetGo(Struct, frozen=True, array_like=True, tag=6):
    """Take the pins from these keys; refused where a root was added since `added_seen`.

    Of the roots `unseen`, by name, it is not known whether they need some of these: those that are
    joining count as added anew, so that whoever pins them does so once more.
    """

    keys: tuple[ItemKey, ...]
    added_seen: int | None = None
    unseen: tuple[bytes, ...] = ()


class AddMembers(Struct, frozen=True, array_like=True, tag=7):
    """Note some of the items that a sealed root is made of; refused where it is not joining.

    They come in rows from 0 on, in the order of the tree, and are forgotten with the root.
    """

    key: ItemKey
    row: Annotated[int, Meta(ge=0, lt=2**32)]
    keys: tuple[ItemKey, ...]


class ScanMembers(Struct, frozen=True, array_like=True, tag=8):
    """Tell of a row of what a sealed root is made of; of none behind the last."""

    key: ItemKey
    row: Annotated[int, Meta(ge=0, lt=2**32)]


Order = AddRoot | LeaveRoot | EndRoot | ScanRoots | ScanPins | LetGo | AddMembers | ScanMembers

NOTHING = ScanRoots(0)
"""An order that only asks for the two counts."""


def only_reads(order: Order) -> bool:
    """Return whether an order changes nothing."""
    return isinstance(order, ScanRoots | ScanPins | ScanMembers)


class Told(Struct, frozen=True, array_like=True, gc=False):
    """What became of an order, and how often roots were added and pins let go of until now."""

    done: bool = True
    """Whether it was done; see each order for when it is refused."""
    added: int = 0
    unpins: int = 0
    roots: tuple[Kept, ...] = ()
    keys: tuple[ItemKey, ...] = ()
    """Of ScanPins and ScanMembers what was found; of LetGo those that had a pin."""
    fault: str = ""
    """What the disk said, where it failed; then nothing was changed."""


def root_name(key: ItemKey, *, tree: bool) -> bytes:
    """Return the name under which a store keeps a root: id, kind, whether a tree."""
    return key.id + bytes((key.kind, tree))
