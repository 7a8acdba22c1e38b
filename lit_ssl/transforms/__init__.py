"""View recipes, with one engine for workers and one for the device."""

from lit_ssl.transforms.draw import CropParams, draw_params
from lit_ssl.transforms.evaluation import EvalTransform, denormalize, normalize
from lit_ssl.transforms.multicrop import MultiCrop, SingleView
from lit_ssl.transforms.preprocessing import Preprocessing, vanilla_preprocessing
from lit_ssl.transforms.rand_augment import RandAugmentView
from lit_ssl.transforms.spec import CropSpec, msn_crops

__all__ = [
    "CropParams",
    "CropSpec",
    "EvalTransform",
    "MultiCrop",
    "Preprocessing",
    "RandAugmentView",
    "SingleView",
    "denormalize",
    "draw_params",
    "msn_crops",
    "normalize",
    "vanilla_preprocessing",
]
