"""View recipes, with one engine for workers and one for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.transforms.caption_rand_augment import (
        CenterCropRandAugment as CenterCropRandAugment,
    )
    from lit_ssl.transforms.caption_rand_augment import (
        KeepAspectRandAugment as KeepAspectRandAugment,
    )
    from lit_ssl.transforms.erasing import RandomErasing as RandomErasing
    from lit_ssl.transforms.evaluation import EvalTransform as EvalTransform
    from lit_ssl.transforms.evaluation import denormalize as denormalize
    from lit_ssl.transforms.evaluation import normalize as normalize
    from lit_ssl.transforms.keep_aspect import ImageView as ImageView
    from lit_ssl.transforms.keep_aspect import KeepAspect as KeepAspect
    from lit_ssl.transforms.points import PointAugmentation as PointAugmentation
    from lit_ssl.transforms.preprocessing import Preprocessing as Preprocessing
    from lit_ssl.transforms.preprocessing import vanilla_preprocessing as vanilla_preprocessing
    from lit_ssl.transforms.rand_augment import RandAugmentView as RandAugmentView
    from lit_ssl.transforms.views.draw import CropParams as CropParams
    from lit_ssl.transforms.views.draw import draw_params as draw_params
    from lit_ssl.transforms.views.multicrop import MultiCrop as MultiCrop
    from lit_ssl.transforms.views.multicrop import SingleView as SingleView
    from lit_ssl.transforms.views.spec import CropSpec as CropSpec
    from lit_ssl.transforms.views.spec import msn_crops as msn_crops

__all__, __getattr__, __dir__ = lazy_names(__name__)
