"""Folders as runs leave them, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MODEL = {"backbone": "vit", "lr": 0.002, "mask_ratio": 0.25, "weights": None}
PROTOCOL = {
    "data": "MNIST5kDataModule", "split": "test", "bank": 3500, "queries": 1000,
    "feature_method": "features", "k": 20, "temperature": 0.07, "l2": 0.0025, "draws": 10,
    "shots": [1], "protocols": ["knn", "low_shot"], "soft_nn": None, "recalibrate_bn": False,
    "label_sets": {}, "command": "test", "checkpoint": None, "weights": None, "steps": None,
    "notes": [],
}  # fmt: skip
MADE_WITH = {"lit_ssl": "0.1.0", "commit": "abc", "torch": "2.14.1", "threads": 1}


def config(seed: Any = 0, model: str = "MSN", callbacks: tuple = (), **arguments: Any) -> dict:
    """What the command line saves."""
    data = {"class_path": "lit_ssl.datamodules.MNIST5kDataModule", "init_args": {"batch_size": 128}}
    return {
        "seed_everything": seed,
        "trainer": {
            "max_epochs": 100,
            "default_root_dir": f"/somewhere/{seed}",
            "callbacks": [{"class_path": name, "init_args": {}} for name in callbacks],
        },
        "model": {"class_path": f"lit_ssl.{model}", "init_args": {**MODEL, **arguments}},
        "data": data,
        "ckpt_path": None,
    }


def write_config(folder: Path, content: Any, name: str = "config.yaml") -> Path:
    """A folder with a config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def write_report(
    folder: Path, knn: float | None, low_shot: float | None = 0.5, **protocol: Any
) -> Path:
    """A folder with the report of a representation and two baselines."""
    rows = [
        {"features": "trained", "knn_acc1": knn, "lowshot_1_acc1": low_shot, "lowshot_1_std": 0.1},
        {"features": "untrained", "knn_acc1": 0.4, "lowshot_1_acc1": 0.2, "lowshot_1_std": 0.1},
        {"features": "pixels", "knn_acc1": 0.3, "lowshot_1_acc1": 0.1, "lowshot_1_std": 0.1},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    content = {"protocol": {**PROTOCOL, "made_with": MADE_WITH, **protocol}, "rows": rows}
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def write_run(folder: Path, knn: float | None, seed: Any = 0, **arguments: Any) -> Path:
    """A folder with both."""
    write_report(folder, knn)
    return write_config(folder, config(seed, **arguments))


def write_metrics(folder: Path, text: str) -> Path:
    """A folder with the file of Lightning's CSVLogger."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(text, encoding="utf-8")
    return folder
