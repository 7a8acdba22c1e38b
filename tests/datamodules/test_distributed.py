"""Two gloo processes: each has its share, evaluation pads nothing, and resuming is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("ddp_run.py")


def check(first, second):
    for rank in (first, second):
        assert len(rank["whole"]) == 2 * 5  # 43 images, 2 processes, batches of 4, rest dropped
        assert rank["rest"] == rank["whole"][3:]
    for epoch in (0, 1):
        used = [
            index
            for rank in (first, second)
            for number, labels, _ in rank["whole"]
            if number == epoch
            for index in labels
        ]
        assert len(used) == len(set(used)) == 40

    assert first["bank"] == list(range(0, 43, 2))
    assert second["bank"] == list(range(1, 43, 2))
    assert first["val"] == [0, 2, 4, 6] * 2  # once after each epoch
    assert second["val"] == [1, 3, 5] * 2
    for stage in ("test", "predict"):
        assert first[stage] == [0, 2, 4]
        assert second[stage] == [1, 3]


@pytest.mark.distributed
def test_two_processes(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for augment in ("worker", "device"):
        check(*(result[augment] for result in results))
