"""The local socket: who gets in, and what the file that leads to it says."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.edge.control_help import NETWORK, QUICK, WITHIN_S, client_of, serving, soon
from xorbit import errors
from xorbit.config import DEFAULT_LIMITS
from xorbit.run import control_wire as wire
from xorbit.run.control_client import ControlClient
from xorbit.wire.frame import frame


async def answer_to(port: int, first: bytes, *, ends: bool = False) -> bytes:
    """Return everything that the server says to these first bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(first)
        if ends:
            writer.write_eof()
        return await soon(reader.read())
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


# --- Who gets in --------------------------------------------------------------------------------


def shown(message: object) -> bytes:
    return frame(wire.encode(message))


@pytest.mark.parametrize(
    "first",
    [
        shown(wire.Hello(bytes(32))),
        shown(wire.Hello(wire.proof("00" * 32, "client"))),
        shown(wire.AskStatus(1)),
        shown([1, b"short"]),
        shown("hello"),
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        (257).to_bytes(4, "big") + bytes(257),
        (0).to_bytes(4, "big"),
        (2**32 - 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x05\xc1\xc1\xc1\xc1\xc1",
    ],
    ids=[
        "wrong proof",
        "proof of another token",
        "a call before the token",
        "a short proof",
        "no message",
        "a browser",
        "a frame that is too long for a first one",
        "an empty frame",
        "an enormous frame",
        "what is no MessagePack",
    ],
)
async def test_who_does_not_show_the_token_is_told_nothing(
    tmp_path: Path, first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything but the token in the first frame closes the connection without a byte."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        assert await answer_to(served.said().port, first) == b""
        assert "was sent away" in caplog.text
        assert len(served.lines) == 1
        await soon(client.status())


async def test_who_leaves_before_the_token_is_nobody(tmp_path: Path) -> None:
    """A connection that ends within its first frame is no event."""
    async with serving(tmp_path) as served:
        for first in (b"", b"\0\0", b"\0\0\0\x20half"):
            assert await answer_to(served.said().port, first, ends=True) == b""
        assert served.lines == []


async def test_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    """The token must come within the limit for handshakes."""
    async with serving(tmp_path, limits=QUICK) as served:
        assert await answer_to(served.said().port, b"") == b""
        assert await answer_to(served.said().port, b"\0\0\0\x25half") == b""
        assert served.lines == []


async def test_connections_without_a_token_are_bounded(tmp_path: Path) -> None:
    """Whoever opens many and says nothing is refused further ones; clients still get in."""
    limits = DEFAULT_LIMITS.replace(handshakes_per_host_max=3, handshake_timeout_s=WITHIN_S)
    async with serving(tmp_path, limits=limits) as served:
        port = served.said().port
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await answer_to(port, b"") == b""
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        async with client_of(tmp_path) as client:
            await soon(client.status())


async def test_nonsense_after_the_token_ends_that_client_only(tmp_path: Path) -> None:
    """A client that breaks the protocol is closed; others are served on."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        said = served.said()
        hello = shown(wire.Hello(wire.proof(said.token, "client")))
        for nonsense in (shown("what?"), b"\xff" * 8, shown([99, 1])):
            answer = await answer_to(said.port, hello + nonsense)
            welcome = wire.decode(wire.welcomes, answer[4 : 4 + int.from_bytes(answer[:4], "big")])
            assert welcome.network == NETWORK.name
        await soon(client.status())


async def test_a_ping_of_nobody_is_the_clients_mistake(tmp_path: Path) -> None:
    """A message that is well-formed and means nothing is answered with an error."""
    async with serving(tmp_path), client_of(tmp_path) as client:
        with pytest.raises(errors.MisuseError):
            await soon(client._ask(wire.AskPing(7, None, None)))


def names_in(home: Path) -> list[str]:
    return [path.name for path in home.iterdir()]


# --- The file -----------------------------------------------------------------------------------


async def test_only_the_owner_can_read_the_token(tmp_path: Path) -> None:
    """The file has mode 0600, whatever the umask; nothing lies beside it."""
    before = os.umask(0)
    try:
        async with serving(tmp_path):
            assert names_in(tmp_path) == [wire.CONTROL_FILE]
            file = tmp_path / wire.CONTROL_FILE
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            said = json.loads(file.read_text())
            assert set(said) == {"port", "token", "pid"}
            assert said["pid"] == os.getpid()
            assert len(bytes.fromhex(said["token"])) == 32
    finally:
        os.umask(before)
    assert names_in(tmp_path) == []


async def test_every_start_has_a_token_of_its_own(tmp_path: Path) -> None:
    """What was the token of the last run opens nothing now."""
    async with serving(tmp_path) as served:
        first = served.said().token
    async with serving(tmp_path) as served:
        assert served.said().token != first


async def test_a_file_of_another_node_is_left_alone(tmp_path: Path) -> None:
    """A node removes the file at its end only if it is its own."""
    file = tmp_path / wire.CONTROL_FILE
    async with serving(tmp_path):
        other = wire.ControlFile(1, "00" * 32, 1)
        file.write_bytes(msgspec.json.encode(other))
    assert wire.read_control_file(tmp_path) == other


async def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    """A file that cannot be written is an error that names it, and nothing is left listening."""
    with pytest.raises(errors.StoreError, match=wire.CONTROL_FILE):
        async with serving(tmp_path / "missing"):
            pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b'{"port": 0}', b'{"port": 1, "token": "xyz", "pid": 1}', b"\xff"]
)
async def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """A file that says nothing means that no node runs."""
    (tmp_path / wire.CONTROL_FILE).write_bytes(content)
    with pytest.raises(errors.NotRunningError, match="start one"):
        await soon(ControlClient.connect(tmp_path))


async def test_the_file_of_a_dead_node_is_recognised(tmp_path: Path) -> None:
    """Where nobody listens any more, no node runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = wire.ControlFile(free.getsockname()[1], "00" * 32, 1)
    wire.write_control_file(tmp_path, dead)
    with pytest.raises(errors.NotRunningError, match="any more"):
        await soon(ControlClient.connect(tmp_path))


async def test_a_wrong_token_means_that_this_node_does_not_run(tmp_path: Path) -> None:
    """A file with another token than the listener's is that of a dead node."""
    async with serving(tmp_path) as served:
        other = tmp_path / "other"
        other.mkdir()
        wire.write_control_file(other, wire.ControlFile(served.said().port, "00" * 32, 1))
        with pytest.raises(errors.NotRunningError):
            await soon(ControlClient.connect(other))
        assert served.lines == []


@asynccontextmanager
async def stranger(home: Path, answer: bytes | None) -> AsyncGenerator[list[bytes]]:
    """Listen where a dead node did; answer with these bytes, or never."""
    heard: list[bytes] = []
    let_go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await wire.read_payload(reader) or b"")
        if answer is None:
            await let_go.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire.write_control_file(home, wire.ControlFile(port, "ab" * 32, 4_321))
    try:
        yield heard
    finally:
        let_go.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        shown("hello"),
        shown(wire.Welcome(bytes(32), "x", bytes(32))),
        shown(wire.Welcome(wire.proof("ab" * 32, "client"), "x", bytes(32))),
    ],
    ids=["closes", "a web server", "no message", "a wrong proof", "our own proof sent back"],
)
async def test_a_stranger_on_the_port_of_a_dead_node_is_found_out(
    tmp_path: Path, answer: bytes
) -> None:
    """What listens there and does not know the token is no node, and never learns the token."""
    async with stranger(tmp_path, answer) as heard:
        with pytest.raises(errors.NotRunningError, match="another program"):
            await soon(ControlClient.connect(tmp_path))
    assert bytes.fromhex("ab" * 32) not in heard[0]


