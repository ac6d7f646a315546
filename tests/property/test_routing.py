"""The routing table against a dict that is searched from end to end."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.wire.strategies import ids
from xorbit.core.routing import ADDRESSES_KEPT, FAILURES_MAX, RoutingTable
from xorbit.ids import Id, as_id, as_number, bucket_index, distance, finger_point
from xorbit.items import Address

addresses = st.integers(1, 6).map(lambda port: Address("h", port))


class Known:
    """What the model knows of one contact."""

    def __init__(self, addresses: list[Address], heard_at: float) -> None:
        self.addresses = addresses
        self.heard_at = heard_at
        self.failures = 0


class Model(RuleBasedStateMachine):
    """Contacts near to our own id, near to each other and anywhere; time goes on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Id, Known] = {}
        self.seen: list[Id] = []
        self.now = 0.0

    @initialize(own=ids)
    def open(self, own: Id) -> None:
        self.own = own
        self.table = RoutingTable(own, 10_000)

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def draw_point(self, data: st.DataObject) -> Id:
        """Draw an id: one seen before, one at any scale of distance from ours, or any."""
        choices = [ids, st.integers(0, 255).map(self.near), st.just(self.own)]
        if self.seen:
            choices.append(st.sampled_from(self.seen))
        point = data.draw(st.one_of(choices))
        self.seen.append(point)
        return point

    def near(self, bit: int) -> Id:
        return as_id(as_number(self.own) ^ (1 << bit) ^ (len(self.seen) % (1 << bit)))

    @rule(data=st.data(), address=addresses)
    def prove(self, data: st.DataObject, address: Address) -> None:
        self.prove_one(self.draw_point(data), address)

    @rule(start=ids, count=st.integers(1, 60), address=addresses)
    def prove_many(self, start: Id, count: int, address: Address) -> None:
        """Prove neighbours of one point: more than are sorted at once."""
        for number in range(count):
            point = as_id(as_number(start) ^ number)
            self.seen.append(point)
            self.prove_one(point, address)

    def prove_one(self, peer: Id, address: Address) -> None:
        now = self.tick()
        self.table.proved(peer, address, now)
        if peer == self.own:
            return
        held = self.known.get(peer)
        if held is None:
            self.known[peer] = Known([address], now)
            return
        held.addresses = [address, *(a for a in held.addresses if a != address)][:ADDRESSES_KEPT]
        held.heard_at, held.failures = now, 0

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        peer, now = self.draw_point(data), self.tick()
        self.table.heard(peer, now)
        if peer in self.known:
            self.known[peer].heard_at, self.known[peer].failures = now, 0

    @rule(data=st.data(), times=st.integers(1, FAILURES_MAX))
    def fail(self, data: st.DataObject, times: int) -> None:
        peer = self.draw_point(data)
        for _ in range(times):
            self.table.failed(peer)
            if peer in self.known:
                self.known[peer].failures += 1
                if self.known[peer].failures >= FAILURES_MAX:
                    del self.known[peer]

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        peer = self.draw_point(data)
        self.table.forget(peer)
        self.known.pop(peer, None)

    @rule(data=st.data(), count=st.integers(0, 50), failing=st.booleans())
    def closest(self, data: st.DataObject, count: int, failing: bool) -> None:
        target = self.draw_point(data)
        found = self.table.closest(target, count, failing=failing)
        assert [contact.id for contact in found] == self.nearest(target, failing=failing)[:count]

    def nearest(self, target: Id, *, failing: bool = False) -> list[Id]:
        peers = [peer for peer, known in self.known.items() if failing or not known.failures]
        return sorted(peers, key=lambda peer: distance(peer, target))

    @rule(index=st.integers(0, 255))
    def finger(self, index: int) -> None:
        finger = self.table.finger(index)
        expected = self.nearest(finger_point(self.own, index))[:1]
        assert ([finger.id] if finger else []) == expected

    @invariant()
    def agree(self) -> None:
        contacts = self.table.contacts()
        assert [contact.id for contact in contacts] == sorted(self.known)
        assert len(self.table) == len(self.known)
        for contact in contacts:
            entry, known = self.table.get(contact.id), self.known[contact.id]
            assert entry is not None
            assert list(contact.addresses) == known.addresses
            assert (entry.failures, entry.heard_at) == (known.failures, known.heard_at)

    @invariant()
    def buckets_hold_each_contact_once(self) -> None:
        indices = {bucket_index(self.own, peer) for peer in self.known}
        for index in indices | {0, 128, 255}:
            expected = sorted(p for p in self.known if bucket_index(self.own, p) == index)
            assert [contact.id for contact in self.table.bucket(index)] == expected


TestRoutingTable = Model.TestCase
TestRoutingTable.settings = settings(max_examples=60, stateful_step_count=40)


@given(own=ids, budget=st.integers(1, 12), moves=st.lists(st.tuples(*[st.integers(0, 11)] * 3)))
def test_under_a_budget_the_table_keeps_to_every_limit(
    own: Id, budget: int, moves: list[tuple[int, int, int]]
) -> None:
    """Whoever enters, fails or moves: budget, subnets and newcomers are bounded, and all agree."""
    table = RoutingTable(own, budget, subnet_max=2, newcomers_max=3)
    for now, (kind, which, where) in enumerate(moves):
        peer = as_id(as_number(own) ^ (1 << (which % 4 + 3)) ^ which % 3)
        if kind < 7:
            table.proved(peer, Address(f"203.0.{where % 3}.7", 1 + where), float(now))
        elif kind < 9:
            table.failed(peer)
        elif kind < 10:
            table.heard(peer, float(now))
        else:
            table.forget(peer)
        known = table.contacts()
        assert len(known) == len(table) <= budget
        assert table.newcomers <= 3
        crowds: dict[object, int] = {}
        for contact in known:
            entry = table.get(contact.id)
            assert entry is not None
            crowds[entry.place] = crowds.get(entry.place, 0) + 1
        assert max(crowds.values(), default=0) <= 2
        assert len(table.to_test(float(now), 0.0, 0.0, 100)) <= len(known)
