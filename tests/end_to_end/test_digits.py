"""The recipe on the embedded digits: fit, validate, test, predict, export."""

from __future__ import annotations

import csv
import json
import math
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_ssl import MSN
from lit_ssl.datamodules import MNIST5kDataModule

ACCURACIES = ("knn_acc1", "knn_acc5", "linear_acc1", "lowshot_1_acc1", "lowshot_5_acc1")


@pytest.fixture(scope="module")
def events(trained):
    accumulator = EventAccumulator(str(trained.logs))
    accumulator.Reload()
    return accumulator


def scalars(events, name):
    return {event.step: event.value for event in events.Scalars(name)}


def test_fit_trains_and_saves(trained):
    losses = [float.fromhex(value) for value in trained.losses.values()]
    assert len(losses) == 18
    assert all(math.isfinite(loss) for loss in losses)
    last = trained.last
    assert last["global_step"] == 18
    names = {path.name for path in (trained.logs / "checkpoints").iterdir()}
    assert {"last.ckpt", "step=4.ckpt", "step=8.ckpt", "step=12.ckpt", "step=16.ckpt"} <= names
    assert (trained.logs / "config.yaml").is_file()
    # the target moves, but does not follow at once
    weights = last["state_dict"]
    online, target = (weights[f"{n}backbone.vit.blocks.0.mlp.fc1.weight"] for n in ("", "target_"))
    assert not torch.equal(online, target)


def test_fit_logs_losses_schedules_health_and_speed(trained, events):
    loss = scalars(events, "train/loss")
    written = {step: float.fromhex(value) for step, value in trained.losses.items()}
    assert loss == pytest.approx({s - 1: written[str(s)] for s in range(2, 19, 2)})
    lr = list(scalars(events, "train/lr").values())
    assert lr == sorted(lr)  # the warm-up takes the whole short run
    for name in ("cross_entropy", "me_max", "max_target_prob", "weight_decay", "grad_norm"):
        assert all(math.isfinite(v) for v in scalars(events, f"train/{name}").values())
    prototypes = MSN.load_from_checkpoint(
        trained.logs / "checkpoints/last.ckpt", weights_only=True
    ).prototypes
    used = scalars(events, "monitor/used_prototypes").values()
    assert all(1 <= value <= len(prototypes) for value in used)
    assert all(1 <= value <= 16.01 for value in scalars(events, "monitor/rankme").values())
    speed = scalars(events, "perf/images_per_second").values()
    waiting = scalars(events, "perf/data_seconds").values()
    step = scalars(events, "perf/step_seconds").values()
    assert min(speed) > 0
    assert all(0 <= w < s for w, s in zip(waiting, step, strict=True))


def test_fit_evaluates_after_each_epoch(events):
    for name in ACCURACIES:
        values = scalars(events, f"val/{name}")
        assert list(values) == [5, 11, 17]
        assert all(0 <= value <= 1 for value in values.values())
    top1, top5 = (np.array(list(scalars(events, f"val/knn_acc{k}").values())) for k in (1, 5))
    assert (top1 < top5).all()
    # pixels are far better than chance, and so is any network that sees them
    assert (top1 > 0.2).all()


def test_fit_draws_the_views(trained, events):
    with Image.open(trained.logs / "views/epoch_0000.png") as picture:
        picture.load()
        assert min(picture.size) > 100
        pixels = np.asarray(picture)
    assert pixels.std() > 20
    (shown,) = events.Images("views")
    assert (shown.width, shown.height) == picture.size


def test_fit_says_how_it_ended(trained, events):
    assert "hp_metric" not in events.Tags()["scalars"]
    *_, results, checkpoints, logs = trained.result.out.splitlines()
    assert results.startswith("results: ")
    assert set(re.findall(r"val/(\w+) 0\.\d+", results)) >= set(ACCURACIES)
    assert checkpoints == "checkpoints: lightning_logs/version_0/checkpoints"
    assert logs == "logs: lightning_logs/version_0"
    assert "FLOPs" not in trained.result.out


def checkpoint(run):
    return run.logs / "checkpoints/last.ckpt"


def test_validate_repeats_the_numbers_of_fit(trained, events, lit_ssl, recipe):
    result = lit_ssl("validate", *recipe, "--ckpt_path", checkpoint(trained))
    assert result.code == 0, result.err
    shown = dict(re.findall(r"(val/\w+)\D+([\d.]+)", result.out))
    for name in ACCURACIES:
        assert float(shown[f"val/{name}"]) == pytest.approx(scalars(events, f"val/{name}")[17])


def test_report(trained, lit_ssl, recipe, tmp_path, warned):
    words = ["--config", "eval/mnist5k.yaml", "--ckpt_path", checkpoint(trained)]
    result = lit_ssl("test", *recipe, *words)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row.pop("features"): row for row in report["rows"]}
    assert list(rows) == ["trained", "untrained", "pixels"]
    for row in rows.values():
        assert all(0 <= value <= 1 for name, value in row.items() if name.endswith("acc1"))
        assert row["lowshot_1_acc1"] < row["lowshot_5_acc1"] < row["linear_acc1"]
    assert rows["pixels"]["knn_acc1"] > 0.9
    assert rows["pixels"]["linear_acc1"] > 0.85
    assert rows["trained"] != rows["untrained"]
    protocol = report["protocol"]
    assert (protocol["bank"], protocol["queries"], protocol["split"]) == (3500, 1000, "test")
    assert protocol["checkpoint"] == str(checkpoint(trained))

    with (tmp_path / "report.csv").open() as file:
        table = {row.pop("features"): row for row in csv.DictReader(file)}
    for name, row in rows.items():
        assert {key: float(value) for key, value in table[name].items()} == row
    knn = [f"{100 * rows[name]['knn_acc1']:.1f}" for name in ("trained", "untrained", "pixels")]
    assert re.search(rf"k-NN +│ +{' +│ +'.join(knn)} ", result.out)
    assert f"checkpoint   {checkpoint(trained)}" in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.html",
        "report.csv",
        "report.json",
    ]
    assert warned() == []


def test_report_without_a_checkpoint_says_that_nothing_was_trained(lit_ssl, recipe, tmp_path):
    words = ["--config", "eval/mnist5k.yaml", "--trainer.callbacks.draws=1"]
    words.append("--trainer.limit_test_batches=2")
    result = lit_ssl("test", *[w for w in recipe if "callbacks" not in w], *words)
    assert result.code == 0, result.err
    assert "No untrained row: the module still has the weights it was built with" in " ".join(
        result.out.split()
    )


def test_predictions_and_export_are_the_features(trained, lit_ssl, recipe, tmp_path):
    result = lit_ssl("predict", *recipe, "--ckpt_path", checkpoint(trained))
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "predictions: lightning_logs/version_0/predictions.pt"
    rows = torch.load(tmp_path / "lightning_logs/version_0/predictions.pt", weights_only=True)
    assert rows.shape == (1000, 16)

    data = MNIST5kDataModule(batch_size=1000)
    images, _ = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    module = MSN.load_from_checkpoint(checkpoint(trained), weights_only=True).eval()
    with torch.no_grad():
        assert torch.allclose(rows, module(images), atol=1e-5)

    out = tmp_path / "digits.safetensors"
    result = lit_ssl("export", checkpoint(trained), out)
    assert result.code == 0, result.err
    line, how = result.out.splitlines()
    assert line == f"wrote {out}; load it with"
    loaded = eval(how, {"timm": timm}).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), module.encoder(images))
        assert torch.allclose(loaded(images), rows, atol=1e-5)
