"""Videos of several clips on two processes are evaluated as on one."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl import SupervisedVideo
from lit_ssl.callbacks import KNNEvaluator
from lit_ssl.datamodules import MovingDigitsDataModule
from lit_ssl.models import SmallCNN

NAMES = ("val/loss", "val/acc1", "val/knn_acc1")


class Write(pl.Callback):
    def on_validation_end(self, trainer, pl_module):
        numbers = [float(trainer.callback_metrics[name]) for name in NAMES]
        torch.save(numbers, f"{trainer.world_size}_{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_with_unequal_shards_evaluate_videos_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = MovingDigitsDataModule(
        sizes=(24, 13, 0), num_frames=3, clips_per_video=3, batch_size=4, canvas_size=28, size=28
    )
    data.setup("fit")  # read before processes begin
    torch.manual_seed(0)
    module = SupervisedVideo(backbone=SmallCNN(3), num_classes=3)
    for processes in (1, 2):
        trainer = pl.Trainer(
            accelerator="cpu", devices=processes, callbacks=[KNNEvaluator(k=3), Write()],
            logger=False, strategy="ddp_fork" if processes > 1 else "auto",
            use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.validate(module, datamodule=data, verbose=False)
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    assert first == second == pytest.approx(one)
    assert 0 < one[2] < 1
