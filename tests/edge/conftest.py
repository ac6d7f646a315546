"""What several edge tests share: commands run in this process, and three nodes to run them on."""

import json
import logging
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.edge.cli_nodes import NodeProcess
from xorbit.cli.main import execute


@dataclass
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def failed(self, code: int, says: str) -> None:
        """Assert that it failed as commands should: no facts, one line that says why."""
        assert (self.code, self.out) == (code, b""), self.err
        assert self.err.startswith("xorbit: ")
        assert self.err.count("\n") == 1
        assert says in self.err


Command = Callable[..., Ran]


@pytest.fixture
def closable_terminal() -> Generator[None, None, None]:
    """Let SIGHUP mean something to the processes of a test, even in a run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def xorbit(capfdbinary: pytest.CaptureFixture[bytes]) -> Generator[Command, None, None]:
    """Run a command line in this process, and leave its log as it was."""

    def run(*words: object) -> Ran:
        capfdbinary.readouterr()
        code = execute([str(word) for word in words])
        said = capfdbinary.readouterr()
        return Ran(code, said.out, said.err.decode())

    logger = logging.getLogger("xorbit")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield run
    logger.level, logger.propagate, logger.handlers = before


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[NodeProcess], None, None]:
    """Three nodes that know each other."""
    directory = tmp_path_factory.mktemp("nodes")
    with (
        NodeProcess(directory / "a") as a,
        NodeProcess(directory / "b", bootstrap=a.address) as b,
        NodeProcess(directory / "c", bootstrap=a.address) as c,
    ):
        yield [a, b, c]
