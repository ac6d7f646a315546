"""Files and ranges of them: the right bytes, and no block that has none of them."""

import errno
import io
from pathlib import Path
from random import Random

import fsspec
import pytest

from tests.unit.filesystem.home import (
    LARGE,
    SMALL,
    FakeHome,
    FakeSystem,
    leaf,
    leaves_asked,
)
from xorbit.files.cid import Codec
from xorbit.files.unixfs import CHUNK_BYTES

# --- Files --------------------------------------------------------------------------------------


def test_files_read_like_files(fs: FakeSystem, top: str) -> None:
    """Seeks and reads by chance, small and large, give what a file in memory gives."""
    rng = Random(7)
    model = io.BytesIO(LARGE)
    with fs.open(f"{top}/large") as file:
        for _ in range(300):
            if rng.randrange(3) == 0:
                where = rng.randrange(len(LARGE) + 100)
                assert file.seek(where) == model.seek(where)
            size = rng.choice([0, 1, 100, 9_000, CHUNK_BYTES, 3 * CHUNK_BYTES + 5])
            assert file.read(size) == model.read(size)
            assert file.tell() == model.tell()
        assert file.seek(-10, 2) == model.seek(-10, 2)
        assert file.read() == model.read()
        assert (file.read(1), file.size, file.readable(), file.seekable()) == (
            b"",
            len(LARGE),
            True,
            True,
        )
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    file.close()


def test_a_read_fetches_its_own_leaves_and_no_others(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    """Also where one read begins in the leaf in which an earlier one, elsewhere, ended."""
    with fs.open(f"{top}/large") as file:
        for start, size in [(-1_000, 1_000), (100, 50), (CHUNK_BYTES - 10, 20)]:
            file.seek(start, 2 if start < 0 else 0)
            assert len(file.read(size)) == size
        assert leaves_asked(home) == {0: 1, 1: 1, 20: 1}
        file.seek(5 * CHUNK_BYTES - 100)
        file.read(3 * CHUNK_BYTES)
        file.seek(8 * CHUNK_BYTES - 50)
        file.read(100)
        assert sorted(leaves_asked(home)) == [0, 1, 4, 5, 6, 7, 8, 20]
    assert set(leaves_asked(home).values()) == {1}


def test_what_follows_is_read_ahead(fs: FakeSystem, home: FakeHome, top: str) -> None:
    with fs.open(f"{top}/large") as file:
        for _ in range(40):
            file.read(8_192)
        assert len(leaves_asked(home)) > 40 * 8_192 / CHUNK_BYTES + 1
        file.read()
    assert set(leaves_asked(home).values()) == {1}


def test_lines_and_text(fs: FakeSystem, home: FakeHome) -> None:
    lines = [b"line %d %s\n" % (number, b"x" * (number % 150)) for number in range(5_000)]
    cid = home.file(b"".join(lines), CHUNK_BYTES, 1_024)
    with fs.open(str(cid)) as file:
        assert list(file) == lines
        file.seek(0)
        assert file.readline() == lines[0]
        assert file.readlines() == lines[1:]
    with fs.open(str(cid), "r", encoding="ascii") as text:
        assert text.read() == b"".join(lines).decode()
    assert fs.head(str(cid), 5) == lines[0][:5]
    assert fs.tail(str(cid), 5) == lines[-1][-5:]
    assert set(home.asked.values()) == {1}


def test_an_empty_file_is_empty(fs: FakeSystem, home: FakeHome) -> None:
    cid = str(home.add(b"", Codec.RAW))
    assert fs.cat_file(cid) == b""
    assert fs.cat_file(cid, start=-5) == b""
    with fs.open(cid) as file:
        assert (file.size, file.read()) == (0, b"")


def test_another_cache_of_fsspec_may_be_put_before_it(fs: FakeSystem, top: str) -> None:
    with fs.open(f"{top}/large", cache_type="readahead", block_size=1_000) as file:
        file.seek(5)
        assert file.read(100) == LARGE[5:105]


def test_a_file_is_fetched_to_a_path(fs: FakeSystem, top: str, tmp_path: Path) -> None:
    told = fsspec.callbacks.Callback()
    fs.get_file(f"{top}/large", tmp_path / "copy", callback=told)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert (told.size, told.value) == (len(LARGE), len(LARGE))
    fs.get(f"{top}/sub", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "deep" / "small").read_bytes() == SMALL
    into = io.BytesIO()
    fs.get_file(f"{top}/small", into)
    assert into.getvalue() == SMALL
    with pytest.raises(OSError, match="none") as caught:
        fs.get_file(f"{top}/small", tmp_path / "none" / "copy")
    assert caught.value.filename == str(tmp_path / "none" / "copy")


# --- Ranges -------------------------------------------------------------------------------------


def test_ranges_are_those_of_a_slice(fs: FakeSystem, top: str) -> None:
    rng = Random(3)
    bounds = [None, 0, 1, -1, CHUNK_BYTES, -CHUNK_BYTES, len(LARGE), 10**9, -(10**9)]
    bounds += [rng.randrange(len(LARGE)) for _ in range(10)]
    wanted = [(start, end) for start in bounds for end in bounds]
    starts, ends = zip(*wanted, strict=True)
    found = fs.cat_ranges([f"{top}/large"] * len(wanted), list(starts), list(ends))
    assert found == [LARGE[start:end] for start, end in wanted]
    assert fs.cat_file(f"{top}/large", 10, -10) == LARGE[10:-10]


def test_each_block_is_fetched_once_for_all_ranges(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    """And none that no range has a byte of; the answers are in the order of the questions."""
    wanted = [
        (5 * CHUNK_BYTES, 5 * CHUNK_BYTES + 10),
        (10, 20),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (30, 40),
        (5 * CHUNK_BYTES + 60, 6 * CHUNK_BYTES),
        (10, 15),
        (2 * CHUNK_BYTES - 5, 2 * CHUNK_BYTES),
    ]
    paths = [f"xorbit://{top}/large"] * len(wanted)
    found = fs.cat_ranges(paths, *map(list, zip(*wanted, strict=True)))
    assert found == [LARGE[start:end] for start, end in wanted]
    assert leaves_asked(home) == {0: 1, 1: 1, 5: 1}


def test_ranges_of_several_files_fail_one_by_one(fs: FakeSystem, top: str) -> None:
    paths = [f"{top}/large", f"{top}/none", f"{top}/small", f"{top}/sub"]
    large, none, small, sub = fs.cat_ranges(paths, 2, 4)
    assert (large, small) == (LARGE[2:4], SMALL[2:4])
    assert isinstance(none, FileNotFoundError)
    assert isinstance(sub, IsADirectoryError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 2, 4, on_error="raise")
    with pytest.raises(ValueError, match="4 paths, but 1 starts"):
        fs.cat_ranges(paths, [2], 4)
    with pytest.raises(TypeError):
        fs.cat_ranges(f"{top}/large", 2, 4)


def test_a_range_that_cannot_be_had_spoils_no_other(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    home.lose(leaf(3 * CHUNK_BYTES))
    good, bad = fs.cat_ranges([f"{top}/large"] * 2, [0, 3 * CHUNK_BYTES], [10, 3 * CHUNK_BYTES + 1])
    assert good == LARGE[:10]
    assert isinstance(bad, OSError)
    assert bad.errno == errno.EIO
