"""Records and ways at the command line, against real nodes: facts, forms, exit codes."""

import json
import os
import signal
import subprocess
import threading
from base64 import b64decode
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NETWORK, WITHIN_S, XORBIT, Deadline, NodeProcess, xorbit_process
from tests.edge.conftest import Command
from xorbit.items import Record, check


@pytest.fixture
def key(xorbit: Command, nodes: list[NodeProcess], tmp_path: Path) -> str:
    """The public key of a fresh key; its name is the last part of it, in the home of the first."""
    name = f"key-{os.urandom(4).hex()}"
    made = xorbit("key", "new", name, "--home", nodes[0].home, "--json").json
    assert made["name"] == name
    return made["public_key"]


def name_of(xorbit: Command, home: Path, public_key: str) -> str:
    listed = xorbit("key", "list", "--json", "--home", home).json
    return next(key["name"] for key in listed if key["public_key"] == public_key)


def test_what_is_published_at_one_is_resolved_at_another(
    xorbit: Command, nodes: list[NodeProcess], key: str
) -> None:
    """A receipt, and everything that proves the record."""
    name = name_of(xorbit, nodes[0].home, key)
    receipt = xorbit("publish", name, "hellö", "--home", nodes[0].home, "--json").json
    assert set(receipt) == {"public_key", "salt", "seq", "holders", "receipts", "not_kept"}
    assert (receipt["public_key"], receipt["salt"], receipt["seq"]) == (key, "", 1)
    assert set(receipt["holders"]) == {node.id for node in nodes}
    assert {said["outcome"] for said in receipt["receipts"]} == {"stored"}
    found = xorbit("resolve", key, "--home", nodes[1].home, "--json").json
    assert set(found) == {"public_key", "salt", "seq", "value", "signature"}
    assert (found["seq"], found["value"]) == (1, "hellö")
    check(Record(bytes.fromhex(key), 1, "hellö".encode(), bytes.fromhex(found["signature"])))
    plain = xorbit("publish", name, "two", "--home", nodes[0].home)
    assert plain.text.startswith(f"version 2 of {key} held by 3 nodes")
    assert plain.err == "held by 3 nodes, this one among them\n"
    assert xorbit("resolve", name, "--home", nodes[0].home).out == b"two"


def test_a_version_is_published_right_after_two_of_five_nodes_were_killed(
    xorbit: Command, nodes: list[NodeProcess], key: str, tmp_path: Path
) -> None:
    """Those left still name them, and their silence might be another writer's win."""
    name = name_of(xorbit, nodes[0].home, key)
    more = [NodeProcess(tmp_path / f"{n}", bootstrap=nodes[0].address) for n in range(2)]
    try:
        assert xorbit("publish", name, "one", "--home", nodes[0].home).code == 0
    finally:
        for node in more:
            node.kill()
    published = xorbit("publish", name, "two", "--home", nodes[0].home)
    assert published.code == 0, published.err
    assert published.text.startswith(f"version 2 of {key} held by 3 nodes")


def test_salts_files_and_bytes_that_are_no_text(
    xorbit: Command, nodes: list[NodeProcess], key: str, tmp_path: Path
) -> None:
    """A file's bytes come back as they were; JSON has them in base64 and says so."""
    name = name_of(xorbit, nodes[0].home, key)
    data = bytes(range(256)) * 234
    (tmp_path / "file").write_bytes(data)
    words = ("publish", name, "--file", tmp_path / "file", "--salt", "naïve")
    assert xorbit(*words, "--home", nodes[0].home).code == 0
    found = xorbit("resolve", key, "--salt", "naïve", "--home", nodes[2].home, "--json").json
    assert (found["salt"], found["base64"]) == ("naïve", True)
    assert b64decode(found["value"]) == data
    assert xorbit("resolve", key, "--salt", "naïve", "--home", nodes[2].home).out == data
    piped = xorbit_process("publish", name, "--file", "-", "--home", nodes[0].home, given=b"piped")
    assert piped.returncode == 0, piped.stderr
    assert xorbit("resolve", key, "--home", nodes[1].home).out == b"piped"


def test_a_writer_who_comes_too_late_ends_with_code_5(
    xorbit: Command, nodes: list[NodeProcess], key: str
) -> None:
    """Also told by --help; nothing is changed."""
    name = name_of(xorbit, nodes[0].home, key)
    home = ("--home", nodes[0].home)
    assert xorbit("publish", name, "one", "--cas", 0, *home).code == 0
    xorbit("publish", name, "other", "--cas", 0, *home).failed(5, "somebody else was faster")
    assert xorbit("publish", name, "two", "--cas", 1, *home, "--json").json["seq"] == 2
    assert xorbit("resolve", key, *home).out == b"two"
    assert "5 another writer was faster" in " ".join(xorbit("--help").text.split())


