"""Runs the cases that the selected tests ask for, in one pool of two and one of four processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RUNNER = Path(__file__).with_name("run_pool.py")


def pytest_configure(config):
    config.addinivalue_line("markers", "pool(world, *names): cases that a test needs, see run_pool")


def run_pool(world, names, folder, other=None):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "POOL2": str(other or "")}
    logs = [(folder / f"log{rank}.txt").open("w") for rank in range(world)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(RUNNER), str(folder), str(rank), str(world), *names],
            stdout=logs[rank],
            stderr=subprocess.STDOUT,
            env=env,
        )
        for rank in range(world)
    ]
    try:
        for process in processes:
            process.wait(timeout=280)
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.fixture(scope="session")
def pools(request, tmp_path_factory):
    """Folder with the results of each pool that has run, by number of processes."""
    folders = {}

    def folder(world):
        if world not in folders:
            marks = [m for item in request.session.items for m in item.iter_markers("pool")]
            names = [name for m in marks if m.args[0] == world for name in m.args[1:]]
            names = list(dict.fromkeys(names))
            # The pool of four reads a checkpoint of the pool of two.
            other = folder(2) if world == 4 and "resume_from_two" in names else None
            where = tmp_path_factory.mktemp(f"pool{world}")
            folders[world] = run_pool(world, names, where, other)
        return folders[world]

    return folder


@pytest.fixture
def case(request, pools):
    """What the ranks saved in a case: ``case("slowmo_sgd_w2")`` is a list with a dict for each."""

    def results(name):
        mark = next(m for m in request.node.iter_markers("pool") if name in m.args)
        world = mark.args[0]
        folder = pools(world)
        found = []
        for rank in range(world):
            file = folder / name / f"{rank}.pt"
            if not file.exists():
                pytest.fail(f"rank {rank}: " + (folder / f"log{rank}.txt").read_text()[-3000:])
            found.append(torch.load(file, weights_only=False))
            if "error" in found[-1]:
                pytest.fail(f"rank {rank}: {found[-1]['error']}")
        return found

    return results
