"""`xorbit node` from its start to its end; and commands that meet signals, pipes and terminals."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.edge.cli_nodes import (
    NETWORK,
    WITHIN_S,
    XORBIT,
    Deadline,
    NodeProcess,
    in_terminal,
    xorbit_process,
)
from tests.edge.conftest import Command
from xorbit.cli import node as node_command
from xorbit.run.control_wire import CONTROL_FILE

# --- Starting and ending a node -------------------------------------------------------------------


@pytest.mark.usefixtures("closable_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_node_runs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end it cleanly: 0, and its control file is gone."""
    with NodeProcess(tmp_path) as node:
        assert node.ready["pid"] == node.process.pid
        assert node.ready["home"] == str(tmp_path)
        assert (tmp_path / CONTROL_FILE).exists()
        node.signal(number)
        assert node.ended() == 0
    assert not (tmp_path / CONTROL_FILE).exists()
    log = node.log.read_text()
    assert f"listens at {node.address}" in log
    assert f"stopping on {number.name}" in log
    assert log.endswith("stopped\n")


def test_a_node_that_was_killed(xorbit: Command, tmp_path: Path) -> None:
    """After SIGKILL commands see that no node runs; a new start finds what was acknowledged."""
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    with NodeProcess(tmp_path / "home") as node:
        name = xorbit("put", file, "--home", node.home).out.decode().strip()
    assert (node.home / CONTROL_FILE).exists()  # it had no time to remove it
    xorbit("status", "--home", node.home).failed(4, "no node runs on")
    with NodeProcess(node.home) as again:
        assert again.id == node.id
        assert xorbit("get", name, "--home", node.home).out == b"hello"


def test_a_home_has_one_node(xorbit: Command, tmp_path: Path) -> None:
    """A second node on the same home is refused in one line that says what to do."""
    with NodeProcess(tmp_path) as node:
        ran = xorbit("node", "--home", tmp_path, "--listen", "127.0.0.1:0", "--network", NETWORK)
        ran.failed(1, "stop that node first, or give this one another --home")
        assert xorbit("status", "--home", tmp_path, "--json").json["id"] == node.id


