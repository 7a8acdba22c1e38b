"""Graph breaks, graphs and recompilations of each method in five training steps, by torch's count.

Nothing here is about time, and no kernels are made: the backend ``eager`` records graphs and runs
them as they are. ``module`` is ``torch.compile`` on the whole LightningModule, which Lightning
takes, too; ``blocks`` and ``network`` are those of ``Execution(compile=...)``. Graphs that appear
after the first two steps are recompilations: shapes of a first step are static, those that differ
in the second become symbols. Batches differ in size from step to step with ``--ragged``.

    python benchmarks/compile.py
    python benchmarks/compile.py --methods MSN PAWS --modes module blocks --breaks
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader

from lit_ssl.callbacks import Execution, StepSeeder
from lit_ssl.models import (
    CoAttentionBackbone,
    NeuralAttentiveCircuit,
    PatchTokenizer,
    PerceiverIO,
    ViltBackbone,
)
from lit_ssl.text import UniformMasker

STEPS = 5
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 2}
SHORT = {"lr": 1e-3, "warmup_epochs": 0}
Made = tuple[pl.LightningModule, Callable[[int], Any]]


def views(size: int) -> list[torch.Tensor]:
    """Two large views and two small ones."""
    return [torch.randn(size, 2, 3, 16, 16), torch.randn(size, 2, 3, 8, 8)]


def images(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A labelled batch of three classes."""
    return torch.randn(size, 3, 16, 16), torch.arange(size) % 3


def two_streams(size: int) -> dict[str, Any]:
    """Unlabelled views and supports."""
    supports = torch.randn(6, 2, 3, 16, 16), torch.arange(6) % 3
    large, small = views(size)
    return {"unlabelled": [large, small.repeat(1, 3, 1, 1, 1)], "support": supports}


