"""A step of vision-language pretraining against the plain two passes, on one network, in one run.

Plain: a pass with masked text and a pass with other images, as ViLT's and METER's code has them,
and the vocabulary applied to all positions; images are embedded in each pass. Ours: one pass of 2 B
rows, images embedded once, the vocabulary applied to masked positions only. Beside them the plain
step with each of the two alone. Masks and pairs are the same; all do forward, backward and AdamW.

    python benchmarks/vl_step.py                  # CPU
    python benchmarks/vl_step.py --device cuda --sizes base --batch 64 --precision bf16

Times are medians of interleaved repeats; the ratio is plain / ours (above 1: ours is faster).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_ssl.losses import Matching, draw_in_batch, gather_masked, matching_loss
from lit_ssl.methods import VLPretraining
from lit_ssl.methods.vl.pretraining import MaskedWords
from lit_ssl.models import ViltBackbone
from lit_ssl.text import UniformMasker, corrupt

# vocabulary, features, layers, heads, MLP, image, patch, text
SIZES = {
    "digits": (73, 64, 3, 4, 128, 32, 16, 24, 16),
    "small": (30522, 192, 6, 3, 768, 224, 32, 40, 16),
    "base": (30522, 768, 12, 12, 3072, 224, 32, 40, 4),
}
Inputs = dict[str, Tensor]


def network(size: str) -> VLPretraining:
    """A network of random weights, without dropout."""
    vocabulary, hidden, layers, heads, inner, image, patch, text, _ = SIZES[size]
    backbone = ViltBackbone(
        {
            "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": inner, "image_size": image,
            "patch_size": patch, "max_position_embeddings": text,
        }
    )  # fmt: skip
    return VLPretraining(backbone, UniformMasker(), wpa_weight=0.0)


def drawn(size: str, batch: int, rate: float, device: str) -> tuple[Inputs, MaskedWords, Matching]:
    """Random pairs, texts of 5 tokens to the longest; a mask, and which pairs are exchanged."""
    vocabulary, *_, image, _, length, _ = SIZES[size]
    lengths = torch.randint(5, length + 1, (batch, 1))
    lengths[0] = length
    mask = torch.arange(length) < lengths
    ids = torch.randint(5, vocabulary, (batch, length)) * mask
    inputs = {"images": torch.randn(batch, 3, image, image), "input_ids": ids}
    inputs |= {"attention_mask": mask.long()}
    inputs = {name: value.to(device) for name, value in inputs.items()}
    chosen = (torch.rand(batch, length) < rate) & mask
    chosen[0, 1] = True
    masked = corrupt(inputs["input_ids"], chosen.to(device), 4, vocabulary)
    return inputs, MaskedWords(*masked), draw_in_batch(torch.arange(batch, device=device))


class Step:
    """One way to make a step.

    Args:
        module: the network, copied.
        fused: one pass, images embedded once.
        gathered: the vocabulary meets masked positions only.
    """

    def __init__(self, module: VLPretraining, fused: bool, gathered: bool) -> None:
        self.module, self.fused, self.gathered = copy.deepcopy(module), fused, gathered
        parameters = self.module.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.98))

    def __call__(self, inputs: Inputs, words: MaskedWords, matching: Matching) -> Tensor:
        """Returns the loss."""
        if self.fused and self.gathered:
            loss = self.module.compute_loss(inputs, words, matching)[0]
        else:
            loss = self.plain(inputs, words, matching)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def plain(self, inputs: Inputs, words: MaskedWords, matching: Matching) -> Tensor:
        """Losses with one of the two savings, or none."""
        module, backbone = self.module, self.module.backbone
        text = {"attention_mask": inputs["attention_mask"]}
        masked, clean = {**text, "input_ids": words.ids}, {**text, "input_ids": inputs["input_ids"]}
        if self.fused:
            embeds, mask = backbone.embed_images(inputs["images"])
            both: Any = {name: torch.cat([masked[name], clean[name]]) for name in masked}
            rows = torch.cat([torch.arange(len(mask), device=mask.device), matching.sources])
            out = backbone({**both, "image_embeds": embeds[rows], "image_mask": mask[rows]})
            states, pooled = out.text[: len(mask)], out.pooled[len(mask) :]
        else:
            states = backbone({**masked, "images": inputs["images"]}).text
            other = inputs["images"][matching.sources]
            pooled = backbone({**clean, "images": other}).pooled
        labels = words.labels
        if self.gathered:
            states, labels = gather_masked(states, labels)
        loss = module.mlm_loss(module.mlm_head(states), labels)
        return loss + matching_loss(module.itm_head(pooled), matching.labels)


def timed(step: Callable[..., Tensor], batch: tuple, device: str, autocast: bool) -> float:
    """Seconds of one step."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        step(*batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def run(size: str, rate: float, options: argparse.Namespace) -> None:
    """Time all ways at one size and masking rate, and print a row."""
    torch.manual_seed(0)
    module = network(size).to(options.device)
    batch = drawn(size, options.batch or SIZES[size][-1], rate, options.device)
    ways = {
        "plain": Step(module, False, False),
        "gathered": Step(module, False, True),
        "fused": Step(module, True, False),
        "ours": Step(module, True, True),
    }
    losses = [float(step(*batch)) for step in ways.values()]
    spread = max(losses) - min(losses)
    assert spread < 1e-3 * max(losses), f"the ways differ: {losses}"
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, step in ways.items():
            seconds[name].append(timed(step, batch, options.device, options.precision == "bf16"))
    plain, gathered, fused, ours = (1000 * statistics.median(seconds[name]) for name in ways)
    print(
        f"| {size}, batch {len(batch[0]['images'])} | {rate:.0%} | {plain:.1f} | "
        f"{plain / gathered:.2f} | {plain / fused:.2f} | {ours:.1f} | **{plain / ours:.2f}** |",
        flush=True,
    )


def main() -> None:
    """Time all sizes and rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["digits", "small"])
    parser.add_argument("--batch", type=int, help="pairs; default: 16, base 4")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.15, 0.60])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    print("| network | rate | plain, ms | gathered | fused | ours, ms | both |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for size in options.sizes:
        for rate in options.rates:
            run(size, rate, options)


if __name__ == "__main__":
    main()
