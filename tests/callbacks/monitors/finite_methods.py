"""Tiny modules of every method with batches for them, and callbacks that spoil a training."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lit_ssl import MSN, PAWS, PMSN, ImageClassifier, RoPAWS, SuNCEt
from lit_ssl.datamodules import ColouredMNISTDataModule, DigitScenesDataModule
from lit_ssl.methods import (
    BARACK,
    NAC,
    FineTuning,
    GroupRobustClassifier,
    LinearEvaluation,
    VLPretraining,
)
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, SmallCNN, ViltBackbone
from lit_ssl.text import UniformMasker

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import Blobs, level1

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
NET = {"stem_width": 4, "channels": [4, 8, 8, 16]}
BY_NAME = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": VIT}
MASKED = {**BY_NAME, "num_prototypes": 8, "proj_hidden_dim": 8, "proj_output_dim": 4}
CROPS = {"backbone": "resnet10t", "backbone_kwargs": NET, "num_classes": 3, "proj_output_dim": 8}
GROUPS = {"num_classes": 2, "num_attributes": 2, "lr": 0.02}
LABELS = torch.arange(6) % 3
STEPS = 6


def labelled():
    return torch.randn(6, 3, 16, 16), LABELS


def views():
    return [torch.randn(6, 2, 3, 16, 16)], LABELS


def two_streams():
    return {"unlabelled": views(), "support": labelled()}


def loader(batch):
    return DataLoader([batch() for _ in range(STEPS)], batch_size=None)


def circuit():
    tokenizer = PatchTokenizer(16, 8, 3, 8, 4)
    return NeuralAttentiveCircuit(
        tokenizer, state_dim=16, num_modules=6, num_output_modules=3, depth=2, num_heads=2,
        head_dim=8, signature_dim=8, layer_scale=None,
    )  # fmt: skip


def vilt():
    return ViltBackbone(
        {
            "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "image_size": 32, "patch_size": 16,
            "max_position_embeddings": 24,
        }
    )  # fmt: skip


def digits(known=1.0):
    return ColouredMNISTDataModule(batch_size=16, seed=0, group_label_fraction=known)


def scenes():
    return DigitScenesDataModule(sizes=(8 * STEPS, 0, 4), batch_size=8)


# what each is built of, and its data
METHODS = {
    "MSN": (lambda: MSN(**MASKED), lambda: loader(views)),
    "PMSN": (lambda: PMSN(**MASKED), lambda: loader(views)),
    "PAWS": (lambda: PAWS(**CROPS), lambda: loader(two_streams)),
    "RoPAWS": (lambda: RoPAWS(**CROPS), lambda: loader(two_streams)),
    "SuNCEt": (lambda: SuNCEt(**CROPS), lambda: loader(two_streams)),
    "ImageClassifier": (
        lambda: ImageClassifier(**BY_NAME, num_classes=3), lambda: loader(labelled),
    ),
    "FineTuning": (lambda: FineTuning(**BY_NAME, num_classes=3), lambda: loader(labelled)),
    "LinearEvaluation": (
        lambda: LinearEvaluation(**BY_NAME, num_classes=3, learning_rates=[0.1]),
        lambda: loader(labelled),
    ),
    "GroupRobustClassifier": (lambda: GroupRobustClassifier(SmallCNN(2), **GROUPS), digits),
    "BARACK": (
        lambda: BARACK(backbone=SmallCNN(2), predictor_epochs=1, **GROUPS), lambda: digits(0.1),
    ),
    "NAC": (lambda: NAC(circuit(), num_classes=3, warmup_epochs=0), lambda: loader(labelled)),
    "CascadedVideoGAN": (level1, lambda: Blobs(1, count=4 * STEPS)),
    "VLPretraining": (lambda: VLPretraining(vilt(), UniformMasker(0.6)), scenes),
}  # fmt: skip


class Spoil(pl.Callback):
    """After step 3 a trained weight is NaN, or in it a gradient is infinite."""

    def __init__(self, how, step=3):
        self.how, self.step, self.is_done = how, step, False

    def on_train_batch_end(self, trainer, pl_module, *args):
        if self.how == "weight" and trainer.global_step == self.step and not self.is_done:
            self.is_done = True
            weight = trainer.optimizers[0].param_groups[0]["params"][0]
            with torch.no_grad():
                weight.view(-1)[0] = torch.nan

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if self.how == "gradient" and trainer.global_step == self.step - 1 and not self.is_done:
            for weight in (w for group in optimizer.param_groups for w in group["params"]):
                if weight.grad is not None:
                    self.is_done = True
                    weight.grad.view(-1)[0] = torch.inf
