"""Discovery: how a node finds others and is found; and the upkeep of its connections.

Knowns are addresses worth dialling, possibles are contacts only heard of until we dialled them
back, own addresses are how others see us. No I/O.
"""

from ipaddress import ip_address

from xorbit.config import ADDRESSES_TOLD_MAX, DIALS_PER_BOOTSTRAP_MAX, LINKS_PER_PEER_MAX
from xorbit.core import effect as fx
from xorbit.core import links
from xorbit.core.effect import Finish
from xorbit.core.lookup import Lookup
from xorbit.core.state import Answer, DialEnded, Link, NoAnswer, State, Work
from xorbit.core.work import drive_lookup, new_lookup
from xorbit.ids import ID_BITS, Guid, Id, finger_point
from xorbit.items import Address, Contact, is_literal
from xorbit.wire.message import Closest, FindClosest, Ping, Pong

# --- Addresses ----------------------------------------------------------------------------------


def is_unspecified(address: Address) -> bool:
    """Return whether an address means "every interface" (0.0.0.0 or ::)."""
    try:
        return ip_address(address.host).is_unspecified
    except ValueError:
        return False


def dialable_addresses(state: State) -> tuple[Address, ...]:
    """Return where others may dial us: what we listen on, and how others have seen us."""
    told = dict.fromkeys(address for address in state.listening if not is_unspecified(address))
    told.update(dict.fromkeys(reversed(state.own_addresses)))
    return tuple(told)[:ADDRESSES_TOLD_MAX]


def _told_addresses(state: State) -> tuple[Address, ...]:
    """Return what a Ping tells: an unspecified host stands for "where you see me"."""
    told = dict.fromkeys((*state.listening, *dialable_addresses(state)))
    return tuple(told)[:ADDRESSES_TOLD_MAX]


