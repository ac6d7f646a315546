"""Pins at the command line: facts, forms and exit codes, with a node running and with none."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NETWORK, NodeProcess
from tests.edge.conftest import Command

NOBODY = "bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def put(xorbit: Command, nodes: list[NodeProcess], tmp_path: Path) -> str:
    """The name of a fresh file of two blocks, put at the first node."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    said = xorbit("put", path, "--home", nodes[0].home, "--json").json
    assert said["not_kept"] == ""
    return said["cid"]


def test_what_was_put_is_listed_until_it_is_unpinned(
    xorbit: Command, nodes: list[NodeProcess], put: str
) -> None:
    home = ("--home", nodes[0].home)
    [facts] = [it for it in xorbit("pins", *home, "--json").json if it["name"] == put]
    assert set(facts) == {"name", "kind", "bytes", "state", "put_at", "refreshed_at"}
    assert (facts["kind"], facts["bytes"], facts["state"]) == ("file", 100_000, "kept")
    for when in ("put_at", "refreshed_at"):
        age = datetime.now(UTC) - datetime.fromisoformat(facts[when])
        assert timedelta(seconds=-2) < age < timedelta(minutes=5)
    lines = xorbit("pins", *home).text.splitlines()
    assert lines[0].split() == ["NAME", "WHAT", "SIZE", "PUT", "REFRESHED"]
    [line] = [line for line in lines if line.startswith(put)]
    assert "file" in line
    assert "100.0 kB" in line
    assert xorbit("unpin", put, *home, "--json").json == {"unpinned": 3}
    assert put not in xorbit("pins", *home).text
    xorbit("unpin", put, *home).failed(3, "is not pinned here: 'xorbit pins' lists what is")


def test_a_record_is_unpinned_by_its_key_and_salt(
    xorbit: Command, nodes: list[NodeProcess]
) -> None:
    home = ("--home", nodes[1].home)
    key = xorbit("key", "new", "pins", *home, "--json").json["public_key"]
    assert xorbit("publish", "pins", "value", "--salt", "s", *home).code == 0
    [facts] = [it for it in xorbit("pins", *home, "--json").json if it["name"] == key]
    assert (facts["kind"], facts["salt"], facts["bytes"]) == ("record", "s", 5)
    assert "record (salt 's')" in xorbit("pins", *home).text
    xorbit("unpin", key, *home).failed(3, "is not pinned here")
    done = xorbit("unpin", key, "--salt", "s", *home)
    assert (done.code, done.out, done.err) == (0, b"", "1 item let go of\n")


def test_a_salt_that_is_no_text_names_a_record_as_well(
    xorbit: Command, nodes: list[NodeProcess]
) -> None:
    """A shell gives its bytes as lone surrogates; what `publish` takes is pinned and unpinned."""
    own, other = ("--home", nodes[1].home), ("--home", nodes[2].home)
    key = xorbit("key", "new", "bytes", *own, "--json").json["public_key"]
    salt = ("--salt", "s\udcff")
    assert xorbit("publish", "bytes", "value", *salt, *own).code == 0
    assert xorbit("pin", key, *salt, *other).text == f"{key}\n"
    [facts] = [it for it in xorbit("pins", *other, "--json").json if it["name"] == key]
    assert (facts["salt"], facts["salt_base64"]) == ("c/8=", True)
    assert r"record (salt b's\xff')" in xorbit("pins", *other).text
    xorbit("unpin", key, "--salt", "s", *other).failed(3, "is not pinned here")
    for home in (own, other):
        assert xorbit("unpin", key, *salt, *home).err == "1 item let go of\n"


def test_a_published_tree_is_kept_with_its_record(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Each is let go of by its name; that of a key of the home is one."""
    own, other = ("--home", nodes[0].home), ("--home", nodes[2].home)
    key = xorbit("key", "new", "tree", *own, "--json").json["public_key"]
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    cid = xorbit("publish", "tree", "--tree", path, *own, "--json").json["cid"]
    done = xorbit("pin", key, *other)
    assert (done.code, done.text) == (0, f"{key}\n")
    assert f"100.0 kB of its version 1 kept here as well, as {cid}\n" in done.err
    said = xorbit("pin", key, *other, "--json").json
    assert said["tree"] == {"name": cid, "kind": "file", "bytes": 100_000}
    names = [it["name"] for it in xorbit("pins", *other, "--json").json]
    assert {key, cid} <= set(names)
    assert xorbit("unpin", "tree", *own).err == "1 item let go of\n"
    xorbit("unpin", "tree", *own).failed(3, f"{key} is not pinned here")
    assert xorbit("unpin", cid, *own).code == 0
    xorbit("unpin", "tree", *other).failed(2, "; nor is it the name of a key here")
    assert xorbit("publish", "tree", "no tree", *own).code == 0
    assert "tree" not in xorbit("pin", "tree", *own, "--json").json


def test_a_home_without_a_node_pins_lists_and_lets_go(
    xorbit: Command, nodes: list[NodeProcess], put: str, tmp_path: Path
) -> None:
    """Only `pin` needs the network."""
    home = ("--home", tmp_path / "home")
    ways = ("--bootstrap", nodes[1].address, "--network", NETWORK)
    done = xorbit("pin", put, *home, *ways)
    assert (done.code, done.text) == (0, f"{put}\n"), done.err
    assert xorbit("pin", put, *home, *ways, "--json").json == {
        "name": put,
        "kind": "file",
        "bytes": 100_000,
    }
    [facts] = xorbit("pins", *home, "--json").json
    assert (facts["name"], facts["refreshed_at"]) == (put, None)
    assert xorbit("gc", *home).err == "0 items let go of\n"
    assert xorbit("unpin", put, *home).err == "3 items let go of\n"
    nothing = xorbit("pins", *home)
    assert (nothing.code, nothing.out, nothing.err) == (0, b"", "nothing is pinned here\n")
    assert json.loads(xorbit("pins", *home, "--json").out) == []


def test_what_nobody_has_and_what_is_no_name(xorbit: Command, nodes: list[NodeProcess]) -> None:
    home = ("--home", nodes[0].home)
    xorbit("pin", NOBODY, *home).failed(3, f"cannot get {NOBODY}: nobody has it")
    xorbit("pin", "hello", *home).failed(2, "expected a name such as")
    xorbit("unpin", NOBODY, *home).failed(3, f"{NOBODY} is not pinned here")
    xorbit("unpin", NOBODY, "--salt", "s", *home).failed(2, "only a record has a salt")
    assert NOBODY not in xorbit("pins", *home).text
