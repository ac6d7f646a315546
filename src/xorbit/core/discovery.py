"""Discovery: how a node finds others and is found.

Knowns are addresses worth dialling, possibles are contacts only heard of until we dialled them
back. What our own addresses are is the business of addresses.py, which connections stay up that of
maintenance.py. No I/O.
"""

from xorbit.config import (
    ANCHORS_MAX,
    DIALS_PER_BOOTSTRAP_MAX,
    FIRST_ROUND_SHARE,
    LINKS_PER_PEER_MAX,
    LOOKS_SLOWER,
)
from xorbit.core import dials, fingers, links, survey
from xorbit.core import effect as fx
from xorbit.core.addresses import (
    dialable_addresses,
    is_ours,
    note_dialled,
    note_observed,
    seen_at,
    told_addresses,
)
from xorbit.core.effect import Finish
from xorbit.core.lookup import Lookup
from xorbit.core.room import make_room
from xorbit.core.scope import in_scope
from xorbit.core.state import Answer, DialEnded, Link, NoAnswer, State, Work
from xorbit.core.work import drive_lookup, new_lookup, wide_starts
from xorbit.ids import Guid, Id, distance, finger_point
from xorbit.items import Address, Contact, is_literal
from xorbit.wire.message import Closest, FindClosest, Ping, Pong

HUNG_UP = (
    "whoever answered hung up at once; in a managed network its operator may have revoked this "
    "node: ask there (still trying, now and then)"
)

# --- Meeting peers ------------------------------------------------------------------------------


def handle_ping(state: State, link: Link, ping: Ping) -> Pong:
    """Answer a Ping; dial its sender back if nobody has shown yet that it can be dialled."""
    seen = filter(is_literal, seen_at(link, ping.addresses))
    addresses = tuple(address for address in seen if not is_ours(state, address))
    if addresses and link.peer not in state.table and link.peer not in state.dial_of:
        if link.peer not in state.possibles and len(state.possibles) >= state.limits.possibles_max:
            dials.forget_possible(state, next(iter(state.possibles)))
        state.possibles[link.peer] = Contact(link.peer, addresses)
        back = state.dial_backs.get(link.peer)
        if (back is None or back.due <= state.now) and _is_neighbour(state, link.peer):
            dials.dial(state, addresses, link.peer)
    return Pong(link.address, in_scope(dialable_addresses(state), link.address.host))


def _is_neighbour(state: State, peer: Id) -> bool:
    """Return whether a peer is one of the closest to us: others wait for maintenance's turn."""
    nearest = state.table.closest(state.own, state.limits.neighbours_connected)
    if len(nearest) < state.limits.neighbours_connected:
        return True
    return distance(state.own, peer) < distance(state.own, nearest[-1].id)


def greet(state: State, link: Link) -> None:
    """Welcome a new connection: refuse one too many, tell a peer that we dialled who we are."""
    if link.dialled:
        dials.forget_possible(state, link.peer)
        note_known(state, link.address)
    else:
        note_dialled(state, link)
    is_double = state.link_of.get(link.peer) != link.guid
    if is_double and _links_of(state, link.peer) > LINKS_PER_PEER_MAX:
        links.close(state, link, "too many connections to one peer")
        return
    make_room(state, link)
    if link.dialled and link.greets and not (link.closing or state.stopping):
        state.start_work(PingWork(state, Contact(link.peer)))


def _links_of(state: State, peer: Id) -> int:
    return sum(link.peer == peer for link in state.links.values())


def note_known(state: State, address: Address) -> None:
    """Keep an address that is worth dialling, the latest last."""
    state.knowns.pop(address, None)
    state.knowns[address] = None
    if len(state.knowns) > state.limits.knowns_max:
        del state.knowns[next(iter(state.knowns))]


