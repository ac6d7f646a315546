"""Private content by `xorbit://CID#KEY/path`: read like any other, and the key is shown nowhere."""

import logging
from pathlib import Path

import pytest

from tests.unit.filesystem.home import LARGE, SMALL, FakeHome, FakeSystem
from xorbit.files.local_tree import build_source
from xorbit.files.opened import private_name
from xorbit.files.sealed import Sealer


@pytest.fixture
def top(home: FakeHome, tmp_path: Path) -> str:
    """A sealed folder with a large file, and a small one."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "sub" / "small").write_bytes(SMALL)
    sealer = Sealer()
    root = home.take(build_source(tmp_path, sealer))
    name = private_name(root, sealer.key_of(root))
    assert name.startswith("xorbit://")
    return name.removeprefix("xorbit://")


def key_of(top: str) -> str:
    return top.partition("#")[2]


def test_a_private_tree_reads_like_any_other(fs: FakeSystem, home: FakeHome, top: str) -> None:
    assert fs.find(top) == [f"{top}/large", f"{top}/sub/small"]
    assert fs.glob(f"xorbit://{top}/*/s*") == [f"{top}/sub/small"]
    for entry in fs.ls(top):
        assert entry == fs.info(entry["name"])
        assert key_of(top) not in entry["cid"]
    assert fs.info(f"{top}/large")["size"] == len(LARGE)
    assert fs.cat(f"{top}/sub/small") == SMALL
    with fs.open(f"xorbit://{top}/large") as file:
        assert file.read(10) + file.read() == LARGE
    sealed = b"".join(home.held.values())
    assert LARGE[:100] not in sealed
    assert SMALL not in sealed


def test_each_sealed_block_is_fetched_once(fs: FakeSystem, home: FakeHome, top: str) -> None:
    """Its leaves hold a little less, and a read still touches no more of them than it must."""
    wanted = [(start, start + 20) for start in range(0, 600_000, 9_000)]
    found = fs.cat_ranges([f"{top}/large"] * len(wanted), *map(list, zip(*wanted, strict=True)))
    assert found == [LARGE[start:end] for start, end in wanted]
    assert set(home.asked.values()) == {1}
    before = home.asked.total()
    with fs.open(f"{top}/large") as file:
        file.seek(900_000)
        assert file.read(10) == LARGE[900_000:900_010]
    assert home.asked.total() == before + 1


def test_the_key_is_in_no_message(
    fs: FakeSystem, home: FakeHome, top: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is as secret as the content; messages and logs go elsewhere."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    for use in (
        lambda: fs.info(f"{top}/none"),
        lambda: fs.open(f"{top}/sub"),
        lambda: fs.open(f"{top}/sub", "wb"),
        lambda: fs.touch(f"xorbit://{top}/sub"),
        lambda: fs.info(f"{top[:-1]}/sub"),
        lambda: fs.info(f"{top}/../sub"),
        lambda: fs.info(f"{top[:-1]}.xyz/sub"),
        lambda: fs.info(top.replace("#", "%23")),
        lambda: fs.info(top.replace("#", "/#")[:-1]),
        lambda: fs.info(f"{top}/sub/#{key_of(top)[:-1]}/none"),
    ):
        with pytest.raises(OSError, match=r"^\[Errno") as caught:
            use()
        said += [str(caught.value), repr(caught.value), str(caught.value.filename)]
    with fs.open(f"{top}/large") as file:
        file.read(1)
        said += [str(file), repr(file)]
    said += [record.getMessage() for record in caplog.records]
    assert not [text for text in said if key_of(top)[:20] in text]


def test_a_wrong_key_is_an_error(fs: FakeSystem, home: FakeHome, top: str) -> None:
    cid, _, _ = top.partition("#")
    other = Sealer()
    root = home.take(build_source(b"other", other))
    key = other.key_of(root).text
    with pytest.raises(OSError, match="does not open"):
        fs.cat_file(f"{cid}#{key}")
