"""BARACK: its two steps, together and alone, and what they leave behind."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl import BARACK, AttributePredictor, GroupRobustClassifier
from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.groups.label_files import read_group_labels
from lit_ssl.methods.groups.stages import hold_out
from lit_ssl.models import SmallCNN
from lit_ssl.strategies import LocalSGDStrategy

OPTIONS = {
    "num_classes": 2, "lr": 0.05, "weight_decay": 1e-2, "step_size": 0.05, "adjustment": 2.0,
}  # fmt: skip


def digits(fraction=0.1, **kwargs):
    return ColouredMNISTDataModule(batch_size=64, seed=0, group_label_fraction=fraction, **kwargs)


def barack(**kwargs):
    torch.manual_seed(0)
    return BARACK(**{"backbone": SmallCNN(2), "predictor_epochs": 2, **OPTIONS, **kwargs})


def gdro():
    torch.manual_seed(0)
    return GroupRobustClassifier(SmallCNN(2), **OPTIONS)


def test_runs_under_a_strategy_with_local_steps(tiny, tmp_path):
    model, strategy = barack(predictor_epochs=1), LocalSGDStrategy(sync_every=3)
    trainer(tiny, tmp_path, epochs=2, strategy=strategy).fit(model, datamodule=digits())
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def trainer(tiny, folder, epochs=4, **kwargs):
    callbacks = [StepSeeder(), *kwargs.pop("callbacks", [])]
    options = {"num_sanity_val_steps": 0, "limit_train_batches": 4, "limit_val_batches": 2}
    return tiny.trainer(
        **{**options, "max_epochs": epochs, "default_root_dir": folder, **kwargs},
        callbacks=callbacks,
    )


class StartAt(pl.Callback):
    """Count epochs as if some were done already: the order of an epoch depends on its number."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_fit_start(self, trainer, pl_module):
        trainer.fit_loop.epoch_progress.current.processed = self.epoch
        trainer.fit_loop.epoch_progress.current.completed = self.epoch


def parameters(module, names=("backbone", "classifier", "loss")):
    return {n: t for n, t in module.state_dict().items() if n.split(".")[0] in names}


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


def test_with_all_labels_it_is_group_dro_bit_for_bit(tiny, tmp_path):
    model, reference = barack(), gdro()
    assert_same(parameters(model, ("backbone",)), parameters(reference, ("backbone",)))
    trainer(tiny, tmp_path).fit(model, datamodule=digits(1.0))
    run = trainer(tiny, tmp_path, callbacks=[StartAt(2)])
    run.fit(reference, datamodule=digits(1.0))
    assert run.global_step == 8
    assert_same(parameters(model), parameters(reference))


def test_its_file_gives_group_dro_the_same_training(tiny, tmp_path):
    for soft in (False, True):
        folder = tmp_path / str(soft)
        model, reference = barack(soft_groups=soft), gdro()
        trainer(tiny, folder).fit(model, datamodule=digits())
        path = folder / "predicted_groups.csv"
        data = digits(group_labels=str(path))
        if not soft:  # the file always has the probabilities
            hard = [",".join(line.split(",")[:3]) for line in path.read_text().splitlines()]
            path.write_text("\n".join(hard) + "\n")
        trainer(tiny, folder, callbacks=[StartAt(2)]).fit(reference, datamodule=data)
        assert_same(parameters(model), parameters(reference))


