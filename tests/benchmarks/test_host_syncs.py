"""No training step makes the host wait for the device, but for those that are listed here."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_ssl import ImageClassifier
from lit_ssl.losses.mlm import IGNORED, CountOnHost, gather_masked

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import counting_device
import host_syncs

pytest.importorskip("transformers")
pytest.importorskip("mlxtend")

_COUNT = ("lit_ssl/losses/mlm.py", "the number of masked tokens, on CUDA asked for early")
_EXCHANGE = ("lit_ssl/losses/matching.py", "which captions are of one image decides the exchange")
# of a step that nothing is logged in: where the host may wait, and why
ALLOWED = {
    "VLPretraining": [_COUNT, _EXCHANGE],
    "VLPretraining, other images": [_COUNT],
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", host_syncs.CASES)
def test_a_step_waits_for_nothing(name):
    found = host_syncs.count(host_syncs.CASES[name])
    allowed = tuple(place for place, _ in ALLOWED.get(name, []))
    assert [sync for sync in found.places if not sync.where.startswith(allowed)] == []
    seen = {place for place in allowed for s in found.places if s.where.startswith(place)}
    assert seen == set(allowed)  # what waits no more is taken off the list


def test_what_is_counted_is_what_waits():
    device = counting_device.CountingDevice()
    with device.counting():
        there = torch.arange(6.0).to("meta", non_blocking=True)
        mask = there > 2
        for work in (
            lambda: there.sum().item(),
            lambda: bool(mask.any()),
            lambda: there.tolist(),
            lambda: there.cpu(),
            lambda: there[mask],
            lambda: mask.nonzero(),
            lambda: there.unique(),
            lambda: torch.linalg.eigvalsh(there.outer(there)),
            lambda: torch.tensor(1.0, device="meta"),
            lambda: there.new_tensor([1.0]),
            lambda: torch.ones(3).to("meta"),
            lambda: there.copy_(torch.arange(6.0)),
        ):
            before = len(device.syncs)
            work()
            assert len(device.syncs) == before + 1
        before = len(device.syncs)
        there[mask] = 0.0
        there.add_(1).clamp_(min=torch.tensor(2.0))
        torch.rand(3, device="meta").sort()
        torch.ones(3).to("meta", non_blocking=True)
        torch.full((2,), 3.0, device="meta")
        assert len(device.syncs) == before
        assert there.tolist() == [2, 2, 3, 2, 2, 2]  # and the numbers are those of a CPU


@pytest.mark.filterwarnings("ignore")
def test_the_counting_device_trains_to_the_weights_of_a_cpu(tmp_path):
    def trained(**where):
        torch.manual_seed(0)
        module, data = ImageClassifier(**host_syncs._BY_NAME, num_classes=3), host_syncs._labelled()
        trainer = pl.Trainer(
            max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, **where,
        )  # fmt: skip
        trainer.fit(module, data)
        return torch.cat([p.detach().flatten() for p in module.parameters()]).cpu()

    plain = trained(accelerator="cpu")
    with counting_device.CountingDevice().counting():
        counted = trained(strategy=counting_device.strategy())
    torch.testing.assert_close(counted, plain, rtol=1e-5, atol=1e-6)


class Bar(TQDMProgressBar):
    """Notes what it would show."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        self.shown.append(self.get_metrics(trainer, pl_module).get("train/loss"))


@pytest.mark.filterwarnings("ignore")
def test_a_bar_shows_the_loss_of_the_first_and_of_logged_steps(tmp_path):
    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, *args):
            losses.append(trainer.callback_metrics["train/loss"].item())

    bar = Bar()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[bar, Losses()],
        log_every_n_steps=3,
    )  # fmt: skip
    module = ImageClassifier(**host_syncs._BY_NAME, num_classes=3)
    trainer.fit(module, host_syncs._labelled())
    first, third = losses[0], losses[2]
    assert bar.shown == [first, first, third, third, third]


def test_masked_positions_are_those_of_a_boolean_index():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 7, 3, generator=generator, requires_grad=True)
    labels = torch.randint(9, (4, 7), generator=generator)
    labels[torch.rand(4, 7, generator=generator) < 0.5] = IGNORED
    for case in (labels, torch.full_like(labels, IGNORED)):
        masked = case != IGNORED
        rows, targets = gather_masked(states, case, CountOnHost(case))
        assert torch.equal(rows, states[masked])
        assert torch.equal(targets, case[masked])
        (gradient,) = torch.autograd.grad(rows.square().sum(), states)
        (expected,) = torch.autograd.grad(states[masked].square().sum(), states)
        assert torch.equal(gradient, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in host_syncs.CASES if n not in ALLOWED])
def test_a_step_on_cuda_waits_for_nothing(name, tmp_path):
    case = host_syncs.CASES[name]
    start = host_syncs.STEPS * (case.epochs - 1)

    class Refuse(pl.Callback):
        """A wait is an error, but in the first step and in those that are logged."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            step = trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1
            is_usual = step > start and (step + 1) % host_syncs.EVERY
            torch.cuda.set_sync_debug_mode("error" if is_usual else "default")

        def on_train_end(self, trainer, pl_module):
            torch.cuda.set_sync_debug_mode("default")

        on_exception = on_train_end

    options = {"max_epochs": case.epochs, "log_every_n_steps": host_syncs.EVERY, **case.options}
    trainer = pl.Trainer(
        **{**options, "limit_train_batches": host_syncs.STEPS, "limit_val_batches": 0},
        accelerator="gpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[Refuse()],
    )  # fmt: skip
    trainer.fit(case.module(), case.data())
