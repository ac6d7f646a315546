"""Links: connections and their workers. Decides what is sent when, and what counts as lost.

A request goes to a peer's connection, or waits for one that is dialled for it. A connection has N
out-workers; when all are busy further requests wait in order. It has N in-workers; when all are
busy no further request of its line is served. Reply timeouts follow the peer's measured round-trip
time (RFC 6298), but for a request that the peer passes on. Works are told of answers through
`State.deliveries`; nothing here knows what a work is.
"""

from xorbit.config import BACKOFF_MAX, PATIENCE_PER_HOP
from xorbit.core import dials
from xorbit.core.addresses import is_ours, note_own_forms
from xorbit.core.effect import Close, HoldRequests, ReleaseRequests, Send
from xorbit.core.job import (
    ConnectionLost,
    ConnectionOpened,
    DialFailed,
    HandleRequest,
    HandleResponse,
)
from xorbit.core.scope import subnet_of, within_scope
from xorbit.core.state import (
    Answer,
    DialEnded,
    InWorker,
    Link,
    NoAnswer,
    OutWorker,
    Pusher,
    RoundTrip,
    State,
    Work,
)
from xorbit.core.trace import asked, clean, said
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, is_literal
from xorbit.wire.message import (
    Closest,
    Envelope,
    FindNext,
    Following,
    Found,
    Request,
    Response,
    Store,
    Updated,
    answers,
)

ANOTHER_QUESTION = "an answer to another question"
OWN_REVOKED = "the network's operator has revoked this very node: nobody lets it in any more"

# --- Our requests -------------------------------------------------------------------------------


def request(
    state: State,
    to: Contact,
    body: Request,
    work: Work,
    guid: Guid | None = None,
    *,
    greets: bool = True,
) -> Guid:
    """Ask a contact, dialling it first where needed; return the guid of the exchange.

    Whom we ask one question only need not be told where we are: then it does not greet. The work is
    delivered an Answer or a NoAnswer, exactly one, never within this call.
    """
    worker = OutWorker(guid or state.new_guid(), work.guid, work.origin, body)
    connection = state.link_of.get(to.id)
    if connection is not None:
        _submit(state, state.links[connection], worker)
    elif to.id in state.revoked:
        _fail(state, worker, to.id, "the network's operator has revoked it")
    elif (addresses := _dialable(state, to.addresses)) and not state.stopping:
        dialling = dials.dial(state, addresses, to.id, greets=greets)
        if dialling is None:
            _fail(state, worker, to.id, dials.TOO_MANY_DIALS)
        elif len(dialling.waiting) < state.limits.waiting_requests_max:
            dialling.waiting.append(worker)
        else:
            _fail(state, worker, to.id, "too many requests wait for this peer")
    elif state.stopping:
        _fail(state, worker, to.id, "no connection, and this node is stopping")
    else:
        state.heard.forget(to.id)
        _fail(state, worker, to.id, "no connection and no address")
    return worker.guid


