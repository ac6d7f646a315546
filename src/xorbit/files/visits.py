"""How often a walk through a stranger's tree may come to the same directory.

Pure. A hash cannot be in its own tree, so no walk goes round in a circle; but a directory that
names one child a thousand times, in ten levels, takes ten blocks and has 10**30 entries. What is
new somebody had to make, and is not bounded here; what comes again and again is, in proportion to
it.
"""

from xorbit.config import (
    TREE_DIRECTORIES_SEEN_MAX,
    TREE_LEAVES_SEEN_MAX,
    TREE_NODES_MAX,
    TREE_REPEATED_ENTRIES_MAX,
    TREE_REPEATED_PER_NEW_MAX,
)
from xorbit.errors import FormatError
from xorbit.files.cid import Cid, Codec

_REMEMBERED_BYTES = 8
_NAMED_BYTES = 2 + 16


class Visits:
    """The directories that a walk has been in, and how many entries it took from them again."""

    def __init__(
        self,
        directories_max: int = TREE_DIRECTORIES_SEEN_MAX,
        repeated_max: int = TREE_REPEATED_ENTRIES_MAX,
        repeated_per_new_max: int = TREE_REPEATED_PER_NEW_MAX,
    ) -> None:
        self._directories_max = directories_max
        self._repeated_max = repeated_max
        self._repeated_per_new_max = repeated_per_new_max
        self._seen: set[int] = set()  # only ever asked whether something is in it
        self._new = 0
        self._repeated = 0

    def is_repeated(self, cid: Cid) -> bool:
        """Note that a directory is entered, and say whether its entries count as repeated.

        Where memory for so many is full, they do.
        """
        # Whoever finds two directories of one start of a hash has them counted, nothing worse.
        start = int.from_bytes(cid.key.id[:_REMEMBERED_BYTES], "big")
        if start in self._seen or len(self._seen) >= self._directories_max:
            return True
        self._seen.add(start)
        return False

    def count(self, cid: Cid, *, is_repeated: bool) -> None:
        """Count one entry of a directory.

        Raises:
            FormatError: it is repeated, and there were too many such for those that were new.
        """
        if not is_repeated:
            self._new += 1
            return
        self._repeated += 1
        most = max(self._repeated_max, self._repeated_per_new_max * self._new)
        if self._repeated > most:
            raise FormatError(
                f"block {cid}: with this directory, the tree has more than {most:,} entries that "
                "repeat others; get a part of it by its path"
            )


class SeenBlocks:
    """The blocks that a pass over a whole tree has had: all its nodes, and the latest leaves."""

    def __init__(
        self, nodes_max: int = TREE_NODES_MAX, leaves_max: int = TREE_LEAVES_SEEN_MAX
    ) -> None:
        self._nodes_max = nodes_max
        self._leaves_max = leaves_max
        self._nodes: set[bytes] = set()  # only ever asked whether something is in it
        self._leaves: dict[bytes, None] = {}

    def add(self, cid: Cid) -> bool:
        """Note a block; return whether it is new, for a leaf as far as is remembered.

        Raises:
            FormatError: there were too many nodes.
        """
        # A kind and 128 bits: nobody finds two blocks that agree in so many.
        name = bytes(cid)[2 : 2 + _NAMED_BYTES]
        if name in self._nodes or (cid.codec is Codec.RAW and name in self._leaves):
            return False  # but what was a leaf may be a node elsewhere, and has links then
        if cid.codec is Codec.RAW:
            self._add_leaf(name)
        else:
            self._add_node(cid, name)
        return True

    def _add_leaf(self, name: bytes) -> None:
        if len(self._leaves) >= self._leaves_max:
            del self._leaves[next(iter(self._leaves))]
        self._leaves[name] = None

    def _add_node(self, cid: Cid, name: bytes) -> None:
        if len(self._nodes) >= self._nodes_max:
            raise FormatError(
                f"block {cid}: the tree has more than {self._nodes_max:,} nodes; "
                "take parts of it by their paths"
            )
        self._nodes.add(name)
