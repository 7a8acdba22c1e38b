"""timm's transformer block, which can also compute its first tokens alone."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from lit_ssl.models.backbones.attention import attention, written_out_attention

__all__ = ["QueriedAttention", "QueriedBlock", "with_queried_blocks"]


class QueriedAttention(Attention):
    """timm's self-attention with ``queries``, through :func:`attention`."""

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
            attn_mask: see :func:`attention`.
            is_causal: hide later tokens; without ``queries`` only.
            queries: compute so many first tokens, which read all; None: all.
        """
        if is_causal:
            return super().forward(x, attn_mask, is_causal)
        batch, tokens, _ = x.shape
        width = self.qkv.weight.shape[0] // 3
        heads = (self.num_heads, width // self.num_heads)
        if queries is None:
            qkv = self.qkv(x).reshape(batch, tokens, 3, *heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            of_q, of_kv = (None, None) if bias is None else (bias[:width], bias[width:])
            q = F.linear(x[:, :queries], weight[:width], of_q)
            q = q.view(batch, queries, *heads).transpose(1, 2)
            kv = F.linear(x, weight[width:], of_kv).view(batch, tokens, 2, *heads)
            k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        attend = attention if self.fused_attn else written_out_attention
        dropout = self.attn_drop.p if self.training else 0.0
        out = attend(self.q_norm(q), self.k_norm(k), v, attn_mask, dropout)
        out = out.transpose(1, 2).reshape(batch, -1, width)
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
        """``[B, N, D]`` → ``[B, queries, D]``; arguments as of :class:`QueriedAttention`."""
        read = self.attn(self.norm1(x), attn_mask, is_causal, queries)
        x = (x if queries is None else x[:, :queries]) + self.drop_path1(self.ls1(read))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def with_queried_blocks(vit: VisionTransformer) -> VisionTransformer:
    """Make timm's standard blocks of a network :class:`QueriedBlock`, in place.

    They compute what they did, and keep their names, weights and hooks; other kinds of blocks stay.
    """
    for block in vit.blocks:
        plain = type(block) is Block and type(block.attn) is Attention
        if plain and getattr(block.attn, "gate", None) is None:
            block.__class__ = QueriedBlock
            block.attn.__class__ = QueriedAttention
    return vit
