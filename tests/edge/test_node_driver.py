"""The driver: full lines, callers that wait, calls that end early, logs, faults and loops."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.edge.nodes import PATIENT, QUICK, House, Node, only_pings, sample, serves, silent, within
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import joblog
from xorbit.core.effect import Effect
from xorbit.errors import StoppedError, WorldError
from xorbit.items import Address, Contact, key_of
from xorbit.run.driver import LOCAL_LINE
from xorbit.wire.message import Envelope, FindClosest, Get, Ping, Pong, Store, Stored

BLOCK = sample(1)
KEY = key_of(BLOCK)


def lines_seen(node: Node) -> dict[object, int]:
    """Watch how long each line of the node's queue ever is; the result fills while it works."""
    longest: dict[object, int] = {}
    pop = node.driver._queue.pop

    class Watching:
        def __getattr__(self, name: str) -> object:
            return getattr(queue, name)

        def pop(self) -> object:
            for line, length in queue.lengths().items():
                longest[line] = max(longest.get(line, 0), length)
            return pop()

    queue, node.driver._queue = node.driver._queue, Watching()  # type: ignore[assignment]
    return longest


# --- Back-pressure ------------------------------------------------------------------------------


async def test_a_full_line_stops_reading_its_connection_and_everything_is_answered_later():
    limits = PATIENT.replace(line_jobs_max=4)
    async with House(limits) as house:
        node, peer = await house.node(limits=limits), await house.peer()
        await node.put(BLOCK)
        longest = lines_seen(node)
        connection = await peer.dial(node.address)
        await node.jobs.until(jobs.ConnectionOpened)
        paused: list[object] = []
        [theirs] = node.driver._connections.values()
        pause = theirs.pause
        theirs.pause = lambda: (paused.append(theirs), pause())  # type: ignore[method-assign]
        asked = [peer.send(connection, Ping()) for _ in range(400)]
        connection.flush()
        await peer.inbox.until(Envelope, lambda envelope: envelope.guid == asked[-1])
        answered = [e.guid for e in peer.inbox.all(Envelope) if isinstance(e.body, Pong)]
        assert answered == asked
        assert longest[theirs.guid] <= limits.line_jobs_max
        assert paused
        assert not node.driver._unread
        client = await house.client(node)
        await serves(node, client, BLOCK)


async def test_requests_wait_while_all_workers_of_their_connection_are_busy():
    """Work that is under way is bounded, whatever a peer asks for; nothing is lost by it."""
    limits = PATIENT.replace(workers=2)
    async with House() as house:
        node, peer = await house.node(limits=limits), await house.peer()
        connection = await peer.dial(node.address)
        asked = [peer.send(connection, Store(sample(number, 9_000))) for number in range(50)]
        left = set(asked)
        await peer.inbox.until(Envelope, lambda got: left.discard(got.guid) or not left)
        answers = {e.guid: e.body for e in peer.inbox.all(Envelope)}
        assert [answers[guid] for guid in asked] == [Stored()] * 50
        under_way = most = 0
        for _, job, effects in node.log:
            under_way -= isinstance(job, jobs.StoreWritten)
            under_way += sum(isinstance(effect, fx.WriteStore) for effect in effects)
            most = max(most, under_way)
        assert most == 2


async def test_local_callers_wait_while_their_line_is_full_and_all_are_served():
    async with House(PATIENT.replace(line_jobs_max=2)) as house:
        node = await house.node()
        longest = lines_seen(node)
        outcomes = await asyncio.gather(*(node.put(sample(number, 10)) for number in range(50)))
        assert [len(done.receipts) for done in outcomes] == [1] * 50
        assert longest[LOCAL_LINE] <= 2
        assert not node.driver.callers._waiting


async def test_a_line_is_full_by_bytes_as_well():
    async with House(PATIENT.replace(line_bytes_max=100_000)) as house:
        node = await house.node()
        longest = lines_seen(node)
        await asyncio.gather(*(node.put(sample(number)) for number in range(20)))
        assert longest[LOCAL_LINE] <= 2


@pytest.mark.parametrize("woken", [False, True], ids=["while it waits", "just let in"])
async def test_a_caller_that_gives_up_waiting_takes_nobodys_place(woken):
    async with House(PATIENT.replace(line_jobs_max=1)) as house:
        node = house.make()  # which does not step before it is started
        first, second, *others = (asyncio.create_task(node.get(KEY)) for _ in range(4))
        await asyncio.sleep(0)  # their turn; no time passes
        assert len(node.driver.callers._waiting[LOCAL_LINE]) == 3
        if woken:
            node.driver.callers._wake(LOCAL_LINE)
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        await node.driver.start()
        assert await asyncio.gather(first, *others) == [fx.NotFound(0, 0)] * 3
        assert not node.driver.callers._waiting


async def test_callers_that_wait_for_room_hear_of_the_stop():
    async with House(PATIENT.replace(line_jobs_max=1)) as house:
        node = house.make()
        calls = [asyncio.create_task(node.get(KEY)) for _ in range(3)]
        await asyncio.sleep(0)  # their turn; no time passes
        assert len(node.driver.callers._waiting[LOCAL_LINE]) == 2
        await node.driver.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoppedError] * 3


