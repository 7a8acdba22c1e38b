from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_ssl.callbacks import LinearProbeEvaluator
from lit_ssl.callbacks.evaluators.linear_probe import ProbeClassifier


def test_probe_learns_without_touching_the_module(toys, make_trainer):
    losses, weights = [], []
    for callbacks in ([], [LinearProbeEvaluator(lr=0.05)]):
        pl.seed_everything(0, verbose=False)
        module = toys.ToyModule()
        trainer = make_trainer(callbacks=callbacks, max_epochs=10)
        trainer.fit(module, toys.ToyData())
        losses.append(module.losses)
        weights.append(module.linear.weight.detach().clone())
    assert losses[0] == losses[1]
    assert torch.equal(*weights)
    assert trainer.callback_metrics["val/linear_acc1"] > 0.8
    assert trainer.callback_metrics["train/linear_loss"] < 0.7  # log 4 = 1.39 at the start


def test_first_step_is_adamw_on_standardised_features(toys, make_trainer):
    probe = LinearProbeEvaluator(lr=0.1)
    module, data = toys.ToyModule(), toys.ToyData()
    kept = {}

    class Keep(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            kept["start"] = probe.head.linear.weight.detach().clone()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            kept["features"], kept["labels"] = outputs["features"], batch[1]

    make_trainer(callbacks=[probe, Keep()], max_steps=1, limit_val_batches=0).fit(module, data)
    weight = kept["start"].requires_grad_()
    rows = kept["features"] - kept["features"].mean(0)
    rows = rows / rows.std(0, correction=0)
    F.cross_entropy(rows @ weight.T, kept["labels"]).backward()
    torch.optim.AdamW([weight], lr=0.1, weight_decay=0).step()
    torch.testing.assert_close(probe.head.linear.weight, weight, rtol=1e-4, atol=1e-5)


def test_statistics_average_at_first_and_follow_later():
    head = ProbeClassifier(3, 2, torch.Generator())
    generator = torch.Generator().manual_seed(0)
    first = [1000 + torch.randn(50, 3, generator=generator) for _ in range(4)]
    for batch in first:
        head.follow(batch)
    torch.testing.assert_close(head.mean, torch.cat(first).mean(0), rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(head.variance, torch.cat(first).var(0), rtol=0.1, atol=0)
    for _ in range(200):
        head.follow(5 * torch.randn(50, 3, generator=generator) - 7)
    torch.testing.assert_close(head.mean, torch.full((3,), -7.0), rtol=0, atol=0.5)
    torch.testing.assert_close(head.variance, torch.full((3,), 25.0), rtol=0.2, atol=0)


def test_unlabelled_samples_do_not_count(toys, make_trainer):
    heads = []
    for keep in (slice(None), slice(0, 3)):
        data = toys.ToyData(train=8)
        if keep.stop:
            data.bank.labels[keep.stop :] = -1
        pl.seed_everything(0, verbose=False)
        probe = LinearProbeEvaluator()
        make_trainer(callbacks=[probe], max_steps=1, limit_val_batches=0).fit(
            toys.ToyModule(), data
        )
        heads.append(probe)
    probe = heads[1]
    assert not torch.equal(probe.head.linear.weight, heads[0].head.linear.weight)
    # A class without labelled samples can only be pushed down.
    assert probe.head.linear.bias[3] < 0

    data.bank.labels[:] = -1
    start = LinearProbeEvaluator()
    make_trainer(callbacks=[start], max_steps=1, limit_val_batches=0).fit(toys.ToyModule(), data)
    assert torch.equal(start.head.linear.bias, torch.zeros(4))


def test_without_features_in_the_outputs_the_first_view_is_encoded_in_eval_mode(toys, make_trainer):
    module = toys.ToyModule(give_features=False)
    seen = []

    def spy(part, args):
        seen.append((part.training, args[0].shape[0]))

    module.linear.register_forward_pre_hook(spy)
    probe = LinearProbeEvaluator()
    make_trainer(callbacks=[probe], max_steps=2, limit_val_batches=0).fit(
        module, toys.ToyData(views=True)
    )
    assert seen == [(True, 8), (False, 8)] * 2  # training step, then the probe
    assert module.training
    assert probe.head.linear.weight.grad is not None


def fit(toys, make_trainer, tmp_path, epochs, resume=None):
    pl.seed_everything(0, verbose=False)
    probe = LinearProbeEvaluator(lr=0.05)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(callbacks=[probe, keep], max_epochs=epochs, enable_checkpointing=True)

    class Steady(toys.ToyModule):  # no dropout: the trajectory depends on the weights only
        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Identity()

    module = Steady()
    trainer.fit(module, toys.ToyData(), ckpt_path=resume)
    return probe, trainer, module


def test_resumed_probe_is_the_uninterrupted_one(toys, make_trainer, tmp_path):
    whole, *_ = fit(toys, make_trainer, tmp_path / "a", epochs=3)
    fit(toys, make_trainer, tmp_path / "b", epochs=1)
    resumed, *_ = fit(toys, make_trainer, tmp_path / "b", 3, tmp_path / "b" / "epoch=0.ckpt")
    assert torch.equal(whole.head.linear.weight, resumed.head.linear.weight)
    for a, b in zip(
        whole.optimizer.state_dict()["state"].values(),
        resumed.optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
        assert a["step"] == b["step"] == 15


def test_probe_of_a_checkpoint_is_tested_and_an_untrained_one_is_not(toys, make_trainer, tmp_path):
    _, trainer, module = fit(toys, make_trainer, tmp_path, epochs=3)
    expected = trainer.test(module, toys.ToyData(), verbose=False)[0]["test/linear_acc1"]
    fresh = make_trainer(callbacks=[LinearProbeEvaluator()])
    with pytest.warns(UserWarning, match="its classifier has not been trained"):
        assert fresh.test(module, toys.ToyData(), verbose=False) == [{}]
    restored = make_trainer(callbacks=[LinearProbeEvaluator()])
    found = restored.test(
        module, toys.ToyData(), ckpt_path=tmp_path / "epoch=2.ckpt", verbose=False
    )
    assert found[0]["test/linear_acc1"] == expected


def test_probe_needs_no_bank_but_labels_and_embed_dim(toys, make_trainer):
    class NoBank(toys.ToyData):
        bank_dataloader = None

    make_trainer(callbacks=[LinearProbeEvaluator()], fast_dev_run=True).fit(
        toys.ToyModule(), NoBank()
    )

    class Bare(toys.ToyData):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return super().on_after_batch_transfer(batch, dataloader_idx)[0]

    class Plain(toys.ToyModule):
        def training_step(self, batch, batch_idx):
            return self(batch).square().mean()

    with pytest.raises(ValueError, match=r"needs labels, but the training batch is Tensor\[8, 1,"):
        make_trainer(callbacks=[LinearProbeEvaluator()]).fit(Plain(), Bare())
    nameless = toys.ToyModule()
    del nameless.embed_dim
    with pytest.raises(AttributeError, match="module ToyModule has no embed_dim"):
        make_trainer(callbacks=[LinearProbeEvaluator()]).fit(nameless, toys.ToyData())


def test_wrong_width_of_the_steps_features_is_named(toys, make_trainer):
    module = toys.ToyModule()
    module.embed_dim = 5
    with pytest.raises(ValueError, match=r"of shape \[8, 5\] \(batch, embed_dim\), got \[8, 16\]"):
        make_trainer(callbacks=[LinearProbeEvaluator()]).fit(module, toys.ToyData())
