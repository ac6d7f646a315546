"""The Lookup: finds the closest in an honest network, and ends in any other."""

import heapq
from collections.abc import Callable, Iterable
from random import Random

import pytest

from xorbit.core.lookup import BLAME_MAX, HEARSAY, Ask, Finished, Lookup, Wait
from xorbit.core.routing import RoutingTable
from xorbit.ids import Id, as_id, as_number, distance, id_of
from xorbit.items import Address, Contact

OWN = id_of(b"own")
TARGET = id_of(b"target")
SLOW_S = 1.0
WIDTH = 20


def at(far: int) -> Contact:
    """Return the contact at this distance from the target."""
    return Contact(as_id(as_number(TARGET) ^ far), (Address("203.0.113.5", 4000),))


def start(
    seeds: Iterable[Contact] = (), *, width: int = 3, parallel: int = 2, asked_max: int = 10
) -> Lookup:
    return Lookup(TARGET, OWN, seeds, width=width, parallel=parallel, asked_max=asked_max)


def ask_all(lookup: Lookup, now: float = 0.0, slow_at: float = SLOW_S) -> list[Contact]:
    """Ask whom the lookup wants asked at this moment."""
    asked: list[Contact] = []
    while isinstance(action := lookup.next(now), Ask):
        asked.append(action.contact)
        lookup.asked(action.contact.id, slow_at)
    return asked


# --- One step at a time --------------------------------------------------------------------------


def test_nobody_known_means_finished() -> None:
    assert start().next(0.0) == Finished()


def test_closest_are_asked_first_and_so_many_at_once() -> None:
    lookup = start([at(5), at(1), at(9), at(3)])
    assert ask_all(lookup) == [at(1), at(3)]
    assert lookup.next(0.0) == Wait(SLOW_S)


def test_answer_makes_room_for_the_next() -> None:
    lookup = start([at(5), at(1), at(9), at(3)])
    ask_all(lookup)
    lookup.on_response(at(3).id)
    assert ask_all(lookup) == [at(5)]


def test_closer_contacts_of_an_answer_come_next() -> None:
    lookup = start([at(8), at(9), at(16)])
    ask_all(lookup)
    lookup.on_response(at(8).id, [at(2), at(32), at(1)])
    assert ask_all(lookup) == [at(1)]


def test_finished_when_the_closest_have_answered() -> None:
    """Those farther away are not asked for nothing."""
    lookup = start([at(far) for far in range(1, 9)], width=3, parallel=3)
    for contact in ask_all(lookup):
        lookup.on_response(contact.id)
    assert lookup.next(0.0) == Finished()
    assert lookup.closest(8) == [at(1), at(2), at(3)]
    assert lookup.closest(2) == [at(1), at(2)]
    assert lookup.counts() == (3, 0)


def test_waits_for_the_closest_that_may_still_answer() -> None:
    """One still in time holds its place; once it is slow another takes it, and that is the end."""
    lookup = start([at(1), at(2), at(3)], width=2)
    ask_all(lookup)
    lookup.on_response(at(2).id)
    assert lookup.next(0.5) == Wait(SLOW_S)
    assert ask_all(lookup, now=SLOW_S, slow_at=5.0) == [at(3)]
    lookup.on_response(at(3).id)
    assert lookup.next(SLOW_S) == Finished()
    assert lookup.closest(5) == [at(2), at(3)]


def test_failed_one_is_replaced_by_the_next_closest() -> None:
    lookup = start([at(1), at(2), at(3)], width=2)
    ask_all(lookup)
    lookup.on_failure(at(1).id)
    assert ask_all(lookup) == [at(3)]
    lookup.on_response(at(2).id)
    lookup.on_response(at(3).id)
    assert lookup.next(0.0) == Finished()
    assert lookup.closest(5) == [at(2), at(3)]
    assert lookup.counts() == (2, 1)


def test_all_failed_means_finished() -> None:
    lookup = start([at(1), at(2)])
    for contact in ask_all(lookup):
        lookup.on_failure(contact.id)
    assert lookup.next(0.0) == Finished()
    assert lookup.closest(5) == []
    assert lookup.counts() == (0, 2)


def test_own_id_and_known_ones_are_passed_over() -> None:
    lookup = start([Contact(OWN), at(1), at(1)], parallel=5)
    lookup.offer([Contact(OWN), at(1)])
    assert ask_all(lookup) == [at(1)]
    lookup.on_response(at(1).id, [Contact(OWN), at(1)])
    assert lookup.next(0.0) == Finished()


