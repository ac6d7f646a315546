"""Answers to the requests of peers: told of between nodes of the simulated world."""

from itertools import pairwise

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World, check_acknowledgements
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid, Id, as_id, distance, id_of
from xorbit.items import Contact, ItemKey, Kind, block_key, key_of, make_block, make_record
from xorbit.wire import message
from xorbit.wire.message import (
    Closest,
    FindClosest,
    FindNext,
    Follow,
    Found,
    Get,
    Have,
    Missing,
    Next,
    Ping,
    Pong,
    Receipt,
    Refused,
    Response,
    Store,
    Stored,
)

DATA = b"a block of the tests"
KEY = block_key(DATA)
BLOCK = make_block(DATA)


def ask(one: Node, other: Node, request: message.Request) -> Response:
    outcome = one.world.outcome(one, one.ask(other, request))
    assert isinstance(outcome, fx.Answered)
    return outcome.response


def chain(world: World, numbers: list[int]) -> list[Node]:
    """Add nodes with these ids, each of which knows only its neighbours in the list."""
    nodes = [world.node(own=as_id(number)) for number in numbers]
    for one, other in pairwise(nodes):
        world.outcome(one, one.connect(other))
        world.run(0.2)
    return nodes


# --- What the state alone answers -----------------------------------------------------------------


def test_a_ping_is_answered_with_how_we_see_the_peer_and_where_we_listen() -> None:
    one, other = World().pair()
    pong = ask(one, other, Ping())
    assert isinstance(pong, Pong)
    assert pong.observed
    assert one.address
    assert other.address
    assert pong.observed.host == one.address.host
    assert pong.addresses[0] == other.address


def test_find_closest_names_the_closest_contacts_in_order_without_the_asker() -> None:
    world = World()
    nodes = world.network(9)
    world.run(5.0)
    target = id_of(b"target")
    answer = ask(nodes[0], nodes[1], FindClosest(target))
    assert isinstance(answer, Closest)
    others = sorted(nodes[2:], key=lambda node: distance(node.id, target))
    assert [contact.id for contact in answer.contacts] == [node.id for node in others]


def test_find_closest_names_no_more_than_it_should() -> None:
    world = World()
    nodes = world.network(9, Limits(closest_count=5))
    answer = ask(nodes[0], nodes[1], FindClosest(nodes[0].id))
    assert isinstance(answer, Closest)
    assert len(answer.contacts) == 5


@pytest.mark.parametrize(("count", "named"), [(0, 5), (3, 3), (7, 7), (64, 7)])
def test_find_closest_names_as_many_as_it_is_asked_for(count: int, named: int) -> None:
    world = World()
    nodes = world.network(9, Limits(closest_count=5))
    for node in nodes[2:]:
        world.outcome(nodes[1], nodes[1].connect(node))
    answer = ask(nodes[0], nodes[1], FindClosest(nodes[0].id, count))
    assert isinstance(answer, Closest)
    assert len(answer.contacts) == named


# --- What the disk answers ------------------------------------------------------------------------


def test_a_get_is_answered_with_the_item_or_else_with_closer_contacts() -> None:
    world = World()
    nodes = world.network(3)
    nodes[1].keep(DATA)
    assert ask(nodes[0], nodes[1], Get(KEY)) == Found(BLOCK)
    answer = ask(nodes[0], nodes[2], Get(KEY))
    assert isinstance(answer, Closest)
    assert [contact.id for contact in answer.contacts] == [nodes[1].id]


def test_have_names_what_is_missing() -> None:
    one, other = World().pair()
    held, lacked = other.keep(DATA), block_key(b"something else")
    assert ask(one, other, Have((held, lacked))) == Missing((lacked,))


