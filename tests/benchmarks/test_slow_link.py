"""The slow-link benchmark: it keeps what the cost model promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).parents[2] / "benchmarks" / "slow_link.py")


def namespaces():
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def test_it_says_why_it_skips():
    environment = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "skipped: it needs root and iproute2 (`ip`, `tc`)"


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_local_steps_reach_the_speed_that_the_model_predicts(tmp_path):
    out = tmp_path / "numbers.json"
    command = [sys.executable, SCRIPT, "--rate=100mbit", "--repeats=2", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout.strip())
    numbers = json.loads(out.read_text())
    assert 85e6 < 8 * numbers["bandwidth"] < 105e6
    for name in ("local_sgd 8", "local_sgd 32", "slowmo 8", "slowmo 32"):
        row = numbers["methods"][name]
        assert row["speedup"] >= 0.85 * row["model"], (name, numbers)
    assert "SyncMonitor: a step computes for" in done.stdout


@pytest.mark.slow
@pytest.mark.distributed
def test_the_link_is_removed_when_it_is_stopped():
    process = subprocess.Popen([sys.executable, SCRIPT], stdout=subprocess.PIPE, text=True)
    mine = {f"slow{process.pid}{side}" for side in "AB"}
    try:
        for _ in range(300):
            if process.poll() is not None or mine <= namespaces():
                break
            time.sleep(0.1)
        if process.poll() == 0:
            pytest.skip(process.stdout.read().strip())
        assert mine <= namespaces()
        process.terminate()
        process.wait(60)
        assert not mine & namespaces()
    finally:
        process.kill()
        process.wait()
