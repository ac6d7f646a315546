"""Addresses, over real sockets: our own in any form, names with several, IPv6, dead ones."""

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.edge.cli_nodes import WITHIN_S, Deadline, NodeProcess
from tests.edge.nodes import DEADLINE_S, House, within
from xorbit.api import Node, connect
from xorbit.config import DEFAULT_LIMITS
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.identity import open_network
from xorbit.items import Address, parse_address

OTHER = open_network("another network")


@pytest.fixture
async def house() -> AsyncGenerator[House]:
    async with House() as house:
        yield house


Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Give names some addresses, as a hosts file does, in the order of preference."""
    known: dict[str, tuple[str, ...]] = {}
    look_up = socket.getaddrinfo

    def answer(host: str, *rest: object, **options: object) -> list[object]:
        hosts = known.get(host, (host,))
        return [found for each in hosts for found in look_up(each, *rest, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return lambda name, *hosts: known.update({name: hosts})


def dead_address(host: str = "127.0.0.1") -> Address:
    """Return an address at which nobody listens."""
    with socket.create_server((host, 0)) as server:
        return Address(*server.getsockname())


def needs_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6 loopback")


# --- Ourselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "form"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "ourselves.example"),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "::ffff:127.0.0.1"),
        ("127.0.0.1", "::ffff:7f00:1"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.8.8.8"),
        ("0.0.0.0", "::ffff:127.0.0.1"),
        ("::1", "::1"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("::", "::1"),
        ("::", "ourselves6.example"),
    ],
)
async def test_a_node_given_its_own_address_says_so_and_is_not_connected_to_itself(
    house: House, names: Names, listening: str, form: str
) -> None:
    """In any form; and what else it was given works as ever."""
    if ":" in listening:
        needs_ipv6()
    names("ourselves.example", "127.0.0.1")
    names("ourselves6.example", "::1")
    node = house.make()
    await node.driver.start([Address(listening, 0)])
    listens = await node.jobs.until(jobs.Listening)
    own = Address(form, listens.addresses[0].port)
    await node.join(own)
    said = [report for report in node.reports.all(fx.Report) if report.level == "warning"]
    assert [str(own) in report.detail for report in said] == [True]
    assert "itself" in said[0].event or "it is ourselves" in said[0].detail
    assert node.jobs.all(jobs.ConnectionOpened) == []
    assert own not in node.driver.machine.state.knowns
    other = await house.node()
    assert isinstance(await node.join(own, other.address), fx.Joined)
    assert list(node.driver.machine.state.link_of) == [other.id]


def test_a_user_who_gives_a_node_its_own_address_reads_it_in_the_log(tmp_path: Path) -> None:
    address = dead_address()
    with NodeProcess(tmp_path, bootstrap=str(address), listen=str(address)) as node:
        assert node.address == str(address)
        assert f"this is the node itself: {address}" in node.log.read_text()


# --- Names with several addresses -----------------------------------------------------------------


async def test_of_the_addresses_of_a_name_the_one_that_works_is_found(
    house: House, names: Names
) -> None:
    """Though the first refuses, and the second says nothing."""
    first = await house.node()
    with socket.create_server(("127.0.0.3", first.address.port)):  # takes connections, says nothing
        names("many.example", "127.0.0.2", "127.0.0.3", "127.0.0.1")
        node = await house.client(limits=DEFAULT_LIMITS.replace(dial_timeout_s=1.0))
        joined = await node.join(Address("many.example", first.address.port))
        assert isinstance(joined, fx.Joined)
        opened = await node.jobs.until(jobs.ConnectionOpened)
        assert (opened.peer, opened.address) == (first.id, first.address)


async def test_of_a_name_without_any_working_address_each_is_told_of(
    house: House, names: Names
) -> None:
    names("many.example", "127.0.0.2", "127.0.0.1")
    dead = dead_address()
    node = await house.client()
    failed = await node.join(Address("many.example", dead.port))
    assert isinstance(failed, fx.Failed)
    [(_, why)] = failed.tried
    assert why == "127.0.0.2: Connection refused; 127.0.0.1: Connection refused"


# --- IPv6 -----------------------------------------------------------------------------------------


async def test_three_nodes_make_a_network_over_ipv6(tmp_path: Path) -> None:
    needs_ipv6()
    async with AsyncExitStack() as stack, within():
        nodes: list[Node] = []
        for name in "abc":
            known = [str((await nodes[0].status()).listening[0])] if nodes else []
            node = Node(tmp_path / name, listen="[::1]:0", bootstrap=known, network="six")
            nodes.append(await stack.enter_async_context(node))
        [address] = (await nodes[1].status()).node.addresses
        assert str(address) == f"[::1]:{address.port}"
        assert parse_address(str(address)) == address
        receipt = await nodes[2].put_block(b"over IPv6")
        assert len(receipt.holders) == 3
        assert await nodes[0].get_block(receipt.cid) == b"over IPv6"
        wanted = (await nodes[1].status()).id
        for _ in Deadline(DEADLINE_S):
            if {peer.id for peer in await nodes[2].contacts()} >= {wanted}:
                break
        assert {contact.addresses for contact in await nodes[2].contacts()} == {
            (await node.status()).node.addresses for node in nodes[:2]
        }


# --- Nobody there, at first -----------------------------------------------------------------------


async def test_a_bootstrap_that_fails_says_what_was_tried_and_what_happened_at_each(
    house: House, names: Names
) -> None:
    names("nowhere.example", "no such address")
    node = await house.client(limits=DEFAULT_LIMITS.replace(dial_timeout_s=1.0))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead, mute = dead_address(), Address(*silent.getsockname())
        nameless = Address("nowhere.example", 1)
        stranger = await (await house.peer(network=OTHER)).listen()
        failed = await node.join(dead, mute, nameless, stranger)
    assert isinstance(failed, fx.Failed)
    why = dict(failed.tried)
    assert why[dead] == "Connection refused"
    assert why[mute] == "no answer within 1 s"
    assert why[nameless].startswith("the name cannot be resolved: ")
    assert "network" in why[stranger]
    said = await node.reported("no way into the network")
    for address in (dead, mute, nameless, stranger):
        assert f"{address}: {why[address]}" in said.detail


async def test_a_node_whose_first_address_is_dead_keeps_trying_and_joins_when_it_comes_alive(
    tmp_path: Path,
) -> None:
    """It says what it tried each time."""
    late = dead_address()
    with NodeProcess(tmp_path / "early", bootstrap=str(late)) as early:
        said = f"no way into the network: {late}: Connection refused"
        for _ in Deadline(WITHIN_S):
            if early.log.read_text().count(said) >= 3:
                break
        with NodeProcess(tmp_path / "late", listen=str(late)) as other:
            client = await connect(early.home)
            for _ in Deadline(WITHIN_S):
                if [peer.id.hex() for peer in await client.peers()] == [other.id]:
                    break
            await client.close()
            for _ in Deadline(WITHIN_S):
                if "joined the network" in early.log.read_text():
                    break
        assert "joined the network: 1 peer\n" in early.log.read_text()