def test_offered_contacts_are_asked_like_seeds() -> None:
    lookup = start([at(4)])
    lookup.offer([at(2), at(8)])
    assert ask_all(lookup) == [at(2), at(4)]


def test_addresses_travel_with_the_contact() -> None:
    contact = Contact(at(1).id, (Address("192.0.2.1", 1),))
    assert ask_all(start([contact])) == [contact]


# --- Slow, late and unasked ----------------------------------------------------------------------


def test_slow_ones_hold_no_place_among_those_asked() -> None:
    """From the moment on at which an answer counts as slow, the next is asked beside it."""
    lookup = start([at(1), at(2), at(3)], parallel=1)
    assert ask_all(lookup) == [at(1)]
    assert lookup.next(SLOW_S - 0.01) == Wait(SLOW_S)
    assert ask_all(lookup, now=SLOW_S, slow_at=2.0) == [at(2)]
    assert lookup.next(1.5) == Wait(2.0)


def test_end_does_not_wait_for_the_slow() -> None:
    lookup = start([at(far) for far in range(1, 6)], width=2, parallel=1)
    ask_all(lookup)
    for contact in [at(2), at(3)]:
        assert ask_all(lookup, now=SLOW_S, slow_at=5.0) == [contact]
        lookup.on_response(contact.id)
    assert lookup.next(SLOW_S) == Finished()


def test_late_answer_still_counts() -> None:
    lookup = start([at(1), at(2)], width=2, parallel=1)
    ask_all(lookup)
    assert ask_all(lookup, now=SLOW_S, slow_at=5.0) == [at(2)]
    lookup.on_response(at(1).id, [at(3)])
    lookup.on_response(at(2).id)
    assert lookup.next(2.0) == Finished()
    assert lookup.closest(5) == [at(1), at(2)]


def test_slow_ones_are_waited_for_when_nobody_else_is_left() -> None:
    """No time will change anything then, only an answer or its failure."""
    lookup = start([at(1)])
    ask_all(lookup)
    assert lookup.next(SLOW_S) == Wait(None)
    lookup.on_failure(at(1).id)
    assert lookup.next(SLOW_S) == Finished()


def test_earliest_slow_moment_is_the_one_waited_for() -> None:
    lookup = start([at(1), at(2)])
    lookup.asked(at(1).id, 3.0)
    lookup.asked(at(2).id, 2.0)
    assert lookup.next(0.0) == Wait(2.0)
    assert lookup.next(2.0) == Wait(3.0)


# --- Hearsay --------------------------------------------------------------------------------------


def with_hearsay(seeds: Iterable[Contact], heard: Iterable[Contact], **how: int) -> Lookup:
    lookup = start(seeds, **how)
    lookup.offer(heard, HEARSAY)
    return lookup


def test_after_some_that_were_wrong_no_more_hearsay_is_asked() -> None:
    heard = [at(far) for far in range(1, 9)]
    lookup = with_hearsay([at(20)], heard, parallel=1, asked_max=20)
    tried: list[Contact] = []
    while (contact := ask_all(lookup)[0]) != at(20):
        tried.append(contact)
        lookup.on_failure(contact.id)
    assert tried == heard[:BLAME_MAX]


def test_hearsay_that_somebody_names_while_it_is_asked_is_that_nodes_word() -> None:
    heard = [at(far) for far in range(1, 9)]
    lookup = with_hearsay([at(20)], heard, width=8, parallel=8, asked_max=20)
    assert ask_all(lookup) == heard
    lookup.on_response(at(8).id, heard)
    for contact in heard[:BLAME_MAX]:
        lookup.on_failure(contact.id)
    assert ask_all(lookup) == [at(20)]


# --- What nobody waits for ------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [at(9).id, at(3).id, at(1).id, at(2).id, OWN])
def test_answers_that_nobody_waits_for_change_nothing(peer: Id) -> None:
    """Unknown, not asked, answered or failed before, ourselves: their contacts are not taken up."""
    lookup = start([at(1), at(2), at(3)], width=5)
    ask_all(lookup)
    lookup.on_response(at(1).id)
    lookup.on_failure(at(2).id)
    before = (lookup.counts(), lookup.closest(9), lookup.next(0.0))
    lookup.on_response(peer, [at(0)])
    assert (lookup.counts(), lookup.closest(9), lookup.next(0.0)) == before


