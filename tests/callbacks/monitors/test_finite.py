"""Numbers that are none stop a fit, of every method, and the last good checkpoint is kept."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import finite_methods as methods
from finite_methods import Spoil

from lit_ssl.callbacks import FiniteGuard, StepSeeder
from lit_ssl.contracts.finite import first_nonfinite, losses_of
from lit_ssl.errors import InputError, NonFiniteError

NAN = torch.nan


def saved(folder):
    return [ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, save_last=True)]


def is_finite(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    on_purpose = ("val_acc1", "places")
    return all(tensor.isfinite().all() for n, tensor in state.items() if n not in on_purpose)


@pytest.mark.parametrize("how", ["weight", "gradient"])
@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_stops_and_keeps_its_last_good_checkpoint(make_trainer, tmp_path, name, how):
    if name == "VLPretraining":
        pytest.importorskip("transformers")
        pytest.importorskip("mlxtend")
    build, data = methods.METHODS[name]
    callbacks = [StepSeeder(0), Spoil(how), FiniteGuard(), *saved(tmp_path / "kept")]
    trainer = make_trainer(
        callbacks=callbacks, enable_checkpointing=True, max_epochs=methods.STEPS,
        limit_train_batches=methods.STEPS, limit_val_batches=0, log_every_n_steps=50,
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match="NaN or infinite") as caught:
        trainer.fit(build(), data())
    # the file of step 4 would hold weights that are no numbers
    assert re.search(
        r"(step 4|batch norm).*; the newest checkpoint is .*last.ckpt$", str(caught.value)
    )
    kept = {path.name: is_finite(path) for path in (tmp_path / "kept").iterdir()}
    assert kept == {"epoch=0-step=2.ckpt": True, "last.ckpt": True}, str(caught.value)
    assert torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_run_that_goes_on_from_the_kept_checkpoint_ends_as_one_unharmed(make_trainer, tmp_path):
    def fit(folder, *callbacks, seed=0, path=None):
        torch.manual_seed(0)
        module, data = methods.METHODS["GroupRobustClassifier"][0](), methods.digits()
        data.seed = seed
        trainer = make_trainer(
            callbacks=[StepSeeder(0), *callbacks, FiniteGuard(), *saved(tmp_path / folder)],
            enable_checkpointing=True, max_epochs=1, limit_train_batches=6, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=path)
        return module.state_dict()

    whole = fit("whole")
    with pytest.raises(NonFiniteError, match=r"after step 4; the newest .*last.ckpt$") as caught:
        fit("harmed", Spoil("gradient", 4))
    path = str(caught.value).rpartition(" is ")[2]
    assert torch.load(path, weights_only=True)["global_step"] == 2
    again = fit("again", path=path)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    with pytest.warns(UserWarning, match="order of the samples has changed since .seed 0 -> 1"):
        other = fit("other", seed=1, path=path)  # goes on at step 2, with other data
    assert not all(torch.equal(value, other[name]) for name, value in whole.items())


class Spoilt(pl.LightningModule):
    """Everything of it stays finite, until something is told not to."""

    def __init__(self, returns="tensor"):
        super().__init__()
        self.returns = returns
        self.automatic_optimization = returns != "manual"
        self.net = nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4))
        self.follower = nn.Linear(64, 4).requires_grad_(False)
        self.register_buffer("places", torch.tensor([0.0, -torch.inf]))
        self.factor = 1.0

    def training_step(self, batch, batch_idx):
        loss = self.factor * self.net(batch[0].flatten(1)).square().mean()
        if self.returns == "manual":
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return {"loss_a": loss.detach(), "other": loss * NAN}
        return {"tensor": loss, "dict": {"loss": loss, "acc_loss": loss * NAN}, "none": None}[
            self.returns
        ]

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.net(batch[0].flatten(1)).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


class At(pl.Callback):
    """Does something to the module after a step."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == self.step:
            with torch.no_grad():
                self.function(pl_module)


def run(toys, make_trainer, module, *callbacks, **options):
    options = {"max_epochs": 3, "log_every_n_steps": 5, **options}
    trainer = make_trainer(callbacks=[*callbacks, FiniteGuard()], **options)
    trainer.fit(module, toys.ToyData())
    return trainer


