"""Trees that are published under a key, through a real network of three nodes."""

import os
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NETWORK, NodeProcess
from tests.edge.conftest import Command, Ran
from tests.edge.test_api import soon
from tests.edge.test_trees import LARGE, make_tree
from tests.unit.files.trees import on_disk
from xorbit import RecordPlace, UserKey, errors
from xorbit.api import Node
from xorbit.blocking import BlockingNode
from xorbit.files.local_tree import cid_of
from xorbit.keys import new_key


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def key(nodes: list[NodeProcess]) -> UserKey:
    """A fresh key in the home of the first node."""
    return new_key(nodes[0].home, f"key-{os.urandom(4).hex()}")


def publish(xorbit: Command, nodes: list[NodeProcess], key: UserKey, *words: object) -> Ran:
    done = xorbit("publish", key.name, *words, "--home", nodes[0].home)
    assert done.code == 0, done.err
    return done


def test_a_key_names_the_newest_tree(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """At any node, with a path inside; each next version is what the same name means then."""
    said = publish(xorbit, nodes, key, "--tree", tree, "--json").json
    assert (said["cid"], said["seq"], said["not_kept"]) == (str(cid_of(tree)), 1, "")
    assert said["holders_min"] == 3
    name, home = key.public_key.hex(), ("--home", nodes[2].home)
    value = xorbit("resolve", name, *home).text
    assert value == f"xorbit-tree:{cid_of(tree)}"

    got = xorbit("get", f"xorbit://{name}", "-o", tmp_path / "out", *home)
    assert (got.code, got.out) == (0, b"")
    assert f"version 1 of {name}: {cid_of(tree)}\n" in got.err
    assert on_disk(tmp_path / "out") == on_disk(tree)

    (tree / "sub" / "small").write_bytes(b"changed")
    again = publish(xorbit, nodes, key, "--tree", tree)
    assert again.text == f"version 2 of {name} held by 3 nodes\n"
    assert str(cid_of(tree)) in again.err
    small = xorbit("get", f"{name}/sub/small", *home)
    assert (small.out, small.err) == (b"changed", f"version 2 of {name}: {cid_of(tree)}\n")


def test_all_that_read_take_a_key(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """cat, ls, stat, export and get --range; of a key of one's own the name is enough."""
    publish(xorbit, nodes, key, "--tree", tree)
    name, home = key.public_key.hex(), ("--home", nodes[1].home)
    assert xorbit("cat", f"{name}/large", *home).out == LARGE
    assert xorbit("get", f"{name}/large", "--range", "5-9", *home).out == LARGE[5:10]
    listed = xorbit("ls", f"{name}/sub", "--json", *home)
    assert [entry["name"] for entry in listed.json] == ["deep", "link", "small"]
    assert f"version 1 of {name}" in listed.err
    facts = xorbit("stat", f"{name}/large", "--json", *home).json
    assert (facts["cid"], facts["public_key"], facts["seq"]) == (str(cid_of(LARGE)), name, 1)
    car = tmp_path / "x.car"
    said = xorbit("export", name, "-o", car, "--json", *home).json
    assert (said["bytes"], said["seq"]) == (car.stat().st_size, 1)
    said = xorbit("get", f"{name}/large", "-o", tmp_path / "x", "--json", *home).json
    assert (said["bytes"], said["seq"], said["cid"]) == (len(LARGE), 1, str(cid_of(tree)))
    own = ("--home", nodes[0].home)
    assert xorbit("cat", f"{key.name}/large", *own).out == LARGE
    assert xorbit("ls", key.name, *own).code == 0


def test_a_key_has_many_trees_by_salts(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path
) -> None:
    """What is published with a salt is got with the same salt, and only so."""
    publish(xorbit, nodes, key, "--tree", tree, "--salt", "näme")
    publish(xorbit, nodes, key, "--tree", tree / "sub" / "small", "--hash", "sha2-256")
    name, home = key.public_key.hex(), ("--home", nodes[1].home)
    assert xorbit("cat", f"{name}/large", "--salt", "näme", *home).out == LARGE
    assert xorbit("cat", name, *home).out == b"small"
    xorbit("cat", name, "--salt", "other", *home).failed(3, "nobody has it")
    xorbit("cat", cid_of(tree), "--salt", "x", *home).failed(2, "no public key")


def test_what_cannot_be_done_is_told(
    xorbit: Command, nodes: list[NodeProcess], key: UserKey, tree: Path, tmp_path: Path
) -> None:
    """A record of something else, a key that nobody has published under, a race that is lost."""
    name, home = key.public_key.hex(), ("--home", nodes[0].home)
    xorbit("get", name, *home).failed(3, "nobody has it")
    publish(xorbit, nodes, key, "release 1.4")
    for command in ("get", "cat", "ls", "stat"):
        xorbit(command, name, *home).failed(3, f"version 1 of the record of {name} points to no")
    xorbit("export", name, "-o", tmp_path / "x", *home).failed(3, "points to no tree")
    xorbit("publish", key.name, "x", "--tree", tree, *home).failed(2, "one of them")
    xorbit("publish", key.name, "--tree", tmp_path / "no", *home).failed(2, "there is none at")
    stale = xorbit("publish", key.name, "--tree", tree, "--cas", 0, *home)
    assert (stale.code, stale.out) == (5, b"")
    xorbit("get", "no-such-key", *home).failed(2, "expected a name such as")
    publish(xorbit, nodes, key, "--tree", tree)
    said = xorbit("get", f"{name}/nowhere", *home)
    assert (said.code, said.out) == (3, b"")
    assert "has no entry 'nowhere'" in said.err


async def test_programs_have_the_same(tree: Path, tmp_path: Path) -> None:
    """A name may be a key, or a place that goes by a record with a salt."""
    key = new_key(tmp_path / "home", "me")
    async with Node(tmp_path / "a", listen="127.0.0.1:0", network=NETWORK) as node:
        done = await soon(node.publish_tree(key, tree, salt=b"s"))
        assert (done.put.cid, done.record.seq) == (cid_of(tree), 1)
        place = RecordPlace(key.public_key, b"s", ("large",))
        assert await soon(node.get_file(place)) == LARGE
        version = await soon(node.newest_tree(place))
        assert (version.seq, version.cid) == (1, cid_of(tree))
        with pytest.raises(errors.NotFoundError):
            await soon(node.ls(key.public_key.hex()))
        with pytest.raises(errors.StaleError):
            await soon(node.publish_tree(key, tree / "sub", salt=b"s", cas=0))


def test_scripts_have_the_same(tree: Path, tmp_path: Path) -> None:
    key = new_key(tmp_path / "home", "me")
    with BlockingNode(Node(tmp_path / "a", listen="127.0.0.1:0", network="trees")) as node:
        node.publish_tree(key, tree)
        place = RecordPlace(key.public_key)
        assert node.newest_tree(place).cid == cid_of(tree)
        assert node.get_tree(place, tmp_path / "out").files == 64
        assert node.get_file(f"{key.public_key.hex()}/large") == LARGE
