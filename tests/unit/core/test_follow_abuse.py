"""Following among peers that answer wrongly, grant leases of no use, and follow without end."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.unit.core.test_records import KEY, NAME, follow, publish, pushed, record
from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Id, distance, id_of
from xorbit.items import Contact, key_of, make_record
from xorbit.wire import message

Tamper = Callable[[message.Envelope], message.Envelope]


def sent(node: Node, kind: type[message.Request]) -> int:
    """Return how many requests of a kind about the record a node has sent."""
    bodies = [
        effect.envelope.body
        for _, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Send)
    ]
    about = [body for body in bodies if isinstance(body, kind)]
    return len([body for body in about if getattr(body, "key", NAME) == NAME])


def instead(kinds: type | tuple[type, ...], body: message.Response) -> Tamper:
    return lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, body)
        if isinstance(envelope.body, kinds)
        else envelope
    )


def nearest(nodes: list[Node]) -> Node:
    return min(nodes, key=lambda node: distance(node.id, NAME.id))


def ask_to_follow(world: World, client: Node, server: Node, record: Id) -> message.Response:
    guid = client.ask(Contact(server.id), message.Follow(record))
    answer = world.outcome(client, guid)
    assert isinstance(answer, fx.Answered)
    return answer.response


@pytest.mark.parametrize("lease_s", [1e-9, 0.5, 3.9])
def test_a_holder_that_grants_a_lease_of_no_use_is_no_pusher_and_makes_nobody_spin(
    lease_s: float,
) -> None:
    world = World()
    nodes = world.network(8)
    publish(world, nodes[0], record(1))
    follower, liar = nodes[0], nearest(nodes[1:])
    liar.tamper = instead(message.Following, message.Following(lease_s, record(1)))
    before = sent(follower, message.Get)
    follow(follower)
    world.run(60.0)
    rounds = 60.0 / Limits().follow_retry_s + 1
    assert sent(follower, message.Get) - before < rounds * len(nodes)
    publish(world, nodes[2], record(2))
    world.run(1.0)
    assert pushed(follower)[-1] == record(2)


def test_rounds_are_some_time_apart_though_whoever_pushes_leaves_at_once() -> None:
    world = World()
    nodes = world.network(6)
    follower = nodes[0]
    follow(follower)
    for _ in range(600):
        world.run(0.1)
        state = follower.machine.state
        for pushers in list(state.pushers.values()):
            for pusher in list(pushers.values()):
                follower.cut(pusher.connection, "reset")
    read = [at for at, _, effects in follower.log for e in effects if _reads(e)]
    rounds = [later - at for at, later in pairwise(read)]
    assert len(rounds) > 5
    assert min(rounds) >= Limits().follow_retry_s * 0.999


def _reads(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.ReadStore) and effect.key == NAME


def test_a_follower_goes_on_though_holders_answered_another_question_for_a_while() -> None:
    world = World()
    nodes = world.network(5)
    publish(world, nodes[0], record(1))
    follower = nodes[0]
    for node in nodes[1:]:
        node.tamper = instead((message.Found, message.Closest), message.Following(60.0))
    follow(follower)
    world.run(5.0)
    for node in nodes[1:]:
        node.tamper = lambda envelope: envelope
    world.run(60.0)
    publish(world, nodes[2], record(2))
    world.run(Limits().follow_poll_s * 1.5)
    assert pushed(follower)[-1] == record(2)


def test_each_phase_of_following_has_a_deadline_and_the_next_begins_after_it() -> None:
    """Where the disk says nothing, or a request ended without a word, following goes on."""
    world = World()
    nodes = world.network(3)
    follower = nodes[2]
    guid = follow(follower)
    world.run(1.0)
    work = follower.machine.state.works[guid]
    state = follower.machine.state
    work.start(state)
    read = state.effects.pop()  # the disk never hears of it
    assert isinstance(read, fx.ReadStore)
    waiter = state.disk_of.pop(read.guid)
    follower.push(jobs.Tick())
    world.run(Limits().work_timeout_s + 1)
    work._asking = state.new_guid()  # it will not be answered
    work._have_until(state, world.now + 1.0)
    follower.push(jobs.Tick())
    world.run(2.0)
    state.disk_of[read.guid] = waiter
    follower.push(jobs.StoreRead(read.guid))  # at last, when nobody reads any more
    world.run(1.0)
    publish(world, nodes[0], record(1))
    world.run(Limits().follow_poll_s * 1.5)
    assert pushed(follower) == [record(1)]


def test_a_cancelled_follow_leaves_nobody_who_pushes() -> None:
    world = World()
    nodes = world.network(3)
    for _ in range(5):
        guid = follow(nodes[2])
        world.run(1.0)
        assert nodes[2].machine.state.pushers[guid]
        nodes[2].push(jobs.Cancel(guid))
        world.run(0.1)
    assert nodes[2].machine.state.pushers == {}


def test_a_lease_granted_to_a_work_that_is_over_is_nobodys() -> None:
    world = World()
    nodes = world.network(3)
    guid = follow(nodes[2])
    world.until(lambda: sent(nodes[2], message.Follow) > 0)
    nodes[2].push(jobs.Cancel(guid))
    world.run(1.0)
    assert nodes[2].machine.state.pushers == {}


def test_one_peer_has_its_share_of_the_followers_and_leaves_room_for_others() -> None:
    world = World()
    server = world.node(limits=Limits(followers_max=8, followers_per_peer_max=3))
    greedy, modest = world.node(listen=False), world.node(listen=False)
    for client in (greedy, modest):
        world.outcome(client, client.connect(server))
    answers = [
        ask_to_follow(world, greedy, server, id_of(bytes([number]) * 32)) for number in range(5)
    ]
    assert [type(answer) for answer in answers] == [message.Following] * 3 + [message.Refused] * 2
    again = ask_to_follow(world, greedy, server, id_of(bytes(32)))
    assert isinstance(again, message.Following), "prolonged, not counted twice"
    assert isinstance(ask_to_follow(world, modest, server, NAME.id), message.Following)
    greedy.kill()
    world.run(1.0)
    assert len(server.machine.state.leases) == 1


def test_versions_that_come_too_fast_give_way_to_the_newest() -> None:
    world = World()
    nodes = world.network(2, Limits(push_interval_s=2.0))
    holder, follower = nodes
    follow(follower)
    world.run(1.0)
    for seq in (1, 2, 4, 3):
        world.outcome(follower, follower.ask(holder, message.Store(record(seq))))
    assert pushed(follower) == [record(1)]
    world.run(2.5)
    assert pushed(follower) == [record(1), record(4)]
    world.run(5.0)
    assert holder.machine.state.telling == {}


def test_records_of_which_each_has_followers_wait_each_for_its_own_time() -> None:
    world = World()
    holder, client = world.network(2, Limits(push_interval_s=2.0))
    versions = [
        [make_record(KEY, seq, b"value", salt) for seq in (1, 2)] for salt in (b"one", b"two")
    ]
    for first, _ in versions:
        client.call(lambda guid, first=first: jobs.Follow(guid, key_of(first)))
    world.run(1.0)
    for first, second in versions:
        for item in (first, second):
            world.outcome(client, client.ask(holder, message.Store(item)))
        world.run(1.0)
    world.run(5.0)
    assert pushed(client) == [versions[0][0], versions[1][0], versions[0][1], versions[1][1]]


def test_an_answer_that_comes_after_its_round_changes_nothing() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    world.run(2.0)
    follower = nodes[8]
    for slow in [node for node in nodes[:8] if node.holds(NAME)][:2]:
        slow.lag_s = 0.9
    follow(follower)
    world.run(10.0)
    publish(world, nodes[0], record(2))
    world.run(2.0)
    assert pushed(follower) == [record(1), record(2)]


def test_where_one_of_two_stops_pushing_the_other_is_not_asked_again() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    follower = nodes[8]
    guid = follow(follower)
    world.run(3.0)
    state = follower.machine.state
    stays, goes = [state.links[p.connection].peer for p in state.pushers[guid].values()]
    next(node for node in nodes if node.id == goes).kill()
    world.run(5.0)
    now = [state.links[pusher.connection].peer for pusher in state.pushers[guid].values()]
    assert stays in now
    assert len(now) == 2
    follows = list(follower.sent(message.Follow))
    assert len(follows) == 3
