"""Readers of annotations, videos, configs and weights, for the table of those that are fuzzed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))
import written as written_runs
from reader_table import READERS, Reader, npy, put, reader, table


@reader(
    lambda folder: put(
        folder,
        "own.csv",
        table(
            ["file_name", "label", "pose", "=dark"], [[f"{n}.jpg", n, n % 2, 1] for n in range(4)]
        ),
    )
)
def factor_table(path: Path) -> None:
    from lit_ssl.imagenet_x.annotations import read_annotations

    found = read_annotations(str(path))
    assert found.members.shape == (len(found.numbers), len(found.factors))
    _scores(found)


def _scores(annotations: Any) -> None:
    from lit_ssl.imagenet_x.predictions import Predictions
    from lit_ssl.imagenet_x.scores import FactorScores

    classes = np.r_[-1, annotations.labels]
    FactorScores(Predictions("x", classes, np.full(len(classes), 0.5)), annotations).worst_classes()


@reader(
    lambda folder: put(
        folder,
        "p.csv",
        table(
            ["file_name", "predicted_class", "predicted_probability"],
            [[f"{n}.jpg", n, 0.5] for n in range(4)],
        ),
    )
)
def predictions(path: Path) -> None:
    from lit_ssl.imagenet_x.annotations import read_annotations
    from lit_ssl.imagenet_x.predictions import read_predictions

    own = put(
        path.parent,
        "own.csv",
        table(["file_name", "label", "pose"], [[f"{n}.jpg", n, n % 2] for n in range(4)]),
    )
    found = read_predictions(path, read_annotations(str(own)))
    assert len(found.classes) == 5
    assert found.classes.max() < 2**31


TABLE = table(
    ["label", "youtube_id", "time_start", "time_end", "split"],
    [["abseiling", f"id{n}", n, n + 10, "train"] for n in range(3)],
)


@reader(lambda folder: put(folder, "train.csv", TABLE))
def kinetics_table(path: Path) -> None:
    from lit_ssl.datamodules.video.kinetics_lists import is_table, read_list, read_table

    for entry in read_table(path) if is_table(path) else read_list(path):
        assert entry.name
        assert entry.label is None or isinstance(entry.label, str)


@reader(lambda folder: put(folder, "train.txt", "a/1.mp4 0\nb/2.mp4, 399\n"))
def kinetics_list(path: Path) -> None:
    from lit_ssl.datamodules.video.kinetics_lists import read_list

    assert all(int(str(entry.label)) >= 0 for entry in read_list(path))


def _ucf(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        put(folder, "classInd.txt", "1 Archery\n2 Biking\n")
        put(
            folder,
            "trainlist01.txt",
            "Archery/v_Archery_g01_c01.avi 1\nBiking/v_Biking_g01_c01.avi 2\n",
        )
        return folder / name

    return write


def _read_ucf(path: Path) -> None:
    from lit_ssl.datamodules import UCF101DataModule

    data = UCF101DataModule(root=str(path.parent), num_frames=2, size=8, num_workers=0)
    assert all(0 <= label < len(data.class_names) for _, label in data._entries("train"))


READERS["ucf101_classes"] = Reader(_ucf("classInd.txt"), _read_ucf)
READERS["ucf101_list"] = Reader(_ucf("trainlist01.txt"), _read_ucf)


@reader(lambda folder: put(folder, "videos.txt", "a.mp4 0\nb.mp4\n"))
def video_list(path: Path) -> None:
    from lit_ssl.video.listing import read_video_list

    for name in ("a.mp4", "b.mp4"):
        put(path.parent, name, b"")
    assert len(read_video_list(path, path.parent)[0]) > 0


def _clip_index(folder: Path) -> Path:
    arrays = {"frames": np.array([3], np.int64)}
    np.savez_compressed(folder / "i.npz", **arrays)
    return folder / "i.npz"


def _cache(folder: Path) -> Path:
    from lit_ssl.video.cache_files import CacheEntry, CacheSettings, write_index, write_settings

    write_settings(folder / "cache", CacheSettings(8, "raw", 0, "pyav"))
    write_index(folder / "cache", [CacheEntry("a.mp4", 5, 2, 25.0, 8, 9, 0, 0, 432)])
    entry = ["a.mp4", 5, 2, 25.0, 8, 9, 0, 0, 432]
    put(folder, "cache/frames-00000.jsonl", json.dumps(entry) + "\n")
    put(folder, "cache/frames-00000.bin", bytes(432))
    return folder / "cache"


@reader(lambda folder: _cache(folder) / "index.npz")
def cache_index(path: Path) -> None:
    from lit_ssl.video.cache_files import read_index

    index = read_index(path.parent)
    assert len(index.name) == len(index.frames)


@reader(lambda folder: _cache(folder) / "cache.json")
def cache_settings(path: Path) -> None:
    from lit_ssl.video.cache_files import read_settings

    settings = read_settings(path.parent)
    assert isinstance(settings.shorter, int)
    assert settings.shorter > 0


def _summed_cache(folder: Path) -> Path:
    from lit_ssl.video.cache_checksums import write_checksums
    from lit_ssl.video.cache_files import read_settings

    cache = _cache(folder)
    put(folder, "cache/frames-00000.u8", bytes(432))
    write_checksums(cache, read_settings(cache), {})
    return cache


@reader(lambda folder: _summed_cache(folder) / "shards.json")
def cache_checksums(path: Path) -> None:
    from lit_ssl.video.cache_checksums import parse_checksums

    for name, known in parse_checksums(path.read_bytes(), str(path)).items():
        assert isinstance(name, str)
        assert known.size >= 0
        assert len(known.sha256) == 64


@reader(lambda folder: _summed_cache(folder) / "blocks.npz")
def cache_blocks(path: Path) -> None:
    from lit_ssl.video.cache_checksums import Checksum, parse_blocks

    sums = {"frames-00000.u8": Checksum(432, "0" * 64, 0)}
    for crcs in parse_blocks(path.read_bytes(), str(path), sums).values():
        assert crcs.shape == (1,)


@reader(lambda folder: _cache(folder) / "frames-00000.jsonl")
def cache_journal(path: Path) -> None:
    from lit_ssl.video.cache_files import read_settings
    from lit_ssl.video.cache_shards import finished_videos

    for entry in finished_videos(path.parent, read_settings(path.parent)).values():
        assert isinstance(entry.name, str)
        assert isinstance(entry.frames, int)
        assert entry.end >= 0


@reader(lambda folder: put(folder, "mean.npy", npy(np.zeros((3, 2, 112, 112), np.float32))))
def mean_clip(path: Path) -> None:
    from lit_ssl.metrics.video.preparation import read_mean_clip

    assert read_mean_clip(path).shape[0] == 3


CONFIG = """# a config
trainer:
  max_epochs: 3
  callbacks: &a
    - class_path: KNNEvaluator
      init_args: {k: [10, 20], every_n_epochs: 1}
