"""Validate with CascadeMonitor on one and two CPU processes: run_monitor.py OUT.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import toys
from video_toys import NoiseClips, UpperLevel

from lit_ssl.callbacks import CascadeMonitor, VideoContactSheet


def main(out):
    torch.set_num_threads(1)
    found = []
    for devices, videos in ((1, 21), (2, 21), (2, 5)):
        trainer = toys.make_trainer(
            Path(out).parent,
            devices=devices,
            strategy="ddp_fork" if devices > 1 else "auto",
            callbacks=[CascadeMonitor(videos), VideoContactSheet(write_mp4=False)],
            use_distributed_sampler=False,
        )
        trainer.validate(UpperLevel(), NoiseClips(), verbose=False)
        logged = trainer.callback_metrics.items()
        found.append({name: value.item() for name, value in logged})
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
