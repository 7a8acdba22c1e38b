"""How often the host waits for the device in a training step of each method, counted on a CPU.

    python benchmarks/host_syncs.py [METHOD …] [--where]

Each method trains a tiny network for a few steps on the device of ``counting_device.py``, with the
callbacks that ``lit-ssl`` adds and those of its recipes that act within steps. *usual*: waits in a
step that nothing is logged in; *logged*: in one that the loggers write; *first*: in the first of an
epoch, where labels are looked at. On a GPU each wait lets the device run dry, since nothing is
queued until the host has its answer.
"""

from __future__ import annotations

import argparse
import collections
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from counting_device import CountingDevice, StepCounter, Sync, strategy
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from lit_ssl import MSN, PAWS, PMSN, CascadedVideoGAN, ImageClassifier, RoPAWS, SuNCEt
from lit_ssl.callbacks import (
    CollapseMonitor,
    ExactResume,
    FiniteGuard,
    LastValidation,
    LinearProbeEvaluator,
    SpeedMonitor,
    StepSeeder,
)
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.methods import (
    BARACK,
    JTT,
    NAC,
    FineTuning,
    GroupRobustClassifier,
    ImageTextRetrieval,
    LinearEvaluation,
    NLVR2Classifier,
    SupervisedVideo,
    VisualEntailmentClassifier,
    VLPretraining,
    VQAClassifier,
)
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, PerceiverIO, SmallCNN
from lit_ssl.models import ViltBackbone as Vilt
from lit_ssl.text import UniformMasker

EVERY = 3  # steps between two that are logged
STEPS = 5  # of an epoch
_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
_BY_NAME: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": _VIT}
_MASKED: dict[str, Any] = {
    **_BY_NAME, "num_prototypes": 8, "proj_hidden_dim": 8, "proj_output_dim": 4,
}  # fmt: skip
_RESNET = {"stem_width": 4, "channels": [4, 8, 8, 16]}
_CROPS: dict[str, Any] = {
    "backbone": "resnet10t", "backbone_kwargs": _RESNET, "num_classes": 3, "proj_output_dim": 8,
}  # fmt: skip
_GROUPS: dict[str, Any] = {"num_classes": 2, "num_attributes": 2, "lr": 0.02}
_LABELS = torch.arange(6) % 3


class Case(NamedTuple):
    """A method, its data, and what else acts in its steps.

    Attributes:
        module: makes it.
        data: makes batches of ``STEPS`` steps, or a data module.
        probed: whether a linear probe and a monitor of collapse train beside it.
        options: of the Trainer.
        epochs: of which the last is counted.
    """

    module: Callable[[], pl.LightningModule]
    data: Callable[[], Any]
    probed: bool = False
    options: Mapping[str, Any] = MappingProxyType({})
    epochs: int = 1


def _batches(batch: Callable[[], Any]) -> DataLoader:
    return DataLoader([batch() for _ in range(STEPS)], batch_size=None)


def _labelled() -> DataLoader:
    return _batches(lambda: (torch.randn(6, 3, 16, 16), _LABELS))


def _views() -> tuple[list[Tensor], Tensor]:
    return [torch.randn(6, 2, 3, 16, 16)], _LABELS


def _multi_view() -> DataLoader:
    return _batches(_views)


def _two_streams() -> DataLoader:
    support = (torch.randn(6, 3, 16, 16), _LABELS)
    return _batches(lambda: {"unlabelled": _views(), "support": support})


def _groups(known: float = 1.0) -> ColouredMNISTDataModule:
    return ColouredMNISTDataModule(batch_size=16, seed=0, group_label_fraction=known)


def _circuit(kind: Any = NeuralAttentiveCircuit, **kwargs: Any) -> Any:
    return kind(PatchTokenizer(16, 8, 3, 8, 4), state_dim=16, num_modules=6, depth=2, num_heads=2,
                head_dim=8, **kwargs)  # fmt: skip


def _nac(net: Any, **kwargs: Any) -> NAC:
    return NAC(net, num_classes=3, warmup_epochs=0, **kwargs)


def _wired() -> Any:
    return _circuit(num_output_modules=3, signature_dim=8, layer_scale=None)


