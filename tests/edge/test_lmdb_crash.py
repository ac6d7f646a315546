"""What was acknowledged outlives a killed process, a full disk and other processes' meddling."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.store.samples import ALICE, block, write
from xorbit.errors import StoreError
from xorbit.ids import Id
from xorbit.items import ItemKey, Kind, key_of, record_key, size_of
from xorbit.store.base import STORED
from xorbit.store.lmdb import LmdbStore

QUOTA_BYTES = 2**28
KILLS = 24

# Writes batch after batch, each with a record of a higher sequence number; says what is durable.
WRITER = """
import random, sys
from pathlib import Path
from nacl.signing import SigningKey
from xorbit.items import key_of, make_block, make_record
from xorbit.store.base import Write
from xorbit.store.lmdb import LmdbStore

home, quota_bytes, seed, seq = Path(sys.argv[1]), *map(int, sys.argv[2:])
rng, store = random.Random(seed), LmdbStore(home, quota_bytes)
while True:
    seq += 1
    blocks = [make_block(rng.randbytes(rng.randint(1, 65_536))) for _ in range(rng.randint(1, 4))]
    items = [*blocks, make_record(SigningKey(bytes([1]) * 32), seq, rng.randbytes(900))]
    results = store.write([Write(key_of(item), item) for item in items])
    assert {result.code for result in results} == {"stored"}
    print(seq, *(key_of(block).id.hex() for block in blocks), flush=True)
"""

HOLDER = """
import sys
from pathlib import Path
from xorbit.store.lmdb import LmdbStore

store = LmdbStore(Path(sys.argv[1]), int(sys.argv[2]))
print("open", flush=True)
sys.stdin.read()
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged_until_killed(writer: subprocess.Popen[str], batches: int) -> list[list[str]]:
    """Kill the writer once so many batches are acknowledged; it is in the midst of others then."""
    with writer:
        lines = [writer.stdout.readline() for _ in range(batches)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [line.split() for line in lines if line.endswith("\n")]


def test_every_acknowledged_item_is_there_after_a_writer_is_killed(tmp_path):
    """Round after round on one home, so that later rounds write over what earlier ones left."""
    rng = random.Random(20_241)
    keys: list[ItemKey] = []
    seq = 0
    for _ in range(KILLS):
        writer = start(WRITER, tmp_path, QUOTA_BYTES, rng.randrange(2**32), seq)
        lines = acknowledged_until_killed(writer, rng.randint(1, 8))
        keys += [block_key_of(name) for line in lines for name in line[1:]]
        least = int(lines[-1][0])
        store = LmdbStore(tmp_path, QUOTA_BYTES)
        assert_intact(store, keys)
        [newest] = store.read([record_key(bytes(ALICE.verify_key))])
        seq = newest.seq
        assert least <= seq <= least + 1
        assert_counts(store)
        store.close()
    assert len(keys) >= KILLS


# Pins batch after batch, some of them old already; says what is durable.
PINNER = """
import random, sys
from pathlib import Path
from xorbit.items import key_of, make_block
from xorbit.store.base import Write
from xorbit.store.lmdb import LmdbStore

home, quota_bytes = Path(sys.argv[1]), int(sys.argv[2])
rng, store = random.Random(1), LmdbStore(home, quota_bytes)
while True:
    blocks = [make_block(rng.randbytes(1_000)) for _ in range(3)]
    store.write([Write(key_of(block), block, pin=True, age_s=5_000.0) for block in blocks[:2]])
    store.write([Write(key_of(block), block, age_s=5_000.0) for block in blocks[2:]])
    print(*(key_of(block).id.hex() for block in blocks), flush=True)
"""


def test_pins_and_ages_outlive_a_killed_process(tmp_path):
    lines = acknowledged_until_killed(start(PINNER, tmp_path, QUOTA_BYTES), 5)
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    held = {entry.key: entry for entry in store.scan(Id(bytes(32)), 100_000)}
    for line in lines:
        first, second, third = (held[block_key_of(name)] for name in line)
        assert (first.pinned, second.pinned, third.pinned) == (True, True, False)
        assert all(5_000 <= entry.age_s < 6_000 for entry in (first, second, third))
        assert all(5_000 <= entry.pinned_age_s < 6_000 for entry in (first, second))
    store.close()


def block_key_of(name: str) -> ItemKey:
    return ItemKey(Kind.BLOCK_BLAKE3_256, Id(bytes.fromhex(name)))


def assert_intact(store: LmdbStore, keys: list[ItemKey]) -> None:
    assert [key_of(item) for item in store.read(keys)] == keys


def assert_counts(store: LmdbStore) -> None:
    held = store.read(store.keys_from(Id(bytes(32)), 100_000))
    assert (store.usage().items, store.usage().bytes) == (len(held), sum(map(size_of, held)))


def test_a_home_held_by_another_process_is_refused_until_that_one_is_gone(tmp_path):
    with start(HOLDER, tmp_path, QUOTA_BYTES) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match=f"{tmp_path} is in use by another process"):
            LmdbStore(tmp_path, QUOTA_BYTES)
        holder.kill()
    LmdbStore(tmp_path, QUOTA_BYTES).close()


# --- A full disk --------------------------------------------------------------------------------

