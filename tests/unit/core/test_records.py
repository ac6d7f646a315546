"""Signed items: the newest version wins, whoever reads, whoever writes, whatever is lost."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import distance
from xorbit.items import (
    Contact,
    ItemKey,
    Record,
    connection_key,
    key_of,
    make_connection_item,
    make_record,
    record_key,
)
from xorbit.store.base import Write
from xorbit.wire import message

KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(range(1, 33)))
NAME = record_key(bytes(KEY.verify_key))


def record(seq: int, value: bytes = b"value") -> Record:
    return make_record(KEY, seq, value)


def publish(world: World, node: Node, item: Record, cas: int | None = None) -> fx.PutDone:
    """Put a record and return what became of it."""
    guid = node.call(lambda guid: jobs.Store(guid, key_of(item), item, cas))
    done = world.outcome(node, guid)
    assert isinstance(done, fx.PutDone)
    return done


def resolve(world: World, node: Node, key: ItemKey = NAME) -> fx.Outcome:
    return world.outcome(node, node.get(key))


def held(node: Node, key: ItemKey = NAME) -> object:
    return node.store.read([key])[0]


def stored(done: fx.PutDone) -> int:
    return sum(receipt.outcome == "stored" for receipt in done.receipts)


def holders(nodes: list[Node], key: ItemKey = NAME) -> list[Node]:
    """Return who holds it, but for the copy that a publisher keeps for itself."""
    near = sorted(nodes, key=lambda node: distance(node.id, key.id))[: Limits().replicas]
    kept = [node for node in nodes if held(node, key) is not None]
    return [node for node in kept if node in near or not node.pins(key)]


# --- Reading --------------------------------------------------------------------------------------


def test_a_record_published_at_one_node_is_resolved_at_every_other() -> None:
    world = World()
    nodes = world.network(9)
    assert stored(publish(world, nodes[0], record(1))) == Limits().replicas
    for node in nodes:
        got = resolve(world, node)
        assert isinstance(got, fx.Got)
        assert got.item == record(1)


def test_what_nobody_published_is_not_found() -> None:
    world = World()
    nodes = world.network(3)
    assert isinstance(resolve(world, nodes[0]), fx.NotFound)


def test_a_reader_finds_the_newest_that_any_holder_has_and_mends_the_others() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    behind = holders(nodes)
    behind[0].store.write([Write(NAME, record(7))])
    got = resolve(world, nodes[-1])
    assert isinstance(got, fx.Got)
    assert got.item == record(7)
    world.run(2.0)
    assert [held(node) for node in behind] == [record(7)] * len(behind)


def test_a_holder_that_lost_its_copy_is_given_one_by_the_next_reader() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    loser, *others = holders(nodes)
    loser.store.damage(NAME)
    loser.store.drop_damaged([NAME])
    resolve(world, others[-1])
    world.run(2.0)
    assert held(loser) == record(1)


def test_a_reader_that_is_a_holder_itself_mends_its_own_copy() -> None:
    world = World()
    nodes = world.network(4)
    publish(world, nodes[0], record(1))
    nodes[1].store.write([Write(NAME, record(2))])
    assert isinstance(resolve(world, nodes[0]), fx.Got)
    world.run(1.0)
    assert held(nodes[0]) == record(2)


def test_a_reader_whose_own_copy_rotted_reads_the_others() -> None:
    world = World()
    nodes = world.network(4)
    publish(world, nodes[0], record(1))
    nodes[0].store.damage(NAME)
    got = resolve(world, nodes[0])
    assert isinstance(got, fx.Got)
    assert got.source != nodes[0].id


def test_a_holder_that_answers_with_anothers_record_is_distrusted() -> None:
    world = World()
    nodes = world.network(4)
    publish(world, nodes[0], record(1))
    liar, reader = nodes[1], nodes[2]
    foreign = make_record(OTHER_KEY, 9, b"foreign")
    liar.tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Found(foreign))
        if isinstance(envelope.body, message.Found)
        else envelope
    )
    got = resolve(world, reader)
    assert isinstance(got, fx.Got)
    assert got.item == record(1)
    assert any(report.event == "peer distrusted" for report in reader.reports)


def test_a_holder_that_refuses_to_say_costs_nothing() -> None:
    world = World()
    nodes = world.network(4)
    publish(world, nodes[0], record(1))
    nodes[1].tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Refused("busy"))
        if isinstance(envelope.body, message.Found)
        else envelope
    )
    got = resolve(world, nodes[2])
    assert isinstance(got, fx.Got)
    assert got.item == record(1)


def test_a_silent_holder_costs_time_and_nothing_else() -> None:
    world = World()
    nodes = world.network(6)
    publish(world, nodes[0], record(1))
    silent = next(node for node in holders(nodes) if node is not nodes[0])
    silent.mute = True
    got = resolve(world, nodes[0])
    assert isinstance(got, fx.Got)
    assert got.item == record(1)


def test_a_reader_gives_up_at_its_deadline_with_what_it_has() -> None:
    world = World()
    limits = Limits(work_timeout_s=0.5)
    nodes = world.network(3, limits)
    publish(world, nodes[0], record(1))
    for node in nodes[1:]:
        node.mute = True
    got = resolve(world, nodes[0])
    assert isinstance(got, fx.Got)
    assert got.item == record(1)


def test_mending_gives_up_on_nodes_that_do_not_answer() -> None:
    """Nobody waits for it, and nothing of it is left."""
    world = World()
    nodes = world.network(5)
    publish(world, nodes[0], record(1))
    nodes[0].store.write([Write(NAME, record(2))])
    guid = nodes[0].get(NAME)
    world.outcome(nodes[0], guid)
    for node in nodes[1:]:
        node.mute = True
    world.run(60.0)
    assert not [work for work in nodes[0].machine.state.works.values() if work.origin == guid]


def test_where_a_node_is_can_be_read_like_a_record() -> None:
    world = World()
    nodes = world.network(5)
    item = make_connection_item(KEY, 3, ())
    key = key_of(item)
    guid = nodes[0].call(lambda guid: jobs.Store(guid, key, item))
    world.outcome(nodes[0], guid)
    got = resolve(world, nodes[4], connection_key(key.id))
    assert isinstance(got, fx.Got)
    assert got.item == item


# --- Compare and swap -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_of_two_writers_that_saw_the_same_exactly_one_wins_and_the_other_is_told(
    seed: int,
) -> None:
    world = World(seed)
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    mine, theirs = record(2, b"mine"), record(2, b"theirs")
    first = nodes[1].call(lambda guid: jobs.Store(guid, NAME, mine, 1))
    world.run(0.001 * (seed % 5))
    second = nodes[2].call(lambda guid: jobs.Store(guid, NAME, theirs, 1))
    one, other = world.outcome(nodes[1], first), world.outcome(nodes[2], second)
    assert isinstance(one, fx.PutDone)
    assert isinstance(other, fx.PutDone)
    won = [done for done in (one, other) if done.won]
    lost = [done for done in (one, other) if not done.won]
    assert len(won) == len(lost) == 1
    winner = mine if won[0] is one else theirs
    assert lost[0].newer == winner
    world.run(3.0)
    assert {held(node) for node in holders(nodes)} == {winner}


def test_a_writer_that_saw_an_old_version_is_refused_by_everybody() -> None:
    world = World()
    nodes = world.network(5)
    publish(world, nodes[0], record(5))
    done = publish(world, nodes[1], record(6), cas=4)
    assert not stored(done)
    assert done.newer == record(5)


def test_a_closest_node_that_has_not_heard_of_the_record_does_not_decide() -> None:
    """One that holds an older version, or none, is passed over as arbiter."""
    world = World()
    nodes = world.network(7)
    publish(world, nodes[0], record(4))
    closest = min(nodes, key=lambda node: int.from_bytes(node.id) ^ int.from_bytes(NAME.id))
    closest.store.damage(NAME)
    closest.store.drop_damaged([NAME])
    closest.store.write([Write(NAME, record(3))])
    writer = next(node for node in nodes if node is not closest)
    done = publish(world, writer, record(5), cas=4)
    assert stored(done) >= Limits().replicas - 1
    assert done.newer is None


def test_who_comes_after_another_stores_nothing_though_its_bytes_are_greater() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    assert publish(world, nodes[1], record(2, b"aaa"), cas=1).won
    late = publish(world, nodes[2], record(2, b"zzz"), cas=1)
    assert (late.won, late.newer, stored(late)) == (False, record(2, b"aaa"), 0)
    assert {held(node) for node in holders(nodes)} == {record(2, b"aaa")}


def test_a_greater_version_at_one_holder_keeps_a_writer_from_winning_a_lesser_does_not() -> None:
    """The same record stored again, where a rival got at one holder meanwhile."""
    for rival, wins in ((record(2, b"aaa"), True), (record(2, b"zzz"), False)):
        world = World()
        nodes = world.network(9)
        publish(world, nodes[0], record(1))
        assert publish(world, nodes[1], record(2, b"mmm"), cas=1).won
        loser = holders(nodes)[-1]
        loser.store.damage(NAME)
        loser.store.drop_damaged([NAME])
        loser.store.write([Write(NAME, rival)])
        again = publish(world, nodes[1], record(2, b"mmm"), cas=1)
        assert (again.won, again.newer) == (wins, rival)


def test_a_decider_that_answers_a_race_with_anothers_record_is_distrusted() -> None:
    world = World()
    nodes = world.network(6)
    publish(world, nodes[0], record(1))
    writer = nodes[1]
    liar = next(node for node in holders(nodes) if node is not writer)
    foreign = make_record(OTHER_KEY, 9, b"foreign")
    liar.tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Found(foreign))
        if isinstance(envelope.body, message.Found)
        else envelope
    )
    done = publish(world, writer, record(2), cas=1)
    assert stored(done) >= Limits().replicas - 1
    assert any(report.event == "peer distrusted" for report in writer.reports)


def test_where_the_decider_is_lost_the_others_are_read_before_the_next_decides() -> None:
    world = World()
    nodes = world.network(8)
    publish(world, nodes[0], record(1))
    near = sorted(nodes, key=lambda node: distance(node.id, NAME.id))
    decider, writer = near[0], near[7]
    decider.tamper = lambda envelope: (
        message.Envelope(bytes(16), envelope.work, envelope.body)
        if isinstance(envelope.body, message.Stored)
        else envelope
    )
    guid = writer.call(lambda guid: jobs.Store(guid, NAME, record(2, b"zzz"), 1))
    world.run(0.5)
    for node in near[1:5]:
        node.store.write([Write(NAME, record(2, b"aaa"))])
    done = world.outcome(writer, guid)
    assert isinstance(done, fx.PutDone)
    assert not done.won
    assert done.newer == record(2, b"aaa")
    assert [held(node) for node in near[1:5]] == [record(2, b"aaa")] * 4


def test_a_publisher_on_its_own_disk_is_told_the_newer_too() -> None:
    world = World()
    node = world.node()
    node.bootstrap()
    world.run(1.0)
    publish(world, node, record(5))
    done = publish(world, node, record(4))
    assert not stored(done)
    assert done.newer == record(5)


def test_a_newer_record_that_does_not_prove_itself_counts_for_nothing() -> None:
    world = World()
    nodes = world.network(3)
    publish(world, nodes[0], record(5))
    forged = make_record(OTHER_KEY, 99, b"forged")
    for node in nodes[1:]:
        node.tamper = lambda envelope: (
            message.Envelope(envelope.guid, envelope.work, message.Refused("stale", "", forged))
            if isinstance(envelope.body, message.Refused)
            else envelope
        )
    done = publish(world, nodes[0], record(4))
    assert done.newer == record(5)


# --- Following ------------------------------------------------------------------------------------


def follow(node: Node) -> object:
    return node.call(lambda guid: jobs.Follow(guid, NAME))


def pushed(node: Node) -> list[Record]:
    return [
        effect.record
        for _, _, effects in node.log
        for effect in effects
        if isinstance(effect, fx.Pushed)
    ]


def test_a_follower_is_told_of_each_newer_version_within_a_second() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    follow(nodes[8])
    world.run(2.0)
    assert pushed(nodes[8]) == [record(1)]
    for seq in (2, 3):
        publish(world, nodes[0], record(seq))
        world.run(1.0)
    assert pushed(nodes[8]) == [record(1), record(2), record(3)]


def test_a_record_can_be_followed_before_anybody_has_published_it() -> None:
    world = World()
    nodes = world.network(9)
    follow(nodes[8])
    world.run(2.0)
    publish(world, nodes[0], record(1))
    world.run(1.0)
    assert pushed(nodes[8]) == [record(1)]


def test_following_goes_on_when_the_holders_that_pushed_are_killed() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    follower = nodes[8]
    follow(follower)
    world.run(2.0)
    pushing = [node for node in nodes if len(node.machine.state.leases)]
    assert len(pushing) >= Limits().follow_holders
    for node in pushing[:2]:
        if node not in (nodes[0], follower):
            node.kill()
    world.run(5.0)
    publisher = next(node for node in nodes if node.alive and node is not follower)
    publish(world, publisher, record(2))
    world.run(1.0)
    assert pushed(follower)[-1] == record(2)


def test_a_lease_is_renewed_and_an_update_after_an_hour_still_comes() -> None:
    world = World()
    nodes = world.network(5)
    follow(nodes[4])
    world.run(600.0)
    publish(world, nodes[0], record(1))
    world.run(1.0)
    assert pushed(nodes[4]) == [record(1)]


def test_where_nobody_pushes_the_follower_polls() -> None:
    world = World()
    nodes = world.network(5, Limits(followers_max=1))
    for node in nodes[:4]:
        node.tamper = lambda envelope: (
            message.Envelope(envelope.guid, envelope.work, message.Refused("busy"))
            if isinstance(envelope.body, message.Following)
            else envelope
        )
    follow(nodes[4])
    world.run(3.0)
    publish(world, nodes[0], record(1))
    world.run(3 * Limits().follow_retry_s)
    assert pushed(nodes[4]) == [record(1)]


def test_a_node_takes_so_many_followers_and_no_more() -> None:
    world = World()
    server = world.node(limits=Limits(followers_max=2))
    clients = [world.node(listen=False) for _ in range(3)]
    answers = []
    for client in clients:
        world.outcome(client, client.connect(server))
        guid = client.call(
            lambda guid: jobs.SendRequest(guid, Contact(server.id), message.Follow(NAME.id))
        )
        answers.append(world.outcome(client, guid))
    bodies = [answer.response for answer in answers if isinstance(answer, fx.Answered)]
    assert isinstance(bodies[0], message.Following)
    assert isinstance(bodies[1], message.Following)
    assert bodies[2] == message.Refused("busy", "this node has as many followers as it may")
    clients[0].kill()
    world.run(1.0)
    again = clients[2].call(
        lambda guid: jobs.SendRequest(guid, Contact(server.id), message.Follow(NAME.id))
    )
    answer = world.outcome(clients[2], again)
    assert isinstance(answer, fx.Answered)
    assert isinstance(answer.response, message.Following)


def test_a_cancelled_follower_hears_no_more() -> None:
    world = World()
    nodes = world.network(4)
    guid = follow(nodes[3])
    world.run(1.0)
    nodes[3].push(jobs.Cancel(guid))
    publish(world, nodes[0], record(1))
    world.run(5.0)
    assert pushed(nodes[3]) == []


def test_a_pushed_record_of_another_key_is_distrusted() -> None:
    world = World()
    nodes = world.network(4)
    follow(nodes[3])
    world.run(1.0)
    foreign = make_record(OTHER_KEY, 9, b"foreign")
    for node in nodes[:3]:
        node.tamper = lambda envelope: (
            message.Envelope(envelope.guid, envelope.work, message.Updated(foreign))
            if isinstance(envelope.body, message.Updated)
            else envelope
        )
    publish(world, nodes[0], record(1))
    world.run(0.5)
    assert foreign not in pushed(nodes[3])
    assert any(report.event == "peer distrusted" for report in nodes[3].reports)


def test_a_follower_does_not_keep_a_node_from_stopping() -> None:
    world = World()
    nodes = world.network(3)
    follow(nodes[2])
    world.run(1.0)
    nodes[2].push(jobs.Shutdown())
    world.run(1.0)
    assert nodes[2].stopped


def test_what_comes_unasked_for_changes_nothing() -> None:
    world = World()
    nodes = world.network(2)
    connection = next(iter(nodes[0].machine.state.links))
    guid = nodes[0].machine.state.new_guid()
    job = jobs.HandleResponse(connection, guid, guid, message.Updated(record(1)))
    nodes[0].push(job)
    world.run(1.0)
    assert pushed(nodes[0]) == []


def test_a_holder_killed_while_it_is_asked_to_push_is_replaced_by_the_next() -> None:
    world = World()
    nodes = world.network(9)
    publish(world, nodes[0], record(1))
    follower = nodes[8]
    follow(follower)
    for _ in range(2_000):
        world.run(0.001)
        asked = [node for node in nodes[1:8] if len(node.machine.state.leases)]
        if asked:
            asked[0].kill()
            break
    world.run(5.0)
    pushing = [node for node in nodes if node.alive and len(node.machine.state.leases)]
    assert len(pushing) >= Limits().follow_holders
    publish(world, nodes[0], record(2))
    world.run(1.0)
    assert pushed(follower)[-1] == record(2)


def test_a_holder_that_never_answers_a_follow_is_passed_over() -> None:
    world = World()
    nodes = world.network(5)
    for node in nodes[:2]:
        node.tamper = lambda envelope: (
            message.Envelope(bytes(16), envelope.work, envelope.body)
            if isinstance(envelope.body, message.Following)
            else envelope
        )
    follow(nodes[4])
    world.run(10.0)
    publish(world, nodes[0], record(1))
    world.run(1.0)
    assert pushed(nodes[4]) == [record(1)]


def test_mending_ends_at_its_deadline_at_the_latest() -> None:
    world = World()
    short = Limits(
        request_timeout_s_min=1.0, request_timeout_s_first=1.0, request_timeout_s_max=1.0
    )
    nodes = world.network(3, short)
    publish(world, nodes[0], record(1))
    nodes[0].store.write([Write(NAME, record(2))])
    guid = nodes[0].get(NAME)
    world.outcome(nodes[0], guid)
    for node in nodes[1:]:
        node.mute = True
    world.run(5.0)
    assert not [work for work in nodes[0].machine.state.works.values() if work.origin == guid]


def test_an_older_version_stored_late_is_not_pushed() -> None:
    """Followers are told of newer versions only, and those whose lease ended of none."""
    world = World()
    nodes = world.network(4)
    follow(nodes[3])
    world.run(1.0)
    publish(world, nodes[0], record(2))
    world.run(1.0)
    publish(world, nodes[0], record(2))
    world.run(1.0)
    assert pushed(nodes[3]) == [record(2)]


def test_followers_whose_lease_has_ended_make_room_for_others() -> None:
    world = World()
    server = world.node(limits=Limits(followers_max=2, lease_s=5.0))
    clients = [world.node(listen=False) for _ in range(3)]
    for client in clients:
        world.outcome(client, client.connect(server))

    def asked(client: Node, name: ItemKey) -> object:
        guid = client.call(
            lambda guid: jobs.SendRequest(guid, Contact(server.id), message.Follow(name.id))
        )
        answer = world.outcome(client, guid)
        assert isinstance(answer, fx.Answered)
        return answer.response

    assert isinstance(asked(clients[0], NAME), message.Following)
    world.run(3.0)
    assert isinstance(asked(clients[1], NAME), message.Following)
    world.run(3.0)
    assert isinstance(asked(clients[2], NAME), message.Following)
    assert len(list(server.machine.state.leases.of_record(NAME.id))) == 2


def test_a_reader_finds_the_holder_behind_clients_that_are_nearer_and_hold_nothing() -> None:
    """The simulation found that they took the places of holders in the reading."""
    world, limits = World(), Limits(replicas=1)
    reader, holder = [world.node(limits=limits) for _ in range(2)]
    world.outcome(reader, reader.connect(holder))
    holder.store.write([Write(NAME, record(1))])
    client = world.node(listen=False, limits=limits)
    while distance(client.id, NAME.id) > distance(holder.id, NAME.id):
        client = world.node(listen=False, limits=limits)
    world.outcome(client, client.connect(reader))
    world.run(1.0)
    got = world.outcome(reader, reader.call(lambda guid: jobs.Get(guid, NAME)))
    assert isinstance(got, fx.Got)
