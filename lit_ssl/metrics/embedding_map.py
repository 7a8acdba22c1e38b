"""Features brought down to two numbers each, for maps."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from lit_ssl.errors import InputError, InputImportError

__all__ = ["LEAST_ROWS_OF_UMAP", "PCAMap", "check_umap", "pca_map", "umap_map"]

LEAST_ROWS_OF_UMAP = 5
_NEIGHBOURS = 15


class PCAMap(NamedTuple):
    """What ``pca_map`` returns.

    Attributes:
        points: Float32 ``[N, 2]``, centred.
        shares: Parts of the variance that lie in the two directions, float32 ``[2]`` in [0, 1]; 0
            where all features are equal.
    """

    points: Tensor
    shares: Tensor


@torch.no_grad()
def pca_map(features: Tensor) -> PCAMap:
    """Project features onto the two directions in which they vary most.

    ::

        x = features - features.mean(0);  x.T @ x = V @ diag(s) @ V.T
        points = x @ V[:, :2];  shares = s[:2] / s.sum()

    Signs are chosen so that the largest entry of each direction is positive.

    Args:
        features: Finite, ``[N, D]``, N >= 1.

    Returns:
        On the device of the features; with D = 1 the second column is 0.

    Raises:
        InputError: If there is no row, or one of them is not finite.
    """
    x = _checked(features).double()
    x = x - x.mean(dim=0)
    count, width = x.shape
    # The smaller of the two products has the same eigenvalues.
    tall = count >= width
    values, vectors = torch.linalg.eigh(x.T @ x if tall else x @ x.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)[:, :2]
    if not tall:
        vectors = torch.nn.functional.normalize(x.T @ vectors, dim=0)
    vectors = vectors * (values[: vectors.shape[1]] > 1e-12 * values[0])  # else it is rounding
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    points = x @ (vectors * torch.where(largest < 0, -1.0, 1.0))
    total = values.sum()
    # Of equal features what is left is rounding.
    is_flat = total <= count * width * (1e-12 * features.abs().max().double()) ** 2
    shares = torch.zeros_like(values[:2]) if is_flat else values[:2] / total
    points = torch.zeros_like(points) if is_flat else points
    missing = 2 - points.shape[1]
    return PCAMap(
        torch.nn.functional.pad(points, (0, missing)).float(),
        torch.nn.functional.pad(shares, (0, 2 - len(shares))).float(),
    )


def umap_map(features: Tensor, seed: int = 0, neighbours: int = _NEIGHBOURS) -> Tensor:
    """Lay out features so that those with similar neighbours lie together (UMAP, cosine).

    Distances between groups, and their sizes, mean little in such a map.

    Args:
        features: Finite, ``[N, D]``, N >= 5.
        seed: Of the layout; the same seed gives the same map on one machine.
        neighbours: Of each row that count, >= 2; at most N - 1.

    Returns:
        Float32 ``[N, 2]`` on the CPU.

    Raises:
        InputImportError: If umap-learn is not installed.
        InputError: If there are too few rows, or one of them is not finite.

    Source: McInnes et al., arXiv 1802.03426, by the authors' package umap-learn.
    """
    check_umap()
    if len(features) < LEAST_ROWS_OF_UMAP or neighbours < 2:
        raise InputError(
            f"UMAP needs at least {LEAST_ROWS_OF_UMAP} rows and 2 neighbours, got {len(features)} "
            f"and {neighbours}: take PCA"
        )
    import umap  # loads numba, for seconds

    rows = torch.nn.functional.normalize(_checked(features).float(), dim=1).cpu().numpy()
    layout = umap.UMAP(
        n_neighbors=min(neighbours, len(rows) - 1),
        # Few rows have no spectral layout to start from.
        init="spectral" if len(rows) > 2 * _NEIGHBOURS else "random",
        metric="euclidean",  # of rows of length one, which orders them as the cosine does
        random_state=seed,
        n_jobs=1,
    )
    return torch.from_numpy(layout.fit_transform(rows)).float()


def check_umap() -> None:
    """Ask for umap-learn, which lays out UMAP's maps.

    Raises:
        InputImportError: If it is not installed.
    """
    if find_spec("umap") is None:
        raise InputImportError("maps by UMAP need umap-learn: pip install 'lit-ssl[umap]'")


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or not len(features) or not features.shape[1]:
        raise InputError(f"a map needs features [N, D], N >= 1, got {list(features.shape)}")
    if not features.isfinite().all():
        raise InputError("a map needs finite features: leave out rows with NaN or infinite ones")
    return features
