"""Label-free health measures of features and prototype assignments."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError


class FeatureSums(NamedTuple):
    """Sums over the rows of features: those of several processes are added up.

    All are float64, where a device has it: the square of a singular value then still shows values
    down to 1e-8 of the largest, and no setting of the matrix products (TF32) touches it.

    Attributes:
        gram: ``[D, D]``, sum of the outer products of each row with itself.
        unit: ``[D]``, sum of the rows, each divided by its length.
        unit_square: ``[D]``, sum of their squares.
        rows: a scalar, N.
    """

    gram: Tensor
    unit: Tensor
    unit_square: Tensor
    rows: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureSums:
        """Sums of ``[N, D]``, float, not empty; stays on the device (on MPS: on the CPU).

        Args:
            features: of any N images, raw.

        Raises:
            ValueError: If ``features`` is not a matrix with at least one row.
        """
        _check_matrix(features, "FeatureSums")
        if features.device.type == "mps":  # has no float64
            features = features.cpu()
        unit = F.normalize(features.float(), dim=1).double()
        wide = features.double()
        # filled on the device: a tensor made of a Python number is uploaded, and the host waits
        rows = wide.new_full((), len(wide))
        return cls(wide.T @ wide, unit.sum(dim=0), unit.square().sum(dim=0), rows)

    def flat(self) -> Tensor:
        """All of them as one vector, to be added up over processes by one collective.

        Returns:
            float64 ``[D * D + 2 * D + 1]``.
        """
        return torch.cat([part.reshape(-1) for part in self])

    @classmethod
    def from_flat(cls, vector: Tensor, width: int) -> FeatureSums:
        """What ``flat`` has made of features of so many columns.

        Args:
            vector: ``[D * D + 2 * D + 1]``.
            width: D.
        """
        gram, unit, square, rows = vector.split([width * width, width, width, 1])
        return cls(gram.view(width, width), unit, square, rows.view(()))


def rankme(features: Tensor, eps: float = 1e-7) -> Tensor:
    """Smooth rank of a feature matrix: the exponential of the entropy of its singular values.

    With ``p_k = s_k / sum(s) + eps`` it is ``exp(−sum p_k log p_k)``; ``eps = 0`` gives the
    effective rank of Roy and Vetterli (2007). Full collapse reads about 1; it cannot exceed
    ``min(N, D)`` by more than the effect of ``eps``. Use several times more rows than columns;
    features are not centred.

    Args:
        features: ``[N, D]``, float, not empty. Computed in float64.
        eps: Added to each normalised singular value, >= 0.

    Returns:
        A scalar, float64; 0 for all-zero features, NaN if any value is not finite.

    Raises:
        ValueError: If ``features`` is not a matrix with at least one row.

    Source: arXiv 2210.02885, equation 1.
    """
    _check_matrix(features, "rankme")
    if features.device.type == "mps":  # has no float64
        features = features.cpu()
    if not features.isfinite().all():
        return features.new_full((), float("nan"), dtype=torch.float64)
    singular = torch.linalg.svdvals(features.double())
    return _smooth_rank(singular, torch.ones_like(singular), eps)


def rankme_from_gram(gram: Tensor, rows: Tensor | int, eps: float = 1e-7) -> Tensor:
    """[`rankme`][lit_ssl.metrics.rankme] of features of which only the Gram matrix is known.

    Its eigenvalues are the squares of the singular values, so that those below about 1e-8 of the
    largest are lost in rounding, where the singular values themselves lose those below 1e-16. With
    the usual ``eps`` of 1e-7 the rank of exactly collapsed features differs by up to 3e-5 of itself
    at D = 1024, and with noise of 1e-6 of the features or more by less than 1e-8.

    Args:
        gram: ``[D, D]``, sum over N rows of their outer products
            (``gram`` of [`FeatureSums`][lit_ssl.metrics.FeatureSums]), float64.
        rows: N >= 1; a tensor may stay on the device. No more singular values count.
        eps: Added to each normalised singular value, >= 0.

    Returns:
        A scalar, float64; 0 for all-zero features, NaN if any value is not finite. On a device the
        solver of eigenvalues makes the host wait.

    Raises:
        ValueError: If ``gram`` is not a square float64 matrix.
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise InputError(f"rankme_from_gram needs a matrix [D, D], got {list(gram.shape)}")
    if gram.dtype != torch.float64:
        raise InputError(
            f"rankme_from_gram needs a float64 matrix, got {gram.dtype}: in float32 no singular "
            "value below 3e-4 of the largest would show"
        )
    known = gram.isfinite().all()
    squares = torch.linalg.eigvalsh(torch.where(known, gram, 0.0))  # ascending; refuses NaN
    place = torch.arange(len(gram), device=gram.device)
    counts = (place >= len(gram) - rows).to(gram.dtype)
    rank = _smooth_rank(squares.clamp(min=0).sqrt() * counts, counts, eps)
    return torch.where(known, rank, torch.nan)


