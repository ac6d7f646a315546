"""The parts of a simulated world: its clock, its network, its disks, its liars and its stories."""

from math import inf
from random import Random

import pytest

from xorbit.core import job as jobs
from xorbit.core.effect import CheckStore, DropItems, ReadStore, WriteStore
from xorbit.errors import MisuseError
from xorbit.ids import Guid, Id, distance
from xorbit.items import Address, Contact, block_key, make_block
from xorbit.sim import scenario
from xorbit.sim.churn import session_s
from xorbit.sim.clock import Clock
from xorbit.sim.disk import Disk
from xorbit.sim.history import mean, percentile
from xorbit.sim.liars import Friends, Liar, Lie
from xorbit.sim.network import Faults, one_way_s, place
from xorbit.store.memory import MemoryStore
from xorbit.wire.message import (
    Closest,
    Envelope,
    FindClosest,
    FindNext,
    Found,
    Get,
    Next,
    Ping,
    Pong,
    Refused,
    Stored,
)

BLOCK = make_block(b"something")
KEY = block_key(BLOCK.data)
GUID = Guid(bytes(16))


# --- Time ---------------------------------------------------------------------------------------


def test_events_happen_in_the_order_of_their_times_and_at_one_time_in_that_of_their_planning():
    clock, seen = Clock(), []
    began = clock.now
    clock.after(2.0, seen.append, "late")
    clock.after(1.0, seen.append, "early")
    clock.after(1.0, seen.append, "early too")
    assert clock.next_at() == began + 1.0
    clock.run_until(clock.now + 1.5)
    assert seen == ["early", "early too"]
    clock.run_until(clock.now + 4.5)
    assert seen == ["early", "early too", "late"]
    assert clock.now == began + 6.0
    assert clock.next_at() == inf


# --- The network --------------------------------------------------------------------------------


def test_a_message_takes_as_long_as_the_way_over_the_globe():
    rng = Random(1)
    places = [place(rng) for _ in range(200)]
    ways = sorted(one_way_s(here, there) for here in places for there in places[:20])
    assert ways[0] > 0.0
    assert 0.01 < ways[len(ways) // 2] < 0.15
    assert ways[-1] < 0.5


def test_a_partition_parts_both_ways_and_a_cut_one_way():
    faults = Faults()
    assert not faults.any
    faults.sides = {1: 1}
    faults.cuts[2, 3] = None
    assert faults.any
    assert faults.parted(0, 1)
    assert faults.parted(1, 0)
    assert faults.parted(2, 3)
    assert not faults.parted(3, 2)


@pytest.mark.parametrize("law", ["exponential", "heavy-tailed"])
def test_sessions_have_the_median_that_was_asked_for(law):
    rng = Random(2)
    lengths = sorted(session_s(rng, 60.0, law) for _ in range(4_001))
    assert 50.0 < lengths[2_000] < 72.0


def test_a_percentile_is_the_value_that_so_many_do_not_exceed():
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50.0, 99.0)
    assert (percentile([], 0.5), mean([]), mean(values)) == (0.0, 0.0, 50.5)


# --- Disks --------------------------------------------------------------------------------------


def a_disk(seed: int = 1) -> tuple[Clock, Disk, list[jobs.Job]]:
    clock, done = Clock(), []
    return clock, Disk(clock, Random(seed), MemoryStore(2**20), done.append), done


def test_a_disk_answers_each_effect_once_after_its_commit():
    clock, disk, done = a_disk()
    disk.perform(WriteStore(GUID, KEY, BLOCK))
    disk.perform(CheckStore(GUID, (KEY,)))
    assert not done
    clock.run_until(clock.now + 1.0)
    disk.perform(ReadStore(GUID, KEY))
    clock.run_until(clock.now + 1.0)
    kinds = [type(job) for job in done]
    assert kinds == [jobs.StoreChecked, jobs.StoreWritten, jobs.StoreRead]


