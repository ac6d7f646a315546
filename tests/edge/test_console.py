"""`xorbit console`, `xorbit trace` and `--trace` against running nodes."""

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.edge.cli_nodes import WITHIN_S, XORBIT, NodeProcess, xorbit_process
from tests.edge.conftest import Command
from xorbit.api import Node
from xorbit.blocking import open_node
from xorbit.cli.console import HISTORY_FILE
from xorbit.core.console import COMMANDS
from xorbit.errors import MisuseError
from xorbit.run.control_client import ControlClient
from xorbit.run.tracing import tracing


def typed(node: NodeProcess, *lines: str) -> tuple[int, str, str]:
    """Give lines to a console that has no terminal; return its exit code and what it said."""
    ran = xorbit_process("console", "--home", node.home, given="\n".join(lines).encode())
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


class Terminal:
    """A console in a terminal of its own, driven by what is typed."""

    def __init__(self, home: Path) -> None:
        self._leader, follower = os.openpty()
        self.process = subprocess.Popen(
            [*XORBIT, "console", "--home", str(home)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        )
        os.close(follower)
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def until(self, text: str) -> None:
        """Wait until something is shown, after what was waited for before."""
        end = time.monotonic() + WITHIN_S
        while text not in self.shown:
            ready, _, _ = select.select([self._leader], [], [], max(0, end - time.monotonic()))
            assert ready, f"never shown: {text!r} in {self.shown!r}"
            data = os.read(self._leader, 65_536).decode(errors="replace")
            if "\x1b[6n" in data:  # where is the cursor? A terminal answers that.
                os.write(self._leader, b"\x1b[1;1R")
            self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data)
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._leader)


def test_every_command_is_answered_through_the_console(nodes: list[NodeProcess]) -> None:
    """A session of every command, without a terminal: all are answered, in turn."""
    a, b, _ = nodes
    given = {
        "put": "put -t hello from the console",
        "get": "get bafkr4i",
        "publish": "publish nobody hello",
        "resolve": f"resolve {'ab' * 32}",
        "follow": "follow 12",
        "whereis": f"whereis {b.id}",
        "lookup": f"lookup {b.id[:10]}",
        "ping": f"ping {b.id}",
        "connect": f"connect {b.address}",
        "disconnect": f"disconnect {'ab' * 32}",
        "cancel": "cancel 99",
        "trace": "trace 00",
        "pin": "pin bafkr4i",
        "unpin": "unpin bafkr4i",
    }
    lines = [given.get(name, name) for name in COMMANDS if name not in ("stop", "quit")]
    code, out, err = typed(a, *lines, "quit", "never reached")
    assert code == 1
    for says in (
        "stored at 3 nodes",
        "3 closest" if len(nodes) > 3 else "2 closest",
        "is there",
        "connected: ",
        "BUCKET",
        "PER SECOND",
        f"id {a.id}",
    ):
        assert says in out, says
    for says in (
        "expected a name",
        "no key named 'nobody'",
        "nobody has it",
        "expected a public key",
        "is not connected",
        "has the number '99'",
        "expected a guid",
    ):
        assert says in err, says
    assert "never reached" not in out + err


def test_files_and_keys_are_those_of_the_console(
    nodes: list[NodeProcess], tmp_path: Path, xorbit: Command
) -> None:
    """put, get and publish of the console take the user's files and keys, at any size."""
    a, b, _ = nodes
    file, copy = tmp_path / "a file", tmp_path / "copy"
    file.write_bytes(os.urandom(200_000))
    assert xorbit("key", "new", "me", "--home", a.home).code == 0
    code, out, err = typed(
        a, f"put '{file}'", "publish me 'hello world' --salt s", "help", "help put"
    )
    assert code == 0, err
    name = re.findall(r"^baf\w+$", out, re.MULTILINE)[0]
    assert re.search(
        r"\[f2\] me: sequence 1, held by 3 nodes.*\(trace [0-9a-f]{8}\)", out, re.DOTALL
    )
    assert "put PATH | put -t TEXT" in out
    public = xorbit("key", "show", "me", "--home", a.home).text.strip()
    assert f"resolve {public} --salt s" in out
    code, out, err = typed(a, "resolve me --salt s", "publish me again --salt s --cas 7")
    assert "sequence 1, 11 bytes:\nhello world" in out
    assert code == 1
    assert "[f1] " in err
    code, out, err = typed(b, f"get {name} -o {copy}", f"get {name}", "put", "get a b c", "put 'x")
    assert copy.read_bytes() == file.read_bytes()
    assert code == 1
    assert "add -o PATH" in err
    assert err.count("usage: ") == 2


