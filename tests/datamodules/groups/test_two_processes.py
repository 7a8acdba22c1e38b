"""Two gloo processes share weighted epochs, and resuming is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.datamodules import WeightedEpochSampler

SCRIPT = Path(__file__).with_name("groups_run.py")


@pytest.mark.distributed
def test_two_processes(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    rows = {}
    for rank, result in enumerate(results):
        assert len(result["whole"]) == 2 * 5  # 43 rows, 2 processes, batches of 4, rest dropped
        assert result["rest"] == result["whole"][7:]
        for epoch, used, labels, groups in result["whole"]:
            rows.setdefault((rank, epoch), []).extend(used)
            assert labels == [row % 2 for row in used]
            assert groups == [row % 2 * 2 + epoch for row in used]
    assert len({*rows[0, 0], *rows[1, 0]}) == 40  # each row once
    drawn = WeightedEpochSampler(range(43), lambda: np.arange(43.0), seed=3).order(1)
    assert rows[0, 1] == drawn[0:40:2].tolist()
    assert rows[1, 1] == drawn[1:40:2].tolist()
    assert results[0]["bank"] == list(range(0, 43, 2))
    assert results[1]["bank"] == list(range(1, 43, 2))
    true = [row % 2 * 2 + row // 2 % 2 for row in range(7)]
    assert results[0]["val"] == true[0::2] * 2
    assert results[1]["val"] == true[1::2] * 2
