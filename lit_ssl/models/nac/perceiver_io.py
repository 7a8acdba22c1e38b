"""Perceiver IO: the same pieces without codes and without a graph."""

from __future__ import annotations

from typing import Literal

from torch import nn

from lit_ssl.models.nac.attention import Backend
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit

__all__ = ["PerceiverIO"]


class PerceiverIO(NeuralAttentiveCircuit):
    """Perceiver IO, the baseline of Neural Attentive Circuits.

    A [`NeuralAttentiveCircuit`][lit_ssl.models.NeuralAttentiveCircuit] whose modules (here:
    latents) all compute the same and hear each other: no codes, no signatures. So module dropout,
    ranking by loss and pruning work as well.

    Args:
        tokenizer: inputs → ``Tokens``; such as
            [`ConvNeXtTokenizer`][lit_ssl.models.ConvNeXtTokenizer].
        num_classes: K; 0: features only, until ``reset_classifier``.
        state_dim: channels D of a latent.
        num_modules: number of latents.
        num_output_modules: number of output queries; 1 for the read-out ``slot``.
        depth: number of self-attention blocks.
        num_heads: heads of the self-attention.
        head_dim: channels of a head.
        read_in_heads: heads of the cross-attention that reads the tokens.
        read_out_heads: heads of that of the output queries; None: ``num_heads``.
        ffn_mult: hidden channels of the feed-forward blocks, per channel of a latent.
        activation: ``geglu`` or ``gelu``.
        layer_scale: start of the factors on residual branches (in the read-in's attention: 1);
            None: no factors.
        drop_path: share of samples for which a block's branch is left out in training.
        share_depth: one block for all depths.
        qv_bias: whether queries and values have a bias; of keys it would have no effect.
        output_norm: LayerNorm on the states of the output queries.
        attention: ``sdpa``, torch's fused attention, or ``math``, written out.
        readout: ``slot``: one output query; ``pool``: a soft choice among several.
        pooling: of ``pool``: ``softmax``, or ``gumbel``: with noise in training.
        pooling_temperature: of ``pool``.

    Source: arXiv 2107.14795; sizes as in the baseline of arXiv 2210.08031.
    """

    def __init__(
        self,
        tokenizer: nn.Module,
        num_classes: int = 0,
        state_dim: int = 384,
        num_modules: int = 320,
        num_output_modules: int = 1,
        depth: int = 8,
        num_heads: int = 6,
        head_dim: int = 64,
        read_in_heads: int = 1,
        read_out_heads: int | None = None,
        ffn_mult: float = 4.0,
        activation: Literal["geglu", "gelu"] = "geglu",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        share_depth: bool = False,
        qv_bias: bool = False,
        output_norm: bool = True,
        attention: Backend = "sdpa",
        readout: Literal["pool", "slot"] = "slot",
        pooling: Literal["softmax", "gumbel"] = "softmax",
        pooling_temperature: float = 1.0,
    ) -> None:
        super().__init__(
            tokenizer,
            num_classes,
            state_dim=state_dim,
            num_modules=num_modules,
            num_output_modules=num_output_modules,
            depth=depth,
            num_heads=num_heads,
            head_dim=head_dim,
            read_in_heads=read_in_heads,
            read_out_heads=read_out_heads,
            ffn_mult=ffn_mult,
            activation=activation,
            initial_state="learned",
            graph=False,
            layer_scale=layer_scale,
            drop_path=drop_path,
            share_depth=share_depth,
            qv_bias=qv_bias,
            output_norm=output_norm,
            modulation="none",
            attention=attention,
            readout=readout,
            pooling=pooling,
            pooling_temperature=pooling_temperature,
        )
