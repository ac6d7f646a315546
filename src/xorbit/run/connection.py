"""One connection: TLS over a socket, frames out of it, back-pressure both ways.

Who may connect, whom to dial and what a frame means is not decided here; nothing of the machine or
of listening and dialling may enter.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, cast

from xorbit.config import FLUSH_BYTES, RECEIVE_BYTES, Limits
from xorbit.errors import IdentityError
from xorbit.ids import Guid, Id
from xorbit.items import Address
from xorbit.run.tls import CLOSED_BY_PEER, Session
from xorbit.wire.frame import FrameReader, frame


class Events(Protocol):
    """What a transport tells its driver. Nothing here may raise."""

    def opened(
        self, connection: "Connection", peer: Id, address: Address, dial: Guid | None
    ) -> None:
        """Tell that a peer has proved its id; `dial` names our dial, None when they dialled."""

    def dial_failed(
        self,
        dial: Guid,
        tried: tuple[tuple[Address, str], ...],
        impostor: bool,
        ours: tuple[Address, ...],
    ) -> None:
        """Tell that no address led to the peer, and what happened at each of them.

        `impostor`: some address was answered by another id than the expected one. `ours`: the
        addresses at which we ourselves answered.
        """

    def readable(self, connection: "Connection") -> None:
        """Tell that bytes have come: pull frames until None, or stop pulling and `pause`."""

    def drained(self, connection: "Connection") -> None:
        """Tell that the peer of a `choked` connection has taken what it was sent."""

    def lost(self, connection: "Connection", reason: str) -> None:
        """Tell, once for each opened one, that a connection is gone. Frames in it stay pullable."""


class _Stage(Enum):
    SHAKING = "shaking"
    OPEN = "open"
    CLOSING = "closing"
    LOST = "lost"


@dataclass(slots=True)
class Shared:
    """What the connections of one transport share."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    events: Events
    # They are filled and emptied within one call each, so that one pair serves all connections.
    encrypted: memoryview = field(default_factory=lambda: memoryview(bytearray(RECEIVE_BYTES)))
    decrypted: memoryview = field(default_factory=lambda: memoryview(bytearray(RECEIVE_BYTES)))
    connections: dict["Connection", None] = field(default_factory=dict[Any, None])
    none_left: asyncio.Event = field(default_factory=asyncio.Event)


