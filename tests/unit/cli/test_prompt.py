"""The prompt of the console: what Tab offers, and a session of keys without a terminal."""

from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tests.unit.cli.fake_calls import FAR, HERE, LEAF, NEAR, THERE, FakeCalls
from xorbit.cli.lines import Lines
from xorbit.cli.prompt import History, Prompt, Words, kinds_of
from xorbit.config import CONSOLE_SEEN_MAX
from xorbit.core.console import COMMANDS
from xorbit.files.seal_key import SealKey
from xorbit.keys import new_key

# --- Completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kinds"),
    [
        ("", ("COMMAND",)),
        ("pe", ("COMMAND",)),
        ("help ", ("COMMAND",)),
        ("help peers ", ()),
        ("frob ", ()),
        ("peers ", ()),
        ("put ", ("PATH", "-t")),
        ("put -t ", ("TEXT",)),
        ("get ", ("NAME",)),
        ("get x ", ("-o",)),
        ("get x -o ", ("PATH",)),
        ("get -o x ", ("NAME",)),
        ("get x -o y ", ()),
        ("PING ", ("ID", "HOST:PORT")),
        ("ping x ", ()),
        ("publish ", ("KEYNAME",)),
        ("publish -", ("--salt", "--cas")),
        ("publish me ", ("VALUE",)),
        ("publish me x ", ("--salt", "--cas")),
        ("publish me x --salt s ", ("--cas",)),
        ("publish me x --cas ", ("SEQ",)),
        ("follow ", ("KEY",)),
        ("cancel ", ("NUMBER",)),
        ("trace ", ("GUID",)),
    ],
)
def test_what_may_be_typed_is_what_the_usage_says(typed: str, kinds: tuple[str, ...]) -> None:
    assert kinds_of(typed.split(" ")) == kinds


async def offered(words: Words, typed: str) -> list[str]:
    """Return what the line may become."""
    completions = words.get_completions_async(Document(typed), CompleteEvent())
    return [typed[: len(typed) + it.start_position] + it.text async for it in completions]


async def test_commands_are_completed_in_any_case_with_their_help(tmp_path: Path) -> None:
    words = Words(Lines(FakeCalls().calls, tmp_path))
    assert await offered(words, "PE") == ["peers"]
    assert len(await offered(words, "")) == len(COMMANDS)
    assert await offered(words, "nothing ") == []
    assert list(words.get_completions(Document("p"), CompleteEvent())) == []


async def test_nodes_are_offered_by_id_and_by_address_as_the_node_knows_them_now(
    tmp_path: Path,
) -> None:
    """The connected come first, nobody twice."""
    fake = FakeCalls()
    words = Words(Lines(fake.calls, tmp_path))
    near, far = NEAR.hex(), FAR.hex()
    assert await offered(words, "whereis ") == [f"whereis {near}", f"whereis {far}"]
    assert await offered(words, "whereis BB") == [f"whereis {far}"]
    assert await offered(words, "connect 127") == [f"connect {THERE}", f"connect {HERE}"]
    fake.gone = True
    assert await offered(words, "whereis ") == []


async def test_names_guids_keys_and_numbers_of_earlier_answers_are_offered_latest_first(
    tmp_path: Path,
) -> None:
    words = Words(Lines(FakeCalls().calls, tmp_path))
    words.see(f"[1] storing 4 bytes as {LEAF}\n    (trace 12345678)")
    words.see(f"{'ab' * 16}  Follow\nresolve {'cd' * 32}\n'cancel 5' ends it")
    assert await offered(words, "get b") == [f"get {LEAF}"]
    assert await offered(words, "trace ") == [f"trace {'ab' * 16}", "trace 12345678"]
    assert await offered(words, "resolve c") == [f"resolve {'cd' * 32}"]
    assert await offered(words, "cancel ") == ["cancel 5"]
    words.see("(trace 12345678)")
    assert (await offered(words, "trace "))[0] == "trace 12345678"