def test_a_crash_loses_what_was_not_committed_and_answers_nothing_of_it():
    held = []
    for seed in range(20):
        clock, disk, done = a_disk(seed)
        disk.perform(WriteStore(GUID, KEY, BLOCK))
        disk.perform(ReadStore(GUID, KEY))
        disk.crash()
        clock.run_until(clock.now + 1.0)
        assert not done
        held += disk.store.have([KEY])
    assert set(held) == {True, False}  # it may have been on disk, and nobody was told


def test_a_full_disk_says_so_and_a_forgetful_one_lies():
    clock, disk, done = a_disk()
    disk.full = True
    disk.perform(WriteStore(GUID, KEY, BLOCK))
    disk.perform(DropItems(GUID, (KEY,), 0.0))
    clock.run_until(clock.now + 1.0)
    disk.full, disk.forgets = False, True
    disk.perform(WriteStore(GUID, KEY, BLOCK))
    clock.run_until(clock.now + 1.0)
    codes = [job.code for job in done if isinstance(job, jobs.StoreWritten)]
    assert codes == ["failed", "stored"]
    assert disk.store.have([KEY]) == [False]


# --- Liars --------------------------------------------------------------------------------------


def contact(number: int) -> Contact:
    return Contact(Id(bytes([number]) * 32), (Address(f"5.0.{number}.1", 4000),))


def what(lie: Lie, question: object, answer: object) -> object:
    """Return what a liar says, instead of an answer, to a question."""
    liar = Liar(lie, Random(1), Friends([contact(number) for number in range(40)]))
    liar.hears(Envelope(GUID, GUID, question))  # type: ignore[arg-type]
    said = liar.says(Envelope(GUID, GUID, answer))  # type: ignore[arg-type]
    return None if said is None else said.body


def test_each_liar_lies_in_its_way():
    target = Id(bytes([7]) * 32)
    ask, honest = FindClosest(target), Closest((contact(200),))
    assert what(Lie.SILENT, ask, honest) is None
    assert what(Lie.LATE, ask, honest) == honest
    (stranger,) = what(Lie.STRANGERS, ask, honest).contacts  # type: ignore[union-attr]
    assert stranger != contact(200)
    named = what(Lie.COLLUDING, ask, honest).contacts  # type: ignore[union-attr]
    assert named[0] == contact(7)
    assert [*named] == sorted(named, key=lambda one: distance(one.id, target))
    assert what(Lie.COLLUDING, FindNext(target), Next(contact(200), 3)) == Next(contact(7), 3)
    gets = what(Lie.COLLUDING, Get(KEY), Found(BLOCK))
    assert isinstance(gets, Closest)
    forged = what(Lie.FORGING, Get(KEY), Found(BLOCK))
    assert isinstance(forged, Found)
    assert block_key(forged.item.data) != KEY  # type: ignore[union-attr]
    assert isinstance(what(Lie.REFUSING, Ping(), Stored()), Refused)
    assert what(Lie.COLLUDING, Ping(), Pong()) == Pong()


def test_a_liar_asks_as_others_do_and_remembers_a_bounded_number_of_questions():
    liar = Liar(Lie.SILENT, Random(1), Friends([]))
    ask = Envelope(GUID, GUID, Ping())
    assert liar.says(ask) == ask
    for number in range(5_000):
        guid = Guid(number.to_bytes(16, "big"))
        liar.hears(Envelope(guid, guid, FindClosest(KEY.id)))
    assert len(liar._targets) <= 4_096


# --- Stories ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scenario.names())
def test_each_scenario_that_comes_along_can_be_read_and_made_smaller(name):
    story = scenario.load(name)
    small = story.of_nodes(10)
    assert story.about.endswith(".")
    assert small.nodes == 10
    assert sum(phase.seconds for phase in small.phases) == sum(p.seconds for p in story.phases)


def test_a_scenario_that_is_none_is_refused_in_words(tmp_path):
    with pytest.raises(MisuseError, match="there are: churn"):
        scenario.load("of nobody")
    odd = tmp_path / "odd.toml"
    odd.write_text('about = "?"\nnodes = 1\nphases = []\n')
    with pytest.raises(MisuseError, match="not a scenario"):
        scenario.load(str(odd))
    with pytest.raises(MisuseError, match="not a scenario"):
        scenario.parse(b"= nothing")