def captions(size: int, length: int = 9) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pairs of image and text."""
    ids = torch.randint(5, 73, (size, length))
    inputs = {"images": torch.randn(size, 3, 32, 32), "input_ids": ids}
    inputs |= {"attention_mask": torch.ones_like(ids), "word_ids": torch.arange(length) - 1}
    inputs["word_ids"] = inputs["word_ids"].expand(size, -1)
    return inputs, torch.arange(size)


def vilt() -> ViltBackbone:
    """A small single-stream backbone."""
    return ViltBackbone(
        {
            "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 24, "image_size": 32,
            "patch_size": 16,
        },
        num_modalities=3,
    )  # fmt: skip


def meter() -> CoAttentionBackbone:
    """A small two-stream backbone."""
    return CoAttentionBackbone(
        "vit_tiny_patch16_224",
        {
            "model_type": "bert", "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 3,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 24,
        },
        {"img_size": 32, "embed_dim": 12, "depth": 3, "num_heads": 2},
        hidden_size=16,
        num_layers=2,
        num_heads=2,
    )  # fmt: skip


def circuit(kind: type = NeuralAttentiveCircuit, **options: Any) -> Any:
    """A small circuit."""
    small = {"state_dim": 16, "num_modules": 6, "num_heads": 2, "head_dim": 8, "depth": 3}
    if kind is NeuralAttentiveCircuit:
        small |= {"num_output_modules": 3, "signature_dim": 8}
    return kind(PatchTokenizer(16, 4, 3, 8, 4), **small, **options)


def _msn(method: str, **options: Any) -> Made:
    import lit_ssl

    small = {"num_prototypes": 10, "proj_hidden_dim": 16, "proj_output_dim": 8}
    kind = getattr(lit_ssl, method)
    kwargs = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": VIT, **small, **SHORT}
    return kind(**kwargs, **options), views


def _paws(method: str) -> Made:
    import lit_ssl

    kwargs = {"backbone": "wide_resnet28_2", "num_classes": 3, "proj_output_dim": 16, **SHORT}
    return getattr(lit_ssl, method)(**kwargs), two_streams


def _classifier(method: str, backbone: str = "resnet18", **options: Any) -> Made:
    import lit_ssl

    kwargs = {"backbone": backbone, "num_classes": 3, **SHORT, **options}
    return getattr(lit_ssl, method)(**kwargs), images


def _linear() -> Made:
    from lit_ssl import LinearEvaluation

    kwargs = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": VIT, "num_classes": 3}
    return LinearEvaluation(features=["token-2"], learning_rates=[0.1], **kwargs), images


def _nac(kind: type = NeuralAttentiveCircuit, **options: Any) -> Made:
    from lit_ssl import NAC

    return NAC(circuit(kind), num_classes=3, **SHORT, **options), images


def _pretraining(backbone: Callable[[], Any]) -> Made:
    from lit_ssl import VLPretraining

    module = VLPretraining(backbone(), UniformMasker(), lr=1e-3, mask_id=4)
    return module, captions


def _entailment() -> Made:
    from lit_ssl import VisualEntailmentClassifier

    return VisualEntailmentClassifier(vilt(), lr=1e-3), lambda size: (
        {k: v for k, v in captions(size)[0].items() if k != "word_ids"},
        torch.arange(size) % 3,
    )


def _cascade() -> Made:
    from lit_ssl import CascadedVideoGAN

    module = CascadedVideoGAN(
        num_frames=6, resolution=8, channels=4, num_classes=2, z_dim=5, embed_dim=4, d_steps=1,
        ema_start=2,
    )  # fmt: skip
    return module, lambda size: (torch.rand(size, 6, 3, 8, 8) * 2 - 1, torch.arange(size) % 2)


METHODS: dict[str, Callable[[], Made]] = {
    "MSN": lambda: _msn("MSN"),
    "PMSN": lambda: _msn("PMSN"),
    "PAWS": lambda: _paws("PAWS"),
    "RoPAWS": lambda: _paws("RoPAWS"),
    "SuNCEt": lambda: _paws("SuNCEt"),
    "ImageClassifier": lambda: _classifier("ImageClassifier"),
    "FineTuning": lambda: _classifier(
        "FineTuning", "vit_tiny_patch16_224", backbone_kwargs=VIT, mixup=0.8, cutmix=1.0
    ),
    "LinearEvaluation": _linear,
    "NAC": _nac,
    "PerceiverIO": lambda: _nac(PerceiverIO),
    "VLPretraining ViLT": lambda: _pretraining(vilt),
    "VLPretraining METER": lambda: _pretraining(meter),
    "VisualEntailment": _entailment,
    "CascadedVideoGAN": _cascade,
}


class Counted(pl.Callback):
    """Graphs so far, after each step."""

    def __init__(self) -> None:
        self.graphs: list[int] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.graphs.append(counters["stats"]["unique_graphs"])


class Recorded(Execution):
    """Execution without kernels."""

    backend = "eager"


def count(make: Callable[[], Made], mode: str, ragged: bool = False) -> tuple[list[int], dict]:
    """Graphs after each step, and graph breaks by their reason."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    module, batch = make()
    sizes = [6 - step % 2 * ragged for step in range(STEPS)]
    loader: Any = DataLoader([batch(size) for size in sizes], batch_size=None)
    counted = Counted()
    execution = Recorded() if mode == "module" else Recorded(compile=mode)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[StepSeeder(0), execution, counted],
    )  # fmt: skip
    fitted: Any = torch.compile(module, backend="eager") if mode == "module" else module
    trainer.fit(fitted, loader)
    return counted.graphs, dict(counters["graph_break"])


def main() -> None:
    """Parse the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--modes", nargs="+", default=["blocks", "network"])
    parser.add_argument("--ragged", action="store_true", help="batches of other sizes in turn")
    parser.add_argument("--breaks", action="store_true", help="print the reasons of graph breaks")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    print(f"torch {torch.__version__}, {STEPS} steps, backend eager")
    print(f"{'method':<20} {'mode':<8} {'breaks':>6} {'graphs after each step':>26} {'later':>6}")
    for name in options.methods:
        for mode in options.modes:
            graphs, breaks = count(METHODS[name], mode, options.ragged)
            each = " ".join(map(str, graphs))
            later = graphs[-1] - graphs[1]
            print(
                f"{name:<20} {mode:<8} {sum(breaks.values()):>6} {each:>26} {later:>6}", flush=True
            )
            for reason, times in breaks.items() if options.breaks else ():
                print(f"    {times} × {' '.join(reason.split())[:300]}")


if __name__ == "__main__":
    main()
