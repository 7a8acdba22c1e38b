from __future__ import annotations

import csv
import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lit_ssl.callbacks import FactorReport, GroupReport, RepresentationReport, ViewLogger
from lit_ssl.callbacks.reports import kinds as report_features
from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.metrics import draw_labelled, fit_linear_probe, knn_predict, low_shot_accuracies


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


class Slow(pl.LightningModule):
    """Features that are pure noise until trained: ``ready`` is 0 in a fresh module."""

    embed_dim = 64

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(64, 64))

    def forward(self, images):
        return images.flatten(1) @ self.weight

    def training_step(self, batch, batch_idx):
        return (self.weight - 2 * torch.eye(64)).square().sum()

    def test_step(self, batch, batch_idx):
        pass

    validation_step = test_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)  # one step reaches the optimum


def train(make_trainer, data, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="done")
    trainer = make_trainer(callbacks=[keep], max_steps=1, enable_checkpointing=True)
    module = Slow()
    trainer.fit(module, data)
    return module, trainer, tmp_path / "done.ckpt"


def load(folder):
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {row["features"]: row for row in content["rows"]}, content["protocol"]


def test_rows_equal_a_computation_by_hand(toys, make_trainer, tmp_path):
    data = toys.ToyData()
    module, _, checkpoint = train(make_trainer, data, tmp_path)
    trainer = make_trainer(callbacks=[RepresentationReport(shots=(1, 3), draws=2, k=5)])
    trainer.test(Slow(), data, ckpt_path=checkpoint, verbose=False)
    rows, protocol = load(tmp_path)
    bank, queries = (data.normalise(part.images).flatten(1) for part in (data.bank, data.test))
    scaled = bank @ module.weight.detach(), queries @ module.weight.detach()
    for name, (known, asked) in {"trained": scaled, "pixels": (bank, queries)}.items():
        row = rows[name]
        ranked = knn_predict(known, data.bank.labels, asked, 4, k=5)[:, 0]
        assert row["knn_acc1"] == pytest.approx((ranked == data.test.labels).float().mean().item())
        probe = fit_linear_probe(known, data.bank.labels, 4)
        hits = probe.predict(asked) == data.test.labels
        assert row["linear_acc1"] == pytest.approx(hits.float().mean().item())
        supports = [draw_labelled(data.bank.labels, 3, seed) for seed in range(2)]
        shots = torch.tensor(
            low_shot_accuracies(known, data.bank.labels, asked, data.test.labels, 4, supports)
        )
        assert row["lowshot_3_acc1"] == pytest.approx(shots.mean().item())
        assert row["lowshot_3_std"] == pytest.approx(shots.std().item(), abs=1e-6)
    # The untrained module maps everything to zero: four classes, chance.
    assert rows["untrained"]["linear_acc1"] < 0.4
    assert rows["trained"]["knn_acc1"] == rows["pixels"]["knn_acc1"] > 0.8
    assert protocol["bank"] == 41
    assert protocol["queries"] == 15
    assert protocol["checkpoint"] == str(checkpoint)
    assert protocol["notes"] == []


def test_untrained_row_is_from_before_the_checkpoint_was_restored(toys, make_trainer, tmp_path):
    data = toys.ToyData()
    *_, checkpoint = train(make_trainer, data, tmp_path)
    callback = RepresentationReport(shots=(1,), draws=1)
    module = Slow()
    make_trainer(callbacks=[callback]).validate(module, data, ckpt_path=checkpoint, verbose=False)
    assert module.weight.diagonal().eq(2).all()
    assert callback._untrained.weight.eq(0).all()


def test_fit_and_test_with_one_trainer_reports_the_module_before_fit(toys, make_trainer, tmp_path):
    callback = RepresentationReport(shots=(1,), draws=1, baselines=["untrained"])
    trainer = make_trainer(callbacks=[callback], max_steps=1)
    module, data = Slow(), toys.ToyData()
    trainer.fit(module, data)
    assert not (tmp_path / "report.json").exists()  # validation inside fit is no occasion
    trainer.test(module, data, verbose=False)
    rows, _ = load(tmp_path)
    assert rows["untrained"]["linear_acc1"] < 0.4 < rows["trained"]["linear_acc1"]