# --- Calls that end early -----------------------------------------------------------------------


async def test_a_cancelled_call_ends_its_work():
    async with House() as house:
        mute = await house.peer(answer=only_pings)
        client = await house.client(await mute.listen())
        call = asyncio.create_task(client.get(KEY))
        asked = await mute.inbox.until(Envelope, lambda envelope: isinstance(envelope.body, Get))
        assert asked.work in client.driver.machine.state.works
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.jobs.until(jobs.Cancel, lambda job: job.guid == asked.work)
        assert asked.work not in client.driver.machine.state.works


async def test_a_call_that_is_cancelled_before_its_turn_leaves_no_work_behind():
    async with House() as house:
        node = house.make()  # which does not step before it is started
        call = asyncio.create_task(node.get(KEY))
        await asyncio.sleep(0)  # its turn; no time passes
        assert node.driver.callers._calls
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await node.driver.start()
        await node.jobs.until(jobs.Cancel)
        kinds = [type(job) for _, job, _ in node.log if isinstance(job, jobs.Get | jobs.Cancel)]
        assert kinds == [jobs.Get, jobs.Cancel]
        assert not node.driver.machine.state.works


async def test_what_a_caller_that_is_gone_had_waiting_is_dropped():
    async with House() as house:
        node = await house.node()
        node.driver.post(jobs.HandleStdinLine("status"), "somebody")
        node.driver.forget_line("somebody")
        await node.put(BLOCK)
        assert not node.jobs.all(jobs.HandleStdinLine)


async def test_calls_after_the_stop_are_refused_and_stopping_twice_changes_nothing():
    async with House() as house:
        node = await house.node()
        await asyncio.gather(node.driver.stop(), node.driver.stop())
        await node.driver.stop()
        with pytest.raises(StoppedError, match="has stopped"):
            await node.put(BLOCK)


async def test_a_node_that_was_never_started_can_be_stopped():
    async with House() as house:
        node = house.make()
        await node.driver.stop()
        with pytest.raises(StoppedError):
            await node.get(KEY)


async def test_what_was_asked_before_the_start_is_done_after_it():
    async with House() as house:
        node = house.make()
        call = asyncio.create_task(node.get(KEY))
        await asyncio.sleep(0)  # its turn; no time passes
        assert node.driver.callers._calls
        await node.driver.start()
        assert await call == fx.NotFound(0, 0)


async def test_an_address_that_cannot_be_listened_at_is_an_error_with_the_reason():
    async with House() as house:
        node = await house.node()
        other = house.make()
        with pytest.raises(WorldError, match=f"cannot listen at {node.address}"):
            await other.driver.start([node.address])


# --- Faults of our own --------------------------------------------------------------------------


class FaultError(Exception):
    pass


def broken_step(node: Node) -> None:
    step = node.driver.machine.step

    def broken(now: float, job: jobs.Job) -> list[Effect]:
        if isinstance(job, jobs.HandleStdinLine):
            raise FaultError("a bug")
        return step(now, job)

    node.driver.machine.step = broken  # type: ignore[method-assign]
    node.driver.post(jobs.HandleStdinLine("status"))


async def test_a_fault_of_our_own_stops_the_node_with_a_report_and_nobody_waits_for_ever():
    async with House() as house:
        mute = await house.peer(answer=silent)
        node = await house.node()
        address = node.address
        await node.connect(await mute.listen())
        calls = [asyncio.create_task(node.ask(Contact(mute.key.id), Ping()))]
        await mute.inbox.until(Envelope, lambda e: e.work in node.driver.callers._calls)
        ended = asyncio.create_task(node.driver.ended())
        broken_step(node)
        report = await node.reported("a step failed; the node stops", "FaultError('a bug')")
        assert report.level == "error"
        for call in calls:
            with pytest.raises(StoppedError):
                await call
        with pytest.raises(FaultError):
            await ended
        with pytest.raises(StoppedError):
            await node.put(BLOCK)
        with pytest.raises(FaultError):
            await node.driver.stop()
        [(_, why)] = await (await house.peer()).dialled(address)  # everything is closed even so
        assert "refused" in why
        assert [said.level for said in node.reports.all(fx.Report)].count("error") == 1


# --- The console --------------------------------------------------------------------------------


async def test_lines_typed_at_the_console_are_answered_and_stop_ends_the_node():
    shown: list[str] = []
    async with House() as house:
        node = await house.node(show=shown.append)
        node.driver.post(jobs.HandleStdinLine("status"))
        node.driver.post(jobs.HandleStdinLine("stop"))
        async with within():
            await node.driver.ended()
        assert [text.split()[0] for text in shown] == ["id", "stopping"]
        assert node.driver.status().stopping


# --- The job log --------------------------------------------------------------------------------


