"""What may be typed at a node's standard input."""

from tests.world import Node, World
from xorbit.core import job as jobs


def type_in(node: Node, line: str) -> list[str]:
    """Type a line and return what is shown for it."""
    before = len(node.shown)
    node.push(jobs.HandleStdinLine(line))
    node.world.run(0.001)
    return node.shown[before:]


def test_help_lists_every_command() -> None:
    (text,) = type_in(World().node(), "help")
    assert [line.split()[0] for line in text.splitlines()] == ["help", "status", "peers", "stop"]


def test_an_unknown_command_is_answered_with_the_list() -> None:
    node = World().node()
    (text,) = type_in(node, "frobnicate now")
    first, rest = text.split("\n", 1)
    assert first == "unknown command 'frobnicate'"
    assert [rest] == type_in(node, "HELP")


def test_an_empty_line_is_answered_with_nothing() -> None:
    assert type_in(World().node(), "  ") == []


def test_status_says_who_and_where_the_node_is() -> None:
    one, other = World().pair()
    (text,) = type_in(one, "status")
    assert text == (
        f"id {one.id.hex()}\nlistening at {one.address}\n1 contacts, 1 peers connected, "
        "0 works in progress"
    )
    client = World().node(listen=False)
    (text,) = type_in(client, "status")
    assert "listening at nowhere (a client)" in text
    del other


def test_peers_lists_who_is_connected_in_the_order_of_their_ids() -> None:
    world = World()
    nodes = world.network(3)
    (text,) = type_in(nodes[0], "peers")
    ids = [line.split()[0] for line in text.splitlines()]
    assert ids == sorted(node.id.hex() for node in nodes[1:])
    assert type_in(world.node(), "peers") == ["no peers"]


def test_stop_ends_the_node_as_a_signal_would() -> None:
    node = World().node()
    assert type_in(node, "stop") == ["stopping"]
    assert node.stopped
