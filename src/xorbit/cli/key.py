"""`xorbit key`: the keys of the user, who signs records with them. The work is done in keys.py."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from xorbit import keys
from xorbit.api import default_home
from xorbit.cli.options import Home, Json, parse_path
from xorbit.cli.output import fact, fact_columns, fact_json, talk
from xorbit.errors import MisuseError
from xorbit.keys import UserKey

app = typer.Typer(help="The keys that you sign records with: files of the home, mode 0600.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]


@app.command()
def new(name: Name, home: Home = None, json: Json = False) -> None:
    """Make a key and print its public part, by which others read what you publish."""
    _tell(keys.new_key(home or default_home(), name), json)


@app.command("list")
def list_(home: Home = None, json: Json = False) -> None:
    """List the keys of the home: names and public parts."""
    found = keys.list_keys(home or default_home())
    if json:
        fact_json([_facts(key) for key in found])
    elif found:
        fact_columns([("NAME", "PUBLIC KEY"), *((key.name, key.public_key.hex()) for key in found)])
    else:
        talk("no keys yet: make one with 'xorbit key new NAME'")


@app.command()
def show(name: Name, home: Home = None, json: Json = False) -> None:
    """Print the public part of a key."""
    _tell(keys.load_key(home or default_home(), name), json)


@app.command()
def export(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            parser=parse_path,
            help="A new file, of mode 0600.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Print the private key to standard output.")
    ] = False,
    home: Home = None,
) -> None:
    """Copy a key, its private part and all, to a file: to use it on another machine.

    Whoever has the private key can publish in your name.
    """
    place = home or default_home()
    if output is not None:
        keys.export_key(place, name, output)
        talk(f"{output} holds the private key {name!r}: keep it secret")
    elif yes:
        sys.stdout.write(keys.private_pem(keys.load_key(place, name)).decode())
    else:
        raise MisuseError(
            "a private key is not shown by accident: write it to a file with -o PATH, "
            "or add --yes to print it"
        )


@app.command("import")
def import_(
    name: Name,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A private Ed25519 key in PEM PKCS #8, as `export` writes it.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ],
    home: Home = None,
    json: Json = False,
) -> None:
    """Take a key from a file into the home and print its public part."""
    _tell(keys.import_key(home or default_home(), name, path), json)


def _tell(key: UserKey, json: bool) -> None:
    if json:
        fact_json(_facts(key))
    else:
        fact(key.public_key.hex())


def _facts(key: UserKey) -> dict[str, str]:
    return {"name": key.name, "public_key": key.public_key.hex()}
