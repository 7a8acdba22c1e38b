"""The trade-off of local SGD: what the example shows, and that real processes show the same."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def simulation():
    file = EXAMPLES / "local_sgd_simulation.py"
    spec = importlib.util.spec_from_file_location("local_sgd_simulation", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sixteen(simulation):
    """Mean loss and accuracy of 16 workers over 4 seeds, by method, period and kind of shards."""
    digits = simulation.Digits.load()
    chosen = [s for s in simulation.settings((8, 24)) if (s.method, s.period) != ("DDP", 24)]
    found = {}
    for setting in chosen:
        for is_sorted in (False, True):
            results = simulation.simulate(digits, setting, 16, range(4), is_sorted)
            means = [sum(values) / 4 for values in zip(*results, strict=True)]
            found[setting.method, setting.period, is_sorted] = simulation.Result(*means)
    return found


@pytest.mark.slow
def test_accuracy_falls_with_the_length_of_rounds_and_slow_momentum_lifts_it(sixteen):
    ddp = sixteen["DDP", 1, True]
    for period in (8, 24):
        local, slow = (sixteen[m, period, True] for m in ("local SGD", "slow momentum"))
        assert ddp.accuracy - slow.accuracy > 0.5
        assert slow.accuracy - local.accuracy > 0.5
    assert sixteen["local SGD", 8, True].accuracy - sixteen["local SGD", 24, True].accuracy > 0.5


@pytest.mark.slow
def test_on_random_shards_the_training_loss_tells_the_same(sixteen):
    ddp = sixteen["DDP", 1, False].loss
    local, slow = (sixteen[m, 8, False].loss for m in ("local SGD", "slow momentum"))
    assert 1.03 * ddp < slow < 0.97 * local
    assert local < 0.9 * sixteen["local SGD", 24, False].loss


@pytest.mark.slow
def test_local_steps_from_the_first_drop_on_match_ddp(sixteen):
    for is_sorted in (False, True):
        ddp = sixteen["DDP", 1, is_sorted].accuracy
        for period in (8, 24):
            assert abs(sixteen["post-local SGD", period, is_sorted].accuracy - ddp) < 1


def test_batches_are_a_fair_share_without_overlap(simulation):
    digits = simulation.Digits.load()
    order = simulation.batches(digits, 16, seed=0, is_sorted=True)
    assert order.shape == (16, simulation.STEPS, simulation.BATCH)
    owners = [set(rows.flatten().tolist()) for rows in order]
    assert sum(map(len, owners)) == len(set.union(*owners))
    classes = [digits.labels[rows.flatten()].unique() for rows in order]
    assert max(map(len, classes)) <= 2


@pytest.mark.slow
@pytest.mark.distributed
def test_quick_run_writes_everything_and_processes_equal_the_simulation(tmp_path):
    command = [sys.executable, str(EXAMPLES / "local_sgd_tradeoff.py"), "--quick"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"slow momentum\s+24\s+10 ", done.stdout)
    assert (tmp_path / "tradeoff.png").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").glob("events*"))
    rows = json.loads((tmp_path / "results.json").read_text())["processes"]
    assert {row["method"] for row in rows} == {
        "DDP", "local SGD", "slow momentum", "post-local SGD",
    }  # fmt: skip
    assert max(row["gap"] for row in rows) < 1e-9