def test_no_untrained_row_when_it_would_be_wrong(toys, make_trainer, tmp_path, capsys):
    data = toys.ToyData()
    module, trainer, _ = train(make_trainer, data, tmp_path)
    trainer.callbacks.append(RepresentationReport(shots=(1,), draws=1))
    trainer.test(module, data, verbose=False)
    rows, protocol = load(tmp_path)
    assert list(rows) == ["trained", "pixels"]
    assert protocol["notes"] == [
        "No untrained row: the module had been trained before this callback saw it."
    ]
    assert "No untrained row: the module had been trained before" in capsys.readouterr().out

    make_trainer(callbacks=[RepresentationReport(shots=(1,), draws=1)]).test(
        Slow(), data, verbose=False
    )
    rows, protocol = load(tmp_path / "lit_ssl_runs/version_0")  # the first report stays
    assert list(rows) == ["as given", "pixels"]  # nobody knows of any training
    assert "still has the weights it was built with (give ckpt_path)" in protocol["notes"][0]


def test_layers_built_in_configure_model_are_noticed(toys, make_trainer, tmp_path):
    class Late(Slow):
        def __init__(self):
            super().__init__()
            del self.weight

        def configure_model(self):
            self.weight = torch.nn.Parameter(torch.eye(64))

    make_trainer(callbacks=[RepresentationReport(shots=(1,), draws=1)]).test(
        Late(), toys.ToyData(), verbose=False
    )
    assert "built its layers after setup (configure_model)" in load(tmp_path)[1]["notes"][0]


