"""Faults put into the core on purpose: the simulation catches each, and names what is wrong.

Each fault replaces a function of the core while a small network lives through a story; the same
story from the same seed ends well without it. Whoever finds that one of these goes unnoticed has
found a hole in the judges (`sim/judge.py`, `sim/observer.py`, `core/check.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.sim.stories import (
    AGEING,
    COLLUDERS,
    DEATHS,
    EVERYDAY,
    FORGERS,
    GROWTH,
    PARTED,
    RUSH,
    VERSIONS,
    WEATHER,
    is_caught,
    told,
    wrong,
)
from xorbit.core import (
    dials,
    discovery,
    follow,
    followers,
    get,
    leases,
    links,
    lookup,
    maintenance,
    put,
    queue,
    records,
    routing,
    serve,
    state,
    sweep,
    timers,
    work,
)
from xorbit.core.job import StoreChecked
from xorbit.store import memory
from xorbit.wire.message import Stored


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the core, the story in which it shows, and the words that tell of it."""

    apply: Callable[[pytest.MonkeyPatch], None]
    story: str
    told: str


# --- What is said to be done, and is not --------------------------------------------------------


def acknowledge_before_the_write(patch: pytest.MonkeyPatch) -> None:
    store = serve._store

    def early(a_state: state.State, job, request) -> None:
        store(a_state, job, request)
        links.respond(a_state, job.connection, job.guid, Stored())

    patch.setattr(serve, "_store", early)


def say_that_everything_is_held(patch: pytest.MonkeyPatch) -> None:
    """A node answers every Have with "nothing is missing": nobody hands it anything."""
    handle = serve.handle_disk

    def handle_disk(a_state: state.State, waiter, result) -> None:
        if isinstance(result, StoreChecked):
            result = StoreChecked(result.guid, ())
        handle(a_state, waiter, result)

    patch.setattr(serve, "handle_disk", handle_disk)


def lose_the_outcome_of_a_put(patch: pytest.MonkeyPatch) -> None:
    """A put that nobody refused ends without that its caller is told."""
    patch.setattr(put.PutWork, "_end", lambda self, a_state: a_state.end_work(self))


# --- What never ends ------------------------------------------------------------------------------


def never_finish_a_lookup(patch: pytest.MonkeyPatch) -> None:
    ask_on = lookup.Lookup.next

    def endless(self: lookup.Lookup, now: float):
        step = ask_on(self, now)
        return lookup.Wait(None) if isinstance(step, lookup.Finished) else step

    patch.setattr(lookup.Lookup, "next", endless)


def never_free_an_in_worker(patch: pytest.MonkeyPatch) -> None:
    respond = links.respond

    def keep(a_state: state.State, connection, guid, response) -> None:
        link = a_state.links.get(connection)
        worker = link.in_workers.get(guid) if link else None
        respond(a_state, connection, guid, response)
        if link is not None and worker is not None:
            link.in_workers[guid] = worker

    patch.setattr(links, "respond", keep)


def never_free_an_out_worker(patch: pytest.MonkeyPatch) -> None:
    handle = links.handle_response

    def keep(a_state: state.State, job) -> None:
        link = a_state.links.get(job.connection)
        worker = link.out_workers.get(job.guid) if link else None
        handle(a_state, job)
        if link is not None and worker is not None and job.guid[0] % 4 == 0:
            link.out_workers[job.guid] = worker

    patch.setattr(links, "handle_response", keep)


def never_release_a_dial(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dials, "_drop", lambda a_state, guid: a_state.dials.get(guid))


def lose_timers(patch: pytest.MonkeyPatch) -> None:
    """One in four timers of works is set and never rings."""
    take = timers.Timers.set

    def lose(self: timers.Timers, name: timers.TimerName, due: float) -> None:
        if name[0] == "work" and name[1] is not None and name[1][0] % 4 == 0:
            due += 1e6
        take(self, name, due)

    patch.setattr(timers.Timers, "set", lose)


def never_rejoin(patch: pytest.MonkeyPatch) -> None:
    """Maintenance is planned once, and not again."""
    take = timers.Timers.set

    def once(self: timers.Timers, name: timers.TimerName, due: float) -> None:
        if name[0] != "maintenance" or not self._order:
            take(self, name, due)

    patch.setattr(timers.Timers, "set", once)


def never_let_a_follower_go(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases.Leases, "drop_connection", lambda *_: None)


# --- What is believed -----------------------------------------------------------------------------


def believe_without_hashing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(get, "check_is", lambda *_: None)


def take_hearsay_for_proof(patch: pytest.MonkeyPatch) -> None:
    def note(a_state: state.State, response) -> None:
        for contact in getattr(response, "contacts", ()):
            for address in contact.addresses[:1]:
                a_state.table.proved(contact.id, address, a_state.now)

    patch.setattr(links, "_note_hearsay", note)


def hand_on_who_fails(patch: pytest.MonkeyPatch) -> None:
    closest = routing.RoutingTable.closest

    def all_of_them(self: routing.RoutingTable, target, count, *, failing: bool = False):
        return closest(self, target, count, failing=True)

    patch.setattr(routing.RoutingTable, "closest", all_of_them)


def take_any_answer_for_any_question(patch: pytest.MonkeyPatch) -> None:
    """A late answer completes whatever has been asked of that peer."""
    handle = links.handle_response

    def mistaken(a_state: state.State, job) -> None:
        link = a_state.links.get(job.connection)
        if link is not None and link.out_workers and job.guid not in link.out_workers:
            (other, *_) = link.out_workers
            job = type(job)(job.connection, other, job.work, job.response, job.size)
        handle(a_state, job)

    patch.setattr(links, "handle_response", mistaken)


