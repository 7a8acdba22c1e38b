"""Cross-attention by which each module reads the input with maps of its own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.models.nac.attention import Backend, Modules, attend, split_heads
from lit_ssl.models.nac.modulated import LayerScale, ModulatedFFN, ModulatedLinear, Modulation

__all__ = ["ReadIn"]

_EPS = 1e-5


class ReadIn(nn.Module):
    """Modules read tokens, then a feed-forward block with codes follows.

        k_uv = ModFC_k(LN(x_v), c_u);  v_uv = ModFC_v(LN(x_v), c_u);  q_u = ModFC_q(LN(s_u), c_u)
        y_u = s_u + LS(ModFC_o(Σ_v softmax_v(q_u · k_uv / √d) v_uv, c_u))

    Every module has keys and values of its own of every token, which would cost B·V·U·H·d numbers.
    They are never made: the maps move to the other side of the products, exactly:

        q~_uh = a^k_u ⊙ (W_kh^T q_uh)                         [in]
        z_uh  = Σ_v softmax_v(q~_uh · x_v / √d) x_v           one attention with keys = values = x
        v_uh  = W_vh (a^v_u ⊙ z_uh) + b_vh

    Args:
        token_dim: channels of a token.
        dim: channels D of a state.
        code_dim: channels C of a code.
        heads: number H of heads.
        head_dim: channels d of a head.
        ffn: what follows; see [`ModulatedFFN`][lit_ssl.models.ModulatedFFN].
        share_key_value: plain keys and values, the same for all modules.
        residual: whether the state is added.
        qv_bias: whether q and v have a bias; of k it would have no effect.
        layer_scale: start of LS; None: without.
        modulation: see ``Modulation``; without codes, keys and values are shared as well.
        backend: see ``Backend``.

    Source: arXiv 2210.08031, read-in; the absorbed form is ours.
    """

    def __init__(
        self,
        token_dim: int,
        dim: int,
        code_dim: int,
        heads: int,
        head_dim: int,
        ffn: ModulatedFFN,
        *,
        share_key_value: bool = False,
        residual: bool = True,
        qv_bias: bool = False,
        layer_scale: float | None = None,
        modulation: Modulation = "one_plus_norm",
        backend: Backend = "sdpa",
    ) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads = heads
        self.residual = residual
        self.backend: Backend = backend
        self.token_norm = nn.LayerNorm(token_dim, eps=_EPS)
        self.state_norm = nn.LayerNorm(dim, eps=_EPS)
        shared: Modulation = "none" if share_key_value else modulation
        self.query = ModulatedLinear(dim, width, code_dim, qv_bias, modulation)
        self.key = ModulatedLinear(token_dim, width, code_dim, False, shared)
        self.value = ModulatedLinear(token_dim, width, code_dim, qv_bias, shared)
        self.out = ModulatedLinear(width, dim, code_dim, modulation=modulation)
        self.layer_scale = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.ffn = ffn

    def forward(self, modules: Modules, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """New states of the modules ``[B, U, D]``.

        Args:
            modules: U modules; ``states`` may be ``[1, U, D]``.
            tokens: ``[B, V, token_dim]``.
            mask: bool ``[B, V]``, True where a token is; at least one in each row.
        """
        return self.ffn(self.read(modules, tokens, mask), modules.codes)

    def read(self, modules: Modules, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The states after the attention ``[B, U, D]``, before the feed-forward block.

        Args:
            modules: U modules; ``states`` may be ``[1, U, D]``.
            tokens: ``[B, V, token_dim]``.
            mask: bool ``[B, V]``, True where a token is; at least one in each row.
        """
        tokens = self.token_norm(tokens)
        query = split_heads(self.query(self.state_norm(modules.states), modules.codes), self.heads)
        query = query.expand(tokens.shape[0], -1, -1, -1)
        allowed = None if mask is None else mask[:, None]
        if self.key.scale is None:
            heard = self._shared(query, tokens, allowed)
        else:
            heard = self._absorbed(query, tokens, allowed, modules.codes)
        branch = self.layer_scale(self.out(heard.transpose(1, 2).flatten(2), modules.codes))
        return modules.states + branch if self.residual else branch

    def _shared(self, query: Tensor, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        key, value = (
            split_heads(F.linear(tokens, part.weight, part.bias), self.heads)
            for part in (self.key, self.value)
        )
        return attend(query, key, value, allowed, backend=self.backend)

    def _absorbed(
        self, query: Tensor, tokens: Tensor, allowed: Tensor | None, codes: Tensor
    ) -> Tensor:
        """``[B, H, U, d]``."""
        key_factor, value_factor = (
            _per_head(part.factor(codes)) for part in (self.key, self.value)
        )
        key_map, value_map = (
            part.weight.unflatten(0, (self.heads, -1)).to(tokens.dtype)
            for part in (self.key, self.value)
        )  # [H, d, in]
        absorbed = query @ key_map * key_factor
        spread = tokens[:, None].expand(-1, self.heads, -1, -1)
        scale = query.shape[-1] ** -0.5
        mixed = attend(absorbed.to(spread.dtype), spread, spread, allowed, scale, self.backend)
        heard = (mixed * value_factor).to(value_map.dtype) @ value_map.transpose(-1, -2)
        if self.value.bias is not None:
            heard = heard + self.value.bias.view(self.heads, 1, -1)
        return heard


def _per_head(factor: Tensor | None) -> Tensor:
    """``[U, in]`` or ``[B, U, in]`` → ``[1 or B, 1, U, in]``."""
    assert factor is not None
    return factor[None, None] if factor.ndim == 2 else factor[:, None]