class PingWork(Work):
    """Ask a peer whether it is there, tell it where we are, learn how it sees us."""

    __slots__ = ("_to",)

    def __init__(self, state: State, to: Contact) -> None:
        """Ping `to`."""
        super().__init__(state.new_guid(), state.now + state.limits.request_timeout_s_max)
        self._to = to

    def start(self, state: State) -> None:
        """Send the Ping."""
        connection = state.link_of.get(self._to.id)
        where = [state.links[connection].address] if connection else [*self._to.addresses]
        told = told_addresses(state, where[0].host) if where else ()
        links.request(state, self._to, Ping(told, state.own_seq), self)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Learn our address."""
        connection = state.link_of.get(answer.peer)
        if isinstance(answer.response, Pong) and connection is not None:
            note_observed(state, state.links[connection], answer.response.observed)
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

    __slots__ = ("_addresses", "_dialling", "_failures", "_lookup", "_target", "_width")

    def __init__(
        self, guid: Guid, deadline: float, addresses: tuple[Address, ...], target: Id, width: int
    ) -> None:
        """Join through any of `addresses`, then ask the `width` closest to `target`."""
        super().__init__(guid, deadline)
        self._addresses = addresses
        self._target = target
        self._width = width
        self._dialling = 0
        self._failures: list[tuple[Address, str]] = []
        self._lookup: Lookup | None = None

    def start(self, state: State) -> None:
        """Dial, unless we are connected already, know nobody, or are revoked."""
        if state.own in state.revoked:
            self._finish(state, fx.Failed("unreachable", links.OWN_REVOKED))
            return
        if state.link_of:
            self._look_up(state)
            return
        for address in self._addresses[:DIALS_PER_BOOTSTRAP_MAX]:
            self._dialling += 1
            dials.dial(state, (address,), None, self.guid)
        if not self._dialling:
            self._finish(state, fx.Joined(len(state.table)))

    def on_dial_ended(self, state: State, ended: DialEnded) -> None:
        """Go on with the first that answers; fail when none does."""
        self._dialling -= 1
        if ended.failure is not None:
            self._failures += ended.failure.tried
        if ended.peer is not None:
            _note_anchor(state, ended.peer)
        if ended.peer is not None and self._lookup is not None:
            self._lookup.begin_at([Contact(ended.peer)])  # the first that answered may be a liar
            self._go_on(state, self._lookup)
        elif ended.peer is not None:
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
        self._lookup = new_lookup(state, self._target, width=self._width)
        if self._target == state.own:
            self._lookup.begin_at(wide_starts(state, state.own))
        self._go_on(state, self._lookup)

    def _go_on(self, state: State, lookup: Lookup) -> None:
        if drive_lookup(state, self, lookup, lambda _: FindClosest(self._target)):
            self._joined(state)

    def _joined(self, state: State) -> None:
        peers = len(state.link_of)
        if not (peers or state.joined):
            self._fail(state, HUNG_UP)
            return
        state.hung_up_told = False
        if not state.joined:
            state.joined = True
            state.tell("joined the network", f"{peers} {'peer' if peers == 1 else 'peers'}")
            soon_s = state.limits.maintenance_interval_s * FIRST_ROUND_SHARE
            state.timers.set(("maintenance", None), state.now + soon_s * state.rng.random())
        state.retry_wait_s = 0.0
        if ("look", None) not in state.timers:
            _look_again_later(state)
        fingers.begin(state)
        survey.begin(state)
        self._finish(state, fx.Joined(len(state.table)))

    def _fail(self, state: State, why_else: str = "no answer in time") -> None:
        state.look_wait_s = 0.0
        _put_back(state, [address for address, _ in self._failures])
        if state.own in state.revoked:  # since we began; that has been said, and nobody is tried
            self._finish(state, fx.Failed("unreachable", links.OWN_REVOKED))
            return
        what = "; ".join(f"{address}: {why}" for address, why in self._failures) or why_else
        if what != HUNG_UP or not state.hung_up_told:
            state.warn("no way into the network", what)
        state.hung_up_told = what == HUNG_UP
        limits = state.limits
        wait = max(limits.bootstrap_retry_s_min, state.retry_wait_s * 2)
        state.retry_wait_s = min(wait, limits.bootstrap_retry_s_max)
        state.timers.set(("retry", None), state.now + state.jittered(state.retry_wait_s))
        reason = "no address led into the network"
        self._finish(state, fx.Failed("unreachable", reason, tuple(self._failures)))

    def _finish(self, state: State, outcome: fx.Outcome) -> None:
        state.end_work(self)
        state.emit(Finish(self.guid, outcome))


def _note_anchor(state: State, peer: Id) -> None:
    """Remember by whom we came in: the latest, and not many."""
    entry = state.table.get(peer)
    if entry is not None:
        state.anchors.pop(peer, None)
        state.anchors[peer] = entry.contact
        if len(state.anchors) > ANCHORS_MAX:
            del state.anchors[next(iter(state.anchors))]


def new_join(
    state: State, guid: Guid, addresses: tuple[Address, ...] = (), target: Id | None = None
) -> JoinWork:
    """Return a work that joins through these addresses, which count as knowns from now on."""
    for address in addresses:
        if is_ours(state, address):
            state.warn("not dialled, this is the node itself", str(address))
        else:
            note_known(state, address)
    limits = state.limits
    width = limits.replicas
    if target is not None and target != state.own:
        width = 1  # its nearest names all others: they stay hearsay until somebody needs them
    deadline = state.now + limits.work_timeout_s
    return JoinWork(guid, deadline, _worth_dialling(state), target or state.own, width)


def _put_back(state: State, failed: list[Address]) -> None:
    """Let the knowns that nobody answered at come last when we try again."""
    held = dict.fromkeys(address for address in failed if address in state.knowns)
    state.knowns = {**held, **{known: None for known in state.knowns if known not in held}}


def _worth_dialling(state: State) -> tuple[Address, ...]:
    """Return the knowns, latest first, that are not ourselves."""
    return tuple(address for address in reversed(state.knowns) if not is_ours(state, address))


# --- Looking around -------------------------------------------------------------------------------


def stay_joined(state: State) -> None:
    """Find a way in where there is none."""
    if state.link_of:
        if not state.joined:
            _look_up(state, state.own)
    elif ("retry", None) not in state.timers:
        rejoin(state)


def _look_again_later(state: State) -> None:
    """Whoever joined together with us is found by looking again, soon at first."""
    limits = state.limits
    wait = max(limits.look_around_s_min, state.look_wait_s * LOOKS_SLOWER)
    state.look_wait_s = min(wait, limits.look_around_s_max)
    state.timers.set(("look", None), state.now + state.jittered(state.look_wait_s))


def look_around(state: State) -> None:
    """Look up ourselves and, every other time, the finger of one of our buckets in turn."""
    _look_again_later(state)
    if not state.link_of:
        return
    turn, other_side = divmod(state.looks, 2)
    state.looks += 1
    buckets = state.table.buckets()
    if other_side and buckets:
        _look_up(state, finger_point(state.own, buckets[turn % len(buckets)]))
    else:
        _look_up(state, state.own)


def rejoin(state: State) -> None:
    """Try to join again, unless we are connected after all or know no address."""
    is_revoked = state.own in state.revoked
    if not state.link_of and not is_revoked and _worth_dialling(state):
        _look_up(state, state.own)


def _look_up(state: State, target: Id) -> None:
    """Start a JoinWork, unless one is under way or we are leaving."""
    joining = any(isinstance(work, JoinWork) for work in state.works.values())
    if not joining and not state.stopping:
        state.start_work(new_join(state, state.new_guid(), (), target))
