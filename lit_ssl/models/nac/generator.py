"""A circuit of its own for each text: what is added to the signatures and codes of modules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.attention import attention
from lit_ssl.models.nac.tokenizers.tokens import with_first_token

__all__ = ["TextCircuitGenerator", "check_generator"]


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
        text_dim: channels of the text tokens (``text_dim`` of the tokenizer).
        num_modules: mediators of the circuit.
        num_output_modules: its output modules; 0 leaves their table as it is.
        num_input_modules: its input modules; as many as mediators by default, as where mediators
            start from what was read in; 0 leaves their table as it is.
        signature_dim: G of the circuit.
        code_dim: C of the circuit.
        width: W, divisible by ``num_heads``.
        num_heads: of all attentions.
        depth: self-attention blocks, >= 0.
        ffn_mult: hidden channels of their feed-forward layers, in widths.

    Attributes:
        tables: modules of each table, in the order of the queries.

    Raises:
        ValueError: if a size is out of range.

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
        self.text_dim, self.signature_dim, self.code_dim = text_dim, signature_dim, code_dim
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
            mask: bool ``[B, L]``, True where a token is; an empty row reads its first token. None:
                everywhere.

        Returns:
            For each table what is added to its signatures, ``[B, U, G]``, and to its codes,
            ``[B, U, C]``. Where a table has no signatures, the first is of no use.

        Raises:
            ValueError: if the tokens are of another shape.
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
        sizes = list(self.tables.values())
        parts = zip(signatures.split(sizes, dim=1), codes.split(sizes, dim=1), strict=True)
        return dict(zip(self.tables, parts, strict=True))


def check_generator(
    generator: nn.Module | None,
    tokenizer: nn.Module,
    signatures: nn.ParameterDict,
    codes: nn.ParameterDict,
) -> None:
    """Refuse a generator that does not fit a circuit, and a text that nobody reads.

    Args:
        generator: of the circuit, or None.
        tokenizer: of the circuit.
        signatures: its tables ``[U, G]``, by name.
        codes: its tables ``[U, C]``, by name; ``propagator_0`` … are of the mediators.

    Raises:
        ValueError: says what to set.
    """
    if generator is None:
        if getattr(tokenizer, "text_in_executor", True):
            return
        raise InputError(
            "the tokenizer keeps the text from the circuit, and there is no generator that reads "
            "it: set text_in_executor: true, or give a TextCircuitGenerator"
        )
    if not isinstance(generator, TextCircuitGenerator):
        return
    given = getattr(tokenizer, "text_dim", None)
    if given != generator.text_dim:
        who = type(tokenizer).__name__
        text = f"that of {who} has {given}" if given else f"{who} has no text"
        raise InputError(f"the generator reads a text of {generator.text_dim} channels, but {text}")
    if not signatures or not codes:
        raise InputError(
            "a generator changes signatures and codes: it needs a graph and a modulation"
        )
    tables = {("mediator" if k.startswith("propagator") else k): v for k, v in codes.items()}
    theirs = {name: len(tables[name]) for name in generator.tables if name in tables}
    if theirs != generator.tables:
        sizes = {name: len(table) for name, table in tables.items()}
        raise InputError(
            f"the generator is for a circuit with {_counted(generator.tables)} modules, this one "
            f"has {_counted(sizes)}: set num_modules, num_input_modules and num_output_modules of "
            "both alike"
        )
    dims = {"signature_dim": signatures["mediator"], "code_dim": tables["mediator"]}
    for name, table in dims.items():
        if table.shape[1] != getattr(generator, name):
            raise InputError(
                f"the generator has {name} {getattr(generator, name)}, the circuit "
                f"{table.shape[1]}: make them equal"
            )


def _counted(tables: Mapping[str, int]) -> str:
    return ", ".join(f"{size} {name}" for name, size in sorted(tables.items()))


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
        query = query.expand(tokens.shape[0], -1, -1, -1)  # the same for every text
        seen = None if mask is None else with_first_token(mask)[:, None, None]
        read = attention(query, key, value, mask=seen)
        return queries + self.out(read.transpose(1, 2).flatten(2))
