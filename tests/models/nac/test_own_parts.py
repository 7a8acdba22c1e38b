"""A user's own tokenizer, and what torch makes of a circuit: exports, compiled graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models import (
    ByteTokenizer,
    ConvNeXtTokenizer,
    NeuralAttentiveCircuit,
    PatchTokenizer,
    PerceiverIO,
    PointTokenizer,
    SymbolTokenizer,
    Tokens,
)
from lit_ssl.models.nac.kernel import KernelOptions

SIZES = {
    "num_classes": 3, "state_dim": 8, "num_modules": 6, "num_output_modules": 2, "depth": 2,
    "num_heads": 2, "head_dim": 4, "layer_scale": None,
}  # fmt: skip


class Table(nn.Module):
    """A user's tokenizer: each of five columns of a table is a token."""

    def __init__(self, token_dim=5, change=None):
        super().__init__()
        self.columns = nn.Parameter(torch.randn(5, 4))
        self.token_dim = token_dim
        self.change = change

    def forward(self, rows):
        columns = self.columns.expand(rows.shape[0], -1, -1)
        values = torch.cat([rows[..., None], columns], dim=2)
        return Tokens(values) if self.change is None else self.change(values)


def masked(value, dtype=torch.bool, width=5):
    return lambda values: Tokens(values, torch.full((len(values), width), value, dtype=dtype))


def test_a_tokenizer_of_ones_own():
    net = NeuralAttentiveCircuit(Table(), **SIZES, signature_dim=4).eval()
    rows = torch.randn(3, 5)
    assert net(rows).logits.shape == (3, 3)
    net.tokenizer.change = masked(True)
    torch.testing.assert_close(net(rows).logits, net.prune(range(6))(rows).logits)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: values, "Table must give Tokens.* of lit_ssl.models, not Tensor"),
        (lambda values: (values, None), "not tuple"),
        (lambda values: Tokens(values[:, 0]), r"\[B, V, token_dim\] with its token_dim 5, not"),
        (lambda values: Tokens(values[..., 1:]), r"token_dim 5, not \[3, 5, 4\]"),
        # whole numbers would be added to the scores, and hide nothing
        (masked(1, torch.long), r"a mask of bool \[3, 5\], .* not torch.int64"),
        (masked(True, width=4), r"not torch.bool \[3, 4\]"),
        (masked(False), "without any token"),
    ],
)
def test_what_a_tokenizer_gives_is_checked(change, match):
    net = NeuralAttentiveCircuit(Table(change=change), **SIZES, signature_dim=4)
    with pytest.raises(InputError, match=match):
        net(torch.randn(3, 5))


@pytest.mark.parametrize("width", [None, 0, "5"])
def test_a_tokenizer_needs_its_width(width):
    with pytest.raises(InputError, match="Table needs an attribute token_dim"):
        NeuralAttentiveCircuit(Table(width), **SIZES)


@pytest.mark.parametrize("keep", [3, "all", None])
def test_a_number_is_no_list_of_modules(keep):
    net = NeuralAttentiveCircuit(Table(), **SIZES, signature_dim=4)
    with pytest.raises(InputError, match="keep must be a list of module numbers"):
        net.prune(keep)


CIRCUITS = {
    "images": (ConvNeXtTokenizer(8, "femto", num_stages=1, image_size=8), {"signature_dim": 4}),
    "persistent": (PatchTokenizer(8, 4), {"signature_dim": 4, "wiring": "persistent"}),
    "points": (PointTokenizer(4, 3, bands=2), {"signature_dim": 4, "layer_codes": True}),
    "bytes": (ByteTokenizer(8, 64), {"kernel": KernelOptions(truncation=0.9), "signature_dim": 4}),
    "symbols": (SymbolTokenizer(9, 4, 4, 40), {"initial_state": "seeder", "signature_dim": 4}),
    "perceiver_io": (PatchTokenizer(8, 4), None),
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_an_export_takes_batches_of_any_size(name):
    tokenizer, options = CIRCUITS[name]
    torch.manual_seed(0)
    if options is None:
        net = PerceiverIO(tokenizer, **{**SIZES, "num_output_modules": 1})
    else:
        net = NeuralAttentiveCircuit(tokenizer, **SIZES, **options)
    net = net.prune([0, 2, 5]).fold()
    batch = torch.export.Dim("batch", min=1, max=64)
    inputs = tokenizer.example(5)
    is_mapping = isinstance(inputs, dict)
    shapes = {key: {0: batch} for key in inputs} if is_mapping else {0: batch}
    with torch.no_grad():
        exported = torch.export.export(net, (inputs,), dynamic_shapes=(shapes,)).module()
        for count in (1, 7):
            other = tokenizer.example(count)
            torch.testing.assert_close(exported(other).logits, net(other).logits)
