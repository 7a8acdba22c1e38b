"""Linear evaluation: heads alone and together, choice, resume, processes, output, errors."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lit_ssl.methods.classification.linear_evaluation import LinearEvaluation
from lit_ssl.methods.classification.sweep_output import sweep_table
from lit_ssl.metrics import ProbeHead
from lit_ssl.optim import Schedule
from lit_ssl.strategies import LocalSGDStrategy

sys.path.insert(0, str(Path(__file__).parents[1] / "optim"))
from inner_lr_sgd import InnerLrSGD

RATES, DECAYS = [0.5, 4.0], [0.0, 0.02]


class Net(nn.Module):
    """A backbone with BatchNorm and dropout, which must not move."""

    embed_dim = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images):
        return F.dropout(self.norm(self.conv(images)), 0.5, self.training).relu().mean((2, 3))


class Images(Dataset):
    """Labelled noise with a class's own mean."""

    def __init__(self, count=32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 3
        self.labels[5] = -1
        shift = 0.5 * F.one_hot(self.labels.clamp(min=0), 3)[:, :, None, None]
        self.images = torch.randn(count, 3, 8, 8, generator=generator) + shift

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


def evaluation(**kwargs):
    torch.manual_seed(1)
    arguments = {"backbone": Net(), "num_classes": 3, "learning_rates": RATES}
    return LinearEvaluation(**{**arguments, "weight_decays": DECAYS, **kwargs})


def loaders(batch_size=8):
    first = DataLoader(Images(), batch_size=batch_size)
    return first, DataLoader(Images(20, 1), batch_size=batch_size)


def weights(module):
    return {k: v.clone() for k, v in module.heads.state_dict().items()}


def test_heads_train_as_each_would_alone(tiny):
    module = evaluation()
    points, start = module.points, module.heads[0].select(0).state_dict()
    tiny.trainer(max_epochs=3).fit(module, *loaders())
    schedule, train = Schedule(0, 1, 0, 12), list(loaders()[0])
    backbone = Net().eval()
    val = Images(20, 1)
    for index, point in enumerate(points):
        head = ProbeHead(6, 3)
        head.load_state_dict(start)
        rest = [*head.norm.parameters(), head.linear.bias]
        groups = [
            {"params": [head.linear.weight], "weight_decay": point.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer = InnerLrSGD(groups, lr=point.lr, nesterov=True)
        for step in range(12):
            images, labels = train[step % 4]
            for group in optimizer.param_groups:
                group["lr"] = point.lr * schedule(step)
            loss = F.cross_entropy(head(backbone(images).detach()), labels, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        together = module.heads[0].select(index)
        for key, value in head.state_dict().items():
            torch.testing.assert_close(together.state_dict()[key], value, rtol=1e-4, atol=1e-5)
        hits = (head(backbone(val.images)).argmax(1) == val.labels).float().sum() / 19
        torch.testing.assert_close(module.val_acc1[index], hits)
    assert [tuple(p) for p in points[:2]] == [("pooled", 0.5, 0.0), ("pooled", 0.5, 0.02)]


def test_backbone_does_not_move(tiny):
    module = evaluation()
    before = {k: v.clone() for k, v in module.backbone.state_dict().items()}
    tiny.trainer(max_epochs=2).fit(module, *loaders())
    assert all(torch.equal(v, before[k]) for k, v in module.backbone.state_dict().items())
    assert module.train().training
    assert not module.backbone.training
    assert not module(torch.randn(2, 3, 8, 8)).requires_grad


def test_kinds_of_features_have_heads_of_their_width(tiny):
    module = evaluation(backbone=tiny.vit(), features=["token-1", "token-2+mean"])
    assert len(module.points) == 8
    assert [h.weight.shape for h in module.heads] == [(4, 3, 12), (4, 3, 36)]
    images = torch.randn(8, 3, 16, 16), torch.arange(8) % 3
    trainer = tiny.trainer(max_epochs=2)
    trainer.fit(module, tiny.loader([images]), tiny.loader([images]))
    module.val_acc1.fill_(0.1)
    module.val_acc1[6] = 0.2
    trainer.test(module, tiny.loader([images]))
    kind, head = module._tested
    assert kind == 1
    assert torch.equal(head.linear.weight, module.heads[1].weight[2])


def test_a_diverged_head_is_marked_and_disturbs_no_other(tiny, tmp_path):
    alone, beside = evaluation(weight_decays=[0.0]), evaluation(weight_decays=[0.0, 1e30])
    for module, name in ((alone, "alone"), (beside, "beside")):
        tiny.trainer(max_epochs=3, default_root_dir=tmp_path / name).fit(module, *loaders())
    assert beside.val_acc1.isnan().tolist() == [False, True, False, True]
    assert torch.equal(alone.val_acc1, beside.val_acc1[[0, 2]])
    for key, value in alone.heads.state_dict().items():
        torch.testing.assert_close(beside.heads.state_dict()[key][[0, 2]], value)
    rows = json.loads((tmp_path / "beside/linear_sweep.json").read_text())["heads"]
    assert [row["val_acc1"] is None for row in rows] == [False, True, False, True]
    with pytest.raises(ValueError, match="all of them diverged"):
        tiny.trainer(max_epochs=3).fit(evaluation(weight_decays=[1e30]), *loaders())


def test_the_head_that_validates_best_is_tested_and_files_say_so(tiny, tmp_path, capsys):
    module = evaluation()
    trainer = tiny.trainer(max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(module, *loaders())
    assert "4 heads, best on the validation images first" in capsys.readouterr().out
    best = int(module.val_acc1.argmax())
    assert trainer.callback_metrics["val/linear_best_acc1"] == module.val_acc1.max()
    metrics = trainer.test(module, loaders()[1])[0]
    test = Images(20, 1)
    hits = module.heads[0].select(best)(module(test.images)).argmax(1) == test.labels
    assert metrics["test/linear_acc1"] == pytest.approx(hits.float().sum().item() / 19)
    written = json.loads((tmp_path / "linear_sweep.json").read_text())
    assert written["chosen"] == best
    assert written["test_acc1"] == pytest.approx(metrics["test/linear_acc1"])
    assert written["lr"] == module.points[best].lr
    with (tmp_path / "linear_sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["val_acc1"]) for r in rows] == pytest.approx(module.val_acc1.tolist())
    probs = torch.cat(trainer.predict(module, loaders()[1]))
    torch.testing.assert_close(probs.argmax(1) == test.labels, hits)


def test_of_heads_that_are_equal_the_chosen_one_comes_first():
    rows = [
        {"head": n, "features": "pooled", "lr": lr, "weight_decay": 0.0, "val_acc1": accuracy}
        for n, (lr, accuracy) in enumerate([(1.0, None), (2.0, 0.5), (4.0, 0.5), (8.0, 0.75)])
    ]
    shown = list(sweep_table(rows, 3, "heads").columns[1].cells)
    assert shown == ["8", "2", "4", "1"]


def test_a_choice_is_not_tested_on_the_images_on_which_it_was_made(tiny):
    module, trainer = evaluation(), tiny.trainer(max_epochs=1)
    train, val = loaders()
    trainer.fit(module, train, loaders()[1])
    trainer.test(module, val)  # other images than those of the fit
    trainer.validate(module, val)
    with pytest.raises(ValueError, match="the best of 4 heads was chosen on the images that are"):
        trainer.test(module, val)
    trainer.predict(module, val)
    only = evaluation(learning_rates=[6.4], weight_decays=[0.0])
    trainer.validate(only, val)
    trainer.test(only, val)  # there was no choice


def test_without_validation_no_head_can_be_tested_unless_it_is_the_only_one(tiny):
    trainer = tiny.trainer(limit_val_batches=0)
    with pytest.raises(ValueError, match="none of the 4 heads has a validation accuracy"):
        trainer.test(evaluation(), loaders()[1])
    only = evaluation(learning_rates=[6.4], weight_decays=[0.0])
    trainer.fit(only, *loaders())
    assert "test/linear_acc1" in trainer.test(only, loaders()[1])[0]


def test_heads_train_with_local_steps(tiny):
    """Accuracies that are not there yet are nothing that processes could average."""
    module, (train, val) = evaluation(), loaders()
    strategy = LocalSGDStrategy(sync_every=3)
    tiny.trainer(max_epochs=2, num_sanity_val_steps=0, strategy=strategy).fit(module, train, val)
    assert module.val_acc1.isfinite().all()


def test_a_resumed_run_is_the_same_run(tiny, tmp_path):
    def fit(epochs, **kwargs):
        module = evaluation()
        keep = ModelCheckpoint(tmp_path / f"until_{epochs}", save_last=True)
        trainer = tiny.trainer(
            max_epochs=4, enable_checkpointing=True, callbacks=[keep, StopAfter(epochs)]
        )
        trainer.fit(module, *loaders(), **kwargs)
        return module

    whole = fit(4)
    early = fit(2)
    resumed = fit(4, ckpt_path=tmp_path / "until_2/last.ckpt")
    assert not torch.equal(weights(early)["0.bias"], weights(whole)["0.bias"])
    assert torch.equal(whole.val_acc1, resumed.val_acc1)
    for key, value in weights(whole).items():
        assert torch.equal(weights(resumed)[key], value), key
    loaded = LinearEvaluation.load_from_checkpoint(tmp_path / "until_4/last.ckpt", backbone=Net())
    assert torch.equal(loaded.val_acc1, whole.val_acc1)


class StopAfter(pl.Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


class Save(pl.Callback):
    def on_fit_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), f"heads{trainer.world_size}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_equal_one_on_the_joined_batch(tiny, tmp_path):
    for devices in (1, 2):
        trainer = tiny.trainer(
            devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", max_epochs=6,
            callbacks=[Save()], default_root_dir=tmp_path / str(devices),
        )  # fmt: skip
        data = Images()
        data.labels[5] = 2  # DDP averages the means of processes: the same number of labels
        train = DataLoader(
            data, batch_size=32 // devices
        )  # all of it: Lightning shuffles over processes
        trainer.fit(evaluation(), train, DataLoader(Images(20, 1), batch_size=10))
    one, two = (torch.load(tmp_path / f"heads{n}.pt") for n in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5, msg=key)
    written = [json.loads(Path(tmp_path, n, "linear_sweep.json").read_text()) for n in "12"]
    assert written[0]["chosen"] == written[1]["chosen"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": None}, "needs num_classes >= 2, not None"),
        ({"learning_rates": []}, "needs learning_rates, each once"),
        ({"learning_rates": [0.1, 0.1]}, "needs learning_rates, each once"),
        ({"weight_decays": [-1]}, "needs weight_decays, each once"),
        ({"features": ["token-1"]}, "Net has pooled only"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluation(**arguments)


def test_wrong_batches_and_clipping_are_refused(tiny):
    with pytest.raises(ValueError, match="LinearEvaluation trains on labelled batches"):
        tiny.trainer().fit(evaluation(), tiny.loader([([torch.zeros(2, 2, 3, 8, 8)], 0)]))
    with pytest.raises(ValueError, match="gradient_clip_val would clip"):
        tiny.trainer(gradient_clip_val=1.0).fit(evaluation(), *loaders())


def test_a_fit_without_a_due_validation_chooses_all_the_same(tiny):
    """Its end is validated; where there is nothing to validate, it says so at the start."""
    module = evaluation()
    tiny.trainer(max_epochs=2, check_val_every_n_epoch=10).fit(module, *loaders())
    assert not module.val_acc1.isnan().any()
    with pytest.warns(UserWarning, match="nothing is validated in this fit: there are no valid"):
        tiny.trainer(max_epochs=1).fit(evaluation(), loaders()[0])


def test_under_fp16_one_overflowing_head_does_not_stop_the_others(tiny):
    def fit(decays):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        module = evaluation(weight_decays=decays)
        trainer = tiny.trainer(max_epochs=3, plugins=[plugin])
        trainer.fit(module, *loaders())
        assert plugin.scaler is scaler  # the Trainer has it back
        assert scaler.get_scale() == 2.0**10  # and nothing was scaled, nor a step skipped
        return module

    alone, beside = fit([0.0]), fit([0.0, 1e30])
    assert beside.val_acc1.isnan().tolist() == [False, True, False, True]
    for key, value in weights(alone).items():
        torch.testing.assert_close(weights(beside)[key][[0, 2]], value)
    assert alone.heads[0].bias.dtype == torch.float32