def test_pixels_that_do_not_fit_are_left_out(toys, make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(report_features, "_MAX_PIXEL_BYTES", 41 * 64 * 4 - 1)
    callback = RepresentationReport(shots=(1,), draws=1, baselines=["pixels"])
    make_trainer(callbacks=[callback]).test(Slow(), toys.ToyData(), verbose=False)
    rows, protocol = load(tmp_path)
    assert list(rows) == ["as given"]
    assert "41 images of 64 values would take" in protocol["notes"][0]


def test_printed_table_protocol_and_places(toys, make_trainer, tmp_path, capsys):
    logger = TensorBoardLogger(tmp_path, name="run")
    keep = ModelCheckpoint(filename="done")
    trainer = make_trainer(
        callbacks=[keep, ViewLogger()], max_steps=1, logger=logger, enable_checkpointing=True
    )
    data = toys.ToyData()
    trainer.fit(Slow(), data)
    run = tmp_path / "run/version_0"
    capsys.readouterr()
    make_trainer(callbacks=[RepresentationReport(draws=2)]).test(
        Slow(), data, ckpt_path=run / "checkpoints/done.ckpt", verbose=False
    )
    out = capsys.readouterr().out
    for text in ("features", "k-NN", "linear", "1-shot", "2-shot", "5-shot", "trained", "pixels"):
        assert text in out
    assert "on 15 test images; bank: 41 training images" in out
    assert "k 20, T 0.07" in out
    assert "l2 0.0025, mean ± standard deviation of 2 draws" in out
    for place in (
        tmp_path / "report.json",
        run / "checkpoints/done.ckpt",
        f"tensorboard --logdir {run}",
        run / "views/epoch_0000.png",
    ):
        assert any(line.endswith(str(place)) for line in out.splitlines()), place
    with (tmp_path / "report.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    rows, _ = load(tmp_path)
    assert [row["features"] for row in table] == list(rows) == ["trained", "untrained", "pixels"]
    assert float(table[0]["lowshot_5_acc1"]) == rows["trained"]["lowshot_5_acc1"]


def test_output_folder_and_fast_dev_run(toys, make_trainer, tmp_path, capsys):
    callback = RepresentationReport(shots=(1,), draws=1, output=str(tmp_path / "elsewhere/deep"))
    make_trainer(callbacks=[callback]).test(Slow(), toys.ToyData(), verbose=False)
    assert (tmp_path / "elsewhere/deep/report.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["elsewhere"]
    capsys.readouterr()
    quick = RepresentationReport(output=str(tmp_path / "never"))
    make_trainer(callbacks=[quick], fast_dev_run=True).test(Slow(), toys.ToyData(), verbose=False)
    assert "as given" in capsys.readouterr().out
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_report_names_its_weights_and_command(toys, make_trainer, tmp_path, command):
    data = toys.ToyData()
    *_, checkpoint = train(make_trainer, data, tmp_path / "run")

    def report(folder, module, **settings):
        callback = RepresentationReport(shots=(), protocols=["knn"], baselines=[], output=folder)
        trainer = make_trainer(callbacks=[callback], max_steps=1)
        if settings.pop("fit", False):
            trainer.fit(module, data)
        getattr(trainer, command)(module, data, verbose=False, **settings)
        rows, protocol = load(Path(folder))
        names = ("command", "checkpoint", "weights", "steps")
        return list(rows), [protocol[name] for name in names]

    started = Slow()
    started.pretrained = str(tmp_path / "official.pth")
    path = str(checkpoint)
    assert report(tmp_path / "a", Slow()) == (["as given"], [command, None, None, None])
    assert report(tmp_path / "b", Slow(), ckpt_path=checkpoint) == (
        ["trained"], [command, path, None, None],
    )  # fmt: skip
    assert report(tmp_path / "c", started) == (
        ["trained"], [command, started.pretrained, started.pretrained, None],
    )  # fmt: skip
    assert report(tmp_path / "d", started, ckpt_path=checkpoint) == (
        ["trained"], [command, path, started.pretrained, None],
    )  # fmt: skip
    assert report(tmp_path / "e", started, fit=True) == (
        ["trained"], [command, None, started.pretrained, 1],
    )  # fmt: skip

    callback = RepresentationReport(
        shots=(), protocols=["knn"], baselines=[], output=tmp_path / "f"
    )
    trainer = make_trainer(callbacks=[callback], max_steps=1)
    trainer.fit(Slow(), data)
    getattr(trainer, command)(Slow(), data, verbose=False)  # another module than was fitted
    rows, protocol = load(tmp_path / "f")
    assert (list(rows), protocol["steps"]) == (["as given"], None)


@pytest.mark.parametrize("kind", [RepresentationReport, GroupReport, FactorReport])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    toys, make_trainer, tmp_path, kind
):
    (tmp_path / "file").touch()

    class Unused(Slow):
        def test_step(self, batch, batch_idx):
            raise AssertionError("it works for nothing")

    data = toys.ToyData()
    data.annotations = FactorAnnotations.__new__(FactorAnnotations)
    callback = kind(output=str(tmp_path / "file/deep"))
    with pytest.raises(InputError, match=rf"{kind.__name__}: output .*deep: .*file is no folder"):
        make_trainer(callbacks=[callback]).test(Unused(), data, verbose=False)


def test_report_draws_nothing_from_the_global_generators(toys, make_trainer):
    module, data = toys.ToyModule(), toys.ToyData()
    states = []

    class Check(pl.Callback):
        def on_test_batch_end(self, *args):
            states[:] = [torch.get_rng_state()]

        def on_test_end(self, trainer, pl_module):
            states.append(torch.get_rng_state())

    make_trainer(callbacks=[RepresentationReport(draws=1), Check()]).test(
        module, data, verbose=False
    )
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": [0]}, "needs shots"),
        ({"protocols": ["knn", "mlp"]}, r"some of the protocols \['knn'.* got .*'mlp'"),
        ({"draws": 0}, "needs shots, draws"),
        ({"baselines": ["random"]}, r"baselines 'untrained' and 'pixels', got \['random'\]"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RepresentationReport(**settings)