def believe_the_closest_whoever_they_are(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether those found are as many as there should be, or goes another way."""
    patch.setattr(work, "_is_sparse", lambda *_: False)
    patch.setattr(lookup.Lookup, "begin_at", lambda *_: None)


# --- Versions -------------------------------------------------------------------------------------


def store_older_records(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory, "_answer", lambda *_: None)


def read_the_last_instead_of_the_newest(patch: pytest.MonkeyPatch) -> None:
    def take(self: records.Reading, holder, item) -> None:
        self._held[holder] = item
        if item is not None:
            self.newest, self.source = item, holder

    patch.setattr(records.Reading, "take", take)


def never_push(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told of a newer version, and followers do not look for themselves either."""
    patch.setattr(followers, "tell", lambda *_: None)
    patch.setattr(
        follow.FollowWork, "_sleep", lambda self, a_state, _: self._have_until(a_state, 1e9)
    )


# --- Keeping --------------------------------------------------------------------------------------


def drop_what_was_not_handed_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "_is_surplus", lambda _, care: sweep._is_far_copy(care))
    patch.setattr(sweep.SweepWork, "_hand_over", lambda *_: None)


def expire_at_once(patch: pytest.MonkeyPatch) -> None:
    def drop(self, a_state: state.State, keys, aged_s, surplus=()) -> None:
        keep(self, a_state, keys, 0.0, surplus)

    def consider(self, a_state: state.State, held) -> bool:
        if held.pinned_age_s is None:
            self._expired.append(held.key)
        return look(self, a_state, held)

    keep, look = sweep.SweepWork._drop, sweep.SweepWork._is_to_be_considered
    patch.setattr(sweep.SweepWork, "_drop", drop)
    patch.setattr(sweep.SweepWork, "_is_to_be_considered", consider)


def never_refresh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep.SweepWork, "_is_due", lambda *_: False)


def never_hand_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep.SweepWork, "_decide", lambda *_: None)


# --- Limits and fairness --------------------------------------------------------------------------


def send_more_than_there_are_workers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(links, "_submit", links._send)


def never_release_requests(patch: pytest.MonkeyPatch) -> None:
    """What a connection asks while it is held is never served."""
    patch.setattr(queue.JobQueue, "release", lambda *_: None)


def leak_relays(patch: pytest.MonkeyPatch) -> None:
    def end(self: serve.RelayWork, a_state: state.State, response) -> None:
        finish(self, a_state, response)
        a_state.relays += 1

    finish = serve.RelayWork._end
    patch.setattr(serve.RelayWork, "_end", end)


def starve_upkeep(patch: pytest.MonkeyPatch) -> None:
    choose = queue.JobQueue._next_level

    def choose_others(self: queue.JobQueue) -> int | None:
        level = choose(self)
        return None if level == queue.Urgency.UPKEEP else level

    patch.setattr(queue.JobQueue, "_next_level", choose_others)


# --- Ways -----------------------------------------------------------------------------------------


def never_meet_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(maintenance, "_try_a_known", lambda _: None)
    patch.setattr(discovery, "_note_anchor", lambda *_: None)


FAULTS = (
    Fault(acknowledge_before_the_write, EVERYDAY, "said that it stored what is not on its disk"),
    Fault(say_that_everything_is_held, GROWTH, "is held by"),
    Fault(lose_the_outcome_of_a_put, EVERYDAY, "a call never ended"),
    Fault(never_finish_a_lookup, EVERYDAY, "failed"),
    Fault(never_free_an_in_worker, EVERYDAY, "more than N in-workers"),
    Fault(never_free_an_out_worker, EVERYDAY, "every request in flight has a deadline"),
    Fault(never_release_a_dial, EVERYDAY, "a dial never ended"),
    Fault(lose_timers, EVERYDAY, "outlived its deadline"),
    Fault(never_rejoin, EVERYDAY, "maintenance comes again"),
    Fault(never_let_a_follower_go, EVERYDAY, "a follower has a connection"),
    Fault(believe_without_hashing, FORGERS, "handed out what proves nothing"),
    Fault(take_hearsay_for_proof, EVERYDAY, "a contact that proved nothing"),
    Fault(hand_on_who_fails, EVERYDAY, "handed on a contact that fails"),
    Fault(take_any_answer_for_any_question, WEATHER, "took an honest one for a liar"),
    Fault(believe_the_closest_whoever_they_are, COLLUDERS, "lookups failed"),
    Fault(store_older_records, VERSIONS, "has let version"),
    Fault(read_the_last_instead_of_the_newest, VERSIONS, "after it had seen"),
    Fault(never_push, EVERYDAY, "has not heard of"),
    Fault(drop_what_was_not_handed_on, GROWTH, "is held by"),
    Fault(expire_at_once, AGEING, "is held by"),
    Fault(never_refresh, AGEING, "is held by"),
    Fault(never_hand_over, DEATHS, "is held by"),
    Fault(send_more_than_there_are_workers, RUSH, "more than N out-workers"),
    Fault(never_release_requests, RUSH, "jobs in its queue"),
    Fault(leak_relays, EVERYDAY, "relays are counted"),
    Fault(starve_upkeep, EVERYDAY, "jobs in its queue"),
    Fault(never_meet_again, PARTED, "does not find who is closest"),
)


@pytest.mark.parametrize("story", dict.fromkeys(fault.story for fault in FAULTS))
def test_the_core_as_it_is_lives_through_each_story(story: str) -> None:
    assert wrong(told(story)) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.apply.__name__ for fault in FAULTS])
def test_a_fault_put_into_the_core_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.apply(monkeypatch)
    assert is_caught(fault.story, fault.told)
