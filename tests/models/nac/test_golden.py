"""Parity with the paper's reference code: values and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_ssl.models.nac.attention import KernelAttention, Modules, Propagator, join
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.kernel import KernelOptions, SignatureKernel
from lit_ssl.models.nac.modulated import ModulatedFFN, ModulatedLinear
from lit_ssl.models.nac.read_in import ReadIn
from lit_ssl.models.nac.readout import OutputPooling
from lit_ssl.models.nac.states import StateSeeder
from lit_ssl.models.nac.tokenizers.tokens import Tokens

sys.path.insert(0, str(Path(__file__).parent))
from reference import assert_close, assert_gradients, fill, load, part

TOL = 1e-5
KEY_BIAS = ("key.bias",)  # without effect: softmax removes it


@pytest.fixture(params=["sdpa", "math"])
def backend(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "modulation"),
    [("modfc_add_one", "one_plus_norm"), ("modfc_ln", "norm"), ("modfc_l2", "unit")],
)
def test_modulated_linear(name, modulation):
    arrays = load(name)
    layer = ModulatedLinear(12, 10, 6, "p/native_bias" in arrays, modulation)
    fill(layer, part(arrays, "p/"))
    x, code = (arrays[key].requires_grad_() for key in ("x", "code"))
    y = layer(x, code)
    y.backward(arrays["grad_y"])
    assert_close(y, arrays["y"], TOL)
    assert_close(x.grad, arrays["grad_x"], TOL)
    assert_close(code.grad, arrays["grad_code"], TOL)
    assert_gradients(layer, part(arrays, "g/"), TOL)


def kernel_of(arrays):
    truncation = float(arrays["truncation"])
    options = KernelOptions(
        bandwidth=float(arrays.get("bandwidth", torch.tensor(0.7))),
        truncation=None if truncation != truncation else truncation,
        temperature=float(arrays["temperature"]) if "temperature" in arrays else 0.5,
        stochastic=bool(arrays.get("stochastic", torch.tensor(True))),
    )
    return SignatureKernel(options)


@pytest.mark.parametrize("name", ["kernel_dense", "kernel_truncated"])
def test_kernel(name):
    arrays = load(name)
    kernel = kernel_of(arrays)
    receivers, senders = (arrays[f"{k}_sig"].requires_grad_() for k in ("receiver", "sender"))
    assert_close(kernel.distances(receivers, senders), arrays["distance"], TOL)
    links = kernel.link_probabilities(receivers, senders)
    assert_close(links, arrays["link_prob"], TOL)
    (links * arrays["cotangent_K"]).sum().backward()
    assert_close(receivers.grad, arrays["grad_receiver_sig"], TOL)
    assert_close(senders.grad, arrays["grad_sender_sig"], TOL)
    by_bandwidth = kernel.log_bandwidth.grad / kernel.bandwidth.detach()
    assert_close(by_bandwidth, arrays["grad_bandwidth"], TOL)
    with torch.no_grad():
        logs = kernel.eval()(receivers, senders, batch=3)[0]
    finite = arrays["log_link_prob"].isfinite()
    assert torch.equal(logs.isfinite(), finite)
    assert_close(logs[finite], arrays["log_link_prob"][finite], TOL)


@pytest.mark.parametrize("name", ["kernel_dense", "kernel_truncated"])
def test_samples_of_the_kernel(name):
    arrays = load(name)
    kernel = kernel_of(arrays).train()
    receivers, senders = (arrays[f"{k}_sig"].requires_grad_() for k in ("receiver", "sender"))
    sample = kernel(receivers, senders, 3, arrays["uniforms"])
    assert_close(sample, arrays["log_sample"], TOL)
    attention = (arrays["scores"] + sample).softmax(dim=-1)
    assert_close(attention, arrays["attn"], TOL)
    attention.backward(arrays["cotangent_attn"])
    assert_close(receivers.grad, arrays["grad_attn_receiver_sig"], TOL)
    assert_close(senders.grad, arrays["grad_attn_sender_sig"], TOL)
    by_bandwidth = kernel.log_bandwidth.grad / kernel.bandwidth.detach()
    assert_close(by_bandwidth, arrays["grad_attn_bandwidth"], TOL)


@pytest.mark.parametrize("name", ["skmdpa_eval_dense", "skmdpa_train_trunc"])
def test_attention_along_the_graph(name, backend):
    arrays = load(name)
    layer = KernelAttention(
        16,
        6,
        int(arrays["heads"]),
        int(arrays["head_dim"]),
        kernel_of(arrays),
        shared_norm=bool(arrays["share_layernorm"]),
        residual=bool(arrays["residual"]),
        qv_bias="p/query_compiler.native_bias" in arrays,
        layer_scale=1.0,
        backend=backend,
    )
    fill(layer, part(arrays, "p/"), skip=KEY_BIAS)
    layer.train(bool(arrays["stochastic"]))
    names = [
        f"{who}_{what}" for who in ("receiver", "sender") for what in ("states", "codes", "sig")
    ]
    for key in names:
        arrays[key].requires_grad_()
    receivers, senders = (Modules(*(arrays[key] for key in names[i : i + 3])) for i in (0, 3))
    y = layer(receivers, senders, arrays.get("uniforms"))
    y.backward(arrays["grad_y"])
    assert_close(y, arrays["y"], TOL)
    for key in names:
        assert_close(arrays[key].grad, arrays[f"grad_{key}"], TOL, key)
    assert_gradients(layer, part(arrays, "g/"), TOL)


@pytest.mark.parametrize("name", ["readin_per_latent_kv", "readin_shared_kv"])
def test_read_in(name, backend):
    arrays = load(name)
    activation = "geglu" if arrays["geglu"] else "gelu"
    layer = ReadIn(
        10,
        16,
        6,
        int(arrays["heads"]),
        int(arrays["head_dim"]),
        ModulatedFFN(16, 6, 2.0, activation, 1.0),
        share_key_value=bool(arrays["share_kv"]),
        residual=bool(arrays["residual"]),
        qv_bias="p/read_in_attention.query_compiler.native_bias" in arrays,
        layer_scale=1.0,
        backend=backend,
    )
    fill(layer, part(arrays, "p/"), skip=KEY_BIAS)
    states, codes, inputs = (
        arrays[key].requires_grad_() for key in ("receiver_states", "receiver_codes", "inputs")
    )
    modules = Modules(states, codes)
    assert_close(layer.read(modules, inputs), arrays["after_attention"], TOL)
    y = layer(modules, inputs)
    y.backward(arrays["grad_y"])
    assert_close(y, arrays["y"], TOL)
    assert_close(states.grad, arrays["grad_receiver_states"], TOL)
    assert_close(codes.grad, arrays["grad_receiver_codes"], TOL)
    assert_close(inputs.grad, arrays["grad_inputs"], TOL)
    assert_gradients(layer, part(arrays, "g/"), TOL)


def test_propagator(backend):
    arrays = load("propagator_geglu")
    attention = KernelAttention(
        16, 6, int(arrays["heads"]), int(arrays["head_dim"]), kernel_of(arrays),
        layer_scale=1.0, backend=backend,
    )  # fmt: skip
    layer = Propagator(attention, ModulatedFFN(16, 6, float(arrays["capacity"]), "geglu", 1.0))
    fill(layer, part(arrays, "p/"))
    receivers, inputs = (
        Modules(*(arrays[f"{who}_{what}"] for what in ("states", "codes", "sig")))
        for who in ("receiver", "input")
    )
    with torch.no_grad():
        y = layer.eval()(receivers, join(inputs, receivers))
    assert_close(y, arrays["y"], TOL)


class _Tokens(nn.Module):
    """The inputs are the tokens."""

    token_dim = 10

    def forward(self, inputs):
        return Tokens(inputs)


@pytest.mark.parametrize(
    ("name", "wiring", "inputs"),
    [("graph_persistent", "persistent", 4), ("graph_states_from_input", "from_input", None)],
)
def test_whole_circuits(name, wiring, inputs, backend):
    arrays = load(name)
    net = NeuralAttentiveCircuit(
        _Tokens(),
        num_classes=5,
        state_dim=12,
        code_dim=6,
        signature_dim=8,
        num_modules=7,
        num_input_modules=inputs,
        num_output_modules=3,
        depth=2,
        num_heads=2,
        head_dim=4,
        read_in_heads=1,
        wiring=wiring,
        initial_state="seeder",
        state_noise=False,
        kernel=KernelOptions(bandwidth=0.7, truncation=0.9),
        layer_scale=1.0,
        read_out_residual=False,
        output_norm=False,
        attention=backend,
    )
    # In the wiring from_input nothing asks for the signatures of the input modules.
    unused = ("signatures.input",) if wiring == "from_input" else ()
    fill(net, {**part(arrays, "p/"), **part(arrays, "pool/", "head.")}, skip=unused)
    net.eval()
    x = arrays["inputs"].requires_grad_()
    output, mediators = net._run(x)
    output.logits.backward(arrays["grad_logits"])
    assert_close(mediators, arrays["mediator_states"], TOL)
    assert_close(output.states, arrays["output_states"], TOL)
    assert_close(output.logits, arrays["logits"], TOL)
    assert_close(x.grad, arrays["grad_inputs"], TOL)
    for parameter in net.head.parameters():
        parameter.grad = None  # not in the file
    assert_gradients(net, part(arrays, "g/"), TOL)


def test_output_pooling():
    arrays = load("output_pooling_a")
    head = OutputPooling(12, 5, temperature=float(arrays["temperature"]))
    fill(head, part(arrays, "p/"))
    with torch.no_grad():
        _, logits = head.eval()(arrays["states"], arrays["states"])
    assert_close(logits, arrays["logits"], TOL)


def test_state_seeder():
    arrays = load("latent_seeder_a")
    seeder = StateSeeder(6, 12)
    values = {k.replace("layernorm", "norm"): v for k, v in part(arrays, "p/").items()}
    fill(seeder, values)
    states = seeder.train()(arrays["codes"], 2, arrays["noise"])
    assert_close(states, arrays["state"], TOL)
    with torch.no_grad():
        assert torch.equal(
            seeder.eval()(arrays["codes"], 2), seeder.mean(seeder.norm(arrays["codes"]))[None]
        )
