"""What one kind of view looks like: the part of a recipe that is written in YAML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_ssl.errors import InputError


@dataclass(frozen=True)
class CropSpec:
    """Describes ``count`` random views of one size.

    The operations run in the order of the arguments: random resized crop, horizontal flip, affine
    map, colour jitter, grayscale, Gaussian blur, solarize, equalize. With the defaults only the
    crop is on.

    Args:
        size: height and width of the view in pixels; one number for a square.
        count: number of views of this kind per image, >= 1.
        scale: smallest and largest area of the crop as a fraction of the image, in (0, 1].
        ratio: smallest and largest width / height of the crop, > 0.
        hflip: probability of a horizontal flip.
        rotation: largest rotation angle in degrees, in [0, 180]; drawn from [-rotation, rotation].
        shear: largest horizontal shear angle in degrees, in [0, 90).
        translate: largest shift as a fraction of the view's size, in [0, 1].
        jitter_prob: probability of colour jitter. Its four operations run in a random order.
        brightness: the factor is drawn from [max(0, 1 - brightness), 1 + brightness].
        contrast: likewise for contrast.
        saturation: likewise for saturation; no effect on one channel.
        hue: the shift is drawn from [-hue, hue] turns of the colour wheel, in [0, 0.5]; no effect
            on one channel.
        grayscale: probability of replacing the colours by their luminance.
        blur: probability of a Gaussian blur.
        blur_sigma: smallest and largest standard deviation of the blur in pixels of the view
            (the ``radius`` of Pillow's ``GaussianBlur``), > 0.
        solarize: probability of inverting the pixels that reach ``solarize_threshold``.
        solarize_threshold: on the scale of 8-bit images, in [0, 256]; a pair (min, max) draws it
            for each view.
        equalize: probability of equalising the histogram of each channel.

    Raises:
        ValueError: if a value is out of its range.

    Examples:
        >>> CropSpec(size=96, count=10, scale=(0.05, 0.3), hflip=0.5).shape
        (96, 96)
    """

    size: int | tuple[int, int]
    count: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.0
    rotation: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    jitter_prob: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float | tuple[float, float] = 128.0
    equalize: float = 0.0

    def __post_init__(self) -> None:
        sides = tuple(self.size) if isinstance(self.size, Sequence) else (self.size,)
        if len(sides) not in (1, 2) or any(not isinstance(n, int) or n < 1 for n in sides):
            raise InputError(
                "CropSpec.size must be a whole number of pixels >= 1 or a (height, width) pair of "
                f"them, got {self.size!r}"
            )
        if isinstance(self.size, Sequence):
            object.__setattr__(self, "size", sides)
        if not isinstance(self.count, int) or self.count < 1:
            raise InputError(f"CropSpec.count must be a whole number >= 1, got {self.count!r}")
        self._check_range("scale", upper=1.0)
        self._check_range("ratio", upper=math.inf)
        self._check_range("blur_sigma", upper=math.inf)
        for name in ("hflip", "jitter_prob", "grayscale", "blur", "solarize", "equalize"):
            self._check_value(name, 1.0, "a probability")
        for name in ("brightness", "contrast", "saturation"):
            self._check_value(name, math.inf, "a jitter strength")
        self._check_value("hue", 0.5, "a part of the colour wheel")
        self._check_value("rotation", 180.0, "an angle in degrees")
        self._check_value("shear", 89.0, "an angle in degrees")
        self._check_value("translate", 1.0, "a fraction of the view's size")
        self._check_threshold()

    def _check_range(self, name: str, upper: float) -> None:
        """Requires ``0 < min <= max <= upper`` and stores the pair as a tuple."""
        pair: Sequence[float] = getattr(self, name)
        if isinstance(pair, int | float) or len(pair) != 2 or not 0 < pair[0] <= pair[1] <= upper:
            bound = "" if math.isinf(upper) else f" <= {upper:g}"
            raise InputError(
                f"CropSpec.{name} must be a pair (min, max) with 0 < min <= max{bound}, "
                f"got {pair!r}"
            )
        object.__setattr__(self, name, (float(pair[0]), float(pair[1])))

    def _check_threshold(self) -> None:
        """Requires one 8-bit value, or two in order, and stores a pair as a tuple."""
        given = self.solarize_threshold
        pair = tuple(given) if isinstance(given, Sequence) else (given, given)
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= 256:
            raise InputError(
                "CropSpec.solarize_threshold is an 8-bit pixel value and must be in [0, 256], or a "
                f"pair (min, max) of them, got {given!r}"
            )
        if isinstance(given, Sequence):
            object.__setattr__(self, "solarize_threshold", (float(pair[0]), float(pair[1])))

    def _check_value(self, name: str, upper: float, what: str) -> None:
        """Requires ``0 <= value <= upper``."""
        value: float = getattr(self, name)
        if not 0 <= value <= upper:
            bound = ">= 0" if math.isinf(upper) else f"in [0, {upper:g}]"
            raise InputError(f"CropSpec.{name} is {what} and must be {bound}, got {value!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the view in pixels."""
        if isinstance(self.size, int):
            return self.size, self.size
        return (self.size[0], self.size[-1])

    @property
    def has_affine(self) -> bool:
        """Whether views are rotated, sheared or shifted."""
        return self.rotation > 0 or self.shear > 0 or self.translate > 0

    @property
    def has_color(self) -> bool:
        """Whether an operation is on that tells channels apart, so needs 1 or 3 of them."""
        jitter = self.brightness + self.contrast + self.saturation + self.hue
        return self.grayscale > 0 or (self.jitter_prob > 0 and jitter > 0)

    @property
    def only_crops(self) -> bool:
        """Whether views are cut out, resized and flipped but not changed otherwise."""
        filters = self.blur > 0 or self.solarize > 0 or self.equalize > 0
        return not (self.has_affine or self.has_color or filters)

    @property
    def solarize_range(self) -> tuple[float, float]:
        """Smallest and largest threshold."""
        given = self.solarize_threshold
        return (given[0], given[1]) if isinstance(given, Sequence) else (given, given)

    def check_channels(self, channels: int) -> None:
        """Raises where the recipe changes colours and the images are neither grey nor RGB.

        Args:
            channels: of the images.

        Raises:
            ValueError: if colour operations are on and ``channels`` is not 1 or 3.
        """
        if self.has_color and channels not in (1, 3):
            raise InputError(
                f"Colour jitter and grayscale need images with 1 or 3 channels, got {channels}. "
                "Set brightness, contrast, saturation, hue and grayscale of the CropSpec to 0."
            )


def msn_crops(
    large_size: int = 224,
    small_size: int = 96,
    num_large: int = 2,
    num_small: int = 10,
    jitter_strength: float = 0.5,
) -> list[CropSpec]:
    """Views of Masked Siamese Networks: large ones (the first is the target) and small ones.

    Args:
        large_size: pixels per side of the large views.
        small_size: pixels per side of the small ("focal") views.
        num_large: large views per image, >= 1: one target, the others are masked anchors.
        num_small: small views per image; 0 leaves them out.
        jitter_strength: scales the colour jitter, in [0, 2.5].

    Returns:
        The crop specs, large views first.

    Source: arXiv 2204.07141, section 5 and appendix A.1; 0.5 is the jitter strength of the
    released configuration.
    """
    common: dict[str, float | tuple[float, float]] = {
        "hflip": 0.5,
        "jitter_prob": 0.8,
        "brightness": 0.8 * jitter_strength,
        "contrast": 0.8 * jitter_strength,
        "saturation": 0.8 * jitter_strength,
        "hue": 0.2 * jitter_strength,
        "grayscale": 0.2,
        "blur": 0.5,
        "blur_sigma": (0.1, 2.0),
    }
    large = CropSpec(size=large_size, count=num_large, scale=(0.3, 1.0), **common)  # type: ignore[arg-type]
    if num_small == 0:
        return [large]
    small = CropSpec(size=small_size, count=num_small, scale=(0.05, 0.3), **common)  # type: ignore[arg-type]
    return [large, small]
