"""What of the files of a folder a mirror knows the leaves of, whatever a stranger says of them."""

from pathlib import Path

import pytest

from tests.unit.files.trees import Shelf
from xorbit.config import MIRROR_LEAVES_PER_STEP
from xorbit.files.cid import Cid, Codec
from xorbit.files.mirror import LocalLeaves, leaves_of
from xorbit.files.mirror_folder import Nodes
from xorbit.files.unixfs import DEPTH_MAX


class ReadNodes(Nodes):
    """The nodes of a shelf in a folder; notes what is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.shelf = Shelf()
        self.asked: list[Cid] = []

    def read(self, cid: Cid) -> bytes | None:
        self.asked.append(cid)
        return super().read(cid)

    def save(self) -> None:
        """Put on the disk what the shelf has."""
        for cid, data in self.shelf.held.items():
            if cid.codec is Codec.DAG_PB:
                self.write(cid, data)


@pytest.fixture
def nodes(tmp_path: Path) -> ReadNodes:
    return ReadNodes(tmp_path)


def note(leaves: LocalLeaves, nodes: Nodes, *cids: Cid, path: Path = Path("/dev/null")) -> int:
    """Note the leaves of files; return in how many steps."""
    return sum(1 for cid in cids for _ in leaves.add(lambda: path.open("rb"), cid, nodes))


def test_a_node_that_comes_again_is_read_once(nodes: ReadNodes, tmp_path: Path) -> None:
    """Three blocks may say that they are a file of a million leaves; what follows is known too."""
    shelf, path = nodes.shelf, tmp_path / "file"
    leaf, last = shelf.add(b"x", Codec.RAW), shelf.add(b"last", Codec.RAW)
    file, size = leaf, 1
    for _ in range(3):
        file, size = shelf.file_node([(file, size)] * 100), size * 100
    file = shelf.file_node([(file, size), (last, 4)])
    nodes.save()
    path.write_bytes(b"x" * size + b"last")
    leaves = LocalLeaves()
    note(leaves, nodes, file, file, path=path)
    assert len(nodes.asked) == 4
    assert (leaves.read(leaf), leaves.read(last)) == (b"x", b"last")
    leaves.close()


def test_leaves_that_are_looked_at_are_bounded(nodes: ReadNodes) -> None:
    """Over all files together, also where they are the same leaf again and again."""
    shelf = nodes.shelf
    same, other = shelf.add(b"x", Codec.RAW), shelf.add(b"y", Codec.RAW)
    first = shelf.file_node([(same, 1)] * 3)
    second = shelf.file_node([(same, 1), (other, 1)])
    nodes.save()
    for most, is_known in ((6, False), (7, True)):  # two nodes, five leaves
        leaves = LocalLeaves(most)
        note(leaves, nodes, first, second)
        assert (other in leaves) is is_known


def test_looking_may_be_stopped(nodes: ReadNodes) -> None:
    shelf = nodes.shelf
    file = shelf.file(bytes(4 * MIRROR_LEAVES_PER_STEP), chunk_bytes=1, children_max=1_000)
    nodes.save()
    assert note(LocalLeaves(), nodes, file) >= 4


def test_a_file_ends_where_its_nodes_lie(nodes: ReadNodes) -> None:
    """About a size, or where they are deeper than files may be: nothing more is gone through."""
    shelf = nodes.shelf
    leaf, last = shelf.add(b"x", Codec.RAW), shelf.add(b"last", Codec.RAW)
    file = shelf.file_node([(leaf, 1)] * 2)
    liar = shelf.file_node([(leaf, 1), (file, 3), (last, 4)])
    deep, size = leaf, 1
    for _ in range(DEPTH_MAX + 1):
        deep, size = shelf.file_node([(deep, size)] * 2), size * 2
    nodes.save()
    assert list(leaves_of(liar, nodes)) == [(leaf, 0, 1)]
    assert list(leaves_of(deep, nodes)) == []
    assert len(nodes.asked) <= 2 + DEPTH_MAX + 1
