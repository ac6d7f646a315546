"""Writers of one record, readers and bad luck in any order: one wins each race, all agree."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.ids import Guid
from xorbit.items import Record, make_record, record_key

KEY = SigningKey(bytes(range(32)))
NAME = record_key(bytes(KEY.verify_key))


class Race:
    """Writers that each read the newest version, then try to be the next by compare-and-swap."""

    def __init__(self, seed: int, writers: int, *, losses: bool) -> None:
        self.rng = Random(seed)
        self.world = World(seed)
        self.nodes = self.world.network(7)
        self.writers = self.nodes[:writers]
        self.losses = losses
        self.won: dict[int, list[bytes]] = {}

    def round(self, number: int) -> None:
        """Let all writers try once, started at times of their own, with what they saw before."""
        seen = max((seq for seq in self.won), default=0)
        tries: list[tuple[Node, Guid, Record]] = []
        for index, writer in enumerate(self.writers):
            self.world.run(self.rng.choice([0.0, 0.001, 0.02, 0.3]))
            item = make_record(KEY, seen + 1, b"%d by %d" % (number, index))
            guid = self.put(writer, item, seen)
            tries.append((writer, guid, item))
            if self.losses and self.rng.random() < 0.5:
                self.lose_a_connection()
        for writer, guid, item in tries:
            done = self.world.outcome(writer, guid)
            assert isinstance(done, fx.PutDone)
            if done.won:
                self.won.setdefault(item.seq, []).append(item.value)
            elif done.newer is not None:
                assert done.newer.seq > seen, "who lost is told a newer record"

    @staticmethod
    def put(writer: Node, item: Record, seen: int) -> Guid:
        return writer.call(lambda guid: jobs.Store(guid, NAME, item, seen))

    def lose_a_connection(self) -> None:
        node = self.rng.choice(self.nodes)
        connections = list(node.ends)
        if connections:
            node.cut(self.rng.choice(connections), "bad luck")

    def held(self) -> set[object]:
        read = [node.store.read([NAME])[0] for node in self.nodes]
        return {item for item in read if item is not None}


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), writers=st.integers(2, 4), losses=st.booleans())
def test_of_each_race_one_writer_wins_and_all_holders_agree_in_the_end(
    seed: int, writers: int, losses: bool
) -> None:
    race = Race(seed, writers, losses=losses)
    for number in range(4):
        race.round(number)
        race.world.run(3.0)
    for seq, values in race.won.items():
        assert len(values) == 1, f"two writers won version {seq} (seed {seed})"
    for reader in race.nodes:
        race.world.outcome(reader, reader.get(NAME))
        race.world.run(1.0)
    assert len(race.held()) == 1, f"holders disagree (seed {seed})"
