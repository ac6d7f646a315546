"""Followers over real sockets that do not take what they asked to be told."""

from nacl.signing import SigningKey

from tests.edge.nodes import PATIENT, House
from xorbit.core import job as jobs
from xorbit.items import Record, make_record, record_key
from xorbit.wire import message
from xorbit.wire.message import Envelope, Follow, Following, Store, Stored, Updated

KEY = SigningKey(bytes(range(32)))
ID = record_key(bytes(KEY.verify_key)).id
BUFFER_BYTES = 65_536


def version_of(seq: int) -> Record:
    return make_record(KEY, seq, b"x" * 60_000)


async def test_a_follower_that_does_not_read_costs_one_version_and_then_gets_the_newest():
    limits = PATIENT.replace(write_buffer_bytes_max=BUFFER_BYTES, push_interval_s=1e-6)
    async with House(limits) as house:
        node = await house.node()
        follower, writer = await house.peer(), await house.peer()
        connection = await follower.dial(node.address)
        assert isinstance(await follower.ask(connection, Follow(ID)), Following)
        connection.pause()
        to_node = await writer.dial(node.address)
        for seq in range(1, 301):
            assert await writer.ask(to_node, Store(version_of(seq))) == Stored()
        unsent = [c._socket.get_write_buffer_size() for c in node.driver._connections.values()]
        assert max(unsent) < BUFFER_BYTES + 4 * len(message.encode_frame(_push()))
        (waiting,) = node.driver._withheld._pushes.values()
        assert len(waiting) == 1

        connection.resume()
        await follower.inbox.until(Envelope, lambda got: got.body == Updated(version_of(300)))
        assert len(follower.inbox.all(Envelope)) < 300
        assert node.driver._withheld._pushes == {}


def _push() -> Envelope:
    return Envelope(bytes(16), bytes(16), Updated(version_of(1)))


async def test_what_is_withheld_from_a_follower_goes_with_its_connection():
    limits = PATIENT.replace(write_buffer_bytes_max=BUFFER_BYTES, push_interval_s=1e-6)
    async with House(limits) as house:
        node = await house.node()
        follower, writer = await house.peer(), await house.peer()
        connection = await follower.dial(node.address)
        assert isinstance(await follower.ask(connection, Follow(ID)), Following)
        connection.pause()
        to_node = await writer.dial(node.address)
        for seq in range(1, 301):
            assert await writer.ask(to_node, Store(version_of(seq))) == Stored()
        assert node.driver._withheld._pushes
        connection._socket.abort()
        await node.jobs.until(jobs.ConnectionLost)
        assert node.driver._withheld._pushes == {}
        assert len(node.driver.machine.state.leases) == 0
