"""What came of a line that took time, as text.

What peers and publishers wrote is shown without control characters: it must not upset a terminal.
"""

from typing import assert_never

from xorbit.config import CONSOLE_HEX_BYTES_MAX, CONSOLE_TEXT_CHARACTERS_MAX
from xorbit.core import effect as fx
from xorbit.core.console.line import name_of, short
from xorbit.core.effect import Outcome
from xorbit.core.state import State
from xorbit.core.trace import Event, clean, milliseconds
from xorbit.ids import Guid
from xorbit.items import Block, ConnectionItem, Item, Record, key_of
from xorbit.wire.message import Pong, Receipt


def outcome_text(state: State, guid: Guid, outcome: Outcome) -> str:
    """Return what came of a line, and how to see more of it."""
    text = _text(state, outcome)
    return f"{text}\n    (trace {short(guid)})" if len(state.trace_of(guid)) > 2 else text


def is_failure(outcome: Outcome) -> bool:
    """Return whether a line could not be done."""
    match outcome:
        case fx.Failed() | fx.NotFound():
            return True
        case fx.PutDone(receipts):
            return all(receipt.outcome != "stored" for receipt in receipts)
        case _:
            return False


def pushed_text(record: Record) -> str:
    """Return a record that was pushed."""
    return _item(record)


def step_text(state: State, event: Event) -> str:
    """Return one exchange as it happens, or "" for what is no exchange of ours."""
    if event.what not in ("sent", "answered", "failed"):
        return ""
    connection = state.link_of.get(event.peer)
    where = f" {state.links[connection].address}" if connection else ""
    if event.what == "sent":
        return f"  ask {short(event.peer)}{where}: {event.kind}"
    return f"  {short(event.peer)}: {clean(event.said)}  ({milliseconds(event.took_s)})"


def _text(state: State, outcome: Outcome) -> str:
    match outcome:
        case fx.Got(item, source):
            by = "from our own store" if source == state.own else f"from {short(source)}"
            return f"{_item(item)}\n    ({by})"
        case fx.NotFound(asked, failed):
            return f"nobody has it: {asked} said so, {failed} could not be asked"
        case fx.PutDone(receipts):
            return _receipts(state, receipts)
        case fx.Answered(peer, response, round_trip_s):
            said = "is there" if isinstance(response, Pong) else type(response).__name__
            return f"{short(peer)} {said}  ({milliseconds(round_trip_s)})"
        case fx.LookedUp(contacts, asked, failed):
            lines = [f"{it.id.hex()}  {', '.join(map(str, it.addresses))}" for it in contacts]
            head = f"{len(contacts)} closest; {asked} answered, {failed} did not"
            return "\n    ".join((head, *lines))
        case fx.Tended():
            return "done"
        case fx.Connected(peer):
            return f"connected: {peer.hex()} is there"
        case fx.Joined(contacts):
            return f"joined: {contacts} contacts"
        case fx.Failed(code, reason):
            return f"failed ({code}): {clean(reason)}"
        case _ as never:
            assert_never(never)


def _item(item: Item) -> str:
    match item:
        case Block(data=data):
            return f"{name_of(key_of(item))}, {len(data):,} bytes:\n{_bytes(data)}"
        case Record(seq=seq, value=value):
            return f"sequence {seq}, {len(value):,} bytes:\n{_bytes(value)}"
        case ConnectionItem(seq=seq, addresses=addresses):
            where = ", ".join(map(str, addresses)) or "no address"
            return f"{clean(where)}  (its own word, sequence {seq})"
        case _ as never:
            assert_never(never)


def _bytes(data: bytes) -> str:
    """Return bytes as text where they are text, else the beginning of them in hex."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not text.replace("\n", "").replace("\t", "").isprintable():
        more = "..." if len(data) > CONSOLE_HEX_BYTES_MAX else ""
        return f"    {data[:CONSOLE_HEX_BYTES_MAX].hex(' ')}{more}"
    cut = text[:CONSOLE_TEXT_CHARACTERS_MAX]
    return cut if cut == text else f"{cut}... ({len(text):,} characters)"


def _receipts(state: State, receipts: tuple[Receipt, ...]) -> str:
    if not receipts:
        return "stored nowhere: no node could be asked"
    holders = [receipt.node for receipt in receipts if receipt.outcome == "stored"]
    held = f"{len(holders)} node{'' if len(holders) == 1 else 's'}"
    lines = [f"stored at {'this node only' if holders == [state.own] else held}"]
    for receipt in receipts:
        reason = f"  {clean(receipt.reason)}" if receipt.reason else ""
        lines.append(f"{receipt.node.hex()}  {receipt.outcome}{reason}")
    return "\n    ".join(lines)
