"""Which connection gives way where there are too many: strangers first, whom we want last."""

from tests.world import Node, World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core import links
from xorbit.core.state import Dialling
from xorbit.ids import Guid, Id, id_of
from xorbit.items import Address, block_key
from xorbit.wire.message import Get, Ping, Pong

LIMITS = Limits(maintenance_interval_s=1e6, connections_max=3, neighbours_connected=1)
NAMES = "abcdefgh"


def peer(name: str) -> Id:
    return id_of(name.encode())


def link(name: str) -> Guid:
    return Guid(peer(name)[:16])


def quiet_node(limits: Limits = LIMITS) -> Node:
    return World().node(limits=limits.replace(kept_connections_max=1))


def opened(node: Node, name: str, host: str = "10.0.0.9", *, dialled: bool = False) -> str:
    """Let a peer connect; return whom this costs the connection."""
    dial = Guid(peer(name)[16:]) if dialled else None
    if dial is not None:
        node.machine.state.dials[dial] = Dialling(dial, (), None)
    node.world.now += 1.0
    effects = node.step(jobs.ConnectionOpened(link(name), peer(name), Address(host, 4000), dial))
    for effect in effects:
        if isinstance(effect, fx.Send):
            assert isinstance(effect.envelope.body, Ping)
            ping = effect.envelope
            node.step(jobs.HandleResponse(link(name), ping.guid, ping.work, Pong()))
    closed = [effect.connection for effect in effects if isinstance(effect, fx.Close)]
    for connection in closed:
        node.step(jobs.ConnectionLost(connection))
    return "".join(name for name in NAMES if link(name) in closed)


def keep_busy(node: Node, name: str) -> None:
    """Let a peer ask for what our disk has yet to read."""
    guid = link(name)
    node.step(jobs.HandleRequest(guid, guid, guid, Get(block_key(b""))))


def test_strangers_that_dialled_us_give_way_before_anybody_that_we_know() -> None:
    node = quiet_node()
    for name in "abc":
        assert opened(node, name, dialled=True) == ""
    (nearest,) = node.machine.state.table.closest(node.id, 1)
    unwanted = [name for name in "abc" if peer(name) != nearest.id]
    assert opened(node, "d") == unwanted[0]
    assert opened(node, "e") == "d"
    assert opened(node, "f", dialled=True) == "e"


def test_neighbours_stay_connected_in_a_crowd_of_strangers() -> None:
    node = quiet_node(LIMITS.replace(neighbours_connected=8))
    for name in "abc":
        assert opened(node, name, dialled=True) == ""
    assert opened(node, "d") == "d"
    assert opened(node, "e", dialled=True) == "a"


def test_strangers_that_keep_us_busy_cannot_shut_us_in() -> None:
    node = quiet_node()
    for name in "abc":
        assert opened(node, name) == ""
        keep_busy(node, name)
    assert opened(node, "d") == "d"
    assert opened(node, "e", dialled=True) == "a"


def test_one_public_subnet_takes_only_its_share_of_the_connections() -> None:
    node = quiet_node(Limits(maintenance_interval_s=1e6, subnet_connections_max=2))
    assert opened(node, "a", "198.51.100.1") == ""
    assert opened(node, "b", "198.51.100.2") == ""
    assert opened(node, "c", "203.0.113.1") == ""
    assert opened(node, "d", "198.51.100.3") == "a"
    assert opened(node, "e", "198.51.100.4", dialled=True) == ""
    assert opened(node, "f", "10.0.0.1") == ""


def test_a_flood_of_strangers_pushes_no_neighbour_out() -> None:
    world = World()
    nodes = world.network(12)
    victim = world.node(limits=Limits(connections_max=24))
    assert nodes[0].address is not None
    world.outcome(victim, victim.bootstrap(nodes[0].address))
    world.run(60.0)
    strangers = [world.node(listen=False) for _ in range(24)]
    for _ in range(4):
        for stranger in strangers:
            if not stranger.links_to(victim):
                stranger.connect(victim)
        world.run(2.0)
        assert all(node.id in victim.machine.state.link_of for node in nodes)


def test_a_connection_that_is_being_closed_takes_no_place() -> None:
    node = quiet_node(LIMITS.replace(subnet_connections_max=1))
    for name, host in (("a", "198.51.100.1"), ("b", "10.0.0.1"), ("c", "10.0.0.2")):
        assert opened(node, name, host) == ""
    links.close(node.machine.state, node.machine.state.links[link("a")], "it leaves")
    node.machine.state.effects.clear()
    assert opened(node, "d", "10.0.0.3") == ""
    node.step(jobs.ConnectionLost(link("b")))
    node.step(jobs.ConnectionLost(link("c")))
    assert opened(node, "e", "198.51.100.2") == ""
