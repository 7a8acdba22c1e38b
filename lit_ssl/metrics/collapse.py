"""Label-free health measures of features and prototype assignments."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError


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
    total = singular.sum()
    p = singular / total.clamp(min=torch.finfo(total.dtype).tiny) + eps
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
