"""The program of accelerators: here on CPU tensors, beside the program that a CPU runs."""

from __future__ import annotations

import dataclasses
import itertools
import warnings

import pytest
import torch

from lit_ssl.transforms import CropSpec, MultiCrop, msn_crops
from lit_ssl.transforms.views import compiled, geometry, some_views
from lit_ssl.transforms.views.accelerator import accelerated_views
from lit_ssl.transforms.views.device import make_batched_views

BASE = CropSpec(size=24, count=12, scale=(0.3, 1.0))
OPERATIONS = {
    "crop": {},
    "flip": {"hflip": 0.5},
    "affine": {"rotation": 20.0, "shear": 10.0, "translate": 0.1},
    "brightness": {"brightness": 0.6},
    "contrast": {"contrast": 0.6},
    "saturation": {"saturation": 0.6},
    "hue": {"hue": 0.3},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grayscale": {"grayscale": 0.5},
    "blur": {"blur": 0.5},
    "solarize": {"solarize": 0.5, "solarize_threshold": (60.0, 200.0)},
}  # fmt: skip
ALL = dict(itertools.chain.from_iterable(options.items() for options in OPERATIONS.values()))


def _close(images, params, spec):
    (expected,) = make_batched_views(images, [(params, spec)])
    (views,) = accelerated_views([(images, params, spec)])
    views = views.view(expected.shape)
    # Solarize jumps at its level: a pixel that lies on it may fall on either side.
    jumps = (views - expected).abs() > 1e-4
    assert jumps.float().mean() < (1e-3 if spec.solarize else 1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_one_operation(name, channels, make_image, draw):
    spec = dataclasses.replace(BASE, **OPERATIONS[name])
    images = torch.stack([make_image(channels, 40, 33, seed=seed) for seed in range(2)])
    _close(images, draw(spec, [(40, 33)] * 2), spec)


@pytest.mark.parametrize("size", [14, (20, 90)])
def test_all_operations_on_images_of_different_sizes(size, make_image, draw):
    spec = CropSpec(size=size, count=6, scale=(0.1, 1.0), **ALL)
    images = torch.stack([make_image(3, 50, 70, seed=seed) for seed in range(3)])
    _close(images, draw(spec, [(50, 61), (20, 70), (33, 33)]), spec)


def test_histograms_are_equalised(make_image, draw):
    spec = dataclasses.replace(BASE, equalize=0.5)
    images = make_image(3, 24, 24)[None]
    params = draw(spec, [(24, 24)])
    (expected,) = make_batched_views(images, [(params, spec)])
    (views,) = accelerated_views([(images, params, spec)])
    # The crop, in another order of operations, rounds a pixel in a hundred to its neighbour.
    assert ((views - expected[0]).abs() > 1e-4).float().mean() < 0.02


def test_all_kinds_and_chunks_of_a_batch_share_one_upload(monkeypatch):
    uploads = []
    upload = some_views.upload

    def counted(tensor, device):
        uploads.append(tensor)
        return upload(tensor, device)

    recipe = MultiCrop(msn_crops(32, 16, num_large=2, num_small=4))
    images = torch.empty(8, 3, 40, 40, dtype=torch.uint8, device="meta")
    monkeypatch.setattr("lit_ssl.transforms.views.device._CHUNK_VALUES", 3 * 40 * 32 * 2 * 3)
    generator = torch.Generator().manual_seed(0)
    recipe.batched(images, generator=generator)  # tables that are uploaded once
    for module in (some_views, geometry):
        monkeypatch.setattr(module, "upload", counted)
    large, small = recipe.batched(images, generator=generator)
    assert large.shape == (8, 2, 3, 32, 32)
    assert small.shape == (8, 4, 3, 16, 16)
    assert len(uploads) == 1


@pytest.fixture
def compiled_here(monkeypatch):
    """Compile on the CPU too, with the backend given by ``torch.compile``'s replacement."""
    monkeypatch.setattr(compiled, "_COMPILES_FOR", {"cpu"})
    monkeypatch.setattr(compiled, "_has_compiler", lambda: True)
    compiled._compiled.cache_clear()
    yield
    compiled._compiled.cache_clear()


def test_each_function_is_one_graph_without_breaks(compiled_here, monkeypatch, make_image, draw):
    """Two kinds of views, then a last batch of another size: then none is new."""
    graphs, known = [], []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function: compile_(function, backend=backend, fullgraph=True)
    )
    torch.compiler.reset()
    crops = [dataclasses.replace(spec, solarize=0.5) for spec in msn_crops(32, 16, 2, 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a graph break would be told, and run as written
        for batch in (6, 4, 3, 5):
            images = torch.stack([make_image(3, 40, 40, seed=seed) for seed in range(batch)])
            parts = [(images, draw(spec, [(40, 40)] * batch), spec) for spec in crops]
            views = [made.view(batch, -1) for made in accelerated_views(parts)]
            assert [len(made) for made in views] == [batch, batch]
            known.append(len(graphs))
    assert known[1:] == [known[1]] * 3  # sizes that come later find theirs
    assert known[1] <= 10  # weights (flipped or not), colours, solarize
    torch.compiler.reset()


def test_what_cannot_be_compiled_is_said_once_and_runs_as_written(
    compiled_here, monkeypatch, make_image, draw
):
    def no_compiler(function):
        def fail(*args):
            raise RuntimeError("no C compiler found\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    spec = dataclasses.replace(BASE, brightness=0.4, hue=0.1)
    images = make_image(3, 24, 24)[None]
    params = draw(spec, [(24, 24)])
    with pytest.warns(
        UserWarning, match="without compiled kernels, .*: no C compiler found$"
    ) as told:
        (views,) = accelerated_views([(images, params, spec)])
    assert len(told) == 2  # of two functions
    (expected,) = make_batched_views(images, [(params, spec)])
    torch.testing.assert_close(views, expected[0], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_torchs_own_compiler_gives_the_same_views(compiled_here, make_image, draw):
    torch.compiler.reset()
    spec = CropSpec(size=32, count=6, scale=(0.1, 1.0), **ALL)
    images = torch.stack([make_image(3, 50, 70, seed=seed) for seed in range(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _close(images, draw(spec, [(50, 61), (20, 70), (33, 33)]), spec)
    torch.compiler.reset()
