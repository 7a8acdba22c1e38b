"""The benchmark of views: all pipelines make batches of one form, and every table is printed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "augmentation.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("augmentation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "augmentation", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("name", ["msn", "supervised", "evaluation"])
def test_pipelines_make_batches_of_one_form(benchmark, name):
    contents = [benchmark.photograph(60, 80, seed) for seed in range(2)]
    recipe = benchmark.recipes(28)[name]
    shapes = {}
    for pipeline, make in {
        **benchmark.ours(contents, recipe),
        **benchmark.peers(contents, recipe),
    }.items():
        images = make(1)
        if pipeline.startswith("ours"):
            images = images[0]
        if pipeline == "ours, augment: device":
            assert images.images.shape == (2, 3, 384, 384)
            assert images.sizes.tolist() == [[60, 80]] * 2
            continue
        images = images if isinstance(images, list) else [images]
        views = [v for group in images for v in (group.unbind(1) if group.ndim == 5 else [group])]
        assert all(view.dtype == torch.uint8 for view in views)
        shapes[pipeline] = [tuple(view.shape) for view in views]
    large, small = (2, 3, 28, 28), (2, 3, 12, 12)
    expected = [large, large, *[small] * 10] if name == "msn" else [large]
    assert shapes == dict.fromkeys(shapes, expected)
    assert len(shapes) == 3


def test_files_are_not_flat(benchmark):
    content = benchmark.photograph(375, 500, seed=0)
    assert 50_000 < len(content) < 70_000
    assert content != benchmark.photograph(375, 500, seed=1)


def test_the_tables_are_printed(benchmark, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly.transforms", None)  # as where it is not installed
    threads = torch.get_num_threads()
    try:
        benchmark.main(["--tiny"])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    for name in ("msn", "supervised", "evaluation"):
        assert f"{name}, files of 60 x 80 pixels" in printed
    assert printed.count("torchvision v1 on Pillow") == 3
    assert printed.count("augment: device") == 2
    assert "lightly (not installed)" in printed
