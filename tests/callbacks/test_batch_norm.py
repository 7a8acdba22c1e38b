"""BatchNorm statistics of evaluation images, around PAWS-NN."""

from __future__ import annotations

import copy
import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lit_ssl.callbacks import KNNEvaluator, RepresentationReport, SoftNNEvaluator
from lit_ssl.callbacks.evaluators import batch_norm
from lit_ssl.callbacks.evaluators.batch_norm import recalibrated_batch_norm
from lit_ssl.datamodules import MNIST5kDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.metrics import soft_nearest_neighbor
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop


class Norms(pl.LightningModule):
    """Two BatchNorms in a row, one that evaluation does not use, and a dropout."""

    embed_dim = 3

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm2d(1)
        self.linear = nn.Linear(64, 3)
        self.drop = nn.Dropout(0.5)
        self.last = nn.BatchNorm1d(3)
        self.unused = nn.BatchNorm1d(3)
        for norm in (self.first, self.last, self.unused):
            norm.running_mean.fill_(5.0)
            norm.running_var.fill_(9.0)

    def forward(self, images):
        return self.last(self.drop(self.linear(self.first(images).flatten(1))))

    def training_step(self, batch, batch_idx):
        views, labels = batch["support"]
        return nn.functional.cross_entropy(self(views[0][:, 0]), labels % 3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step


def make_data(batch_size=64, subset=None):
    digits = MNIST5kDataModule(
        batch_size=batch_size,
        num_workers=0,
        train_transform=MultiCrop([CropSpec(size=8, count=2)]),
        eval_transform=EvalTransform(size=8),
        subset=subset,
    )
    return SemiSupervisedDataModule(digits, subset=Subset(per_class=2), images_per_class=2)


def images_of(data, positions=None):
    """All training images, or some, as evaluation shows them."""
    data.setup("test")
    batches = data.bank_dataloader(positions)
    return torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in batches])


def state(module):
    return copy.deepcopy(module.state_dict())


def assert_same(before, after):
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class Look(pl.Callback):
    """Keeps the state inside and after the recalibration."""

    def on_test_epoch_end(self, trainer, pl_module):
        pl_module.unused.train(False)
        with recalibrated_batch_norm(trainer, pl_module, [pl_module]):
            self.inside = state(pl_module)
            self.modes = [part.training for part in pl_module.modules()]
        self.after = state(pl_module)


@pytest.mark.parametrize(("batch_size", "used"), [(65, 650), (59, 649), (700, 650)])
def test_statistics_are_those_of_all_images(batch_size, used, make_trainer):
    """650 images; in batches of 59 the last one is alone and left out."""
    data, module, look = make_data(batch_size, Subset(per_class=65)), Norms(), Look()
    before = state(module)
    make_trainer(callbacks=[look]).test(module, data, verbose=False)
    images = images_of(data)
    drawn = np.random.default_rng(0).permutation(650)
    images = images[torch.from_numpy(drawn[:used])]
    inside = look.inside
    torch.testing.assert_close(inside["first.running_mean"], images.mean((0, 2, 3)))
    torch.testing.assert_close(inside["first.running_var"], images.var((0, 2, 3)))
    if batch_size == 700:  # one batch: what follows is normalised by the same numbers
        norm = (images - images.mean()) / (images.var(correction=0) + 1e-5).sqrt()
        rows = module.linear(norm.flatten(1)).detach()
        torch.testing.assert_close(inside["last.running_mean"], rows.mean(0))
        torch.testing.assert_close(inside["last.running_var"], rows.var(0))
    assert inside["last.running_mean"].abs().max() < 2  # without dropout
    assert_same(
        {n: v for n, v in before.items() if n.startswith("unused")},
        {n: v for n, v in inside.items() if n.startswith("unused")},
    )
    assert not any(look.modes)
    assert_same(before, look.after)