def test_a_store_is_acknowledged_only_once_it_is_on_disk() -> None:
    world = World(disk_s=0.5)
    one, other = world.pair()
    guid = one.ask(other, Store(BLOCK))
    world.run(0.5)
    assert not other.sent(Stored)
    assert not other.holds(KEY)
    outcome = world.outcome(one, guid)
    assert isinstance(outcome, fx.Answered)
    assert outcome.response == Stored()
    assert other.holds(KEY)
    assert check_acknowledgements(other.id, other.log) == 1


def test_the_checker_of_acknowledgements_can_fail() -> None:
    """A log in which the write comes after the answer does not pass."""
    world = World()
    one, other = world.pair()
    ask(one, other, Store(BLOCK))
    too_early = [entry for entry in other.log if not isinstance(entry[1], jobs.StoreWritten)]
    stored = [entry for entry in other.log if isinstance(entry[1], jobs.StoreWritten)]
    sent_anyway = [(now, jobs.Tick(), effects) for now, _, effects in stored]
    with pytest.raises(AssertionError, match="acknowledged before it was written"):
        check_acknowledgements(other.id, [*too_early, *sent_anyway])
    guid, _ = one.put(b"another")
    world.outcome(one, guid)
    unwritten = [entry for entry in one.log if not isinstance(entry[1], jobs.StoreWritten)]
    with pytest.raises(AssertionError, match="a receipt before it was written"):
        check_acknowledgements(one.id, unwritten)


def test_a_full_node_refuses_with_a_clear_reason() -> None:
    world = World()
    one, other = world.node(), world.node(limits=Limits(store_quota_bytes=10))
    refused = ask(one, other, Store(BLOCK))
    assert isinstance(refused, Refused)
    assert refused.code == "full"
    assert "10" in refused.reason
    assert other.machine.status().requests_refused == 1


def test_a_client_keeps_nothing_for_others_and_says_so() -> None:
    world = World()
    node, client = world.node(), world.node(listen=False)
    world.outcome(client, client.connect(node))
    world.run(0.1)
    refused = ask(node, client, Store(BLOCK))
    assert isinstance(refused, Refused)
    assert refused.code == "unsupported"
    assert not client.holds(KEY)


def test_a_disk_that_fails_is_a_refusal() -> None:
    """What the disk said, and where it is, is no business of a peer's."""
    world = World()
    one, other = world.pair()
    other._disk = lambda effect: other.push(
        jobs.StoreWritten(effect.guid, "failed", "the disk is on fire" * 20)
    )
    refused = ask(one, other, Store(BLOCK))
    assert isinstance(refused, Refused)
    assert refused.code == "failed"
    assert refused.reason == "the disk of this node failed"


def test_a_stale_record_is_answered_with_the_newer_one() -> None:
    one, other = World().pair()
    key = SigningKey(bytes(32))
    new, old = make_record(key, 2, b"new"), make_record(key, 1, b"old")
    assert ask(one, other, Store(new)) == Stored()
    refused = ask(one, other, Store(old))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.newer) == ("stale", new)
    assert ask(one, other, Get(key_of(new))) == Found(new)


def test_an_item_that_does_not_prove_itself_is_refused_and_never_written() -> None:
    one, other = World().pair()
    record = make_record(SigningKey(bytes(32)), 1, b"value")
    forged = type(record)(record.public_key, 2, record.value, record.signature)
    refused = ask(one, other, Store(forged))
    assert isinstance(refused, Refused)
    assert refused.code == "invalid"
    assert not any(isinstance(e, fx.WriteStore) for _, _, effects in other.log for e in effects)


def test_a_damaged_block_is_answered_with_contacts_and_mended() -> None:
    world = World()
    nodes = world.network(3)
    for node in nodes[1:]:
        node.keep(DATA)
    nodes[1].damage(KEY)
    assert isinstance(ask(nodes[0], nodes[1], Get(KEY)), Closest)
    world.run(1.0)
    assert ask(nodes[0], nodes[1], Get(KEY)) == Found(BLOCK)
    assert [report.event for report in nodes[1].reports].count("bad read from the store") == 1