@pytest.mark.parametrize("returns", ["tensor", "dict", "none", "manual"])
def test_modules_of_users_train_as_ever(toys, make_trainer, returns):
    module = Spoilt(returns)
    assert run(toys, make_trainer, module).global_step == 15
    make_trainer(callbacks=[FiniteGuard()]).validate(module, toys.ToyData())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m: m.follower.weight[0, 0].fill_(NAN), "weight follower.weight is .* after step 5"),
        (lambda m: m.net[1].running_var.fill_(torch.inf), r"weight net.1.running_var is"),
        (lambda m: setattr(m, "factor", NAN), r"loss of step 4 and weight net.0.weight are"),
        (lambda m: m.places.fill_(NAN), None),  # held −∞ before the first step
    ],
)
def test_what_is_found(toys, make_trainer, function, message):
    if message is None:
        run(toys, make_trainer, Spoilt(), At(3, function))
        return
    with pytest.raises(NonFiniteError, match=message + ".*; no checkpoint was written$"):
        run(toys, make_trainer, Spoilt(), At(3, function))


def test_a_loss_of_a_manual_optimization_is_named(toys, make_trainer):
    with pytest.raises(NonFiniteError, match=r"^loss_a of step 4 and weight"):
        run(toys, make_trainer, Spoilt("manual"), At(3, lambda m: setattr(m, "factor", NAN)))


def test_every_batch_of_an_accumulated_step_counts(toys, make_trainer):
    class Once(Spoilt):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * NAN if batch_idx == 2 else loss

        def configure_gradient_clipping(self, optimizer, **kwargs):
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_()

    with pytest.raises(NonFiniteError, match=r"^loss of step 1 is"):  # after the first of two steps
        run(toys, make_trainer, Once(), accumulate_grad_batches=2)


def test_nan_images_stop_it(toys, make_trainer):
    class Broken(toys.ToyData):
        def normalise(self, images):
            return super().normalise(images) * NAN

    with pytest.raises(NonFiniteError, match=r"^loss of step 1 and weight"):
        make_trainer(callbacks=[FiniteGuard()]).fit(Spoilt(), Broken())


def test_weights_are_looked_at_before_the_first_step_and_in_evaluations(toys, make_trainer):
    module = Spoilt()
    with torch.no_grad():
        module.follower.bias[1] = NAN
    for door in ("fit", "validate", "test", "predict"):
        module.test_step = module.predict_step = module.validation_step
        trainer = make_trainer(callbacks=[FiniteGuard()])
        data = toys.ToyData()
        data.predict_dataloader = data.val_dataloader
        with pytest.raises(NonFiniteError, match=r"^weight follower.bias is NaN or infinite[^;]*$"):
            getattr(trainer, door)(module, datamodule=data)


def test_nothing_is_measured_or_saved_of_such_weights(toys, make_trainer, tmp_path):
    """Whatever saves: weights alone, too, and whoever asks."""
    keeper = ModelCheckpoint(
        tmp_path / "kept", monitor="val/loss", save_weights_only=True, save_top_k=1,
        enable_version_counter=False, filename="one",
    )  # fmt: skip
    spoil = At(7, lambda m: m.follower.weight.fill_(NAN))
    with pytest.raises(NonFiniteError, match=r"the newest checkpoint is .*one.ckpt"):
        run(toys, make_trainer, Spoilt(), spoil, keeper, enable_checkpointing=True,
            log_every_n_steps=100)  # fmt: skip
    assert is_finite(tmp_path / "kept" / "one.ckpt")
    trainer = make_trainer(callbacks=[FiniteGuard(), At(2, lambda m: m.net[0].weight.fill_(NAN))])

    def save(*args):
        trainer.save_checkpoint(tmp_path / "by_hand.ckpt", weights_only=True)

    trainer.callbacks.append(At(2, save))
    with pytest.raises(NonFiniteError, match=r"weight net.0.weight is .* after step 2"):
        trainer.fit(Spoilt(), toys.ToyData())
    assert not (tmp_path / "by_hand.ckpt").exists()


