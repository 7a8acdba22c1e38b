"""Projection heads."""

from __future__ import annotations

from timm.layers import trunc_normal_
from torch import nn

__all__ = ["ProjectionHead"]


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
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int = 2048,
        out_dim: int = 256,
        num_layers: int = 3,
        use_bn: bool = True,
        activation: type[nn.Module] = nn.GELU,
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
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
