"""The machine: `step(now, job)` is the only thing that changes a node's state.

The one match over jobs, the one table of periodic work, and the delivery of answers to works. It
does no I/O: time comes in as an argument, chance from the injected source, and what it wants done
goes out as effects.
"""

from random import Random
from typing import assert_never

from xorbit.config import Limits
from xorbit.core import (
    announce,
    console,
    discovery,
    fingers,
    followers,
    links,
    maintenance,
    revoke,
    serve,
    survey,
    upkeep,
)
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.addresses import dialable_addresses
from xorbit.core.ask import AskWork, ConnectWork
from xorbit.core.effect import Effect, Finish, Post, StopListening, Stopped
from xorbit.core.find import LookUpWork
from xorbit.core.follow import FollowWork
from xorbit.core.get import GetWork
from xorbit.core.job import Job
from xorbit.core.keep import PinWork, TendPinsWork
from xorbit.core.put import PutWork
from xorbit.core.records import ResolveWork
from xorbit.core.routing import RoutingTable
from xorbit.core.state import Answer, DialEnded, DiskResult, NoAnswer, Serving, State, Work
from xorbit.core.status import FingerStatus, PeerStatus, Status
from xorbit.core.timers import TimerName
from xorbit.ids import Guid, Id
from xorbit.items import BLOCK_KINDS, Kind


