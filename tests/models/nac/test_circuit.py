"""The whole network: symmetries, precision, modes, and what each option does."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models import KernelOptions, NeuralAttentiveCircuit, PerceiverIO
from lit_ssl.models.nac.attention import Modules
from lit_ssl.models.nac.modulated import ModulatedFFN
from lit_ssl.models.nac.read_in import ReadIn

sys.path.insert(0, str(Path(__file__).parent))
from small import TokensAsTheyAre, circuit, tokens

WIRINGS = ("from_input", "persistent")


def plain_read_in(layer, modules, inputs, mask=None):
    """Keys and values of every module for every token, as the paper writes them."""
    x = layer.token_norm(inputs)
    query = layer.query(layer.state_norm(modules.states), modules.codes)
    each = x[:, None] * layer.key.factor(modules.codes)[:, None]  # [B, U, V, in]
    key = each @ layer.key.weight.T
    value = (x[:, None] * layer.value.factor(modules.codes)[:, None]) @ layer.value.weight.T
    if layer.value.bias is not None:
        value = value + layer.value.bias
    query, key, value = (part.unflatten(-1, (layer.heads, -1)) for part in (query, key, value))
    scores = torch.einsum("buhd,buvhd->buhv", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    heard = torch.einsum("buhv,buvhd->buhd", scores.softmax(-1), value).flatten(2)
    branch = layer.layer_scale(layer.out(heard, modules.codes))
    return layer.ffn(modules.states + branch, modules.codes)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_the_absorbed_read_in_is_the_plain_one(heads, masked, backend):
    torch.manual_seed(0)
    ffn = ModulatedFFN(12, 5, 1.5)
    layer = ReadIn(7, 12, 5, heads, 4, ffn, qv_bias=True, backend=backend).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    states, codes = torch.randn(3, 6, 12).double(), torch.randn(6, 5).double()
    inputs = torch.randn(3, 11, 7).double()
    mask = torch.arange(11) < torch.tensor([[11], [4], [1]]) if masked else None
    leaves = [states.requires_grad_(), codes.requires_grad_(), inputs.requires_grad_()]
    leaves += list(layer.parameters())
    cotangent = torch.randn(3, 6, 12).double()
    found = []
    for read in (layer, lambda *args: plain_read_in(layer, *args)):
        y = read(Modules(states, codes), inputs, mask)
        found.append((y, *torch.autograd.grad((y * cotangent).sum(), leaves)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_dividing_the_graph_by_its_row_sums_changes_nothing():
    scores, graph = torch.randn(4, 5, 6).double(), torch.rand(4, 5, 6).double()
    normed = graph / graph.sum(-1, keepdim=True)
    a, b = ((scores + part.log()).softmax(-1) for part in (graph, normed))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_order_of_modules_does_not_matter(wiring):
    net = circuit(wiring=wiring, layer_codes=True).double().eval()
    order, inputs = torch.randperm(7), tokens().double()
    with torch.no_grad():
        before = net(inputs).logits
        for tables in (net.codes, net.signatures):
            for name, table in tables.items():
                own = name == "mediator" or name.startswith("propagator")
                if own or (name == "input" and wiring == "from_input"):
                    table.copy_(table[order])
        after = net(inputs).logits
    torch.testing.assert_close(before, after, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("readout", ["pool", "slot"])
def test_without_codes_and_with_equal_signatures_it_is_perceiver_io(readout):
    same = {"initial_state": "learned", "modulation": "none", "readout": readout}
    net = circuit(kernel=KernelOptions(stochastic=False), read_out_residual=False, **same)
    torch.manual_seed(5)
    latents = PerceiverIO(
        TokensAsTheyAre(), 5, state_dim=12, num_modules=7, depth=2, num_heads=2, head_dim=4,
        num_output_modules=3, read_in_heads=2, ffn_mult=2.0, readout=readout,
    )  # fmt: skip
    state = {k: v for k, v in latents.state_dict().items() if not k.startswith("signatures")}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all("signatures" in name or "kernel" in name for name in missing)
    with torch.no_grad():
        for table in net.signatures.values():
            table.copy_(table[:1].expand_as(table))
            table.copy_(net.signatures["output"][:1].expand_as(table))
        for mode in (True, False):
            a, b = (part.train(mode)(tokens()).logits for part in (net, latents))
            torch.testing.assert_close(a, b)
    assert not any("codes" in name for name, _ in latents.named_parameters())


COMBINATIONS = [
    {"wiring": wiring, "initial_state": state, "modulation": modulation, **more}
    for wiring, state, modulation, more in itertools.product(
        WIRINGS,
        ("code", "seeder", "learned"),
        ("one_plus_norm", "none", "tanh"),
        ({}, {"share_depth": True, "readout": "slot", "qv_bias": True}),
    )
] + [
    {"layer_codes": True},
    {"layer_codes": True, "share_depth": True, "wiring": "persistent"},
    {"wiring": "persistent", "input_to_output": False},
    {"graph": False},
    {"share_key_value": True, "layer_scale": 0.1, "drop_path": 0.5, "code_noise": 0.05},
    {"kernel": KernelOptions(truncation=0.9), "pooling": "gumbel"},
    {"initial_state": "seeder", "state_noise": False, "code_dim": 5, "activation": "gelu"},
]


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_parameter_takes_part(options):
    """Else DDP would stop, or have to search for what took no part in each step."""
    net = circuit(**options)
    net(tokens()).logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_evaluation_is_deterministic_and_training_is_not(wiring):
    options = {"initial_state": "seeder", "code_noise": 0.05, "drop_path": 0.3}
    net = circuit(wiring=wiring, pooling="gumbel", **options).eval()
    with torch.no_grad():
        first = net(tokens()).logits
        state = torch.get_rng_state()
        assert torch.equal(first, net(tokens()).logits)
        assert torch.equal(state, torch.get_rng_state())
        net.train()
        assert not torch.equal(net(tokens()).logits, net(tokens()).logits)
        torch.manual_seed(3)
        a = net(tokens()).logits
        torch.manual_seed(3)
        assert torch.equal(a, net(tokens()).logits)
        # a sample's answer does not depend on its neighbours
        torch.testing.assert_close(net.eval()(tokens()[1:2]).logits, first[1:2])


@pytest.mark.parametrize("wiring", WIRINGS)
def test_padding_has_no_influence(wiring):
    net, inputs = circuit(wiring=wiring).eval(), tokens()
    mask = torch.arange(9) < torch.tensor([[9], [5], [1]])
    other = torch.where(mask[..., None], inputs, 1e3)
    with torch.no_grad():
        a, b = net((inputs, mask)).logits, net((other, mask)).logits
        short = net(inputs[1:2, :5]).logits
    assert torch.equal(a, b)
    torch.testing.assert_close(a[1:2], short)


def test_the_norm_of_outputs_keeps_first_scores_from_being_tiny():
    spread = [
        float(circuit(layer_scale=0.1, output_norm=norm).eval()(tokens(64)).logits.detach().std())
        for norm in (True, False)
    ]
    assert spread[0] > 3 * spread[1]


def test_bfloat16_autocast_stays_close():
    net = circuit().eval()
    with torch.no_grad():
        plain = net(tokens()).logits
        with torch.autocast("cpu", torch.bfloat16):
            cast = net(tokens()).logits
    assert (plain - cast.float()).abs().max() < 0.05 * plain.abs().max() + 0.05


def test_the_sizes_of_the_published_tiny_imagenet_model():
    """26.70 M parameters with a tokenizer of 1.239 M."""

    class Tokens256(TokensAsTheyAre):
        token_dim = 256

    net = NeuralAttentiveCircuit(
        Tokens256(), 200, wiring="persistent", initial_state="seeder", output_norm=False,
        kernel=KernelOptions(truncation=0.9),
    )  # fmt: skip

    def millions(*parts):
        return round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6, 3)

    assert millions(net.read_in) == 2.315
    assert [millions(part) for part in net.propagators] == [2.511] * 8
    assert millions(net.read_out) == 2.512
    assert millions(net.codes, net.signatures, net.seeder) == 0.468
    assert millions(net.head) == 0.077
    assert round(millions(net) + 1.239, 2) == 26.70


def test_the_graph_of_a_circuit():
    net = circuit(wiring="persistent", num_input_modules=2, kernel=KernelOptions(truncation=0.9))
    links = net.link_probabilities()
    assert links.shape == (2, 7, 9)
    assert torch.equal(net.link_probabilities(1), links[1])
    assert net.graph(0.5).shape == (7, 7)
    assert net.graph().diagonal().all()
    links.sum().backward()
    assert net.signatures["input"].grad is not None
    assert net.bandwidths().shape == (2,)
    with pytest.raises(InputError, match="has no graph"):
        circuit(graph=False).link_probabilities()


def test_a_new_classifier():
    for readout in ("pool", "slot"):
        net = circuit(readout=readout, num_classes=0)
        assert net.num_classes == 0
        assert net(tokens()).logits is None
        net.reset_classifier(4)
        assert net(tokens()).logits.shape == (3, 4)
        assert net.num_classes == 4


def test_gates_silence_what_a_module_sends():
    net = circuit().eval()
    with torch.no_grad():
        plain = net(tokens()).logits
        assert torch.equal(plain, net(tokens(), gates=torch.ones(7)).logits)
        gates = torch.ones(7)
        gates[3] = 0
        assert not torch.equal(plain, net(tokens(), gates=gates).logits)
    activity = net.module_activity(tokens())
    assert activity.shape == (3, 7)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"wiring": "first"}, "wiring"),
        ({"initial_state": "zeros"}, "initial_state"),
        ({"code_dim": 5}, "code_dim 5"),
        ({"num_modules": 0}, "num_modules 0"),
        ({"num_input_modules": 4}, "belongs to the wiring"),
        ({"depth": 0}, "depth 0"),
        ({"code_noise": 1.5}, "code_noise"),
        ({"modulation": "film"}, "modulation"),
        ({"attention": "flash"}, "attention"),
        ({"activation": "relu"}, "activation"),
        ({"pooling": "max"}, "pooling"),
        ({"readout": "mean"}, "readout"),
        ({"layer_codes": True, "modulation": "none"}, "layer_codes"),
        ({"num_heads": 0}, "heads"),
        ({"read_in_heads": 0}, "read_in_heads 0"),
        ({"read_out_heads": -1}, "read_out_heads -1"),
        ({"num_input_modules": 0, "wiring": "persistent"}, "num_input_modules 0"),
        ({"signature_dim": 0}, "signature_dim 0"),
        ({"state_dim": 0}, "state_dim 0"),
        ({"num_classes": -1}, "num_classes"),
        ({"drop_path": 1.5}, "drop_path"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"ffn_mult": math.nan}, "ffn_mult"),
        ({"ffn_mult": math.inf}, "ffn_mult"),
        ({"layer_scale": math.nan}, "layer_scale"),
        ({"pooling_temperature": math.inf}, "pooling_temperature"),
    ],
)
def test_wrong_options_are_one_clear_error(wrong, match):
    with pytest.raises(InputError, match=match):
        circuit(**wrong)


def test_weights_of_another_size_are_one_clear_error():
    small = circuit(num_modules=5)
    with pytest.raises(InputError, match="num_modules 7, and this one has num_modules 5: build"):
        small.load_state_dict(circuit().state_dict())
    with pytest.raises(InputError, match="num_output_modules 2, and this one has"):
        small.load_state_dict(circuit(num_modules=5, num_output_modules=2).state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_signatures_and_bandwidths_are_never_narrowed(dtype):
    net = circuit(kernel=KernelOptions(truncation=1.2)).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    kernels = [net.kernel(0), net.kernel(1), net.read_out.attention.kernel]
    assert {kernel.log_bandwidth.dtype for kernel in kernels} == {wide}
    assert {table.dtype for table in net.signatures.values()} == {wide}
    assert net.codes["mediator"].dtype == dtype
    out = net(tokens().to(dtype))
    out.logits.sum().backward()
    assert out.logits.dtype == dtype
    assert net.eval().fold()(tokens().to(dtype)).logits.isfinite().all()


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("layer_codes", [False, True])
def test_frozen_codes_and_signatures(wiring, layer_codes):
    net = circuit(wiring=wiring, layer_codes=layer_codes, learn_codes=False, learn_signatures=False)
    net(tokens()).logits.square().sum().backward()
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {f"codes.{n}" for n in net.codes} | {f"signatures.{n}" for n in net.signatures}
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    small = net.prune([0, 2, 5])
    assert not any(p.requires_grad for p in [*small.codes.values(), *small.signatures.values()])


def test_a_compiled_circuit_takes_a_tensor_of_modules_in_one_graph():
    net = circuit().eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    keep = torch.tensor([0, 2, 5])
    torch.testing.assert_close(compiled(tokens(), keep).logits, net(tokens(), keep).logits)


def test_code_noise_is_a_share_of_each_number_and_in_training_only():
    net = circuit(code_noise=0.05)
    seen = []
    net.read_in.register_forward_pre_hook(lambda _, args: seen.append(args[0].codes.detach()))
    for mode in (True, True, False):
        net.train(mode)(tokens())
    table = net.codes["input"].detach()
    moved = ((seen[0] - table) / table).abs()
    assert 0.04 < moved.max() <= 0.05 + 1e-5
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], table)


def test_gumbel_pooling_is_the_softmax_of_noisy_scores_in_training():
    net = circuit(pooling="gumbel", pooling_temperature=0.5)
    states = torch.randn(3, 4, 12)
    scores = net.head.confidence(states).squeeze(-1)
    torch.manual_seed(3)
    noise = -torch.empty_like(scores).exponential_().log()
    torch.manual_seed(3)
    features, _ = net.head(states, net.codes["output"])
    weights = ((scores + noise) / 0.5).softmax(1)
    torch.testing.assert_close(features, torch.einsum("bo,bod->bd", weights, states))
    features, _ = net.eval().head(states, net.codes["output"])
    weights = (scores / 0.5).softmax(1)
    torch.testing.assert_close(features, torch.einsum("bo,bod->bd", weights, states))