model:
  class_path: MSN
  init_args: {num_prototypes: 1024, lr: 1.0e-3}
more: [*a, *a]
"""


@reader(lambda folder: put(folder, "c.yaml", CONFIG))
def config(path: Path) -> None:
    from lit_ssl.cli.composing import read_entries, with_empty_lists
    from lit_ssl.cli.mistakes.entries import wrong_entry
    from lit_ssl.cli.nulls import with_whole_nulls

    words = ["fit", "--config", str(path)]
    for entry in read_entries(words):
        list(entry.leaves())
    with_empty_lists(with_whole_nulls(words))
    wrong_entry({"trainer.max_epochs": int}, words[1:], [])


def _checkpoint(folder: Path) -> Path:
    content = {
        "state_dict": {"w": torch.zeros(3)},
        "hyper_parameters": {"lr": 0.1},
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.5.0",
    }
    torch.save(content, folder / "a.ckpt")
    return folder / "a.ckpt"


@reader(_checkpoint)
def checkpoint(path: Path) -> None:
    from lit_ssl.checkpoints.files import read_checkpoint

    assert isinstance(read_checkpoint(path), dict)


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3), "v": torch.ones(2, 2)}, folder / "a.safetensors", {"a": "b"})
    return folder / "a.safetensors"


@reader(_safetensors)
def safetensors(path: Path) -> None:
    from lit_ssl.checkpoints.files import read_file

    assert isinstance(read_file(path), dict)


def _compared(path: Path) -> None:
    from lit_ssl.runs import compare_runs
    from lit_ssl.runs.formats import as_csv, as_latex, as_markdown

    found = compare_runs([path], say=str)
    assert json.loads(json.dumps(found.rows)) == found.rows
    for text in (as_csv(found), as_latex(found), as_markdown(found)):
        assert len(text) < 100_000


def _with_config(folder: Path) -> Path:
    return written_runs.write_run(folder, 0.5)


@reader(lambda folder: _with_config(folder) / "report.json")
def compared_report(path: Path) -> None:
    _compared(path)


@reader(lambda folder: _with_config(folder) / "config.yaml")
def compared_config(path: Path) -> None:
    _compared(path.parent)


@reader(lambda folder: put(folder, "metrics.csv", table(["step", "val/acc1"], [[1, 0.5], [2, ""]])))
def compared_log(path: Path) -> None:
    _compared(path)
