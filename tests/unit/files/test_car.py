"""CARs: what was written is read back, block by block, and whatever is damaged is named."""

import errno
from io import BytesIO
from pathlib import Path

import pytest

from tests.unit.files.fakes import SlowPipe
from tests.unit.files.trees import Shelf
from xorbit.errors import FormatError, MisuseError, WorldError
from xorbit.files.car import CarReader, decode_header, encode_header, encode_section
from xorbit.files.cid import Cid, Codec, cid_of_block, parse_cid
from xorbit.files.protobuf import varint
from xorbit.items import BLOCK_BYTES_MAX, Kind

LEAF = cid_of_block(b"leaf", Codec.RAW, Kind.BLOCK_SHA2_256)
OTHER = cid_of_block(b"other", Codec.DAG_PB)
EMPTY = "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

# As `@ipld/car` writes it, for a root of no bytes at all.
HEADER = bytes.fromhex(
    "3aa265726f6f747381d82a58250001701220"
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    "6776657273696f6e01"
)


def car(*sections: bytes, roots: tuple[Cid, ...] = (LEAF,)) -> BytesIO:
    return BytesIO(encode_header(roots) + b"".join(sections))


def test_header() -> None:
    """A header has the bytes that other tools give it."""
    root = parse_cid(EMPTY)
    assert encode_header([root]) == HEADER
    assert decode_header(HEADER[1:]) == (root,)


@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 255])
def test_roots(count: int) -> None:
    """A CAR may have many roots or none."""
    roots = (LEAF, OTHER, *[LEAF] * 253)[:count]
    assert CarReader(car(roots=roots)).roots == roots


def test_too_many_roots() -> None:
    """More roots than the header may have are refused."""
    with pytest.raises(MisuseError, match="at most 255 roots, got 256"):
        encode_header([LEAF] * 256)


@pytest.mark.parametrize("size", [0, 1, 91, 92, 16_347, 16_348, BLOCK_BYTES_MAX])
def test_sections(size: int) -> None:
    """Blocks of every size come back as they were."""
    data = bytes(size)
    block = cid_of_block(data, Codec.RAW), data
    assert list(CarReader(car(encode_section(*block), encode_section(*block)))) == [block, block]


def test_tree(tmp_path: Path) -> None:
    """A tree that was written comes back with every block once, parents first."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "twice").write_bytes(bytes(200_000))
    (tmp_path / "link").symlink_to("sub")
    for number in range(1_000):
        (tmp_path / f"name {number}").write_bytes(b"%d" % number)
    shelf = Shelf()
    root = shelf.tree(tmp_path)
    reader = CarReader(shelf.car(root))
    blocks = list(reader)
    assert reader.roots == (root,)
    assert blocks[0][0] == root
    assert len(blocks) == len(shelf.held)
    assert dict(blocks) == shelf.held


def test_short_reads(tmp_path: Path) -> None:
    """A pipe that gives a few bytes at a time is read as a file is."""

    class Slow(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(3, size or 0))

    blocks = [(LEAF, b"leaf"), (OTHER, b"other")]
    whole = car(*(encode_section(*block) for block in blocks)).getvalue()
    assert list(CarReader(Slow(whole))) == blocks


def test_a_pipe_that_does_not_block_is_read_to_its_end() -> None:
    """That nothing is there at the moment is not the end of a CAR, wherever in it that is."""
    blocks = [(LEAF, b"leaf"), (OTHER, b"other")]
    whole = car(*(encode_section(*block) for block in blocks)).getvalue()
    with SlowPipe(*(bytes((byte,)) for byte in whole)) as pipe:
        assert list(CarReader(pipe)) == blocks


def test_tree_that_lies() -> None:
    """A block that is no node of a tree ends the writing, and is named."""
    shelf = Shelf()
    wrong = shelf.add(b"hello")
    with pytest.raises(FormatError, match=f"block {wrong}"):
        shelf.car(wrong)


def test_disk_that_fails() -> None:
    """A disk that fails is the world's fault."""

    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(WorldError, match="cannot read the CAR: Input/output error"):
        CarReader(Broken())


# --- Files of others ----------------------------------------------------------------------------