def _vilt(num_modalities: int = 2) -> Vilt:
    config = {
        "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "image_size": 32, "patch_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    return Vilt(config, num_modalities=num_modalities)


def _texts(rows: int = 6, sides: tuple[int, ...] = ()) -> dict[str, Tensor]:
    mask = (torch.arange(9) < torch.randint(4, 10, (rows, 1))).long()
    words = torch.where((torch.arange(9) > 0) & (mask > 0), torch.arange(9), -1)
    return {
        "images": torch.randn(rows, *sides, 3, 32, 32),
        "input_ids": torch.randint(5, 73, (rows, 9)),
        "attention_mask": mask,
        "word_ids": words,
    }


def _captions() -> DataLoader:
    return _batches(lambda: (_texts(), torch.tensor([0, 0, 1, 2, 3, 4])))


def _captions_and_images() -> DataLoader:
    return _batches(
        lambda: ({**_texts(), "other_images": torch.randn(6, 3, 32, 32)}, torch.arange(6))
    )


def _with_negatives() -> DataLoader:
    def batch() -> tuple[dict[str, Tensor], Tensor]:
        negatives = torch.randint(5, 73, (6, 2, 9))
        extra = {"negative_input_ids": negatives, "negative_attention_mask": negatives * 0 + 1}
        return {**_texts(), **extra}, torch.arange(6)

    return _batches(batch)


def _pretraining(**kwargs: Any) -> VLPretraining:
    return VLPretraining(_vilt(), UniformMasker(0.6), mask_id=4, **kwargs)


def _clips(size: int, frames: int) -> DataLoader:
    return _batches(lambda: (torch.rand(4, frames, 3, size, size) * 2 - 1, torch.arange(4) % 2))


def _cascade() -> CascadedVideoGAN:
    return CascadedVideoGAN(
        num_classes=2, z_dim=5, embed_dim=4, ema_start=2, standing_stats_batches=2, num_frames=6,
        resolution=8, channels=4,
    )  # fmt: skip


CASES: dict[str, Case] = {
    "MSN": Case(lambda: MSN(**_MASKED), _multi_view, probed=True),
    "MSN with a queue": Case(lambda: MSN(**_MASKED, queue_size=9), _multi_view, probed=True),
    "MSN, logging off": Case(
        lambda: MSN(**_MASKED), _multi_view, probed=True, options={"log_every_n_steps": 0}
    ),
    "PMSN": Case(lambda: PMSN(**_MASKED), _multi_view, probed=True),
    "PAWS": Case(lambda: PAWS(**_CROPS), _two_streams, probed=True),
    "RoPAWS": Case(lambda: RoPAWS(**_CROPS), _two_streams, probed=True),
    "SuNCEt": Case(lambda: SuNCEt(**_CROPS), _two_streams, probed=True),
    "SuNCEt, labels alone": Case(lambda: SuNCEt(**_CROPS, contrastive_weight=0), _two_streams),
    "ImageClassifier": Case(lambda: ImageClassifier(**_BY_NAME, num_classes=3), _labelled),
    "ImageClassifier, clipped": Case(
        lambda: ImageClassifier(**_BY_NAME, num_classes=3), _labelled,
        options={"gradient_clip_val": 1.0, "accumulate_grad_batches": 1},
    ),
    "FineTuning": Case(
        lambda: FineTuning(
            **_BY_NAME, num_classes=3, mixup=0.8, cutmix=1.0, random_erasing=0.25
        ),
        _labelled,
    ),
    "LinearEvaluation": Case(
        lambda: LinearEvaluation(**_BY_NAME, num_classes=3, learning_rates=[0.1, 0.2]), _labelled
    ),
    "GroupRobustClassifier, ERM": Case(
        lambda: GroupRobustClassifier(SmallCNN(2), objective="erm", **_GROUPS), _groups
    ),
    "GroupRobustClassifier, group DRO": Case(
        lambda: GroupRobustClassifier(SmallCNN(2), **_GROUPS), _groups
    ),
    "JTT, first network": Case(
        lambda: JTT(backbone=SmallCNN(2), first_epochs=1, **_GROUPS), _groups,
        options={"max_epochs": 2},
    ),
    "JTT": Case(
        lambda: JTT(backbone=SmallCNN(2), first_epochs=1, **_GROUPS), _groups, epochs=2
    ),
    "BARACK, predictor": Case(
        lambda: BARACK(backbone=SmallCNN(2), predictor_epochs=1, **_GROUPS),
        lambda: _groups(0.1), options={"max_epochs": 2},
    ),
    "BARACK": Case(
        lambda: BARACK(backbone=SmallCNN(2), predictor_epochs=1, **_GROUPS), lambda: _groups(0.1),
        epochs=2,
    ),
    "NAC": Case(lambda: _nac(_wired()), _labelled),
    "NAC, nested dropout": Case(lambda: _nac(_wired(), module_dropout="nested"), _labelled),
    "NAC, distilled, mixture": Case(
        lambda: _nac(_wired(), module_dropout="distilled", mixture_weight=0.1, mixup=0.8),
        _labelled,
    ),
    "PerceiverIO": Case(lambda: _nac(_circuit(PerceiverIO)), _labelled),
    "VLPretraining": Case(_pretraining, _captions),
    "VLPretraining, other images": Case(_pretraining, _captions_and_images),
    "VQAClassifier": Case(
        lambda: VQAClassifier(_vilt(), num_classes=5),
        lambda: _batches(lambda: (_texts(), torch.rand(6, 5))),
    ),
    "VisualEntailmentClassifier": Case(
        lambda: VisualEntailmentClassifier(_vilt()), lambda: _batches(lambda: (_texts(), _LABELS)),
    ),
    "NLVR2Classifier": Case(
        lambda: NLVR2Classifier(_vilt(3)),
        lambda: _batches(lambda: (_texts(sides=(2,)), _LABELS % 2)),
    ),
    "ImageTextRetrieval": Case(lambda: ImageTextRetrieval(_vilt()), _with_negatives),
    "CascadedVideoGAN": Case(_cascade, lambda: _clips(8, 6)),
    "SupervisedVideo": Case(
        lambda: SupervisedVideo("resnet10t", _RESNET, num_classes=2), lambda: _clips(16, 3)
    ),
}  # fmt: skip


class Count(NamedTuple):
    """Waits of one method.

    Attributes:
        first: in the first step.
        usual: the most in a step that is neither first nor logged.
        logged: in a logged step.
        places: the waits of all usual steps.
        steps: number of usual steps.
    """

    first: int
    usual: int
    logged: int
    places: list[Sync]
    steps: int


def count(case: Case) -> Count:
    """Train on the counting device; returns what was counted."""
    device = CountingDevice()
    torch.manual_seed(0)
    module, data = case.module(), case.data()
    callbacks: list[pl.Callback] = [
        StepCounter(device), FiniteGuard(), ExactResume(), LastValidation(), StepSeeder(),
        SpeedMonitor(skip=0),
    ]  # fmt: skip
    if case.probed:
        callbacks += [CollapseMonitor(), LinearProbeEvaluator(num_classes=3)]
    with tempfile.TemporaryDirectory() as folder, device.counting():
        options: dict[str, Any] = {"max_epochs": case.epochs, "log_every_n_steps": EVERY}
        trainer = pl.Trainer(
            **{**options, **case.options}, strategy=strategy(), default_root_dir=folder,
            logger=CSVLogger(folder), callbacks=callbacks, limit_train_batches=STEPS,
            limit_val_batches=0, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(module, data)
    start = STEPS * (case.epochs - 1)
    by_step = collections.Counter(sync.step for sync in device.syncs)
    steps = range(start, start + STEPS)
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    logged = [s for s in steps if every and (s + 1) % every == 0]
    usual = [s for s in steps if s not in logged and s != start]
    return Count(
        by_step[start],
        max(by_step[s] for s in usual),
        max((by_step[s] for s in logged), default=0),
        [sync for sync in device.syncs if sync.step in usual],
        len(usual),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="beginnings of names; all by default")
    parser.add_argument("--where", action="store_true", help="say where the host waits")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print("| method | first | usual | logged |\n|---|--:|--:|--:|")
    for name, case in CASES.items():
        if args.methods and not name.startswith(tuple(args.methods)):
            continue
        found = count(case)
        print(f"| {name} | {found.first} | {found.usual} | {found.logged} |", flush=True)
        if args.where:
            places = collections.Counter((s.what, s.where) for s in found.places)
            for (what, where), times in places.items():
                print(f"    {times / found.steps:g} × {what}: {where}")


if __name__ == "__main__":
    main()
