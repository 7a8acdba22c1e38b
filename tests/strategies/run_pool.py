"""Run cases in W gloo processes that share one import: run_pool.py FOLDER RANK W CASE..."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import cases_golden
import cases_numbers
import cases_signals
import cases_single
import cases_state
import cases_training
import cases_unequal
import cases_unfrozen

CASES = {}
for module in (
    cases_golden, cases_numbers, cases_signals, cases_single, cases_state, cases_training,
    cases_unequal, cases_unfrozen,
):  # fmt: skip
    CASES |= module.CASES


def main(folder, rank, world, names):
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "GROUP_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}  # the group exists already

    def connect(attempt):
        store = dist.FileStore(str(folder / f"store{attempt}"), world)
        timeout = timedelta(seconds=60)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)

    connect(0)
    for number, name in enumerate(names, 1):
        torch.manual_seed(0)
        (folder / name).mkdir(exist_ok=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = CASES[name](rank, world, folder / name)
            except BaseException:
                result = {"error": traceback.format_exc()}
        result["warnings"] = [str(w.message) for w in caught]
        torch.save(result, folder / name / f"{rank}.pt")
        if "error" in result or result.get("broken"):
            dist.destroy_process_group()
            connect(number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
