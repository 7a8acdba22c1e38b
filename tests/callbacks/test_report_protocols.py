from __future__ import annotations

import json
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.callbacks import LabelledSet, RepresentationReport
from lit_ssl.datamodules import MNIST5kDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.metrics import (
    draw_labelled,
    low_shot_accuracies,
    soft_nearest_neighbor,
    topk_accuracy,
)
from lit_ssl.transforms import CropSpec, MultiCrop


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


class Pixels(pl.LightningModule):
    """Features are pixels; ``embed`` is something else, and counts its images."""

    embed_dim = 64

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        return images.flatten(1)

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step


class Embeds(Pixels):
    def embed(self, images):
        self.seen += len(images)
        return images.flatten(1)[:, ::2]


class Listing:
    """What data modules of the package do, for toys: lists of numbers."""

    def positions(self, subset):
        if "file" in subset:
            numbers = np.loadtxt(subset["file"], dtype=np.int64, ndmin=1)
            if numbers.max() >= len(self.bank):
                raise ValueError(f"not among the {len(self.bank)} training images")
            return np.sort(numbers)
        rng = np.random.default_rng(subset["seed"])
        count = round(subset["fraction"] * len(self.bank))
        return np.sort(rng.permutation(len(self.bank))[:count])


def load(folder):
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {row["features"]: row for row in content["rows"]}, content["protocol"]


def run(make_trainer, module, data, command="test", **settings):
    callback = RepresentationReport(**{"baselines": [], "draws": 2, "shots": (1, 2), **settings})
    trainer = make_trainer(callbacks=[callback])
    getattr(trainer, command)(module, data, verbose=False)
    return trainer


def test_paws_nn_with_the_bank_and_with_few_of_it(toys, make_trainer, tmp_path):
    data = toys.ToyData()
    run(make_trainer, Pixels(), data, soft_nn_temperature=0.05)
    assert data.bank_passes == 1
    rows, protocol = load(tmp_path)
    row = rows["as given"]
    bank, asked = (data.normalise(part.images).flatten(1) for part in (data.bank, data.test))

    def accuracy(supports):
        probs = soft_nearest_neighbor(
            asked, bank[supports], data.bank.labels[supports], 0.05, num_classes=4
        )
        return topk_accuracy(probs.argsort(1, descending=True), data.test.labels)

    assert row["soft_nn_acc1"] == pytest.approx(accuracy(torch.arange(41)))
    few = torch.tensor([accuracy(draw_labelled(data.bank.labels, 2, s)) for s in range(2)])
    assert row["soft_nn_2_acc1"] == pytest.approx(few.mean().item())
    assert row["soft_nn_2_std"] == pytest.approx(few.std().item(), abs=1e-6)
    assert protocol["soft_nn"] == {
        "feature_method": "forward", "temperature": 0.05, "supports": 41, "are_bank": True,
    }  # fmt: skip


def test_lists_and_fractions(toys, make_trainer, tmp_path):
    class Data(Listing, toys.ToyData):
        pass

    data = Data()
    data.bank.labels[:3] = -1  # rows of the labelled bank are other numbers than places
    lists = [[3, 4, 5, 6], [7, 8, 9, 10, 40]]
    files = []
    for number, places in enumerate(lists):
        files.append(str(tmp_path / f"list{number}.txt"))
        (tmp_path / files[-1]).write_text("\n".join(map(str, places)))
    half = np.concatenate([Data().positions({"fraction": 0.5, "seed": s}) for s in range(2)])
    assert (half < 3).any()
    sets = {"official": LabelledSet(files, l2=0.075)}
    run(make_trainer, Pixels(), data, label_sets=sets)
    rows, protocol = load(tmp_path)
    row = rows["as given"]
    bank, asked = (data.normalise(part.images).flatten(1) for part in (data.bank, data.test))
    supports = [torch.tensor(places) for places in lists]
    values = torch.tensor(
        low_shot_accuracies(bank, data.bank.labels, asked, data.test.labels, 4, supports, l2=0.075)
    )
    assert row["lowshot_official_acc1"] == pytest.approx(values.mean().item())
    assert row["lowshot_official_std"] == pytest.approx(values.std().item(), abs=1e-6)
    probs = [soft_nearest_neighbor(asked, bank[s], data.bank.labels[s], 0.1, 4) for s in supports]
    hits = torch.tensor([(p.argmax(1) == data.test.labels).float().mean() for p in probs])
    assert row["soft_nn_official_acc1"] == pytest.approx(hits.mean().item())
    assert protocol["label_sets"]["official"] == {
        "files": files, "fraction": None, "l2": 0.075, "images": [4, 5],
    }  # fmt: skip

    with pytest.raises(ValueError, match="'half' holds images whose label is not known"):
        run(make_trainer, Pixels(), data, label_sets={"half": LabelledSet(fraction=0.5)})
    data.bank.labels[:3] = 0
    run(make_trainer, Pixels(), data, label_sets={"half": LabelledSet(fraction=0.5)})
    second = tmp_path / "lit_ssl_runs/version_0"  # the first report stays
    assert load(second)[1]["label_sets"]["half"]["images"] == [20, 20]


