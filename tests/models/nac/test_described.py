"""Circuits built from descriptions in plain values."""

from __future__ import annotations

import json

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import (
    ImagePairTextTokenizer,
    NeuralAttentiveCircuit,
    SmallPairEncoder,
    TextCircuitGenerator,
)
from lit_ssl.models.nac.described import described_circuit
from lit_ssl.models.nac.graph_priors import GraphPrior
from lit_ssl.models.nac.kernel import KernelOptions


def part(name, **args):
    return {"class_path": f"lit_ssl.models.{name}", "init_args": args}


SIZES = {"state_dim": 8, "num_heads": 2, "head_dim": 4, "depth": 1, "signature_dim": 4}
SIZES |= {"num_modules": 5, "num_output_modules": 2, "num_classes": 3}


def test_nested_parts_and_options():
    encoder = {"vocab_size": 9, "image_size": 16, "image_dim": 8, "text_dim": 6, "max_length": 7}
    pair = {"max_length": 7, "embed_dim": 4, "position_dim": 2, "category_dim": 2}
    generator = {"text_dim": 6, "num_modules": 5, "num_output_modules": 2, "signature_dim": 4}
    generator |= {"code_dim": 8, "width": 6, "num_heads": 2, "depth": 1}
    inner = part("SmallPairEncoder", **encoder)
    described = {
        "tokenizer": part("ImagePairTextTokenizer", encoder=inner, **pair),
        "generator": part("TextCircuitGenerator", **generator),
        "kernel": {"bandwidth": 0.5, "eval_truncation": 0.9},
        "read_out_kernel": None,
        "graph_prior": {"name": "erdos-renyi", "arguments": {"p": 0.3}},
        **SIZES,
    }
    net = described_circuit("NeuralAttentiveCircuit", **json.loads(json.dumps(described)))
    expected = NeuralAttentiveCircuit(
        ImagePairTextTokenizer(SmallPairEncoder(**encoder), **pair),
        generator=TextCircuitGenerator(**generator),
        kernel=KernelOptions(0.5, eval_truncation=0.9),
        graph_prior=GraphPrior("erdos-renyi", arguments={"p": 0.3}),
        **SIZES,
    )
    expected.load_state_dict(net.state_dict())
    inputs = net.tokenizer.example(3)
    assert torch.equal(net.eval()(inputs).logits, expected.eval()(inputs).logits)
    assert (net.kernel_options, net.graph_prior) == (expected.kernel_options, expected.graph_prior)


@pytest.mark.parametrize("path", ["os.Thing", "lit_ssl.models.resnet", "other.PatchTokenizer"])
def test_a_description_chooses_no_code(path):
    with pytest.raises(InputError, match=f"a part {path} that is not of lit_ssl.models"):
        described_circuit("PerceiverIO", tokenizer={"class_path": path, "init_args": {}})
