"""Circuits against their formulas, written out with loops in float64, for every option."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.kernel import KernelOptions
from tests.models.nac.small import circuit, tokens

EPS = torch.finfo(torch.float32).eps


class Formulas:
    """What a circuit should compute, from its parameters, its options and its random numbers."""

    def __init__(self, net: NeuralAttentiveCircuit, options: dict, train: bool, draws: dict):
        self.p = dict(net.named_parameters())
        self.o = options
        self.train = train
        self.draws = draws
        self.depth = net.depth
        self.heads = {"read_in": 3, "propagators": 2, "read_out": 1}

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return unit * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def linear(self, x: Tensor, code: Tensor, name: str, plain: bool = False) -> Tensor:
        """One module's layer: x [..., in], code [C]."""
        kind = "none" if plain else self.o.get("modulation", "one_plus_norm")
        if kind != "none":
            s = self.p[f"{name}.scale.weight"] @ code
            if "norm" in kind:
                a = (s - s.mean()) / (s.var(correction=0) + 1e-5).sqrt()
                a = 1 + self.p[f"{name}.gain"] * a if kind == "one_plus_norm" else a
            else:
                a = {"unit": lambda s: s / s.norm(), "sigmoid": torch.sigmoid, "tanh": torch.tanh}[
                    kind
                ](s)
            x = x * a
        y = x @ self.p[f"{name}.weight"].T
        bias = self.p.get(f"{name}.bias")
        return y if bias is None else y + bias

    def each(self, x: Tensor, codes: Tensor, name: str) -> Tensor:
        """All modules' layer: x [B, U, in]."""
        return torch.stack([self.linear(x[:, u], codes[u], name) for u in range(x.shape[1])], 1)

    def scaled(self, x: Tensor, name: str) -> Tensor:
        return x * self.p[f"{name}.layer_scale.gamma"] if self.o.get("layer_scale") else x

    def ffn(self, x: Tensor, codes: Tensor, name: str) -> Tensor:
        hidden = self.each(self.norm(x, f"{name}.norm"), codes, f"{name}.fc1")
        if self.o.get("activation", "geglu") == "geglu":
            half = hidden.shape[-1] // 2
            hidden = hidden[..., :half] * gelu(hidden[..., half:])
        else:
            hidden = gelu(hidden)
        return x + self.scaled(self.each(hidden, codes, f"{name}.fc2"), name)

    def read_in(self, x: Tensor, codes: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        heads, plain = self.heads["read_in"], self.o.get("share_key_value", False)
        seen = self.norm(values, "read_in.token_norm")
        states = self.norm(x, "read_in.state_norm")
        rows = []
        for u in range(x.shape[1]):
            q = self.linear(states[:, u], codes[u], "read_in.query").unflatten(-1, (heads, -1))
            k, v = (
                self.linear(seen, codes[u], f"read_in.{part}", plain).unflatten(-1, (heads, -1))
                for part in ("key", "value")
            )
            scores = torch.einsum("bhd,bvhd->bhv", q, k) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask[:, None], -torch.inf)
            heard = torch.einsum("bhv,bvhd->bhd", scores.softmax(-1), v).flatten(1)
            rows.append(self.linear(heard, codes[u], "read_in.out"))
        branch = self.scaled(torch.stack(rows, 1), "read_in")
        x = x + branch if self.o.get("read_in_residual", True) else branch
        return self.ffn(x, codes, "read_in.ffn")

    def links(self, place: str, receivers: Tensor, senders: Tensor, o: KernelOptions) -> Tensor:
        a = receivers / receivers.norm(dim=-1, keepdim=True)
        b = senders / senders.norm(dim=-1, keepdim=True)
        delta = 1 - a @ b.T
        p = (-delta / self.p[f"{place}.attention.kernel.log_bandwidth"].exp()).exp()
        if o.truncation is not None:
            if o.soft_truncation and self.train:
                beyond = ((delta - o.truncation) / 0.1).clamp(0, 1)
                p = p * (-30 * beyond).exp()
            else:
                p = p * (delta <= o.truncation)
                assert (p > 0).any(-1).all()  # no row is empty here
        mode = o.eval_mode if not self.train else "sample" if o.stochastic else "soft"
        if mode == "soft":
            return p[None]
        if mode == "threshold":
            hard = (p >= 0.5).double()
            assert hard.any(-1).all()
            return hard[None]
        p, r = (x.clamp(EPS, 1 - EPS) for x in (p, self.draws["uniform"].pop(0)))
        odds = p / (1 - p) * r / (1 - r)
        return 1 / (1 + odds ** (-1 / o.temperature))

    def talk(self, place, x, codes, signs, sent, sent_codes, sent_signs, options) -> Tensor:
        name = f"{place}.attention"
        out = place == "read_out"
        heads = self.heads["read_out" if out else "propagators"]
        receivers = self.norm(x, f"{name}.receiver_norm")
        senders = self.norm(sent, f"{name}.{'sender' if out else 'receiver'}_norm")
        q = self.each(receivers, codes, f"{name}.query").unflatten(-1, (heads, -1))
        k = self.each(senders, sent_codes, f"{name}.key").unflatten(-1, (heads, -1))
        v = self.each(senders, sent_codes, f"{name}.value").unflatten(-1, (heads, -1))
        weights = (torch.einsum("buhd,bvhd->bhuv", q, k) / math.sqrt(q.shape[-1])).exp()
        if self.o.get("graph", True):
            links = self.links(place, signs, sent_signs, options)
            weights = weights * (links / links.sum(-1, keepdim=True))[:, None]
        weights = weights / weights.sum(-1, keepdim=True)
        heard = torch.einsum("bhuv,bvhd->buhd", weights, v).flatten(2)
        branch = self.scaled(self.each(heard, codes, f"{name}.out"), name)
        residual = self.o.get("read_out_residual", False) if out else True
        return self.ffn(x + branch if residual else branch, codes, f"{place}.ffn")

    def initial(self, name: str, codes: Tensor, batch: int) -> Tensor:
        kind = self.o.get("initial_state", "code")
        if kind == "learned":
            return self.p[f"states.{name}"].expand(batch, -1, -1)
        if kind == "code":
            return codes.expand(batch, -1, -1)
        normed = self.norm(codes, "seeder.norm")
        mean, log_variance = (
            normed @ self.p[f"seeder.{part}.weight"].T + self.p[f"seeder.{part}.bias"]
            for part in ("mean", "log_variance")
        )
        mean = mean.expand(batch, -1, -1)
        if not self.train:
            return mean
        return mean + self.draws["normal"].pop(0) * (log_variance / 2).exp()

    def __call__(self, values: Tensor, mask: Tensor | None) -> Tensor:
        batch, o = len(values), self.o
        persistent = o.get("wiring") == "persistent"
        layers = o.get("layer_codes", False)
        kernel = o.get("kernel") or KernelOptions()
        last_kernel = o.get("read_out_kernel") or KernelOptions(stochastic=False)
        sign = {n: self.p.get(f"signatures.{n}") for n in ("input", "mediator", "output")}

        def code(name: str, size: int) -> Tensor:
            return self.p.get(f"codes.{name}", torch.zeros(size, 1, dtype=values.dtype))

        entering = code("input", 3 if persistent else 7)
        read = self.read_in(self.initial("input", entering, batch), entering, values, mask)
        states = read
        if persistent:
            first = code("propagator_0" if layers else "mediator", 7)
            states = self.initial("mediator", first, batch)
        for depth in range(self.depth):
            own = code(f"propagator_{depth}" if layers else "mediator", 7)
            sent, sent_codes, sent_signs = states, own, sign["mediator"]
            if persistent:
                sent = torch.cat([read, states], 1)
                if own.shape[1] == entering.shape[1]:
                    sent_codes = torch.cat([entering, own])
                else:
                    sent_codes = torch.zeros(10, 1)
                if sent_signs is not None:
                    sent_signs = torch.cat([sign["input"], sign["mediator"]])
            place = f"propagators.{0 if o.get('share_depth') else depth}"
            states = self.talk(
                place, states, own, sign["mediator"], sent, sent_codes, sent_signs, kernel
            )
        sent, sent_codes, sent_signs = states, own, sign["mediator"]
        if persistent and o.get("input_to_output", True):
            sent = torch.cat([read, states], 1)
            sent_codes = torch.cat([entering, own]) if own.shape[1] == entering.shape[1] else own
            if sent_signs is not None:
                sent_signs = torch.cat([sign["input"], sign["mediator"]])
        last = code("output", 1 if o.get("readout") == "slot" else 3)
        asked = self.initial("output", last, batch)
        out = self.talk(
            "read_out", asked, last, sign["output"], sent, sent_codes, sent_signs, last_kernel
        )
        if o.get("output_norm", True):
            out = self.norm(out, "output_norm")
        if o.get("readout") == "slot":
            return self.linear(out[:, 0], last[0], "head.classifier")
        scores = out @ self.p["head.confidence.weight"].T + self.p["head.confidence.bias"]
        weights = (scores / o.get("pooling_temperature", 1.0)).softmax(1)
        pooled = (weights * out).sum(1)
        return pooled @ self.p["head.classifier.weight"].T + self.p["head.classifier.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


OPTIONS = [
    {"wiring": wiring, "modulation": modulation, "initial_state": state}
    for wiring, modulation, state in itertools.product(
        ("from_input", "persistent"),
        ("one_plus_norm", "norm", "unit", "sigmoid", "tanh"),
        ("code", "seeder", "learned"),
    )
] + [
    {"modulation": "none", "initial_state": "learned"},
    {"activation": "gelu", "layer_scale": 0.1, "qv_bias": True},
    {"share_key_value": True, "qv_bias": True, "read_in_residual": False},
    {"read_out_residual": True, "output_norm": False},
    {"readout": "slot"},
    {"readout": "slot", "wiring": "persistent", "modulation": "unit", "input_to_output": False},
    {"pooling_temperature": 0.3},
    {"share_depth": True},
    {"layer_codes": True},
    {"layer_codes": True, "share_depth": True, "wiring": "persistent"},
    {"wiring": "persistent", "input_to_output": False, "layer_scale": 0.1},
    {"graph": False},
    {"graph": False, "wiring": "persistent"},
    {"attention": "math", "wiring": "persistent"},
    {"kernel": KernelOptions(0.6, truncation=1.2)},
    {"kernel": KernelOptions(0.6, truncation=1.2), "wiring": "persistent", "attention": "math"},
    {"kernel": KernelOptions(0.7, temperature=1.0, sample_per="batch")},
    {"kernel": KernelOptions(0.7, learnable_bandwidth=False, stochastic=False)},
    {"kernel": KernelOptions(2.0, eval_mode="threshold", temperature=0.2)},
    {"kernel": KernelOptions(0.7, eval_mode="sample")},
    {"kernel": KernelOptions(0.7, truncation=1.0, soft_truncation=True)},
    {"read_out_kernel": KernelOptions(0.5, truncation=1.3, stochastic=True)},
    {"read_out_kernel": KernelOptions(0.5), "wiring": "persistent"},
]


@pytest.mark.parametrize(("train", "masked"), [(False, False), (True, True)], ids=["eval", "train"])
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_scores_and_gradients_are_those_of_the_formulas(options, train, masked, monkeypatch):
    options = dict(options)
    if options.get("wiring") == "persistent":
        options["num_input_modules"] = 3
    if options.get("initial_state") in ("seeder", "learned"):
        options["code_dim"] = 5
    net = circuit(read_in_heads=3, read_out_heads=1, **options).double().train(train)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bandwidth"):
                continue
            # away from zeros and ones of the start, which hide mistakes
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            moved = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * moved)
        if "kernel" not in options and "read_out_kernel" not in options:
            for name, parameter in net.named_parameters():
                if name.endswith("bandwidth"):
                    parameter.fill_(math.log(0.7))
    values = tokens().double()
    mask = torch.ones(3, 9, dtype=torch.bool) if masked else None
    if mask is not None:
        mask[1, 4:], mask[2, 1:] = False, False
    draws = {"uniform": [], "normal": []}
    for kind, function in (("uniform", "rand"), ("normal", "randn")):
        draw = getattr(torch, function)

        def record(*args, _draw=draw, _kept=draws[kind], **kwargs):
            _kept.append(_draw(*args, **kwargs))
            return _kept[-1]

        monkeypatch.setattr(torch, function, record)
    found = net((values, mask) if masked else values).logits
    monkeypatch.undo()
    expected = Formulas(net, options, train, draws)(values, mask)
    assert not draws["uniform"]
    assert not draws["normal"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    trained = {n: p for n, p in net.named_parameters() if p.requires_grad}
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    ours, theirs = (
        torch.autograd.grad((y * weights).sum(), trained.values(), allow_unused=True)
        for y in (found, expected)
    )
    for name, one, two in zip(trained, ours, theirs, strict=True):
        if two is None:
            assert one is None or not one.any(), name
        else:
            torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: n + m)
