"""A peer that says "I have it" of what it has not: what a put then says, and what is read."""

from pathlib import Path

from tests.edge.nodes import House, Peer, polite
from tests.unit.files.fakes import names
from xorbit.api import Node
from xorbit.files.transfer import PutSummary
from xorbit.wire.message import Envelope, Have, Missing, Response, Store, Stored

CONTENT = b"".join(bytes([number]) * 65_536 for number in range(8))


def liar(envelope: Envelope) -> Response | None:
    """Say that nothing is missing, store nothing, and know nobody."""
    match envelope.body:
        case Have():
            return Missing(())
        case Store():
            return Stored()
        case _:
            return polite(envelope)


async def put(home: Path, *addresses: object) -> tuple[PutSummary, set[bytes]]:
    bootstrap = [str(address) for address in addresses]
    async with Node(home, bootstrap=bootstrap, network="xorbit edge tests", control=False) as node:
        done = await node.put_file(CONTENT)
    return done, set(done.fewest)


async def read(home: Path, to: Path, done: PutSummary, *addresses: object) -> int:
    bootstrap = [str(address) for address in addresses]
    async with Node(home, bootstrap=bootstrap, network="xorbit edge tests", control=False) as node:
        return await node.get_file_to(done.name, to)


async def test_a_liar_counts_as_a_holder_and_keeps_nobody_else_from_being_one(
    tmp_path: Path,
) -> None:
    """Each node is asked for itself: who is honest is sent the block whatever the liar says.

    The liar is in the receipt all the same, as is one that says "stored": who says that it holds a
    block is believed until somebody asks for it. So the receipt names who said so, and a put sends
    to five.
    """
    async with House() as house:
        honest = await house.node()
        peer = await house.peer(answer=liar)
        false = await peer.listen()
        done, holders = await put(tmp_path / "putter", honest.address, false)
        assert holders == {honest.id, peer.key.id}
        size = await read(tmp_path / "reader", tmp_path / "got", done, honest.address, false)
        assert size == len(CONTENT)
        assert (tmp_path / "got").read_bytes() == CONTENT
        assert names(tmp_path) == ["got", "putter", "reader"]


async def test_where_all_lie_the_owner_has_it_still(tmp_path: Path) -> None:
    """Whoever puts keeps a copy that is no receipt, and refreshes it; the liars hold nothing."""
    async with House() as house:
        peer: Peer = await house.peer(answer=liar)
        false = await peer.listen()
        done, holders = await put(tmp_path / "putter", false)
        assert holders == {peer.key.id}
        assert await read(tmp_path / "putter", tmp_path / "got", done, false) == len(CONTENT)
