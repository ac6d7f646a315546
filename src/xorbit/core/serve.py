"""Answers to the requests of peers.

What can be answered from the state is answered at once; what needs the disk or another node keeps
its in-worker until the result is there. Every request gets exactly one response while its
connection lives. No I/O.
"""

from typing import assert_never

from xorbit.core import announce, discovery, followers, links, upkeep
from xorbit.core.addresses import dialable_addresses
from xorbit.core.effect import CheckStore, Post, ReadStore, WriteStore
from xorbit.core.get import repair
from xorbit.core.job import HandleRequest, SendResponse, StoreChecked, StoreRead, StoreWritten
from xorbit.core.scope import in_scope
from xorbit.core.state import Answer, DiskResult, Link, NoAnswer, Serving, State, Work
from xorbit.core.work import may_work_unasked, note_bad_read
from xorbit.errors import ItemError
from xorbit.ids import Guid, Id, distance
from xorbit.items import Block, Contact, Item, ItemKey, Kind, check
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
    Receipt,
    Refused,
    Response,
    Store,
    Stored,
    one_line,
)

HOPS_MAX = 255
BUSY = "too many works are in progress"


def handle_request(state: State, job: HandleRequest) -> None:
    """Answer a request, or start what its answer needs."""
    link = links.take_request(state, job)
    if link is None:
        return
    if state.stopping:
        refuse(state, job.connection, job.guid, Refused("stopping", "this node is stopping"))
        return
    match job.request:
        case Ping():
            pong = discovery.handle_ping(state, link, job.request)
            links.respond(state, job.connection, job.guid, pong)
        case FindClosest(target, count):
            near = closest(state, target, link.peer, count)
            links.respond(state, job.connection, job.guid, near)
        case FindNext():
            _find_next(state, job, link, job.request)
        case Get(key):
            waiter = Serving(job.connection, job.guid)
            state.emit(ReadStore(state.disk_guid(waiter), key))
        case Store():
            _store(state, job, job.request)
        case Have(keys, refresh):
            waiter = Serving(job.connection, job.guid)
            state.emit(CheckStore(state.disk_guid(waiter), keys, refresh))
        case Follow(record):
            waiter = Serving(job.connection, job.guid)
            state.emit(ReadStore(state.disk_guid(waiter), ItemKey(Kind.RECORD, record)))
        case _ as never:
            assert_never(never)


def handle_disk(state: State, waiter: Serving, result: DiskResult) -> None:
    """Go on with a request whose disk operation is done."""
    link = state.links.get(waiter.connection)
    worker = link.in_workers.get(waiter.exchange) if link else None
    if link is None or worker is None:
        return
    assert isinstance(result, StoreRead | StoreWritten | StoreChecked)
    match result:
        case StoreRead():
            answer = _after_read(state, waiter, link, worker.request, result)
            links.respond(state, waiter.connection, waiter.exchange, answer)
        case StoreWritten():
            _after_write(state, waiter, worker.work, worker.request, result)
        case StoreChecked():
            links.respond(state, waiter.connection, waiter.exchange, Missing(result.missing))
        case _ as never:
            assert_never(never)


def closest(state: State, target: Id, asker: Id, count: int = 0) -> Closest:
    """Return the contacts closest to a target that may be handed on, without the asker itself.

    As many as usual, unless `count` says otherwise.
    """
    count = count or state.limits.closest_count
    found = state.table.closest(target, count + 1)
    return Closest(tuple(contact for contact in found if contact.id != asker)[:count])


def refuse(state: State, connection: Guid, guid: Guid, no: Refused) -> None:
    """Say no to a request, and count it."""
    state.counters.requests_refused += 1
    links.respond(state, connection, guid, no)


def _after_read(
    state: State, waiter: Serving, link: Link, request: object, result: StoreRead
) -> Response:
    assert isinstance(request, Get | Follow)
    key = request.key if isinstance(request, Get) else ItemKey(Kind.RECORD, request.id)
    if result.fault:
        note_bad_read(state, key, result.fault)
    if result.fault == "damaged":
        repair(state, key)
    if isinstance(request, Follow):
        return followers.accept(state, request.id, link.guid, waiter.exchange, result.item)
    if isinstance(result.item, Block):
        return Found(result.item)
    if result.item is not None:
        return Found(result.item, closest(state, key.id, link.peer).contacts)
    return closest(state, key.id, link.peer)


def _store(state: State, job: HandleRequest, request: Store) -> None:
    try:
        key = check(request.item)
    except ItemError as error:
        refuse(state, job.connection, job.guid, Refused("invalid", one_line(str(error))))
        return
    if not state.listening:  # it comes and goes: a copy here would count and soon be missing
        no = Refused("unsupported", "this node is a client and keeps nothing for others")
        refuse(state, job.connection, job.guid, no)
        return
    announce.note_met(state, key, request.item)
    guid = state.disk_guid(Serving(job.connection, job.guid))
    upkeep.note_stored(state, key.id)
    state.emit(WriteStore(guid, key, request.item, request.cas, age_s=request.age_s))


def _after_write(
    state: State, waiter: Serving, work: Guid, request: object, result: StoreWritten
) -> None:
    assert isinstance(request, Store)
    if result.code == "stored":
        followers.tell(state, request.item)
    if result.code != "stored":
        refuse(state, waiter.connection, waiter.exchange, _refusal(result))
    elif request.also and not may_work_unasked(state):
        busy = (Receipt(taker.id, "refused", BUSY) for taker in request.also)
        links.respond(state, waiter.connection, waiter.exchange, Stored(tuple(busy)))
    elif request.also:
        state.start_work(ForwardWork(state, waiter, work, request))
    else:
        links.respond(state, waiter.connection, waiter.exchange, Stored())