def _dialable(state: State, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    return tuple(
        address for address in addresses if is_literal(address) and not is_ours(state, address)
    )


def reply_timeout_s(state: State, round_trip: RoundTrip) -> float:
    """Return how long to wait for a peer's answer (RFC 6298, 2.2 to 2.4 and 5.5)."""
    limits = state.limits
    if round_trip.smoothed_s is None:
        wait = limits.request_timeout_s_first
    else:
        wait = round_trip.smoothed_s + 4 * round_trip.variation_s
    wait = max(wait, limits.request_timeout_s_min) * round_trip.backoff
    return min(wait, limits.request_timeout_s_max)


def relay_timeout_s(state: State, hops: int) -> float:
    """Return how long a FindNext that has made so many hops is waited for.

    The peer may have to wait for another in turn, so its round-trip time says nothing; and each hop
    gives up in time to say so to the one before it.
    """
    wait = state.limits.request_timeout_s_max * PATIENCE_PER_HOP**hops
    return max(wait, state.limits.request_timeout_s_min)


def slow_after_s(state: State, peer: Id) -> float:
    """Return when an answer of this peer counts as slow, so that another is asked as well."""
    connection = state.link_of.get(peer)
    limits = state.limits
    if connection is None or state.links[connection].round_trip.smoothed_s is None:
        return limits.request_timeout_s_min
    round_trip = state.links[connection].round_trip
    usual = (round_trip.smoothed_s or 0.0) + 4 * round_trip.variation_s
    return min(max(usual, limits.hedge_s_min), limits.request_timeout_s_min)


def handle_response(state: State, job: HandleResponse) -> None:
    """Match a response to its out-worker and deliver it; late and unknown ones change nothing."""
    link = state.links.get(job.connection)
    if link is None:
        return
    link.heard_at = state.now
    if isinstance(job.response, Updated):  # no answer, even if it comes before that to its Follow
        _handle_push(state, link, job)
        return
    worker = link.out_workers.pop(job.guid, None)
    if worker is None:
        return
    if not answers(worker.request, job.response):
        _fail(state, worker, link.peer, ANOTHER_QUESTION)
        distrust(state, link.peer, ANOTHER_QUESTION)
        return
    if isinstance(job.response, Following):
        _note_pusher(state, link, worker, job.response.lease_s)
    link.used_at = state.now
    link.timeouts_in_row = 0
    round_trip_s = state.now - worker.sent_at
    if not _is_passed_on(worker.request):
        _measure(link.round_trip, round_trip_s)
    state.counters.requests_answered += 1
    kind, words = asked(worker.request), said(job.response)
    state.trace.add(
        state.now, worker.origin, worker.guid, link.peer, "answered", kind, words, round_trip_s
    )
    state.table.heard(link.peer, state.now)
    response = within_scope(job.response, link.address.host)
    _note_hearsay(state, response)
    state.deliveries.append(Answer(worker.work, worker.guid, link.peer, response, round_trip_s))
    _send_waiting(state, link)
    if not link.out_workers:
        state.timers.cancel(("link", link.guid))
    _close_if_retired(state, link)


def _note_hearsay(state: State, response: Response) -> None:
    """Remember whom an answer names, unless we know them for sure."""
    named: tuple[Contact, ...] = ()
    if isinstance(response, Closest):
        named = response.contacts
    elif isinstance(response, Found):
        named = response.closer
    heard, table = state.heard, state.table
    news = [who for who in heard.unheard(named) if who.id not in table]
    if news:
        heard.note(who for who in news if _is_wanted_news(state, who))


def _is_wanted_news(state: State, who: Contact) -> bool:
    is_somebody = who.id != state.own and who.id not in state.revoked
    return is_somebody and bool(_dialable(state, who.addresses))


def _handle_push(state: State, link: Link, job: HandleResponse) -> None:
    """Deliver what a peer pushes to the work that follows by it; nothing else comes unasked."""
    pusher = state.pushers.get(job.work, {}).get(job.guid)
    if pusher is not None and pusher.connection == link.guid:
        state.deliveries.append(Answer(job.work, job.guid, link.peer, job.response, 0.0))


def _note_pusher(state: State, link: Link, worker: OutWorker, lease_s: float) -> None:
    """Expect pushes by this connection, in the place of those that the work was to have by it."""
    if worker.work not in state.works:
        return
    others = {
        exchange: pusher
        for exchange, pusher in state.pushers.get(worker.work, {}).items()
        if pusher.connection != link.guid and pusher.until > state.now
    }
    pusher = Pusher(link.guid, state.now + lease_s)
    state.pushers[worker.work] = {**others, worker.guid: pusher}


def _end_pushes(state: State, link: Link) -> None:
    """Tell the works to which a connection that is gone was to push."""
    for work, pushers in state.pushers.items():
        ended = [guid for guid, pusher in pushers.items() if pusher.connection == link.guid]
        for exchange in ended:
            del pushers[exchange]
            state.deliveries.append(NoAnswer(work, exchange, link.peer, "it pushes no longer"))


def handle_deadline(state: State, connection: Guid) -> None:
    """Give up the requests of a connection that waited too long; name its next deadline."""
    link = state.links[connection]
    late = [worker for worker in link.out_workers.values() if _is_late(state, link, worker)]
    for worker in late:
        del link.out_workers[worker.guid]
        state.counters.requests_timed_out += 1
        _fail(state, worker, link.peer, "no answer in time")
    if late:
        link.timeouts_in_row += 1
        link.round_trip.backoff = min(link.round_trip.backoff * 2, BACKOFF_MAX)
        state.table.failed(link.peer)
        silent = link.heard_at < min(worker.sent_at for worker in late)
        if silent and link.timeouts_in_row >= state.limits.timeouts_in_row_max:
            close(state, link, "it has not answered several times in a row")
    _arm_deadline(state, link)
    _send_waiting(state, link)
    _close_if_retired(state, link)


def _is_late(state: State, link: Link, worker: OutWorker) -> bool:
    """Return whether a request has waited too long; put its deadline off while others are answered.

    A peer that keeps sending is busy, or its line is slow: 64 blocks take a while. That lasts up
    to `request_timeout_s_max` for one request.
    """
    if link.heard_at > worker.sent_at:
        heard_until = link.heard_at + reply_timeout_s(state, link.round_trip)
        longest = worker.sent_at + state.limits.request_timeout_s_max
        worker.deadline = max(worker.deadline, min(heard_until, longest))
    return worker.deadline <= state.now


def _submit(state: State, link: Link, worker: OutWorker) -> None:
    if len(link.out_workers) < state.limits.workers:
        _send(state, link, worker)
    elif len(link.waiting) < state.limits.waiting_requests_max:
        link.waiting.append(worker)
    else:
        _fail(state, worker, link.peer, "too many requests wait for this peer")


def _send(state: State, link: Link, worker: OutWorker) -> None:
    if worker.guid in link.out_workers:  # that of a relay, which its asker has chosen
        _fail(state, worker, link.peer, "another exchange has this guid")
        return
    worker.sent_at = link.used_at = state.now
    worker.deadline = state.now + _patience_s(state, link, worker.request)
    if not link.out_workers or worker.deadline < link.deadline:
        _set_deadline(state, link, worker.deadline)
    link.out_workers[worker.guid] = worker
    state.counters.requests_sent += 1
    kind = asked(worker.request)
    state.trace.add(state.now, worker.origin, worker.guid, link.peer, "sent", kind)
    state.emit(Send(link.guid, Envelope(worker.guid, worker.origin, worker.request)))


def _send_waiting(state: State, link: Link) -> None:
    while link.waiting and len(link.out_workers) < state.limits.workers and not link.closing:
        _send(state, link, link.waiting.pop(0))


def _patience_s(state: State, link: Link, body: Request) -> float:
    match body:
        case FindNext(hops=hops):
            return relay_timeout_s(state, hops)
        case Store() if body.also:
            return state.limits.request_timeout_s_max
        case _:
            return reply_timeout_s(state, link.round_trip)


def _is_passed_on(body: Request) -> bool:
    """Return whether the answer may have had to wait for other nodes than the one asked."""
    return isinstance(body, FindNext) or (isinstance(body, Store) and bool(body.also))


def _arm_deadline(state: State, link: Link) -> None:
    if link.out_workers:
        _set_deadline(state, link, min(worker.deadline for worker in link.out_workers.values()))


def _set_deadline(state: State, link: Link, when: float) -> None:
    """One timer for each connection: the earliest deadline of its out-workers."""
    link.deadline = when
    state.timers.set(("link", link.guid), when)


def _measure(round_trip: RoundTrip, sample_s: float) -> None:
    """Take one measurement in (RFC 6298, 2.2 and 2.3)."""
    round_trip.backoff = 1
    if round_trip.smoothed_s is None:
        round_trip.smoothed_s, round_trip.variation_s = sample_s, sample_s / 2
        return
    difference = abs(round_trip.smoothed_s - sample_s)
    round_trip.variation_s += (difference - round_trip.variation_s) / 4
    round_trip.smoothed_s += (sample_s - round_trip.smoothed_s) / 8


def _fail(state: State, worker: OutWorker, peer: Id, reason: str) -> None:
    took_s = state.now - worker.sent_at if worker.sent_at else 0.0
    kind, words = asked(worker.request), clean(reason)
    state.trace.add(state.now, worker.origin, worker.guid, peer, "failed", kind, words, took_s)
    state.deliveries.append(NoAnswer(worker.work, worker.guid, peer, reason))


# --- Requests of others ---------------------------------------------------------------------------


def take_request(state: State, job: HandleRequest) -> Link | None:
    """Give a request an in-worker; None where it is a repeat or its connection is gone."""
    link = state.links.get(job.connection)
    if link is None or link.closing or job.guid in link.in_workers:
        return None
    link.heard_at = link.used_at = state.now
    link.in_workers[job.guid] = InWorker(job.work, job.request, state.now)
    if len(link.in_workers) == state.limits.workers:
        state.emit(HoldRequests(link.guid))
    return link


def respond(state: State, connection: Guid, guid: Guid, response: Response) -> None:
    """Answer a request and free its in-worker. Changes nothing once the connection is gone."""
    link = state.links.get(connection)
    worker = link.in_workers.pop(guid, None) if link else None
    if link is None or worker is None:
        return
    state.counters.requests_served += 1
    kind, took_s = asked(worker.request), state.now - worker.came_at
    state.trace.add(state.now, worker.work, guid, link.peer, "served", kind, said(response), took_s)
    response = within_scope(response, link.address.host)
    state.emit(Send(connection, Envelope(guid, worker.work, response)))
    if len(link.in_workers) == state.limits.workers - 1:
        state.emit(ReleaseRequests(connection))
    _close_if_retired(state, link)


# --- Connections ----------------------------------------------------------------------------------


def handle_opened(state: State, job: ConnectionOpened) -> Link:
    """Take a new connection in, and let its requests be served."""
    link = Link(
        guid=job.connection,
        peer=job.peer,
        address=job.address,
        dialled=job.dial is not None,
        opened_at=state.now,
        heard_at=state.now,
        used_at=state.now,
        greets=job.peer not in state.link_of,  # else it has been told by the other connection
    )
    state.links[link.guid] = link
    _count_crowd(state, link, 1)
    state.emit(ReleaseRequests(link.guid))
    dialling = dials.end(state, job.dial) if job.dial else None
    if dialling is not None:
        link.greets &= dialling.greets
        state.table.proved(job.peer, job.address, state.now)
        state.heard.forget(job.peer)
    _choose_link(state, link)
    if dialling is not None:
        chosen = state.links[state.link_of[job.peer]]
        for worker in dialling.waiting:
            _submit(state, chosen, worker)
        for work in dialling.works:
            state.deliveries.append(DialEnded(work, job.peer))
    return link


def handle_dial_failed(state: State, job: DialFailed) -> None:
    """Fail what waited for this dial; forget a contact that another id answered for."""
    note_own_forms(state, job.ours)
    dialling = dials.end(state, job.dial)
    if dialling is None:
        return
    if dialling.expected is not None:
        dials.note_unreachable(state, dialling.expected, impostor=job.impostor)
    reason = "; ".join(f"{address}: {why}" for address, why in job.tried) or "no address"
    peer = dialling.expected
    connection = None if peer is None else state.link_of.get(peer)
    for worker in dialling.waiting:
        if connection is not None:
            _submit(state, state.links[connection], worker)
        else:
            _fail(state, worker, peer or state.own, f"cannot be reached ({reason})")
    for work in dialling.works:
        state.deliveries.append(DialEnded(work, None, job))


def handle_lost(state: State, job: ConnectionLost) -> Link | None:
    """Forget a connection; its requests move to another one to the same peer, or fail."""
    link = state.links.pop(job.connection, None)
    if link is None:
        return None
    _count_crowd(state, link, -1)
    state.timers.cancel(("link", link.guid))
    if state.link_of.get(link.peer) == link.guid:
        del state.link_of[link.peer]
        _find_another_link(state, link.peer)
    connection = state.link_of.get(link.peer)
    for worker in (*link.out_workers.values(), *link.waiting):
        if connection is not None:
            _submit(state, state.links[connection], worker)
        else:
            _fail(state, worker, link.peer, f"connection lost: {job.reason}")
    _end_pushes(state, link)
    state.leases.drop_connection(link.peer, link.guid)
    return link


def close(state: State, link: Link, reason: str) -> None:
    """Close a connection; what waited on it is settled when ConnectionLost comes back."""
    if not link.closing:
        link.closing = True
        if state.link_of.get(link.peer) == link.guid:
            del state.link_of[link.peer]
            _find_another_link(state, link.peer)
        state.emit(Close(link.guid, reason))


def distrust(state: State, peer: Id, why: str) -> None:
    """A peer lied: say so, end its connections and forget it as a contact."""
    state.warn("peer distrusted", f"{peer.hex()}: {why}")
    state.table.forget(peer)
    state.heard.forget(peer)
    state.anchors.pop(peer, None)
    dials.forget_possible(state, peer)
    for link in [link for link in state.links.values() if link.peer == peer]:
        close(state, link, why)


def _choose_link(state: State, link: Link) -> None:
    """Of two connections with one peer, keep the one that the smaller id dialled.

    Both ends come to the same choice. Of two dialled by the same end the older stays. The other
    takes no new requests, and its dialler closes it when it has finished what it has.
    """
    held = state.link_of.get(link.peer)
    if held is None:
        state.link_of[link.peer] = link.guid
        return
    older = state.links[held]
    we_are_smaller = state.own < link.peer
    if older.dialled != link.dialled and link.dialled == we_are_smaller:
        state.link_of[link.peer] = link.guid
        loser = older
    else:
        loser = link
    loser.retiring = True
    _close_if_retired(state, loser)


def _close_if_retired(state: State, link: Link) -> None:
    busy = link.out_workers or link.waiting or link.in_workers
    if link.retiring and link.dialled and not busy:
        close(state, link, "another connection to this peer took over")


def _count_crowd(state: State, link: Link, change: int) -> None:
    subnet = subnet_of(link.address.host)
    if subnet is None:
        return
    count = state.crowds.pop(subnet, 0) + change
    if count:
        state.crowds[subnet] = count


def _find_another_link(state: State, peer: Id) -> None:
    for link in state.links.values():
        if link.peer == peer and not link.closing:
            link.retiring = False
            state.link_of[peer] = link.guid
            return
