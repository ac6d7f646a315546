"""Publishing: whose version comes next, what is tried again, and when it is given up."""

import pytest
from nacl.signing import SigningKey

from xorbit import errors
from xorbit.config import DEFAULT_LIMITS
from xorbit.core.effect import PutDone
from xorbit.ids import Id
from xorbit.items import SEQUENCE_MAX, Record, check
from xorbit.keys import UserKey
from xorbit.run.publish import TRIES_MAX, PublishReceipt, publish
from xorbit.wire.message import Receipt

KEY = UserKey(SigningKey(bytes(range(32))))
HERE, THERE = Id(b"h" * 32), Id(b"t" * 32)
STORED, REFUSED = Receipt(HERE, "stored"), Receipt(THERE, "refused", "stale")
WON = PutDone((STORED,), won=True)
UNDECIDED = PutDone((STORED, REFUSED))


def version_of(seq: int, value: bytes = b"other") -> Record:
    return KEY.sign(seq, value)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a publish has waited between its tries; no test waits really."""
    waited: list[float] = []

    async def sleep(wait_s: float) -> None:
        waited.append(wait_s)

    monkeypatch.setattr("xorbit.run.publish.sleep", sleep)
    return waited


class Network:
    """Answers stores with what the test says; `held` is what a reader finds."""

    def __init__(self, *answers: PutDone, held: Record | None = None) -> None:
        self.answers = list(answers)
        self.held = held
        self.stores: list[tuple[int, int]] = []
        """The sequence number and the `cas` of each store."""
        self.records: list[Record] = []

    async def put_record(self, record: Record, cas: int) -> PutDone:
        check(record)
        self.stores.append((record.seq, cas))
        self.records.append(record)
        return self.answers.pop(0)

    async def resolve(self, public_key: bytes, salt: bytes = b"") -> Record:
        assert public_key == KEY.public_key
        if self.held is None:
            raise errors.NotFoundError("nobody has it")
        return self.held


async def put(network: Network, cas: int | None = None, value: bytes = b"ours") -> PublishReceipt:
    return await publish(network, KEY, value, salt=b"", cas=cas)


async def test_the_first_version_has_number_one() -> None:
    network = Network(WON)
    receipt = await put(network)
    assert network.stores == [(1, 0)]
    assert (receipt.public_key, receipt.salt, receipt.seq) == (KEY.public_key, b"", 1)
    assert (receipt.holders, receipt.receipts) == ((HERE,), (STORED,))


async def test_a_version_comes_after_the_newest() -> None:
    network = Network(WON, held=version_of(6))
    assert (await put(network)).seq == 7
    assert network.stores == [(7, 6)]


async def test_with_cas_nothing_is_read_first() -> None:
    network = Network(WON, held=version_of(9))
    assert (await put(network, cas=3)).seq == 4
    assert network.stores == [(4, 3)]


async def test_with_cas_a_lost_race_is_told_with_the_newer_record() -> None:
    """Also when the values' order would put ours above: who was first has won."""
    for value in (b"a", b"z"):
        newer = version_of(4, value)
        network = Network(PutDone((REFUSED,), newer))
        with pytest.raises(errors.StaleError, match="expected sequence 3, version 4") as stale:
            await put(network, cas=3, value=b"m")
        assert stale.value.newer == newer
        assert len(network.stores) == 1


class Refusing(Network):
    """Nobody takes anything."""

    async def put_record(self, record: Record, cas: int) -> PutDone:
        raise errors.NotStoredError("no node stored it: stale")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (7, "nobody holds: expected sequence 999, the newest is 7"),
        (None, "nobody holds: expected sequence 999, there is none yet"),
        (1200, "expected sequence 999, version 1200"),
    ],
)
async def test_with_a_cas_that_is_not_the_newest_that_is_said(held: int | None, said: str) -> None:
    """Older or newer: it is stale all the same, and the version that stands is named."""
    newest = version_of(held) if held else None
    with pytest.raises(errors.StaleError, match=said) as stale:
        await put(Refusing(held=newest), cas=999)
    assert stale.value.newer == newest


async def test_where_the_cas_is_right_but_nobody_takes_it_that_is_said() -> None:
    with pytest.raises(errors.NotStoredError, match="no node stored it"):
        await put(Refusing(held=version_of(9)), cas=9)


@pytest.mark.parametrize("cas", [-1, SEQUENCE_MAX])
async def test_a_cas_out_of_range_is_told_the_range(cas: int) -> None:
    with pytest.raises(errors.MisuseError, match=rf"0\.\.{SEQUENCE_MAX - 1}"):
        await put(Network(), cas=cas)


