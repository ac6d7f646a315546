"""Transcripts: a node's jobs in and effects out as plain text, readable enough to be reviewed.

Guids and ids get short names in the order of their appearance, times are milliseconds since the
script began, contents are shown by their size. What a transcript leaves out, it names at its top.
"""

import re
from collections.abc import Iterable

import msgspec

from tests.world import Node, World
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.items import Address, Block, Contact, ItemKey, Kind
from xorbit.wire.message import Envelope

WIDTH = 100


class Names:
    """Stable short names: nodes by their letter, guids by number in order of appearance."""

    def __init__(self, world: World) -> None:
        self._nodes = {node.id: chr(ord("A") + at) for at, node in enumerate(world.nodes)}
        self._where = {node.address: f"@{self._nodes[node.id]}" for node in world.nodes}
        self._guids: dict[bytes, str] = {}
        self._ids: dict[bytes, str] = {}

    def of_guid(self, guid: bytes) -> str:
        return self._guids.setdefault(guid, f"#{len(self._guids) + 1}")

    def of_id(self, id: bytes) -> str:
        known = self._nodes.get(id)  # pyright: ignore[reportArgumentType]
        return known or self._ids.setdefault(id, f"id{len(self._ids) + 1}")

    def of_address(self, address: Address) -> str:
        return self._where.get(address) or str(address)

    def show(self, value: object) -> str:
        """Return a value in one line."""
        match value:
            case bytes():
                return self._bytes(value)
            case Kind():
                return value.name
            case Address():
                return self.of_address(value)
            case Contact(id, addresses):
                return f"{self.of_id(id)}{''.join(map(self.of_address, addresses))}"
            case ItemKey(kind, id):
                return f"{kind.name}:{self.of_id(id)}"
            case Block(data=data):
                return f"Block({len(data)} bytes)"
            case Envelope(guid, work, body):
                origin = "" if guid == work else f" for {self.of_guid(work)}"
                return f"{self.of_guid(guid)}{origin} {self.show(body)}"
            case msgspec.Struct():
                return f"{type(value).__name__}({self._fields(value)})"
            case tuple() | list():
                return f"[{', '.join(self.show(part) for part in value)}]"
            case float():
                return f"{value:.3f}"
            case str():
                return re.sub(r"\b[0-9a-f]{64}\b", self._in_text, value)
            case _:
                return str(value)

    def _in_text(self, found: re.Match[str]) -> str:
        return self.of_id(bytes.fromhex(found.group()))

    def _bytes(self, value: bytes) -> str:
        if len(value) == 16:
            return self.of_guid(value)
        return self.of_id(value) if len(value) == 32 else f"<{len(value)} bytes>"

    def _fields(self, value: msgspec.Struct) -> str:
        fields: list[str] = []
        for info in msgspec.structs.fields(value):
            part = getattr(value, info.name)
            if part != info.default and info.name != "size":
                fields.append(f"{info.name}={self.show(part)}")
        return ", ".join(fields)


def transcript(
    world: World, nodes: Iterable[Node], began: float, leave_out: tuple[type, ...] = ()
) -> str:
    """Return what these nodes stepped since a time, all in one order of time.

    Steps of a kind in `leave_out` are left out when they had no effect.
    """
    names = Names(world)
    steps = [
        (when, order, node, job, effects)
        for order, node in enumerate(nodes)
        for when, job, effects in node.log
        if when >= began and (effects or not isinstance(job, leave_out))
    ]
    lines: list[str] = []
    for when, _, node, job, effects in sorted(steps, key=lambda step: step[:2]):
        at = f"{(when - began) * 1000:8.1f} ms  {names.of_id(node.id)}"
        lines += _wrapped(f"{at}  ", names.show(job))
        for effect in effects:
            if not isinstance(effect, fx.Report) or effect.level != "debug":
                lines += _wrapped(f"{'':11}     -> ", names.show(effect))
    return "\n".join(lines) + "\n"


def _wrapped(start: str, text: str) -> list[str]:
    """Return a line, what is too long for it continued below."""
    room = WIDTH - len(start)
    lines: list[str] = []
    rest = text
    while len(rest) > room and (cut := rest.rfind(" ", 0, room)) > 0:
        lines.append(rest[:cut])
        rest = rest[cut + 1 :]
    lines.append(rest)
    indent = " " * (len(start) + 4)
    return [start + lines[0], *(indent + line for line in lines[1:])]


QUIET = (jobs.Tick, jobs.ConnectionMaintenance, jobs.StoreRead)
