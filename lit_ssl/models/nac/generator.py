"""A circuit of its own for each text: what is added to the signatures and codes of modules."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.nac.tokenizers.tokens import with_first_token

__all__ = ["TextCircuitGenerator"]


class TextCircuitGenerator(nn.Module):
    """From a text to the differences of a circuit's signatures and codes from its free tables.

    .. code-block:: text

        m    = learned queries [N, W], one for each module of all tables
        m    = m + CrossAttention(LN(m), LN(text), mask)      # [B, N, W]
        m    = SelfAttentionBlock(m), `depth` times
        ds   = Linear(LN(m)) [B, N, G];  dc = Linear(LN(m)) [B, N, C]

    Both last layers start at zero, so that a new generator leaves the circuit as it is. What it
    adds is float32 inside autocast.

    Args:
        text_dim: Channels of the text tokens (``text_dim`` of the tokenizer).
        num_modules: Mediators of the circuit.
        num_output_modules: Its output modules; 0 leaves their table as it is.
        num_input_modules: Its input modules; as many as mediators by default, as where mediators
            start from what was read in; 0 leaves their table as it is.
        signature_dim: G of the circuit.
        code_dim: C of the circuit.
        width: W, divisible by ``num_heads``.
        num_heads: Of all attentions.
        depth: Self-attention blocks, >= 0.
        ffn_mult: Hidden channels of their feed-forward layers, in widths.

    Attributes:
        tables: Modules of each table, in the order of the queries.

    Raises:
        ValueError: If a size is out of range.

    Source: Figure 1 of arXiv 2210.08031 for the idea; the layers are ours, since no code of it was
    published.
    """

    def __init__(
        self,
        text_dim: int,
        num_modules: int = 256,
        num_output_modules: int = 64,
        num_input_modules: int | None = None,
        signature_dim: int = 64,
        code_dim: int = 384,
        width: int = 384,
        num_heads: int = 6,
        depth: int = 2,
        ffn_mult: float = 4.0,
    ) -> None:
        super().__init__()
        inputs = num_modules if num_input_modules is None else num_input_modules
        sizes = {"mediator": num_modules, "output": num_output_modules, "input": inputs}
        if min(sizes.values()) < 0 or num_modules < 1 or min(text_dim, signature_dim, code_dim) < 1:
            raise InputError(
                "TextCircuitGenerator needs num_modules, text_dim, signature_dim and code_dim >= 1 "
                f"and no negative number of modules, got {sizes} modules and {text_dim}, "
                f"{signature_dim} and {code_dim} channels"
            )
        if num_heads < 1 or width < 1 or width % num_heads or depth < 0 or ffn_mult <= 0:
            raise InputError(
                "TextCircuitGenerator needs a width that num_heads divides, depth >= 0 and "
                f"ffn_mult > 0, got {width}, {num_heads}, {depth} and {ffn_mult:g}"
            )
        self.tables = {name: size for name, size in sizes.items() if size}
        self.text_dim = text_dim
        self.queries = nn.Parameter(torch.randn(sum(self.tables.values()), width))
        self.read = _ReadText(width, text_dim, num_heads)
        self.blocks = nn.Sequential(
            *(Block(width, num_heads, mlp_ratio=ffn_mult, qkv_bias=True) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.to_signatures = nn.Linear(width, signature_dim)
        self.to_codes = nn.Linear(width, code_dim)
        for head in (self.to_signatures, self.to_codes):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Read texts.

        Args:
            tokens: ``[B, L, text_dim]``.
            mask: Bool ``[B, L]``, True where a token is; an empty row reads its first token. None:
                everywhere.

        Returns:
            For each table what is added to its signatures, ``[B, U, G]``, and to its codes,
            ``[B, U, C]``. Where a table has no signatures, the first is of no use.

        Raises:
            ValueError: If the tokens are of another shape.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.text_dim:
            raise InputError(
                f"TextCircuitGenerator reads text tokens [B, L, {self.text_dim}], got "
                f"{list(tokens.shape)}: its text_dim must be that of the tokenizer's text"
            )
        modules = self.norm(self.blocks(self.read(self.queries, tokens, mask)))
        with torch.autocast(device_type=modules.device.type, enabled=False):
            modules = modules.to(self.to_signatures.weight.dtype)
            signatures, codes = self.to_signatures(modules), self.to_codes(modules)
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        start = 0
        for name, size in self.tables.items():
            rows: Tensor | slice = slice(start, start + size)
            if hasattr(self, f"kept_{name}"):
                rows = getattr(self, f"kept_{name}") + start
            parts[name] = (signatures[:, rows], codes[:, rows])
            start += size
        return parts

    def prune(self, keep: Mapping[str, Tensor]) -> TextCircuitGenerator:
        """A copy that returns some modules of a table, with the same values.

        All queries are kept, since modules attend to each other before they are told apart.

        Args:
            keep: For each table that is pruned, int64 ``[n]`` positions in what this one returns.

        Raises:
            ValueError: If it has no such table, or a position is out of range.
        """
        pruned = copy.deepcopy(self)
        for name, positions in keep.items():
            if name not in self.tables:
                raise InputError(
                    f"TextCircuitGenerator has no table {name!r}, it has {', '.join(self.tables)}"
                )
            before = getattr(self, f"kept_{name}", None)
            if before is None:
                before = torch.arange(self.tables[name], device=self.queries.device)
            if not len(positions) or positions.min() < 0 or positions.max() >= len(before):
                raise InputError(
                    f"positions of {name} modules to keep must be some of 0 to {len(before) - 1}, "
                    f"got {positions.tolist()}"
                )
            pruned.register_buffer(f"kept_{name}", before[positions.to(before.device)].clone())
        return pruned


class _ReadText(nn.Module):
    """Cross-attention of queries ``[N, W]`` to the tokens of each text, with a residual."""

    def __init__(self, width: int, text_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_norm, self.text_norm = nn.LayerNorm(width), nn.LayerNorm(text_dim)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(text_dim, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        heads = (self.num_heads, -1)
        query = self.query(self.query_norm(queries)).unflatten(-1, heads).transpose(0, 1)
        tokens = self.text_norm(tokens.to(self.text_norm.weight.dtype))
        key, value = self.key_value(tokens).chunk(2, dim=2)
        key, value = (x.unflatten(-1, heads).transpose(1, 2) for x in (key, value))
        query = query.expand(len(tokens), -1, -1, -1)  # the same for every text
        seen = None if mask is None else with_first_token(mask)[:, None, None]
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return queries + self.out(read.transpose(1, 2).flatten(2))
