"""The invariants: each broken promise is named. That they hold is asserted at every other step."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.world import World
from xorbit.core.check import check
from xorbit.core.effect import Stopped
from xorbit.core.get import GetWork
from xorbit.core.state import Answer, DialBack, Dialling, InWorker, OutWorker, State
from xorbit.ids import Guid, Id
from xorbit.items import Address, Contact, block_key
from xorbit.wire.message import Ping, Pong

G = Guid(bytes(16))
I = Id(bytes(32))  # noqa: E741 - stands beside G


def _link(state: State):
    return next(iter(state.links.values()))


def _busy(state: State, count: int) -> None:
    for number in range(count):
        guid = Guid(bytes([number]) * 16)
        _link(state).out_workers[guid] = OutWorker(guid, G, G, Ping())
    _link(state).deadline = 0.0
    state.timers.set(("link", _link(state).guid), 1e9)


def _late_deadline(state: State) -> None:
    _busy(state, 1)
    _link(state).deadline = 1e9


def _waiting(state: State) -> None:
    _busy(state, state.limits.workers)
    state.limits = state.limits.replace(waiting_requests_max=1)
    _link(state).waiting.extend([OutWorker(G, G, G, Ping())] * 2)


def _waiting_for_a_dial(state: State) -> None:
    state.limits = state.limits.replace(waiting_requests_max=1)
    state.dials[G] = Dialling(G, (), None)
    state.dials[G].waiting.extend([OutWorker(G, G, G, Ping())] * 2)


def _no_maintenance(state: State) -> None:
    state.timers.cancel(("maintenance", None))


def _no_look(state: State) -> None:
    state.joined = True
    state.timers.cancel(("look", None))


def _many_links(state: State) -> None:
    link = _link(state)
    state.links[G] = replace(link, guid=G)
    state.limits = state.limits.replace(connections_max=1)


def _many_works(state: State) -> None:
    state.limits = state.limits.replace(works_max=1, connections_max=1)
    for number in range(70):
        guid = Guid(bytes([number]) * 16)
        state.works[guid] = GetWork(guid, 1.0, block_key(b""))
        state.timers.set(("work", guid), 1e9)


def _lost_relay(state: State) -> None:
    state.relays = 1


def _hearsay(state: State) -> None:
    state.heard.note([Contact(I), Contact(Id(b"x" * 32))])
    state.limits = state.limits.replace(heard_max=1)


def _newcomers(state: State) -> None:
    table = state.table
    table._budget = len(table)
    for number in range(2):
        nearby = Id(number.to_bytes(32, "big"))
        table._newcomers[nearby] = (Address("10.0.0.9", 1), 0.0)
    state.limits = state.limits.replace(newcomers_max=1)


def _wait_for_nothing(state: State) -> None:
    _link(state).waiting.append(OutWorker(G, G, G, Ping()))


def _too_many_in(state: State) -> None:
    for number in range(state.limits.workers + 1):
        _link(state).in_workers[Guid(bytes([number]) * 16)] = InWorker(G, Ping())


def _no_deadline(state: State) -> None:
    _busy(state, 1)
    state.timers.cancel(("link", _link(state).guid))


def _to_ourselves(state: State) -> None:
    _link(state).peer = state.own


def _name_nobody(state: State) -> None:
    state.link_of[I] = G


def _use_closing(state: State) -> None:
    _link(state).closing = True


def _unnamed(state: State) -> None:
    state.link_of.clear()


def _lost_dial(state: State) -> None:
    state.dial_of[I] = G


def _other_dial(state: State) -> None:
    state.dials[G] = Dialling(G, (), None)
    state.dial_of[I] = G


def _waiting_dial(state: State) -> None:
    state.dials_waiting.append(G)


def _misnamed_work(state: State) -> None:
    state.works[G] = GetWork(Guid(b"x" * 16), 1.0, block_key(b""))


def _endless_work(state: State) -> None:
    state.works[G] = GetWork(G, 1.0, block_key(b""))


def _stopped(state: State) -> None:
    state.stopped = True


def _full_table(state: State) -> None:
    state.table.proved(I, Address("10.0.0.9", 1), 0.0)
    state.limits = state.limits.replace(contacts_max=1)


def _table_of_ourselves(state: State) -> None:
    state.table._entries[state.own] = state.table._entries[next(iter(state.link_of))]


def _knowns(state: State) -> None:
    state.knowns = {Address("h", n + 1): None for n in range(state.limits.knowns_max + 1)}


def _possibles(state: State) -> None:
    for number in range(state.limits.possibles_max + 1):
        peer = Id(number.to_bytes(32, "big"))
        state.possibles[peer] = Contact(peer)


def _dial_back_of_nobody(state: State) -> None:
    state.dial_backs[I] = DialBack()


def _dials_waiting(state: State) -> None:
    state.limits = state.limits.replace(dials_waiting_max=1)
    for guid in (G, Guid(b"y" * 16)):
        state.dials[guid] = Dialling(guid, (), None)
        state.dials_waiting.append(guid)


def _dials(state: State) -> None:
    for number in range(state.limits.dials_max + 1):
        guid = Guid(bytes([number]) * 16)
        state.dials[guid] = Dialling(guid, (), None)


def _kept_effect(state: State) -> None:
    state.effects.append(Stopped())


def _kept_delivery(state: State) -> None:
    state.deliveries.append(Answer(G, G, I, Pong(), 0.0))


def _too_many_out(state: State) -> None:
    _busy(state, state.limits.workers + 1)


BROKEN: list[tuple[Callable[[State], object], str]] = [
    (_kept_effect, "effects are handed out"),
    (_kept_delivery, "told everything"),
    (_too_many_out, "more than N out-workers"),
    (_too_many_in, "more than N in-workers"),
    (_wait_for_nothing, "wait only while all out-workers are busy"),
    (_no_deadline, "every request in flight has a deadline"),
    (_late_deadline, "looked at by the earliest deadline"),
    (_waiting, "requests that wait are bounded"),
    (_waiting_for_a_dial, "requests that wait for a dial are bounded"),
    (_no_maintenance, "maintenance comes again"),
    (_no_look, "looks around again"),
    (_many_links, "connections are bounded"),
    (_many_works, "works are bounded"),
    (_lost_relay, "relays are counted"),
    (_hearsay, "hearsay is bounded"),
    (_newcomers, "newcomers are bounded"),
    (_to_ourselves, "never connected to itself"),
    (_name_nobody, "link_of names a link"),
    (_use_closing, "closing link is not used"),
    (_unnamed, "every connected peer can be asked"),
    (_lost_dial, "dial_of names its dial"),
    (_other_dial, "dial_of names its dial"),
    (_waiting_dial, "a waiting dial is a dial"),
    (_misnamed_work, "addressed by its guid"),
    (_endless_work, "every work in progress has a deadline"),
    (_stopped, "only a stopping node has stopped"),
    (_full_table, "keeps to its budget"),
    (_table_of_ourselves, "no contact of its own"),
    (_knowns, "knowns are bounded"),
    (_possibles, "possibles are bounded"),
    (_dial_back_of_nobody, "only possibles are dialled back"),
    (_dials, "dials under way are bounded"),
    (_dials_waiting, "waiting dials are bounded"),
]


@pytest.mark.parametrize(("spoil", "promise"), BROKEN, ids=[spoil.__name__ for spoil, _ in BROKEN])
def test_a_broken_promise_is_named(spoil: Callable[[State], object], promise: str) -> None:
    one, _ = World().pair()
    state = one.machine.state
    check(state)
    spoil(state)
    with pytest.raises(AssertionError, match=promise):
        check(state)
