"""Transforms give the same pixels whatever the strides of an image are."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop, SingleView
from lit_ssl.transforms.caption_rand_augment import KeepAspectRandAugment
from lit_ssl.transforms.keep_aspect import KeepAspect
from lit_ssl.transforms.rand_augment import RandAugmentView

COLOURS = {"jitter_prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
FILTERS = {"grayscale": 0.3, "blur": 0.5, "solarize": 0.3, "equalize": 0.3, "rotation": 10.0}
TRANSFORMS = {
    "crop": SingleView(CropSpec(24, hflip=0.5)),
    "views": MultiCrop([CropSpec((24, 30), count=9, hflip=0.5, **COLOURS, **FILTERS)]),
    "evaluation": EvalTransform(32, resize=40),
    "evaluation, bicubic": EvalTransform(32, interpolation="bicubic"),
    "grey evaluation": EvalTransform(32, channels=1),
    "no change": EvalTransform(50),
    "keep aspect": KeepAspect(32),
    "rand augment": RandAugmentView(CropSpec(24, hflip=0.5)),
    "rand augment of captions": KeepAspectRandAugment(32),
}


def listed(views):
    return [views] if isinstance(views, torch.Tensor) else views


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_pixels_do_not_depend_on_strides(name, make_image):
    transform = TRANSFORMS[name]
    for seed in range(8):
        planar = make_image(3, 50, 71, seed)
        arguments = () if isinstance(transform, EvalTransform) else (seed,)
        expected = listed(transform(planar, *arguments))
        padded = torch.zeros(60, 80, 4, dtype=torch.uint8)
        padded[5:55, 5:76, :3] = planar.permute(1, 2, 0)
        for image in (
            planar.permute(1, 2, 0).contiguous().permute(2, 0, 1),  # as decoders write it
            padded[5:55, 5:76, :3].permute(2, 0, 1),  # a part of a larger one
            planar.flip(-1).flip(-1).mT.contiguous().mT,
        ):
            before = image.clone()
            found = listed(transform(image, *arguments))
            for views, wanted in zip(found, expected, strict=True):
                assert torch.equal(views, wanted)
            assert torch.equal(image, before)
