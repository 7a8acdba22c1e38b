"""Two gloo processes stream from a server: each has its share, and resuming is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("webdataset")

SCRIPT = Path(__file__).with_name("stream_run.py")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes(shards, serve, vocabulary, tmp_path):
    shards(tmp_path / "web/cc", [3] * 4 + [3] * 4)
    shards(tmp_path / "web/val", [4, 1], first=100)
    address, asked = serve(tmp_path / "web")
    command = [
        sys.executable, str(SCRIPT), str(tmp_path), f"{address}/cc/{{00000..00007}}.tar",
        f"{address}/val/{{00000..00001}}.tar", vocabulary,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for workers in ("0", "2"):
        for rank, result in enumerate(results):
            # 24 pairs, 2 processes, batches of 2
            assert [epoch for epoch, _ in result[workers]["whole"]] == [0] * 6 + [1] * 6
            assert result[workers]["rest"] == result[workers]["whole"][4:]
            assert result[workers]["val"] == list(range(100 + rank, 105, 2)) * 2
        for epoch in (0, 1):
            used = [
                number
                for result in results
                for at, numbers in result[workers]["whole"]
                if at == epoch
                for number in numbers
            ]
            assert sorted(used) == list(range(24))
    assert results[0]["0"] == results[0]["2"]
    # What does not divide: as many batches on both, and nobody waits for the other.
    counts = [Counter(epoch for epoch, _ in result["unequal"]) for result in results]
    assert counts[0] == counts[1] == {0: 9, 1: 9}
    for result in results:
        assert "8 shards, such as http" in result["error"]
        assert "cannot be shared among 2 processes with 8 streams each" in result["error"]
    assert any(path.startswith("/cc/") for path in asked)
