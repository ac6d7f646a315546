"""The limits: sound as they come, and held against what they must be whenever they change."""

import msgspec
import pytest

from xorbit.config import CONTACTS_MAX, DEFAULT_LIMITS, FRAME_BYTES_MAX, LEASE_S_MAX, Limits
from xorbit.errors import MisuseError
from xorbit.items import BLOCK_BYTES_MAX

NAMES = [field.name for field in msgspec.structs.fields(Limits)]
PAIRS = [
    ("request_timeout_s_min", "request_timeout_s_max"),
    ("request_timeout_s_min", "request_timeout_s_first"),
    ("request_timeout_s_first", "request_timeout_s_max"),
    ("bootstrap_retry_s_min", "bootstrap_retry_s_max"),
    ("dial_back_s_min", "dial_back_s_max"),
    ("look_around_s_min", "look_around_s_max"),
    ("replicas", "closest_count"),
    ("handshakes_per_host_max", "handshakes_max"),
]


def test_defaults_keep_their_own_rules() -> None:
    assert Limits() == DEFAULT_LIMITS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_every_limit_is_positive(name: str, value: float) -> None:
    with pytest.raises(MisuseError, match=f"limit {name} must be positive"):
        Limits(**{name: value})


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_no_minimum_above_its_maximum(low: str, high: str) -> None:
    limit = getattr(DEFAULT_LIMITS, high)
    with pytest.raises(MisuseError, match="must not be above"):
        Limits(**{low: limit + 1})


def test_jitter_never_turns_an_interval_round() -> None:
    with pytest.raises(MisuseError, match="interval_jitter must be below 1"):
        Limits(interval_jitter=1.0)


def test_peers_never_take_all_works() -> None:
    with pytest.raises(MisuseError, match="works_share_for_peers must be below 1"):
        Limits(works_share_for_peers=1.0)


def test_answers_name_no_more_contacts_than_a_message_carries() -> None:
    """Peers would close the connection on an answer with more."""
    assert Limits(closest_count=CONTACTS_MAX).closest_count == CONTACTS_MAX
    with pytest.raises(MisuseError, match=f"closest_count must not be above {CONTACTS_MAX}"):
        Limits(closest_count=CONTACTS_MAX + 1)


def test_no_lease_is_longer_than_a_message_can_say() -> None:
    """Followers would close the connection on it."""
    assert Limits(lease_s=LEASE_S_MAX).lease_s == LEASE_S_MAX
    with pytest.raises(MisuseError, match=f"lease_s must not be above {LEASE_S_MAX}"):
        Limits(lease_s=LEASE_S_MAX + 1)


def test_replace_changes_only_what_it_names() -> None:
    changed = DEFAULT_LIMITS.replace(replicas=3)
    assert changed.replicas == 3
    assert changed.replace(replicas=DEFAULT_LIMITS.replicas) == DEFAULT_LIMITS


def test_replace_checks_again() -> None:
    with pytest.raises(MisuseError, match="limit workers must be positive"):
        DEFAULT_LIMITS.replace(workers=0)


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        DEFAULT_LIMITS.workers = 0


def test_frame_has_room_for_a_block() -> None:
    assert FRAME_BYTES_MAX > BLOCK_BYTES_MAX


def test_by_default_a_line_holds_all_that_an_honest_peer_may_have_in_flight():
    """So its requests never keep the answers behind them from being read."""
    limits = Limits()
    assert limits.workers * BLOCK_BYTES_MAX <= limits.line_bytes_max
    assert limits.workers <= limits.line_jobs_max