def _refusal(result: StoreWritten) -> Refused:
    newer = result.newer
    match result.code:
        case "full" | "stale":
            return Refused(result.code, one_line(result.reason), newer)
        case _:  # why, and where the disk is, stays between us and our owner
            return Refused("failed", "the disk of this node failed")


def _find_next(state: State, job: HandleRequest, link: Link, request: FindNext) -> None:
    """Answer with the nearest node, or pass the question on to somebody strictly nearer."""
    nearer = _nearer_than_us(state, request, link.peer)
    if nearer is None or request.hops >= HOPS_MAX:
        own = Contact(state.own, dialable_addresses(state))
        links.respond(state, job.connection, job.guid, Next(own, request.hops))
        return
    if not (may_work_unasked(state) and _may_relay(state, link)):
        refuse(state, job.connection, job.guid, Refused("busy", BUSY))
        return
    onward = FindNext(request.target, request.hops + 1, request.not_equal)
    waiter = Serving(job.connection, job.guid)
    state.start_work(RelayWork(state, waiter, job.work, nearer, onward))


def _may_relay(state: State, link: Link) -> bool:
    """Return whether one more FindNext of this peer (which has its in-worker) may be passed on."""
    asked = sum(isinstance(worker.request, FindNext) for worker in link.in_workers.values())
    limits = state.limits
    return asked <= limits.relays_per_peer_max and state.relays < limits.relays_max


def _nearer_than_us(state: State, request: FindNext, asker: Id) -> Contact | None:
    ours = distance(state.own, request.target)
    for contact in state.table.closest(request.target, 3):
        is_target = request.not_equal and contact.id == request.target
        if contact.id != asker and not is_target:
            we_are_target = request.not_equal and state.own == request.target
            nearer = we_are_target or distance(contact.id, request.target) < ours
            return contact if nearer else None
    return None


class RelayWork(Work):
    """A FindNext on its way: passed on under the same guid, the answer goes back by it."""

    __slots__ = ("_onward", "_to", "_waiter")

    def __init__(
        self,
        state: State,
        waiter: Serving,
        origin: Guid,
        to: Contact,
        onward: FindNext,
    ) -> None:
        """Pass `onward` on to `to` for the request `waiter` of the work `origin`."""
        deadline = state.now + links.relay_timeout_s(state, onward.hops)
        super().__init__(state.new_guid(), deadline, origin)
        self._waiter = waiter
        self._to = to
        self._onward = onward

    def start(self, state: State) -> None:
        """Ask the nearer node."""
        state.relays += 1
        links.request(state, self._to, self._onward, self, self._waiter.exchange)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Hand the answer back."""
        if isinstance(answer.response, Next):
            self._end(state, answer.response)
        else:
            self._end(state, Refused("failed", "the nearer node gave no contact"))

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Answer with the nearer node itself: it is the nearest that we know of."""
        self._end(state, Next(self._to, self._onward.hops))

    def on_deadline(self, state: State) -> None:
        """The same."""
        self._end(state, Next(self._to, self._onward.hops))

    def _end(self, state: State, response: Response) -> None:
        state.relays -= 1
        state.end_work(self)
        state.emit(Post(SendResponse(self._waiter.connection, self._waiter.exchange, response)))


class ForwardWork(Work):
    """A Store that is on disk here and goes to others as well ("also"), before it is answered."""

    __slots__ = ("_item", "_left", "_receipts", "_takers", "_waiter")

    def __init__(self, state: State, waiter: Serving, origin: Guid, request: Store) -> None:
        """Hand the item of `request` to the others that it names, for the work `origin`."""
        # Whoever asked us waits `request_timeout_s_max`, and must hear of those that were silent.
        deadline = state.now + state.limits.request_timeout_s_max / 2
        super().__init__(state.new_guid(), deadline, origin)
        self._waiter = waiter
        self._item: Item = request.item
        host = state.links[waiter.connection].address.host
        self._takers = [Contact(to.id, in_scope(to.addresses, host)) for to in request.also]
        self._left: dict[Id, None] = {}
        self._receipts: list[Receipt] = []

    def start(self, state: State) -> None:
        """Ask them all."""
        for taker in self._takers:
            if taker.id != state.own and taker.id not in self._left:
                self._left[taker.id] = None
                links.request(state, taker, Store(self._item), self)
        self._end_if_done(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Note a yes or a no."""
        match answer.response:
            case Refused(code, reason):
                self._note(state, Receipt(answer.peer, "refused", one_line(f"{code}: {reason}")))
            case _:  # Stored: links.py lets no answer to another question through
                self._note(state, Receipt(answer.peer, "stored"))

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Note the silence."""
        self._note(state, Receipt(failure.peer, "timeout", one_line(failure.reason)))

    def on_deadline(self, state: State) -> None:
        """Answer with what there is."""
        self._receipts += [Receipt(peer, "timeout") for peer in self._left]
        self._left.clear()
        self._end_if_done(state)

    def _note(self, state: State, receipt: Receipt) -> None:
        self._left.pop(receipt.node, None)
        self._receipts.append(receipt)
        self._end_if_done(state)

    def _end_if_done(self, state: State) -> None:
        if not self._left:
            state.end_work(self)
            done = Stored(tuple(self._receipts))
            state.emit(Post(SendResponse(self._waiter.connection, self._waiter.exchange, done)))