def test_what_is_wrong_is_said(xorbit: Command, nodes: list[NodeProcess], key: str) -> None:
    name = name_of(xorbit, nodes[0].home, key)
    home = ("--home", nodes[0].home)
    xorbit("resolve", key, *home).failed(3, f"the record under {key}: nobody has it: ")
    xorbit("cat", key, "--salt", "s", *home).failed(3, f"under {key} with salt 's': nobody has it")
    xorbit("resolve", "nobody", *home).failed(2, "expected a public key")
    xorbit("publish", "nobody", "x", *home).failed(2, "xorbit key new nobody")
    xorbit("publish", name, *home).failed(2, "name what to publish")
    xorbit("publish", name, "x", "--file", "y", *home).failed(2, "name what to publish")
    xorbit("publish", name, "x" * 60_001, *home).failed(2, "60,000 bytes")
    xorbit("publish", name, "x", "--salt", "s" * 65, *home).failed(2, "64 bytes")
    xorbit("publish", name, "--file", "/nowhere", *home).failed(2, "/nowhere")
    xorbit("publish", name, "x", "--cas", -1, *home).failed(2, "--cas")
    xorbit("publish", name, "x", "--cas", 999, *home).failed(5, "a version that nobody holds")
    xorbit("whereis", "ab" * 32, *home).failed(3, f"where node {'ab' * 32} is: nobody has it")
    for command in ("whereis", "lookup"):
        xorbit(command, "127.0.0.1:1", *home).failed(2, "expected a node's id")
        assert xorbit(command, nodes[1].id[:12], *home).code == 0
        xorbit(command, "zz", *home).failed(2, "give a whole id (64 hexadecimal digits)")


def test_without_a_node_on_the_home_a_client_does_it(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """Another machine with the same key, and nothing running there."""
    home = ("--home", tmp_path / "home")
    way = ("--bootstrap", nodes[0].address, "--network", NETWORK)
    key = xorbit("key", "new", "me", *home).text.strip()
    xorbit("publish", "me", "x", "--network", NETWORK, *home).failed(4, "--bootstrap")
    assert xorbit("publish", "me", "from afar", *home, *way).code == 0
    assert xorbit("resolve", key, "--home", nodes[1].home).out == b"from afar"
    assert xorbit("resolve", "me", *home, *way).out == b"from afar"
    found = xorbit("lookup", nodes[1].id, *home, *way, "--json").json
    assert found[0]["id"] == nodes[1].id


@pytest.mark.parametrize("form", ["text", "json"])
def test_follow_prints_a_line_for_each_change(
    xorbit: Command, nodes: list[NodeProcess], key: str, form: str
) -> None:
    """At once, also into a pipe, until it is told to end."""
    name = name_of(xorbit, nodes[0].home, key)
    xorbit("publish", name, "one\ntwo", "--home", nodes[0].home)
    words = ["follow", key, "--home", str(nodes[1].home), *(["--json"] if form == "json" else [])]
    process = subprocess.Popen([*XORBIT, *words], stdout=subprocess.PIPE)
    guard = threading.Timer(WITHIN_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        xorbit("publish", name, "three", "--home", nodes[2].home)  # has no such key
        xorbit("publish", name, b"\xff".decode(errors="surrogateescape"), "--home", nodes[0].home)
        second = process.stdout.readline().decode()
        if form == "json":
            assert (json.loads(first)["seq"], json.loads(first)["value"]) == (1, "one\ntwo")
            assert (json.loads(second)["seq"], json.loads(second)["base64"]) == (2, True)
        else:
            assert first == "1  one\\ntwo\n"
            assert second.startswith("2  (1 bytes that are no text")
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN_S) == 130
    finally:
        guard.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def test_follow_says_that_there_is_nothing_yet(nodes: list[NodeProcess], tmp_path: Path) -> None:
    """And, of a node that knows nobody, that nobody can be asked."""
    nothing = "5a" * 32
    with NodeProcess(tmp_path / "alone", network="nobody else's") as alone:
        for home, lines in ((nodes[0].home, 1), (alone.home, 2)):
            words = [*XORBIT, "follow", nothing, "--home", str(home)]
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            guard = threading.Timer(WITHIN_S, process.kill)
            guard.start()
            try:
                assert process.stderr is not None
                said = [process.stderr.readline().decode() for _ in range(lines)]
                assert said[0] == f"following {nothing}; there is no version yet\n"
                assert "no other node is reachable" in said[-1] or lines == 1
                process.send_signal(signal.SIGINT)
                assert process.wait(WITHIN_S) == 130
            finally:
                guard.cancel()
                process.kill()
                process.wait()
                process.stderr.close()


# --- Ways -----------------------------------------------------------------------------------------


def test_every_node_is_found_by_its_id(xorbit: Command, nodes: list[NodeProcess]) -> None:
    """Where it is, as it signed it itself; the looked up is the closest to itself."""
    for asking in nodes:
        for wanted in nodes:
            for _ in Deadline(20.0):
                ran = xorbit("whereis", wanted.id, "--json", "--home", asking.home)
                if ran.code == 0:
                    break
            assert wanted.address in ran.json["addresses"]
            assert set(ran.json) == {"id", "public_key", "seq", "addresses"}
            assert wanted.address in xorbit("whereis", wanted.id, "--home", asking.home).text
            if wanted is not asking:
                found = xorbit("lookup", wanted.id, "--json", "--home", asking.home).json
                assert (found[0]["id"], found[0]["distance_bits"]) == (wanted.id, 0)
                assert wanted.id in xorbit("lookup", wanted.id, "--home", asking.home).text


def test_fingers_name_contacts(xorbit: Command, nodes: list[NodeProcess]) -> None:
    home = ("--home", nodes[0].home)
    found = xorbit("fingers", "--json", *home).json
    assert found
    for finger in found:
        assert set(finger) == {"index", "point", "id", "addresses", "connected"}
        assert finger["id"] in {node.id for node in nodes[1:]}
        assert int(finger["point"], 16) == int(nodes[0].id, 16) ^ (1 << finger["index"])
    assert found[0]["id"] in xorbit("fingers", *home).text
