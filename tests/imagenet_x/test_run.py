"""One command evaluates a classifier: every kind of model, every layout, and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from lit_ssl.callbacks import FactorReport
from lit_ssl.datamodules import ImageNetXDataModule
from lit_ssl.errors import InputError
from lit_ssl.imagenet_x.annotations import read_annotations
from lit_ssl.imagenet_x.predictions import read_predictions
from lit_ssl.methods import ImageClassifier, LinearEvaluation, PretrainedClassifier
from lit_ssl.metrics import FactorScores

TIMM = ("timm:test_vit", '{"num_classes": 20, "img_size": 32, "patch_size": 16}')
FILES = ("factors.csv", "factors.json", "factors.md", "factors.png", "metaclasses.csv")


def words(root, folder, model, kwargs="{}", **options):
    options = {"data.num_workers": 0, "data.batch_size": 16, **options}
    return [
        "validate",
        "--config",
        "imagenetx/vit_base_timm.yaml",
        f"--model.model={model}",
        f"--model.model_kwargs={kwargs}",
        "--model.pretrained=false",
        f"--data.root={root}",
        f"--data.annotations={folder}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def report_folder(tmp_path):
    (found,) = tmp_path.glob("lightning_logs/version_*")
    return found


def test_one_command_from_model_to_report(
    lit_ssl, tmp_path, folder, write_images, predict, write_predictions_file
):
    write_images(tmp_path / "val", range(1, 61))
    other = write_predictions_file(predict(name="other"))
    options = {"trainer.callbacks.compare": f"[{other}]"}
    result = lit_ssl(*words(tmp_path, folder, *TIMM, **options))
    assert result.code == 0, result.err
    out = report_folder(tmp_path)
    for name in FILES:
        assert (out / name).stat().st_size > 0, name
    assert (out / "factors.png").read_bytes()[:4] == b"\x89PNG"
    for text in ("Error ratio by factor", "From other to test_vit", "†: fewer than 100 images"):
        assert text in result.out
    content = json.loads((out / "factors.json").read_text())
    assert [model["model"] for model in content["models"]] == ["other", "test_vit"]
    assert content["protocol"]["preprocessing"].startswith("timm's for test_vit: 32 pixels")
    # the file of predictions is the official format, of all images, and gives the same table
    annotations = read_annotations(str(folder))
    again = FactorScores(read_predictions(out / "predictions.csv", annotations), annotations)
    assert content["models"][1]["accuracy"] == pytest.approx(again.table().average, abs=1e-12)
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert 1 / 20 < float(rows[0]["predicted_probability"]) < 1
    # the plot is in TensorBoard's file, too
    (events,) = out.glob("events.out.tfevents.*")
    assert events.stat().st_size > (out / "factors.png").stat().st_size / 4


def test_predictions_are_those_of_the_model_with_its_own_transform(
    lit_ssl, tmp_path, folder, write_images
):
    import timm
    from PIL import Image

    write_images(tmp_path / "val", range(1, 61))
    assert lit_ssl(*words(tmp_path, folder, *TIMM), "--seed_everything=3").code == 0
    predictions = read_predictions(
        report_folder(tmp_path) / "predictions.csv", read_annotations(str(folder))
    )
    pl.seed_everything(3)
    model = timm.create_model("test_vit", num_classes=20, img_size=32, patch_size=16).eval()
    config = timm.data.resolve_model_data_config(model, args={"img_size": 32})
    transform = timm.data.create_transform(**config, is_training=False)
    paths = sorted((tmp_path / "val").iterdir())
    batch = torch.stack([transform(Image.open(path)) for path in paths])
    with torch.no_grad():
        top = model(batch).softmax(dim=1).max(dim=1)
    assert predictions.classes[1:].tolist() == top.indices.tolist()
    np.testing.assert_allclose(predictions.probability[1:], top.values, atol=2e-5)


@pytest.mark.parametrize(
    "names",
    [
        lambda n: f"val/n{n % 3:08d}/ILSVRC2012_val_{n:08d}.JPEG",
        lambda n: f"ILSVRC2012_val_{n:08d}_n01440764.JPEG",
        lambda n: f"validation/part/ILSVRC2012_val_{n:08d}.png",
    ],
    ids=["class folders", "names of the hub", "nested"],
)
def test_layouts_do_not_matter(tmp_path, folder, write_images, made_up, names):
    root = write_images(tmp_path / "images", range(1, 61), names)
    (root / "notes.txt").touch()
    data = ImageNetXDataModule(
        root=str(root), annotations=str(folder), transform="vanilla", num_workers=0, batch_size=25
    )
    data.setup("validate")
    images, labels, numbers = map(torch.cat, zip(*data.val_dataloader(), strict=True))
    assert numbers.tolist() == list(range(1, 61))
    assert labels.tolist() == made_up.labels.tolist()
    assert (images.dtype, images.shape) == (torch.uint8, (60, 3, 224, 224))
    finished, _, _ = data.on_after_batch_transfer((images[:2], labels[:2], numbers[:2]), 0)
    expected = (images[0, 0, 0, 0] / 255 - 0.485) / 0.229
    assert finished[0, 0, 0, 0].item() == pytest.approx(expected.item(), abs=1e-6)
    assert data.num_classes == 20


def test_only_the_annotated_images(tmp_path, folder, write_images, made_up):
    root = write_images(tmp_path / "images", range(1, 61))
    data = ImageNetXDataModule(
        root=str(root), annotations=str(folder), transform="vanilla", images="annotated"
    )
    data.setup()
    kept = np.setdiff1d(made_up.annotated, made_up.prototypes)
    assert data.column("image_number", "val").tolist() == kept.tolist()


@pytest.mark.parametrize("kind", ["timm", "torchvision", "hf", "ckpt"])
def test_models_of_every_origin(lit_ssl, tmp_path, folder, write_images, kind):
    write_images(tmp_path / "val", range(1, 61))
    options = {"trainer.logger": "false", "data.batch_size": 60}
    if kind == "timm":
        call = TIMM
    elif kind == "torchvision":
        call = ("torchvision:squeezenet1_1@IMAGENET1K_V1", '{"num_classes": 20}')
    elif kind == "hf":
        call = (f"hf:{hf_folder(tmp_path)}", "{}")
    else:
        call = (own_checkpoint(lit_ssl, tmp_path), "{}")
    result = lit_ssl(*words(tmp_path, folder, *call, **options))
    assert result.code == 0, result.err
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(rows) == 61
    assert "Accuracy by factor" in result.out


def hf_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, num_labels=20,
    )  # fmt: skip
    out = tmp_path / "tiny_vit"
    transformers.ViTForImageClassification(config).save_pretrained(out)
    (out / "preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
        )
    )
    return out


def own_checkpoint(lit_ssl, tmp_path):
    """A checkpoint of `lit-ssl fit` with ImageClassifier on twenty classes of noise."""
    from PIL import Image

    for label in range(20):
        path = tmp_path / "train_images" / f"c{label:02d}" / "0.png"
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    result = lit_ssl(
        "fit", "--model=ImageClassifier", "--model.backbone=test_vit",
        "--model.backbone_kwargs={img_size: 32, patch_size: 16}", "--model.warmup_epochs=0",
        "--data=ImageFolderDataModule", f"--data.root={tmp_path / 'train_images'}",
        "--data.image_size=32", "--data.batch_size=10", "--data.num_workers=0",
        "--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    (path,) = (tmp_path / "checkpoints").glob("*.ckpt")
    return path


def test_the_best_head_of_a_linear_evaluation(tmp_path):
    arguments = {
        "backbone": "test_vit",
        "backbone_kwargs": {"img_size": 32, "patch_size": 16},
        "num_classes": 5,
        "features": ["token-1", "mean"],
        "learning_rates": [0.1, 0.2],
    }
    module = LinearEvaluation(**arguments).eval()
    for heads in module.heads:
        torch.nn.init.normal_(heads.weight)
    module.val_acc1.copy_(torch.tensor([0.1, 0.2, torch.nan, 0.9]))
    content = {
        "state_dict": module.state_dict(),
        "pytorch-lightning_version": pl.__version__,
        "hyper_parameters": {**arguments, "_class_path": "lit_ssl.methods.LinearEvaluation"},
        "datamodule_hyper_parameters": {"image_size": 32, "std": [0.5, 0.5, 0.5]},
    }
    torch.save(content, tmp_path / "probe.ckpt")
    loaded = PretrainedClassifier(str(tmp_path / "probe.ckpt"), num_classes=5).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = module.heads[1](module.extract(images)[1])[1]  # kind "mean", second rate
        torch.testing.assert_close(loaded(images), expected)
    assert loaded.preprocessing.text == "resize 37 (bilinear), centre crop 32"
    assert loaded.preprocessing.std == (0.5, 0.5, 0.5)
    assert loaded.model_name == "LinearEvaluation (probe.ckpt)"


def test_own_annotations(lit_ssl, tmp_path, write_images):
    write_images(tmp_path / "mine", range(1, 9), lambda n: f"{n % 2}/photo{n}.png")
    table = tmp_path / "mine.csv"
    rows = [f"{n % 2}/photo{n}.png,{n % 3},{int(n > 4)},{int(n % 2)}" for n in range(1, 9)]
    table.write_text("\n".join(["file_name,label,night,rain", *rows]))
    options = {"trainer.logger": "false"}
    result = lit_ssl(*words(tmp_path / "mine", table, *TIMM, **options))
    assert result.code == 0, result.err
    content = json.loads((tmp_path / "factors.json").read_text())
    (model,) = content["models"]
    assert {row["factor"]: row["images"] for row in model["factors"]} == {"night": 4, "rain": 4}
    assert content["protocol"]["annotations"] == "mine.csv"
    assert (tmp_path / "predictions.csv").read_text().splitlines()[1].startswith("1/photo1.png,")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_give_the_report_of_one(lit_ssl, tmp_path, folder, write_images):
    write_images(tmp_path / "val", [n for n in range(1, 61) if n != 60])  # does not divide evenly
    call = words(tmp_path, folder, *TIMM, **{"trainer.logger": "false", "data.partial": "true"})
    assert lit_ssl(*call).code == 0
    one = {name: (tmp_path / name).read_bytes() for name in ("factors.csv", "predictions.csv")}
    done = subprocess.run(
        [sys.executable, "-m", "lit_ssl", *call, "--trainer.devices=2", "--trainer.strategy=ddp"],
        cwd=tmp_path, capture_output=True, text=True, timeout=250,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Accuracy by factor") == 1
    folder = tmp_path / "lit_ssl_runs/version_0"  # the files of one process stay
    assert (folder / "factors.csv").read_bytes() == one["factors.csv"]
    for new, old in zip(
        (folder / "predictions.csv").read_text().splitlines()[1:],
        one["predictions.csv"].decode().splitlines()[1:],
        strict=True,
    ):
        (*head, p), (*expected, q) = new.split(","), old.split(",")
        assert head == expected
        assert float(p) == pytest.approx(float(q), abs=1e-5)


# what goes wrong


def test_heads_of_other_classes_are_refused(lit_ssl, tmp_path, folder, write_images):
    write_images(tmp_path / "val", range(1, 61))
    kwargs = '{"num_classes": 21, "img_size": 32, "patch_size": 16}'
    result = lit_ssl(*words(tmp_path, folder, "timm:test_vit", kwargs))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "test_vit has 21 outputs and the data have 20 classes" in result.err
    assert "background_first" in result.err
    mapped = words(tmp_path, folder, "timm:test_vit", kwargs)
    assert lit_ssl(*mapped, "--model.class_map=background_first").code == 0
    listed = tmp_path / "map.txt"
    listed.write_text("\n".join(map(str, range(20, 0, -1))))
    assert lit_ssl(*mapped, f"--model.class_map={listed}").code == 0
    listed.write_text("\n".join(map(str, range(2, 22))))
    result = lit_ssl(*mapped, f"--model.class_map={listed}")
    assert "20 positions from 2 to 21: expected one for each of 20 classes, below 21" in result.err


def test_class_map_takes_the_named_outputs():
    class Fixed(torch.nn.Module):
        num_classes = 4

        def forward(self, images):
            return torch.arange(4.0).expand(len(images), 4)

    images = torch.zeros(2, 3, 8, 8)
    assert PretrainedClassifier(Fixed())(images)[0].tolist() == [0, 1, 2, 3]
    assert PretrainedClassifier(Fixed(), class_map=[3, 0])(images)[0].tolist() == [3, 0]
    with pytest.raises(ValueError, match="from 3 to 4: expected one for each class, below 4"):
        PretrainedClassifier(Fixed(), class_map=[3, 4])
    background = PretrainedClassifier(Fixed(), class_map="background_first", num_classes=3)
    assert background(images)[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm:test_vitt", "timm has no model 'test_vitt'. Did you mean test_vit"),
        (
            "torchvision:resnet51",
            "torchvision has no classifier 'resnet51'. Did you mean resnet18 or resnet50",
        ),
        ("torchvision:resnet50@V7", "resnet50 has no weights 'V7'"),
        ("resnet50", "model 'resnet50' is none of timm:NAME"),
        ("absent.ckpt", "no checkpoint absent.ckpt"),
        ("hf:./absent", "hf:./absent cannot be loaded: "),
    ],
)
def test_unknown_models(lit_ssl, tmp_path, folder, write_images, model, message):
    result = lit_ssl(*words(tmp_path, folder, model))
    assert result.code == 2, result.err
    assert message in result.err
    assert result.err.rstrip().count("\n") == 0


def test_a_checkpoint_without_a_classifier(tmp_path):
    path = tmp_path / "a.ckpt"
    content = {"state_dict": {}, "hyper_parameters": {"_class_path": "lit_ssl.methods.MSN"}}
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"holds a MSN, which has no classifier.*ImageClassifier"):
        PretrainedClassifier(str(path))
    torch.save({"state_dict": {}, "hyper_parameters": {}}, path)
    with pytest.raises(ValueError, match="was made in Python"):
        PretrainedClassifier(str(path))


def test_missing_doubled_and_foreign_images(lit_ssl, tmp_path, folder, write_images, made_up):
    command = words(tmp_path / "val", folder, *TIMM)
    write_images(tmp_path / "val", range(1, 5), lambda n: f"n{n}.JPEG")
    assert "found none in 4 image files" in lit_ssl(*command).err
    some = [n for n in range(1, 61) if n != made_up.annotated[0]]
    write_images(tmp_path / "val", some)
    missing = lit_ssl(*command)
    assert missing.code == 2
    assert "lacks 1 of the 50 annotated images" in missing.err
    assert not list(tmp_path.glob("lightning_logs/*"))
    partial = lit_ssl(*command, "--data.partial=true")  # the one decision, the report's too
    assert partial.code == 0, partial.err
    assert "PARTIAL: 50 are annotated" in partial.out
    only = np.setdiff1d(range(1, 61), made_up.annotated)
    write_images(tmp_path / "others", only)
    none = lit_ssl(*words(tmp_path / "others", folder, *TIMM), "--data.partial=true")
    assert (none.code, "lacks 50 of the 50 annotated" in none.err) == (2, True), none.err
    write_images(tmp_path / "val", [7], lambda n: f"copy/ILSVRC2012_val_{n:08d}.JPEG")
    assert "1 images are twice in" in lit_ssl(*command).err


class Unchecked(ImageNetXDataModule):
    """Serves fewer images than are annotated, and does not say so."""

    def _check(self, folder, names, numbers):
        pass


def test_predictions_are_written_before_they_are_judged(
    tmp_path, folder, write_images, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "val", range(17, 61))
    arguments = {"num_classes": 20, "img_size": 32, "patch_size": 16}

    def validate(**options):
        data = Unchecked(
            root="val", annotations=str(folder), transform="vanilla", num_workers=0, batch_size=16
        )
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False,
            callbacks=[FactorReport(plot=False, **options)],
        )  # fmt: skip
        module = PretrainedClassifier(
            "timm:test_vit", model_kwargs=arguments, num_classes=20, pretrained=False
        )
        trainer.validate(module, data, verbose=False)

    with pytest.raises(InputError, match="has no prediction for"):
        validate()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 44 + 1
    assert not (tmp_path / "factors.csv").exists()
    validate(partial=True)  # for data that do not say it
    assert (tmp_path / "lit_ssl_runs/version_0/factors.csv").exists()


def test_a_trainer_with_limits_makes_a_partial_report(lit_ssl, tmp_path, folder, write_images):
    write_images(tmp_path / "val", range(1, 61))
    for batches in (1, 2):  # 1 is one batch, and not all, which is 1.0
        result = lit_ssl(*words(tmp_path, folder, *TIMM), f"--trainer.limit_val_batches={batches}")
        assert result.code == 0, result.err
        assert "PARTIAL: 50 are annotated" in result.out
    for whole in ("--trainer.limit_val_batches=1.0", "--trainer.limit_test_batches=1"):
        result = lit_ssl(*words(tmp_path, folder, *TIMM), whole)
        assert "PARTIAL" not in result.out
    dev = lit_ssl(*words(tmp_path / "val", folder, *TIMM), "--trainer.fast_dev_run=true")
    assert dev.code == 0, dev.err
    assert not (tmp_path / "factors.csv").exists()


def test_other_predictions_are_checked_before_the_run(
    lit_ssl, tmp_path, folder, write_images, predict, write_predictions_file, made_up
):
    write_images(tmp_path / "val", range(1, 61))
    other = write_predictions_file(predict(name="short"), drop=[made_up.annotated[0]])
    callback = {"class_path": "FactorReport", "init_args": {"compare": [str(other)]}}
    options = {"trainer.callbacks": json.dumps([callback])}
    result = lit_ssl(*words(tmp_path, folder, *TIMM, **options))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "short has no prediction for 1 of the 50 annotated images" in result.err


def test_names_are_checked_before_the_run(
    tmp_path, folder, write_images, predict, write_predictions_file
):
    write_images(tmp_path / "val", range(1, 61))
    path = write_predictions_file(predict(), "predictions")  # as every run's file is called
    data = ImageNetXDataModule(root=str(tmp_path), annotations=str(folder), transform="vanilla")
    trainer = pl.Trainer(
        callbacks=[FactorReport(compare=[str(path), str(path)])], logger=False, accelerator="cpu"
    )

    class Model(pl.LightningModule):
        steps = 0

        def validation_step(self, batch, batch_idx):
            self.steps += 1
            return {"logits": torch.zeros(len(batch[0]), 20)}

    model = Model()
    with pytest.raises(InputError, match="same name: predictions, predictions, Model"):
        trainer.validate(model, data)
    assert model.steps == 0


def test_callback_names_what_it_needs(tmp_path, folder, write_images):
    class Other(pl.LightningDataModule):
        def val_dataloader(self):
            return [(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64))]

    model = ImageClassifier("test_vit", {"img_size": 32, "patch_size": 16}, num_classes=20)
    options = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    trainer = pl.Trainer(callbacks=[FactorReport()], **options)
    with pytest.raises(AttributeError, match="Other has no annotations"):
        trainer.validate(model, Other())
    data = ImageNetXDataModule(
        root=str(write_images(tmp_path / "val", range(1, 61))), annotations=str(folder)
    )
    with pytest.raises(ValueError, match="ImageClassifier does not say how it wants its images"):
        pl.Trainer(callbacks=[FactorReport()], **options).validate(model, data)


def test_recipes_are_complete():
    from lit_ssl.cli.recipes import list_configs, packaged_config

    names = [name for name in list_configs() if name.startswith("imagenetx/")]
    assert len(names) == 3
    for name in names:
        config = yaml.safe_load(packaged_config(name).read_text())
        assert config["trainer"]["callbacks"] == [{"class_path": "FactorReport"}]
