"""Losses of an evaluation on unequal shards are those of one process."""

from __future__ import annotations

from typing import ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl import GroupRobustClassifier, ImageClassifier
from lit_ssl.methods.nac.nac import NAC
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, SmallCNN


class Shards(pl.LightningDataModule):
    """Twenty rows: three processes have 7, 7 and 6."""

    num_classes, num_attributes, num_groups = 2, 2, 4
    group_names: ClassVar = ("a", "b", "c", "d")
    eval_group_names: ClassVar = ()

    def group_array(self, split):
        return np.arange(20) % 4

    true_group_array = soft_group_array = set_groups = set_sampling = group_array
    bank_dataloader = None

    def collate(self, rows):
        generator = torch.Generator().manual_seed(0)
        images = 3 * torch.randn(20, 3, 28, 28, generator=generator)
        labels = torch.randint(2, (20,), generator=generator)
        batch = images[rows], labels[rows]
        grouped = isinstance(self.trainer.lightning_module, GroupRobustClassifier)
        return (*batch, 2 * batch[1]) if grouped else batch

    def val_dataloader(self):
        rows = range(self.trainer.global_rank, 20, self.trainer.world_size)
        return DataLoader(rows, 3, collate_fn=self.collate)


class Write(pl.Callback):
    def on_validation_end(self, trainer, pl_module):
        name = f"{type(pl_module).__name__}_{trainer.world_size}_{trainer.global_rank}.pt"
        torch.save(float(trainer.callback_metrics["val/loss"]), name)

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def circuit():
    return NeuralAttentiveCircuit(
        tokenizer=PatchTokenizer(28, 14, 3, 8, 4), state_dim=16, num_modules=6,
        num_output_modules=3, depth=1, num_heads=2, head_dim=8, signature_dim=8, layer_scale=None,
    )  # fmt: skip


BUILD = {
    "ImageClassifier": lambda: ImageClassifier(SmallCNN(3), num_classes=2),
    "GroupRobustClassifier": lambda: GroupRobustClassifier(
        SmallCNN(3), num_classes=2, num_attributes=2
    ),
    "NAC": lambda: NAC(circuit(), num_classes=2),
}


@pytest.mark.distributed
@pytest.mark.parametrize("name", BUILD)
def test_three_processes_with_unequal_shards_have_the_loss_of_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = BUILD[name]()
    for processes in (1, 3):
        trainer = pl.Trainer(
            accelerator="cpu", devices=processes, callbacks=[Write()], logger=False,
            strategy="ddp_fork" if processes > 1 else "auto", use_distributed_sampler=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.validate(module, Shards(), verbose=False)
    alone = torch.load(tmp_path / f"{name}_1_0.pt")
    for rank in range(3):
        assert torch.load(tmp_path / f"{name}_3_{rank}.pt") == pytest.approx(alone, rel=1e-5)
