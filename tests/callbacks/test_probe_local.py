"""The online probe beside local steps: no communication of its own between synchronisations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out.json"
    script = Path(__file__).with_name("run_probe.py")
    done = subprocess.run(
        [sys.executable, str(script), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


def test_nothing_is_communicated_between_synchronisations(run):
    for rank in run["ranks"]:
        warmup, local = rank["batches"][:2], rank["batches"][2:]
        assert all(calls >= 2 for _, calls, _ in warmup)  # statistics and gradients
        # Before the first local step all processes make sure that they begin with equal parameters.
        assert [calls for synced, calls, _ in local if not synced] == [2] + [0] * 14
        assert all(calls > 0 for synced, calls, _ in local if synced)


def test_the_joined_step_before_and_averages_after_local_steps(run):
    first, second = (rank["batches"] for rank in run["ranks"])
    for a, b in zip(first[:2], second[:2], strict=True):
        assert a[2] == b[2]
    apart = [a[2] != b[2] for a, b in zip(first[2:], second[2:], strict=True)]
    assert all(apart)  # the batch that ends a round is learned from after the average
    averages = [rank["synced"] for rank in run["ranks"]]
    assert len(averages[0]) == 7
    for a, b in zip(*averages, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_the_average_learns(run):
    assert run["accuracy"] > 0.8
