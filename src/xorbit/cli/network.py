"""`xorbit network`: run a managed network, or join one. The work is done in identity.py."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import default_home, open_calls, settle_network
from xorbit.cli.options import Bootstrap, Home, Json, parse_path
from xorbit.cli.output import fact, fact_json, finish, talk
from xorbit.errors import MisuseError, WorldError
from xorbit.identity import (
    NodeKey,
    admit_node,
    create_network,
    install_membership,
    load_authority,
)
from xorbit.keys import UserKey
from xorbit.run import revoked
from xorbit.run.calls import id_from
from xorbit.run.loop import run
from xorbit.run.publish import PublishReceipt

app = typer.Typer(help="Run a managed network: an operator admits its nodes one by one.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network's name.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a managed network; the home keeps the key of its authority, and is its first member.

    A home that has been used in another network is refused.
    """
    place = home or default_home()
    run(settle_network(place))
    made = create_network(place, name)
    authority = made.authority_key.hex()
    if json:
        fact_json({"network": name, "authority": authority, "home": str(place)})
    else:
        talk(f"network {name!r} is run from {place}; keep its authority.key safe and secret")
        talk(f"{place} is a member itself: 'xorbit node' on it runs in network {name!r}")
        fact(authority)


@app.command()
def admit(
    public_key: Annotated[
        str, typer.Argument(metavar="PUBLIC_KEY", help="What `xorbit network join` printed there.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            parser=parse_path,
            help="Where to write it.",
            show_default="standard output",
        ),
    ] = None,
    home: Home = None,
) -> None:
    """Admit a node to the network that is run from the home; print its membership file.

    The file holds nothing secret: only the node with that key can use it. A node that has been
    revoked is refused.
    """
    membership = _admit(home or default_home(), _public_key(public_key))
    if output is None:
        sys.stdout.write(membership.decode())
        return
    try:
        output.write_bytes(membership)
    except OSError as error:
        raise WorldError(f"cannot write {output}: {error.strerror}") from error
    talk(f"give {output} to the node; there, run: xorbit network join {output.name}")


def _admit(place: Path, public_key: bytes) -> bytes:
    """Admit a node, unless it has been revoked, and write down that it has been admitted."""
    name, authority = load_authority(place)
    membership = admit_node(place, public_key)
    if revoked.is_listed(place, authority.public_key, public_key):
        raise MisuseError(
            f"network {name!r} has revoked this node, for good: it may come back with a new key "
            "only, from a new home (there: xorbit network join --home NEW_HOME)"
        )
    revoked.note_admitted(place, public_key)
    return membership


def _public_key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise MisuseError(f"expected a public key in hexadecimal digits, got {text!r}") from error


@app.command()
def revoke(
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE_ID_OR_PUBLICKEY",
            help="The node's id (`xorbit peers` shows it) or its public key.",
            show_default=False,
        ),
    ],
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Turn a node out of the network that is run from the home, for good.

    The list of revoked nodes is a record that every node of the network follows: within seconds
    they close their connections to that node, and take no new ones. It is put on the list whether
    or not it has been admitted from this home; where it never was, that is said.
    """
    place = home or default_home()
    gone = id_from(node)
    name, authority = load_authority(place)

    async def work() -> PublishReceipt | None:
        async with open_calls(place, bootstrap=bootstrap or (), network=name) as calls:
            return await revoked.revoke(calls, UserKey(authority.signing_key), gone, place)

    if not revoked.was_admitted(place, gone):
        talk("never admitted from here, as far as this home knows; revoking it all the same")
    receipt = finish(work())
    if json:
        holders = [holder.hex() for holder in receipt.holders] if receipt else None
        fact_json({"revoked": gone.hex(), "new": receipt is not None, "holders": holders or []})
    elif receipt is None:
        talk("that node has been revoked already")
    else:
        count = len(receipt.holders)
        hold = "1 node holds" if count == 1 else f"{count} nodes hold"
        talk(f"revoked; {hold} the list (version {receipt.seq})")


@app.command()
def join(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The membership file that the operator made for this node.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Join a managed network; without FILE, print the public key to send to its operator.

    A home that has been used in another network is refused.
    """
    place = home or default_home()
    if file is None:
        key = NodeKey.load_or_create(place).public_key.hex()
        talk(f"send this key to the operator, who runs: xorbit network admit {key}")
        if json:
            fact_json({"public_key": key})
        else:
            fact(key)
        return
    run(settle_network(place))
    joined = install_membership(place, file.read_bytes())
    if json:
        fact_json({"network": joined.name, "authority": joined.authority_key.hex()})
    else:
        talk(f"the node on {place} belongs to network {joined.name!r} from its next start on")
