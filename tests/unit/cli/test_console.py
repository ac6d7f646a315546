"""`xorbit console` without a terminal, and the file of what was typed before."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.cli.fake_calls import FakeCalls
from xorbit.cli import console
from xorbit.cli.lines import Lines
from xorbit.config import CONSOLE_HISTORY_BYTES_MAX
from xorbit.errors import StoppedError
from xorbit.files.seal_key import SealKey

KEY = SealKey(bytes(range(32)), is_node=True).text


async def read(fake: FakeCalls, given: bytes, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Give lines to a console that has no terminal; return whether all could be done."""
    stdin = SimpleNamespace(buffer=io.BytesIO(given))
    monkeypatch.setattr("sys.stdin", stdin)
    return await console._read_lines(Lines(fake.calls, Path()))


async def test_lines_are_done_one_after_the_other_until_the_end_or_quit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no text is no reason to stop."""
    fake = FakeCalls()
    assert await read(fake, b"status\n\xff\nQuit\nnever\n", monkeypatch)
    assert fake.lines == ["status", "\N{REPLACEMENT CHARACTER}"]
    assert capsys.readouterr().out.startswith("did status\n")
    assert await read(fake, b"peers", monkeypatch)


async def test_what_could_not_be_done_goes_to_stderr_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not await read(FakeCalls(), b"fail\nstatus\n", monkeypatch)
    said = capsys.readouterr()
    assert said.err == "xorbit: it failed\n"
    assert said.out == "did status\n"


async def test_what_is_said_of_a_mistyped_key_does_not_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where it was typed as the name of a command."""
    fake = FakeCalls()
    assert not await read(fake, f"pin a#{KEY}\nfail #{KEY[:-1]}\n#{KEY}a".encode(), monkeypatch)
    said = capsys.readouterr()
    assert said.err.count("xorbit: ") == 2
    assert KEY[:20] not in said.out + said.err
    assert fake.lines == []


async def test_a_node_that_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCalls()
    with pytest.raises(StoppedError):
        await read(fake, b"gone\nstatus\n", monkeypatch)
    assert fake.lines == ["gone"]


def test_what_was_typed_before_is_kept_private_and_not_for_ever(tmp_path: Path) -> None:
    """A history that has grown too long begins anew."""
    path = console._history(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("status\n")
    path.chmod(0o644)
    assert console._history(tmp_path).read_text() == "status\n"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"x" * (CONSOLE_HISTORY_BYTES_MAX + 1))
    assert console._history(tmp_path).read_bytes() == b""
