"""What ``FiniteGuard`` looks at, how often, and what that costs a step."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_ssl.callbacks import FiniteGuard
from lit_ssl.contracts.finite import optimizer_states
from lit_ssl.errors import NonFiniteError, check_numbers


class Net(pl.LightningModule):
    def __init__(self, optimizer=torch.optim.Adam, buffer=None):
        super().__init__()
        self.optimizer = optimizer
        self.net = nn.Linear(64, 4)
        if buffer is not None:
            self.register_buffer("buffer", buffer, persistent=False)

    def training_step(self, batch, batch_idx):
        return self.net(batch[0].flatten(1)).square().mean()

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), lr=0.01)


class Huge(pl.Callback):
    """A gradient whose square overflows, in the third step."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 2:
            pl_module.net.weight.grad[0, 0] = 1e25


def kept(folder):
    return ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, save_last=True)


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [
        (torch.optim.Adam, "exp_avg_sq"),
        (torch.optim.AdamW, "exp_avg_sq"),
        (torch.optim.RMSprop, "square_avg"),
        (torch.optim.Adagrad, "sum"),
    ],
)
def test_squares_that_overflow_are_found_where_all_weights_are_finite(
    toys, make_trainer, tmp_path, optimizer, key
):
    module = Net(optimizer)
    trainer = make_trainer(
        callbacks=[Huge(), FiniteGuard(), kept(tmp_path)], enable_checkpointing=True
    )
    message = rf"weight net.weight \({key} of its optimizer\) is NaN or infinite after step 3;"
    with pytest.raises(NonFiniteError, match=message + ".*last.ckpt$"):
        trainer.fit(module, toys.ToyData())
    assert all(value.isfinite().all() for value in module.state_dict().values())
    states = torch.load(tmp_path / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert all(value.isfinite().all() for state in states.values() for value in state.values())


def test_states_of_a_checkpoint_are_looked_at_before_the_first_step(toys, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[kept(tmp_path)], enable_checkpointing=True, max_epochs=1)
    trainer.fit(Net(), toys.ToyData())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["optimizer_states"][0]["state"][0]["exp_avg"][0, 0] = torch.nan
    torch.save(content, tmp_path / "bad.ckpt")
    module, trainer = Net(), make_trainer(callbacks=[FiniteGuard()], max_epochs=3)
    with pytest.raises(NonFiniteError, match=r"net.weight \(exp_avg of its optimizer\) is NaN"):
        trainer.fit(module, toys.ToyData(), ckpt_path=tmp_path / "bad.ckpt")
    assert trainer.global_step == content["global_step"]
    assert module.net.weight.equal(content["state_dict"]["net.weight"])


def test_weights_alone_are_saved_whatever_the_optimizer_has(toys, make_trainer, tmp_path):
    keeper = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_weights_only=True)
    callbacks = [Huge(), FiniteGuard(), keeper]
    trainer = make_trainer(
        callbacks=callbacks, enable_checkpointing=True, max_epochs=1, log_every_n_steps=100
    )
    with pytest.raises(NonFiniteError, match=r"exp_avg_sq"):  # at the end of the epoch
        trainer.fit(Net(), toys.ToyData())
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=0-step=4.ckpt"]


def test_names_of_states():
    module = Net()
    optimizer = module.configure_optimizers()
    module.net(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    names = [f"net.{n} ({k} of its optimizer)" for n in ("weight", "bias") for k in
             ("exp_avg", "exp_avg_sq")]  # fmt: skip
    assert list(optimizer_states(module, [optimizer])) == names  # and no count of steps
    module.nonfinite_allowed = ("net.weight",)
    assert list(optimizer_states(module, [optimizer])) == names[2:]
    assert optimizer_states(nn.Linear(1, 1), [optimizer]) == {}


@pytest.mark.parametrize("kind", ["coo", "csr", "nested"])
def test_buffers_of_any_layout_may_be_there(toys, make_trainer, kind):
    buffer = {
        "coo": lambda: torch.eye(3).to_sparse(),
        "csr": lambda: torch.eye(3).to_sparse_csr(),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }[kind]()
    trainer = make_trainer(callbacks=[FiniteGuard()], max_epochs=1)
    trainer.fit(Net(buffer=buffer), toys.ToyData())
    assert trainer.global_step == 5


class Counted(FiniteGuard):
    """Counts its looks, and the operations of the steps between them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.looks = []
        self.operations = []

    def _look(self, trainer, tensors):
        self.looks.append(trainer.global_step)
        super()._look(trainer, tensors)

    def on_train_batch_end(self, *args, **kwargs):
        seen, before = [], len(self.looks)

        class Record(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(func.overloadpacket._qualified_op_name.removeprefix("aten::"))
                return func(*args, **(kwargs or {}))

        with Record():
            super().on_train_batch_end(*args, **kwargs)
        if len(self.looks) == before:
            self.operations.append(seen)


@pytest.mark.parametrize(
    ("options", "logged", "looks"),
    [
        ({}, 4, [0, 4, 8, 10]),
        ({"every_n_steps": 7}, 4, [0, 7, 10]),
        ({}, 0, [0, 10]),  # logs nothing: every 50 steps
    ],
)
def test_a_step_costs_a_copy_of_the_loss_and_waits_for_nothing(
    toys, make_trainer, options, logged, looks
):
    guard = Counted(**options)
    trainer = make_trainer(callbacks=[guard], max_epochs=2, log_every_n_steps=logged)
    trainer.fit(Net(), toys.ToyData())
    assert guard.looks == looks
    assert len(guard.operations) == 12 - len(looks)
    assert all(set(seen) <= {"detach", "view", "clone"} for seen in guard.operations)


def test_whole_numbers_of_any_size_are_numbers():
    check_numbers({"seed": 10**400, "lr": 10**400})
