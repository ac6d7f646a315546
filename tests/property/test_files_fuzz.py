"""Damaged bytes by the thousand: whatever a reader of files is given, only our own errors come out.

Seeded, so a failure comes again: its message says the round. `XORBIT_FUZZ_ROUNDS` makes more.
"""

import os
import random
from collections.abc import Callable
from io import BytesIO

import pytest

from tests.unit.files.trees import Shelf
from xorbit.errors import FormatError, MisuseError, XorbitError
from xorbit.files.car import CarReader, decode_header, encode_header
from xorbit.files.cid import Cid, Codec, decode_cid, parse_cid, parse_place
from xorbit.files.dag_pb import decode_node, encode_node
from xorbit.files.directory import SymbolicLink
from xorbit.files.nodes import parse_node
from xorbit.files.tree import all_blocks, drive, finish, list_directory, read_file, resolve, walk
from xorbit.files.unixfs import parse_file_node
from xorbit.files.unixfs_data import decode_data, encode_data
from xorbit.files.visits import SeenBlocks, Visits

ROUNDS = int(os.environ.get("XORBIT_FUZZ_ROUNDS", "2000"))
ODD_BYTES = (0x00, 0x01, 0x0A, 0x12, 0x18, 0x20, 0x7F, 0x80, 0xFF)


def tree() -> tuple[Shelf, Cid]:
    """Return a tree of every kind of node."""
    shelf = Shelf()
    leaf = shelf.add(b"leaf", Codec.RAW)
    large = shelf.directory({f"name {number}": leaf for number in range(1_200)})
    file = shelf.file(bytes(range(60)))
    small = shelf.directory({"a": leaf, "b": file, "ä": shelf.link("../b"), "empty": large})
    return shelf, shelf.directory({"large": large, "small": small, "file": file})


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them changed, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 8, 40))
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice(ODD_BYTES)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * rng.randrange(1, 4)
            case 4:
                changed[at:at] = rng.randbytes(length)
            case _:
                del changed[at:]
    return bytes(changed)


def fuzz(samples: list[bytes], read: Callable[[bytes], object], seed: int) -> None:
    """Give a reader damaged samples; only errors that blame the bytes may come out."""
    rng = random.Random(seed)
    refused = 0
    for number in range(ROUNDS):
        data = damage(rng.choice(samples), rng)
        try:
            read(data)
        except (FormatError, MisuseError):
            refused += 1
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}: {data[:2_000].hex()}")
            raise
    assert refused > ROUNDS // 4, "the damage must do something"


def nodes() -> list[bytes]:
    shelf, _ = tree()
    return [data for cid, data in shelf.held.items() if cid.codec is Codec.DAG_PB]


def test_nodes() -> None:
    """A damaged dag-pb node is refused, or is the one encoding of another node."""

    def read(data: bytes) -> None:
        assert encode_node(decode_node(data)) == data

    fuzz(nodes(), read, 1)


def test_trees_of_one_node() -> None:
    """A damaged block of a tree is refused, or is some other node of a tree."""
    fuzz(nodes(), parse_node, 2)
    fuzz(nodes(), parse_file_node, 3)


def test_unixfs_data() -> None:
    """Damaged UnixFS data is refused, or is the one encoding of other data."""

    def read(data: bytes) -> None:
        assert encode_data(decode_data(data)) == data

    fuzz([decode_node(data).data or b"" for data in nodes()], read, 4)


def test_names() -> None:
    """A damaged name is refused, or is the one form of another name."""
    _, root = tree()

    def read_bytes(data: bytes) -> None:
        assert bytes(decode_cid(data)) == data

    def read_text(data: bytes) -> None:
        text = data.decode(errors="surrogateescape")
        assert str(parse_cid(text)) in text

    def read_place(data: bytes) -> None:
        place = parse_place(data.decode(errors="surrogateescape"))
        assert parse_place(str(place)) == place

    fuzz([bytes(root)], read_bytes, 5)
    fuzz([str(root).encode(), f"ipfs://{root}".encode()], read_text, 6)
    fuzz([f"xorbit://{root}/a/b".encode(), f"{root}/a".encode()], read_place, 7)


def test_cars() -> None:
    """A damaged CAR is refused, and each block that is given out before has its name."""
    shelf, root = tree()
    whole = shelf.car(root)
    small = shelf.car(shelf.file(b"0123456789"))

    def read(data: bytes) -> None:
        for cid, block in CarReader(BytesIO(data)):
            assert shelf.held[cid] == block

    def read_header(data: bytes) -> None:
        roots = decode_header(data)
        assert encode_header(roots).endswith(data)

    fuzz([whole.getvalue()[:20_000], small.getvalue()], read, 8)
    fuzz([encode_header([root])[1:], encode_header([root] * 30)[2:]], read_header, 9)


@pytest.mark.parametrize("seed", [10, 11])
def test_trees(seed: int) -> None:
    """A tree in which any block is damaged (as if it had been made so) is refused, or read."""
    shelf, root = tree()
    rng = random.Random(seed)
    inner = [cid for cid in shelf.held if cid.codec is Codec.DAG_PB]
    weights = [10 if cid == root or len(shelf.held[cid]) < 500 else 1 for cid in inner]
    for number in range(ROUNDS // 20):
        [victim] = rng.choices(inner, weights)
        lie = damage(shelf.held[victim], rng)
        held = shelf.held | {victim: lie}
        try:
            read_everything(held, root)
        except (XorbitError, KeyError):  # KeyError: the damage is in a name of a block
            pass
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}: {lie[:2_000].hex()}")
            raise


def read_everything(held: dict[Cid, bytes], root: Cid) -> None:
    get = held.__getitem__
    found = finish(resolve(root, []), get)
    for entry in drive(walk(found, Visits(1_000, 5_000)), get):
        if entry.found.is_directory:
            list(drive(list_directory(entry.found), get))
        elif not isinstance(entry.found.node, SymbolicLink):
            list(drive(read_file(entry.found), get))
    for path in (["large", "name 7"], ["small", "b"]):
        finish(resolve(root, path), get)
    finish(all_blocks(root, SeenBlocks(5_000, 100)), get)