class Machine:
    """One node, without its body."""

    def __init__(self, own: Id, limits: Limits, rng: Random) -> None:
        """Make a machine with id `own`, all chance taken from `rng`."""
        table = RoutingTable(
            own, limits.contacts_max, limits.subnet_contacts_max, limits.newcomers_max
        )
        self.state = State(own, limits, rng, table)
        interval_s = limits.maintenance_interval_s
        self._cron: dict[str, tuple[Job, float]] = {
            "maintenance": (jobs.ConnectionMaintenance(), interval_s)
        }
        self._began = False

    def step(self, now: float, job: Job) -> list[Effect]:
        """Take one job in; return what is wanted done, in order."""
        state = self.state
        state.now = now
        if not self._began:
            self._begin()
        self._handle(job)
        while state.deliveries:
            delivery = state.deliveries.popleft()
            work = state.works.get(delivery.work)
            if work is not None:
                _deliver(state, work, delivery)
        if state.stopping and not state.stopped:
            self._stop_if_done()
        if state.typed:
            console.tell(state)
        effects = state.effects
        state.effects = []
        return effects

    def next_deadline(self) -> float | None:
        """Return when the machine wants a Tick, or None."""
        return self.state.timers.next_deadline()

    def status(self) -> Status:
        """Return what this node can tell of itself."""
        state, counters = self.state, self.state.counters
        return Status(
            id=state.own,
            addresses=dialable_addresses(state),
            joined=state.joined,
            stopping=state.stopping,
            contacts=len(state.table),
            connections=len(state.links),
            works=len(state.works),
            requests_sent=counters.requests_sent,
            requests_answered=counters.requests_answered,
            requests_timed_out=counters.requests_timed_out,
            timeout_rate=counters.timeout_rate,
            requests_served=counters.requests_served,
            requests_refused=counters.requests_refused,
            damaged_found=counters.damaged_found,
        )

    def peers(self) -> list[PeerStatus]:
        """Return the connections by which peers are asked, in the order of their ids."""
        state = self.state
        return [
            PeerStatus(
                id=peer,
                connection=link.guid,
                address=link.address,
                dialled=link.dialled,
                round_trip_s=link.round_trip.smoothed_s,
                waiting_for=len(link.out_workers) + len(link.waiting),
                answering=len(link.in_workers),
                open_s=state.now - link.opened_at,
            )
            for peer, link in sorted(
                (peer, state.links[connection]) for peer, connection in state.link_of.items()
            )
        ]

    def fingers(self) -> list[FingerStatus]:
        """Return the fingers that are of use, the nearest point first."""
        return fingers.statuses(self.state)

    def _handle(self, job: Job) -> None:  # noqa: PLR0915 - the one match over jobs
        state = self.state
        match job:
            case jobs.HandleRequest():
                serve.handle_request(state, job)
            case jobs.HandleResponse():
                links.handle_response(state, job)
            case jobs.StoreRead() | jobs.StoreWritten() | jobs.StoreChecked():
                self._handle_disk(job)
            case jobs.StoreScanned() | jobs.StoreDropped() | jobs.PinsTended():
                self._handle_disk(job)
            case jobs.Pin(guid, key, item):
                self._start(PinWork(guid, self._deadline(), key, item))
            case jobs.TendPins(guid, order):
                self._start(TendPinsWork(guid, self._deadline(), order))
            case jobs.Tick():
                self._handle_tick()
            case jobs.Get(guid, key):
                if key.kind in BLOCK_KINDS:
                    self._start(GetWork(guid, self._deadline(), key))
                else:
                    self._start(ResolveWork(state, guid, self._deadline(), key))
            case jobs.Follow(guid, key):
                self._start(FollowWork(state, guid, key))
            case jobs.Store(guid, key, item, cas, look):
                keep = key.kind is not Kind.CONNECTION  # its node announces it by itself
                put = PutWork(guid, self._deadline(), key, item, cas, keep=keep, look_first=look)
                self._start(put)
            case jobs.SendRequest(guid, to, request):
                self._start(AskWork(guid, self._deadline(), to, request))
            case jobs.SendResponse(connection, guid, response):
                links.respond(state, connection, guid, response)
            case jobs.ConnectionOpened():
                if not revoke.turn_away(state, job):
                    discovery.greet(state, links.handle_opened(state, job))
            case jobs.DialFailed():
                links.handle_dial_failed(state, job)
            case jobs.ConnectionLost():
                lost = links.handle_lost(state, job)
                upkeep.note_lost(state, lost)
                fingers.note_lost(state, lost)
            case jobs.Connect(guid, addresses, expected):
                self._start(ConnectWork(guid, self._deadline(), addresses, expected))
            case jobs.Bootstrap(guid, addresses):
                self._start(discovery.new_join(state, guid, addresses))
            case jobs.ConnectionMaintenance():
                maintenance.maintain(state)
                upkeep.look_after(state)
            case jobs.Restored(contacts):
                maintenance.restore(state, contacts)
            case jobs.ConnectionSigned():
                announce.handle_signed(state, job)
            case jobs.Listening(addresses):
                state.listening = addresses
            case jobs.Revoked():
                revoke.handle_revoked(state, job)
            case jobs.LookUp(guid, target):
                self._start(LookUpWork(state, guid, self._deadline(), target))
            case jobs.HandleStdinLine():
                if (meant := console.handle_line(state, job)) is not None:
                    self._handle(meant)
            case jobs.Cancel(guid):
                self._cancel(guid)
            case jobs.Shutdown():
                self._shut_down()
            case _ as never:
                assert_never(never)

    def _begin(self) -> None:
        """Start the periodic work, at times by chance: nodes do not march in step."""
        self._began = True
        self.state.served_at = self.state.now
        for name, (_, interval_s) in self._cron.items():
            due = self.state.now + interval_s * self.state.rng.random()
            self.state.timers.set((name, None), due)

    def _deadline(self) -> float:
        return self.state.now + self.state.limits.work_timeout_s

    def _start(self, work: Work) -> None:
        """Start a local caller's work, or say at once why not."""
        state = self.state
        if state.stopping:
            state.emit(Finish(work.guid, fx.Failed("stopping", "this node is stopping")))
        elif len(state.works) >= state.limits.works_max:
            reason = f"{state.limits.works_max:,} works are in progress; wait for some of them"
            state.emit(Finish(work.guid, fx.Failed("busy", reason)))
        else:
            state.start_work(work)

    def _cancel(self, guid: Guid) -> None:
        work = self.state.works.get(guid)
        if work is not None:
            self.state.end_work(work)
            console.cancelled(self.state, guid)

    def _handle_disk(self, result: DiskResult) -> None:
        waiter = self.state.disk_done(result)
        if isinstance(waiter, Serving):
            serve.handle_disk(self.state, waiter, result)
        elif waiter is not None and waiter in self.state.works:
            self.state.works[waiter].on_disk(self.state, result)

    def _handle_tick(self) -> None:
        state = self.state
        while (name := state.timers.pop_due(state.now)) is not None:
            self._ring(name)

    def _ring(self, name: TimerName) -> None:
        state = self.state
        kind, guid = name
        if kind == "work" and guid is not None:
            work = state.works[guid]
            if state.now >= work.deadline:
                work.on_deadline(state)
            else:
                state.timers.set(name, work.deadline)
                work.on_time(state)
        elif kind == "link" and guid is not None:
            links.handle_deadline(state, guid)
        elif kind == "retry":
            discovery.rejoin(state)
        elif kind == "sweep":
            upkeep.sweep(state)
        elif kind == "look":
            discovery.look_around(state)
        elif kind == "survey":
            survey.go_on(state)
        elif kind == "finger":
            fingers.check_next(state)
        elif kind == "push":
            followers.tell_waiting(state)
        elif kind in self._cron:
            job, interval_s = self._cron[kind]
            state.timers.set(name, state.now + state.jittered(interval_s))
            state.emit(Post(job))

    def _shut_down(self) -> None:
        state = self.state
        if not state.stopping:
            state.stopping = True
            # Nobody waits for these.
            ends_now = FollowWork | fingers.FingerWork | survey.SurveyWork | announce.AnnounceWork
            for work in [work for work in state.works.values() if isinstance(work, ends_now)]:
                state.end_work(work)
            state.timers.set(("shutdown", None), state.now + state.limits.shutdown_s_max)
            state.emit(StopListening())

    def _stop_if_done(self) -> None:
        """Say Stopped once nothing is in flight any more, or the limit has passed."""
        state = self.state
        answering = any(link.in_workers for link in state.links.values())
        in_time = ("shutdown", None) in state.timers
        if not in_time or not (state.works or answering or state.disk_of):
            state.stopped = True
            maintenance.save(state)
            state.timers.cancel(("shutdown", None))
            state.emit(Stopped())


def _deliver(state: State, work: Work, delivery: Answer | NoAnswer | DialEnded) -> None:
    match delivery:
        case Answer():
            work.on_answer(state, delivery)
        case NoAnswer():
            work.on_no_answer(state, delivery)
        case DialEnded():
            work.on_dial_ended(state, delivery)
        case _ as never:
            assert_never(never)