def test_a_damaged_block_that_many_ask_for_at_once_is_looked_for_once() -> None:
    world = World()
    nodes = world.network(4)
    for node in nodes[1:]:
        node.keep(DATA)
    nodes[1].damage(KEY)
    asked = [nodes[0].ask(nodes[1], Get(KEY)) for _ in range(20)]
    for guid in asked:
        outcome = world.outcome(nodes[0], guid)
        assert isinstance(outcome, fx.Answered)
        assert isinstance(outcome.response, Closest)
    world.run(1.0)
    assert len({sent.work for sent in nodes[1].sent(Get) if sent.body == Get(KEY)}) == 1
    assert nodes[1].holds(KEY)


def test_a_disk_that_fails_to_read_is_reported_and_answered_with_contacts() -> None:
    one, other = World().pair()
    other._disk = lambda effect: other.push(jobs.StoreRead(effect.guid, None, "input/output"))
    assert isinstance(ask(one, other, Get(KEY)), Closest)
    assert other.reports[-1].detail.endswith("input/output")
    assert not other.machine.state.works


# --- FindNext -------------------------------------------------------------------------------------


def test_find_next_goes_from_hop_to_hop_under_the_same_guid_each_strictly_nearer() -> None:
    """One operation can be followed through all logs by the guid of the work that caused it."""
    world = World()
    nodes = chain(world, [0xF000, 0x0F00, 0x00F0, 0x000F])
    guid = nodes[0].ask(nodes[1], FindNext(as_id(0)))
    outcome = world.outcome(nodes[0], guid)
    assert isinstance(outcome, fx.Answered)
    assert isinstance(outcome.response, Next)
    assert (outcome.response.contact.id, outcome.response.hops) == (nodes[3].id, 2)
    asked = [node.sent(FindNext) for node in nodes]
    assert [[env.body for env in sent] for sent in asked] == [
        [FindNext(as_id(0), hops)] for hops in range(3)
    ] + [[]]
    answered = [node.sent(Next) for node in nodes]
    assert [len(sent) for sent in answered] == [0, 1, 1, 1]
    envelopes = [env for sent in (*asked, *answered) for env in sent]
    assert len({env.guid for env in envelopes}) == 1
    assert {env.work for env in envelopes} == {guid}


def test_a_node_that_knows_nobody_nearer_answers_find_next_with_itself() -> None:
    one, other = World().pair()
    answer = ask(one, other, FindNext(other.id))
    assert isinstance(answer, Next)
    assert (answer.contact.id, answer.hops) == (other.id, 0)
    assert other.address in answer.contact.addresses


def test_find_next_is_not_handed_back_to_who_asked() -> None:
    one, other = World().pair()
    answer = ask(one, other, FindNext(one.id))
    assert isinstance(answer, Next)
    assert answer.contact.id == other.id
    assert other.sent(FindNext) == []


def test_find_next_can_ask_for_the_nearest_but_not_equal() -> None:
    """So a node finds its own neighbour, though it is itself the nearest to its id."""
    world = World()
    nodes = chain(world, [0xF0, 0x01, 0x02, 0x08])
    answer = ask(nodes[0], nodes[1], FindNext(as_id(0x01), 0, not_equal=True))
    assert isinstance(answer, Next)
    assert answer.contact.id == as_id(0x02)
    equal = ask(nodes[0], nodes[1], FindNext(as_id(0x01)))
    assert isinstance(equal, Next)
    assert equal.contact.id == as_id(0x01)
    skipped = ask(nodes[3], nodes[2], FindNext(as_id(0x01), 0, not_equal=True))
    assert isinstance(skipped, Next)
    assert skipped.contact.id == as_id(0x02)


