"""BARACK on two processes equals one process on the joined batch."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl import BARACK
from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.models import SmallCNN


class Save(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            found = {**pl_module.state_dict(), "scores": pl_module.first.scores}
            found["worst"] = trainer.callback_metrics["val/acc_worst"]
            torch.save(found, f"run{trainer.world_size}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def fit(tiny, devices, strategy):
    torch.manual_seed(0)
    model = BARACK(
        backbone=SmallCNN(2), num_classes=2, num_attributes=2, predictor_epochs=1, held_out=0.5,
        lr=0.02, weight_decay=1e-2, step_size=0.5, adjustment=2.0, absent="hold",
    )  # fmt: skip
    data = ColouredMNISTDataModule(
        batch_size=16 // devices, seed=0, group_label_fraction=0.5, drop_last=False
    )
    trainer = tiny.trainer(
        devices=devices, strategy=strategy, max_epochs=3, limit_train_batches=8,
        num_sanity_val_steps=0, default_root_dir=f"runs{devices}", callbacks=[StepSeeder(), Save()],
    )  # fmt: skip
    trainer.fit(model, datamodule=data)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_equal_one_on_the_joined_batch(tiny, tmp_path):
    fit(tiny, 1, "auto")
    fit(tiny, 2, "ddp_spawn_find_unused_parameters_true")
    one, two = (torch.load(tmp_path / f"run{devices}.pt") for devices in (1, 2))
    assert len(one["scores"]) == 3200
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=2e-6, msg=name)
    assert not torch.allclose(one["loss.log_q"], torch.full((4,), 0.25).double().log(), atol=1e-2)
    texts = [(tmp_path / f"runs{n}" / "predicted_groups.csv").read_text() for n in (1, 2)]
    assert [line.split(",")[:3] for line in texts[0].splitlines()] == [
        line.split(",")[:3] for line in texts[1].splitlines()
    ]


def test_a_strategy_that_would_wait_for_the_idle_network_is_refused(tiny):
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        fit(tiny, 1, "ddp")
