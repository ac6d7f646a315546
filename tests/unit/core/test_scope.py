"""Scopes: which addresses mean something to whom."""

import pytest

from xorbit.core import scope
from xorbit.core.scope import (
    Scope,
    contacts_in_scope,
    is_unspecified,
    may_meet,
    scope_of,
    subnet_of,
    within_scope,
)
from xorbit.ids import id_of
from xorbit.items import Address, Contact, make_block
from xorbit.wire.message import Closest, Found, Next, Pong

BOTH = Contact(id_of(b"both"), (Address("192.168.1.5", 1), Address("203.0.113.5", 1)))
HOME = Contact(id_of(b"home"), (Address("10.0.0.1", 1), Address("127.0.0.1", 1)))


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("203.0.113.1", Scope.PUBLIC),
        ("2001:db8::1", Scope.PUBLIC),
        ("node.example", Scope.PUBLIC),
        ("10.1.2.3", Scope.PRIVATE),
        ("172.31.0.1", Scope.PRIVATE),
        ("192.168.0.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("::ffff:10.0.0.1", Scope.PRIVATE),
        ("169.254.1.1", Scope.LINK_LOCAL),
        ("fe80::1%eth0", Scope.LINK_LOCAL),
        ("127.3.2.1", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("0.0.0.0", Scope.NOWHERE),
        ("::", Scope.NOWHERE),
        ("224.0.0.251", Scope.NOWHERE),
        ("255.255.255.255", Scope.NOWHERE),
        ("0.1.2.3", Scope.NOWHERE),
        ("240.0.0.1", Scope.NOWHERE),
        ("fec0::1", Scope.PRIVATE),
        ("64:ff9b:1::1", Scope.PRIVATE),
    ],
)
def test_how_far_an_address_reaches(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


@pytest.mark.parametrize(
    "clothes",
    [
        "::ffff:{0}.{1}.{2}.{3}",
        "::ffff:0:{0}.{1}.{2}.{3}",
        "::{0}.{1}.{2}.{3}",
        "64:ff9b::{0}.{1}.{2}.{3}",
        "2002:{0:02x}{1:02x}:{2:02x}{3:02x}::1",
        "2001:0:101:101:0:0:{4:02x}{5:02x}:{6:02x}{7:02x}",
    ],
    ids=["mapped", "translated", "compatible", "NAT64", "6to4", "Teredo"],
)
def test_an_ipv4_address_reaches_as_far_in_any_ipv6_clothes(clothes: str) -> None:
    """A peer could else have us dial into our own network by another spelling."""
    for host in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "203.0.113.7", "224.0.0.1"):
        parts = [int(part) for part in host.split(".")]
        dressed = clothes.format(*parts, *(255 - part for part in parts))
        assert scope_of(dressed) is scope_of(host)
        assert subnet_of(dressed) == subnet_of(host)


def test_an_unspecified_host_is_told_by_its_form() -> None:
    assert is_unspecified(Address("::", 1))
    assert is_unspecified(Address("0.0.0.0", 1))
    assert not is_unspecified(Address("node.example", 1))


@pytest.mark.parametrize(
    ("peer", "host", "yes"),
    [
        ("203.0.113.1", "203.0.113.2", True),
        ("203.0.113.1", "10.0.0.1", False),
        ("203.0.113.1", "127.0.0.1", False),
        ("203.0.113.1", "169.254.0.1", False),
        ("10.0.0.1", "203.0.113.2", True),
        ("10.0.0.1", "192.168.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("169.254.0.1", "10.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("127.0.0.1", "0.0.0.0", False),
    ],
)
def test_hosting_companies_banned_nodes_for_dialling_private_addresses(
    peer: str, host: str, yes: bool
) -> None:
    """Private, loopback and link-local addresses pass only between peers of the same scope."""
    assert may_meet(peer, host) is yes


def test_answers_carry_only_what_means_something_to_the_other_end() -> None:
    public = Contact(BOTH.id, BOTH.addresses[1:])
    assert within_scope(Closest((BOTH, HOME)), "203.0.113.9") == Closest((public,))
    assert within_scope(Closest((BOTH, HOME)), "127.0.0.1") == Closest((BOTH, HOME))
    block = make_block(b"")
    assert within_scope(Found(block, (BOTH, HOME)), "203.0.113.9") == Found(block, (public,))
    assert within_scope(Found(block, (BOTH,)), "10.0.0.9") == Found(block, (BOTH,))
    assert within_scope(Found(block), "203.0.113.9") == Found(block)
    assert within_scope(Next(HOME, 3), "203.0.113.9") == Next(Contact(HOME.id, ()), 3)
    assert within_scope(Pong(), "203.0.113.9") == Pong()
    kept = Contact(HOME.id, HOME.addresses[:1])
    assert contacts_in_scope((BOTH, HOME), "10.0.0.9") == (BOTH, kept)
    nowhere = Contact(id_of(b"nowhere"))
    assert contacts_in_scope((nowhere, BOTH), "10.0.0.9") == (BOTH,)
    unspecified = Contact(id_of(b"unspecified"), (Address("0.0.0.0", 1),))
    assert contacts_in_scope((unspecified, HOME), "0.0.0.0") == (HOME,)


def test_who_stands_close_together() -> None:
    assert subnet_of("203.0.113.1") == subnet_of("203.0.113.200") != subnet_of("203.0.114.1")
    assert (
        subnet_of("2001:db8:1:2::3") == subnet_of("2001:db8:1:ffff::") != subnet_of("2001:db8:2::")
    )
    assert subnet_of("::ffff:203.0.113.7") == subnet_of("203.0.113.1")
    for host in ("10.0.0.1", "127.0.0.1", "fe80::1", "node.example"):
        assert subnet_of(host) is None


def test_what_is_remembered_of_public_hosts_is_bounded_and_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scope, "HOSTS_REMEMBERED", 4)
    away = tuple(
        Contact(id_of(bytes([number])), (Address(f"8.8.{number}.8", 1),)) for number in range(40)
    )
    for number in range(40):
        assert contacts_in_scope(away[number : number + 2], "9.9.9.9") == away[number : number + 2]
        assert contacts_in_scope((away[number], HOME), "9.9.9.9") == (away[number],)
        assert len(scope._public) <= 4 + 2
