"""Videos of several clips on two processes are evaluated as on one."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl import SupervisedVideo
from lit_ssl.callbacks.evaluators.features import collect_features
from lit_ssl.datamodules import MovingDigitsDataModule
from lit_ssl.models import SmallCNN


class Write(pl.Callback):
    """Keeps what was logged, and what evaluators see: features and labels of all clips."""

    def on_validation_end(self, trainer, pl_module):
        numbers = [float(trainer.callback_metrics[name]) for name in ("val/loss", "val/acc1")]
        seen = collect_features(trainer, pl_module, "val", pl_module)
        found = seen.everywhere(), seen.labels
        torch.save((numbers, *found), f"{trainer.world_size}_{trainer.global_rank}.pt")

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
            accelerator="cpu", devices=processes, callbacks=[Write()], logger=False,
            strategy="ddp_fork" if processes > 1 else "auto",
            use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.validate(module, datamodule=data, verbose=False)
    numbers, features, labels = torch.load(tmp_path / "1_0.pt")
    assert len(labels) == 39
    for rank in range(2):
        found = torch.load(tmp_path / f"2_{rank}.pt")
        assert found[0] == pytest.approx(numbers)
        assert torch.equal(found[2], labels)
        torch.testing.assert_close(found[1], features)
