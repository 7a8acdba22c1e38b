"""What a fit does, written down: the same of an uninterrupted and of a resumed one."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from torch import nn

from lit_ssl.callbacks import ExactResume, LastValidation, StepSeeder
from lit_ssl.datamodules import ImageDataModule
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.transforms import EvalTransform

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 3,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}


class TinyImages(ImageDataModule):
    """29 training and 7 test images of 3 x 4 x 4 pixels; an image's red channel is its row."""

    class_names = ("a", "b", "c")

    def __init__(self, train_size=29, **options):
        super().__init__(**{"num_workers": 0, "batch_size": 4, "seed": 3, **options})
        self.train_size = train_size

    def default_eval_transform(self):
        return EvalTransform(4)

    def load_rows(self, split):
        size = self.train_size if split == "train" else 7
        generator = torch.Generator().manual_seed(len(split))
        pixels = torch.randint(0, 256, (size, 3, 4, 4), dtype=torch.uint8, generator=generator)
        pixels[:, 0] = torch.arange(size).view(-1, 1, 1)
        return Rows(ArrayImages(pixels), {"label": np.arange(size) % 3})


class TracedModule(pl.LightningModule):
    """BatchNorm, dropout and three schedules, one of them after a metric of the validation."""

    def __init__(self, monitored=True, buffers=True):
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(3, momentum=0.3) if buffers else nn.GroupNorm(1, 3),
            nn.Flatten(), nn.Linear(48, 6), nn.Dropout(0.3),
            nn.Linear(6, 3),
        )  # fmt: skip
        self.monitored = monitored
        self.trace: list[tuple[Any, ...]] = []

    def loss(self, batch):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        ids = tuple((batch[0][:, 0, 0, 0] * 255).round().int().tolist())
        step = (self.global_step, self.current_epoch, batch_idx, ids, loss.item())
        self.trace.append(("batch", *step))
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.9)
        epoch = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        schedules: list[Any] = [{"scheduler": step, "interval": "step"}, {"scheduler": epoch}]
        if self.monitored:
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            entry = {"scheduler": plateau, "monitor": "val/loss", "interval": "epoch"}
            schedules.append({**entry, "strict": False})
        return [optimizer], schedules


class Tracer(pl.Callback):
    """Writes validations and ends of epochs into the module's trace; stands before what saves."""

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            value = trainer.callback_metrics["val/loss"].item()
            module.trace.append(("val", trainer.global_step, trainer.current_epoch, value))

    def on_train_epoch_start(self, trainer, module):
        module.trace.append(("start of epoch", trainer.global_step, trainer.current_epoch))

    def on_train_epoch_end(self, trainer, module):
        module.trace.append(("end of epoch", trainer.global_step, trainer.current_epoch))

    def on_train_end(self, trainer, module):
        module.trace.append(("end", trainer.global_step, trainer.current_epoch))


class Saved(NamedTuple):
    path: Any
    kind: str
    position: int  # in the trace
    values: int  # logged so far


class SaveEverywhere(Checkpoint):
    """Saves at each place where a checkpoint may be written, behind all other callbacks."""

    def __init__(self, folder):
        self.folder = folder
        self.saved: list[Saved] = []

    def save(self, trainer, module, kind):
        name = f"{len(self.saved):03d}-{kind}.ckpt"
        values = len(trainer.loggers[0].values)
        position = len(module.trace) - (kind == "start of epoch")  # which is announced again
        self.saved.append(Saved(self.folder / name, kind, position, values))
        trainer.save_checkpoint(self.folder / name)

    def on_train_batch_end(self, trainer, module, *args):
        self.save(trainer, module, "batch")

    def on_validation_batch_end(self, trainer, module, *args):
        if not trainer.sanity_checking:
            self.save(trainer, module, "within validation")

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.save(trainer, module, "validation")

    def on_train_epoch_start(self, trainer, module):
        self.save(trainer, module, "start of epoch")

    def on_train_epoch_end(self, trainer, module):
        self.save(trainer, module, "epoch")

    def on_train_end(self, trainer, module):
        self.save(trainer, module, "end")


class Values(Logger):
    """Keeps what is logged."""

    name, version = "values", "0"

    def __init__(self):
        super().__init__()
        self.values: list[tuple[int, str, float]] = []

    @property
    def experiment(self):
        return DummyExperiment()

    def log_metrics(self, metrics, step=None):
        self.values += [(step, name, value) for name, value in metrics.items()]

    def log_hyperparams(self, *args, **kwargs):
        pass


class Traced(NamedTuple):
    trace: list[tuple[Any, ...]]
    values: list[tuple[int, str, float]]
    state: dict[str, Any]


def fit(folder, data, module, callbacks=(), ckpt_path=None, exact=True, **options):
    """Fit, and return what was done."""
    own = [ExactResume()] if exact else []
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)
    given = {"default_root_dir": folder, "logger": Values(), "enable_checkpointing": saves}
    trainer = pl.Trainer(
        **{**QUIET, **given, **options},
        callbacks=[*own, StepSeeder(seed=5), LastValidation(), Tracer(), *callbacks],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    state = {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedules": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "batches": trainer.fit_loop.epoch_loop.batch_progress.total.completed,
        "metrics": dict(trainer.callback_metrics),
    }
    return Traced(module.trace, trainer.logger.values, state)


def differences(first, second, path=""):
    """Places where two nested structures differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{path}/{key}" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys():
            found += differences(first[key], second[key], f"{path}/{key}")
        return found
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{path}: {len(first)} and {len(second)} entries"]
        return [
            d for i, (a, b) in enumerate(zip(first, second, strict=True))
            for d in differences(a, b, f"{path}/{i}")
        ]  # fmt: skip
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    return [] if first == second else [f"{path}: {first} and {second}"]


def unlike(whole, resumed, saved):
    """Where a resumed fit does something else than the whole one after a checkpoint."""
    found = []
    expected = whole.trace[saved.position :]
    if resumed.trace != expected:
        pairs = zip(expected, resumed.trace, strict=False)
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), "end")
        at = place if isinstance(place, int) else min(len(expected), len(resumed.trace))
        one = [t[:3] for t in expected[at : at + 2]]
        other = [t[:3] for t in resumed.trace[at : at + 2]]
        found.append(f"trace[{saved.position}+{place}]: {one} and {other}")
    found += differences(whole.state, resumed.state)
    # A batch's own values are logged right after the callbacks, and so after the checkpoint.
    lost = set(whole.values[saved.values :]) ^ set(resumed.values)
    names = {name for _, name, _ in lost}
    if len({step for step, _, _ in lost}) > 1 or not names <= {"train/loss", "epoch"}:
        found.append(f"values {sorted(lost)[:4]}")
    return found
