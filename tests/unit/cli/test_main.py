"""How the command line behaves as a whole: help, version, errors, exit codes."""

import json
import os
import signal
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Command
from xorbit import __version__, errors
from xorbit.cli import info
from xorbit.cli.output import (
    ExitCode,
    exit_code_of,
    fact_columns,
    human_size,
    leave,
    quoted,
    stop_signals,
)

COMMANDS = ("node", "put", "get", "cid", "status", "peers", "ping", "replay", "demo")
NETWORK_COMMANDS = ("create", "admit", "join")


def test_version_is_a_fact(xorbit: Command) -> None:
    """`xorbit --version` prints name and version on stdout and nothing else."""
    ran = xorbit("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"xorbit {__version__}\n", "")


def test_without_arguments_it_explains_itself(xorbit: Command) -> None:
    """`xorbit` alone prints the help, with every command and the exit codes, and succeeds."""
    ran = xorbit()
    assert ran.code == 0
    assert all(f" {command} " in ran.out for command in (*COMMANDS, "network"))
    assert "Exit codes: 0 done" in ran.out


@pytest.mark.parametrize("command", [*COMMANDS, *(f"network {name}" for name in NETWORK_COMMANDS)])
def test_every_command_takes_a_home(xorbit: Command, command: str) -> None:
    """Every command explains itself and takes --home after its name."""
    ran = xorbit(*command.split(), "--help")
    assert ran.code == 0
    assert "--home" in ran.out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("frob", "No such command 'frob'"),
        ("put", "Missing argument 'PATH'"),
        ("get x --frob", "No such option: --frob"),
        ("network", "Missing command"),
        ("get notaname", "expected a name"),
        ("get bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa --json", "-o PATH"),
        ("put /dev/null --bootstrap nowhere", "expected HOST:PORT"),
        ("put x --hash md5", "'--hash': 'md5' is not one of"),
        ("put x --network-secret /nonexistent", "does not exist"),
        ("node --quota lots", "expected a size"),
        ("node --listen nowhere", "0 too: the system chooses"),
        ("node --listen 127.0.0.1:80:90", "a host has no colon"),
        ("key new 日本", "a-z, A-Z, 0-9"),
        ("demo --nodes 2", "3"),
        ("replay /nonexistent", "does not exist"),
        ("cid /nonexistent", "there is none at /nonexistent"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    xorbit: Command, tmp_path: Path, line: str, says: str
) -> None:
    """Wrong usage ends with code 2 and one line on stderr that says what is wrong."""
    ran = xorbit(*line.split(), *(("--home", tmp_path) if len(line.split()) > 1 else ()))
    assert ran.code == ExitCode.MISUSE
    assert ran.out == ""
    assert ran.err.startswith("xorbit: ")
    assert ran.err.count("\n") == 1
    assert says in ran.err


@pytest.mark.parametrize(
    "line",
    [
        "put",
        "cid",
        "import",
        "publish me --tree",
        "publish me --file",
        "mirror KEY",
        "cid x --home",
        "node --log-jobs",
        "key export me -o",
        "network admit KEY -o",
        "export NAME -o",
    ],
)
def test_nothing_is_no_path(xorbit: Command, line: str) -> None:
    """An empty argument, as an unset variable gives it, does not mean the current folder."""
    ran = xorbit(*line.split(), "")
    assert (ran.code, ran.out) == (ExitCode.MISUSE, "")
    assert "expected a path" in ran.err
    assert "got nothing" in ran.err


def test_a_value_from_a_file_is_checked_as_files_to_put_are(
    xorbit: Command, tmp_path: Path
) -> None:
    """What is missing, a directory or too large is wrong usage, told with its real size."""
    xorbit("key", "new", "me", "--home", tmp_path)
    (tmp_path / "large").write_bytes(bytes(100_000))
    cases = (("missing", "there is none at"), (".", "is a directory"), ("large", "has 100,000"))
    for name, says in cases:
        ran = xorbit("publish", "me", "--file", tmp_path / name, "--home", tmp_path)
        assert ran.code == ExitCode.MISUSE
        assert says in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MisuseError, 2),
        (errors.NotFoundError, 3),
        (errors.NoPeersError, 4),
        (errors.NotRunningError, 4),
        (errors.NotStoredError, 1),
        (errors.StoreError, 1),
        (errors.StoppedError, 1),
        (errors.FormatError, 1),
        (errors.WorldError, 1),
        (errors.XorbitError, 1),
        (PermissionError, 1),
        (KeyError, 70),
    ],
)
def test_exit_codes_say_what_kind_of_error_it_was(error: type[Exception], code: int) -> None:
    """Each kind of error has the exit code that the help says."""
    assert exit_code_of(error("it went wrong")) == code


