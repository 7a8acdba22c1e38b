from __future__ import annotations

import dataclasses

import pytest
from jsonargparse import ArgumentParser

from lit_ssl.transforms import CropSpec, MultiCrop, SingleView, msn_crops


def test_by_default_only_the_crop_is_on():
    spec = CropSpec(size=32)
    assert spec.only_crops
    assert spec.hflip == 0
    assert (spec.scale, spec.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))


@pytest.mark.parametrize(
    "option",
    [
        {"brightness": 0.4},
        {"hue": 0.1},
        {"grayscale": 0.1},
        {"blur": 0.5},
        {"solarize": 0.2},
        {"equalize": 0.2},
        {"rotation": 5.0},
        {"shear": 5.0},
        {"translate": 0.1},
    ],
)
def test_one_option_is_enough_to_switch_an_operation_on(option):
    assert not CropSpec(size=32, **option).only_crops


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 0}, r"size must be a whole number of pixels >= 1 or .*pair.*, got 0"),
        ({"size": (32, 0)}, r"size must be .*got \(32, 0\)"),
        ({"size": (1, 2, 3)}, r"size must be .*got \(1, 2, 3\)"),
        ({"size": 28.5}, r"size must be .*got 28.5"),
        ({"count": 0}, r"count must be a whole number >= 1, got 0"),
        ({"scale": (0.5, 0.2)}, r"scale must be a pair .*0 < min <= max <= 1, got \(0.5, 0.2\)"),
        ({"scale": (0.0, 1.0)}, r"scale must be a pair"),
        ({"scale": (0.5, 1.5)}, r"scale must be a pair"),
        ({"scale": 0.5}, r"scale must be a pair .*got 0.5"),
        ({"ratio": (2.0, 1.0)}, r"ratio must be a pair .*0 < min <= max, got"),
        ({"blur_sigma": (0.0, 2.0)}, r"blur_sigma must be a pair"),
        ({"hflip": 1.5}, r"hflip is a probability and must be in \[0, 1\], got 1.5"),
        ({"jitter_prob": -0.1}, r"jitter_prob is a probability"),
        ({"brightness": -1.0}, r"brightness is a jitter strength and must be >= 0, got -1.0"),
        ({"hue": 0.6}, r"hue .*must be in \[0, 0.5\], got 0.6"),
        ({"rotation": 200.0}, r"rotation .*must be in \[0, 180\]"),
        ({"shear": 90.0}, r"shear .*must be in"),
        ({"translate": 2.0}, r"translate .*must be in \[0, 1\]"),
        ({"solarize_threshold": 300.0}, r"solarize_threshold .*must be in \[0, 256\]"),
        ({"solarize_threshold": (0, 300)}, r"solarize_threshold .*or a pair .*got \(0, 300\)"),
        ({"solarize_threshold": (9, 3)}, r"solarize_threshold .*or a pair .*got \(9, 3\)"),
        ({"solarize_threshold": (9,)}, r"solarize_threshold .*or a pair .*got \(9,\)"),
        ({"hflip": float("nan")}, r"hflip is a probability"),
    ],
)
def test_wrong_values_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        CropSpec(**{"size": 32, **option})


def test_size_may_be_a_pair():
    spec = CropSpec(size=[24, 32], scale=[0.5, 1.0])
    assert spec.shape == (24, 32)
    assert spec.scale == (0.5, 1.0)
    assert hash(spec) == hash(CropSpec(size=(24, 32), scale=(0.5, 1.0)))


def test_msn_recipe_is_the_released_one():
    large, small = msn_crops()
    assert (large.size, large.count, large.scale) == (224, 2, (0.3, 1.0))
    assert (small.size, small.count, small.scale) == (96, 10, (0.05, 0.3))
    for spec in (large, small):
        assert spec.ratio == (3 / 4, 4 / 3)
        assert (spec.hflip, spec.jitter_prob, spec.grayscale, spec.blur) == (0.5, 0.8, 0.2, 0.5)
        assert (spec.brightness, spec.contrast, spec.saturation) == (0.4, 0.4, 0.4)
        assert spec.hue == pytest.approx(0.1)
        assert spec.blur_sigma == (0.1, 2.0)
        assert spec.solarize == 0


def test_msn_recipe_scales_its_jitter_and_can_leave_out_small_views():
    (large,) = msn_crops(32, num_large=3, num_small=0, jitter_strength=1.0)
    assert (large.size, large.count, large.brightness, large.hue) == (32, 3, 0.8, 0.2)


def test_yaml_builds_recipes():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transform", type=MultiCrop | SingleView)
    crops = [{"size": 28, "count": 2, "scale": [0.3, 1.0]}, {"size": [14, 12], "blur": 0.5}]
    config = parser.parse_object(
        {"transform": {"class_path": "lit_ssl.transforms.MultiCrop", "init_args": {"crops": crops}}}
    )
    # jsonargparse 4.49 renamed the method.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    recipe = instantiate(config).transform
    assert recipe.crops == [
        CropSpec(size=28, count=2, scale=(0.3, 1.0)),
        CropSpec(size=(14, 12), blur=0.5),
    ]
    with pytest.raises(Exception, match="hflipp"):
        parser.parse_object(
            {
                "transform": {
                    "class_path": "lit_ssl.transforms.SingleView",
                    "init_args": {"crop": {"size": 28, "hflipp": 0.5}},
                }
            }
        )


def test_python_accepts_dictionaries_as_well():
    assert MultiCrop([{"size": 8, "count": 3}]).crops == [CropSpec(size=8, count=3)]
    assert SingleView({"size": 8}).crop == CropSpec(size=8)
    as_dict = dataclasses.asdict(msn_crops()[0])
    assert MultiCrop([as_dict]).crops == msn_crops()[:1]
