"""What smaller circuits, the absorbed read-in and fused attention save, on the clock.

Each part is timed in one run, in alternating rounds, and its table has medians:

- modules: a circuit against real smaller copies of it (``prune``), evaluation, per image; all are
  folded (``fold``), as one would deploy them;
- read-in: the absorbed form against the plain one, in which each module makes keys and values of
  its own of every token as the paper's code does; with the same weights, forward and backward;
- circuit: the whole network with the plain read-in and attention written out, as the paper's code
  runs it, against ours; evaluation without folding, and a training step;
- attention: ``sdpa`` against ``math`` in the whole network, likewise.

    python benchmarks/nac_circuit.py                     # one CPU core, the Tiny-ImageNet size
    python benchmarks/nac_circuit.py --device cuda --batch 64

Tokens are given: the tokenizer, the same for every circuit, is timed alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.models import ConvNeXtTokenizer, KernelOptions, NeuralAttentiveCircuit, Tokens
from lit_ssl.models.nac.attention import Modules, split_heads
from lit_ssl.models.nac.read_in import ReadIn

Ways = dict[str, Callable[[], tuple[float, ...]]]


class Given(nn.Module):
    """The inputs are the tokens."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.token_dim = token_dim

    def forward(self, inputs: Tensor) -> Tokens:
        return Tokens(inputs)


