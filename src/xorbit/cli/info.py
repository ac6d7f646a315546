"""`xorbit status`, `peers` and `ping`: what a node tells of itself and of others."""

import shutil
import sys
from typing import Annotated

import typer

from xorbit.api import connect
from xorbit.cli.options import Bootstrap, Home, Json, NetworkName, NetworkSecret, calls_at
from xorbit.cli.output import fact_columns, fact_json, finish, human_size, talk
from xorbit.core.status import PeerStatus
from xorbit.run.calls import NodeStatus, PingAnswer, whole_id

ID_DIGITS_SHOWN = 8
"""How much of an id is shown where there is no room for all of it."""


def status(home: Home = None, json: Json = False) -> None:
    """Say who and how the node is that runs on the home."""

    async def work() -> NodeStatus:
        client = await connect(home)
        try:
            return await client.status()
        finally:
            await client.close()

    found = finish(work())
    if json:
        fact_json(status_facts(found))
    else:
        fact_columns(_status_lines(found))


def status_facts(found: NodeStatus) -> dict[str, object]:
    """Return a status as JSON has it."""
    node, store = found.node, found.store
    return {
        "id": found.id.hex(),
        "network": found.network,
        "listening": [str(address) for address in found.listening],
        "addresses": [str(address) for address in node.addresses],
        "health": found.health,
        "timeout_rate": round(found.timeout_rate, 4),
        "contacts": node.contacts,
        "connections": node.connections,
        "works": node.works,
        "items": store.items,
        "bytes": store.bytes,
        "quota_bytes": store.quota_bytes,
        "requests_sent": node.requests_sent,
        "requests_answered": node.requests_answered,
        "requests_timed_out": node.requests_timed_out,
        "requests_served": node.requests_served,
        "requests_refused": node.requests_refused,
        "damaged_found": node.damaged_found,
    }


def _status_lines(found: NodeStatus) -> list[tuple[str, str]]:
    node, store = found.node, found.store
    where = ", ".join(map(str, found.listening)) or "nowhere (a client)"
    reached = ", ".join(map(str, node.addresses)) or "no address known yet"
    held = f"{human_size(store.bytes)} of {human_size(store.quota_bytes)}"
    lines = [
        ("id", found.id.hex()),
        ("network", found.network),
        ("listening", where),
        ("reached at", reached),
        ("health", f"{found.health} ({found.timeout_rate:.1%} of the last requests timed out)"),
        ("contacts", f"{node.contacts:,}"),
        ("connections", f"{node.connections:,}"),
        ("items", f"{store.items:,} ({held})"),
    ]
    if node.damaged_found:
        lines.append(("damaged", f"{node.damaged_found:,} items found damaged and dropped"))
    return lines


def peers(home: Home = None, json: Json = False) -> None:
    """List the nodes that the node on the home is connected to."""

    async def work() -> tuple[PeerStatus, ...]:
        client = await connect(home)
        try:
            return await client.peers()
        finally:
            await client.close()

    found = finish(work())
    if json:
        fact_json([_peer_facts(peer) for peer in found])
    elif found:
        fact_columns(_peer_lines(found))
    else:
        talk("no peers")


def _peer_facts(peer: PeerStatus) -> dict[str, object]:
    return {
        "id": peer.id.hex(),
        "address": str(peer.address),
        "dialled": peer.dialled,
        "round_trip_s": peer.round_trip_s,
        "waiting_for": peer.waiting_for,
        "answering": peer.answering,
        "open_s": round(peer.open_s, 3),
    }


def _peer_lines(found: tuple[PeerStatus, ...]) -> list[tuple[str, ...]]:
    """Return the table; a terminal that is narrower gets the beginnings of ids, as `ping` takes."""
    heads = ("ID", "ADDRESS", "OPENED BY", "ROUND TRIP", "WAITING", "ANSWERING", "OPEN FOR")
    lines = [heads, *map(_peer_line, found)]
    if sys.stdout.isatty() and _width(lines) > shutil.get_terminal_size().columns:
        return [(line[0][:ID_DIGITS_SHOWN], *line[1:]) for line in lines]
    return lines


def _width(lines: list[tuple[str, ...]]) -> int:
    """Return how many columns of a terminal these rows take."""
    return sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True)) - 2


def _peer_line(peer: PeerStatus) -> tuple[str, ...]:
    return (
        peer.id.hex(),
        str(peer.address),
        "us" if peer.dialled else "them",
        "-" if peer.round_trip_s is None else _milliseconds(peer.round_trip_s),
        str(peer.waiting_for),
        str(peer.answering),
        f"{peer.open_s:.0f} s",
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def ping(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A node's id, the beginning of a known node's id, or HOST:PORT.",
            show_default=False,
        ),
    ],
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Ask a node whether it is there."""

    async def work() -> PingAnswer:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            is_address = ":" in id
            return await calls.ping(id if is_address else await whole_id(calls, id, "or HOST:PORT"))

    answer = finish(work())
    observed = None if answer.observed is None else str(answer.observed)
    if json:
        fact_json(
            {
                "id": answer.id.hex(),
                "round_trip_s": answer.round_trip_s,
                "observed": observed,
                "addresses": [str(address) for address in answer.addresses],
            }
        )
    else:
        seen = f"sees us at {observed}" if observed else ""
        fact_columns([(answer.id.hex(), _milliseconds(answer.round_trip_s), seen)])
