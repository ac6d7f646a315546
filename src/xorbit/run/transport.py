"""Sockets of a node: listening, dialling, and frames over connections that have proved an id.

What a frame means, whom to dial and when to close is the machine's to say, through the driver:
nothing of that may enter this file. Every task started here is owned by its `Transport`.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from random import Random
from typing import Any

from xorbit.config import ACCEPT_PAUSE_S, Limits
from xorbit.errors import IdentityError, WorldError
from xorbit.identity import Network, NodeKey
from xorbit.ids import Guid, Id, new_guid
from xorbit.items import ADDRESSES_MAX, Address, is_literal
from xorbit.run.connection import Connection, Events, Shared, fault_of
from xorbit.run.tls import Session, client_context, server_context

STOPPING = "this node is stopping"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Attempt:
    """One dial: what it is for, and how it goes."""

    guid: Guid
    own: Id
    addresses: tuple[Address, ...]
    expected: Id | None
    tried: list[tuple[Address, str]] = field(default_factory=list[tuple[Address, str]])
    impostor: bool = False
    opened: bool = False
    target: Address | None = None
    """Where we are dialling now."""
    ours: list[Address] = field(default_factory=list[Address])
    """Where we met ourselves."""

    def prove(self, peer: Id) -> Guid:
        self.impostor |= self.expected not in (None, peer)
        if peer == self.own:
            self.ours += [self.target] if self.target else []
            raise IdentityError("it is ourselves")
        if self.expected not in (None, peer):
            raise IdentityError(f"node {peer.hex()} answered there")
        self.opened = True
        return self.guid


class Transport:
    """Everything of a node that is a socket: its listeners, its dials and its connections."""

    def __init__(
        self, *, key: NodeKey, network: Network, limits: Limits, rng: Random, events: Events
    ) -> None:
        """Make a transport of the running loop; it does nothing before `listen` or `dial`.

        Raises:
            MisuseError: the network is managed and has not admitted this node.
        """
        self._own_id = key.id
        self._network = network
        self._rng = rng
        self._server = server_context(key, network)
        self._client = client_context(key, network)
        self._shared = Shared(asyncio.get_running_loop(), limits, events)
        self._shared.none_left.set()
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[asyncio.Task[None], str] = {}  # inbound handshakes, oldest first
        self._stopping = False

    async def listen(self, address: Address) -> tuple[Address, ...]:
        """Accept connections at an address (port 0: any) and return what it came to.

        A name or "::" may stand for several; all that this host has are bound.

        Raises:
            WorldError: nothing could be bound; the message says why.
        """
        loop = self._shared.loop
        try:
            found = await loop.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            listeners = self._bind([(family, where) for family, _, _, _, where in found])
        except (OSError, ValueError) as error:
            raise WorldError(f"cannot listen at {address}: {fault_of(error)}") from error
        self._listeners += listeners
        for listener in listeners:
            loop.add_reader(listener, self._accept, listener)
        return tuple(Address(*listener.getsockname()[:2]) for listener in listeners)

    def dial(self, guid: Guid, addresses: tuple[Address, ...], expected: Id | None) -> None:
        """Try these addresses in order; comes back as exactly one `opened` or `dial_failed`."""
        attempt = _Attempt(guid, self._own_id, addresses, expected)
        task = self._own(self._dial(attempt))
        task.add_done_callback(lambda _: self._dialled(attempt))
        if self._stopping:
            task.cancel()

    def stop_listening(self) -> None:
        """Accept no further connections; those that are open stay."""
        for listener in self._listeners:
            self._shared.loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """Stop: fail the dials, close the connections, and return once all are gone."""
        self._stopping = True
        self.stop_listening()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._shared.connections):
            connection.close(STOPPING)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._shared.none_left.wait()

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._shared.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            context = {"message": "a task of the transport failed", "exception": error}
            self._shared.loop.call_exception_handler(context)

    # Accepting. Not loop.create_server: uvloop's stops for good, and silently, when accepting fails
    # once (as it does when no file descriptor is left).

    def _bind(self, places: list[tuple[int, Any]]) -> list[socket.socket]:
        listeners: list[socket.socket] = []
        absent: OSError | None = None
        backlog = self._shared.limits.handshakes_max
        for family, where in places:
            try:
                listener = socket.create_server(where, family=family, backlog=backlog)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    _close_all(listeners)
                    raise
                absent = error
            else:
                listener.setblocking(False)
                listeners.append(listener)
        if absent and not listeners:
            raise absent
        return listeners

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._shared.limits.turn_jobs_max):
            try:
                accepted, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                self._rest(listener, error)
                return
            self._welcome(accepted, Address(*peer[:2]))

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        log.warning("cannot accept connections for %g s: %s", ACCEPT_PAUSE_S, fault_of(error))
        self._shared.loop.remove_reader(listener)
        self._shared.loop.call_later(ACCEPT_PAUSE_S, self._accept_again, listener)
        self._make_room(0, list(self._pending))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._shared.loop.add_reader(listener, self._accept, listener)

    def _welcome(self, accepted: socket.socket, address: Address) -> None:
        host = _host(address)
        limits = self._shared.limits
        of_host = [task for task, other in self._pending.items() if other == host]
        self._make_room(limits.handshakes_per_host_max, of_host)
        self._make_room(limits.handshakes_max, list(self._pending))
        accepted.setblocking(False)
        # asyncio does this only where a socket's protocol number is filled in: not when accepted.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self._server, self._network, server_side=True)
        connection = self._connection(session, address, self._prove_inbound)
        task = self._own(self._shake_hands(accepted, connection))
        self._pending[task] = host
        task.add_done_callback(lambda task: self._shaken(task, accepted, connection))

    def _make_room(self, limit: int, pending: list[asyncio.Task[None]]) -> None:
        """Abort the oldest of these handshakes if one more would exceed the limit.

        The oldest, not the newest: who floods us silently then displaces itself, and an honest peer
        that comes later and shakes hands at once is served.
        """
        if pending and len(pending) >= limit:
            del self._pending[pending[0]]
            pending[0].cancel()

    def _prove_inbound(self, peer: Id) -> None:
        if peer == self._own_id:
            raise IdentityError("it is ourselves")

    async def _shake_hands(self, accepted: socket.socket, connection: Connection) -> None:
        loop = self._shared.loop
        try:
            async with asyncio.timeout(self._shared.limits.handshake_timeout_s):
                await loop.connect_accepted_socket(lambda: connection, accepted)
                fault = await connection.verdict
        except OSError as error:
            fault = fault_of(error)
        finally:
            connection.give_up()
        if fault:
            log.debug("refused a connection from %s: %s", connection.address, fault)

    def _shaken(
        self, task: asyncio.Task[None], accepted: socket.socket, connection: Connection
    ) -> None:
        self._pending.pop(task, None)
        if not connection.was_made:  # cancelled before it began
            accepted.close()

    def _connection(
        self, session: Session, address: Address, prove: Callable[[Id], Guid | None]
    ) -> Connection:
        def prove_unless_stopping(peer: Id) -> Guid | None:
            if self._stopping:
                raise IdentityError(STOPPING)
            return prove(peer)

        guid = new_guid(self._rng)
        return Connection(self._shared, session, guid, address, prove_unless_stopping)

    # Dialling.

    async def _dial(self, attempt: _Attempt) -> None:
        for address in attempt.addresses:
            fault = await self._try(attempt, address)
            if attempt.opened:
                return
            attempt.tried.append((address, fault))

    def _dialled(self, attempt: _Attempt) -> None:
        if not attempt.opened:
            rest = attempt.addresses[len(attempt.tried) :]
            tried = (*attempt.tried, *((address, STOPPING) for address in rest))
            ours = tuple(attempt.ours)
            self._shared.events.dial_failed(attempt.guid, tried, attempt.impostor, ours)

    async def _try(self, attempt: _Attempt, address: Address) -> str:
        targets, fault = await self._look_up(address)
        if targets == [address]:
            return await self._reach(attempt, address)
        faults = [fault] if fault else []
        for target in targets:
            fault = await self._reach(attempt, target)
            if attempt.opened:
                return ""
            faults.append(f"{target.host}: {fault}")
        if targets and all(target in attempt.ours for target in targets):
            attempt.ours.append(address)
        return "; ".join(faults)

    async def _look_up(self, address: Address) -> tuple[list[Address], str]:
        """Return the addresses behind a name, best first (RFC 6724), or what failed."""
        if is_literal(address):
            return [address], ""
        try:
            async with asyncio.timeout(self._shared.limits.dial_timeout_s):
                found = await self._shared.loop.getaddrinfo(
                    address.host, address.port, type=socket.SOCK_STREAM
                )
        except (OSError, ValueError) as error:
            return [], f"the name cannot be resolved: {fault_of(error)}"
        unique = dict.fromkeys(str(where[0]) for *_, where in found)
        return [Address(host, address.port) for host in unique][:ADDRESSES_MAX], ""

    async def _reach(self, attempt: _Attempt, target: Address) -> str:
        """Connect and shake hands; return what went wrong, if anything."""
        attempt.target = target
        session = Session(self._client, self._network, server_side=False)
        connection = self._connection(session, target, attempt.prove)
        loop = self._shared.loop
        try:
            async with asyncio.timeout(self._shared.limits.dial_timeout_s):
                await loop.create_connection(lambda: connection, target.host, target.port)
                return await connection.verdict
        except TimeoutError:
            return f"no answer within {self._shared.limits.dial_timeout_s:g} s"
        except (OSError, ValueError) as error:
            return fault_of(error)
        finally:
            connection.give_up()


def _host(address: Address) -> str:
    """Return what counts as one host: an IPv4 address, or an IPv6 /64 (anybody has a whole one)."""
    ip = ip_address(address.host)
    if isinstance(ip, IPv6Address):
        return str(ip_network((int(ip), 64), strict=False))
    return address.host


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