class PlainReadIn(ReadIn):
    """The read-in as its formula says: keys and values ``[B, V, U, H * d]``."""

    def read(self, modules: Modules, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.token_norm(tokens)
        query = split_heads(self.query(self.state_norm(modules.states), modules.codes), self.heads)
        key, value = (
            F.linear(tokens[:, :, None] * part.factor(modules.codes), part.weight, part.bias)
            .unflatten(-1, (self.heads, -1))
            for part in (self.key, self.value)
        )  # fmt: skip
        query = query.expand(len(tokens), -1, -1, -1)
        scores = torch.einsum("bhud,bvuhd->bhuv", query, key) * query.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        heard = torch.einsum("bhuv,bvuhd->buhd", scores.softmax(dim=-1), value).flatten(2)
        branch = self.layer_scale(self.out(heard, modules.codes))
        return modules.states + branch if self.residual else branch


def plain_copy(read_in: ReadIn) -> ReadIn:
    """The same weights, computed the plain way."""
    plain = copy.deepcopy(read_in)
    plain.__class__ = PlainReadIn
    return plain


def now(options: argparse.Namespace) -> float:
    """Seconds, once the device has done what it was given."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def medians(ways: Ways, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each way: the median over alternating rounds, for each of its times."""
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for repeat in range(options.warmup + options.repeats):
        for name, way in ways.items():
            seconds = way()
            if repeat >= options.warmup:
                times[name].append(seconds)
    return {
        name: [1e3 * statistics.median(part) for part in zip(*rows, strict=True)]
        for name, rows in times.items()
    }


def evaluation(
    net: Callable[[Tensor], object], inputs: Tensor, options: argparse.Namespace
) -> tuple[float, ...]:
    """Seconds of one forward pass without gradients."""
    start = now(options)
    with torch.no_grad():
        net(inputs)
    return (now(options) - start,)


def step(
    forward: Callable[[], Tensor], module: nn.Module, options: argparse.Namespace
) -> tuple[float, ...]:
    """Seconds of a forward pass and of its backward pass."""
    module.zero_grad()
    start = now(options)
    outputs = forward()
    middle = now(options)
    outputs.square().sum().backward()
    return middle - start, now(options) - middle


def make_net(options: argparse.Namespace, wiring: str, **kwargs: object) -> NeuralAttentiveCircuit:
    """A circuit with random weights, the same for each call."""
    torch.manual_seed(0)
    net = NeuralAttentiveCircuit(
        Given(options.token_dim),
        options.classes,
        state_dim=options.state_dim,
        num_modules=options.modules,
        num_input_modules=options.inputs if wiring == "persistent" else None,
        num_output_modules=options.outputs,
        depth=options.depth,
        num_heads=options.heads,
        head_dim=options.state_dim // options.heads,
        wiring=wiring,
        kernel=KernelOptions(truncation=0.9),
        **kwargs,
    )
    return net.to(options.device)


def tokens_of(options: argparse.Namespace, batch: int) -> Tensor:
    """Random tokens."""
    torch.manual_seed(1)
    shape = (batch, options.tokens, options.token_dim)
    return torch.randn(shape).to(options.device)


def time_modules(options: argparse.Namespace, batch: int) -> None:
    """Print the times of a circuit and of its smaller copies."""
    inputs = tokens_of(options, batch)
    few = max(1, options.outputs // 8)
    for wiring, outputs in (
        ("from_input", options.outputs), ("from_input", few), ("persistent", options.outputs)
    ):  # fmt: skip
        net = make_net(options, wiring).eval()
        whole = copy.deepcopy(net).fold()
        ways: Ways = {"whole": lambda n=whole: evaluation(n, inputs, options)}
        for parts in options.parts:
            kept = range(0, options.modules, parts)
            small = net.prune(list(kept), list(range(outputs))).fold()
            ways[str(len(kept))] = lambda n=small: evaluation(n, inputs, options)
        times = {name: row[0] / batch for name, row in medians(ways, options).items()}
        for name, milliseconds in times.items():
            count = options.modules if name == "whole" else int(name)
            print(
                f"{wiring:>10} {outputs if name != 'whole' else options.outputs:>7} {count:>7} "
                f"{batch:>5} {milliseconds:>9.2f} {times['whole'] / milliseconds:>7.2f}",
                flush=True,
            )


def time_read_in(options: argparse.Namespace, latents: int, heads: int) -> None:
    """Print the times of the plain and the absorbed read-in."""
    torch.manual_seed(0)
    dim = options.state_dim
    ours = ReadIn(options.token_dim, dim, dim, heads, dim // options.heads, nn.Identity())  # type: ignore[arg-type]
    ours.to(options.device)
    plain = plain_copy(ours)
    states, codes = (torch.randn(latents, dim, device=options.device) for _ in range(2))
    codes.requires_grad_()
    tokens = tokens_of(options, options.batch).requires_grad_()
    modules = Modules(states.expand(options.batch, -1, -1), codes)
    ways: Ways = {
        "plain": lambda: step(lambda: plain.read(modules, tokens), plain, options),
        "ours": lambda: step(lambda: ours.read(modules, tokens), ours, options),
    }
    times = medians(ways, options)
    for i, what in enumerate(("forward", "backward")):
        print(
            f"{latents:>7} {heads:>5} {what:>9} {times['plain'][i]:>10.1f} "
            f"{times['ours'][i]:>9.1f} {times['plain'][i] / times['ours'][i]:>7.1f}",
            flush=True,
        )


def time_nets(
    nets: dict[str, NeuralAttentiveCircuit], wiring: str, options: argparse.Namespace
) -> None:
    """Print the times of two whole networks, the second's in relation to the first's."""
    inputs = tokens_of(options, options.batch)
    (first, second), rows = nets, {}
    ways: Ways = {
        name: lambda n=net: evaluation(n.eval(), inputs, options) for name, net in nets.items()
    }
    rows["evaluation"] = {name: row[0] for name, row in medians(ways, options).items()}
    ways = {
        name: lambda n=net: step(lambda: n.train()(inputs).logits, n, options)
        for name, net in nets.items()
    }
    both = medians(ways, options)
    for i, what in enumerate(("forward", "backward")):
        rows[what] = {name: row[i] for name, row in both.items()}
    for what, times in rows.items():
        print(
            f"{wiring:>10} {what:>10} {times[first]:>9.1f} {times[second]:>9.1f} "
            f"{times[first] / times[second]:>6.2f}",
            flush=True,
        )


def head(first: str, second: str) -> str:
    """Column heads of :func:`time_nets`."""
    return f"    wiring       what {first + ' ms':>9} {second + ' ms':>9}  ratio"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--token-dim", type=int, default=448)
    parser.add_argument("--state-dim", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--modules", type=int, default=256)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--outputs", type=int, default=64)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{options.depth} propagators, {options.modules} modules, {options.outputs} outputs, "
        f"D {options.state_dim}, {options.tokens} tokens of {options.token_dim}; {where}, torch "
        f"{torch.__version__}, {options.threads} threads, {options.repeats} rounds"
    )
    print("\nmodules kept, evaluation\n    wiring outputs modules batch  ms/image speed-up")
    for batch in dict.fromkeys((1, options.batch)):
        time_modules(options, batch)
    for preset in ("tiny", "femto"):
        tokenizer = ConvNeXtTokenizer(options.state_dim, preset, image_size=options.image_size)
        images = tokenizer.example(options.batch).to(options.device)
        tokenizer.to(options.device).eval()
        way = {preset: lambda t=tokenizer, x=images: evaluation(t, x, options)}
        print(f"ConvNeXt tokenizer {preset}: {medians(way, options)[preset][0] / options.batch:.2f}"
              f" ms/image at batch {options.batch}")  # fmt: skip
    print(f"\nread-in, batch {options.batch}\nmodules heads      what   plain ms   ours ms   ratio")
    for latents in dict.fromkeys((options.inputs, options.modules)):
        for heads in dict.fromkeys((1, options.heads)):
            time_read_in(options, latents, heads)
    print(f"\nwhole network, batch {options.batch}\n" + head("plain", "ours"))
    for wiring in ("from_input", "persistent"):
        nets = {name: make_net(options, wiring, attention=name) for name in ("math", "sdpa")}
        nets["math"].read_in = plain_copy(nets["math"].read_in)
        time_nets({"plain": nets["math"], "ours": nets["sdpa"]}, wiring, options)
    print(f"\nattention, batch {options.batch}\n" + head("math", "sdpa"))
    for wiring in ("from_input", "persistent"):
        nets = {name: make_net(options, wiring, attention=name) for name in ("math", "sdpa")}
        time_nets(nets, wiring, options)


if __name__ == "__main__":
    main()
