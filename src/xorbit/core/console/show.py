"""What the state tells at once, as text. Reads only; every answer is bounded in lines."""

from collections import Counter
from collections.abc import Sequence

from xorbit.config import CONSOLE_LINES_MAX, CONSOLE_WORKS_SHOWN_MAX
from xorbit.core.console.line import Line, parse_guid, short
from xorbit.core.state import Serving, State, Work
from xorbit.core.trace import in_words, milliseconds, operation
from xorbit.ids import ID_BITS, Guid, finger_point
from xorbit.items import Contact


def status(state: State, _: Line) -> str:
    """Return who and where the node is."""
    where = ", ".join(map(str, state.listening)) or "nowhere (a client)"
    peers = len(state.link_of)
    return (
        f"id {state.own.hex()}\nlistening at {where}\n"
        f"{_count(len(state.table), 'contact')}, {_count(peers, 'peer')} connected, "
        f"{_count(len(state.works), 'work')} in progress"
    )


def peers(state: State, _: Line) -> str:
    """Return who is connected, in the order of their ids."""
    rows = [("ID", "ADDRESS", "OPENED BY", "ROUND TRIP", "WAITING", "ANSWERING", "OPEN FOR")]
    for peer, connection in sorted(state.link_of.items()):
        link = state.links[connection]
        usual = link.round_trip.smoothed_s
        rows.append(
            (
                short(peer),
                str(link.address),
                "us" if link.dialled else "them",
                "-" if usual is None else milliseconds(usual),
                str(len(link.out_workers) + len(link.waiting)),
                str(len(link.in_workers)),
                _age(state.now - link.opened_at),
            )
        )
    return _columns(rows) if len(rows) > 1 else "no peers"


def fingers(state: State, _: Line) -> str:
    """Return the nearest contact to the finger point of each bucket that has contacts."""
    rows = [("BUCKET", "POINT", "NEAREST", "ADDRESS")]
    for index in _held_buckets(state):
        contact = state.table.finger(index)
        if contact is not None:
            point = short(finger_point(state.own, index))
            rows.append((str(index), point, short(contact.id), _where(contact)))
    return _columns(rows) if len(rows) > 1 else "no contacts yet"


def buckets(state: State, _: Line) -> str:
    """Return how many contacts each bucket holds, the farthest bucket first."""
    rows = [("BUCKET", "CONTACTS", "CONNECTED")]
    for index in _held_buckets(state):
        held = state.table.bucket(index)
        connected = sum(contact.id in state.link_of for contact in held)
        rows.append((str(index), str(len(held)), str(connected)))
    return _columns(rows) if len(rows) > 1 else "no contacts yet"


def knowns(state: State, _: Line) -> str:
    """Return the addresses worth dialling, the latest first."""
    return _lines([str(address) for address in reversed(state.knowns)]) or "none"


def possibles(state: State, _: Line) -> str:
    """Return the contacts only heard of, the latest first."""
    heard = [(contact.id.hex(), _where(contact)) for contact in reversed(state.possibles.values())]
    return _columns(heard) if heard else "none"


def jobs(state: State, line: Line) -> str:
    """Return what waits in the queue and what has been served, as the driver's figures say."""
    rows = [("WAITING", "SOURCE")]
    rows += [(f"{count:,}", _source(state, name)) for name, count in line.queue.waiting]
    before, since_s = state.served_before, state.now - state.served_at
    rates = [("SERVED", "PER SECOND", "KIND")]
    for kind, count in sorted(line.queue.served, key=lambda entry: -entry[1]):
        rate = (count - before.get(kind, 0)) / since_s if since_s else 0.0
        rates.append((f"{count:,}", f"{rate:,.1f}", kind))
    state.served_before, state.served_at = dict(line.queue.served), state.now
    waiting = _columns(rows) if len(rows) > 1 else "nothing waits"
    return f"{waiting}\n{_columns(rates)}\n(per second: since 'jobs' was last typed)"


def work(state: State, _: Line) -> str:
    """Return what is in progress, the oldest first; beyond some only how many of which kind."""
    works = sorted(state.works.items(), key=lambda entry: entry[1].began_at)
    if not works:
        return "nothing is in progress"
    rows = [("GUID", "KIND", "AGE", "FOR", "WAITS FOR")]
    for guid, it in works[:CONSOLE_WORKS_SHOWN_MAX]:
        cause = "itself" if it.origin == guid else short(it.origin)
        age, waits_for = _age(state.now - it.began_at), _waits_for(state, it)
        rows.append((guid.hex(), _kind(it), age, cause, waits_for))
    more = Counter(_kind(it) for _, it in works[CONSOLE_WORKS_SHOWN_MAX:])
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(more.items()))
    return _columns(rows) + (f"\n... and {more.total():,} more: {kinds}" if more else "")


def trace(state: State, line: Line) -> str:
    """Return what is known here of one operation."""
    guid = parse_guid(state, line.words[1])
    events = state.trace_of(guid)
    if not events:
        return f"nothing is remembered here of {guid.hex()}"
    where = {peer: state.links[link].address for peer, link in state.link_of.items()}
    return _lines(in_words(operation(guid, events), where))


def _kind(work: Work) -> str:
    return type(work).__name__.removesuffix("Work")


def _source(state: State, name: str) -> str:
    """Return what a line of the queue is: a connection is named by its peer."""
    try:
        link = state.links.get(Guid(bytes.fromhex(name)))
    except ValueError:
        return name
    return f"peer {short(link.peer)}" if link else "a connection that is gone"


def _waits_for(state: State, work: Work) -> str:
    """Return what a work waits for: its requests in flight, the disk, a dial, or only time."""
    asked: dict[str, int] = {}
    for link in state.links.values():
        for worker in (*link.out_workers.values(), *link.waiting):
            if worker.work == work.guid:
                kind = type(worker.request).__name__
                asked[kind] = asked.get(kind, 0) + 1
    words = [f"{count} x {kind}" for kind, count in sorted(asked.items())]
    on_disk = any(
        work.guid == (it.waiter.exchange if isinstance(it.waiter, Serving) else it.waiter)
        for it in state.disk_of.values()
    )
    words += ["the disk"] if on_disk else []
    dials = state.dials.values()
    is_dialling = any(
        work.guid in dial.works or any(worker.work == work.guid for worker in dial.waiting)
        for dial in dials
    )
    words += ["a dial"] if is_dialling else []
    return ", ".join(words) or "time"


def _held_buckets(state: State) -> list[int]:
    return [index for index in reversed(range(ID_BITS)) if state.table.bucket(index)]


def _where(contact: Contact) -> str:
    return ", ".join(map(str, contact.addresses)) or "no address"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _age(seconds: float) -> str:
    return milliseconds(seconds) if seconds < 1 else f"{seconds:,.0f} s"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    shown = rows[: CONSOLE_LINES_MAX + 1]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return _lines(lines)


def _lines(lines: Sequence[str]) -> str:
    if len(lines) <= CONSOLE_LINES_MAX + 1:
        return "\n".join(lines)
    return "\n".join(
        (*lines[:CONSOLE_LINES_MAX], f"... and {len(lines) - CONSOLE_LINES_MAX:,} more")
    )
