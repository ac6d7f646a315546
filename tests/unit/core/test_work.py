"""Get, Put, and the single questions, told of between nodes of the simulated world."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World, check_acknowledgements, stored_at
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import as_id, as_number, distance, id_of
from xorbit.items import (
    Address,
    Block,
    Contact,
    ItemKey,
    block_key,
    key_of,
    make_block,
    make_record,
)
from xorbit.wire import message
from xorbit.wire.message import Closest, Found, Refused

DATA = b"a block of the tests"
KEY = block_key(DATA)


def holders(nodes: list[Node], key: ItemKey = KEY) -> list[Node]:
    """Return who has it, closest first, but for the copy that its owner keeps for itself."""
    near = by_distance(nodes, key)[: Limits().replicas]
    held = [node for node in nodes if node.holds(key) and (node in near or not node.pins(key))]
    return by_distance(held, key)


def by_distance(nodes: list[Node], key: ItemKey = KEY) -> list[Node]:
    return sorted(nodes, key=lambda node: distance(node.id, key.id))


def put(node: Node, data: bytes = DATA) -> fx.PutDone:
    guid, _ = node.put(data)
    outcome = node.world.outcome(node, guid)
    assert isinstance(outcome, fx.PutDone)
    return outcome


def get(node: Node, key: ItemKey = KEY) -> fx.Outcome:
    return node.world.outcome(node, node.get(key))


def farthest(nodes: list[Node]) -> Node:
    """Return a node that is none of the closest to the block, so all it does takes the network."""
    return by_distance(nodes)[-1]


# --- Put and get ----------------------------------------------------------------------------------


def test_who_cannot_be_dialled_does_not_count_itself_among_the_holders() -> None:
    """The simulation found items with a copy less behind NATs; who is alone counts all the same."""
    world = World()
    nodes = world.network(7)
    nearest = by_distance(nodes)[0]
    nearest.machine.state.dialled_from.clear()
    assert nearest.id not in stored_at(put(nearest))
    alone = World().node()
    assert stored_at(put(alone)) == [alone.id]


def test_a_refusal_is_told_without_what_would_upset_a_terminal() -> None:
    world = World()
    one, other = world.pair()
    other.tamper = lambda envelope: (
        type(envelope)(envelope.guid, envelope.work, Refused("full", "so\n\x1b[2Jsorry"))
        if isinstance(envelope.body, message.Stored)
        else envelope
    )
    (said,) = [receipt for receipt in put(one).receipts if receipt.node == other.id]
    assert said.reason == "full: so\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2Jsorry"


@pytest.mark.parametrize(("count", "copies"), [(1, 1), (2, 2), (3, 3), (9, 5), (30, 5)])
def test_what_one_node_puts_every_node_gets(count: int, copies: int) -> None:
    world = World(count)
    nodes = world.network(count)
    world.run(20.0)
    done = put(nodes[-1])
    assert sorted(stored_at(done)) == sorted(node.id for node in by_distance(nodes)[:copies])
    assert holders(nodes) == by_distance(nodes)[:copies]
    for node in nodes:
        outcome = get(node)
        assert isinstance(outcome, fx.Got)
        assert outcome.item == make_block(DATA)
        assert (outcome.source == node.id) == node.holds(KEY)
    # Each copy was acknowledged once: by a Stored, or, the putter's own, by its receipt.
    assert sum(check_acknowledgements(node.id, node.log) for node in nodes) == copies


@pytest.mark.parametrize("count", [1, 3, 9])
def test_what_nobody_has_is_not_found_and_all_were_asked(count: int) -> None:
    world = World()
    nodes = world.network(count)
    assert get(nodes[0]) == fx.NotFound(count - 1, 0)


def test_a_node_alone_that_listens_nowhere_stores_nowhere_and_says_so() -> None:
    client = World().node(listen=False)
    assert put(client) == fx.PutDone(())


def test_a_client_puts_at_others_only() -> None:
    world = World()
    nodes = world.network(3)
    client = world.node(listen=False)
    assert nodes[0].address
    client.bootstrap(nodes[0].address)
    world.run(3.0)
    assert sorted(stored_at(put(client))) == sorted(node.id for node in nodes)


def test_a_put_of_a_record_that_is_stale_reports_the_refusal_of_our_own_disk() -> None:
    world = World()
    node = world.node()
    signing = SigningKey(bytes(32))
    new, old = make_record(signing, 2, b"new"), make_record(signing, 1, b"old")
    for record in (new, old):
        guid = node.call(lambda guid, record=record: jobs.Store(guid, key_of(record), record))
        outcome = world.outcome(node, guid)
        assert isinstance(outcome, fx.PutDone)
    (receipt,) = outcome.receipts
    assert receipt.outcome == "refused"
    assert receipt.reason.startswith("stale: ")


# --- Takers that do not take ----------------------------------------------------------------------


def _full(taker: Node) -> None:
    taker.store._quota_bytes = 1


def _mute(taker: Node) -> None:
    taker.mute = True


def _stopping(taker: Node) -> None:
    taker.push(jobs.Shutdown())


def _dead(taker: Node) -> None:
    taker.kill()


def _odd(taker: Node) -> None:
    """Answer a store with an answer to another question."""

    def tamper(envelope: message.Envelope) -> message.Envelope:
        if isinstance(envelope.body, message.Stored):
            return message.Envelope(envelope.guid, envelope.work, message.Missing(()))
        return envelope

    taker.tamper = tamper


@pytest.mark.parametrize("spoil", [_full, _mute, _stopping, _dead, _odd])
@pytest.mark.parametrize("count", [1, 2])
def test_a_taker_that_does_not_take_is_replaced_by_the_next_closest(spoil, count: int) -> None:
    world = World()
    nodes = world.network(9)
    world.run(5.0)
    order = by_distance(nodes)
    for taker in order[1 : 1 + count]:
        spoil(taker)
    done = put(order[-1])
    assert len(stored_at(done)) == 5
    good = [node for node in order if node not in order[1 : 1 + count]]
    assert sorted(stored_at(done)) == sorted(node.id for node in good[:5])
    if spoil is _full:
        refusals = [receipt for receipt in done.receipts if receipt.outcome == "refused"]
        assert [receipt.node for receipt in refusals] == [node.id for node in order[1 : 1 + count]]
        assert all(receipt.reason.startswith("full: ") for receipt in refusals)


MANY = Limits(closest_count=5)
"""Nine nodes are so many that no table is sure to know who is closest: it takes a lookup."""


def hear_of_another(node: Node) -> None:
    """Have a node hear of somebody right beside it whom it cannot reach: so it is not sure."""
    beside = as_id(as_number(node.id) ^ 1)
    node.machine.state.heard.note((Contact(beside, (Address("10.99.99.99", 1),)),))


def test_where_everybody_is_known_nobody_is_asked_who_is_closest() -> None:
    nodes = World().network(7)
    nodes[0].world.run(60.0)
    before = len(nodes[0].sent(message.FindClosest))
    assert len(stored_at(put(nodes[0]))) == Limits().replicas
    assert len(nodes[0].sent(message.FindClosest)) == before


def test_a_taker_that_falls_silent_between_the_lookup_and_the_store_is_a_timeout() -> None:
    world = World()
    nodes = world.network(9, MANY)
    world.run(5.0)
    order = by_distance(nodes)
    order[0].tamper = lambda envelope: _silence_after_closest(order[0], envelope)
    done = put(order[-1])
    assert sorted(stored_at(done)) == sorted(node.id for node in order[1:6])


def _silence_after_closest(node: Node, envelope: message.Envelope) -> message.Envelope:
    node.world.after(0.0, lambda: setattr(node, "mute", True))
    return envelope


def test_when_all_refuse_every_refusal_is_in_the_receipt() -> None:
    world = World()
    nodes = world.network(3)
    for node in nodes:
        _full(node)
    done = put(nodes[0])
    assert sorted(receipt.node for receipt in done.receipts) == sorted(node.id for node in nodes)
    assert {receipt.outcome for receipt in done.receipts} == {"refused"}


def test_a_put_ends_at_its_deadline_with_the_silent_as_timeouts() -> None:
    world = World()
    limits = Limits(work_timeout_s=2.0, request_timeout_s_first=4.0, request_timeout_s_min=4.0)
    one, other = world.pair(limits)
    hear_of_another(one)
    other.tamper = lambda envelope: _silence_after_closest(other, envelope)
    began = world.now
    done = put(one)
    assert world.now - began == pytest.approx(2.0, abs=0.1)
    assert [(receipt.node, receipt.outcome) for receipt in done.receipts] == [
        (one.id, "stored"),
        (other.id, "timeout"),
    ]


def test_an_answer_that_is_no_closest_fails_that_node_for_the_lookup() -> None:
    world = World()
    one, other = world.pair()
    hear_of_another(one)

    def tamper(envelope: message.Envelope) -> message.Envelope:
        if isinstance(envelope.body, Closest):
            return message.Envelope(envelope.guid, envelope.work, Refused("busy"))
        return envelope

    other.tamper = tamper
    assert stored_at(put(one)) == [one.id]


def test_an_answer_to_the_lookup_that_comes_during_the_stores_changes_nothing() -> None:
    world = World()
    nodes = world.network(9)
    world.run(5.0)
    order = by_distance(nodes)
    hear_of_another(order[-1])
    world.disk_s = 0.2
    order[0].lag_s, order[1].mute = 0.2, True
    guid, _ = order[-1].put(DATA)
    world.run(0.3)
    order[1].kill()
    done = world.outcome(order[-1], guid)
    stores = [envelope.body.item for envelope in order[-1].sent(message.Store)]
    assert sum(isinstance(item, Block) for item in stores) == 5
    assert sorted(stored_at(done)) == sorted(node.id for node in order[2:7])
    world.run(5.0)
    works = order[-1].machine.state.works.values()
    assert guid not in {work.origin for work in works}


# --- Gets that meet trouble -----------------------------------------------------------------------


def test_a_holder_killed_while_it_is_asked_does_not_stop_the_get() -> None:
    world = World()
    nodes = world.network(9)
    put(nodes[0])
    asker, victim = farthest(nodes), holders(nodes)[0]
    guid = asker.get(KEY)
    world.until(lambda: any(env.work == guid for env in asker.sent(message.Get)))
    victim.kill()
    outcome = world.outcome(asker, guid)
    assert isinstance(outcome, fx.Got)
    assert outcome.source in [node.id for node in holders(nodes)[1:]]


def test_all_holders_but_one_may_be_dead() -> None:
    world = World()
    nodes = world.network(9)
    put(nodes[0])
    held = holders(nodes)
    for node in held[:-1]:
        node.kill()
    outcome = get(farthest(nodes))
    assert isinstance(outcome, fx.Got)
    assert outcome.source == held[-1].id


def test_our_own_damaged_copy_is_dropped_reported_and_mended_from_another() -> None:
    world = World()
    nodes = world.network(3)
    put(nodes[0])
    nodes[0].damage(KEY)
    outcome = get(nodes[0])
    assert isinstance(outcome, fx.Got)
    assert outcome.item == make_block(DATA)
    assert outcome.source != nodes[0].id
    world.run(1.0)
    assert nodes[0].holds(KEY)
    assert [report.event for report in nodes[0].reports].count("bad read from the store") == 1
    assert nodes[0].machine.status().damaged_found == 1


def test_our_own_damaged_copy_that_nobody_else_has_is_dropped_and_not_served() -> None:
    world = World()
    node = world.node()
    node.keep(DATA)
    node.damage(KEY)
    assert get(node) == fx.NotFound(0, 0)
    world.run(1.0)
    assert node.store.read([KEY]) == [None]


def test_a_peers_damaged_copy_is_never_served_and_is_mended() -> None:
    world = World()
    nodes = world.network(9)
    put(nodes[0])
    asker, victim = farthest(nodes), holders(nodes)[0]
    victim.damage(KEY)
    outcome = get(asker)
    assert isinstance(outcome, fx.Got)
    assert outcome.item == make_block(DATA)
    assert not victim.sent(Found)
    world.run(2.0)
    assert victim.holds(KEY)
    assert victim.machine.status().damaged_found == 1
    again = get(asker)
    assert isinstance(again, fx.Got)
    assert again.source == victim.id


def test_a_disk_that_fails_to_read_is_reported_and_the_network_asked() -> None:
    world = World()
    nodes = world.network(2)
    put(nodes[0])
    guid = nodes[0].get(KEY)
    nodes[0]._disk = lambda effect: nodes[0].push(jobs.StoreRead(effect.guid, None, "disk failed"))
    outcome = world.outcome(nodes[0], guid)
    assert isinstance(outcome, fx.Got)
    assert outcome.source == nodes[1].id
    assert nodes[0].reports[-1].detail.endswith("disk failed")
    assert nodes[0].machine.status().damaged_found == 0


def test_a_peer_that_answers_with_wrong_bytes_is_distrusted_and_another_asked() -> None:
    world = World()
    nodes = world.network(9)
    put(nodes[0])
    asker, liar = farthest(nodes), holders(nodes)[0]

    def tamper(envelope: message.Envelope) -> message.Envelope:
        if isinstance(envelope.body, Found):
            wrong = Found(make_block(b"wrong"))
            return message.Envelope(envelope.guid, envelope.work, wrong)
        return envelope

    liar.tamper = tamper
    guid = asker.get(KEY)
    outcome = world.outcome(asker, guid)
    assert isinstance(outcome, fx.Got)
    assert outcome.item == make_block(DATA)
    assert outcome.source != liar.id
    world.run(0.1)
    assert not asker.knows(liar)
    assert not asker.links_to(liar)
    assert [report.event for report in asker.reports].count("peer distrusted") == 1


def test_a_peer_that_lies_twice_at_once_is_closed_once() -> None:
    world = World()
    one, liar = world.pair()
    keys = [liar.keep(b"one"), liar.keep(b"two")]
    liar.tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, Found(make_block(b"wrong")))
        if isinstance(envelope.body, Found)
        else envelope
    )
    guids = [one.get(key) for key in keys]
    assert [world.outcome(one, guid) for guid in guids] == [fx.NotFound(0, 1)] * 2
    closes = [e for _, _, effects in one.log for e in effects if isinstance(e, fx.Close)]
    assert len(closes) == 1


def test_a_peer_that_refuses_a_get_counts_as_failed_and_others_are_asked() -> None:
    world = World()
    nodes = world.network(3)
    put(nodes[0])
    for node in nodes:
        node.store.__init__(10**6)
    nodes[1].push(jobs.Shutdown())
    world.run(0.1)
    assert get(nodes[0]) == fx.NotFound(1, 1)


def test_a_slow_peer_is_hedged_another_is_asked_before_it_times_out() -> None:
    world = World()
    nodes = world.network(9)
    put(nodes[0])
    asker, slow = farthest(nodes), holders(nodes)[0]
    slow.lag_s = 5.0
    began = world.now
    outcome = get(asker)
    assert isinstance(outcome, fx.Got)
    assert outcome.source == holders(nodes)[1].id
    assert world.now - began < 0.3


def test_a_get_of_the_silent_ends_with_not_found_within_its_deadline() -> None:
    world = World()
    limits = Limits(work_timeout_s=2.0)
    nodes = world.network(3, limits)
    put(nodes[0])
    asker = world.node(listen=False, limits=limits)
    assert nodes[0].address
    asker.bootstrap(nodes[0].address)
    world.run(3.0)
    for node in nodes:
        node.mute = True
    began = world.now
    outcome = get(asker)
    assert isinstance(outcome, fx.NotFound)
    assert outcome.asked == 0
    assert world.now - began <= 2.0


def test_a_get_ends_at_its_deadline_while_a_dial_hangs() -> None:
    world = World()
    node = world.node(limits=Limits(work_timeout_s=2.0))
    hole = Contact(id_of(b"somebody"), (world.black_hole(),))
    node.machine.state.table.proved(hole.id, hole.addresses[0], world.now)
    began = world.now
    assert get(node) == fx.NotFound(0, 0)
    assert world.now - began == pytest.approx(2.0)


# --- Late, twice, cancelled -----------------------------------------------------------------------


def test_frames_that_arrive_twice_change_nothing() -> None:
    """A network in which every frame is doubled comes to the same receipts and items."""
    receipts = []
    for repeats in (False, True):
        world = World(7)
        nodes = world.network(5)
        for node in nodes:
            node.repeats = repeats
        receipts.append({(r.node, r.outcome) for r in put(nodes[0]).receipts})
        for node in nodes:
            assert isinstance(get(node), fx.Got)
            check_acknowledgements(node.id, node.log)
    assert receipts[0] == receipts[1]


def test_a_late_answer_changes_nothing() -> None:
    """The answer to a request that was given up, and one to no request, have no effect at all."""
    world = World()
    one, other = world.pair()
    one.mute = True
    guid = one.ask(other, message.Ping())
    failed = world.outcome(one, guid)
    assert isinstance(failed, fx.Failed)
    assert failed.code == "unreachable"
    assert failed.reason == "no answer in time"
    (request,) = [env for env in one.sent(message.Ping) if env.work == guid]
    before = one.machine.status()
    (link,) = one.links_to(other)
    late = jobs.HandleResponse(link, request.guid, guid, message.Pong())
    assert one.step(late) == []
    assert one.step(late) == []
    assert one.machine.status() == before


def test_a_cancelled_get_never_finishes_and_leaves_nothing_behind() -> None:
    world = World()
    nodes = world.network(3)
    put(nodes[0])
    before = len(nodes[1].machine.state.works)
    asker = nodes[1]
    asker.store.__init__(10**6)
    guid = asker.get(KEY)
    world.run(0.005)
    assert guid in asker.machine.state.works
    asker.push(jobs.Cancel(guid))
    asker.push(jobs.Cancel(guid))
    world.run(10.0)
    assert guid not in asker.outcomes
    assert len(asker.machine.state.works) == before == 0


# --- Single questions -----------------------------------------------------------------------------


def test_a_question_is_answered_with_its_peer_and_its_round_trip() -> None:
    world = World()
    one, other = world.pair()
    outcome = world.outcome(one, one.ask(other, message.Ping()))
    assert isinstance(outcome, fx.Answered)
    assert outcome.peer == other.id
    assert isinstance(outcome.response, message.Pong)
    assert outcome.round_trip_s == pytest.approx(2 * world.delay_s)


def test_a_question_to_a_contact_without_an_address_fails_at_once() -> None:
    world = World()
    node = world.node()
    outcome = world.outcome(node, node.ask(Contact(id_of(b"x")), message.Ping()), within_s=0.0)
    assert outcome == fx.Failed("unreachable", "no connection and no address")


def test_a_question_ends_at_its_deadline() -> None:
    world = World()
    node = world.node(limits=Limits(work_timeout_s=2.0))
    hole = Contact(id_of(b"x"), (world.black_hole(),))
    outcome = world.outcome(node, node.ask(hole, message.Ping()))
    assert isinstance(outcome, fx.Failed)
    assert outcome.code == "timeout"


def test_connect_says_who_is_there_and_does_not_dial_twice() -> None:
    world = World()
    one, other = world.node(), world.node()
    assert world.outcome(one, one.connect(other)) == fx.Connected(other.id)
    world.run(1.0)
    dials = sum(isinstance(e, fx.Dial) for _, _, effects in one.log for e in effects)
    assert world.outcome(one, one.connect(other), within_s=0.0) == fx.Connected(other.id)
    assert dials == sum(isinstance(e, fx.Dial) for _, _, effects in one.log for e in effects) == 1


def test_connect_says_what_happened_at_each_address() -> None:
    world = World()
    node = world.node()
    closed, hole = world.free_address(), world.black_hole()
    guid = node.call(lambda guid: jobs.Connect(guid, (closed, hole)))
    outcome = world.outcome(node, guid)
    assert isinstance(outcome, fx.Failed)
    assert outcome.tried == ((closed, "connection refused"), (hole, "timed out"))
    assert outcome.reason == f"{closed}: connection refused; {hole}: timed out"


def test_connect_ends_at_its_deadline() -> None:
    world = World()
    node = world.node(limits=Limits(work_timeout_s=1.0))
    guid = node.call(lambda guid: jobs.Connect(guid, (world.black_hole(),)))
    outcome = world.outcome(node, guid)
    assert isinstance(outcome, fx.Failed)
    assert outcome.code == "timeout"
    world.run(10.0)  # the end of the dial comes later, and changes nothing
    assert not node.machine.state.dials


def test_who_refuses_a_lookup_is_none_of_those_that_were_found() -> None:
    world = World()
    nodes = world.network(4)
    nodes[1].tamper = lambda envelope: (
        message.Envelope(envelope.guid, envelope.work, message.Refused("stopping"))
        if isinstance(envelope.body, message.Closest)
        else envelope
    )
    found = world.outcome(nodes[0], nodes[0].call(lambda guid: jobs.LookUp(guid, nodes[1].id)))
    assert isinstance(found, fx.LookedUp)
    assert nodes[1].id not in [contact.id for contact in found.contacts]
    assert (found.asked, found.failed) == (2, 1)
