"""Priors over prototypes: what share of all samples each prototype should receive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_ssl.arrays import read_array
from lit_ssl.errors import InputError, InputFileNotFoundError, quoted
from lit_ssl.files import read_text
from lit_ssl.numerals import finite_number

__all__ = [
    "as_prior",
    "class_count_prior",
    "power_law_prior",
    "read_prior",
    "uniform_prior",
]

_FILES = (".npy", ".txt")


def uniform_prior(num_prototypes: int) -> Tensor:
    """The uniform prior: ``[K]``, float64, all ``1 / K``.

    Args:
        num_prototypes: K ≥ 1.
    """
    return power_law_prior(num_prototypes, 0.0)


def power_law_prior(num_prototypes: int, exponent: float = 0.25) -> Tensor:
    """Power law: the k-th of K prototypes gets a share proportional to ``k ** -exponent``.

    Prototypes are exchangeable before training, so which one stands where does not matter.

    Args:
        num_prototypes: K, at least 1.
        exponent: ≥ 0; 0 is the uniform prior, larger values a longer tail.

    Returns:
        ``[K]``, float64, descending, sums to one.

    Raises:
        ValueError: if a value lies outside its range.
    """
    if num_prototypes < 1:
        raise InputError(f"a prior needs at least one prototype, got {num_prototypes}")
    if not 0 <= exponent < float("inf"):
        raise InputError(f"the exponent of a power-law prior must be at least 0, got {exponent}")
    ranks = torch.arange(1, num_prototypes + 1, dtype=torch.float64)
    return as_prior(ranks**-exponent)


def as_prior(shares: Tensor | Sequence[float], num_prototypes: int | None = None) -> Tensor:
    """Check shares and divide them by their sum.

    Args:
        shares: ``[K]`` positive numbers, such as probabilities or counts.
        num_prototypes: the K they must be for; None: any.

    Returns:
        ``[K]``, float64, sums to one.

    Raises:
        ValueError: if they are no vector of that length, or not all positive and finite. (A share
            of zero would make KL(p̄ ‖ prior) infinite: softmax predictions are never zero.)
    """
    try:
        vector = torch.as_tensor(shares, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a prior is a vector of positive numbers, one per prototype; {error}"
        ) from error
    if vector.ndim != 1 or len(vector) == 0:
        raise InputError(
            "a prior is a vector of positive numbers, one per prototype, but this one has the "
            f"shape {list(vector.shape)}"
        )
    if num_prototypes is not None and len(vector) != num_prototypes:
        raise InputError(
            f"the prior has {len(vector)} entries for {num_prototypes} prototypes: give one share "
            f"per prototype, or set num_prototypes to {len(vector)}"
        )
    wrong = ~(torch.isfinite(vector) & (vector > 0))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InputError(
            f"all shares of a prior must be positive and finite, but {int(wrong.sum())} of "
            f"{len(vector)} are not (number {first} is {vector[first].item():g}); give small "
            "positive shares instead of zeros"
        )
    return vector / vector.sum()


def read_prior(path: str | Path, num_prototypes: int | None = None) -> Tensor:
    """Read a prior from a file.

    Args:
        path: ``.npy`` with a vector, or ``.txt`` with one number a line (or all in one line).
        num_prototypes: the K they must be for; None: any.

    Returns:
        ``[K]``, float64, sums to one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no prior for ``num_prototypes`` prototypes.
    """
    path = Path(path)
    if path.suffix not in _FILES:
        raise InputError(f"a prior is read from a {' or '.join(_FILES)} file, not from {path}")
    if not path.is_file():
        raise InputFileNotFoundError(f"there is no prior at {path.absolute()}")
    try:
        if path.suffix == ".npy":
            shares = read_array(path)
        else:
            lines = [line.partition("#")[0] for line in read_text(path).splitlines()]
            words = " ".join(lines).split()
            found = [finite_number(word) for word in words]
            if None in found:
                raise ValueError(f"{quoted(words[found.index(None)])} is no number")
            shares = np.array(found, dtype=np.float64)
        return as_prior(torch.from_numpy(np.asarray(shares, dtype=np.float64)), num_prototypes)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: {error}") from error


def class_count_prior(counts: Tensor | Sequence[int], num_prototypes: int) -> Tensor:
    """Prior with the frequencies of classes; each class shares its part among equally many.

    Args:
        counts: ``[C]``, number of samples of each class, all positive.
        num_prototypes: K, a multiple of C. Prototypes ``c * K / C`` and the ``K / C - 1`` after it
            stand for class c.

    Returns:
        ``[K]``, float64, sums to one.

    Raises:
        ValueError: if K is no multiple of C, or a class has no samples.
    """
    frequencies = as_prior(counts)
    classes = len(frequencies)
    if num_prototypes % classes:
        below = num_prototypes // classes * classes
        near = f"{below} or {below + classes}" if below else f"{classes}"
        raise InputError(
            f"{num_prototypes} prototypes cannot be shared equally by {classes} classes: set "
            f"num_prototypes to a multiple of {classes}, such as {near}"
        )
    each = num_prototypes // classes
    return frequencies.repeat_interleave(each) / each
