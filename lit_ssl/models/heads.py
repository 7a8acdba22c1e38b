"""Projection heads."""

from __future__ import annotations

from timm.layers import trunc_normal_
from torch import nn

__all__ = ["PredictionHead", "ProjectionHead"]


class ProjectionHead(nn.Sequential):
    """MLP after the backbone: Linear–BatchNorm–activation, repeated, then Linear.

    Layers are named ``fc1, bn1, act1, fc2, …``, as in the official checkpoints of MSN and PAWS.
    Linear layers keep their bias; nothing is normalised at the output.

    Args:
        in_dim: input width.
        hidden_dim: hidden width.
        out_dim: output width.
        num_layers: number of Linear layers, ≥ 1.
        use_bn: BatchNorm after each hidden Linear.
        activation: activation class.
        init_std: standard deviation of the initial weights, with biases 0, as in MSN; None:
            PyTorch's initialisation, as in PAWS.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 2048,
        out_dim: int = 256,
        num_layers: int = 3,
        use_bn: bool = True,
        activation: type[nn.Module] = nn.GELU,
        init_std: float | None = 0.02,
    ) -> None:
        super().__init__()
        width = in_dim
        for index in range(1, num_layers):
            self.add_module(f"fc{index}", nn.Linear(width, hidden_dim))
            if use_bn:
                self.add_module(f"bn{index}", nn.BatchNorm1d(hidden_dim))
            self.add_module(f"act{index}", activation())
            width = hidden_dim
        self.add_module(f"fc{num_layers}", nn.Linear(width, out_dim))
        for module in self.modules():
            if isinstance(module, nn.Linear) and init_std is not None:
                trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)


class PredictionHead(nn.Sequential):
    """MLP after a projection: BatchNorm–Linear–BatchNorm–activation–Linear.

    Layers are named ``bn1, fc1, bn2, act, fc2``, as in the official checkpoints of PAWS.

    Args:
        dim: width of the projections and of the output.
        hidden_dim: width of the bottleneck; None: a quarter of ``dim``.
        activation: activation class.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        hidden = max(1, dim // 4) if hidden_dim is None else hidden_dim
        self.add_module("bn1", nn.BatchNorm1d(dim))
        self.add_module("fc1", nn.Linear(dim, hidden))
        self.add_module("bn2", nn.BatchNorm1d(hidden))
        self.add_module("act", activation())
        self.add_module("fc2", nn.Linear(hidden, dim))
