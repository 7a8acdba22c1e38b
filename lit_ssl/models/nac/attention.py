"""Attention between modules along a graph (SKMDPA), and what follows it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from lit_ssl.errors import InputError, check_choice
from lit_ssl.models.backbones.attention import attention
from lit_ssl.models.nac.kernel import SignatureKernel
from lit_ssl.models.nac.modulated import LayerScale, ModulatedFFN, ModulatedLinear, Modulation

__all__ = ["Backend", "KernelAttention", "Modules", "Propagator", "attend", "join", "split_heads"]

Backend = Literal["sdpa", "math"]
"""``sdpa``: torch's fused attention where it is faster (``lit_ssl.models.backbones.attention``);
``math``: written out, for all dtypes and devices."""

_EPS = 1e-5


class Modules(NamedTuple):
    """Some modules of a circuit.

    Attributes:
        states: ``[B, U, D]``.
        codes: ``[U, C]``, or ``[B, U, C]`` of each sample.
        signatures: ``[U, G]`` or ``[B, U, G]``; None where nothing asks for them.
        gates: ``[U]``, factors of what the modules send; None: all 1.
    """

    states: Tensor
    codes: Tensor
    signatures: Tensor | None = None
    gates: Tensor | None = None


def join(first: Modules, second: Modules) -> Modules:
    """The modules of two sets as one, the first set's first.

    Args:
        first: U modules.
        second: V modules of the same samples.

    Returns:
        U + V modules; signatures only where both sets have them.
    """
    gates = None
    if first.gates is not None or second.gates is not None:
        gates = torch.cat([_gates(first), _gates(second)])
    signatures = None
    if first.signatures is not None and second.signatures is not None:
        signatures = torch.cat([first.signatures, second.signatures], dim=-2)
    return Modules(
        torch.cat([first.states, second.states], dim=1),
        torch.cat([first.codes, second.codes], dim=-2),
        signatures,
        gates,
    )


def _gates(modules: Modules) -> Tensor:
    states = modules.states
    return states.new_ones(states.shape[1]) if modules.gates is None else modules.gates


def split_heads(inputs: Tensor, heads: int) -> Tensor:
    """``[B, U, H·d]`` → ``[B, H, U, d]``.

    Args:
        inputs: the channels of one head after the other.
        heads: H.
    """
    return inputs.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: Backend = "sdpa",
) -> Tensor:
    """Softmax attention ``[B, H, U, d]``, ``[B, H, V, d]``, ``[B, H, V, e]`` → ``[B, H, U, e]``.

    Args:
        query: of the receivers.
        key: of the senders.
        value: of the senders.
        bias: added to the scores, ``[B or 1, U or 1, V]``; bool: where they may look.
        scale: of the scores; None: d^-½.
        backend: see ``Backend``.
    """
    if bias is not None:
        bias = bias[:, None] if bias.dtype == torch.bool else bias[:, None].to(query.dtype)
    if backend == "sdpa":
        return attention(query, key, value, mask=bias, scale=scale)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None and bias.dtype == torch.bool:
        scores = scores.masked_fill(~bias, -torch.inf)
    elif bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1).to(value.dtype) @ value


class KernelAttention(nn.Module):
    """Modules attend to modules, each with maps of its own code, along the links of a kernel.

        q_u = ModFC_q(LN_r(x_u), c_u);  k_v, v_v = ModFC_{k,v}(LN_s(x_v), c_v)
        A = softmax_v(q_u · k_v / √d + log K_uv)
        y_u = x_u + LS(ModFC_o(Σ_v A_uv v_v, c_u))

    The source divides K by its row sum before it takes the logarithm, which adds a constant to each
    row of scores: softmax removes it, so it is left out.

    Args:
        dim: channels D of a state.
        code_dim: channels C of a code.
        heads: number H of heads.
        head_dim: channels d of a head.
        kernel: gives log K; None: every module hears every module.
        shared_norm: one LayerNorm for receivers and senders, as between mediators; else one each.
        residual: whether x_u is added.
        qv_bias: whether q and v have a bias; of k it would have no effect.
        layer_scale: start of LS; None: without.
        drop_path: share of samples whose branch is left out in training.
        modulation: see ``Modulation``.
        backend: see ``Backend``.

    Raises:
        InputError: if a number of heads or channels is below 1.

    Source: arXiv 2210.08031, SKMDPA.
    """

    def __init__(
        self,
        dim: int,
        code_dim: int,
        heads: int,
        head_dim: int,
        kernel: SignatureKernel | None,
        *,
        shared_norm: bool = True,
        residual: bool = True,
        qv_bias: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        modulation: Modulation = "one_plus_norm",
        backend: Backend = "sdpa",
    ) -> None:
        super().__init__()
        check_choice("attention", backend, ("sdpa", "math"))
        if heads < 1 or head_dim < 1:
            raise InputError(f"heads and head_dim must be positive, not {heads} and {head_dim}")
        width = heads * head_dim
        self.heads = heads
        self.residual = residual
        self.backend: Backend = backend
        self.kernel = kernel
        self.receiver_norm = nn.LayerNorm(dim, eps=_EPS)
        self.sender_norm = None if shared_norm else nn.LayerNorm(dim, eps=_EPS)
        # A bias of keys would add the same to all scores of a row, which softmax removes.
        self.query, self.key, self.value = (
            ModulatedLinear(dim, width, code_dim, bias=bias, modulation=modulation)
            for bias in (qv_bias, False, qv_bias)
        )
        self.out = ModulatedLinear(width, dim, code_dim, modulation=modulation)
        self.layer_scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, receivers: Modules, senders: Modules, uniforms: Tensor | None = None
    ) -> Tensor:
        """New states of the receivers ``[B, U, D]``.

        Args:
            receivers: U modules.
            senders: V modules; their states are the same tensor where they are the same modules.
            uniforms: ``[B, U, V]``, random numbers of a sampled graph; None: draw them.
        """
        states = self.receiver_norm(receivers.states)
        if self.sender_norm is not None:
            sent = self.sender_norm(senders.states)
        elif senders.states is receivers.states:  # tensors, which compilers can tell apart
            sent = states
        else:
            sent = self.receiver_norm(senders.states)
        query = split_heads(self.query(states, receivers.codes), self.heads)
        key = split_heads(self.key(sent, senders.codes), self.heads)
        values = self.value(sent, senders.codes)
        if senders.gates is not None:
            values = values * senders.gates[:, None].to(values.dtype)
        bias = self.bias(receivers, senders, uniforms)
        heard = attend(query, key, split_heads(values, self.heads), bias, backend=self.backend)
        branch = self.out(heard.transpose(1, 2).flatten(2), receivers.codes)
        branch = self.drop_path(self.layer_scale(branch))
        return receivers.states + branch if self.residual else branch

    def bias(
        self, receivers: Modules, senders: Modules, uniforms: Tensor | None = None
    ) -> Tensor | None:
        """Log K ``[B or 1, U, V]``; None without a kernel.

        Args:
            receivers: U modules, with signatures.
            senders: V modules, with signatures.
            uniforms: ``[B, U, V]``, random numbers of a sampled graph; None: draw them.
        """
        if self.kernel is None:
            return None
        assert receivers.signatures is not None
        assert senders.signatures is not None
        batch = receivers.states.shape[0]  # not len(), which an export would take for constant
        return self.kernel(receivers.signatures, senders.signatures, batch, uniforms)


class Propagator(nn.Module):
    """Attention along the graph, then a feed-forward block, both with codes.

    Args:
        attention: see ``KernelAttention``.
        ffn: see [`ModulatedFFN`][lit_ssl.models.ModulatedFFN].
    """

    def __init__(self, attention: KernelAttention, ffn: ModulatedFFN) -> None:
        super().__init__()
        self.attention = attention
        self.ffn = ffn

    def forward(
        self, receivers: Modules, senders: Modules, uniforms: Tensor | None = None
    ) -> Tensor:
        """New states of the receivers ``[B, U, D]``.

        Args:
            receivers: U modules.
            senders: V modules; their states are the same tensor where they are the same modules.
            uniforms: ``[B, U, V]``, random numbers of a sampled graph; None: draw them.
        """
        return self.ffn(self.attention(receivers, senders, uniforms), receivers.codes)