def test_processes_join_their_images(monkeypatch):
    """Three processes, one of which saw less and one nothing."""
    layer, values = nn.BatchNorm1d(2), torch.randn(50, 2) * 3 + 100
    parts = []
    for rows in (values[:31], values[31:], values[:0]):
        moments = batch_norm._Moments(layer)
        for batch in rows.split(7) if len(rows) else ():
            moments.add(layer, (batch,))
        parts.append((moments.count, moments.mean, moments.squares))
    stacks = iter(torch.stack(column) for column in zip(*parts, strict=True))
    monkeypatch.setattr(batch_norm, "gather_stack", lambda _: next(stacks))
    joined = batch_norm._Moments(layer).gathered()
    assert joined.count == 50
    torch.testing.assert_close(joined.mean, values.mean(0))
    torch.testing.assert_close(joined.squares / 49, values.var(0))


def test_paws_nn_is_that_of_the_network_with_these_statistics(make_trainer):
    data, module = make_data(), Norms()
    before = state(module)
    callbacks = [SoftNNEvaluator(recalibrate_bn=True), KNNEvaluator(k=1)]
    found = make_trainer(callbacks=callbacks).test(module, data, verbose=False)[0]
    plain = make_trainer(callbacks=[SoftNNEvaluator(), KNNEvaluator(k=1)])
    usual = plain.test(module, data, verbose=False)[0]
    assert found["test/knn_acc1"] == usual["test/knn_acc1"]  # evaluators share features without it
    assert found["test/soft_nn_acc1"] != usual["test/soft_nn_acc1"]
    assert_same(before, module.state_dict())

    look = Look()
    make_trainer(callbacks=[look]).test(module, data, verbose=False)
    other = Norms().eval()
    other.load_state_dict(look.inside)
    with torch.no_grad():
        supports = other(images_of(data, data.support_positions))
        batches = [data.on_after_batch_transfer(b, 0) for b in data.test_dataloader()]
        queries = other(torch.cat([images for images, _ in batches]))
    known = torch.as_tensor(data.labels("train")[data.support_positions])
    probs = soft_nearest_neighbor(queries, supports, known, 0.1, 10)
    accuracy = (probs.argmax(1) == torch.cat([labels for _, labels in batches])).float().mean()
    assert found["test/soft_nn_acc1"] == pytest.approx(accuracy.item(), abs=2e-3)


def test_training_goes_on_as_without(make_trainer):
    def trained(*callbacks):
        pl.seed_everything(0)
        module = Norms()
        trainer = make_trainer(callbacks=list(callbacks), max_epochs=2, limit_train_batches=2)
        trainer.fit(module, make_data())
        return module.state_dict()

    assert_same(trained(), trained(SoftNNEvaluator(recalibrate_bn=True)))


def test_the_report_says_so(make_trainer, tmp_path):
    def row(recalibrate):
        report = RepresentationReport(
            protocols=["knn", "soft_nn"], shots=[], baselines=["untrained"], k=1,
            output=str(tmp_path / str(recalibrate)), recalibrate_bn=recalibrate,
        )  # fmt: skip
        module = Norms()
        with torch.no_grad():
            module.linear.weight.copy_(torch.linspace(-1, 1, 192).view(3, 64))
        trainer = make_trainer(callbacks=[report])
        trainer.test(module, make_data(subset=Subset(per_class=20)), verbose=False)
        found = json.loads((tmp_path / str(recalibrate) / "report.json").read_text())
        assert found["protocol"]["recalibrate_bn"] is recalibrate
        return found["rows"][0]

    plain, recalibrated = row(False), row(True)
    assert plain["soft_nn_acc1"] != recalibrated["soft_nn_acc1"]


def test_what_is_missing_is_named(toys, make_trainer):
    trainer = make_trainer(callbacks=[SoftNNEvaluator(recalibrate_bn=True)])
    with pytest.raises(AttributeError, match="recalibrate_bn needs: expected bank_dataloader"):
        trainer.fit(toys.ToyModule(), toys.ToyData())
    trainer = make_trainer(callbacks=[RepresentationReport(recalibrate_bn=True)])
    with pytest.raises(AttributeError, match="set recalibrate_bn: false"):
        trainer.test(toys.ToyModule(), toys.ToyData())
    trainer = make_trainer(callbacks=[SoftNNEvaluator(recalibrate_bn=True)])
    with pytest.raises(ValueError, match="at least 2 training images in a batch"):
        trainer.validate(Norms(), make_data(batch_size=1, subset=Subset(per_class=3)))
