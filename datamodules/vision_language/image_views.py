"""What is done with each image of a pair with a text, and whether texts stay true of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.errors import InputTypeError
from lit_ssl.transforms import EvalTransform, ImageView, KeepAspect, MultiCrop, SingleView
from lit_ssl.transforms.caption_rand_augment import CaptionRandAugment
from lit_ssl.transforms.rand_augment import RandAugmentView

__all__ = ["View", "WithoutSeed", "check_view", "evaluation_transform"]

View = Callable[[Tensor, int], Tensor]


class WithoutSeed:
    """An evaluation transform where a seed is given too.

    Args:
        transform: of an image, without chance.
    """

    def __init__(self, transform: EvalTransform | KeepAspect) -> None:
        self.transform = transform

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Transform an image."""
        return self.transform(image)


def check_view(view: Any, owner: str) -> None:
    """Make sure that something makes a view of an image; warn where texts become wrong by it.

    Args:
        view: Function (image, seed) → view, such as an ``ImageView`` or a ``SingleView``.
        owner: Name of the data module, for messages.

    Raises:
        InputError: It makes several views, or cannot be called so.
    """
    if isinstance(view, MultiCrop) or not _takes_image_and_seed(view):
        raise InputTypeError(
            f"{owner} makes one view of each image: give train_transform a SingleView, a KeepAspect"
            " or a KeepAspectRandAugment, or a function of an image and a seed, not"
            f" {type(view).__name__}"
        )
    if not isinstance(view, SingleView):
        return
    crop = view.crop
    if crop.hflip > 0:
        rank_zero_warn(
            "train_transform flips images (hflip), which makes texts about left and right"
            " wrong: set hflip to 0 unless there are none"
        )
    done = {
        "hue": crop.jitter_prob * crop.hue > 0,
        "grayscale": crop.grayscale > 0,
        "solarize": crop.solarize > 0,
        "the operation Invert of its policy": isinstance(view, RandAugmentView) and view.inverts,
    }
    if any(done.values()):
        changed = ", ".join(name for name, is_on in done.items() if is_on)
        rank_zero_warn(
            f"train_transform changes colours ({changed}), which makes texts about colours wrong:"
            " leave that out unless there are none; KeepAspectRandAugment and CenterCropRandAugment"
            " have no Invert"
        )


def evaluation_transform(given: Any, view: Any, image_size: int) -> EvalTransform | KeepAspect:
    """Return what is done with images that are not to be distorted.

    Args:
        given: The transform that was asked for; None takes what the training view does at first
            to every image alike, where it says so, and else the centre of ``image_size`` pixels.
        view: Of training images; None: none.
        image_size: Height and width.

    Raises:
        InputError: What was asked for is no such transform.
    """
    if given is not None:
        if not isinstance(given, EvalTransform | KeepAspect):
            raise InputTypeError(
                f"eval_transform must be an EvalTransform or a KeepAspect, not"
                f" {type(given).__name__}"
            )
        return given
    if isinstance(view, CaptionRandAugment):
        return view.resize
    return view if isinstance(view, KeepAspect) else EvalTransform(image_size)


def _takes_image_and_seed(view: Any) -> bool:
    if isinstance(view, ImageView | SingleView):
        return True
    if not callable(view):
        return False
    try:
        inspect.signature(view).bind(None, 0)
    except TypeError:
        return False
    except ValueError:  # a builtin, which does not tell
        return True
    return True
