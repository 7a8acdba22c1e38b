"""timm's transformer block, which can also compute its first tokens alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from lit_ssl.models.backbones.attention import (
    attention,
    is_written_out,
    written_out_attention,
)

__all__ = ["QueriedAttention", "QueriedBlock", "with_queried_blocks"]


class QueriedAttention(Attention):
    """timm's self-attention with ``queries``, through ``attention``."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        queries: int | None = None,
    ) -> Tensor:
        """``[B, N, D]`` → ``[B, queries, D]``.

        Args:
            x: tokens.
            attn_mask: see ``attention``.
            is_causal: hide later tokens; without ``queries`` only.
            queries: compute so many first tokens, which read all; None: all.
        """
        if is_causal:
            return super().forward(x, attn_mask, is_causal)
        dropout = self.attn_drop.p if self.training else 0.0
        if queries is not None and attn_mask is None and not dropout and _is_none(self.k_norm):
            return self._joined(self._absorbed(x, queries))
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        if is_written_out(x, x.shape[1]):  # its products need them one head after another: one copy
            q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        else:  # their gradients are stacked in the order that the layer's backward reads
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        q = q if queries is None else q[:, :, :queries]
        attend = attention if self.fused_attn else written_out_attention
        out = attend(self.q_norm(q), self.k_norm(k), v, attn_mask, dropout)
        return self._joined(out.transpose(1, 2))

    def _absorbed(self, x: Tensor, queries: int) -> Tensor:
        """What few queries read ``[B, queries, H, d]``, without keys and values of all tokens.

        Of the tokens x_n, in head h:

            q_h · (W^k_h x_n + b^k_h) = (W^kᵀ_h q_h) · x_n + constant, which softmax removes
            Σ_n a_hn (W^v_h x_n + b^v_h) = W^v_h (Σ_n a_hn x_n) + b^v_h
        """
        batch, heads = x.shape[0], self.num_heads
        weight = self.qkv.weight.unflatten(0, (3, heads, -1))  # [3, H, d, D]
        bias = None if self.qkv.bias is None else self.qkv.bias.unflatten(0, (3, heads, -1))
        q = F.linear(
            x[:, :queries], weight[0].flatten(0, 1), None if bias is None else bias[0].flatten()
        )
        x = x.to(q.dtype)[:, None]
        q = self.q_norm(q.unflatten(2, (heads, -1))).permute(2, 0, 1, 3)  # [H, B, queries, d]
        absorbed = torch.bmm(q.flatten(1, 2), weight[1].to(q.dtype)).unflatten(1, (batch, queries))
        absorbed = absorbed.permute(1, 0, 2, 3).flatten(1, 2)[:, None]  # [B, 1, H·queries, D]
        mixed = written_out_attention(absorbed, x, x, scale=q.shape[-1] ** -0.5)[:, 0]
        mixed = mixed.unflatten(1, (heads, queries)).transpose(0, 1).flatten(1, 2)
        out = torch.bmm(mixed, weight[2].transpose(1, 2).to(mixed.dtype))
        out = out.unflatten(1, (batch, queries)).permute(1, 2, 0, 3)
        return out if bias is None else out + bias[2].to(out.dtype)

    def _joined(self, heads: Tensor) -> Tensor:
        """``[B, N, H, d]`` → ``[B, N, D]``, projected."""
        out = heads.flatten(2)
        if hasattr(self, "norm"):  # not in older versions of timm
            out = self.norm(out)
        return self.proj_drop(self.proj(out))


class QueriedBlock(Block):
    """timm's block with ``queries``: the last block of a network is asked for few tokens."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        queries: int | None = None,
    ) -> Tensor:
        """``[B, N, D]`` → ``[B, queries, D]``; arguments as of ``QueriedAttention``.

        Args:
            x: tokens ``[B, N, D]``.
            attn_mask: which keys may be read, as ``QueriedAttention`` takes it.
            is_causal: hide later tokens; without ``queries`` only.
            queries: how many of the first tokens are computed; None: all N.
        """
        read = self.attn(self.norm1(x), attn_mask, is_causal, queries)
        x = (x if queries is None else x[:, :queries]) + self.drop_path1(self.ls1(read))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def with_queried_blocks(vit: VisionTransformer) -> VisionTransformer:
    """Make timm's standard blocks of a network ``QueriedBlock``, in place.

    They compute what they did, and keep their names, weights and hooks; other kinds of blocks stay.

    Args:
        vit: of timm.

    Returns:
        The same network.
    """
    for block in vit.blocks:
        plain = type(block) is Block and type(block.attn) is Attention
        if plain and getattr(block.attn, "gate", None) is None:
            block.__class__ = QueriedBlock
            block.attn.__class__ = QueriedAttention
    return vit


def _is_none(norm: nn.Module) -> bool:
    return isinstance(norm, nn.Identity)