def test_find_next_is_not_passed_on_for_ever() -> None:
    world = World()
    nodes = chain(world, [0xF0, 0x0F, 0x01])
    answer = ask(nodes[0], nodes[1], FindNext(as_id(0), 255))
    assert isinstance(answer, Next)
    assert (answer.contact.id, answer.hops) == (nodes[1].id, 255)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_when_a_hop_is_silent_the_one_before_it_answers_with_its_contact_in_time(
    hops: int,
) -> None:
    world = World()
    nodes = chain(world, [0xF000, 0x0F00, 0x00F0, 0x000F, 0x0001])
    nodes[1 + hops].mute = True
    answer = ask(nodes[0], nodes[1], FindNext(as_id(0)))
    assert isinstance(answer, Next)
    assert (answer.contact.id, answer.hops) == (nodes[1 + hops].id, hops)


def test_when_a_hop_is_gone_the_one_before_it_answers_with_its_contact_at_once() -> None:
    world = World()
    nodes = chain(world, [0xF0, 0x0F, 0x01])
    nodes[2].kill()
    world.run(0.1)
    began = world.now
    answer = ask(nodes[0], nodes[1], FindNext(as_id(0)))
    assert isinstance(answer, Next)
    assert (answer.contact.id, answer.hops) == (nodes[2].id, 1)
    assert world.now - began < 0.1


def test_when_a_hop_cannot_be_dialled_in_time_its_contact_is_the_answer() -> None:
    world = World()
    one, other = world.node(own=as_id(0xF0)), world.node(own=as_id(0x0F))
    nearer = Contact(as_id(1), tuple(world.black_hole() for _ in range(3)))
    other.machine.state.table.proved(nearer.id, nearer.addresses[0], world.now)
    for address in nearer.addresses:
        other.machine.state.table.proved(nearer.id, address, world.now)
    answer = ask(one, other, FindNext(as_id(0)))
    assert isinstance(answer, Next)
    assert (answer.contact.id, answer.hops) == (nearer.id, 1)


def test_when_a_hop_refuses_so_does_the_one_before_it() -> None:
    world = World()
    nodes = chain(world, [0xF0, 0x0F, 0x01])
    nodes[2].push(jobs.Shutdown())
    world.run(0.1)
    refused = ask(nodes[0], nodes[1], FindNext(as_id(0)))
    assert refused == Refused("failed", "the nearer node gave no contact")


def test_a_relay_takes_no_answer_from_another_exchange_by_its_guid() -> None:
    """The guid of a relay is the asker's choice: it may be that of a question of ours."""
    world = World()
    asker, node, nearer = chain(world, [0xF0, 0x0F, 0x01])
    ours = node.ask(nearer, FindClosest(KEY.id))
    world.run(0.001)
    (guid,) = [sent.guid for sent in node.sent(FindClosest) if sent.work == ours]
    (link,) = node.links_to(asker)
    node.push(jobs.HandleRequest(link, guid, guid, FindNext(as_id(0))), link)
    answer = world.outcome(node, ours, within_s=1.0)
    assert isinstance(answer, fx.Answered)
    assert isinstance(answer.response, Closest)
    assert Next(nearer.contact, 1) in [sent.body for sent in node.sent(Next) if sent.guid == guid]


def test_a_relay_says_nothing_of_the_round_trip_to_the_peer() -> None:
    world = World()
    nodes = chain(world, [0xF0, 0x0F, 0x01])
    before = nodes[0].machine.peers()
    nodes[2].lag_s = 0.5
    ask(nodes[0], nodes[1], FindNext(as_id(0)))
    assert [peer.round_trip_s for peer in nodes[0].machine.peers()] == [
        peer.round_trip_s for peer in before
    ]


# --- Store, also to others ------------------------------------------------------------------------


