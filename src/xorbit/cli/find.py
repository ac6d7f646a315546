"""`xorbit whereis`, `fingers` and `lookup`: where nodes are in the network."""

from typing import Annotated

import typer

from xorbit.api import connect
from xorbit.cli.options import Bootstrap, Home, Json, NetworkName, NetworkSecret, calls_at
from xorbit.cli.output import fact, fact_columns, fact_json, finish, talk
from xorbit.cli.tracing import Recorder, Trace
from xorbit.core.status import FingerStatus
from xorbit.ids import Id, distance
from xorbit.items import ConnectionItem, Contact
from xorbit.run.calls import whole_id

NodeId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="An id, or the beginning of that of a known node.", show_default=False
    ),
]


def whereis(
    id: NodeId,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say where a node is now: its addresses, as it signed them itself."""

    async def work() -> tuple[Id, ConnectionItem]:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            wanted = await whole_id(calls, id)
            return wanted, await calls.whereis(wanted)

    wanted, found = finish(work())
    addresses = [str(address) for address in found.addresses]
    if json:
        fact_json(
            {
                "id": wanted.hex(),
                "public_key": found.public_key.hex(),
                "seq": found.seq,
                "addresses": addresses,
            }
        )
    else:
        for address in addresses:
            fact(address)
        if not addresses:
            talk("that node is a client: it listens nowhere")


def fingers(home: Home = None, json: Json = False) -> None:
    """List the fingers of the node on the home: the nearest contact to each point `id ^ 2^i`."""

    async def work() -> tuple[FingerStatus, ...]:
        client = await connect(home)
        try:
            return await client.fingers()
        finally:
            await client.close()

    found = finish(work())
    if json:
        fact_json([_finger_facts(finger) for finger in found])
    elif found:
        heads = ("BUCKET", "CONTACT", "ADDRESS", "CONNECTED")
        fact_columns([heads, *map(_finger_line, found)])
    else:
        talk("no fingers: this node knows nobody yet")


def lookup(
    id: NodeId,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Find the nodes whose ids are closest to an id, closest first."""
    recorder = Recorder(trace, json)

    async def work() -> tuple[Id, tuple[Contact, ...]]:
        async with calls_at(home, bootstrap, network, network_secret) as calls:
            wanted = await whole_id(calls, id)
            async with recorder.at(calls, f"lookup {wanted.hex()}"):
                return wanted, await recorder.watch("", calls.lookup(wanted))

    wanted, found = finish(work())
    if json:
        contacts = [
            {**_contact_facts(contact), "distance_bits": distance(wanted, contact.id).bit_length()}
            for contact in found
        ]
        fact_json({"contacts": contacts, **recorder.facts()} if trace else contacts)
    elif found:
        fact_columns([("ID", "ADDRESSES"), *map(_contact_line, found)])
    else:
        talk("no other node is known")


def _contact_facts(contact: Contact) -> dict[str, object]:
    return {"id": contact.id.hex(), "addresses": [str(address) for address in contact.addresses]}


def _contact_line(contact: Contact) -> tuple[str, str]:
    return contact.id.hex(), ", ".join(map(str, contact.addresses))


def _finger_facts(finger: FingerStatus) -> dict[str, object]:
    return {
        "index": finger.index,
        "point": finger.point.hex(),
        **_contact_facts(finger.contact),
        "connected": finger.connected,
    }


def _finger_line(finger: FingerStatus) -> tuple[str, ...]:
    who, where = _contact_line(finger.contact)
    return str(finger.index), who, where, "yes" if finger.connected else "no"
