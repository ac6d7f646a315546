"""mDNS on a local network of the test's own: two hosts and a cable, all of them namespaces.

Needs Linux, and a user who may make network namespaces; the tests say so where that is not given.
"""

import json
import shutil
import subprocess
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.edge.cli_nodes import WITHIN_S, XORBIT, Deadline, NodeProcess


class Host:
    """A network namespace with one address; it lives as long as the process in it."""

    def __init__(self, stack: ExitStack, *make: str) -> None:
        command = [*make, "sh", "-c", "echo made; exec cat"]
        self._keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stack.callback(self._end)
        out, errors = self._keeper.stdout, self._keeper.stderr
        assert out is not None
        assert errors is not None
        if out.readline() != b"made\n":
            pytest.skip(f"no network namespaces here: {errors.read().decode().strip()}")
        self.pid = str(self._keeper.pid)
        self.words = ("nsenter", "-t", self.pid, "-U", "-n", "--preserve-credentials")

    def _end(self) -> None:
        self._keeper.kill()
        self._keeper.wait()
        for pipe in (self._keeper.stdin, self._keeper.stdout, self._keeper.stderr):
            assert pipe is not None
            pipe.close()

    def run(self, *words: str) -> bytes:
        """Run a command here; return what it says."""
        command = [*self.words, *words]
        done = subprocess.run(command, capture_output=True, timeout=WITHIN_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def node(self, stack: ExitStack, home: Path, *options: str, network: str = "local") -> "Local":
        """Run a node here that knows no address, listening wherever this host can be reached."""
        made = NodeProcess(home, *options, network=network, listen="0.0.0.0:0", within=self.words)
        return Local(self, stack.enter_context(made))


class Local:
    """A node on such a host."""

    def __init__(self, host: Host, process: NodeProcess) -> None:
        self._host = host
        self.process = process
        self.id = process.id

    def peers(self) -> dict[str, str]:
        """Return the ids and addresses of those that it is connected to."""
        said: list[dict[str, Any]] = json.loads(
            self._host.run(*XORBIT, "peers", "--json", "--home", str(self.process.home))
        )
        return {peer["id"]: peer["address"] for peer in said}

    def until_meets(self, *others: "Local") -> None:
        for _ in Deadline(WITHIN_S):
            if {other.id for other in others} <= self.peers().keys():
                return


@pytest.fixture
def stack() -> Generator[ExitStack, None, None]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def hosts(stack: ExitStack) -> tuple[Host, Host]:
    """Return two hosts, 10.77.0.1 and 10.77.0.2, joined by a cable."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]:
        pytest.skip(f"no network namespaces here: this host has no {missing[0]}")
    left = Host(stack, "unshare", "--user", "--map-root-user", "--net")
    right = Host(stack, *left.words, "unshare", "--net")
    cable = ("cable", "type", "veth", "peer", "name", "cable")
    left.run("ip", "link", "add", *cable, "netns", right.pid)
    for host, address in ((left, "10.77.0.1/24"), (right, "10.77.0.2/24")):
        host.run("ip", "address", "add", address, "dev", "cable")
        for interface in ("lo", "cable"):
            host.run("ip", "link", "set", interface, "up")
    return left, right


def test_nodes_of_one_local_network_find_each_other_without_any_address(
    hosts: tuple[Host, Host], stack: ExitStack, tmp_path: Path
) -> None:
    """One that was told to be quiet is not found and finds nobody; nor one of another network."""
    left, right = hosts
    quiet = right.node(stack, tmp_path / "quiet", "--no-mdns")
    other = right.node(stack, tmp_path / "other", network="another")
    a = left.node(stack, tmp_path / "a")
    b = right.node(stack, tmp_path / "b")
    a.until_meets(b)
    b.until_meets(a)
    late = left.node(stack, tmp_path / "late")
    late.until_meets(a, b)
    b.until_meets(late)
    assert b.peers().keys() == {a.id, late.id}
    assert a.peers().keys() == {b.id, late.id}
    assert quiet.peers() == {}
    assert other.peers() == {}