def test_a_session_in_a_terminal(nodes: list[NodeProcess], tmp_path: Path) -> None:
    """Answers come above the prompt, Tab completes, Ctrl-C ends what is in progress, Ctrl-D leaves.

    What was typed is remembered in a file that nobody else can read.
    """
    a, b, _ = nodes
    terminal = Terminal(a.home)
    try:
        terminal.until("'help' lists the commands")
        terminal.until("xorbit>")
        terminal.type("statu")
        terminal.until("u")
        terminal.type("\t")
        terminal.until("s")
        terminal.type("\r")
        terminal.until(f"id {a.id}")
        terminal.type(f"ping {b.id[:12]}\r")
        terminal.until("is there")
        terminal.type(f"follow {'ab' * 32}\r")
        terminal.until("following")
        terminal.until("xorbit>")  # in raw mode again: Ctrl-C is a key
        terminal.type("\x03")
        terminal.until("cancelled: follow")
        terminal.until("xorbit>")
        terminal.type("\x03")
        terminal.until("leaves; the node runs on")
        terminal.until("xorbit>")
        terminal.type("\x04")
        assert terminal.process.wait(WITHIN_S) == 0
    finally:
        terminal.close()
    history = a.home / HISTORY_FILE
    assert "status" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


async def test_a_console_that_leaves_ends_what_it_began_and_leaves_nothing(tmp_path: Path) -> None:
    """Closed in order or cut off: the node forgets the line, its number and its work."""
    async with Node(tmp_path, listen="127.0.0.1:0", network="console tests", mdns=False) as node:
        for closing in ("the answers", "the client", "the connection"):
            client = await ControlClient.connect(tmp_path)
            answers = client.console(f"follow {'ab' * 32}")
            number = (await anext(answers)).split("]")[0].strip("[")
            assert "Follow" in await answer(node, "work")
            if closing == "the answers":
                await answers.aclose()
            elif closing == "the connection":
                client._writer.transport.abort()  # as when its process is killed
            await client.close()
            while await answer(node, "work") != "nothing is in progress":
                pass  # the node hears of it in a moment
            with pytest.raises(MisuseError, match="nothing in progress"):
                await answer(node, f"cancel {number}")


async def answer(node: Node, line: str) -> str:
    """Return the one answer to a line."""
    return "".join([text async for text in node.console(line)])


