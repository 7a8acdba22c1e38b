"""What a training step shows on the bar."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lit_ssl.trainer.step_logs import log_loss


class Counting(pl.LightningModule):
    """Its loss is the number of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        loss = self.weight * 0 + batch_idx
        log_loss(self, loss, 1)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Bar(pl.callbacks.ProgressBar):
    def __init__(self) -> None:
        super().__init__()
        self.shown: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.shown.append(self.get_metrics(trainer, pl_module)["train/loss"])


@pytest.mark.parametrize(("every", "expected"), [(0, [0] * 49 + [49] * 3), (20, [0] * 19 + [19])])
def test_the_bar_goes_on_also_where_nothing_is_logged(every, expected):
    bar = Bar()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_model_summary=False, log_every_n_steps=every, callbacks=[bar],
    )  # fmt: skip
    trainer.fit(Counting(), DataLoader(range(len(expected)), batch_size=1))
    assert bar.shown == expected
