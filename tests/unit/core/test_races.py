"""Races for the next version of a record, where connections break in the middle."""

from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import distance
from xorbit.items import Record, make_record, record_key
from xorbit.wire import message

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))


def record(seq: int) -> Record:
    return make_record(KEY, seq, b"value")


def held(node: Node) -> object:
    return node.store.read([NAME])[0]


def test_in_a_race_a_node_whose_connection_broke_is_asked_once_more() -> None:
    """It may have decided already: the others alone might decide otherwise."""
    world = World()
    nodes = world.network(7)
    world.outcome(nodes[0], nodes[0].call(lambda guid: jobs.Store(guid, NAME, record(1))))
    world.run(2.0)
    closest = min(nodes, key=lambda node: distance(node.id, NAME.id))
    writer = next(node for node in reversed(nodes) if node is not closest)
    guid = writer.call(lambda guid: jobs.Store(guid, NAME, record(2), 1))
    world.until(lambda: held(closest) == record(2), 5.0)
    for connection in writer.links_to(closest):
        writer.cut(connection, "bad luck")
    done = world.outcome(writer, guid)
    assert isinstance(done, fx.PutDone)
    assert done.won
    assert message.Receipt(closest.id, "stored") in done.receipts
    asked = [
        job
        for _, job, _ in closest.log
        if isinstance(job, jobs.HandleRequest) and job.request == message.Store(record(2), 1)
    ]
    assert len(asked) == 2
