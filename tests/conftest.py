"""What holds for every test: hypothesis profiles, the edge marker, the coverage floors.

No fixtures of single rooms here; they stand beside the tests that use them.
"""

import io
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest
from hypothesis import settings

# A failure in CI must be the failure that anyone gets from the same commit.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

EDGE = Path(__file__).parent / "edge"

# Percent of statements and branches, held only when a run measures coverage (`make test` does).
FULL = ["*/xorbit/core/*", "*/xorbit/wire/*", "*/xorbit/items.py"]
FLOORS: list[tuple[str, list[str], list[str], float]] = [
    *((pattern.strip("*/"), [pattern], [], 100.0) for pattern in FULL),
    ("elsewhere", ["*/xorbit/*"], FULL, 85.0),
]
MISSES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `pytest tests/scripts --regenerate` write the transcripts anew, to review as a diff."""
    parser.addoption("--regenerate", action="store_true", help="write tests/scripts/*.txt anew")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the edge tests, and keep each of their files on one worker."""
    for item in items:
        if item.path.is_relative_to(EDGE):
            item.add_marker(pytest.mark.edge)
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Fail the run when a room is below its floor; pytest-cov has written its data by then."""
    result = yield
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or not _measures(config):
        return result
    misses = list(_misses())
    session.testsfailed += len(misses)
    config.stash[MISSES] = misses
    return result


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for miss in config.stash.get(MISSES, []):
        terminalreporter.write_line(f"ERROR: {miss}", red=True, bold=True)


def _measures(config: pytest.Config) -> bool:
    return bool(config.option.cov_source) and not config.option.no_cov


def _misses() -> Generator[str, None, None]:
    measured = coverage.Coverage()
    measured.load()
    for name, include, omit, floor in FLOORS:
        try:
            total = measured.report(include=include, omit=omit, file=io.StringIO())
        except coverage.exceptions.NoDataError:
            yield f"coverage of {name}: no code found there, so its floor holds nothing"
            continue
        if total < floor:
            yield f"coverage of {name} is {total:.2f} %, its floor is {floor:g} %"