def test_a_console_ends_with_its_node(tmp_path: Path) -> None:
    """`stop` ends the node; a console that was open all the while says that it is gone."""
    with NodeProcess(tmp_path) as node:
        command = [*XORBIT, "console", "--home", str(node.home)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as console:
            assert console.stdin is not None
            console.stdin.write(b"stop\n")
            console.stdin.flush()
            assert node.ended() == 0
            out, err = console.communicate(b"status\n", WITHIN_S)
        assert b"stopping" in out
        assert console.returncode == 1
        assert b"stopped" in err
    code, _, err = typed(node, "status")
    assert code == 4
    assert "no node runs on" in err


def test_put_and_get_show_their_trace(
    nodes: list[NodeProcess], tmp_path: Path, xorbit: Command
) -> None:
    """--trace shows each request on stderr, --json among the facts; stdout stays what it was."""
    a, _, c = nodes
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1_000))
    put = xorbit("put", file, "--home", a.home, "--trace")
    assert put.text.startswith("baf")
    assert put.text.count("\n") == 1
    assert "Put baf" in put.err
    assert "Store  Stored" in put.err
    facts = xorbit("put", file, "--home", a.home, "--trace", "--json").json["trace"]
    assert facts["operations"] == 1
    [operation] = facts["slowest"]
    assert operation["kind"] == "Put"
    assert {step["said"] for step in operation["steps"] if step["kind"] == "Store"} == {"Stored"}
    elsewhere = xorbit("trace", operation["guid"], "--home", c.home, "--json").json
    assert elsewhere["kind"] is None
    assert {step["peer"] for step in elsewhere["steps"]} == {a.id}
    assert ("disk", "Write") in {(step["direction"], step["kind"]) for step in operation["steps"]}
    here = xorbit("trace", operation["guid"][:8], "--home", a.home)
    assert operation["guid"] in here.text
    xorbit("trace", "00" * 16, "--home", a.home).failed(3, "remembers nothing")
    xorbit("trace", "zz", "--home", a.home).failed(2, "expected a guid")


def test_a_file_of_many_blocks_shows_its_slowest(
    nodes: list[NodeProcess], tmp_path: Path, xorbit: Command
) -> None:
    """All blocks are counted, the slowest are shown whole."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(700_000))
    put = xorbit("put", file, "--home", nodes[0].home, "--trace")
    assert "12 operations" in put.err
    assert "the 5 slowest:" in put.err
    got = xorbit(
        "get",
        put.text.strip(),
        "-o",
        tmp_path / "copy",
        "--home",
        nodes[2].home,
        "--trace",
        "--json",
    )
    assert got.json["trace"]["operations"] == 12
    assert len(got.json["trace"]["slowest"]) == 5


def test_records_and_lookups_show_their_trace(nodes: list[NodeProcess], xorbit: Command) -> None:
    """publish, resolve and lookup share the option; what failed is shown as well."""
    a, b, _ = nodes
    key = xorbit("key", "new", "traced", "--home", a.home, "--json").json["public_key"]
    facts = xorbit("publish", "traced", "hi", "--home", a.home, "--trace", "--json").json
    assert "Put" in {operation["kind"] for operation in facts["trace"]["slowest"]}
    found = xorbit("resolve", key, "--home", b.home, "--trace")
    assert found.out == b"hi"
    assert "Resolve" in found.err
    looked = xorbit("lookup", b.id, "--home", a.home, "--trace", "--json").json
    assert looked["contacts"][0]["id"] == b.id
    assert looked["trace"]["slowest"][0]["kind"] == "LookUp"
    missing = xorbit("resolve", "ab" * 32, "--home", b.home, "--trace")
    assert missing.code == 3
    assert "Closest" in missing.err


def test_the_blocking_node_traces_what_it_did(tmp_path: Path) -> None:
    """`tracing` gives the guids of the works that a piece of code begins, `trace` their events."""
    with open_node(tmp_path, listen="127.0.0.1:0", network="trace tests") as node:
        with tracing() as works:
            node.put_block(b"hello")
        began = len(works)
        work = works[0]
        assert {event.what for event in node.trace(work)} == {"began", "disk", "ended"}
        assert node.trace(work.hex()[:8]) == node.trace(work)
        node.put_block(b"outside")
        assert len(works) == began > 0


def test_json_of_a_trace_is_one_object(nodes: list[NodeProcess], xorbit: Command) -> None:
    looked = xorbit("lookup", nodes[1].id, "--home", nodes[0].home, "--trace", "--json")
    [shown] = looked.json["trace"]["slowest"]
    text = xorbit("trace", shown["guid"], "--home", nodes[0].home, "--json").text
    assert {"name": shown["name"], **json.loads(text)} == shown  # the same, at once and later
    assert text.count("\n") == 1