@pytest.mark.parametrize("peer", [at(9).id, at(3).id, at(2).id, OWN])
def test_failures_of_those_not_asked_change_nothing(peer: Id) -> None:
    lookup = start([at(1), at(2), at(3)], width=5)
    ask_all(lookup)
    lookup.on_failure(at(2).id)
    before = (lookup.counts(), lookup.next(0.0))
    lookup.on_failure(peer)
    assert (lookup.counts(), lookup.next(0.0)) == before


def test_one_that_answered_and_lied_loses_its_place() -> None:
    lookup = start([at(1), at(2), at(3)], width=2)
    for contact in ask_all(lookup):
        lookup.on_response(contact.id)
    lookup.on_failure(at(1).id)
    assert ask_all(lookup) == [at(3)]
    assert lookup.closest(5) == [at(2)]


def test_asked_max_is_never_exceeded() -> None:
    lookup = start([at(far) for far in range(1, 9)], width=8, parallel=2, asked_max=3)
    assert ask_all(lookup) == [at(1), at(2)]
    lookup.on_failure(at(1).id)
    assert ask_all(lookup) == [at(3)]
    lookup.on_failure(at(2).id)
    assert lookup.next(0.0) == Wait(SLOW_S)
    lookup.on_response(at(3).id)
    assert lookup.next(0.0) == Finished()
    assert lookup.closest(9) == [at(3)]


# --- Whole networks ------------------------------------------------------------------------------

Answering = Callable[[Id], list[Contact] | None]
"""What a peer answers, None for silence."""


class Run:
    """One lookup in virtual time, with whoever is asked answering after a while."""

    def __init__(self, rng: Random, lookup: Lookup, answer: Answering, delay_s: float = 0.1):
        self.asked: list[Id] = []
        self.now = 0.0
        self.in_time_max = 0
        waiting: list[tuple[float, Id, bool]] = []
        while True:
            action = lookup.next(self.now)
            if isinstance(action, Ask):
                peer = action.contact.id
                self.asked.append(peer)
                lookup.asked(peer, self.now + SLOW_S)
                lost = answer(peer) is None
                after = 5.0 if lost else rng.uniform(0.5, 1.5) * delay_s
                heapq.heappush(waiting, (self.now + after, peer, lost))
                in_time = lookup._outstanding.values()
                self.in_time_max = max(self.in_time_max, sum(at > self.now for at in in_time))
                continue
            if isinstance(action, Finished):
                break
            until = action.until
            assert waiting, "waits though nothing is outstanding"
            if until is not None and until < waiting[0][0]:
                assert until > self.now
                self.now = until
                continue
            self.now, peer, lost = heapq.heappop(waiting)
            if lost:
                lookup.on_failure(peer)
            else:
                lookup.on_response(peer, answer(peer) or [])


class Network:
    """Honest nodes that know their neighbours, and of every bucket as many as their table holds."""

    def __init__(self, rng: Random, size: int, budget: int) -> None:
        self.rng = rng
        self.ids = [Id(rng.randbytes(32)) for _ in range(size)]
        self.tables = {peer: self.table(peer, budget) for peer in self.ids}

    def table(self, own: Id, budget: int) -> RoutingTable:
        table = RoutingTable(own, budget)
        for peer in self.rng.sample(self.ids, len(self.ids)):
            table.proved(peer, Address("h", 1), 0.0)
        return table

    def answer(self, peer: Id) -> list[Contact] | None:
        return self.tables[peer].closest(TARGET, WIDTH)

    def nearest(self, count: int, among: Iterable[Id] | None = None) -> list[Id]:
        return sorted(among or self.ids, key=lambda peer: distance(peer, TARGET))[:count]

    def far(self, count: int) -> list[Contact]:
        """Return the worst to begin from: those farthest from the target."""
        return [Contact(peer) for peer in self.nearest(len(self.ids))[-count:]]


def wide(seeds: Iterable[Contact], *, width: int = WIDTH, asked_max: int = 64) -> Lookup:
    return start(seeds, width=width, parallel=3, asked_max=asked_max)


def found(lookup: Lookup, count: int) -> list[Id]:
    return [contact.id for contact in lookup.closest(count)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 2, 30, 250])