ROOT = b"\xd8\x2a\x58\x25\x00" + bytes(LEAF)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "an empty file"),
        (b"\x0a\xa1\x67version\x02" + bytes(40), "got version 2"),
        (b"\x05hello", "this is no CAR, it begins with b'.x05hello'"),
        (b"hello, world" * 2, "this is no CAR, it begins with b'hello, worldhell'"),
        (b"\xff" * 20, "does not end within 4 bytes"),
        (b"\x80\x00", "longer than need be"),
        (b"\x00", "a length of zero"),
        (b"\xff\xff\x7f", "at most 255 roots: this is no CAR"),
        (b"\x80", "the CAR ends within a length"),
        (HEADER[:-1], "header: the CAR ends after 57 of 58 bytes"),
        (b"\x07\xa2\x65roots", "a list of at most 255 roots, got "),
        (b"\x11\xa2\x65roots\x80\x67version\x02", "expected version 1 after 0 roots"),
        (b"\x12\xa2\x65roots\x80\x67version\x01\x00", "expected version 1 after 0 roots"),
        (b"\x12\xa2\x65roots\x98\x00\x67version\x01", "a list of at most"),
        (b"\x11\xa2\x65roots\x9f\x67version\x01", "a list of at most"),
        (b"\x11\xa2\x65roots\xf6\x67version\x01", "a list of at most"),
        (b"\x11\xa2\x65roots\x81\x67version\x01", "expected a root that is a CIDv1"),
        (b"\x0a\xa1\x67version\x01", "expected a CAR of version 1"),
        (b"\x39\xa2\x67version\x01\x65roots\x81" + ROOT, "expected a CAR of version 1"),
        (HEADER.replace(b"\xd8\x2a", b"\xd8\x2b"), "a root that is a CIDv1"),
        (HEADER.replace(b"\x01\x70", b"\x01\x71"), "codec raw .0x55. or dag-pb"),
        (
            b"\x38\xa2\x65roots\x81\xd8\x2a\x58\x23\x00\x12\x20" + bytes(32) + b"\x67version\x01",
            "a root that is a CIDv1",
        ),
    ],
)  # fmt: skip
def test_no_car(data: bytes, problem: str) -> None:
    """What is no CAR of version 1, or names roots that cannot be ours, is refused at once."""
    with pytest.raises(FormatError, match=problem):
        CarReader(BytesIO(data))


GOOD = encode_section(LEAF, b"leaf")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (GOOD[:-1] + b"x", f"block 2 at byte 100, {LEAF}: its 4 bytes are not those of its name"),
        (GOOD[:-1], "block 2 at byte 100: the CAR ends after 39 of 40 bytes"),
        (GOOD[:1], "block 2 at byte 100: the CAR ends after 0 of 40 bytes"),
        (b"\x80", "block 2 at byte 100: the CAR ends within a length"),
        (b"\x00", "block 2 at byte 100: a length of zero"),
        (b"\xa8\x00" + GOOD[1:], "block 2 at byte 100: a length of zero, or one longer"),
        (b"\xff" * 9, "block 2 at byte 100: its length does not end within 4 bytes"),
        (b"\x05hello", "block 2 at byte 100: expected a CIDv1 of 36 bytes, got 5"),
        (b"\x22\x12\x20" + bytes(32), "block 2 at byte 100: expected a CIDv1 of 36 bytes, got a"),
        (b"\x25\x01\x71" + bytes(LEAF)[2:] + b"x", "block 2 at byte 100: expected codec raw"),
        (b"\x25\x01\x55\x00\x20" + bytes(33), "block 2 at byte 100: expected hash"),
        (
            varint(36 + 65_537) + bytes(LEAF) + bytes(65_537),
            f"block 2 at byte 100, {LEAF}: expected at most 65,536 bytes, got 65,537: make",
        ),
        (varint(2**28 - 1) + bytes(9), "block 2 at byte 100: expected at most 65,536 bytes"),
    ],
)
def test_damaged(section: bytes, problem: str) -> None:
    """A block that is damaged is refused where it stands; those before it have been given out."""
    reader = iter(CarReader(car(GOOD, section)))
    assert next(reader) == (LEAF, b"leaf")
    with pytest.raises(FormatError, match=problem):
        next(reader)


def test_memory_for_a_claimed_length() -> None:
    """A block that claims to be enormous is refused before anything of its size is read."""

    class Counted(BytesIO):
        asked = 0

        def read(self, size: int | None = -1) -> bytes:
            self.asked = max(self.asked, size or 0)
            return super().read(size)

    file = Counted(car(varint(2**28 - 1) + bytes(LEAF)).getvalue())
    with pytest.raises(FormatError):
        list(CarReader(file))
    assert file.asked < 100
