"""Run all callbacks on N CPU processes and write what they logged: run_devices.py OUT.json N."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import timm
import torch
from torch.utils.data import DataLoader, DistributedSampler

sys.path.insert(0, str(Path(__file__).parent))
import toys

from lit_ssl.callbacks import (
    AttentionMaps,
    CollapseMonitor,
    EmbeddingMap,
    KNNEvaluator,
    LinearProbeEvaluator,
    LowShotEvaluator,
    NeighbourGrid,
    PrototypeGallery,
    RepresentationReport,
    SoftNNEvaluator,
    SpeedMonitor,
    StepSeeder,
    SupportAssignments,
    ViewLogger,
    extract_features,
)
from lit_ssl.callbacks.evaluators.batch_norm import recalibrated_batch_norm


class Frozen(pl.LightningModule):
    """Features that do not depend on how the batch is divided."""

    embed_dim = 16
    patch_size = 2

    def __init__(self):
        super().__init__()
        weight = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
        self.weight = torch.nn.Parameter(weight)
        self.register_buffer("prototypes", weight[:5].clone())
        torch.manual_seed(0)
        self.encoder = timm.create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, embed_dim=12, depth=2,
            num_heads=3, num_classes=0,
        ).requires_grad_(False)  # fmt: skip

    def project(self, images):
        return self(images)

    def looking(self, images):
        return self.encoder(images)

    def forward(self, images):
        return images.flatten(1) @ self.weight

    def training_step(self, batch, batch_idx):
        images = batch[0]
        features = self(images).detach()
        return {
            "loss": 0 * self.weight.sum(),
            "features": features,
            "targets": features.softmax(dim=1),
            "kept_patches": torch.rand(len(images), 16).argsort(dim=1)[:, :10],
        }

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Ordered(toys.ToyData):
    """Both runs see the same samples in each step (Lightning's own sampler would shuffle)."""

    def labels(self, split):
        return self.bank.labels.numpy()

    def bank_dataloader(self, positions=None):
        if positions is None:
            return super().bank_dataloader()
        world, rank = self.trainer.world_size, self.trainer.global_rank
        return DataLoader(self.bank, batch_size=6, sampler=positions[rank::world].tolist())

    def train_dataloader(self):
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(self.bank, world, rank, shuffle=False)
        return DataLoader(self.bank, batch_size=self.batch_size, sampler=sampler)


class Inspect(pl.Callback):
    """What each process sees, gathered."""

    def __init__(self):
        self.draws, self.order, self.heads, self.statistics = [], {}, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.draws.append(trainer.strategy.all_gather(torch.rand(1)).flatten().tolist())

    def on_validation_epoch_end(self, trainer, pl_module):
        for split in ("bank", "val"):
            found = extract_features(trainer, pl_module, split)
            self.order[split] = [
                found.labels.tolist(),
                found.features.double().sum(1).tolist(),
            ]

        norm = torch.nn.BatchNorm2d(1)
        with recalibrated_batch_norm(trainer, norm, [norm]):
            both = torch.cat([norm.running_mean, norm.running_var])
            self.statistics = trainer.strategy.all_gather(both).reshape(-1, 2).tolist()

    def on_train_end(self, trainer, pl_module):
        probe = next(c for c in trainer.callbacks if isinstance(c, LinearProbeEvaluator))
        self.heads = trainer.strategy.all_gather(probe.head.linear.weight.detach()).reshape(-1, 64)


def main(out, devices):
    torch.set_num_threads(1)
    folder = Path(out).parent
    data = Ordered(train=64, batch_size=16 // devices)
    data.bank.labels[::3] = -1  # processes see unequally many labels
    inspect = Inspect()
    trainer = toys.make_trainer(
        folder,
        devices=devices,
        strategy="ddp_fork" if devices > 1 else "auto",
        num_sanity_val_steps=1,
        callbacks=[
            StepSeeder(seed=3),
            inspect,
            KNNEvaluator(k=5),
            SoftNNEvaluator(),
            LowShotEvaluator(shots=(1, 2), draws=2),
            LinearProbeEvaluator(lr=0.1),
            CollapseMonitor(every_n_steps=2),
            ViewLogger(),
            SpeedMonitor(every_n_batches=2, skip=0),
            EmbeddingMap(max_rows=10),
            EmbeddingMap(split="bank", thumbnails=True),
            NeighbourGrid(num_images=3, k=3),
            AttentionMaps(num_images=3, feature_method="looking"),
            PrototypeGallery(),
            SupportAssignments(num_images=3, num_supports=3),
            RepresentationReport(shots=(1,), draws=2),
        ],
    )

    class Save(pl.Callback):
        # Forked processes do not share memory with the one that started them.
        def on_fit_end(self, trainer, pl_module):
            if trainer.is_global_zero:
                values = {k: v.item() for k, v in trainer.callback_metrics.items()}
                content = {
                    "metrics": values,
                    "draws": inspect.draws,
                    "order": inspect.order,
                    "statistics": inspect.statistics,
                    "heads": inspect.heads.tolist(),
                }
                Path(out).write_text(json.dumps(content))

    trainer.callbacks.append(Save())
    trainer.fit(Frozen(), data)
    trainer.test(Frozen(), data, verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
