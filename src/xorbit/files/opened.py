"""Private content as it is read: each block of a sealed tree is opened when it is got.

What gets, lists or opens trees stands above this and sees plain blocks. How a block is sealed
stands in sealed.py. No disk, no network and no asyncio here.
"""

from cryptography.exceptions import InvalidTag

from xorbit.errors import FormatError
from xorbit.files.cid import Cid, Codec, Place
from xorbit.files.flow import BlocksToGet
from xorbit.files.seal_key import KEY_MARK, SealKey
from xorbit.files.sealed import Seal
from xorbit.items import ItemKey

_SCHEME = "xorbit://"


class Opening:
    """Where the blocks of a sealed tree come from."""

    def __init__(self, blocks: BlocksToGet, key: SealKey) -> None:
        """Get sealed blocks from `blocks`."""
        self._blocks = blocks
        self._seal = Seal(key.secret)

    async def get_block(self, key: ItemKey) -> bytes:
        """Return what is in a block.

        Raises:
            FormatError: it was not sealed under this key; names the block.
            XorbitError: whatever the other `get_block` raised.
        """
        block = await self._blocks.get_block(key)
        try:
            return self._seal.open(block)  # of 64 KiB: 25 us, less than the way to a thread takes
        except InvalidTag:
            raise FormatError(
                f"block {Cid(Codec.RAW, key)} does not open: it was sealed under another key than "
                "that of the name, or is not private content"
            ) from None


def opened(blocks: BlocksToGet, key: SealKey | None) -> BlocksToGet:
    """Return where the blocks of a tree come from: through its key, if it has one."""
    return blocks if key is None else Opening(blocks, key)


def inner(cid: Cid, key: SealKey | None) -> Cid:
    """Return the name of a topmost block within its tree: node or leaf, which the key says."""
    if key is None:
        return cid
    return Cid(Codec.DAG_PB if key.is_node else Codec.RAW, cid.key)


def outer(cid: Cid, key: SealKey | None) -> Cid:
    """Return the name of a tree's block for everybody: sealed, it is bytes that say nothing."""
    return cid if key is None else Cid(Codec.RAW, cid.key)


def private_name(cid: Cid, key: SealKey | None) -> str:
    """Return what gets a tree back: with a key it is as secret as the content."""
    return str(cid) if key is None else f"{_SCHEME}{cid}{KEY_MARK}{key.text}"


def inner_place(place: Place) -> Place:
    """Return a place as its tree has it, without the key."""
    return place if place.seal is None else Place(inner(place.cid, place.seal), place.path)
