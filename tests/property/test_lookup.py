"""The Lookup under any sequence of events: it keeps its bounds, and it always ends."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from xorbit.core.lookup import BLAME_MAX, Ask, Finished, Lookup, Wait
from xorbit.ids import Id, as_id, distance
from xorbit.items import Contact

OWN = as_id(13)
points = st.integers(0, 40).map(as_id)
contact_lists = st.lists(points.map(Contact), max_size=12)


class Events(RuleBasedStateMachine):
    """Peers that answer, fail, answer again, late, unasked; and time that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.known: set[Id] = set()
        self.asked: dict[Id, float] = {}
        self.outstanding: set[Id] = set()
        self.answered: set[Id] = set()
        self.failed: set[Id] = set()

    @initialize(
        goal=points,
        seeds=contact_lists,
        width=st.integers(1, 6),
        parallel=st.integers(1, 4),
        asked_max=st.integers(1, 20),
    )
    def begin(
        self, goal: Id, seeds: list[Contact], width: int, parallel: int, asked_max: int
    ) -> None:
        self.target, self.width = goal, width
        self.parallel, self.asked_max = parallel, asked_max
        self.lookup = Lookup(goal, OWN, seeds, width=width, parallel=parallel, asked_max=asked_max)
        self.learn(seeds)

    def learn(self, contacts: list[Contact]) -> None:
        self.known |= {contact.id for contact in contacts} - {OWN}

    def new(self) -> set[Id]:
        return {peer for peer in self.known - set(self.asked) if not self.is_blamed(peer)}

    def is_blamed(self, peer: Id) -> bool:
        """Whether only somebody whose other contacts failed has named it (shown in unit tests)."""
        source = self.lookup._candidates[peer].source
        return source is not None and self.lookup._blame.get(source, 0) >= BLAME_MAX

    def in_time(self) -> list[float]:
        return [at for peer in self.outstanding if (at := self.asked[peer]) > self.now]

    def far(self, peer: Id) -> int:
        return distance(peer, self.target)

    @rule(slow_s=st.sampled_from([0.5, 1.0, 3.0]))
    def go_on(self, slow_s: float) -> None:
        """Do as the lookup says, and hold that it may say so."""
        action = self.lookup.next(self.now)
        assert action == self.lookup.next(self.now), "asking twice changes nothing"
        match action:
            case Ask(contact):
                assert contact.id == min(self.new(), key=self.far), "the closest goes first"
                assert len(self.in_time()) < self.parallel
                assert len(self.asked) < self.asked_max
                self.lookup.asked(contact.id, self.now + slow_s)
                self.asked[contact.id] = self.now + slow_s
                self.outstanding.add(contact.id)
            case Wait(until):
                assert self.outstanding
                assert until == min(self.in_time(), default=None)
            case Finished():
                self.hold_finished()

    def hold_finished(self) -> None:
        """Everybody who might be among the closest has answered, failed or is slow."""
        closest = sorted(self.answered, key=self.far)[: self.width]
        if len(closest) == self.width:
            limit = self.far(closest[-1])
            assert len(self.asked) == self.asked_max or all(
                self.far(peer) > limit for peer in self.new()
            )
            assert all(
                self.asked[peer] <= self.now or self.far(peer) > limit for peer in self.outstanding
            )
        else:
            assert not self.outstanding
            assert len(self.asked) == self.asked_max or not self.new()

    @rule(seconds=st.sampled_from([0.25, 1.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(contacts=contact_lists)
    def offer(self, contacts: list[Contact]) -> None:
        self.lookup.offer(contacts)
        self.learn(contacts)

    @rule(data=st.data(), contacts=contact_lists)
    def answer(self, data: st.DataObject, contacts: list[Contact]) -> None:
        if self.outstanding:
            peer = data.draw(st.sampled_from(sorted(self.outstanding)))
            self.lookup.on_response(peer, contacts)
            self.learn(contacts)
            self.outstanding.remove(peer)
            self.answered.add(peer)

    @rule(peer=points, contacts=contact_lists)
    def answer_unasked(self, peer: Id, contacts: list[Contact]) -> None:
        if peer not in self.outstanding:
            self.lookup.on_response(peer, contacts)

    @rule(peer=points)
    def fail(self, peer: Id) -> None:
        self.lookup.on_failure(peer)
        if peer in self.asked:
            self.outstanding.discard(peer)
            self.answered.discard(peer)
            self.failed.add(peer)

    @rule(count=st.integers(0, 10))
    def results(self, count: int) -> None:
        """The closest are those that answered, and only they."""
        expected = sorted(self.answered, key=self.far)[:count]
        assert [contact.id for contact in self.lookup.closest(count)] == expected
        assert self.lookup.counts() == (len(self.answered), len(self.failed))

    def teardown(self) -> None:
        """Once everybody asked has answered or failed, it ends, within its bound of asks."""
        if not hasattr(self, "lookup"):
            return
        for _ in range(4 * self.asked_max + 4):
            self.go_on(1.0)
            if self.outstanding and not isinstance(self.lookup.next(self.now), Ask):
                self.fail(min(self.outstanding))
        assert not self.outstanding
        assert self.lookup.next(self.now) == Finished()


TestLookup = Events.TestCase
TestLookup.settings = settings(max_examples=150, stateful_step_count=50)