def _smooth_rank(singular: Tensor, counts: Tensor, eps: float) -> Tensor:
    """Exponential of the entropy of singular values; ``counts`` is 0 for those left out."""
    total = singular.sum()
    p = singular / total.clamp(min=torch.finfo(total.dtype).tiny) + eps * counts
    return torch.where(total > 0, torch.special.entr(p).sum().exp(), 0.0)


def feature_std(features: Tensor) -> Tensor:
    """Spread of L2-normalised features, relative to directions drawn uniformly.

    The standard deviation over the rows, averaged over the columns, times ``sqrt(D)``: about 1 when
    directions are spread evenly over the sphere, 0 when all rows point the same way.

    Args:
        features: ``[N, D]``, float, N >= 1.

    Returns:
        A scalar, float32, in [0, 1] up to sampling error.

    Source: SimSiam, arXiv 2011.10566, section 4.1.
    """
    _check_matrix(features, "feature_std")
    rows = F.normalize(features.float(), dim=1)
    return rows.std(dim=0, correction=0).mean() * rows.shape[1] ** 0.5


def feature_std_from_sums(sums: FeatureSums) -> Tensor:
    """[`feature_std`][lit_ssl.metrics.feature_std] of features of which only sums are known.

    Args:
        sums: of all rows.

    Returns:
        A scalar, float64; identical rows give up to 1e-7 instead of 0, by rounding.
    """
    mean = sums.unit / sums.rows
    variance = (sums.unit_square / sums.rows - mean.square()).clamp(min=0)
    return variance.sqrt().mean() * len(mean) ** 0.5


def used_prototypes(assignments: Tensor) -> Tensor:
    """How many prototypes are the favourite of at least one row.

    Args:
        assignments: Probabilities or scores, ``[N, K]``.

    Returns:
        A scalar, int64, in [1, min(N, K)]; float and NaN where one of them is NaN or infinite.
    """
    _check_matrix(assignments, "used_prototypes")
    used = torch.zeros(assignments.shape[1], dtype=torch.int64, device=assignments.device)
    count = used.scatter_(0, assignments.argmax(dim=1), 1).sum()
    return (
        count if bool(assignments.isfinite().all()) else torch.full_like(count.float(), torch.nan)
    )


def assignment_entropy(mean_assignment: Tensor) -> Tensor:
    """Entropy in nats of the mean assignment: log K when prototypes are used equally, 0 for one.

    Args:
        mean_assignment: Mean over the rows of assignment probabilities, ``[K]``, sums to 1.

    Returns:
        A scalar in [0, log K].
    """
    return torch.special.entr(mean_assignment).sum()


def _check_matrix(values: Tensor, name: str) -> None:
    if values.ndim != 2 or len(values) == 0:
        raise InputError(f"{name} needs a matrix with at least one row, got {list(values.shape)}")