def test_a_store_with_also_is_forwarded_and_says_what_each_of_them_answered() -> None:
    world = World()
    nodes = world.network(6)
    world.run(5.0)
    asker, taker, good, full, odd, silent = nodes
    full.store._quota_bytes = 1
    silent.mute = True
    odd.tamper = lambda envelope: message.Envelope(envelope.guid, envelope.work, Pong())
    also = tuple(node.contact for node in (good, full, odd, silent, good, taker))
    guid = asker.ask(taker, Store(BLOCK, also=also))
    outcome = world.outcome(asker, guid)
    assert isinstance(outcome, fx.Answered)
    answer = outcome.response
    assert isinstance(answer, Stored)
    said = {receipt.node: receipt for receipt in answer.also}
    assert len(answer.also) == len(said) == 4
    assert said[good.id] == Receipt(good.id, "stored")
    assert said[full.id].outcome == "refused"
    assert said[odd.id] == Receipt(odd.id, "timeout", "an answer to another question")
    assert said[full.id].reason.startswith("full: ")
    assert said[silent.id].outcome == "timeout"
    assert taker.holds(KEY)
    assert good.holds(KEY)
    forwards = [env for env in taker.sent(Store) if env.body.item == BLOCK]
    assert {env.work for env in forwards} == {guid}
    assert {env.work for env in good.sent(Stored)} >= {guid}


def test_a_store_with_also_names_only_itself_is_answered_at_once() -> None:
    one, other = World().pair()
    assert ask(one, other, Store(BLOCK, also=(other.contact,))) == Stored()


def test_forwarding_ends_in_time_for_its_answer_to_be_heard() -> None:
    world = World()
    one, other = world.pair()
    hole = Contact(id_of(b"nobody"), tuple(world.black_hole() for _ in range(3)))
    answer = ask(one, other, Store(BLOCK, also=(hole,)))
    assert answer == Stored((Receipt(hole.id, "timeout"),))
    world.run(20.0)
    assert not other.machine.state.works


# --- Room for our own user ------------------------------------------------------------------------


def test_what_peers_want_done_leaves_room_for_our_own_user() -> None:
    world = World()
    one, other, mute = chain(world, [9, 8, 1])
    other.machine.state.limits = Limits(works_max=4)
    mute.mute = True
    relayed = [one.ask(other, FindNext(as_id(0))) for _ in range(2)]
    world.run(0.1)
    assert len(other.machine.state.works) == 2
    refused = ask(one, other, FindNext(as_id(0)))
    assert isinstance(refused, Refused)
    assert refused.code == "busy"
    receipt = Receipt(mute.id, "refused", "too many works are in progress")
    assert ask(one, other, Store(BLOCK, also=(mute.contact,))) == Stored((receipt,))
    assert isinstance(world.outcome(other, other.get(KEY)), fx.Got)
    for guid in relayed:
        assert isinstance(world.outcome(one, guid), fx.Answered)


# --- Unusual ends ---------------------------------------------------------------------------------


def test_every_request_gets_exactly_one_response_while_its_connection_lives() -> None:
    world = World()
    nodes = world.network(3)
    taker = nodes[1]
    taker.keep(b"held")
    every: list[message.Request] = [
        Ping(),
        FindNext(KEY.id),
        FindClosest(KEY.id),
        Get(KEY),
        Get(block_key(b"held")),
        Get(ItemKey(Kind.RECORD, Id(bytes(32)))),
        Store(BLOCK),
        Store(BLOCK, also=(nodes[2].contact,)),
        Have((KEY,)),
        Follow(KEY.id),
    ]
    (link,) = taker.links_to(nodes[0])
    for number, request in enumerate(every):
        guid = Guid(bytes([number]) * 16)
        taker.push(jobs.HandleRequest(link, guid, guid, request), link)
    world.run(5.0)
    sent = [
        e.envelope.guid
        for _, _, effects in taker.log
        for e in effects
        if isinstance(e, fx.Send) and e.connection == link
    ]
    assert [sent.count(Guid(bytes([n]) * 16)) for n in range(len(every))] == [1] * len(every)
    assert not taker.machine.state.links[link].in_workers
