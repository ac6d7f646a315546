"""The demo, whole: real nodes, a real picture, two holders killed; and nothing left behind."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.edge.cli_nodes import WITHIN_S, XORBIT, Deadline
from tests.edge.conftest import Command
from xorbit.cli import demo as demo_command
from xorbit.cli import swarm as swarm_module


def left_of(directory: Path) -> list[str]:
    """Return what is left of a demo in its directory, and of its processes."""
    names = [path.name for path in directory.iterdir()]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory) in process.read_text():
                names.append(process.read_text())
        except OSError:
            pass  # it has just ended
    return names


# --- With --once --------------------------------------------------------------------------------


def test_nine_nodes_hand_on_a_picture(xorbit: Command, tmp_path: Path) -> None:
    """As `make demo` runs it: every step is told, the bytes are the same, all of it is gone."""
    ran = xorbit("demo", "--once", "--home", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    steps = [line.strip() for line in ran.text.splitlines()]
    assert steps[0] == "xorbit demo: 9 real nodes on this machine"
    assert any("1200x800 WebP at quality 80" in step for step in steps)
    assert any("which fits in one block" in step for step in steps)
    [held] = [step for step in steps if step.startswith("held by ")]
    assert held.count("node ") == 5
    assert any("with SIGKILL" in step for step in steps)
    assert any("which holds nothing" in step for step in steps)
    assert any("are the same" in step for step in steps)
    assert steps[-1] == "all nodes are stopped"
    assert "\x1b" not in ran.text
    assert left_of(tmp_path) == []


def test_a_file_of_many_blocks_and_few_nodes(xorbit: Command, tmp_path: Path) -> None:
    """A file of one's own; where every node holds some of it, one that holds nothing comes."""
    file, directory = tmp_path / "file", tmp_path / "homes"
    file.write_bytes(os.urandom(500_000))
    ran = xorbit("demo", file, "--nodes", 3, "--once", "--home", directory)
    assert ran.code == 0
    assert "500,000 bytes, which does not fit in one block" in ran.text
    assert "because every other node holds something" in ran.text
    assert "all 500,000 are the same" in ran.text
    assert left_of(directory) == []


# --- When something fails -------------------------------------------------------------------------


def test_wrong_bytes_are_told(
    xorbit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the bytes differed the demo would fail and say so."""
    monkeypatch.setattr(demo_command.filecmp, "cmp", lambda *_, **__: False)
    ran = xorbit("demo", "--nodes", 3, "--once", "--home", tmp_path)
    assert ran.code == 1
    assert "differ" in ran.err.splitlines()[-1]
    assert left_of(tmp_path) == []


def test_a_node_that_does_not_start_is_told_with_its_log(
    xorbit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which node it was, what its log says, an exit code; and the others do not stay."""
    start = swarm_module.Swarm._start

    async def start_wrongly(swarm: swarm_module.Swarm, bootstrap: list[str]) -> object:
        third = len(swarm.children) == 2
        return await start(swarm, ["nowhere"] if third else bootstrap)

    monkeypatch.setattr(swarm_module.Swarm, "_start", start_wrongly)
    ran = xorbit("demo", "--nodes", 3, "--once", "--home", tmp_path)
    assert ran.code == 1
    lines = ran.err.splitlines()
    assert lines[0] == "--- the log of node 3 ends with:"
    assert "expected HOST:PORT" in ran.err
    assert lines[-1] == "xorbit: node 3 ended instead of starting"
    assert left_of(tmp_path) == []


# --- Without --once -------------------------------------------------------------------------------


class Demo:
    """A demo that stays up, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [*XORBIT, "demo", "--nodes", "3", "--home", str(directory)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def told(self, last: str) -> str:
        """Return what it says up to a line that contains `last`."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if last in line:
                return said
        raise AssertionError(said)


@pytest.mark.usefixtures("closable_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stays_up_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """It says what to try next, those commands work, and a signal ends all of it cleanly."""
    with Demo(tmp_path) as demo:
        said = demo.told("Ctrl-C stops them all")
        commands = [line.split() for line in said.splitlines() if " -m xorbit " in line]
        names = [command[3] for command in commands]
        assert names == ["status", "peers", "get", "put", "node"]
        for command in commands[:3]:
            ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
            assert ran.returncode == 0, ran.stderr
        [look] = [line.split() for line in said.splitlines() if "/from-" in line]
        assert Path(look[-1]).stat().st_size > 20_000
        assert (tmp_path / "got.webp").stat().st_size > 20_000
        (tmp_path / "got.webp").unlink()
        demo.process.send_signal(number)
        if number is signal.SIGHUP:
            demo.process.send_signal(number)  # as kernel and shell do
        assert demo.process.wait(WITHIN_S) == 0
        assert "all nodes are stopped" in demo.told("all nodes are stopped")
    assert left_of(tmp_path) == []


def test_a_node_that_is_killed_is_noticed(tmp_path: Path) -> None:
    """What the demo suggests to kill is reported, and the rest goes on."""
    with Demo(tmp_path) as demo:
        said = demo.told("Ctrl-C stops them all")
        [kill] = [line.split() for line in said.splitlines() if "kill -9 " in line]
        os.kill(int(kill[2]), signal.SIGKILL)
        assert f"(process {kill[2]}) has ended by signal 9" in demo.told("has ended")
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(WITHIN_S) == 0


def test_leaves_no_process_behind_when_it_is_killed(tmp_path: Path) -> None:
    """A demo that had no time to stop its nodes takes them with it all the same."""
    with Demo(tmp_path) as demo:
        demo.told("Ctrl-C stops them all")
        assert len(left_of(tmp_path)) > 2
    for _ in Deadline(WITHIN_S):
        if all("\0" not in name for name in left_of(tmp_path)):
            break
