"""The local network by mDNS: what is shown, what is believed, and that its failure is no error.

Nothing here sends a packet: whether multicast works where the tests run is nobody's promise.
"""

import asyncio

import pytest
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceInfo

from xorbit.core.effect import Report
from xorbit.ids import Id, id_of
from xorbit.items import Address
from xorbit.run import mdns

KEY = b"k" * 32
OWN, OTHER = id_of(b"own"), id_of(b"other")


class Heard:
    """A discovery that is never run, with what it found and reported."""

    def __init__(self, *listening: str) -> None:
        self.found: list[tuple[Id, tuple[Address, ...]]] = []
        self.reports: list[Report] = []
        self.discovery = mdns.LocalDiscovery(
            OWN,
            KEY,
            [Address(host, 4000) for host in listening],
            lambda peer, addresses: self.found.append((peer, addresses)),
            self.reports.append,
        )


def service(id: Id = OTHER, *, key: bytes = KEY, host: str = "10.0.0.2") -> AsyncServiceInfo:
    return AsyncServiceInfo(
        mdns.SERVICE,
        f"x.{mdns.SERVICE}",
        port=4000,
        parsed_addresses=[host],
        properties={"id": id.hex(), "network": mdns.network_tag(key)},
    )


def test_a_node_on_loopback_only_shows_itself_to_nobody() -> None:
    assert not mdns.is_useful([Address("127.0.0.1", 1), Address("::1", 1)])
    assert not mdns.is_useful([])
    assert mdns.is_useful([Address("10.0.0.1", 1)])


def test_what_a_node_shows_is_read_by_another_of_its_network_only() -> None:
    shown = Heard("10.0.0.2", "127.0.0.1").discovery._service()
    tag = mdns.network_tag(KEY)
    assert mdns.read_service(shown, tag) == (OWN, (Address("10.0.0.2", 4000),))
    assert mdns.read_service(shown, mdns.network_tag(b"o" * 32)) is None


def test_an_unspecified_host_stands_for_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ip:
        def __init__(self, ip: object) -> None:
            self.ip = ip

    class Adapter:
        ips = (Ip("10.0.0.2"), Ip("127.0.0.1"), Ip(("fd00::2", 0, 0)))

    monkeypatch.setattr(mdns, "get_adapters", lambda: [Adapter()])
    assert mdns._shown([Address("0.0.0.0", 1)]) == [Address("10.0.0.2", 1)]
    assert mdns._shown([Address("::", 1)]) == [Address("fd00::2", 1)]


@pytest.mark.parametrize(
    "bad",
    [
        AsyncServiceInfo(mdns.SERVICE, f"x.{mdns.SERVICE}", port=1, properties={}),
        AsyncServiceInfo(mdns.SERVICE, f"x.{mdns.SERVICE}", port=1, properties={"id": "zz"}),
        service(Id(b"short")),
        service(host="127.0.0.1"),
        service(host="203.0.113.7"),
        service(host="2001:db8::7"),
        service(host="224.0.0.1"),
    ],
    ids=["no id", "no hex", "no whole id", "loopback", "public", "public 6", "multicast"],
)
def test_a_service_that_is_of_no_use_is_passed_over(bad: AsyncServiceInfo) -> None:
    assert mdns.read_service(bad, mdns.network_tag(KEY)) is None


@pytest.mark.parametrize(
    ("listening", "version"), [(["10.0.0.1"], "V4Only"), (["fd00::1"], "V6Only")]
)
def test_only_the_versions_that_we_listen_on_are_used(listening: list[str], version: str) -> None:
    assert Heard(*listening).discovery._version().name == version
    assert Heard("10.0.0.1", "fd00::1").discovery._version().name == "All"


async def test_where_multicast_does_not_work_that_is_a_word_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: object) -> None:
        raise OSError("no such device")

    monkeypatch.setattr(mdns, "AsyncZeroconf", fail)
    heard = Heard("10.0.0.1")
    await heard.discovery.run()
    assert [(report.level, report.detail) for report in heard.reports] == [
        ("debug", "no such device")
    ]


async def test_a_service_that_shows_itself_is_asked_and_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = Heard("10.0.0.1")
    answers = {"other": service(), "own": service(OWN), "mute": None, "broken": OSError("gone")}

    class Asked:
        def __new__(cls, _: str, name: str) -> object:
            answer = answers[name]
            fake = answer if isinstance(answer, AsyncServiceInfo) else service()

            async def ask(*_: object) -> bool:
                if isinstance(answer, OSError):
                    raise answer
                return answer is not None

            holder = type("Holder", (), {"async_request": staticmethod(ask)})()
            for field in ("decoded_properties", "port"):
                setattr(holder, field, getattr(fake, field))
            holder.parsed_scoped_addresses = fake.parsed_scoped_addresses
            return holder

    monkeypatch.setattr(mdns, "AsyncServiceInfo", Asked)
    for name in answers:
        heard.discovery._changed(None, mdns.SERVICE, name, ServiceStateChange.Added)
        heard.discovery._changed(None, mdns.SERVICE, name, ServiceStateChange.Updated)
    heard.discovery._changed(None, mdns.SERVICE, "gone", ServiceStateChange.Removed)
    await asyncio.wait(list(heard.discovery._asking.values()))
    assert heard.found == [(OTHER, (Address("10.0.0.2", 4000),))]
    assert [report.level for report in heard.reports] == ["debug"]
