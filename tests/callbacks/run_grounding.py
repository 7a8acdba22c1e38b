"""Validate with Grounding on several CPU processes: run_grounding.py OUT.json RUNS.

RUNS is JSON: a list of (number of processes, numbers of the images of the captions).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import caption_toys
import toys

from lit_ssl.callbacks import Grounding, MaskedCaptions


def main(out, runs):
    torch.set_num_threads(1)
    found = []
    for devices, numbers in runs:
        trainer = toys.make_trainer(
            Path(out).parent,
            devices=devices,
            strategy="ddp_fork",
            callbacks=[Grounding(), MaskedCaptions()],
            use_distributed_sampler=False,
        )
        data = caption_toys.WrittenCaptions(2, numbers)
        trainer.validate(caption_toys.CaptionModule(), data, verbose=False)
        logged = trainer.callback_metrics.items()
        found.append({name.removeprefix("val/"): value.item() for name, value in logged})
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