async def test_a_job_log_replays_to_the_same_effects_as_those_performed_live(tmp_path):
    log = tmp_path / "jobs.log"
    async with House(QUICK) as house:
        mute = await house.peer(answer=only_pings)
        node = await house.node(job_log=log)
        other = await house.node(boot=[node])
        client = await house.client(node, other)
        await asyncio.gather(*(client.put(sample(number)) for number in range(30)))
        await asyncio.gather(*(node.put(sample(number)) for number in range(100, 110)))
        await asyncio.gather(*(node.get(key_of(sample(number))) for number in range(30)))
        await node.get(key_of(sample(5_000)))
        await node.connect(await mute.listen())
        await node.ask(Contact(mute.key.id), FindClosest(node.id))  # which times out
        await node.driver.stop()

    with log.open("rb") as source:
        header, entries = joblog.read(source)
        assert header.own == node.id
        replayed = list(joblog.replay(joblog.new_machine(header), entries))
    assert len(replayed) > 200
    assert replayed == node.log


async def test_no_peer_can_stop_a_node_that_logs_its_jobs_with_the_largest_frame(tmp_path):
    async with House() as house:
        node = await house.node(job_log=tmp_path / "jobs.log")
        client, peer = await house.client(node), await house.peer()
        connection = await peer.dial(node.address)
        also = tuple(Contact(bytes([n]) * 32, (Address("h" * 253, 1),) * 2) for n in range(13))
        answer = await peer.ask(connection, Store(BLOCK, also=also))
        assert isinstance(answer, Stored)
        await serves(node, client, BLOCK)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
async def test_a_disk_that_is_full_ends_the_job_log_and_not_the_node():
    async with House() as house:
        node = await house.node(job_log=Path("/dev/full"))
        client = await house.client(node)
        await client.put(BLOCK)
        assert (await node.reported("the job log ends here")).level == "error"
        await serves(node, client, BLOCK)
        await node.driver.stop()
    events = [report.event for report in node.reports.all(fx.Report)]
    assert events.count("the job log ends here") == 1


async def test_a_job_that_no_log_can_hold_ends_the_job_log_and_not_the_node(tmp_path):
    """Bytes of a terminal that are no text arrive as surrogates, which nothing can encode."""
    async with House() as house:
        node = await house.node(job_log=tmp_path / "jobs.log")
        node.driver.consoles.post("put caf\udc80", "console")
        line = await node.jobs.until(jobs.HandleStdinLine)
        assert line.line == "put caf?"
        node.driver.post(jobs.HandleStdinLine("put caf\udc80"), "console")
        assert (await node.reported("the job log ends here")).level == "error"
        await node.put(BLOCK)
        await serves(node, await house.client(node), BLOCK)


async def test_a_message_that_no_peer_would_take_is_reported_and_the_connection_stays():
    async with House() as house:
        node = await house.node()
        client = await house.client(node)
        await client.put(BLOCK)
        also = tuple(Contact(bytes([n]) * 32, (Address("h" * 253, 1),) * 16) for n in range(16))
        asked = asyncio.create_task(client.ask(node.contact, Store(BLOCK, also=also)))
        report = await client.reported("a message is larger than any frame", "Store of ")
        assert report.level == "error"
        await serves(node, client, BLOCK)
        asked.cancel()


async def test_a_job_log_that_cannot_be_written_is_an_error_before_anything_starts(tmp_path):
    async with House() as house:
        with pytest.raises(FileNotFoundError):
            house.make(job_log=tmp_path / "missing" / "jobs.log")


# --- Loops --------------------------------------------------------------------------------------


async def put_and_get() -> None:
    """What a user does, on whatever loop runs this; also a dial that fails, and a late timer."""
    async with House() as house:
        first = await house.node()
        second = await house.node(boot=[first])
        client = await house.client(first, second)
        blocks = [sample(number) for number in range(50)]
        for done in await asyncio.gather(*map(client.put, blocks)):
            assert sorted(said.outcome for said in done.receipts) == ["stored", "stored"]
        for block, got in zip(
            blocks,
            await asyncio.gather(*(client.get(key_of(block)) for block in blocks)),
            strict=True,
        ):
            assert isinstance(got, fx.Got)
            assert got.item == block
        nowhere = Address("127.0.0.1", 9)
        failed = await client.connect(nowhere)
        assert isinstance(failed, fx.Failed)
        assert failed.tried[0][0] == nowhere
        await client.jobs.until(jobs.Tick)
        await serves(first, client, blocks[0])


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    if sys.platform == "win32":
        return [asyncio.new_event_loop]
    import uvloop

    return [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("factory", loops(), ids=lambda factory: factory.__module__.split(".")[0])
def test_a_node_does_its_work_on_uvloop_and_on_plain_asyncio(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(put_and_get())


@pytest.mark.parametrize("limits", [{"turn_s_max": 1e-9}, {"turn_jobs_max": 1}], ids=str)
async def test_turns_may_be_as_short_as_one_job(limits):
    async with House(PATIENT.replace(**limits)) as house:
        node = await house.node()
        client = await house.client(node)
        await asyncio.gather(*(client.put(sample(number, 100)) for number in range(20)))
        await client.put(BLOCK)
        await serves(node, client, BLOCK)
