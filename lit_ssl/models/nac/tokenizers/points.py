"""Tokens of point clouds: groups of neighbours around spread-out centres."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.models.nac.tokenizers.kinds import check_kind
from lit_ssl.models.nac.tokenizers.tokens import Tokens, check_positive, is_readable, same_noise

__all__ = ["FourierFeatures", "PointTokenizer", "farthest_points", "nearest_points"]


class FourierFeatures(nn.Module):
    """Coordinates, and their sines and cosines: ``[..., 3]`` → ``[..., 3 + 6 * bands]``, float32.

    Args:
        bands: frequencies per axis, >= 1.
        max_frequency: the highest, in half periods per unit; the others are spread evenly from 1.
    """

    def __init__(self, bands: int = 16, max_frequency: float = 16.0) -> None:
        super().__init__()
        self.bands, self.max_frequency = bands, max_frequency
        self.dim = 3 + 6 * bands

    def forward(self, points: Tensor) -> Tensor:
        """Coordinates to features, in float32 whatever the precision of the network is.

        Args:
            points: ``[…, 3]``.

        Returns:
            ``[…, 3 + 6 · bands]``: the coordinates, sines, cosines.
        """
        points = points.float()
        # no buffer, which a conversion to half precision would round
        scale = torch.linspace(1.0, self.max_frequency, self.bands, device=points.device)
        phase = (points[..., None] * (math.pi * scale)).flatten(-2)
        return torch.cat([points, phase.sin(), phase.cos()], dim=-1)


class PointTokenizer(nn.Module):
    """Groups of points around centres that lie far apart.

    A group is the Fourier features of its points, relative to their centre, through a Linear (to
    64), GELU and a Linear (to 128) that all points share, and their maximum; the Fourier features
    of the centre are concatenated. The set of tokens does not depend on the order of the points,
    as long as no distances are equal.

    Args:
        num_centres: tokens of a cloud. A cloud of fewer points has one token for each point.
        group_size: points of a group, its centre among them; all points, in a smaller cloud.
        bands: frequencies per axis of the Fourier features, >= 1.
        max_frequency: the highest of them, in half periods per unit, for clouds within [-1, 1].
        hidden_dim: channels after the first layer.
        embed_dim: channels of a group.

    Raises:
        ValueError: if a size lies below 1.

    Source: ours, since the paper's code has no tokenizer of points; the groups are those of
    PointNet++ (arXiv 1706.02413).
    """

    def __init__(
        self,
        num_centres: int = 512,
        group_size: int = 16,
        bands: int = 16,
        max_frequency: float = 16.0,
        hidden_dim: int = 64,
        embed_dim: int = 128,
    ) -> None:
        super().__init__()
        check_positive(
            "PointTokenizer",
            num_centres=num_centres,
            group_size=group_size,
            bands=bands,
            hidden_dim=hidden_dim,
            embed_dim=embed_dim,
        )
        if not 1 <= max_frequency < math.inf:
            raise InputError(f"PointTokenizer needs max_frequency >= 1, got {max_frequency:g}")
        self.num_centres, self.group_size = num_centres, group_size
        self.features = FourierFeatures(bands, max_frequency)
        self.embed = nn.Linear(self.features.dim, hidden_dim)
        self.project = nn.Linear(hidden_dim, embed_dim)
        self.token_dim = embed_dim + self.features.dim

    def forward(self, points: Tensor) -> Tokens:
        """``[B, P, 3]`` → ``min(num_centres, P)`` tokens.

        Args:
            points: float, finite; P ≥ 1.

        Raises:
            InputTypeError: if they are no tensor.
            InputError: if they have another shape or, on the CPU, are not all finite.
        """
        check_kind(self, points, "points")
        if not isinstance(points, Tensor):
            raise InputTypeError(f"PointTokenizer reads points, got {type(points).__name__}")
        if points.ndim != 3 or points.shape[2] != 3 or not points.shape[1]:
            raise InputError(f"PointTokenizer reads points [B, P, 3], got {list(points.shape)}")
        if is_readable(points) and not points.isfinite().all():
            raise InputError("PointTokenizer got coordinates that are infinite or not a number")
        with torch.autocast(device_type=points.device.type, enabled=False):
            points = points.float()
            centres = gathered(points, farthest_points(points, self.num_centres))
            groups = nearest_points(centres, points, self.group_size)
            neighbours = gathered(points, groups.flatten(1)).unflatten(1, groups.shape[1:])
            relative = self.features(neighbours - centres[:, :, None])
            places = self.features(centres)
        kind = self.embed.weight.dtype
        values = self.project(F.gelu(self.embed(relative.to(kind)))).amax(dim=2)
        # not narrowed by autocast: high frequencies of the places tell neighbours apart
        return Tokens(torch.cat([values.to(kind), places.to(kind)], dim=2))

    def example(self, batch_size: int = 1) -> Tensor:
        """Random clouds of as many points as there are centres, and one more.

        Args:
            batch_size: B.

        Returns:
            Float ``[B, num_centres + 1, 3]`` in [-1, 1], the same each time.
        """
        generator, device = same_noise(self)
        shape = (batch_size, self.num_centres + 1, 3)
        return (torch.rand(shape, generator=generator) * 2 - 1).to(device)


def gathered(points: Tensor, positions: Tensor) -> Tensor:
    """Rows of ``[B, P, 3]`` at ``[B, N]``, as ``[B, N, 3]``.

    Args:
        points: to choose from.
        positions: of points, int64.
    """
    return points.gather(1, positions[..., None].expand(-1, -1, points.shape[2]))


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """Points that lie as far as possible from those before them; the first, from the mean.

    Args:
        points: float32 ``[B, P, 3]``.
        count: how many; all of them, if there are fewer.

    Returns:
        Positions int64 ``[B, min(count, P)]``, no one twice.
    """
    chosen = (points - points.mean(dim=1, keepdim=True)).square().sum(dim=2).argmax(dim=1)
    distance = points.new_full(points.shape[:2], math.inf)
    positions = [chosen]
    for _ in range(min(count, points.shape[1]) - 1):
        to_chosen = (points - gathered(points, chosen[:, None])).square().sum(dim=2)
        # a chosen point is never chosen again, not even where all others are copies of it
        distance = distance.minimum(to_chosen).scatter(1, chosen[:, None], -1.0)
        chosen = distance.argmax(dim=1)
        positions.append(chosen)
    return torch.stack(positions, dim=1)


@torch.no_grad()
def nearest_points(centres: Tensor, points: Tensor, count: int) -> Tensor:
    """The points nearest to centres, by exact distances.

    Args:
        centres: float32 ``[B, N, 3]``.
        points: float32 ``[B, P, 3]``.
        count: how many; all of them, if there are fewer.

    Returns:
        Positions int64 ``[B, N, min(count, P)]``.
    """
    # the way by a matrix product loses the small distances to rounding
    distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(min(count, points.shape[1]), dim=2, largest=False).indices
