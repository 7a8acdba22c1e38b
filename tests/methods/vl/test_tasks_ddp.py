"""Fine-tuning on several processes: steps and scores are those of one process."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

pytestmark = pytest.mark.distributed


class Write(pl.Callback):
    """Writes what each process has: gradients of the first step, and scores."""

    def __init__(self, name):
        self.name = name
        self.gradients = {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 0:
            self.gradients = {n: p.grad.clone() for n, p in pl_module.named_parameters()}

    def write(self, trainer, pl_module):
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        content = {
            "gradients": self.gradients,
            "state": pl_module.state_dict(),
            "metrics": metrics,
        }
        torch.save(content, f"{self.name}_{trainer.global_rank}.pt")

    on_train_end = on_test_end = write

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def run(tasks, command, module, data, processes, start, **kwargs):
    name = f"{command}{processes}"
    trainer = tasks.trainer(
        devices=processes,
        strategy=f"ddp_{start}" if processes > 1 else "auto",
        callbacks=[Write(name)],
        **kwargs,
    )
    getattr(trainer, command)(module, datamodule=data)
    return [torch.load(f"{name}_{rank}.pt") for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_joined_batch(tasks):
    """And every parameter has a gradient, else DDP would end the second step with an error."""
    found = {}
    for processes in (1, 2):
        torch.manual_seed(0)
        module = tasks.module("nlvr2")
        data = tasks.data("nlvr2", batch_size=4 // processes)
        found[processes] = run(tasks, "fit", module, data, processes, "spawn")
    (alone,), (one, two) = found[1], found[2]
    assert len(alone["gradients"]) == len(list(module.parameters()))
    for name, value in alone["gradients"].items():
        assert torch.equal(one["gradients"][name], two["gradients"][name]), name
        torch.testing.assert_close(one["gradients"][name], value, rtol=0, atol=1e-6)
    for name, value in one["state"].items():
        assert torch.equal(value, two["state"][name]), name
    # train/… are those of each process
    shared = {"val/loss", "val/acc1", "val/consistency"}
    assert {n: one["metrics"][n] for n in shared} == {n: two["metrics"][n] for n in shared}


@pytest.mark.parametrize("task", ["nlvr2", "vqa", "entailment"])
def test_three_processes_with_unequal_shares_score_as_one(tasks, task):
    """No row counts twice: 5 rows are 2, 2 and 1; of NLVR2 20 rows are 7, 7 and 6."""
    torch.manual_seed(0)
    module = tasks.module(task)
    data = tasks.data(task, sizes=(4, 4, 20 if task == "nlvr2" else 5), batch_size=2)
    (alone,) = run(tasks, "test", module, data, 1, "fork")
    for share in run(tasks, "test", module, data, 3, "fork"):
        assert share["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    assert len(alone["metrics"]) == (3 if task == "nlvr2" else 2)
