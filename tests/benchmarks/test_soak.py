"""The soak: it does what it says, sees what is wrong, and finds nothing wrong in the library."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from soak import forks
from soak.damage import DAMAGE
from soak.faults import KINDS, plan
from soak.fingerprints import end_of, is_finite, read, steps_on_disk
from soak.run import table
from soak.scenarios import SCENARIOS
from soak.tries import Tried

# which try does what


def test_a_try_is_a_function_of_seed_and_number():
    first, again, other = ([plan(s, n, KINDS, SCENARIOS) for n in range(200)] for s in (0, 0, 1))
    assert [p[:3] for p in first] == [p[:3] for p in again]
    assert [p[:3] for p in first] != [p[:3] for p in other]
    assert [p.rng.random() for p in first] == [p.rng.random() for p in again]


def test_all_kinds_and_scenarios_get_their_share():
    turn = sum(kind.weight for kind in KINDS.values())
    plans = [plan(3, number, KINDS, SCENARIOS) for number in range(turn * 5)]
    assert Counter(p.kind for p in plans) == {n: 5 * kind.weight for n, kind in KINDS.items()}
    assert {p.scenario for p in plans} == set(SCENARIOS)
    for_two = [p for p in plans if KINDS[p.kind].is_for_two]
    assert for_two
    assert all(SCENARIOS[p.scenario].ranks == 2 for p in for_two)
    assert plan(0, 0, ["SIGTERM to one of two processes"], {"msn": SCENARIOS["msn"]}) is None


# what is looked at


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a small checkpoint, with other weights where they are given."""

    def write(name="a/last.ckpt", step=3, weight=1.0, **more):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "epoch": 0,
            "global_step": step,
            "state_dict": {"w": torch.full((4000,), weight)},
        }
        torch.save({**content, "optimizer_states": [{"state": {0: torch.ones(9)}}], **more}, path)
        return path

    return write


@pytest.mark.parametrize("way", DAMAGE)
def test_damage_changes_the_file(checkpoint, way):
    path = checkpoint()
    before = path.read_bytes()
    for seed in range(5):
        path.write_bytes(before)
        DAMAGE[way](path, random.Random(seed))
        # two pieces of the same bytes may be exchanged, and zeros may be zeros before
        assert path.read_bytes() != before or "piece" in way
    assert way != "cut short" or path.stat().st_size < len(before)


def test_ends_differ_in_one_bit_of_weights_or_optimizer(checkpoint, tmp_path):
    checkpoint("a/last.ckpt")
    checkpoint("b/version_1/last.ckpt", callbacks={"another": 1})
    checkpoint("c/last.ckpt", weight=1.0 + 2**-23)
    checkpoint("d/last.ckpt", optimizer_states=[{"state": {0: torch.zeros(9)}}])
    a, b, c, d = (end_of(tmp_path / name) for name in "abcd")
    assert a.steps == 3
    assert a == b
    assert len({a, c, d}) == 3
    checkpoint("a/longer.ckpt", step=5)
    assert end_of(tmp_path / "a").steps == 5
    assert end_of(tmp_path / "nothing") is None


def test_what_cannot_be_read_does_not_count(checkpoint, tmp_path):
    checkpoint("a/last.ckpt")
    os.truncate(checkpoint("a/step=9.ckpt", step=9), 100)
    assert steps_on_disk(tmp_path / "a") == [3]
    assert is_finite(read(checkpoint()))
    assert not is_finite(read(checkpoint(weight=float("nan"))))


# processes


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Starts a fork that runs a function in place of ``lit-ssl``."""
    started = []

    def start(main, **options):
        monkeypatch.setattr(forks, "_main", main)
        job = forks.Job(forks.Command(("fit",), tmp_path, "try", **options))
        started.append(job)
        return job

    yield start
    for job in started:
        job.end()


def never():
    return False


def test_a_command_has_its_folder_output_and_exit_status(job, tmp_path):
    def main():
        print(os.getcwd(), *sys.argv, os.environ.get("RANK"), file=sys.stderr)
        return 7

    started = job(main, ranks=2)
    assert started.wait(never, 10)
    assert started.codes == {0: 7, 1: 7}
    lines = sorted(started.output().splitlines())
    assert lines == [f"{tmp_path} lit-ssl fit {rank}" for rank in range(2)]


def test_a_process_that_stops_itself_is_killed_there(job):
    def main():
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0

    started = job(main)
    assert started.wait(lambda: bool(started.stopped), 10)
    assert started.poll()
    started.send(signal.SIGKILL)
    assert started.wait(never, 10)
    assert started.codes == {0: -signal.SIGKILL}


def test_one_that_does_not_end_is_seen_and_ended(job):
    def main():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("here", flush=True)
        time.sleep(100)

    started = job(main)
    assert started.wait(lambda: "here" in started.output(), 10)
    started.send(signal.SIGTERM)
    assert not started.wait(never, 0.2)
    started.end()
    assert started.codes == {0: -signal.SIGKILL}


@pytest.mark.parametrize("dies", [False, True])
def test_a_write_beyond_the_limit_fails_or_kills(job, tmp_path, dies):
    def main():
        os.kill(os.getpid(), signal.SIGSTOP)
        (tmp_path / "big").write_bytes(bytes(5000))
        return 0

    started = job(main, dies_of_large_files=dies)
    assert started.wait(lambda: bool(started.stopped), 10)
    started.limit_files(3000)
    started.go_on()
    assert started.wait(never, 10)
    assert started.codes == {0: -signal.SIGXFSZ if dies else 1}
    assert (tmp_path / "big").stat().st_size == 3000


# the whole


def test_the_table_counts():
    kinds = list(KINDS)[:2]
    done = [Tried(kinds[0], n, "msn", survived=1, identical=n % 2) for n in range(3)]
    lines = table([*done, Tried(kinds[1], 3, "paws", lost=1, hangs=2)]).splitlines()
    assert lines[2] == f"| {kinds[0]} | 3 | 3 | 0 | 1 | 0 | 0 | 0 |"
    assert lines[3] == f"| {kinds[1]} | 1 | 0 | 1 | 0 | 0 | 0 | 2 |"
    assert lines[4] == "| all | 4 | 3 | 1 | 1 | 0 | 0 | 2 |"


@pytest.mark.slow
def test_five_minutes(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(forks.__file__).parents[1])}
    words = ["--minutes", "5", "--folder", str(tmp_path / "soak")]
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line for line in done.stdout.splitlines() if line.startswith("| all |"))
    tries, survived, lost, _, _, wrong, hangs = map(int, re.findall(r"\d+", total))
    assert tries == survived > 20
    assert lost == wrong == hangs == 0
