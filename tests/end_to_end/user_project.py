"""What a user may have in the working folder: a subclass, an own method, own data, a callback."""

from __future__ import annotations

import os
import signal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_ssl import MSN


class LossWriter(pl.Callback):
    """Appends each step's loss, exactly, to a file; kills the process before a step.

    Args:
        file: The file.
        kill_at: Optimiser step before which the process dies without any warning.
    """

    def __init__(self, file: str, kill_at: int | None = None):
        self.file = file
        self.kill_at = kill_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(self.file, "a") as file:
            file.write(f"{trainer.global_step} {outputs['loss'].item().hex()}\n")


class CascadeLossWriter(LossWriter):
    """The same for a level of a cascade, whose steps have two losses."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        losses = [outputs[name].item().hex() for name in ("loss_d", "loss_g")]
        with open(self.file, "a") as file:
            file.write(f"{trainer.global_step} {','.join(losses)}\n")


class ScaledMSN(MSN):
    """MSN whose features are scaled.

    Args:
        feature_scale: Factor of the features.
        **kwargs: Arguments of MSN.
    """

    def __init__(self, feature_scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters("feature_scale")
        self.feature_scale = feature_scale

    def forward(self, images):
        return self.feature_scale * super().forward(images)

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


class AutoEncoder(pl.LightningModule):
    """A method that knows nothing of lit_ssl but its contract: `forward` and `embed_dim`."""

    def __init__(self, embed_dim: int = 12):
        super().__init__()
        self.save_hyperparameters()
        self.embed_dim = embed_dim
        self.encoder_layer = torch.nn.Linear(64, embed_dim)
        self.decoder_layer = torch.nn.Linear(embed_dim, 64)

    def forward(self, images):
        return self.encoder_layer(images.flatten(1))

    def training_step(self, batch, batch_idx):
        images, _ = batch
        return torch.nn.functional.mse_loss(self.decoder_layer(self(images)), images.flatten(1))

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Patterns(pl.LightningDataModule):
    """Noisy pictures of three patterns: the contract's loaders, nothing of lit_ssl."""

    num_classes = 3

    def __init__(self, noise: float = 0.3):
        super().__init__()
        self.noise = noise

    def pictures(self, count, seed):
        patterns = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(count) % 3
        generator = torch.Generator().manual_seed(seed)
        noise = self.noise * torch.randn(count, 1, 8, 8, generator=generator)
        return TensorDataset(patterns[labels] + noise, labels)

    def train_dataloader(self):
        return DataLoader(self.pictures(60, 1), batch_size=10, shuffle=True)

    def bank_dataloader(self):
        return DataLoader(self.pictures(60, 1), batch_size=25)

    def val_dataloader(self):
        return DataLoader(self.pictures(30, 2), batch_size=25)

    def test_dataloader(self):
        return DataLoader(self.pictures(30, 3), batch_size=25)


class WithoutBank(Patterns):
    """Breaks the contract."""

    bank_dataloader = None