# A file system of 4 MiB: 2 MiB of ballast that is removed later, the rest for the store.
FULL_DISK = """
import json, random, sys
from pathlib import Path
from xorbit.items import key_of, make_block, size_of
from xorbit.store.base import Write
from xorbit.store.lmdb import LmdbStore

disk, batch_size = Path(sys.argv[1]), int(sys.argv[2])
(disk / "ballast").write_bytes(bytes(2 * 2**20))
rng, store, kept, refused = random.Random(5), LmdbStore(disk / "home", 2**30), [], []

def write(count, size):
    items = [make_block(rng.randbytes(size)) for _ in range(count)]
    results = store.write([Write(key_of(item), item) for item in items])
    kept.extend(item for item, result in zip(items, results) if result.code == "stored")
    refused.extend(result for result in results if result.code != "stored")
    return [result.code for result in results]

def intact():
    return store.read([key_of(item) for item in kept]) == kept

facts = {}
for _ in range(100 // batch_size + 1):
    write(batch_size, 60_000)
facts["kept"], facts["refused"] = len(kept), len(refused)
facts["codes"] = sorted({result.code for result in refused})
facts["reason"] = refused[0].reason
facts["intact when full"] = intact()
facts["usage when full"] = store.usage().bytes == sum(map(size_of, kept))
store.close()
store = LmdbStore(disk / "home", 2**30)
facts["intact when opened full"] = intact()
(disk / "ballast").unlink()
facts["after room was made"] = write(4, 60_000)
facts["intact after"] = intact()
store.close()
store = LmdbStore(disk / "home", 2**30)
facts["intact when opened again"] = intact()
print(json.dumps(facts))
"""

MOUNT = 'mount -t tmpfs -o size=4m tmpfs "$1" && shift && exec "$@"'


def in_small_disk(mountpoint: Path, *command: object) -> list[str]:
    """Return the command line that runs the command with a file system of 4 MiB mounted there."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return [*own, "sh", "-c", MOUNT, "sh", str(mountpoint), *map(str, command)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def small_disk(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1) is not here to mount a small file system with")
    tried = run(in_small_disk(tmp_path, "true"))
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here: {tried.stderr.strip()}")
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_full_disk_is_said_and_loses_nothing_and_room_made_is_used(small_disk, batch_size):
    command = in_small_disk(small_disk, sys.executable, "-c", FULL_DISK, small_disk, batch_size)
    ran = run(command)
    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert facts.pop("kept") >= 20
    assert facts.pop("refused") >= 20
    assert facts.pop("reason").startswith("the disk is full: ")
    assert facts == {
        "codes": ["full"],
        "intact when full": True,
        "usage when full": True,
        "intact when opened full": True,
        "after room was made": ["stored"] * 4,
        "intact after": True,
        "intact when opened again": True,
    }


# --- Meddling with the file ---------------------------------------------------------------------

PAGE_BYTES = 4_096


@pytest.fixture
def left(tmp_path):
    """Return a closed store's directory and the blocks in it."""
    blocks = [block(n, size) for n, size in enumerate((65_536, 30_000, 9_000, 1_500, 800, 20))]
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    for each in blocks:
        assert store.write([write(each)]) == [STORED]
    store.close()
    return tmp_path, blocks


def test_a_byte_that_flips_on_the_disk_is_seen_removed_and_mended(left):
    home, blocks = left
    data, rotten = home / "data.mdb", blocks[0]
    content = data.read_bytes()
    assert content.count(rotten.data) == 1
    at = content.index(rotten.data) + 40_000
    data.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
    store = LmdbStore(home, QUOTA_BYTES)
    keys = [key_of(each) for each in blocks]
    assert [getattr(item, "value", item) for item in store.read(keys)] == ["damaged", *blocks[1:]]
    assert store.drop_damaged(keys) == 1
    assert store.read(keys) == [None, *blocks[1:]]
    assert store.write([write(rotten)]) == [STORED]
    assert store.read(keys) == blocks
    store.close()


@pytest.mark.parametrize("kept", [0, 1, 100, 4_096, 8_192, 12_288, 0.5, 0.9])
def test_a_truncated_file_is_refused_with_what_to_do(left, kept):
    home, _ = left
    data = home / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, int(kept * size) if isinstance(kept, float) else kept)
    with pytest.raises(StoreError, match=r"data\.mdb is damaged .*: move .* away and start again"):
        LmdbStore(home, QUOTA_BYTES)


def test_garbage_is_refused_with_what_to_do(left):
    home, _ = left
    (home / "data.mdb").write_bytes(random.Random(1).randbytes(100_000))
    with pytest.raises(StoreError, match=r"data\.mdb is damaged .*: move .* away and start again"):
        LmdbStore(home, QUOTA_BYTES)


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"\xa5"])
def test_no_page_of_garbage_ends_the_process_or_is_given_out(left, filler):
    """One page after the other, all of the file: refused when opened, or DAMAGED when read."""
    home, blocks = left
    intact = (home / "data.mdb").read_bytes()
    refused = 0
    for at in range(0, len(intact), PAGE_BYTES):
        garbage = intact[:at] + filler * PAGE_BYTES + intact[at + PAGE_BYTES :]
        (home / "data.mdb").write_bytes(garbage)
        try:
            store = LmdbStore(home, QUOTA_BYTES)
        except StoreError:
            refused += 1
            continue
        for each, found in zip(blocks, store.read([key_of(b) for b in blocks]), strict=True):
            assert found == each or getattr(found, "value", None) == "damaged"
        store.close()
    assert refused >= 5


def test_a_home_whose_making_was_cut_short_is_made_again(tmp_path):
    """The process died after the files got their names and before anything was in them."""
    for name in ("data.mdb", "store.lock"):
        (tmp_path / name).write_bytes(b"")
    store = LmdbStore(tmp_path, QUOTA_BYTES)
    assert store.write([write(block(1))]) == [STORED]
    store.close()