def test_honest_network(size: int, seed: int) -> None:
    """From the farthest corner, with tables far smaller than the network, the true closest."""
    network = Network(Random(seed), size, budget=100)
    lookup = wide(network.far(1))
    run = Run(network.rng, lookup, network.answer)
    assert found(lookup, WIDTH) == network.nearest(WIDTH)
    assert len(run.asked) == len(set(run.asked)) <= 40
    assert run.in_time_max <= 3


@pytest.mark.parametrize("seed", range(5))
def test_a_third_of_the_network_is_silent(seed: int) -> None:
    """The closest of those that live are found, whoever else is named."""
    network = Network(Random(seed), 300, budget=300)
    silent = set(network.rng.sample(network.ids, 100))
    living = [peer for peer in network.ids if peer not in silent]
    seed_contact = Contact(network.nearest(300, living)[-1])
    lookup = wide([seed_contact])
    Run(network.rng, lookup, lambda peer: None if peer in silent else network.answer(peer))
    assert found(lookup, 10) == network.nearest(10, living)


def test_silent_peers_do_not_hold_the_lookup_up() -> None:
    """Each costs at most the moment until it counts as slow, not the whole timeout."""
    network = Network(Random(1), 100, budget=100)
    silent = set(network.nearest(6))
    lookup = wide(network.far(1), width=5)
    run = Run(network.rng, lookup, lambda peer: None if peer in silent else network.answer(peer))
    assert found(lookup, 5) == network.nearest(11)[6:]
    assert run.now <= 3 * SLOW_S


def test_slow_peers_are_passed_by() -> None:
    """A network of slow peers is asked on and on, and their late answers still give the closest."""
    network = Network(Random(2), 60, budget=60)
    lookup = wide(network.far(1))
    run = Run(network.rng, lookup, network.answer, delay_s=2 * SLOW_S)
    assert found(lookup, 5) == network.nearest(5)
    assert len(run.asked) <= 60


# --- Liars ---------------------------------------------------------------------------------------


def liar_without_end(rng: Random) -> Answering:
    """Name ever closer contacts that answer in the same way."""

    def answer(peer: Id) -> list[Contact] | None:
        far = distance(peer, TARGET)
        return [at(rng.randrange(max(far, 1))) for _ in range(64)]

    return answer


@pytest.mark.parametrize("asked_max", [1, 7, 64])
def test_ever_closer_contacts_come_to_an_end(asked_max: int) -> None:
    lookup = wide([at(2**255)], asked_max=asked_max)
    run = Run(Random(3), lookup, liar_without_end(Random(4)))
    assert len(run.asked) <= asked_max
    assert lookup.next(run.now) == Finished()


def test_contacts_that_do_not_exist_come_to_an_end() -> None:
    """After a few of a liar's inventions have failed, no other of them is asked."""
    lies = liar_without_end(Random(4))
    lookup = wide([at(2**255)])
    run = Run(Random(3), lookup, lambda peer: lies(peer) if peer == at(2**255).id else None)
    assert BLAME_MAX < len(run.asked) <= 32  # those under way at once, and not half of what may be
    assert found(lookup, 9) == [at(2**255).id]


def test_a_node_named_at_a_wrong_place_is_found_once_another_names_the_right_one() -> None:
    """Addresses that several name for one id are all tried, in the order in which they came."""
    lookup = wide([at(1), at(2)])
    wrong, right = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
    hidden = at(9).id
    for peer, address in ((at(1).id, wrong), (at(2).id, right)):
        lookup.asked(peer, slow_at=99.0)
        lookup.on_response(peer, [Contact(hidden, (address,))])
    assert lookup.next(0.0) == Ask(Contact(hidden, (wrong, right)))


def test_one_honest_witness_clears_a_contact_that_a_liar_named_too() -> None:
    """What an honest node names is asked, whoever else named it first."""
    lookup = wide([at(2**200), at(2**201)])
    liar, witness = at(2**200).id, at(2**201).id
    lookup.asked(liar, slow_at=99.0)
    lookup.on_response(liar, [at(number) for number in (1, 2, 3, 7)])
    for number in (1, 2, 3):
        lookup.asked(at(number).id, slow_at=99.0)
        lookup.on_failure(at(number).id)
    assert lookup.next(0.0) == Ask(at(2**201))
    lookup.asked(witness, slow_at=99.0)
    lookup.on_response(witness, [at(7)])
    assert lookup.next(0.0) == Ask(at(7))