async def test_a_race_that_is_lost_to_an_equal_value_is_won() -> None:
    """The same value at the same number is the same record, whoever stored it."""
    network = Network(PutDone((STORED, REFUSED), version_of(4, b"ours")), WON)
    assert (await put(network, cas=3)).seq == 4


async def test_without_cas_a_lost_race_is_run_again_after_the_winner() -> None:
    network = Network(PutDone((REFUSED,), version_of(1)), PutDone((REFUSED,), version_of(5)), WON)
    assert (await put(network)).seq == 6
    assert network.stores == [(1, 0), (2, 1), (6, 5)]


async def test_a_writer_who_always_loses_gives_up() -> None:
    lost = [PutDone((REFUSED,), version_of(seq)) for seq in range(1, TRIES_MAX + 1)]
    network = Network(*lost)
    with pytest.raises(errors.StaleError) as stale:
        await put(network)
    assert stale.value.newer == version_of(TRIES_MAX)
    assert len(network.stores) == TRIES_MAX


async def test_while_nobody_knows_who_has_won_the_same_record_is_stored_again() -> None:
    network = Network(UNDECIDED, UNDECIDED, WON, held=None)
    assert (await put(network, cas=0)).seq == 1
    assert len({record.signature for record in network.records}) == 1
    assert network.stores == [(1, 0)] * 3


async def test_what_a_reader_finds_decides_as_well() -> None:
    """A newer record that no holder named in its refusal, but that is there."""
    network = Network(UNDECIDED, held=version_of(1, b"z"))
    with pytest.raises(errors.StaleError):
        await put(network, cas=0)


async def test_where_neither_can_have_most_the_greater_value_is_stored_again_and_wins(
    waits: list[float],
) -> None:
    """What was read has been mended meanwhile; the writer of the lesser one is told so."""
    split = PutDone((STORED, REFUSED), version_of(1, b"a"))
    network = Network(split, WON, held=version_of(1, b"a"))
    assert (await put(network, cas=0)).seq == 1
    assert waits == []
    assert network.stores == [(1, 0)] * 2
    network = Network(PutDone((STORED, REFUSED), version_of(1, b"z")), held=version_of(2, b"b"))
    with pytest.raises(errors.StaleError) as stale:
        await put(network, cas=0)
    assert stale.value.newer == version_of(2, b"b")


async def test_who_has_most_but_not_the_greatest_bytes_puts_its_value_above() -> None:
    network = Network(PutDone((STORED,) * 4, version_of(4, b"z"), votes="ours"), WON)
    receipt = await put(network, cas=3)
    assert (receipt.seq, receipt.record.value) == (5, b"ours")
    assert network.stores == [(4, 3), (5, 4)]


@pytest.mark.parametrize("won", [True, False])
async def test_who_cannot_have_most_though_its_bytes_are_greater_puts_the_winner_above(
    won: bool,
) -> None:
    rival, later = version_of(4, b"a"), version_of(6, b"later")
    above = WON if won else PutDone((REFUSED,), later)
    network = Network(PutDone((STORED, REFUSED), rival, votes="theirs"), above)
    with pytest.raises(errors.StaleError) as stale:
        await put(network, cas=3)
    assert stale.value.newer == (version_of(5, b"a") if won else later)
    assert network.stores == [(4, 3), (5, 4)]
    assert network.records[1].value == b"a"


async def test_what_stays_undecided_is_said_with_what_to_do(waits: list[float]) -> None:
    """After tries for longer than neighbours need to see that somebody has gone."""
    network = Network(*[UNDECIDED] * TRIES_MAX)
    with pytest.raises(errors.NotStoredError, match=r"only 1 of 2 nodes .* again with cas 0"):
        await put(network, cas=0)
    silent = Network(*[PutDone((STORED,))] * TRIES_MAX)
    with pytest.raises(errors.NotStoredError, match="1 nodes took it, but more than one did not"):
        await put(silent, cas=0)
    del waits[: TRIES_MAX - 1]
    limits = DEFAULT_LIMITS
    assert len(waits) == TRIES_MAX - 1
    assert sum(waits) > limits.lost_look_s * (1 + limits.interval_jitter)


@pytest.mark.parametrize("cas", [-1, 2**63 - 1])
async def test_a_cas_out_of_bounds_is_the_callers_mistake(cas: int) -> None:
    with pytest.raises(errors.MisuseError):
        await put(Network(), cas=cas)
