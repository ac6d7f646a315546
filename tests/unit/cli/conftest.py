"""What the tests of commands share: commands run in this process, and leave its log as it was."""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

import pytest

from xorbit.cli.main import execute


@dataclass
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _log() -> Generator[None, None, None]:
    logger = logging.getLogger("xorbit")
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield
    logger.level, logger.propagate, logger.handlers = before


@pytest.fixture
def xorbit(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process."""

    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = execute([str(word) for word in words])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return run
