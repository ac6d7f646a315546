"""Connections and their workers: what is sent when, what counts as lost, which connection stays."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import links
from xorbit.core.discovery import LINKS_PER_PEER_MAX
from xorbit.core.state import RoundTrip
from xorbit.ids import Guid, id_of
from xorbit.items import Address, Contact, block_key, make_record
from xorbit.wire import message
from xorbit.wire.message import FindClosest, Ping

TARGET = id_of(b"target")


def flatten(node: Node, kind: type) -> list:
    return [effect for _, _, effects in node.log for effect in effects if isinstance(effect, kind)]


def questions(node: Node, other: Node, count: int) -> list[Guid]:
    return [node.ask(other, FindClosest(id_of(bytes([number])))) for number in range(count)]


def asked(node: Node, guids: list[Guid]) -> list[Guid]:
    """Return which of these works have sent their request, in the order of sending."""
    return [env.work for env in node.sent(FindClosest) if env.work in guids]


# --- Out-workers ----------------------------------------------------------------------------------


def test_no_more_than_n_requests_are_in_flight_the_rest_wait_in_order() -> None:
    world = World()
    one, other = world.pair(Limits(workers=4))
    guids = questions(one, other, 10)
    world.run(0.005)
    assert asked(one, guids) == guids[:4]
    world.run(2 * world.delay_s)
    assert asked(one, guids) == guids[:8]
    world.run(4 * world.delay_s)
    assert asked(one, guids) == guids
    assert all(isinstance(one.outcomes[guid], fx.Answered) for guid in guids)


def test_what_waits_for_one_connection_is_bounded() -> None:
    world = World()
    one, other = world.pair(Limits(workers=2, waiting_requests_max=3))
    guids = questions(one, other, 6)
    world.run(0.005)
    assert one.outcomes == {
        guids[-1]: fx.Failed("unreachable", "too many requests wait for this peer")
    } | {guid: outcome for guid, outcome in one.outcomes.items() if guid not in guids}
    world.run(1.0)
    assert all(isinstance(one.outcomes[guid], fx.Answered) for guid in guids[:-1])


def test_what_waits_for_one_dial_is_bounded_and_sent_in_order_once_it_is_open() -> None:
    world = World()
    one, other = world.node(limits=Limits(waiting_requests_max=3)), world.node()
    guids = questions(one, other, 5)
    world.run(1.0)
    assert asked(one, guids) == guids[:3]
    assert [isinstance(one.outcomes[guid], fx.Answered) for guid in guids] == [True] * 3 + [
        False
    ] * 2
    assert len(flatten(one, fx.Dial)) == 1


# --- In-workers -----------------------------------------------------------------------------------


def test_when_all_in_workers_are_busy_the_line_is_held_until_one_is_free() -> None:
    world = World(disk_s=0.1)
    server = world.node(limits=Limits(workers=3))
    client = world.node()
    world.outcome(client, client.connect(server))
    world.run(1.0)
    guids = [client.ask(server, message.Get(block_key(bytes([number])))) for number in range(7)]
    world.run(0.05)
    (link,) = server.machine.state.links.values()
    assert len(link.in_workers) == 3
    assert server.queue.lengths()[link.guid] == 4
    assert flatten(server, fx.HoldRequests) == [fx.HoldRequests(link.guid)]
    world.run(1.0)
    assert all(isinstance(client.outcomes[guid], fx.Answered) for guid in guids)
    held = flatten(server, fx.HoldRequests).count(fx.HoldRequests(link.guid))
    released = flatten(server, fx.ReleaseRequests).count(fx.ReleaseRequests(link.guid))
    assert released == held + 1  # the first lets a new connection in


def test_a_request_repeated_while_it_is_being_answered_is_answered_once() -> None:
    world = World(disk_s=0.1)
    one, other = world.pair()
    (link,) = other.links_to(one)
    request = jobs.HandleRequest(
        link, Guid(bytes(16)), Guid(bytes(16)), message.Get(block_key(b""))
    )
    assert len(other.step(request)) == 1
    assert other.step(request) == []
    world.run(1.0)
    assert len([env for env in other.sent(message.Closest) if env.guid == bytes(16)]) == 1


def test_a_request_over_a_connection_that_is_gone_is_not_served() -> None:
    one, other = World().pair()
    (link,) = other.links_to(one)
    other.step(jobs.ConnectionLost(link, "gone"))
    assert other.step(jobs.HandleRequest(link, Guid(bytes(16)), Guid(bytes(16)), Ping())) == []


def test_an_answer_for_a_connection_that_is_gone_is_dropped() -> None:
    world = World(disk_s=0.05)
    one, other = world.pair()
    one.ask(other, message.Get(block_key(b"")))
    world.run(0.03)
    (link,) = other.links_to(one)
    other.cut(link, "gone")
    other.step(jobs.SendResponse(link, Guid(bytes(16)), message.Pong()))
    before = other.machine.status().requests_served
    world.run(1.0)
    assert other.machine.status().requests_served == before
    assert not other.machine.state.disk_of
    nobody = jobs.HandleResponse(link, Guid(bytes(16)), Guid(bytes(16)), message.Pong())
    assert other.step(nobody) == []


# --- Timeouts -------------------------------------------------------------------------------------


def test_reply_timeouts_are_those_of_rfc_6298() -> None:
    """Smoothed by 1/8, varied by 1/4, plus four variations; doubled by each timeout; bounded."""
    state = World().node().machine.state
    round_trip = RoundTrip()
    assert links.reply_timeout_s(state, round_trip) == 3.0
    links._measure(round_trip, 1.0)
    assert (round_trip.smoothed_s, round_trip.variation_s) == (1.0, 0.5)
    assert links.reply_timeout_s(state, round_trip) == 3.0
    links._measure(round_trip, 2.0)
    assert (round_trip.smoothed_s, round_trip.variation_s) == (1.125, 0.625)
    assert links.reply_timeout_s(state, round_trip) == 1.125 + 4 * 0.625
    round_trip.backoff = 2
    assert links.reply_timeout_s(state, round_trip) == 2 * (1.125 + 4 * 0.625)
    round_trip.backoff = 64
    assert links.reply_timeout_s(state, round_trip) == 10.0
    for _ in range(100):
        links._measure(round_trip, 0.001)
    assert links.reply_timeout_s(state, round_trip) == 1.0


def test_a_silent_peer_is_given_up_later_each_time_and_closed_at_the_third_timeout() -> None:
    world = World()
    one, other = world.pair()
    other.mute = True
    waits = []
    for _ in range(3):
        began = world.now
        failed = world.outcome(one, one.ask(other, Ping()))
        assert isinstance(failed, fx.Failed)
        waits.append(world.now - began)
    assert waits == pytest.approx([1.0, 2.0, 4.0])
    assert [close.reason for close in flatten(one, fx.Close)] == [
        "it has not answered several times in a row"
    ]
    world.run(0.1)
    assert not one.links_to(other)
    assert not one.knows(other)


def test_a_busy_peer_that_goes_on_answering_is_given_more_time() -> None:
    """A request is not given up while others of its connection are answered, up to a limit."""
    world = World()
    one, other = world.pair()
    other.mute = True
    waiting = one.ask(other, Ping())
    began = world.now
    while waiting not in one.outcomes:
        world.run(0.5)
        other.mute = False
        answered = one.ask(other, Ping())
        assert isinstance(world.outcome(one, answered), fx.Answered)
        other.mute = True
    longest = Limits().request_timeout_s_max
    assert longest - 1.0 <= world.now - began <= longest + 1.0


def test_an_answer_ends_the_backoff() -> None:
    world = World()
    one, other = world.pair()
    other.mute = True
    world.outcome(one, one.ask(other, Ping()))
    other.mute = False
    world.outcome(one, one.ask(other, Ping()))
    other.mute = True
    began = world.now
    world.outcome(one, one.ask(other, Ping()))
    assert world.now - began == pytest.approx(1.0)


def test_an_answer_in_between_starts_the_count_of_timeouts_anew() -> None:
    world = World()
    one, other = world.pair(Limits(maintenance_interval_s=1000.0))
    for mute in (True, True, False, True, True):
        other.mute = mute
        outcome = world.outcome(one, one.ask(other, Ping()))
        assert isinstance(outcome, fx.Failed) == mute
    assert one.links_to(other)
    assert not flatten(one, fx.Close)


def test_a_faster_deadline_does_not_wait_for_a_slower_one_before_it() -> None:
    """A request sent after the round trip was measured times out by it, whatever came before."""
    world = World()
    one, other = world.node(), world.node()
    other.tamper = lambda envelope: envelope
    slow = one.ask(other, message.Get(block_key(b"never answered")))
    other._disk = lambda effect: None
    world.outcome(one, one.ask(other, Ping()))
    other.mute = True
    began = world.now
    fast = one.ask(other, Ping())
    world.outcome(one, fast)
    assert world.now - began == pytest.approx(1.0)
    assert slow not in one.outcomes


def test_requests_still_in_flight_when_a_silent_peer_is_closed_end_as_lost() -> None:
    world = World()
    one, other = world.pair()
    other.mute = True
    guids = []
    for _ in range(40):
        guids.append(one.ask(other, Ping()))
        world.run(0.2)
    world.run(1.0)
    outcomes = [one.outcomes.get(guid) for guid in guids]
    assert all(isinstance(outcome, fx.Failed) for outcome in outcomes[:20])
    reasons = {outcome.reason for outcome in outcomes if isinstance(outcome, fx.Failed)}
    assert any(reason.startswith("connection lost: it has not answered") for reason in reasons)


def test_a_peer_that_is_slow_but_heard_from_is_not_closed() -> None:
    world = World()
    one, other = world.pair()
    other._disk = lambda effect: None  # it never answers what needs its disk
    for _ in range(5):
        guid = one.ask(other, message.Get(block_key(b"")))
        world.run(0.5)
        one.step(_unasked_answer(one.links_to(other)[0]))
        assert isinstance(world.outcome(one, guid), fx.Failed)
    assert one.links_to(other)
    assert not flatten(one, fx.Close)


def _unasked_answer(link: Guid) -> jobs.HandleResponse:
    """Return an answer that came too late for its request; yet it shows that the peer lives."""
    return jobs.HandleResponse(link, Guid(bytes(16)), Guid(bytes(16)), message.Pong())


def test_an_unmeasured_or_unconnected_peer_counts_as_slow_after_the_least_timeout() -> None:
    world = World()
    one, other = world.pair()
    state = one.machine.state
    assert links.slow_after_s(state, other.id) == state.limits.hedge_s_min
    assert links.slow_after_s(state, TARGET) == state.limits.request_timeout_s_min
    state.links[state.link_of[other.id]].round_trip.smoothed_s = 50.0
    assert links.slow_after_s(state, other.id) == state.limits.request_timeout_s_min


# --- Lost connections -----------------------------------------------------------------------------


def test_a_lost_connection_fails_what_waited_for_it_and_says_why() -> None:
    world = World()
    one, other = world.pair()
    guid = one.ask(other, Ping())
    world.run(0.005)
    one.cut(one.links_to(other)[0], "cable pulled")
    assert world.outcome(one, guid) == fx.Failed("unreachable", "connection lost: cable pulled")
    assert one.step(jobs.ConnectionLost(Guid(bytes(16)), "unknown")) == []


def test_what_waits_on_a_lost_connection_moves_to_another_one_to_the_same_peer() -> None:
    world = World()
    one, other = world.pair()
    assert other.address
    spare = one.join(other, other.address, None)
    other.mute = True
    world.run(0.05)
    other.mute = False
    guid = one.ask(other, Ping())
    world.run(0.005)
    used = one.machine.state.link_of[other.id]
    one.cut(used, "cable pulled")
    assert isinstance(world.outcome(one, guid), fx.Answered)
    assert one.machine.state.link_of[other.id] != used
    assert spare in one.links_to(other)


# --- Which connection stays -----------------------------------------------------------------------


def _smaller_first(world: World) -> tuple[Node, Node]:
    one, other = sorted((world.node(), world.node()), key=lambda node: node.id)
    return one, other


def _sole_link(one: Node, other: Node) -> None:
    """Hold two nodes against: one connection, the same at both ends, dialled by the smaller id."""
    (here,) = one.links_to(other)
    (there,) = other.links_to(one)
    assert one.ends[here].there == there
    dialler = min(one, other, key=lambda node: node.id)
    for node, link in ((one, here), (other, there)):
        assert node.machine.state.links[link].dialled == (node is dialler)


@pytest.mark.parametrize("lead_s", [0.0, 0.004, 0.012, 0.02, 0.025, 0.031, 0.2])
@pytest.mark.parametrize("smaller_leads", [True, False], ids=["smaller leads", "larger leads"])
def test_two_that_dial_each_other_end_with_one_connection_and_lose_no_request(
    lead_s: float, smaller_leads: bool
) -> None:
    world = World()
    small, large = _smaller_first(world)
    first, second = (small, large) if smaller_leads else (large, small)
    guids = [(first, guid) for guid in questions(first, second, 5)]
    world.run(lead_s)
    for _ in range(30):
        guids += [(second, guid) for guid in questions(second, first, 2)]
        guids += [(first, guid) for guid in questions(first, second, 2)]
        world.run(0.003)
    world.run(2.0)
    assert all(isinstance(node.outcomes.get(guid), fx.Answered) for node, guid in guids)
    _sole_link(small, large)
    assert small.knows(large)
    assert large.knows(small)


def test_of_two_connections_dialled_by_the_same_end_one_stays_at_both_ends() -> None:
    world = World()
    one, other = world.pair()
    assert other.address
    one.call(lambda guid: jobs.Connect(guid, (other.address,)))
    world.run(1.0)
    assert len(one.links_to(other)) == len(other.links_to(one)) == 1


def test_a_retired_connection_finishes_what_it_has_before_it_is_closed() -> None:
    world = World(disk_s=0.5)
    small, large = _smaller_first(world)
    world.outcome(large, large.connect(small))
    guid = large.ask(small, message.Get(block_key(b"")))
    world.run(0.02)
    assert large.address
    small.call(lambda guid: jobs.Connect(guid, (large.address,)))
    world.run(0.3)
    assert len(large.links_to(small)) == 2
    assert isinstance(world.outcome(large, guid), fx.Answered)
    world.run(1.0)
    _sole_link(small, large)


def test_a_retired_connection_stays_when_the_one_that_took_over_is_lost() -> None:
    world = World(disk_s=0.5)
    small, large = _smaller_first(world)
    world.outcome(large, large.connect(small))
    (first,) = large.links_to(small)
    guid = large.ask(small, message.Get(block_key(b"")))
    world.run(0.02)
    assert large.address
    small.call(lambda guid: jobs.Connect(guid, (large.address,)))
    world.run(0.1)
    (second,) = [link for link in large.links_to(small) if link != first]
    large.cut(second, "cable pulled")
    assert isinstance(world.outcome(large, guid), fx.Answered)
    world.run(1.0)
    assert large.links_to(small) == [first]
    assert isinstance(world.outcome(small, small.ask(large, Ping())), fx.Answered)


def test_a_request_over_a_connection_that_we_are_closing_is_not_served() -> None:
    server, peer = World().node(), id_of(b"hoarder")
    opened = [Guid(bytes([number]) * 16) for number in range(LINKS_PER_PEER_MAX + 1)]
    for guid in opened:
        server.step(jobs.ConnectionOpened(guid, peer, Address("10.0.0.9", 50_000)))
    ask = jobs.HandleRequest(opened[-1], Guid(bytes(16)), Guid(bytes(16)), Ping())
    assert server.step(ask) == []


def test_a_peer_may_not_pile_up_connections() -> None:
    server, peer = World().node(), id_of(b"hoarder")
    opened = [Guid(bytes([number]) * 16) for number in range(8)]
    for guid in opened:
        server.step(jobs.ConnectionOpened(guid, peer, Address("10.0.0.9", 50_000)))
    refused = flatten(server, fx.Close)
    assert [close.connection for close in refused] == opened[LINKS_PER_PEER_MAX:]
    assert {close.reason for close in refused} == {"too many connections to one peer"}


def test_connections_max_makes_room_by_closing_the_one_unused_for_longest() -> None:
    world = World()
    server = world.node(limits=Limits(connections_max=3, maintenance_interval_s=1e6))
    quiet = Limits(maintenance_interval_s=1e6)
    clients = [world.node(listen=False, limits=quiet) for _ in range(5)]
    for client in clients[:3]:
        world.outcome(client, client.connect(server))
        world.run(1.0)
    for client in reversed(clients[:3]):
        world.outcome(client, client.ask(server, Ping()))
    for client in clients[3:]:
        world.outcome(client, client.connect(server))
        world.run(1.0)
    assert [bool(server.links_to(client)) for client in clients] == [True, False, False, True, True]


def test_when_all_connections_are_busy_the_newcomer_is_refused() -> None:
    world = World(disk_s=2.0)
    server = world.node(limits=Limits(connections_max=2))
    clients = [world.node(listen=False) for _ in range(3)]
    for client in clients[:2]:
        client.ask(server, message.Get(block_key(b"")))
    world.run(0.5)
    clients[2].connect(server)
    world.run(0.5)
    assert [bool(server.links_to(client)) for client in clients] == [True, True, False]


# --- Dials ----------------------------------------------------------------------------------------


def test_dials_under_way_are_bounded_and_the_rest_follow() -> None:
    world = World()
    node = world.node(limits=Limits(dials_max=2))
    others = [world.node() for _ in range(5)]
    guids = [node.connect(other) for other in others]
    world.run(0.01)
    assert len(flatten(node, fx.Dial)) == 2
    world.run(1.0)
    assert [node.outcomes[guid] for guid in guids] == [fx.Connected(other.id) for other in others]


def test_dials_that_wait_are_bounded_and_the_rest_fail_at_once_with_the_reason() -> None:
    world = World()
    node = world.node(limits=Limits(dials_max=1, dials_waiting_max=2))
    others = [world.node() for _ in range(5)]
    connects = [node.connect(other) for other in others[:4]]
    asked = node.ask(others[4], Ping())
    world.run(0.01)
    for guid in (connects[3], asked):
        failed = node.outcomes[guid]
        assert isinstance(failed, fx.Failed)
        assert "too many others wait" in failed.reason
    world.run(1.0)
    assert [node.outcomes[guid] for guid in connects[:3]] == [
        fx.Connected(other.id) for other in others[:3]
    ]


def test_a_dial_that_nobody_waits_for_any_more_is_not_begun() -> None:
    world = World()
    node = world.node(limits=Limits(dials_max=1))
    others = [world.node() for _ in range(4)]
    guids = [node.connect(other) for other in others]
    world.run(0.01)
    for guid in guids[1:3]:
        node.push(jobs.Cancel(guid))
    world.run(1.0)
    dialled = [dial.expected for dial in flatten(node, fx.Dial)]
    assert dialled == [others[0].id, others[3].id]
    assert node.outcomes[guids[3]] == fx.Connected(others[3].id)


def test_a_dial_to_a_peer_that_is_being_dialled_joins_it() -> None:
    world = World()
    one, other = world.node(), world.node()
    guids = [one.connect(other), one.connect(other)]
    world.run(1.0)
    assert [one.outcomes[guid] for guid in guids] == [fx.Connected(other.id)] * 2
    assert len(flatten(one, fx.Dial)) == 1


def test_a_contact_that_another_id_answers_for_is_forgotten() -> None:
    world = World()
    one, impostor = world.node(), world.node()
    assert impostor.address
    claimed = Contact(id_of(b"somebody else"), (impostor.address,))
    one.machine.state.table.proved(claimed.id, impostor.address, world.now)
    failed = world.outcome(one, one.ask(claimed, Ping()))
    assert isinstance(failed, fx.Failed)
    assert f"another id answered: {impostor.id.hex()}" in failed.reason
    assert claimed.id not in one.machine.state.table
    assert not one.links_to(impostor)


def test_a_contact_that_cannot_be_reached_is_no_longer_handed_on_and_in_the_end_forgotten() -> None:
    world = World()
    one, other = world.pair()
    other.kill()
    world.run(0.1)
    for _ in range(3):
        assert one.knows(other)
        failed = world.outcome(one, one.ask(other, Ping()))
        assert isinstance(failed, fx.Failed)
        assert "connection refused" in failed.reason
        assert one.machine.state.table.closest(TARGET, 20) == []
    assert not one.knows(other)


def test_when_a_dial_fails_but_the_peer_came_by_itself_its_requests_go_there() -> None:
    world = World()
    one, other = world.node(), world.node()
    wrong = Contact(other.id, (world.black_hole(),))
    guid = one.ask(wrong, Ping())
    world.run(0.1)
    world.outcome(other, other.connect(one))
    assert isinstance(world.outcome(one, guid), fx.Answered)


def test_news_of_a_dial_that_nobody_knows_changes_little() -> None:
    """A failure of an unknown dial changes nothing; a connection by one is taken in unproved."""
    node = World().node()
    unknown = Guid(bytes(16))
    assert node.step(jobs.DialFailed(unknown, ())) == []
    peer = id_of(b"peer")
    node.step(jobs.ConnectionOpened(unknown, peer, Address("10.0.0.9", 1), unknown))
    assert peer in node.machine.state.link_of
    assert peer not in node.machine.state.table


def test_a_dial_without_addresses_that_fails_says_so() -> None:
    world = World()
    one, other = world.node(), world.node()
    guid = one.ask(other, Ping())
    world.run(0.005)
    (dial,) = flatten(one, fx.Dial)
    one.step(jobs.DialFailed(dial.guid, ()))
    assert one.outcomes[guid] == fx.Failed("unreachable", "cannot be reached (no address)")


# --- Answers to other questions -------------------------------------------------------------------


def test_an_answer_to_another_question_is_none_and_its_sender_is_cut_off() -> None:
    world = World()
    node, liar = world.pair()
    liar.tamper = lambda envelope: message.Envelope(
        envelope.guid, envelope.work, message.Following(60.0)
    )
    failed = world.outcome(node, node.ask(liar, message.Have(())))
    assert failed == fx.Failed("unreachable", "an answer to another question")
    world.run(1.0)
    assert not node.ends
    assert liar.id not in node.machine.state.table
    assert node.machine.state.pushers == {}
    assert any(report.event == "peer distrusted" for report in node.reports)


def test_nobody_pushes_to_a_work_that_did_not_ask_for_it() -> None:
    """A push under the guid of whatever we asked stops no sweep."""
    world = World()
    nodes = world.network(3)
    node, liar, _ = nodes
    for number in range(10):
        node.put(bytes([number]))
    pushed = message.Updated(make_record(SigningKey(bytes(32)), 1, b"value"))

    def and_push(envelope: message.Envelope) -> message.Envelope:
        if not isinstance(envelope.body, message.Request):
            push = message.encode(message.Envelope(envelope.guid, envelope.work, pushed))
            for end in list(liar.ends.values()):
                world.after(0.0, lambda end=end: liar.send_bytes(end, push))
        return envelope

    liar.tamper = and_push
    world.run(120.0)
    assert liar.id in node.machine.state.link_of
