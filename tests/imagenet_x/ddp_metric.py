"""One of two processes: takes its share of the images, some of them twice; writes the scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.metrics import FactorAccuracy, ImageNetXMetric


def main(folder, rank):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    with np.load(folder / "data.npz") as data:
        labels, members, logits = (data[name] for name in ("labels", "members", "logits"))
    annotations = FactorAnnotations(
        factors=("a", "b", "c", "d"),
        numbers=np.arange(1, 201),
        members=members,
        labels=labels,
        kind="top",
        source="made up",
        class_to_metaclass=np.arange(10) % 3,
        metaclasses=("x", "y", "z"),
    )
    by_number, counts = ImageNetXMetric(annotations), FactorAccuracy(annotations.factors)
    share = np.arange(rank, 200, 2)
    for part in np.array_split(share, 3):
        by_number.update(torch.from_numpy(logits[part]), torch.from_numpy(part + 1))
        if part[-1] != share[-1]:  # the error leaves the metric as it was
            with pytest.raises(InputError, match="of the 200 annotated"):
                by_number.compute()
        counts.update(
            torch.from_numpy(logits[part]),
            torch.from_numpy(labels[part]),
            torch.from_numpy(members[part]),
        )
    padding = np.arange(10)  # images of both shares
    by_number.update(torch.from_numpy(logits[padding]), torch.from_numpy(padding + 1))
    results = {
        name: {key: value.tolist() for key, value in metric.compute().items()}
        for name, metric in (("by_number", by_number), ("counts", counts))
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
