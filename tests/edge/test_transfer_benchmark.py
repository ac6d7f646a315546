"""What `make bench` says of transfers, in small: it goes through nine nodes, in bounded memory."""

from pathlib import Path

import pytest

from benchmarks.transfer import Sizes, measure


@pytest.mark.timeout(600)
async def test_files_go_through_nine_nodes_and_the_client_stays_small(tmp_path: Path) -> None:
    """300 files and 64 MB come back the same (it compares them), with at most 200 MB of memory."""
    rows = await measure(tmp_path, Sizes(nodes=9, files=300, large_mb=64))
    peaks = [row for row in rows if "peak memory" in row.name]
    assert len(peaks) == 4
    assert all(row.met for row in peaks), peaks