def _failing(error: Exception) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail


def test_an_error_of_several_lines_is_told_in_one(
    xorbit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error's message is one line, whatever was in it, without a traceback."""
    monkeypatch.setattr(info, "connect", _failing(errors.StoreError("the disk\n  is gone")))
    ran = xorbit("status")
    assert (ran.code, ran.out, ran.err) == (1, "", "xorbit: the disk is gone\n")


def test_a_bug_is_told_as_such(xorbit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of xorbit itself has a code of its own, and one line that asks for a report."""
    monkeypatch.setattr(info, "connect", _failing(KeyError("x")))
    ran = xorbit("status")
    assert (ran.code, ran.out) == (ExitCode.BUG, "")
    assert ran.err.startswith("xorbit: an error of xorbit itself: KeyError('x')")
    assert ran.err.count("\n") == 1


def test_the_debug_variable_shows_where(xorbit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With XORBIT_DEBUG=1 the traceback comes before the line."""
    monkeypatch.setenv("XORBIT_DEBUG", "1")
    monkeypatch.setattr(info, "connect", _failing(KeyError("x")))
    ran = xorbit("status")
    assert ran.err.startswith("Traceback")
    assert ran.err.splitlines()[-1].startswith("xorbit: an error of xorbit itself")


def test_an_interrupt_has_its_own_code(xorbit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a command without an event loop ends with 130, silently."""

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("xorbit.cli.transfer.cid_of", interrupted)
    ran = xorbit("cid", __file__)
    assert (ran.code, ran.out, ran.err) == (ExitCode.INTERRUPTED, "", "")


def test_cid_names_a_file_without_a_network(xorbit: Command, tmp_path: Path) -> None:
    """`cid` prints the name alone, in either hash, as text and as JSON."""
    file = tmp_path / "hello"
    file.write_bytes(b"hello world")
    sha2 = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"  # as IPFS names it
    assert xorbit("cid", file, "--hash", "sha2-256").out == f"{sha2}\n"
    blake3 = xorbit("cid", file).out.strip()
    assert blake3.startswith("bafkr4i")
    assert json.loads(xorbit("cid", file, "--json").out) == {"cid": blake3}


def test_columns_stand_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Facts in rows are padded to columns, with nothing at the ends of lines."""
    fact_columns([("a", "bb", ""), ("ccc", "d", "e")])
    assert capsys.readouterr().out == "a    bb\nccc  d   e\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (9_999, "9,999 bytes"),
        (65_536, "65.5 kB"),
        (209_715_200, "209.7 MB"),
        (10 * 2**30, "10.7 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_told_as_people_write_them(size: int, text: str) -> None:
    """Small sizes are told exactly, larger ones in the decimal unit that fits."""
    assert human_size(size) == text


# --- Ending ---------------------------------------------------------------------------------------


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("code", "left"),
    [(ExitCode.INTERRUPTED, "\r\x1b[2K\x1b[?25h"), (ExitCode.PIPE_CLOSED, "\x1b[?25h")],
)
def test_an_end_at_once_leaves_a_terminal_tidy(
    monkeypatch: pytest.MonkeyPatch, code: ExitCode, left: str
) -> None:
    """The cursor is back and no half bar stays; what a pipe's reader has shown is not wiped."""
    terminal, codes = _Terminal(), list[int]()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setattr(os, "_exit", codes.append)
    leave(code)
    assert (codes, terminal.getvalue()) == ([code], left)


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    """Who has SIGHUP ignored when it starts goes on ignoring it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in stop_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert stop_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("trail", "trail"),
        ("file 1", "file 1"),
        ("it's", "it's"),
        ("\u00e9t\u00e9", "\u00e9t\u00e9"),
        ("trail ", "'trail '"),
        (" lead", "' lead'"),
        ("'quote'", "''\"'\"'quote'\"'\"''"),
        ("$HOME", "'$HOME'"),
        ("nl\n", r"$'nl\n'"),
        ("a'\\\t\x1b[0m\x7f", r"$'a\'\\\t\033[0m\177'"),
        ("a\u3000", r"$'a\U00003000'"),
        ("\u202etxt.exe", r"$'\U0000202etxt.exe'"),
    ],
)
def test_no_two_names_look_the_same(name: str, shown: str) -> None:
    """What is plain stands as it is; quotes around the rest are those of a shell."""
    assert quoted(name) == shown
    assert shown.isprintable()
