"""Following at its edges: slow holders, a slow disk, and what followers elsewhere leave behind."""

from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid, Id
from xorbit.items import Contact, Record, make_record, record_key
from xorbit.store.base import Write
from xorbit.wire import message

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))


def record(seq: int) -> Record:
    return make_record(KEY, seq, b"value")


def publish(world: World, node: Node, item: Record) -> None:
    world.outcome(node, node.call(lambda guid: jobs.Store(guid, NAME, item)))


def follow(node: Node) -> Guid:
    return node.call(lambda guid: jobs.Follow(guid, NAME))


def pushed(node: Node) -> list[Record]:
    effects = (effect for _, _, effects in node.log for effect in effects)
    return [effect.record for effect in effects if isinstance(effect, fx.Pushed)]


def test_a_slow_holder_does_not_hold_a_follower_up() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    world.run(2.0)
    follower = nodes[8]
    slow = next(node for node in nodes if node.holds(NAME) and node is not follower)
    slow.lag_s = 5.0
    follow(follower)
    world.run(2.0)
    assert pushed(follower) == [record(1)]


def test_a_disk_slower_than_the_loss_of_all_holders_does_not_end_a_round_without_it() -> None:
    """The round ends with what the disk said, however quickly everybody else is gone."""
    world = World()
    follower = world.node(listen=False)
    clients = [world.node(listen=False) for _ in range(2)]
    for client in clients:
        client.join(follower, follower.world.free_address(), None)
    world.run(1.0)
    guid = follow(follower)
    world.run(1.0)
    assert all(client.sent(message.Following) for client in clients)
    world.disk_s = 1.0
    follower.store.write([Write(NAME, record(4))])
    for client in clients:
        client.kill()
    world.run(2.0)
    assert guid in follower.machine.state.works
    assert pushed(follower)[-1] == record(4)


def asked(client: Node, server: Node, name: Id) -> object:
    contact = Contact(server.id)
    guid = client.call(lambda guid: jobs.SendRequest(guid, contact, message.Follow(name)))
    answer = client.world.outcome(client, guid)
    assert isinstance(answer, fx.Answered)
    return answer.response


def test_a_follower_whose_lease_has_ended_makes_room_for_one_of_another_record() -> None:
    """Who is refused meanwhile changes nothing, whatever it wants to follow."""
    world = World()
    server = world.node(limits=Limits(followers_max=1, lease_s=5.0))
    client, other = [world.node(listen=False) for _ in range(2)]
    for each in (client, other):
        world.outcome(each, each.connect(server))
    assert isinstance(asked(client, server, NAME.id), message.Following)
    for number in range(20):
        answer = asked(other, server, Id(number.to_bytes(32)))
        assert isinstance(answer, message.Refused)
    world.run(6.0)
    assert isinstance(asked(other, server, Id(bytes(32))), message.Following)


def test_a_push_that_overtakes_the_answer_to_its_follow_is_no_lie() -> None:
    """The simulation found that a holder was taken for a liar for it."""
    client, server = World().pair()
    server.lag_s = 0.5
    call = client.ask(Contact(server.id), message.Follow(NAME.id))
    client.world.run(0.1)
    (link,) = client.machine.state.links.values()
    (exchange,) = link.out_workers
    push = message.Updated(record(1))
    client.push(jobs.HandleResponse(link.guid, exchange, exchange, push))
    answer = client.world.outcome(client, call)
    assert isinstance(answer, fx.Answered)
    assert isinstance(answer.response, message.Following)
    assert client.machine.state.link_of