async def test_the_users_keys_are_offered_by_name(tmp_path: Path) -> None:
    words = Words(Lines(FakeCalls().calls, tmp_path))
    new_key(tmp_path, "me")
    assert await offered(words, "publish ") == ["publish me"]
    assert await offered(words, "publish me x --s") == ["publish me x --salt"]
    assert await offered(words, "resolve m") == ["resolve me"]
    (tmp_path / "keys" / "bad.pem").write_text("no key")
    assert await offered(words, "resolve m") == []


async def test_paths_are_completed_where_a_path_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = Words(Lines(FakeCalls().calls, tmp_path))
    for line in (f"put {tmp_path}/fi", f"get x -o {tmp_path}/fi"):
        assert await offered(words, line) == [f"{line}le"]
    assert await offered(words, f"status {tmp_path}/fi") == []


async def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    words = Words(Lines(FakeCalls().calls, tmp_path))
    words.see(" ".join(f"trace {number:08x}" for number in range(CONSOLE_SEEN_MAX + 10)))
    found = await offered(words, "trace ")
    assert len(found) == CONSOLE_SEEN_MAX
    assert found[-1] == f"trace {10:08x}"


# --- A session ------------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the prompt says."""
    texts: list[str] = []
    monkeypatch.setattr("xorbit.cli.prompt.fact", texts.append)
    return texts


async def session(fake: FakeCalls, home: Path, keys: str) -> bool:
    """Type keys at a prompt, and return how it ended."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        pipe.send_text(keys)
        return await Prompt(Lines(fake.calls, home), home / "history").run()


async def test_a_session_from_the_first_line_to_the_last(tmp_path: Path, said: list[str]) -> None:
    """Lines are done in order, empty ones are none, `quit` leaves."""
    fake = FakeCalls()
    assert await session(fake, tmp_path, "status\r\rfail\r quit \rnever\r") is True
    assert fake.lines == ["status", "fail"]
    assert said[0].startswith("node aaaaaaaa of network 'test', 1 peer. 'help'")
    assert said[1:] == ["did status", "it failed"]
    assert "status" in (tmp_path / "history").read_text()


async def test_lines_with_a_key_are_not_remembered_however_it_was_mistyped(
    tmp_path: Path, said: list[str]
) -> None:
    key = SealKey(bytes(range(32)), is_node=True).text
    typed = f"get a#{key} -o b\rpin a#{key[:-1]}\rpin a%23{key.upper()}\rstatus\r"
    assert await session(FakeCalls(), tmp_path, f"{typed}\x04") is True
    history = (tmp_path / "history").read_text()
    assert "status" in history
    for text in (history, *said):
        assert key[:20] not in text.lower()


def test_a_line_that_is_no_text_is_remembered_as_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates, which no file of text can hold."""
    History(str(tmp_path / "history")).append_string("put -t a\udcff")
    assert "put -t a?" in (tmp_path / "history").read_text()


async def test_what_is_in_progress_ends_with_the_session(tmp_path: Path, said: list[str]) -> None:
    fake = FakeCalls()
    assert await session(fake, tmp_path, "wait\r\x04") is True
    assert fake.cancelled == ["wait"]
    assert said[1:] == ["did wait", "cut off: wait"]


async def test_ctrl_c_clears_the_line_then_ends_what_was_begun_last_then_says_how_to_leave(
    tmp_path: Path, said: list[str]
) -> None:
    fake = FakeCalls()
    assert await session(fake, tmp_path, "wait\rhalf\x03\x03\x03\x04") is True
    assert fake.lines == fake.cancelled == ["wait"]
    assert said[2] == "cancelled: wait"
    assert said[3].startswith("(Ctrl-D or 'quit' leaves")


async def test_a_prompt_whose_node_is_gone_says_so_and_ends(
    tmp_path: Path, said: list[str]
) -> None:
    assert await session(FakeCalls(), tmp_path, "gone\r") is False
    assert said[1:] == ["the node stopped"]
