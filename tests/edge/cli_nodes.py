"""What the tests of the command line share: `xorbit node` processes, and commands run against them.

Commands run in this process, where their coverage is measured, or as processes of their own, where
signals, pipes and terminals matter. Everything waits for events, with a deadline.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

WITHIN_S = 40.0
XORBIT = (sys.executable, "-m", "xorbit")
NETWORK = "cli tests"


class NodeProcess:
    """A running `xorbit node`, on a loopback port that the system chooses; killed at the end."""

    def __init__(
        self,
        home: Path,
        *options: str,
        bootstrap: str = "",
        network: str = NETWORK,
        listen: str = "127.0.0.1:0",
        within: Sequence[str] = (),
        stdin: int | None = subprocess.DEVNULL,
    ) -> None:
        """Start it; `within` are the words of a command that runs it somewhere else."""
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        words = ["--home", str(home), "--listen", listen, "--network", network, "--json"]
        words += ["--bootstrap", bootstrap] if bootstrap else []
        self.log = home / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, *XORBIT, "node", *words, *options],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self.ready: dict[str, Any] = json.loads(self.line())
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        return self.ready["addresses"][0]

    @property
    def id(self) -> str:
        return self.ready["id"]

    def line(self) -> str:
        """Return the next line of its standard output."""
        out = self.process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], WITHIN_S)
        line = out.readline() if ready else b""
        assert line, f"the node said nothing; its log:\n{self.log.read_text()}"
        return line.decode()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self.process.wait(WITHIN_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def peak_bytes(self) -> int:
        """Return the most memory that it has had resident."""
        return peak_bytes(Path(f"/proc/{self.process.pid}/status").read_text())


def peak_bytes(status: str) -> int:
    """Return the most resident memory that a `/proc/PID/status` tells of."""
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def xorbit_process(*words: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own, to its end, with these bytes at its standard input."""
    command = [*XORBIT, *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, timeout=WITHIN_S, check=False)


class Deadline:
    """Iterates until a time has passed, then fails: for what can only be asked again and again."""

    def __init__(self, within_s: float) -> None:
        self._end = time.monotonic() + within_s

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> None:
        assert time.monotonic() < self._end, "it did not happen in time"


def in_terminal(
    *words: object, program: Sequence[str] = XORBIT, typed: bytes = b""
) -> tuple[int, bytes]:
    """Run a command in a terminal; return its exit code and what it showed there."""
    leader, follower = os.openpty()
    os.write(leader, typed)
    process = subprocess.Popen(
        [*program, *map(str, words)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(follower)
    shown = b""
    try:
        while select.select([leader], [], [], WITHIN_S)[0]:
            try:
                data = os.read(leader, 65_536)
            except OSError:  # Linux says EIO where the other end is closed
                break
            if not data:
                break
            shown += data
        return process.wait(WITHIN_S), shown
    finally:
        process.kill()
        process.wait()
        os.close(leader)
