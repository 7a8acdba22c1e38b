"""Two gloo processes with unequal shards, resumed everywhere; writes FOLDER/RANK.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import resume_traces as traces

from lit_ssl.strategies import LocalSGDStrategy
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit

CASES = {
    "limit": ({"limit_train_batches": 3}, [("batch", 2), ("validation", 0), ("epoch", 0)]),
    "steps": (
        {"max_epochs": -1, "max_steps": 7, "accumulate_grad_batches": 2, "val_check_interval": 3,
         "check_val_every_n_epoch": None},
        [("batch", 3), ("validation", 1), ("epoch", 1)],
    ),
    "rounds": ({"limit_train_batches": 3}, [("batch", 1), ("batch", 2), ("epoch", 0)]),
}  # fmt: skip


def fit(folder, name, *callbacks, **options):
    options["strategy"] = LocalSGDStrategy(sync_every=4) if name == "rounds" else "ddp"
    return traces.fit(
        folder,
        traces.TinyImages(drop_last=False),  # 15 and 14 images: the last comes twice
        traces.TracedModule(buffers=False),
        callbacks,
        **{**options, "devices": 2},
    )


def main(folder):
    found = {}
    for name, (options, places) in CASES.items():
        torch.manual_seed(0)
        save = traces.SaveEverywhere(folder / name)
        whole = fit(folder, name, save, **options)
        for kind, number in places:
            one = [saved for saved in save.saved if saved.kind == kind][number]
            rest = fit(folder, name, ckpt_path=one.path, **options)
            found[f"{name} {one.path.name}"] = traces.unlike(whole, rest, one)
    return found


if __name__ == "__main__":
    leave_group_at_exit()
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    differing = main(place)
    rank = torch.distributed.get_rank()
    (place / f"{rank}.json").write_text(json.dumps(differing))