def test_an_address_that_is_taken(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """An address that was asked for and cannot be had ends the node in one line."""
    ran = xorbit("node", "--home", tmp_path, "--listen", nodes[0].address)
    ran.failed(1, f"cannot listen at {nodes[0].address}")


def test_a_quota_is_kept_to(xorbit: Command, tmp_path: Path) -> None:
    """What does not fit is refused, with the node's own words, and nothing is acknowledged."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(200_000))
    with NodeProcess(tmp_path / "home", "--quota", "100kB") as node:
        assert xorbit("status", "--home", node.home, "--json").json["quota_bytes"] == 100_000
        xorbit("put", file, "--home", node.home).failed(1, "full")


def test_a_run_is_logged_and_replayed(xorbit: Command, tmp_path: Path) -> None:
    """What `--log-jobs` wrote is stepped through, each job with its effects."""
    file, log = tmp_path / "file", tmp_path / "jobs"
    file.write_bytes(b"hello")
    with NodeProcess(tmp_path / "home", "--log-jobs", str(log)) as node:
        assert xorbit("put", file, "--home", node.home).code == 0
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
    ran = xorbit("replay", log, "--json")
    steps = [json.loads(line) for line in ran.out.decode().splitlines()]
    [at] = [at for at, step in enumerate(steps) if step["job"]["type"] == "Store"]
    assert steps[at]["effects"][0]["type"] == "WriteStore"
    assert "Finish" in {effect["type"] for step in steps[at:] for effect in step["effects"]}
    assert node.id in ran.err


# --- Standard input of a node ---------------------------------------------------------------------


def test_lines_at_standard_input_are_commands(tmp_path: Path) -> None:
    """What is typed is answered on stdout; `stop` ends the node."""
    with NodeProcess(tmp_path, stdin=subprocess.PIPE) as node:
        keyboard = node.process.stdin
        assert keyboard is not None
        keyboard.write(b"status\n\n  \xff nonsense\nst")
        keyboard.flush()
        assert node.line() == f"id {node.id}\n"
        keyboard.write(b"op\n")
        keyboard.flush()
        assert node.ended() == 0
        assert node.process.stdout is not None
        rest = node.process.stdout.read().decode()
    assert "unknown command" in rest
    assert rest.endswith("stopping\n")


def test_files_and_keys_are_taken_at_standard_input_too(tmp_path: Path, xorbit: Command) -> None:
    """The same lines work as in `xorbit console`: whoever starts a node owns its home."""
    home, file = tmp_path / "home", tmp_path / "a file"
    file.write_bytes(b"hello")
    key = xorbit("key", "new", "me", "--home", home).text.strip()
    with NodeProcess(home, stdin=subprocess.PIPE) as node:
        keyboard, shown = node.process.stdin, node.process.stdout
        assert keyboard is not None
        assert shown is not None

        def type_line(line: str, answers: int) -> str:
            keyboard.write(f"{line}\n".encode())
            keyboard.flush()
            return "".join(shown.readline().decode() for _ in range(answers))

        put = type_line(f"put '{file}'", 3)
        assert re.fullmatch(
            r"\[f1\] putting .*\n\[f1\] .*/a file: 5 bytes held by .*\nbafk\w+\n", put
        )
        assert type_line("keys", 1) == f"me  {key}\n"
        assert "no key named 'nobody'" in type_line("publish nobody hi", 1)
        published = type_line("publish me 'hello world'", 4)
        assert "[f2] me: sequence 1, held by" in published
        assert f"\nresolve {key}\n    (trace " in published
        assert type_line("resolve me", 1) == f"[1] resolving the record of {key[:8]}\n"
        assert type_line("stop", 1)
        assert node.ended() == 0


@pytest.mark.parametrize("redirect", ["< /dev/null", "<&-", "<&- 2>&-", "< short"])
def test_a_node_in_the_background_needs_no_standard_input(tmp_path: Path, redirect: str) -> None:
    """An empty, a closed or a short standard input is no reason to end, nor a closed stderr."""
    (tmp_path / "short").write_text("help\n")
    line = f"exec {sys.executable} -m xorbit node --home . --listen 127.0.0.1:0 --json {redirect}"
    process = subprocess.Popen(
        ["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        for _ in range(3):
            ran = xorbit_process("status", "--home", tmp_path, "--json")
            assert json.loads(ran.stdout)["id"] == ready["id"]
        process.terminate()
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_node_whose_starter_died_ends(tmp_path: Path) -> None:
    """With --until-stdin-closes a node ends, cleanly, when its standard input does."""
    with NodeProcess(tmp_path, "--until-stdin-closes", stdin=subprocess.PIPE) as node:
        assert node.process.stdin is not None
        node.process.stdin.close()
        assert node.ended() == 0
    assert not (tmp_path / CONTROL_FILE).exists()


def test_a_flood_of_lines_is_taken_piece_by_piece(tmp_path: Path) -> None:
    """More lines than the queue has room for, and one without an end, do no harm."""
    flood = b"\n" * 100_000 + b"peers\n" * 2_000 + b"x" * 300_000 + b"\nstop\n"
    with NodeProcess(tmp_path, stdin=subprocess.PIPE) as node:
        out, _ = node.process.communicate(flood, WITHIN_S)
        assert node.process.returncode == 0
    lines = out.decode().splitlines()
    assert lines[:2_000] == ["no peers"] * 2_000
    assert lines[2_000].startswith("a line holds at most")
    assert lines[-1] == "stopping"


# --- A node in this process -----------------------------------------------------------------------


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Generator[int, None, None]:
    """The end of a pipe whose other end is this process's standard input."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield write


def test_the_node_command_from_its_start_to_its_end(
    xorbit: Command, tmp_path: Path, keyboard: int
) -> None:
    """It says on stdout when it is ready, answers the console, and stops when stdin ends."""
    os.write(keyboard, b"peers\n")
    os.close(keyboard)
    here = ("--home", tmp_path, "--listen", "127.0.0.1:0", "--json")
    ran = xorbit("node", *here, "--until-stdin-closes", "--quota", "1MB")
    assert ran.code == 0
    ready, answer = ran.out.decode().splitlines()
    facts = json.loads(ready)
    assert (facts["quota_bytes"], facts["pid"], facts["health"]) == (
        1_000_000,
        os.getpid(),
        "alone",
    )
    assert answer == "no peers"
    assert "standard input has ended: stopping" in ran.err
    assert ran.err.endswith("stopped\n")


def test_the_default_port_may_be_taken(
    xorbit: Command,
    nodes: list[NodeProcess],
    tmp_path: Path,
    keyboard: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the default port is taken and none was asked for, another one will do."""
    monkeypatch.setattr(node_command, "DEFAULT_LISTEN", nodes[0].address)
    monkeypatch.setattr(node_command, "ANY_PORT", "127.0.0.1:0")
    os.write(keyboard, b"stop\n")
    ran = xorbit("node", "--home", tmp_path, "--json")
    os.close(keyboard)
    assert ran.code == 0
    ready, answer = ran.out.decode().splitlines()
    assert json.loads(ready)["addresses"] != [nodes[0].address]
    assert answer == "stopping"
    assert "is taken" in ran.err
    assert "as typed at the console" in ran.err


def test_a_second_sigint_ends_it_at_once(
    xorbit: Command, tmp_path: Path, keyboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first SIGINT stops it cleanly; if that takes too long, the second leaves at once."""
    left: list[int] = []

    async def slow_stop(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in Deadline(WITHIN_S):
            if left:
                break
            await asyncio.sleep(0)
        await stop(self)

    stop = node_command.Node.stop
    monkeypatch.setattr(node_command.Node, "stop", slow_stop)
    monkeypatch.setattr(node_command, "leave", left.append)
    monkeypatch.setattr(
        node_command.Node, "ended", lambda _: os.kill(os.getpid(), signal.SIGINT) or _forever()
    )
    ran = xorbit("node", "--home", tmp_path, "--listen", "127.0.0.1:0")
    os.close(keyboard)
    assert ran.code == 0
    assert left == [130]
    assert "stopping on SIGINT" in ran.err


async def _forever() -> None:
    await asyncio.Event().wait()


# --- Signals, pipes and terminals -----------------------------------------------------------------


def test_whoever_reads_may_have_enough(nodes: list[NodeProcess], tmp_path: Path) -> None:
    """A reader that closes its end of the pipe ends the command silently, as SIGPIPE would."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1_000_000))
    name = xorbit_process("put", file, "--home", nodes[0].home).stdout.decode().strip()
    process = subprocess.Popen(
        [*XORBIT, "get", name, "--home", str(nodes[0].home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(10) == file.read_bytes()[:10]
    process.stdout.close()
    _, err = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("words", ["--help", "put --help", "--version", ""])
def test_nobody_may_read_the_help(words: str) -> None:
    """Help that nobody reads to its end ends as any other command does, silently."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [*XORBIT, *words.split()]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.usefixtures("closable_terminal")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_put_that_waits_for_a_pipe_can_be_ended(
    xorbit: Command, nodes: list[NodeProcess], number: int, code: int
) -> None:
    """A signal ends a command even while it waits for bytes that never come."""
    before = xorbit("status", "--home", nodes[0].home, "--json").json["items"]
    process = subprocess.Popen(
        [*XORBIT, "put", "-", "--home", str(nodes[0].home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(os.urandom(4_000_000))
        process.stdin.flush()
        for _ in Deadline(WITHIN_S):
            if xorbit("status", "--home", nodes[0].home, "--json").json["items"] > before + 20:
                break
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, said.decode()) == (
            code,
            LEFT.format("put", "goes on from there"),
        )
    finally:
        process.kill()
        process.communicate()


LEFT = "what was put so far stays pinned here: the same {} {}, 'xorbit gc' lets go of it\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("put", LEFT.format("put", "goes on from there")),
        ("put --encrypt", LEFT.format("put", "begins anew, under a new key")),
        ("publish large --tree", LEFT.format("publish", "goes on from there")),
    ],
    ids=["put", "private", "publish"],
)
def test_a_put_that_is_interrupted_says_what_is_left(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path, words: str, said: str
) -> None:
    """One line on how to go on and how to let go; and that is so: there are pins to let go of."""
    file, home = tmp_path / "file", ("--home", str(nodes[0].home))
    file.write_bytes(os.urandom(64_000_000))
    xorbit("key", "new", "large", *home)
    before = xorbit("status", *home, "--json").json["items"]
    process = subprocess.Popen(
        [*XORBIT, *words.split(), str(file), *home], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        for _ in Deadline(WITHIN_S):
            if xorbit("status", *home, "--json").json["items"] > before + 20:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN_S)
        assert (process.returncode, out, err.decode()) == (130, b"", said)
        assert xorbit("gc", *home, "--json").json["unpinned"] > 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("words", ["put", "import", "publish pipes --tree"])
def test_a_command_that_waits_for_a_named_pipe_can_be_ended(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path, words: str
) -> None:
    """The first signal ends whoever waits for bytes of a named pipe that never come."""
    pipe, home = tmp_path / "pipe", ("--home", str(nodes[0].home))
    os.mkfifo(pipe)
    xorbit("key", "new", "pipes", *home)
    process = subprocess.Popen([*XORBIT, *words.split(), str(pipe), *home], stderr=subprocess.PIPE)
    try:
        writer = None
        for _ in Deadline(WITHIN_S):
            with suppress(OSError):  # nobody waits at the other end yet
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                break
        assert writer is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 143
        os.close(writer)
    finally:
        process.kill()
        process.communicate()


def test_a_terminal_sees_progress_and_is_spared_binary(
    nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """On a terminal: a bar, facts as ever, text as it is, other bytes only when insisted on."""
    text, binary = tmp_path / "text", tmp_path / "binary"
    text.write_bytes(b"hello, terminal")
    binary.write_bytes(b"\0\1\2binary")
    names = []
    for file in (text, binary):
        code, shown = in_terminal("put", file, "--home", nodes[0].home)
        assert code == 0
        assert b"put " in shown
        names.append(shown.decode().split()[-1])
    here = ("--home", nodes[1].home)
    code, shown = in_terminal("get", names[0], *here)
    assert (code, b"hello, terminal" in shown) == (0, True)
    code, shown = in_terminal("get", names[1], *here)
    assert (code, b"\0\1\2binary" in shown) == (2, False)
    assert b"-o -" in shown
    code, shown = in_terminal("get", names[1], *here, "-o", "-")
    assert (code, b"\0\1\2binary" in shown) == (0, True)
