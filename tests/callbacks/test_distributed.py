from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process and two processes logged for the same data and weights."""
    found = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for devices in (1, 2):
        out = tmp_path_factory.mktemp(f"devices{devices}") / "out.json"
        script = Path(__file__).with_name("run_devices.py")
        done = subprocess.run(
            [sys.executable, str(script), str(out), str(devices)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        report = json.loads((out.parent / "report.json").read_text(encoding="utf-8"))
        pictures = {
            path.relative_to(out.parent).as_posix(): np.asarray(Image.open(path)).astype(int)
            for path in sorted(out.parent.rglob("*.png"))
            if path.parent.name != "views"  # of the batches, which are divided
        }
        page = (out.parent / "index.html").read_text(encoding="utf-8")
        found[devices] = {
            **json.loads(out.read_text()),
            "report": report,
            "pictures": pictures,
            "page": page,
        }
    return found


def test_splits_come_whole_in_order_and_without_duplicates(runs):
    for split, count in (("bank", 64), ("val", 13)):
        (labels, sums), (alone, sums_alone) = (runs[n]["order"][split] for n in (2, 1))
        assert len(labels) == count
        assert labels == alone
        # kernels may round in another way for batches of another size
        assert sums == pytest.approx(sums_alone, rel=1e-5)


def test_two_processes_write_one_page(runs):
    assert "2 processes" in runs[2]["page"]
    assert "2 processes" not in runs[1]["page"]
    assert runs[2]["page"].count("<h2") == runs[1]["page"].count("<h2")


def test_evaluators_agree_with_one_process(runs):
    names = ["val/knn_acc1", "val/lowshot_1_acc1", "val/lowshot_2_std", "val/linear_acc1"]
    names += ["val/soft_nn_acc1"]
    for name in names:
        assert runs[2]["metrics"][name] == pytest.approx(runs[1]["metrics"][name], abs=1e-6), name


def test_pictures_agree_with_one_process(runs):
    names = {name.rpartition("/")[2] for name in runs[1]["pictures"]}
    assert names == {"step_00000008.png", "test.png"}
    assert len(runs[1]["pictures"]) == 12
    assert list(runs[1]["pictures"]) == list(runs[2]["pictures"])
    for name, picture in runs[1]["pictures"].items():
        # rounding may move a point or change a last digit
        assert picture.shape == runs[2]["pictures"][name].shape
        assert np.abs(picture - runs[2]["pictures"][name]).mean() < 0.5, name


def test_recalibrated_batch_norm_is_that_of_all_images(runs):
    first, second = runs[2]["statistics"]
    (alone,) = runs[1]["statistics"]
    assert first == second
    assert first == pytest.approx(alone, rel=1e-5)


def test_probe_takes_the_step_of_the_joined_batch_on_every_process(runs):
    first, second = runs[2]["heads"]
    assert first == second
    (alone,) = runs[1]["heads"]
    assert first == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_monitors_cover_all_processes(runs):
    for name in ("used_prototypes", "assignment_entropy", "rankme", "feature_std"):
        key = f"monitor/{name}"
        assert runs[2]["metrics"][key] == pytest.approx(runs[1]["metrics"][key], rel=1e-4), name
    assert runs[2]["metrics"]["perf/images_per_second"] > 0


def test_processes_draw_different_numbers_and_rank_zero_those_of_a_single_process(runs):
    assert all(a != b for a, b in runs[2]["draws"])
    assert [a for a, _ in runs[2]["draws"]] == [a for (a,) in runs[1]["draws"]]


def test_report_is_the_same(runs):
    alone, together = (runs[n]["report"] for n in (1, 2))
    for a, b in zip(alone["rows"], together["rows"], strict=True):
        assert a.pop("features") == b.pop("features")
        assert a == pytest.approx(b, abs=1e-6)
    made = [one["protocol"].pop("made_with")["processes"] for one in (alone, together)]
    assert made == [1, 2]
    assert alone["protocol"] == together["protocol"]