def test_inventing_liar_among_honest_ones_costs_only_time() -> None:
    """One that names a few closer contacts that do not exist hides nobody."""
    network = Network(Random(5), 100, budget=100)
    liar = network.nearest(100)[50]
    lies = [at(number) for number in range(1, 21)]

    def answer(peer: Id) -> list[Contact] | None:
        if peer == liar:
            return lies
        return network.answer(peer) if peer in network.tables else None

    lookup = wide([Contact(liar), *network.far(1)], width=5)
    Run(network.rng, lookup, answer)
    assert found(lookup, 5) == network.nearest(5)


@pytest.mark.parametrize("lie", ["own id", "itself", "far", "nothing", "the same again"])
def test_useless_answers_hide_nobody(lie: str) -> None:
    """Peers that name us, themselves, far ones, nobody or one contact many times do no harm."""
    network = Network(Random(6), 100, budget=100)
    liars = set(network.rng.sample(network.nearest(80)[30:], WIDTH - 1))
    far = network.far(20)

    def answer(peer: Id) -> list[Contact] | None:
        if peer not in liars:
            return network.answer(peer)
        return {
            "own id": [Contact(OWN)] * 20,
            "itself": [Contact(peer)] * 20,
            "far": far,
            "nothing": [],
            "the same again": far[:1] * 64,
        }[lie]

    lookup = wide([*(Contact(peer) for peer in sorted(liars)), far[-1]])
    run = Run(network.rng, lookup, answer)
    assert found(lookup, WIDTH) == network.nearest(WIDTH)
    assert OWN not in run.asked
    assert len(run.asked) == len(set(run.asked)) <= 64


# --- Paths ----------------------------------------------------------------------------------------


def led_astray() -> Lookup:
    """A lookup whose only acquaintance named its friends, who name each other."""
    friends = [at(100), at(101), at(102)]
    lookup = start([at(900)])
    ask_all(lookup)
    lookup.on_response(at(900).id, friends)
    while asked := ask_all(lookup):
        for friend in asked:
            lookup.on_response(friend.id, friends)
    assert lookup.closest(1) == [at(100)]
    return lookup


def test_a_path_from_elsewhere_leads_past_liars() -> None:
    lookup = led_astray()
    lookup.begin_at([at(800), Contact(OWN)])
    assert ask_all(lookup) == [at(800)]
    lookup.on_response(at(800).id, [at(5), at(700)])
    assert ask_all(lookup) == [at(5), at(700)]  # whom a starting point names begins a path too
    lookup.on_response(at(700).id)
    lookup.on_response(at(5).id)
    assert lookup.next(0.0) == Finished()
    assert lookup.closest(1) == [at(5)]
    assert lookup.is_wide


def test_what_one_path_is_told_leads_no_other_astray() -> None:
    """The liar on one path names the closest of all; the other goes on to its own closest."""
    lookup = led_astray()
    lookup.begin_at([at(800), at(801)])
    assert ask_all(lookup) == [at(800), at(801)]
    lookup.on_response(at(800).id, [at(100)])
    assert not ask_all(lookup)
    lookup.on_response(at(801).id, [at(300)])
    assert ask_all(lookup) == [at(300)]
    assert lookup.next(0.0) == Wait(SLOW_S)
    lookup.on_response(at(300).id)
    assert lookup.next(0.0) == Finished()


def test_the_end_does_not_wait_for_a_path_whose_closest_is_slow() -> None:
    lookup = led_astray()
    lookup.begin_at([at(800)])
    ask_all(lookup)
    assert lookup.next(0.0) == Wait(SLOW_S)
    assert lookup.next(2 * SLOW_S) == Finished()


def test_the_path_that_has_come_least_far_is_asked_for_now_and_then() -> None:
    lookup = start([at(5)], parallel=9, asked_max=99)
    ask_all(lookup)
    lookup.begin_at([at(900), at(901)])
    lookup.on_response(at(5).id, [at(6), at(7), at(8)])
    assert [contact.id for contact in ask_all(lookup)].index(at(900).id) < 3
    lookup.on_response(at(900).id, [at(600), at(601)])
    lookup.on_response(at(901).id, [at(600), at(650)])
    assert {contact.id for contact in ask_all(lookup)} == {at(600).id, at(601).id, at(650).id}


def test_how_far_so_many_reach_is_known_once_so_many_have_answered() -> None:
    lookup = led_astray()
    assert lookup.reach(3) == 102
    assert lookup.reach(5) is None