@pytest.mark.parametrize("stop", [2, 4, 6, 8, 10])
def test_a_killed_run_continues_exactly(stop, tiny, tmp_path):
    """Killed after some steps of 4 epochs of 4: in step 1, between the steps, in step 2."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "killed.ckpt")

    whole = barack(held_out=0.5)
    data = digits(0.5)
    trainer(tiny, tmp_path / "a", callbacks=[Save()]).fit(whole, datamodule=data)
    again = barack(held_out=0.5)
    trainer(tiny, tmp_path / "b").fit(
        again, datamodule=digits(0.5), ckpt_path=tmp_path / "killed.ckpt"
    )
    assert_same(whole.state_dict(), again.state_dict())
    if stop < 8:  # later ones have the predictions in the checkpoint
        files = [(tmp_path / run / "predicted_groups.csv").read_text() for run in "ab"]
        assert files[0] == files[1]


def test_checkpoint_of_an_epoch_end_continues_exactly(tiny, tmp_path):
    for epoch in (0, 1, 2):
        folder = tmp_path / str(epoch)
        keep = pl.callbacks.ModelCheckpoint(
            folder, "{epoch}", save_top_k=-1, monitor="val/acc_worst", mode="max"
        )
        whole = barack(held_out=0.5)
        trainer(tiny, folder, callbacks=[keep], enable_checkpointing=True).fit(
            whole, datamodule=digits(0.5)
        )
        again = barack(held_out=0.5)
        trainer(tiny, folder).fit(
            again, datamodule=digits(0.5), ckpt_path=folder / f"epoch={epoch}.ckpt"
        )
        assert_same(whole.state_dict(), again.state_dict())


def test_the_files_of_a_run(tiny, tmp_path):
    folder = tmp_path / "run"
    data = digits(0.1)
    run = trainer(tiny, folder, epochs=6, limit_train_batches=40)
    run.fit(barack(predictor_epochs=5), datamodule=data)
    truth = data.true_group_array("train")
    found = read_group_labels(folder / "predicted_groups.csv", len(truth), 2)
    known = data.known("train")
    assert np.array_equal(found.known, known)
    assert np.array_equal(found.attributes[known], truth[known] % 2)
    report = json.loads((folder / "predictor_report.json").read_text())
    assert (report["labelled_rows"], report["training_rows"]) == (320, 3200)
    assert report["selected"] == "last epoch"
    assert report["held_out"] is None
    # quality is measured where the predictor was not fitted, and agrees with the file
    cells = report["unlabelled"]["groups"]
    assert sum(cell["sizes"] for cell in cells.values()) == 2880
    minority = truth == 2
    hits = (found.attributes == truth % 2)[minority & ~known].mean()
    assert cells["5-9, green"]["recall"] == pytest.approx(hits)
    assert hits > 0.9
    assert run.callback_metrics["predictor/unlabelled_recall_2"] == pytest.approx(hits, abs=1e-6)


def test_soft_groups_are_shares_in_the_cells_of_the_label(tiny, tmp_path):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            seen.append((trainer.current_epoch, batch[1], batch[2]))

    model = barack(soft_groups=True)
    trainer(tiny, tmp_path, callbacks=[Watch()]).fit(model, datamodule=digits())
    for epoch, labels, groups in seen:
        if epoch < 2:
            assert (groups >= 0).all()  # step 1 sees labelled rows only
            continue
        assert groups.shape == (64, 4)
        torch.testing.assert_close(groups.sum(dim=1), torch.ones(64))
        assert torch.equal(groups.view(64, 2, 2).sum(dim=2).argmax(dim=1), labels)
    assert model.loss.group_counts.sum().item() == pytest.approx(3200, rel=1e-5)


def test_no_checkpoint_of_the_untrained_classifier_is_selected(tiny, tmp_path):
    keep = pl.callbacks.ModelCheckpoint(tmp_path, "best", monitor="val/acc_worst", mode="max")
    values = []

    class Watch(pl.Callback):
        def on_validation_end(self, trainer, module):
            values.append(trainer.callback_metrics["val/acc_worst"].item())

    run = trainer(tiny, tmp_path, callbacks=[keep, Watch()], enable_checkpointing=True)
    run.fit(barack(), datamodule=digits())
    assert values[:2] == [-1, -1]
    assert min(values[2:]) >= 0
    assert torch.load(keep.best_model_path, weights_only=True)["epoch"] >= 2


def test_the_networks_train_one_at_a_time(tiny, tmp_path):
    model = barack(num_attributes=2)
    start = {name: t.clone() for name, t in model.named_parameters()}
    after = {}

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            after[trainer.current_epoch] = {n: t.clone() for n, t in module.named_parameters()}

    trainer(tiny, tmp_path, callbacks=[Watch()]).fit(model, datamodule=digits())
    moved = {
        epoch: {n.split(".")[0] for n in now if not torch.equal(now[n], before[n])}
        for epoch, now, before in [(0, after[0], start), (3, after[3], after[2])]
    }
    assert moved == {0: {"first"}, 3: {"backbone", "classifier"}}


def test_epoch_of_the_predictor_is_selected_on_held_out_rows(tiny, tmp_path):
    folder = tmp_path / "run"
    data = digits(1.0)
    run = trainer(tiny, folder, limit_train_batches=10)
    run.fit(barack(), datamodule=data)
    report = json.loads((folder / "predictor_report.json").read_text())
    rows = hold_out(data.true_group_array("train"), 4, 0.2, 0)
    assert report["held_out_rows"] == len(rows)
    assert report["selected"].startswith("epoch ")
    assert report["unlabelled"] is None
    counts = [cell["sizes"] for cell in report["held_out"]["groups"].values()]
    assert counts == np.bincount(data.true_group_array("train")[rows]).tolist()


def test_rows_are_held_out_only_where_each_cell_has_enough():
    groups = np.repeat([0, 1, 2, 3, -1], [100, 25, 30, 60, 10])
    rows = hold_out(groups, 4, 0.2, seed=3)
    assert np.bincount(groups[rows]).tolist() == [20, 5, 6, 12]
    assert len(hold_out(np.repeat([0, 1], [100, 24]), 2, 0.2, seed=3)) == 0
    assert len(hold_out(groups, 5, 0.2, seed=3)) == 0


def test_an_attribute_without_labels_stops_before_anything_is_written(tiny, tmp_path):
    data = digits(0.1)
    groups = data.true_group_array
    data.setup("fit")
    only_red = groups("train").copy()
    only_red[only_red % 2 == 0] = -1
    data.group_array = lambda split: only_red if split == "train" else groups(split)
    for model in (barack(), predictor()):
        with pytest.raises(InputError, match=r"training rows with a known attribute has green"):
            trainer(tiny, tmp_path / "run").fit(model, datamodule=data)
    assert not (tmp_path / "run").exists()


def predictor():
    torch.manual_seed(0)
    return AttributePredictor(SmallCNN(2), num_classes=2, lr=0.05)


def test_first_step_alone_then_the_second(tiny, tmp_path):
    folder = tmp_path / "run"
    first = trainer(tiny, folder, epochs=3, limit_train_batches=40)
    first.fit(predictor(), datamodule=digits(0.1))
    assert first.callback_metrics["val/attribute_worst_recall"] > 0.8
    data = digits(group_labels=str(folder / "predicted_groups.csv"))
    second = gdro()
    trainer(tiny, folder).fit(second, datamodule=data)
    assert data.num_labelled == 320
    assert second.loss.group_counts.sum() == 3200


def test_predictor_resumes_exactly(tiny, tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "killed.ckpt")

    whole, again = predictor(), predictor()
    trainer(tiny, tmp_path / "a", callbacks=[Save()]).fit(whole, datamodule=digits(0.5))
    trainer(tiny, tmp_path / "b").fit(
        again, datamodule=digits(0.5), ckpt_path=tmp_path / "killed.ckpt"
    )
    assert_same(whole.state_dict(), again.state_dict())


def test_one_data_module_serves_several_fits(tiny, tmp_path):
    data = digits(0.1)
    results = []
    for _ in range(2):
        model = barack()
        trainer(tiny, tmp_path).fit(model, datamodule=data)
        results.append(model.state_dict())
    assert_same(*results)


def test_checkpoint_of_a_run_loads_without_the_data(tiny, tmp_path):
    model = barack()
    run = trainer(tiny, tmp_path)
    run.fit(model, datamodule=digits())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = BARACK.load_from_checkpoint(tmp_path / "a.ckpt", backbone=SmallCNN(2))
    assert_same(model.state_dict(), loaded.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor_epochs": 0, "num_attributes": 2}, "at least 1 epoch, got 0"),
        ({"held_out": 1.0, "num_attributes": 2}, r"held_out must lie in \[0, 1\)"),
        ({"objective": "erm"}, "has no use for them"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        barack(**options)


def test_too_few_epochs_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="max_epochs=2 leaves none for the classifier"):
        trainer(tiny, tmp_path, epochs=2).fit(barack(), datamodule=digits())
