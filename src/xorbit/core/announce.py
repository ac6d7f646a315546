"""Where we are: our own connection item, signed by our key and held by the nodes closest to our id.

Its sequence number is one more than the highest that our own disk or the network knows, so that it
survives restarts, even with an empty disk; wall time never enters. It is put when we have joined,
when our addresses or our neighbourhood change, and now and then. A node that lost its disk while
those who knew were away begins at one again: now and then, and where a newer item of ours shows, it
asks anew what the network has, and signs above that. No I/O.
"""

from xorbit.core import effect as fx
from xorbit.core.addresses import published_addresses
from xorbit.core.job import ConnectionSigned, StoreRead
from xorbit.core.lookup import Lookup
from xorbit.core.put import PutWork
from xorbit.core.state import Answer, DiskResult, NoAnswer, State, Work
from xorbit.core.work import drive_lookup, new_lookup
from xorbit.errors import ItemError
from xorbit.ids import Id
from xorbit.items import (
    Address,
    ConnectionItem,
    Item,
    ItemKey,
    check_is,
    connection_key,
    version,
)
from xorbit.wire.message import Closest, Found, Get


def keep_up(state: State) -> None:
    """Announce ourselves where what the network knows of us is out of date."""
    told = state.announced
    if told.work in state.works or not state.joined or not state.listening:
        return
    addresses, limits = published_addresses(state), state.limits
    if not addresses or (told.at and state.now < told.at + limits.announce_again_s_min):
        return
    holders, item = _holders(state), told.item
    is_time = ("announce", None) not in state.timers
    if item is None or addresses != told.addresses or is_time or told.in_doubt:
        _read(state, addresses, holders, put=is_time)
    elif holders != told.holders and state.now >= told.at + limits.newcomer_delay_s:
        _note(state, addresses, holders)
        _put(state, item)


def handle_signed(state: State, job: ConnectionSigned) -> None:
    """Put what our key has signed."""
    told = state.announced
    if job.guid == told.work and not state.stopping:
        told.item = job.item
        _put(state, job.item)


def note_met(state: State, key: ItemKey, item: Item) -> None:
    """Look again at what the network has of us where a peer stores a newer item of ours with us."""
    told = state.announced
    if key == connection_key(state.own) and told.item and version(item) > version(told.item):
        told.in_doubt = True


def _note(state: State, addresses: tuple[Address, ...], holders: tuple[Id, ...]) -> None:
    told = state.announced
    told.addresses, told.holders, told.at = addresses, holders, state.now
    due = state.now + state.jittered(state.limits.announce_interval_s)
    state.timers.set(("announce", None), due)


def _read(
    state: State, addresses: tuple[Address, ...], holders: tuple[Id, ...], *, put: bool
) -> None:
    """See what the network has; sign anew where our item says something else, or is not newest."""
    told = state.announced
    current = told.item if addresses == told.addresses else None
    _note(state, addresses, holders)
    told.in_doubt = False
    work = AnnounceWork(state, addresses, current, put=put)
    told.work = work.guid
    state.start_work(work)


def _put(state: State, item: ConnectionItem) -> None:
    work = PutOwnWork(state, item)
    state.announced.work = work.guid
    state.start_work(work)


def _holders(state: State) -> tuple[Id, ...]:
    found = state.table.closest(state.own, state.limits.replicas - 1)
    return tuple(contact.id for contact in found)


class PutOwnWork(PutWork):
    """Put our own item; who has a newer one, or says so, makes us look what the network has."""

    __slots__ = ()

    def __init__(self, state: State, item: ConnectionItem) -> None:
        """Put `item`."""
        deadline = state.now + state.limits.work_timeout_s
        super().__init__(state.new_guid(), deadline, connection_key(state.own), item, None)

    def _end(self, state: State) -> None:
        super()._end(state)
        state.announced.in_doubt |= self._is_stale


class AnnounceWork(Work):
    """Find the highest sequence number known; have the next one signed where that is needed."""

    __slots__ = ("_addresses", "_current", "_lookup", "_overtaken", "_put", "_seq")

    def __init__(
        self,
        state: State,
        addresses: tuple[Address, ...],
        current: ConnectionItem | None,
        *,
        put: bool,
    ) -> None:
        """Announce that we are at `addresses`.

        Args:
            state: of the node.
            addresses: where we are.
            current: our item, if it says just that.
            put: whether to put that item again if none is newer.
        """
        super().__init__(state.new_guid(), state.now + state.limits.request_timeout_s_max)
        self._addresses = addresses
        self._current = current
        self._put = put
        self._overtaken = False
        self._seq = state.own_seq
        self._lookup: Lookup | None = None

    def start(self, state: State) -> None:
        """Read what our own disk has."""
        state.emit(fx.ReadStore(state.disk_guid(self.guid), connection_key(state.own)))

    def on_disk(self, state: State, result: DiskResult) -> None:
        """Ask the network what it has."""
        assert isinstance(result, StoreRead)
        self._note(state, result.item)
        self._lookup = new_lookup(state, state.own, width=state.limits.replicas)
        self._go_on(state, self._lookup)

    def on_answer(self, state: State, answer: Answer) -> None:
        """Take a sequence number, and closer contacts."""
        lookup = self._lookup
        assert lookup is not None
        match answer.response:
            case Found(item, closer):
                self._note(state, item)
                lookup.on_response(answer.peer, closer)
            case Closest(contacts):
                lookup.on_response(answer.peer, contacts)
            case _:
                lookup.on_response(answer.peer)
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
        """Go by what we have heard."""
        self._sign(state)

    def _go_on(self, state: State, lookup: Lookup) -> None:
        if drive_lookup(state, self, lookup, lambda _: Get(connection_key(state.own))):
            self._sign(state)

    def _note(self, state: State, item: Item | None) -> None:
        """Only what our own key has signed counts: nobody else can push the number up."""
        if isinstance(item, ConnectionItem):
            try:
                check_is(item, connection_key(state.own))
            except ItemError:
                return
            self._seq = max(self._seq, item.seq)
            current = self._current
            self._overtaken |= current is not None and version(item) > version(current)

    def _sign(self, state: State) -> None:
        state.end_work(self)
        if self._current is not None and not self._overtaken:
            if self._put:
                _put(state, self._current)
            return
        state.own_seq = self._seq + 1
        state.emit(fx.SignConnection(self.guid, state.own_seq, self._addresses))