def test_heads_of_a_sweep_may_diverge_but_not_all(make_trainer):
    def sweep(rates):
        module = methods.LinearEvaluation(**methods.BY_NAME, num_classes=3, learning_rates=rates)
        trainer = make_trainer(callbacks=[FiniteGuard()], max_epochs=1)
        heads = module.heads[0]

        def spoil(*args):
            heads.weight[0] = NAN

        trainer.callbacks.append(At(2, spoil))
        trainer.fit(module, methods.loader(methods.labelled))

    sweep([0.1, 0.2])
    with pytest.raises(NonFiniteError, match="loss of step 3 is"):
        sweep([0.1])


def test_the_finder_of_a_rate_may_try_too_large_ones(toys, make_trainer):
    finder = LearningRateFinder(max_lr=1e38, num_training_steps=30, early_stop_threshold=None)
    module = Spoilt()
    module.lr = 0.1
    module.configure_optimizers = lambda: torch.optim.SGD(module.net.parameters(), lr=module.lr)
    make_trainer(callbacks=[finder, FiniteGuard()], max_epochs=1).fit(module, toys.ToyData())


def test_overflows_that_the_scaler_skips_are_no_fault(toys, make_trainer):
    from lightning.pytorch.plugins import MixedPrecision

    class Half(MixedPrecision):
        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    skipped = []

    class Overflow(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step in (1, 2):
                pl_module.net[0].weight.grad[0, 0] = torch.inf
                skipped.append(scaler.get_scale())

    run(toys, make_trainer, Spoilt(), Overflow(), plugins=[Half("16-mixed", "cpu", scaler)])
    assert skipped


def test_options_and_parts():
    with pytest.raises(InputError, match="every_n_steps >= 1"):
        FiniteGuard(every_n_steps=0)
    one = torch.tensor(1.0)
    assert list(losses_of({"loss": one, "loss_b": one, "features": one}, True)) == [
        "loss",
        "loss_b",
    ]
    assert list(losses_of({"loss": one, "loss_b": one}, False)) == ["loss"]
    assert losses_of(None, False) == {}
    half = torch.tensor([1.0, torch.inf], dtype=torch.bfloat16)
    tensors = [one, torch.ones(2, dtype=torch.float64), half, one * NAN]
    assert first_nonfinite(tensors, torch.device("cpu")) == 2
    assert first_nonfinite(tensors[:2], torch.device("cpu")) == -1
    assert first_nonfinite([torch.full((2,), complex(0, NAN))], torch.device("cpu")) == 0
    assert first_nonfinite([], torch.device("cpu")) == -1


@pytest.mark.parametrize("value", [NAN, torch.inf, -0.1])
def test_rates_are_looked_at_before_training(toys, make_trainer, value):
    class Rate(Spoilt):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            optimizer.param_groups[0]["momentum"] = value
            return optimizer

    with pytest.raises(InputError, match="optimizer momentum must be a finite number >= 0"):
        make_trainer(callbacks=[FiniteGuard()]).fit(Rate(), toys.ToyData())
    if value != torch.inf:
        trainer = make_trainer(callbacks=[FiniteGuard()], gradient_clip_val=value)
        with pytest.raises(InputError, match=r"trainer.gradient_clip_val must be a finite"):
            trainer.fit(Spoilt(), toys.ToyData())


@pytest.mark.distributed
def test_two_processes_stop_at_the_same_step_where_one_sees_nan(tmp_path):
    script = Path(__file__).with_name("run_finite.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "MASTER_PORT": port, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors[0][-4000:]
    texts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    found = {name: [text[name] for text in texts] for name in texts[0]}
    for name, ranks in found.items():
        (first, step), (second, other_step) = ranks
        assert step == other_step, name
        assert first == second, name
        assert first.startswith("NonFiniteError: ")
        assert first.endswith("step=2.ckpt"), first
    assert "loss of step 3 on rank 1 " in found["ddp"][0][0]
    assert "rank(s) [1] at the end of round 2" in found["local"][0][0]
    assert "(the loss of rank 1)" in found["local"][0][0]
    assert "rank(s) [1] in round 2" in found["look"][0][0]
