"""What a store asks of a process's memory: little of it, and what happens if there is none."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store.samples import write
from xorbit.items import BLOCK_BYTES_MAX, make_block
from xorbit.store.base import STORED
from xorbit.store.home import VIEWED_BYTES_MAX, VIEWED_PER_LOOKUP_BYTES
from xorbit.store.lmdb import LmdbStore

QUOTA_BYTES = 2**30
BATCH = 16
CONTENT_BYTES = 200 * 2**20
SLACK_BYTES = 24 * 2**20
"""The batches themselves and what the interpreter makes of them."""

# Reads all blocks in an order that is not the disk's, then writes each again as upkeep does.
LOOKER = """
import json, random, sys
from pathlib import Path
from xorbit.ids import Id
from xorbit.store.base import Write
from xorbit.store.lmdb import LmdbStore

home, quota_bytes, batch_size = Path(sys.argv[1]), *map(int, sys.argv[2:])

def memory(name):
    [line] = [line for line in open("/proc/self/status") if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024

store = LmdbStore(home, quota_bytes)
facts = {"before": memory("VmRSS"), "read": 0}
keys, place = [], 0
while page := store.keys_from(Id(place.to_bytes(32, "big")), batch_size):
    keys += page
    place = int.from_bytes(page[-1].id, "big") + 1
random.Random(1).shuffle(keys)
batches = [keys[n : n + batch_size] for n in range(0, len(keys), batch_size)]
for batch in batches:
    facts["read"] += sum(len(block.data) for block in store.read(batch))
facts["when read"] = memory("VmHWM")
for batch in batches:
    writes = [Write(key, item) for key, item in zip(batch, store.read(batch))]
    assert {result.code for result in store.write(writes)} == {"stored"}
facts["when written again"] = memory("VmHWM")
print(json.dumps(facts))
"""

# Takes the room for another map away once one is laid, looks until a new one is due, gives it back.
STARVED = """
import json, resource, sys
from pathlib import Path
from xorbit.errors import StoreError
from xorbit.items import key_of, make_block
from xorbit.store.base import Write
from xorbit.store import home as home_module
from xorbit.store.lmdb import LmdbStore

home, quota_bytes, lookups = Path(sys.argv[1]), *map(int, sys.argv[2:])
home_module.resident_file_bytes = lambda: float("inf")
store, blocks = LmdbStore(home, quota_bytes), [make_block(bytes([n])) for n in range(3)]
keys = [key_of(block) for block in blocks]
facts = {"written": [r.code for r in store.write([Write(*pair) for pair in zip(keys, blocks)])]}
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (quota_bytes, most))
facts["read"] = store.read(keys * lookups) == blocks * lookups
try:
    store.read(keys)
except StoreError as error:
    facts["then"] = str(error)
facts["written without room"] = store.write([Write(keys[0], blocks[0])])[0].code
resource.setrlimit(resource.RLIMIT_AS, (most, most))
facts["written with room"] = store.write([Write(keys[0], blocks[0])])[0].code
facts["read again"] = store.read(keys) == blocks
store.close()
print(json.dumps(facts))
"""


def facts_of(program: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def large(tmp_path):
    """Return the directory of a closed store that holds 200 MiB of blocks."""
    rng, store = random.Random(3), LmdbStore(tmp_path, QUOTA_BYTES)
    for _ in range(CONTENT_BYTES // BLOCK_BYTES_MAX // 64):
        blocks = [make_block(rng.randbytes(BLOCK_BYTES_MAX)) for _ in range(64)]
        assert store.write([write(each) for each in blocks]) == [STORED] * 64
    store.close()
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody says what is resident")
def test_a_process_that_looked_at_all_of_a_large_store_stays_small(large):
    facts = facts_of(LOOKER, large, QUOTA_BYTES, BATCH)
    bound = VIEWED_BYTES_MAX + BATCH * VIEWED_PER_LOOKUP_BYTES + SLACK_BYTES
    assert facts["read"] == CONTENT_BYTES > 1.5 * bound
    assert facts["when read"] - facts["before"] < bound
    assert facts["when written again"] - facts["before"] < bound


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not heed RLIMIT_AS")
def test_a_store_without_room_for_its_map_says_so_and_lives_on_once_there_is_some(tmp_path):
    lookups = VIEWED_BYTES_MAX // VIEWED_PER_LOOKUP_BYTES
    facts = facts_of(STARVED, tmp_path, QUOTA_BYTES, lookups)
    assert facts == {
        "written": ["stored"] * 3,
        "read": True,
        "then": f"the store in {tmp_path} is closed",
        "written without room": "failed",
        "written with room": "stored",
        "read again": True,
    }