class Connection(asyncio.BufferedProtocol):
    """One TLS connection; the driver gets to see it once the peer has proved its id.

    The transport calls the methods of asyncio's protocol, the driver the others.
    """

    guid: Guid
    peer: Id
    address: Address
    """The peer's end of the socket."""

    def __init__(
        self,
        shared: Shared,
        session: Session,
        guid: Guid,
        address: Address,
        prove: Callable[[Id], Guid | None],
    ) -> None:
        """Prepare for a socket. `prove` refuses an id by raising, or names the dial it answers."""
        self.guid = guid
        self.address = address
        self.verdict: asyncio.Future[str] = shared.loop.create_future()
        """Resolves when the handshake has ended: to what went wrong, or to nothing."""
        self.was_made = False
        """Whether the socket has become this connection's to close."""
        self._shared = shared
        self._session = session
        self._prove = prove
        self._reader = FrameReader()
        self._outbox: list[bytes | bytearray] = []
        self._outbox_bytes = 0
        self._stage = _Stage.SHAKING
        self._opened = False
        self._socket: asyncio.Transport  # set when made
        self._held = False  # the driver wants no more for now
        self.choked = False
        """Whether more is unsent than may be; `drained` tells when no longer. Still read from: if
        both ends stopped reading while their sending is stuck, it would be stuck for good."""
        self._reason = ""
        self._limit: asyncio.TimerHandle | None = None

    # What the driver calls.

    def next_frame(self) -> bytes | None:
        """Return the payload of the next whole frame, or None until more comes.

        Raises:
            WireError: the peer announces an impossible frame; nothing can be read any more.
        """
        return self._reader.next_frame()

    def send(self, payload: bytes) -> None:
        """Send a frame; those of one turn of the loop leave together. Ignored once closing.

        Raises:
            WireError: the payload is larger than any frame may be.
        """
        self.send_frame(frame(payload))

    def send_frame(self, whole: bytes | bytearray) -> None:
        """Send a frame that has its header already (`message.encode_frame`)."""
        if not self._outbox:
            self._shared.loop.call_soon(self.flush)
        self._outbox.append(whole)
        self._outbox_bytes += len(whole)
        if self._outbox_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Let what was sent leave now, not at the end of the turn."""
        if self._outbox:
            data = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
            self._outbox.clear()
            self._outbox_bytes = 0
            if self._stage is _Stage.OPEN:
                self._write(self._session.encrypt(data))
                if self._session.end is not None:
                    self._shared.loop.call_soon(self._remind)

    def pause(self) -> None:
        """Read no more until `resume`."""
        self._held = True
        self._steer()

    def resume(self) -> None:
        """Read again; `readable` follows where frames may have been left unpulled."""
        if self._held:
            self._held = False
            self._steer()
            self._shared.loop.call_soon(self._remind)

    def close(self, reason: str) -> None:
        """Close once what was sent has left, or by force after `limits.shutdown_s_max`.

        What still comes in is taken and dropped meanwhile: bytes left unread make TCP reset the
        connection, and a reset destroys what the peer has not received yet (RFC 2525, 2.17).
        """
        if self._stage is _Stage.OPEN and not self._socket.is_closing():
            self.flush()
            self._leave(reason)
            self._write(self._session.farewell())
            try:
                self._socket.write_eof()
            except OSError:  # the peer has reset it
                self._socket.abort()
            self._socket.resume_reading()

    # What the transport calls.

    def give_up(self) -> None:
        """End it by force unless it is open."""
        if self._stage is _Stage.SHAKING:
            self._stage = _Stage.CLOSING
            if self.was_made:
                self._socket.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._socket = cast(asyncio.Transport, transport)
        self.was_made = True
        self._shared.connections[self] = None
        self._shared.none_left.clear()
        if self._stage is not _Stage.SHAKING:
            return self._socket.abort()
        self._socket.set_write_buffer_limits(high=self._shared.limits.write_buffer_bytes_max)
        return self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 -- asyncio's form
        """Lend the buffer that all connections share."""
        return self._shared.encrypted

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        if self._stage in (_Stage.SHAKING, _Stage.OPEN):
            self._session.receive(self._shared.encrypted[:nbytes])
        if self._stage is _Stage.SHAKING:
            self._shake()
        if self._stage is _Stage.OPEN:
            self._pump()

    def eof_received(self) -> bool:
        """Close, unless frames are still to be pulled: nobody keeps half a connection."""
        if self._session.end is None:
            self._session.end = CLOSED_BY_PEER
        self._remind()
        return self._stage is _Stage.OPEN

    def pause_writing(self) -> None:
        """Note that the peer does not take what it asked for."""
        self.choked = True

    def resume_writing(self) -> None:
        """Tell that it has."""
        self.choked = False
        if self._stage is _Stage.OPEN:
            self._shared.events.drained(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        reason = self._reason or (CLOSED_BY_PEER if exc is None else fault_of(exc))
        self._stage = _Stage.LOST
        self._outbox.clear()
        if self._limit:
            self._limit.cancel()
        del self._shared.connections[self]
        if not self._shared.connections:
            self._shared.none_left.set()
        if self._opened:
            self._shared.events.lost(self, reason)
        else:
            self._settle(f"{reason} before it had proved its id")

    # Within.

    def _shake(self) -> None:
        fault, peer = "", None
        try:
            peer = self._session.shake()
            dial = self._prove(peer) if peer is not None else None
        except IdentityError as error:
            fault, peer, dial = str(error), None, None
        self._write(self._session.outgoing())  # with the alert, if it failed
        if fault:
            self._settle(fault)
            self._leave(fault)
            self._socket.close()
        elif peer is not None:
            self._open(peer, dial)

    def _open(self, peer: Id, dial: Guid | None) -> None:
        self.peer = peer
        self._stage = _Stage.OPEN
        self._opened = True
        self._settle("")
        self._shared.events.opened(self, peer, self.address, dial)
        self._steer()

    def _settle(self, fault: str) -> None:
        if not self.verdict.done():
            self.verdict.set_result(fault)

    def _pump(self) -> None:
        fed = False
        plain = self._shared.decrypted
        while size := self._session.read_into(plain):
            self._reader.feed(cast(bytes, plain[:size]))  # it copies out of any buffer
            fed = True
        self._write(self._session.outgoing())
        if fed:
            self._shared.events.readable(self)
        if self._session.end is not None:
            self._remind()

    def _remind(self) -> None:
        """Offer what was left; then end what the peer has ended, unless the driver has paused."""
        if self._stage is _Stage.OPEN and not self._held and self._reader.pending_bytes:
            self._shared.events.readable(self)
        if self._session.end is not None and self._stage is _Stage.OPEN and not self._held:
            self._leave(self._session.end)
            self._socket.close()

    def _steer(self) -> None:
        if self._stage is _Stage.OPEN:
            if self._held:
                self._socket.pause_reading()
            else:
                self._socket.resume_reading()

    def _leave(self, reason: str) -> None:
        """Stop serving the connection; whatever still holds it up is bounded."""
        self._stage = _Stage.CLOSING
        self._reason = reason
        limit = self._shared.limits.shutdown_s_max
        self._limit = self._shared.loop.call_later(limit, self._socket.abort)

    def _write(self, data: bytes) -> None:
        if data and not self._socket.is_closing():
            self._socket.write(data)


def fault_of(error: Exception) -> str:
    """Return what failed, without the addresses and numbers that differ from loop to loop."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