def test_lists_of_the_packages_data_modules(make_trainer, tmp_path):
    digits = MNIST5kDataModule(batch_size=500, num_workers=0, val_size=0)
    labels = digits.labels("train")
    places = [np.flatnonzero(labels == c)[3] for c in range(10)]
    (tmp_path / "one.txt").write_text("\n".join(map(str, places)))
    sets = {"one": LabelledSet([str(tmp_path / "one.txt")]), "1pct": LabelledSet(fraction=0.01)}
    run(make_trainer, Pixels(), digits, protocols=["low_shot"], shots=[], label_sets=sets)
    rows, protocol = load(tmp_path)
    assert list(rows["as given"]) == [
        "features", "lowshot_one_acc1", "lowshot_one_std", "lowshot_1pct_acc1", "lowshot_1pct_std",
    ]  # fmt: skip
    assert rows["as given"]["lowshot_one_std"] == 0 < rows["as given"]["lowshot_1pct_std"]
    assert 0.3 < rows["as given"]["lowshot_one_acc1"] < rows["as given"]["lowshot_1pct_acc1"] < 0.9
    assert protocol["label_sets"]["1pct"]["images"] == [40, 40]


def test_the_labelled_images_of_two_streams_are_the_supports(make_trainer, tmp_path):
    crops = MultiCrop([CropSpec(size=8, count=2)])
    digits = MNIST5kDataModule(batch_size=500, num_workers=0, train_transform=crops)
    data = SemiSupervisedDataModule(digits, subset=Subset(per_class=3), images_per_class=2)
    module = Embeds()
    run(make_trainer, module, data, protocols=["soft_nn"])
    rows, protocol = load(tmp_path)
    assert module.seen == 30 + 1000  # the bank is not asked for
    assert protocol["bank"] is None
    assert protocol["soft_nn"]["supports"] == 30
    assert protocol["soft_nn"]["feature_method"] == "embed"
    row = rows["as given"]
    assert row["soft_nn_1_acc1"] < row["soft_nn_acc1"] < row["soft_nn_acc5"] < 1
    with pytest.warns(UserWarning, match="10 classes of the labelled images have fewer than 4"):
        run(make_trainer, module, data, protocols=["soft_nn"], shots=[4])


def test_baselines_have_the_same_fields_and_validate_prints_them(
    toys, make_trainer, tmp_path, capsys
):
    class Data(Listing, toys.ToyData):
        pass

    sets = {"tenth": LabelledSet(fraction=0.25, l2=0.075)}
    run(make_trainer, Embeds(), Data(), "validate", baselines=["pixels"], label_sets=sets)
    rows, protocol = load(tmp_path)
    assert list(rows["pixels"]) == list(rows["as given"])
    assert protocol["split"] == "val"
    assert rows["pixels"]["knn_acc1"] == rows["as given"]["knn_acc1"]
    assert not any(math.isnan(v) for v in rows["pixels"].values() if not isinstance(v, str))
    # other features than the bank's, so the sets cannot be picked out of them
    assert "soft_nn_tenth_acc1" not in rows["as given"]
    out = capsys.readouterr().out
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if line.count("│") > 2}
    assert list(lines) == [
        "k-NN", "linear", "1-shot", "2-shot", "tenth",
        "PAWS-NN", "1-shot PAWS-NN", "2-shot PAWS-NN",
    ]  # fmt: skip
    assert f"{100 * rows['as given']['soft_nn_acc1']:.1f}" in lines["PAWS-NN"]
    assert "on 13 val images" in out
    assert "τ 0.1, over the bank; features: embed(images); n-shot" in out
    assert "tenth: 10 images drawn at random, 25 % of the bank, 2 times; logistic" in out


def test_debugging_runs_leave_the_sets_out(toys, make_trainer, capsys):
    class Data(Listing, toys.ToyData):
        pass

    callback = RepresentationReport(label_sets={"half": LabelledSet(fraction=0.5)})
    make_trainer(callbacks=[callback], fast_dev_run=True).test(Pixels(), Data(), verbose=False)
    out = capsys.readouterr().out
    assert "PAWS-NN" in out
    assert "half" not in out


def test_what_is_wrong_with_sets_is_named(toys, make_trainer):
    class Data(Listing, toys.ToyData):
        pass

    for arguments, message in (
        ({}, "either files or fraction"),
        ({"files": ["a"], "fraction": 0.1}, "either files or fraction"),
        ({"files": "a.txt"}, "must be a list of names, got 'a.txt'"),
        ({"fraction": 2.0}, r"must be in \(0, 1\], got 2.0"),
        ({"fraction": 0.1, "l2": 0.0}, "l2 of a labelled set must be > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            LabelledSet(**arguments)
    half = LabelledSet(fraction=0.5)
    for name in ("2", "1 %"):
        with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
            RepresentationReport(shots=[1, 2], label_sets={name: half})
    module = Pixels()
    with pytest.raises(AttributeError, match=r"ToyData has no positions\(subset\)"):
        run(make_trainer, module, toys.ToyData(), label_sets={"half": half})
    with pytest.raises(FileNotFoundError):
        run(make_trainer, module, Data(), label_sets={"a": LabelledSet(["absent.txt"])})
    short = Data()
    short.bank_dataloader = short.val_dataloader
    with pytest.raises(ValueError, match="but bank_dataloader\\(\\) served only 13"):
        run(make_trainer, module, short, label_sets={"half": half})