def _seen_at(link: Link, told: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return a peer's addresses with the unspecified ones put where we see it."""
    seen = (
        Address(link.address.host, address.port) if is_unspecified(address) else address
        for address in told
    )
    return tuple(dict.fromkeys(seen))[:ADDRESSES_TOLD_MAX]


def _note_observed(state: State, observed: Address | None) -> None:
    """Learn our own address from how a peer sees us: its host, the port that we listen on."""
    if observed is None or not is_literal(observed) or not state.listening:
        return
    own = Address(observed.host, state.listening[0].port)
    state.own_addresses.pop(own, None)
    state.own_addresses[own] = None
    while len(state.own_addresses) > ADDRESSES_TOLD_MAX:
        del state.own_addresses[next(iter(state.own_addresses))]


# --- Meeting peers ------------------------------------------------------------------------------


def handle_ping(state: State, link: Link, ping: Ping) -> Pong:
    """Answer a Ping; dial its sender back if nobody has shown yet that it can be dialled."""
    addresses = tuple(filter(is_literal, _seen_at(link, ping.addresses)))
    if addresses and link.peer not in state.table and link.peer not in state.dial_of:
        if link.peer not in state.possibles and len(state.possibles) >= state.limits.possibles_max:
            links.forget_possible(state, next(iter(state.possibles)))
        state.possibles[link.peer] = Contact(link.peer, addresses)
        back = state.dial_backs.get(link.peer)
        if back is None or back.due <= state.now:
            links.dial(state, addresses, link.peer)
    return Pong(link.address, dialable_addresses(state))


def greet(state: State, link: Link) -> None:
    """Welcome a new connection: refuse one too many, tell a peer that we dialled who we are."""
    if link.dialled:
        links.forget_possible(state, link.peer)
        note_known(state, link.address)
    same = sum(other.peer == link.peer for other in state.links.values())
    if same > LINKS_PER_PEER_MAX:
        links.close(state, link, "too many connections to one peer")
        return
    if len(state.links) > state.limits.connections_max:
        _make_room(state, link)
    asked = link.dialled and not link.closing and state.link_of.get(link.peer) == link.guid
    if asked and not state.stopping:
        state.start_work(PingWork(state, Contact(link.peer)))


def note_known(state: State, address: Address) -> None:
    """Keep an address that is worth dialling, the latest last."""
    state.knowns.pop(address, None)
    state.knowns[address] = None
    if len(state.knowns) > state.limits.knowns_max:
        del state.knowns[next(iter(state.knowns))]


def _make_room(state: State, newcomer: Link) -> None:
    """Close the connection that has been unused for longest; the newcomer when all are busy."""
    idle = [
        link
        for link in state.links.values()
        if not (link.closing or link.out_workers or link.in_workers or link is newcomer)
    ]
    unused = min(idle, key=lambda link: link.used_at, default=newcomer)
    links.close(state, unused, "too many connections")


class PingWork(Work):
    """Ask a peer whether it is there, tell it where we are, learn how it sees us."""

    __slots__ = ("_to",)

    def __init__(self, state: State, to: Contact) -> None:
        """Ping `to`."""
        super().__init__(state.new_guid(), state.now + state.limits.request_timeout_s_max)
        self._to = to

    def start(self, state: State) -> None:
        """Send the Ping."""
        links.request(state, self._to, Ping(_told_addresses(state)), self)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Learn our address."""
        if isinstance(answer.response, Pong):
            _note_observed(state, answer.response.observed)
        state.end_work(self)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """The connection has noted it."""
        state.end_work(self)

    def on_deadline(self, state: State) -> None:
        """The connection has noted it."""
        state.end_work(self)


# --- Joining ------------------------------------------------------------------------------------


class JoinWork(Work):
    """Join the network: dial addresses until one answers, then look ourselves up.

    Also, with another `target`, the look around that keeps the table full.
    """

    __slots__ = ("_addresses", "_dialling", "_failures", "_lookup", "_target")

    def __init__(
        self, guid: Guid, deadline: float, addresses: tuple[Address, ...], target: Id
    ) -> None:
        """Join through any of `addresses`, then look `target` up."""
        super().__init__(guid, deadline)
        self._addresses = addresses
        self._target = target
        self._dialling = 0
        self._failures: list[tuple[Address, str]] = []
        self._lookup: Lookup | None = None

    def start(self, state: State) -> None:
        """Dial, unless we are connected already or know nobody."""
        if state.link_of:
            self._look_up(state)
            return
        for address in self._addresses[:DIALS_PER_BOOTSTRAP_MAX]:
            self._dialling += 1
            links.dial(state, (address,), None, self.guid)
        if not self._dialling:
            self._finish(state, fx.Joined(len(state.table)))

    def on_dial_ended(self, state: State, ended: DialEnded) -> None:
        """Go on with the first that answers; fail when none does."""
        self._dialling -= 1
        if ended.failure is not None:
            self._failures += ended.failure.tried
        if ended.peer is not None and self._lookup is None:
            self._look_up(state)
        elif not self._dialling and self._lookup is None:
            self._fail(state)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take contacts that are closer to us."""
        lookup = self._lookup
        assert lookup is not None
        contacts = answer.response.contacts if isinstance(answer.response, Closest) else ()
        lookup.on_response(answer.peer, contacts)
        self._go_on(state, lookup)

    def on_no_answer(self, state: State, failure: NoAnswer) -> None:
        """Do without that node."""
        lookup = self._lookup
        assert lookup is not None
        lookup.on_failure(failure.peer)
        self._go_on(state, lookup)

    def on_time(self, state: State) -> None:
        """Somebody is slow: ask one more."""
        assert self._lookup is not None
        self._go_on(state, self._lookup)

    def on_deadline(self, state: State) -> None:
        """Be content with what there is."""
        if self._lookup is not None:
            self._joined(state)
        else:
            self._fail(state)

    def _look_up(self, state: State) -> None:
        limits = state.limits
        self._lookup = new_lookup(
            state, self._target, width=limits.closest_count, parallel=limits.lookup_parallel
        )
        self._go_on(state, self._lookup)

    def _go_on(self, state: State, lookup: Lookup) -> None:
        if drive_lookup(state, self, lookup, lambda _: FindClosest(self._target)):
            self._joined(state)

    def _joined(self, state: State) -> None:
        if not state.joined:
            peers = len(state.link_of)
            state.tell("joined the network", f"{peers} {'peer' if peers == 1 else 'peers'}")
        state.joined = True
        state.retry_wait_s = 0.0
        if ("look", None) not in state.timers:
            _look_again_later(state)
        self._finish(state, fx.Joined(len(state.table)))

    def _fail(self, state: State) -> None:
        state.look_wait_s = 0.0
        _put_back(state, [address for address, _ in self._failures])
        what = "; ".join(f"{address}: {why}" for address, why in self._failures)
        state.warn("no way into the network", what or "no answer in time")
        limits = state.limits
        wait = max(limits.bootstrap_retry_s_min, state.retry_wait_s * 2)
        state.retry_wait_s = min(wait, limits.bootstrap_retry_s_max)
        state.timers.set(("retry", None), state.now + state.jittered(state.retry_wait_s))
        reason = "no address led into the network"
        self._finish(state, fx.Failed("unreachable", reason, tuple(self._failures)))

    def _finish(self, state: State, outcome: fx.Outcome) -> None:
        state.end_work(self)
        state.emit(Finish(self.guid, outcome))


def new_join(
    state: State, guid: Guid, addresses: tuple[Address, ...] = (), target: Id | None = None
) -> JoinWork:
    """Return a work that joins through these addresses, which count as knowns from now on."""
    for address in addresses:
        note_known(state, address)
    deadline = state.now + state.limits.work_timeout_s
    return JoinWork(guid, deadline, _worth_dialling(state), target or state.own)


def _put_back(state: State, failed: list[Address]) -> None:
    """Let the knowns that nobody answered at come last when we try again."""
    held = dict.fromkeys(address for address in failed if address in state.knowns)
    state.knowns = {**held, **{known: None for known in state.knowns if known not in held}}


def _worth_dialling(state: State) -> tuple[Address, ...]:
    """Return the knowns, latest first, that are not ourselves.

    What peers say to be our address does not count: a liar could name all others that we know.
    """
    return tuple(address for address in reversed(state.knowns) if address not in state.listening)


# --- Upkeep of connections ------------------------------------------------------------------------


def maintain(state: State) -> None:
    """Look after the connections: a way in where there is none, a Ping for the silent."""
    if state.stopping:
        return
    if state.link_of:
        if not state.joined:
            _look_up(state, state.own)
    elif ("retry", None) not in state.timers:
        rejoin(state)
    silent_since = state.now - state.limits.ping_interval_s
    for link in list(state.links.values()):
        if link.heard_at <= silent_since and not link.closing and not link.out_workers:
            if state.link_of.get(link.peer) == link.guid:
                state.start_work(PingWork(state, Contact(link.peer)))
            elif link.used_at <= state.now - state.limits.idle_connection_s:
                links.close(state, link, "unused")


def _look_again_later(state: State) -> None:
    """Whoever joined together with us is found by looking again, soon at first."""
    limits = state.limits
    wait = max(limits.look_around_s_min, state.look_wait_s * 2)
    state.look_wait_s = min(wait, limits.look_around_s_max)
    state.timers.set(("look", None), state.now + state.jittered(state.look_wait_s))


def look_around(state: State) -> None:
    """Look up ourselves and, every other time, the finger of one of our buckets in turn."""
    _look_again_later(state)
    if not state.link_of:
        return
    turn, other_side = divmod(state.looks, 2)
    state.looks += 1
    buckets = [index for index in reversed(range(ID_BITS)) if state.table.bucket(index)]
    if other_side and buckets:
        _look_up(state, finger_point(state.own, buckets[turn % len(buckets)]))
    else:
        _look_up(state, state.own)


def rejoin(state: State) -> None:
    """Try to join again, unless we are connected after all or know no address."""
    if not state.link_of and _worth_dialling(state):
        _look_up(state, state.own)


def _look_up(state: State, target: Id) -> None:
    """Start a JoinWork, unless one is under way or we are leaving."""
    joining = any(isinstance(work, JoinWork) for work in state.works.values())
    if not joining and not state.stopping:
        state.start_work(new_join(state, state.new_guid(), (), target))
