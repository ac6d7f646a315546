"""Typed lines that need files and keys: done by whoever reads them, all others by the node."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from tests.unit.cli.fake_calls import FILE, LEAF, NEAR, FakeCalls
from xorbit.api import Node
from xorbit.cli.lines import Lines, TypedLines, is_own
from xorbit.config import CONSOLE_LINE_BYTES_MAX, DEFAULT_LIMITS
from xorbit.errors import MisuseError, NotStoredError
from xorbit.files.cid import Place
from xorbit.files.seal_key import SealKey
from xorbit.keys import new_key

KEY = SealKey(bytes(range(32)), is_node=True).text


class Said(list[str]):
    """What was said."""

    def __call__(self, text: str) -> None:
        self.append(text)


async def said_to(lines: Lines, line: str) -> str:
    """Do a line and return all that was said."""
    said = Said()
    await lines.do(line, said)
    return "\n".join(said)


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("put file", True),
        ("PUT 'a file'", True),
        ("put", True),
        ("put -t text", False),
        (f"get {LEAF}", False),
        (f"get {FILE}", True),
        (f"get {LEAF} -o x", True),
        ("get nonsense", False),
        ("get", False),
        ("publish me hello", True),
        ("keys", True),
        ("pins", True),
        ("unpin x", True),
        ("cancel [f1]", True),
        ("cancel 1", False),
        ("cancel", False),
        ("status", False),
        ("resolve me", False),
        (f"lookup {LEAF}#{KEY}", True),
        (f"lookup {LEAF}#{KEY[:-1]}", True),
        (f"get {LEAF}%23{KEY}", True),
        (f"put -t page.html#{KEY[:-1]}", False),
        ("", False),
    ],
)
def test_what_needs_files_and_keys_is_known_by_its_words(line: str, own: bool) -> None:
    """So does a line with a key: the node is not told it, nor most of it."""
    assert is_own(line) is own


async def test_what_the_node_does_itself_goes_to_it_as_it_was_typed(tmp_path: Path) -> None:
    fake = FakeCalls()
    assert await said_to(Lines(fake.calls, tmp_path), "put -t  two  words") == (
        "did put -t  two  words"
    )


async def test_a_file_is_put_and_got(tmp_path: Path) -> None:
    """Paths are those of a shell: quotes, spaces, ~."""
    fake, file = FakeCalls(), tmp_path / "a file"
    lines = Lines(fake.calls, tmp_path)
    text = await said_to(lines, f"put '{file}'")
    begun, text = text.split("\n", 1)
    assert begun == f"[f1] putting {file}: 'cancel f1' ends it"
    assert text == f"[f1] {file}: 5 bytes held by 1 node\n{FILE}"
    fake.holder = NEAR
    assert "held by this node only" in await said_to(lines, f"put '{file}'")
    for form in (f"get {FILE} -o '{tmp_path}/a copy'", f"get -o '{tmp_path}/a copy' {FILE}"):
        said = await said_to(lines, form)
        assert said.endswith(f"] {tmp_path}/a copy: 5 bytes written")
    await said_to(lines, f"get {LEAF} -o ~/x")
    copy, x = tmp_path / "a copy", Path.home() / "x"
    assert fake.got[1:] == [(Place(FILE), copy), (Place(LEAF), x)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("put", "usage: put PATH | put -t TEXT"),
        ("put two words", "quotes around what has spaces"),
        ("put 'open", "No closing quotation: put quotes"),
        (f"get {FILE}", "add -o PATH"),
        (f"get {FILE} -o new/", "new/ names a folder: name the new file in it"),
        ("get a b c", "usage: get NAME"),
        ("publish", "usage: publish KEYNAME"),
        ("publish me two words", "quotes around what has spaces"),
        ("publish me x --cas first", "usage: publish"),
        ("publish nobody x", "no key named 'nobody'"),
        ("keys all", "usage: keys"),
        ("pins all", "usage: pins"),
        ("pin", "usage: pin NAME"),
        ("cancel f7", "nothing in progress has the number 'f7'"),
        ("put ''", "expected a path"),
        ("resolve nobody", "or the name of a key"),
        (f"put -t {'x' * 70_000}", "a line holds at most"),
    ],
)
async def test_what_is_typed_wrongly_is_told_what_was_expected(
    tmp_path: Path, line: str, says: str
) -> None:
    fake = FakeCalls()
    with pytest.raises(MisuseError, match=says.replace("|", r"\|")):
        await Lines(fake.calls, tmp_path).do(line, Said())
    assert fake.lines == fake.published == []


async def test_what_could_not_be_done_names_its_line(tmp_path: Path) -> None:
    """Several may be in progress."""
    fake = FakeCalls()
    fake.full = True
    with pytest.raises(NotStoredError, match=r"^\[f1\] all are full"):
        await Lines(fake.calls, tmp_path).do("put x", Said())


async def test_publish_says_how_the_value_is_read(tmp_path: Path) -> None:
    fake = FakeCalls()
    key = new_key(tmp_path, "me").public_key.hex()
    lines = Lines(fake.calls, tmp_path)
    text = await said_to(lines, "publish me 'hello world'")
    assert "\n[f1] me: sequence 7, held by 2 nodes" in text
    assert text.endswith(f"\nresolve {key}")
    text = await said_to(lines, "publish --salt 'a b' me --cas 6 x")
    assert text.endswith(f"\nresolve {key} --salt 'a b'")
    assert fake.published == [("me", b"hello world", b"", None), ("me", b"x", b"a b", 6)]


async def test_what_is_published_need_be_no_text(tmp_path: Path) -> None:
    """Its bytes arrive as lone surrogates, from a prompt as from a shell."""
    fake = FakeCalls()
    new_key(tmp_path, "me")
    await said_to(Lines(fake.calls, tmp_path), "publish --salt \udcff me a\udcfe")
    assert fake.published == [("me", b"a\xfe", b"\xff", None)]


async def test_what_is_not_refreshed_from_here_is_told(tmp_path: Path) -> None:
    fake = FakeCalls()
    fake.not_kept = "no room"
    new_key(tmp_path, "me")
    for line in ("put file", "publish me hello"):
        assert "not pinned here (no room)" in await said_to(Lines(fake.calls, tmp_path), line)


async def test_what_is_kept_is_listed_and_let_go_of(tmp_path: Path) -> None:
    fake = FakeCalls()
    lines = Lines(fake.calls, tmp_path)
    assert await said_to(lines, "pins") == f"{LEAF}  4 bytes"
    assert (await said_to(lines, f"pin {LEAF}")).endswith("[f1] 4 bytes kept here")
    assert await said_to(lines, f"unpin {LEAF}") == "1 item let go of"
    assert await said_to(lines, "gc") == "2 items let go of"
    assert fake.let_go == [str(LEAF)]


async def test_a_file_under_way_is_ended_by_its_number(tmp_path: Path) -> None:
    """And it is said that it was cut off."""
    lines, said = Lines(FakeCalls().calls, tmp_path), Said()
    task = asyncio.create_task(lines.do("put endless", said))
    for _ in range(3):
        await asyncio.sleep(0)
    await lines.do("cancel f1", said)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said[1:] == ["cancelling f1", "[f1] cut off: putting endless was not done to its end"]


async def test_keys_of_the_user_go_by_their_names(tmp_path: Path) -> None:
    """Both commands reach the node with the public key; `keys` lists both."""
    fake = FakeCalls()
    lines = Lines(fake.calls, tmp_path)
    assert "xorbit key new" in await said_to(lines, "keys")
    key = new_key(tmp_path, "me").public_key.hex()
    await said_to(lines, "resolve me")
    await said_to(lines, "Follow  me  --salt s")
    await said_to(lines, f"resolve {key}")
    assert fake.lines == [f"resolve {key}", f"Follow {key} --salt s", f"resolve {key}"]
    assert await said_to(lines, "keys") == f"me  {key}"


# --- At a node's own standard input ---------------------------------------------------------------


def typed_at(fake: FakeCalls, home: Path) -> tuple[TypedLines, Said]:
    fake.home, said = home, Said()
    return TypedLines(cast("Node", fake), said), said


async def test_lines_at_a_node_run_beside_each_other_and_end_with_it(tmp_path: Path) -> None:
    fake = FakeCalls()
    typed, said = typed_at(fake, tmp_path)
    typed.do("put endless")
    typed.do("keys")
    typed.do("put 'open")
    typed.do("status")
    assert fake.lines == ["status"]
    for _ in range(3):
        await asyncio.sleep(0)
    begins = [text.split(":")[0] for text in said]
    assert sorted(begins) == ["No closing quotation", "[f1] putting endless", "none yet"]
    await typed.close()
    assert said[-1].startswith("[f1] cut off")
    typed, said = typed_at(fake, tmp_path)
    await typed.close()
    assert said == []


async def test_lines_at_a_node_are_bounded_in_number_and_length(tmp_path: Path) -> None:
    fake = FakeCalls()
    typed, said = typed_at(fake, tmp_path)
    for _ in range(DEFAULT_LIMITS.console_works_max):
        typed.do("put endless")
    typed.do("keys")
    typed.do("put -t " + "x" * CONSOLE_LINE_BYTES_MAX)
    assert said[0] == "64 commands are in progress: wait for some"
    assert said[1].startswith("a line holds at most")
    assert fake.lines == []
    await typed.close()