async def test_a_node_that_hangs_is_named(tmp_path: Path) -> None:
    """A listener that never answers is told with its process, and is not taken for no node."""
    async with stranger(tmp_path, None):
        with pytest.raises(errors.WorldError, match="process 4321") as raised:
            await soon(ControlClient.connect(tmp_path, QUICK))
    assert not isinstance(raised.value, errors.NotRunningError)


async def test_a_node_that_answers_nonsense_ends_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that cannot be read ends the connection; who waits is told at once."""
    welcome = shown(wire.Welcome(wire.proof("ab" * 32, "node"), "x", bytes(32)))
    async with stranger(tmp_path, welcome + shown("nonsense")):
        client = await soon(ControlClient.connect(tmp_path))
        with pytest.raises(errors.StoppedError):
            await soon(client.status())
        await client.close()
    assert "no answer" in caplog.text


async def test_an_error_of_a_newer_node_is_still_an_error(tmp_path: Path) -> None:
    """A class of error that this version does not know comes out as the root of all."""
    async with serving(tmp_path) as served, client_of(tmp_path) as client:
        served.calls.error = cast("Any", type("FutureError", (errors.XorbitError,), {}))("later")
        with pytest.raises(errors.XorbitError, match="FutureError: later"):
            await soon(client.status())
