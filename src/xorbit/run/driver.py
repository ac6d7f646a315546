"""The driver: takes jobs from the queue, steps the machine, performs its effects.

    queue.pop() -> machine.step(now, job) -> effects -> transport, storage, timer, waiting callers

One node, one driver, one event loop. Effects are performed in order right after their step, so that
what a step decided holds before the next job is taken. Sockets are looked at between turns; a turn
is bounded in jobs and in time. Nothing here decides anything about the protocol.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from pathlib import Path
from random import Random
from typing import BinaryIO, assert_never

from msgspec import MsgspecError

from xorbit.config import FRAME_BYTES_MAX, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import joblog
from xorbit.core.effect import Effect, Outcome
from xorbit.core.job import Job
from xorbit.core.machine import Machine
from xorbit.core.queue import JobQueue
from xorbit.core.status import FingerStatus, PeerStatus, Status
from xorbit.errors import StoreError, WireError
from xorbit.identity import Network, NodeKey
from xorbit.ids import Guid, Id, new_guid
from xorbit.items import Address, Contact, ItemKey, Record, make_connection_item
from xorbit.run.callers import Callers
from xorbit.run.chance import BufferedSystemRandom
from xorbit.run.storage import Storage
from xorbit.run.transport import Connection, Transport
from xorbit.run.typed import Consoles
from xorbit.run.withheld import Withheld
from xorbit.store.base import Store, Usage
from xorbit.wire import message
from xorbit.wire.frame import HEADER_BYTES

OWN_LINE = "self"
STORE_LINE = "store"
CLOCK_LINE = "clock"
LOCAL_LINE = "local"

# Why the requests of a connection are held.
BUSY = "busy"  # the machine says so: all in-workers are taken
CHOKED = "choked"  # the peer does not take the answers that it has already been sent


def _ignore(_: str) -> None:
    pass


class Driver:
    """The body of one node."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: Network,
        store: Store,
        limits: Limits,
        report: Callable[[fx.Report], None],
        show: Callable[[str], None] = _ignore,
        job_log: Path | None = None,
    ) -> None:
        """Make a node that keeps its items in `store`.

        Args:
            key: who the node is.
            network: where it belongs.
            store: closed by `stop`.
            limits: the limits of everything.
            report: takes what the node has to say to its log.
            show: takes what is to be shown at its console.
            job_log: a file to write every job to; `xorbit replay` reads it.
        """
        self._limits = limits
        self._report = report
        self._store = store
        self._job_log: BinaryIO | None = None
        self._key = key
        self._network_key = network.authority_key
        self._rng = BufferedSystemRandom()
        rng = self._open_log(job_log, key.id) if job_log else self._rng
        self._queue = JobQueue(limits)
        self.machine = Machine(key.id, limits, rng)
        self._storage = Storage(store, self._on_disk, self._fail, report)
        self._transport = Transport(
            key=key, network=network, limits=limits, rng=self._rng, events=self
        )
        self._connections: dict[Guid, Connection] = {}
        self._unread: dict[Hashable, Connection] = {}
        """Connections that are not read from because their line is full."""
        self._unflushed: dict[Guid, Connection] = {}
        self._withheld = Withheld()
        self._holds: dict[Guid, set[str]] = {}
        """Why the requests of each connection are held."""
        self.callers = Callers(self, self._queue, limits)
        self.consoles = Consoles(self, self._queue, limits, show)
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._over = False
        """No further step is taken."""
        self._closed = False
        self.restored = 0
        """How many contacts of an earlier life there were."""

    # --- For the local caller -------------------------------------------------------------------

    async def start(self, listen: Sequence[Address] = ()) -> None:
        """Begin to work; accept connections at these addresses.

        Raises:
            WorldError: an address cannot be listened at.
        """
        self._stopped = asyncio.get_running_loop().create_future()
        self._arm_timer()
        self._restore()
        bound: list[Address] = []
        for address in listen:
            bound += await self._transport.listen(address)
        if bound:
            self.post(jobs.Listening(tuple(bound)), OWN_LINE)
        self._wake()  # for what was posted before

    async def call(self, job: Job, line: Hashable = LOCAL_LINE) -> Outcome:
        """Push a job that ends in a Finish, and wait for its outcome (`Callers.call`).

        Raises:
            StoppedError: the node stopped before the work was done.
        """
        return await self.callers.call(job, line)

    def follow(self, key: ItemKey, line: Hashable = LOCAL_LINE) -> AsyncGenerator[Record | Outcome]:
        """Give the versions of a record as they come (`Callers.follow`).

        Raises:
            StoppedError: the node stopped.
        """
        return self.callers.follow(key, line)

    async def room(self, line: Hashable) -> None:
        """Wait until this source may bring another job.

        Raises:
            StoppedError: the node has stopped.
        """
        await self.callers.room(line)

    def post(self, job: Job, line: Hashable = LOCAL_LINE, size: int = 0) -> None:
        """Push a job that nobody waits for."""
        self._queue.push(line, job, size)
        self._wake()

    def new_guid(self) -> Guid:
        """Return a fresh guid."""
        return new_guid(self._rng)

    def forget_line(self, line: Hashable) -> None:
        """Drop a local caller that is gone, with the jobs that it still had waiting."""
        self._queue.forget(line)

    def status(self) -> Status:
        """Return what the node tells of itself."""
        return self.machine.status()

    def peers(self) -> list[PeerStatus]:
        """Return the node's connections."""
        return self.machine.peers()

    def fingers(self) -> list[FingerStatus]:
        """Return the node's fingers."""
        return self.machine.fingers()

    def contacts(self) -> list[Contact]:
        """Return the contacts of the node's routing table."""
        return self.machine.state.table.contacts()

    def usage(self) -> Usage:
        """Return how full the store is."""
        return self._store.usage()

    async def ended(self) -> None:
        """Wait until the node ends by itself: told to at its console, or by a fault.

        Raises:
            Exception: the fault.
        """
        assert self._stopped is not None, "only a node that was started can end"
        await asyncio.shield(self._stopped)

    async def stop(self) -> None:
        """Take nothing new, finish what is in flight within a limit, commit, close everything.

        Raises:
            Exception: the fault by which the node had ended itself; everything is closed even so.
        """
        if self._closed:
            return
        if self._stopped is not None:
            self.post(jobs.Shutdown(), OWN_LINE)
            await asyncio.wait([self._stopped], timeout=self._limits.shutdown_s_max + 1)
        self._closed = self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._dismiss_callers()  # at once: what is closed below may take its time
        await self._transport.close()
        await asyncio.get_running_loop().run_in_executor(None, self._storage.close)
        if self._job_log is not None:
            with contextlib.suppress(OSError):  # its last pages may not fit on the disk
                self._job_log.close()
        if self._stopped is not None:
            if not self._stopped.done():
                self._stopped.set_result(None)  # the limit has passed
            self._stopped.result()

    # --- From the transport (Events) --------------------------------------------------------------

    def opened(self, connection: Connection, peer: Id, address: Address, dial: Guid | None) -> None:
        """Take a connection in; its requests are held until the machine has accepted it."""
        self._connections[connection.guid] = connection
        self._hold(connection.guid, BUSY)
        self.post(jobs.ConnectionOpened(connection.guid, peer, address, dial), connection.guid)

    def dial_failed(
        self,
        dial: Guid,
        tried: tuple[tuple[Address, str], ...],
        impostor: bool,
        ours: tuple[Address, ...],
    ) -> None:
        """Tell the machine how a dial ended."""
        self.post(jobs.DialFailed(dial, tried, impostor, ours), OWN_LINE)

    def readable(self, connection: Connection) -> None:
        """Turn a connection's frames into jobs, as far as its line has room."""
        guid, queue = connection.guid, self._queue
        while queue.has_room(guid):
            try:
                payload = connection.next_frame()
                if payload is None:
                    self._read_on(connection)
                    return
                self._push(guid, message.decode(payload), len(payload))
            except WireError as error:
                self._close_bad(connection, error)
                return
        if guid not in self._unread:
            self._unread[guid] = connection
            connection.pause()

    def lost(self, connection: Connection, reason: str) -> None:
        """Tell the machine that a connection is gone."""
        guid = connection.guid
        self._connections.pop(guid, None)
        self._unread.pop(guid, None)
        self._unflushed.pop(guid, None)
        self._withheld.take(guid)
        self._holds.pop(guid, None)
        # In its own line: never before its ConnectionOpened, nor before an answer that still came.
        self.post(jobs.ConnectionLost(guid, reason), guid)
        self._queue.forget(guid)

    def drained(self, connection: Connection) -> None:
        """Serve a peer again that had not taken its answers."""
        for push in self._withheld.take(connection.guid):
            self._send(connection.guid, push)
        self._release(connection.guid, CHOKED)
        self._wake()

    def _hold(self, guid: Guid, why: str) -> None:
        if guid in self._connections:
            self._holds.setdefault(guid, set()).add(why)
            self._queue.hold(guid)

    def _release(self, guid: Guid, why: str) -> None:
        held = self._holds.get(guid)
        if held is not None:
            held.discard(why)
            if not held:
                self._queue.release(guid)

    def _push(self, guid: Guid, envelope: message.Envelope, size: int) -> None:
        body = envelope.body
        if isinstance(body, message.Request):
            job = jobs.HandleRequest(guid, envelope.guid, envelope.work, body, size)
        else:
            job = jobs.HandleResponse(guid, envelope.guid, envelope.work, body, size)
        self._queue.push(guid, job, size)
        self._wake()

    def _read_on(self, connection: Connection) -> None:
        if self._unread.pop(connection.guid, None) is not None:
            connection.resume()

    def _close_bad(self, connection: Connection, error: WireError) -> None:
        self._unread.pop(connection.guid, None)
        connection.pause()
        self._report(
            fx.Report("warning", "bad bytes from a peer", f"{connection.address}: {error}")
        )
        connection.close(str(error))

    # --- One turn ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._turn_is_due and self._stopped is not None:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Step through some jobs, then let the loop look at its sockets."""
        self._turn_is_due = False
        if self._over:
            return
        try:
            if self._step_some():
                self._wake()
            self._flush()
        except Exception as error:  # noqa: BLE001 - a bug of ours: stop, nothing on disk is lost
            self._fail(error)
        self._arm_timer()

    def _flush(self) -> None:
        """Let leave what the turn has sent; serve no more to those who do not take it."""
        for guid, connection in self._unflushed.items():
            connection.flush()
            if connection.choked:
                self._hold(guid, CHOKED)
        self._unflushed.clear()

    def _step_some(self) -> bool:
        """Step until the queue is empty (False) or the turn is over (True)."""
        began = time.monotonic()  # not loop.time(): uvloop's stands still for as long as we step
        alone = len(self._connections) <= 1
        limits = self._limits
        for _ in range(limits.turn_jobs_alone_max if alone else limits.turn_jobs_max):
            popped = self._queue.pop()
            if popped is None:
                return False
            line, job = popped
            now = time.monotonic()
            if self._job_log is not None:
                self._log(now, job)
            for effect in self.machine.step(now, job):
                self._perform(effect)
            self._let_in(line)
            if now - began > self._limits.turn_s_max:
                return True
        return True

    def _let_in(self, line: Hashable) -> None:
        """Read on where a full line has room again."""
        if self._unread and line in self._unread and self._queue.has_room(line):
            self.readable(self._unread[line])
        self.callers.let_in(line)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case fx.Send(connection, envelope):
                self._send(connection, envelope)
            case fx.ReadStore() | fx.WriteStore() | fx.CheckStore() | fx.DropDamaged():
                self._storage.perform(effect)
            case fx.ScanStore() | fx.DropItems() | fx.OrderPins():
                self._storage.perform(effect)
            case fx.SaveContacts(contacts):
                self._storage.save_contacts(self._network_key, contacts)
            case fx.SignConnection(guid, seq, addresses):
                item = make_connection_item(self._key.signing_key, seq, addresses)
                self._queue.push(OWN_LINE, jobs.ConnectionSigned(guid, item))
            case fx.Finish(guid, outcome):
                self.callers.finish(guid, outcome)
            case fx.Post(job):
                self._queue.push(OWN_LINE, job)
            case fx.Dial(guid, addresses, expected):
                self._transport.dial(guid, addresses, expected)
            case fx.Close(connection, reason):
                if connection in self._connections:
                    self._connections[connection].close(reason)
            case fx.HoldRequests(connection):
                self._hold(connection, BUSY)
            case fx.ReleaseRequests(connection):
                self._release(connection, BUSY)
            case fx.StopListening():
                self._transport.stop_listening()
            case fx.Pushed(guid, record):
                self.callers.push(guid, record)
            case fx.Report():
                self._report(effect)
            case fx.Print():
                self.consoles.print(effect)
            case fx.Stopped():
                if self._stopped is not None and not self._stopped.done():
                    self._stopped.set_result(None)
            case _ as never:
                assert_never(never)

    def _send(self, guid: Guid, envelope: message.Envelope) -> None:
        connection = self._connections.get(guid)
        if connection is None:
            return  # its ConnectionLost is on the way
        if connection.choked and isinstance(envelope.body, message.Updated):
            self._withheld.keep(guid, envelope)
            return
        frame = message.encode_frame(envelope)
        if len(frame) > HEADER_BYTES + FRAME_BYTES_MAX:  # no peer would take it: a bug of ours
            detail = f"{type(envelope.body).__name__} of {len(frame):,} bytes"
            self._report(fx.Report("error", "a message is larger than any frame", detail))
            return
        if not isinstance(envelope.body, message.Request):
            self._queue.charge(guid, len(frame))
        connection.send_frame(frame)
        self._unflushed[guid] = connection

    def _arm_timer(self) -> None:
        due = self.machine.next_deadline()
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        if due is None:
            self._timer = None
        else:
            wait_s = max(due - time.monotonic(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)
        self._timer_due = due

    def _tick(self) -> None:
        self._timer = self._timer_due = None
        self.post(jobs.Tick(), CLOCK_LINE)

    def _on_disk(self, done: list[Job]) -> None:
        for job in done:
            self._queue.push(STORE_LINE, job)
        self._wake()

    # --- Beginnings and ends --------------------------------------------------------------------

    def _restore(self) -> None:
        """Give the machine the contacts of this home's earlier life, before anything else."""
        try:
            contacts = self._store.load_contacts(self._network_key)
        except StoreError as error:
            self._report(fx.Report("warning", "the saved contacts are lost", str(error)))
            return
        self.restored = len(contacts)
        if contacts:
            self.post(jobs.Restored(contacts), OWN_LINE)

    def _open_log(self, path: Path, own: Id) -> Random:
        """Open the job log; chance then comes from a seed, so that a replay goes the same way."""
        seed = os.urandom(32)
        self._job_log = path.open("wb")
        self._job_log.write(joblog.encode_header(own, self._limits, seed))
        return Random(seed)  # noqa: S311 - guids name exchanges, they keep no secret

    def _log(self, now: float, job: Job) -> None:
        """Write a step down; a full disk, or a job that cannot be written, ends the log only."""
        assert self._job_log is not None
        try:
            self._job_log.write(joblog.encode_entry(now, job))
        except (OSError, ValueError, MsgspecError) as error:
            self._report(fx.Report("error", "the job log ends here", str(error)))
            with contextlib.suppress(OSError):
                self._job_log.close()
            self._job_log = None

    def _fail(self, error: BaseException) -> None:
        """End by a fault of our own: no further step, and nobody waits for one."""
        if self._over:
            return
        self._over = True
        self._report(fx.Report("error", "a step failed; the node stops", repr(error)))
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_exception(error)
        self._dismiss_callers()

    def _dismiss_callers(self) -> None:
        self.consoles.dismiss()
        self.callers.dismiss()
