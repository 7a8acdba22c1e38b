"""The full recipes of NAC: their sizes, and a step on a few files in the official layouts."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import yaml

from lit_ssl.cli.recipes import list_configs, packaged_config

# Millions of parameters that published code has with the same options.
PUBLISHED = {
    "nac/tiny_imagenet_scale_free.yaml": 26.70,
    "nac/tiny_imagenet_planted_partition.yaml": 26.70,
    "nac/tiny_imagenet_ring_of_cliques.yaml": 26.70,
    "nac/tiny_imagenet_erdos_renyi.yaml": 26.70,
    "nac/imagenet.yaml": 37.59,
    "nac/imagenet_640.yaml": 38.70,
    "perceiver_io/tiny_imagenet.yaml": 23.33,
    "perceiver_io/imagenet.yaml": 25.06,
}
OTHER_GRAPHS = [
    f"nac/tiny_imagenet_{graph}.yaml"
    for graph in ("planted_partition", "ring_of_cliques", "erdos_renyi")
]
LOSSES = ("repulsion_weight", "repulsion_hinge", "prior_weight")
ELSEWHERE = {  # tests/cli/test_nac_sequences.py and test_nac_runs.py
    "nac/bytes.yaml", "nac/listops.yaml", "nac/listops_small.yaml", "nac/mnist5k.yaml",
    "nac/mnist5k_bytes.yaml", "nac/mnist5k_points.yaml",
}  # fmt: skip
HERE = {"few_shot_cifar100", "few_shot_cub", "modelnet40", "nlvr2", "nlvr2_small"}
FEW_MODULES = ("--model.net.num_modules=16", "--model.net.depth=1")
FEW_INPUTS = ("--model.net.num_input_modules=4", "--model.net.num_output_modules=4")
SHORT_FIT = "--model.net.graph_prior.steps=50"
ONE_STEP = (
    "--data.batch_size=2", "--data.num_workers=0", "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--model.warmup_epochs=0",
)  # fmt: skip
NO_FILES = "--trainer.fast_dev_run=true"


def without(words, *names):
    return [word for word in words if word.split("=")[0] not in names]


def test_every_recipe_is_run():
    full = {*PUBLISHED, *(f"nac/{name}.yaml" for name in HERE)}
    names = {n for n in list_configs() if n.startswith(("nac/", "perceiver_io/"))}
    assert names == full | ELSEWHERE


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in OTHER_GRAPHS])
def test_sizes_are_those_of_published_code(built, request, name):
    fixture, classes = ("tiny_imagenet", 200) if "tiny" in name else ("imagenet", 1000)
    words = ["--trainer.accelerator=cpu", "--model.mixup=0", "--model.cutmix=0"]
    words += ["--model.prior_weight=0", "--data.root"]
    with torch.device("meta"):
        made = built("fit", "--config", name, *words, request.getfixturevalue(fixture))
        net = made.model.net
        net.reset_classifier(classes)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert round(count / 1e6, 2) == PUBLISHED[name]


def test_recipes_of_other_graphs_differ_in_the_graph_only():
    def content(name):
        model = yaml.safe_load(packaged_config(name).read_text())
        arguments = model["model"]["init_args"]
        assert arguments["net"]["init_args"].pop("graph_prior")["name"] in name.replace("_", "-")
        losses = [arguments.pop(key, None) for key in LOSSES]
        assert losses == ([0.0, None, 0.1] if "planted" in name else [0.1, 0.4, 0.0])
        return model

    assert all(content(name) == content(OTHER_GRAPHS[0]) for name in OTHER_GRAPHS)
    scale_free = yaml.safe_load(packaged_config("nac/tiny_imagenet_scale_free.yaml").read_text())
    net = scale_free["model"]["init_args"]["net"]["init_args"]
    assert net.pop("graph_prior") == {"name": "barabasi-albert", "arguments": {"m": 2}}
    for key in LOSSES:
        scale_free["model"]["init_args"].pop(key)
    assert scale_free == content(OTHER_GRAPHS[0])


# fixtures in the official layouts


@pytest.fixture(scope="session")
def tiny_imagenet(tmp_path_factory, write_images):
    """Tiny-ImageNet-200 of two classes, and all of ImageNet-R beside it."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    wnids = ["n02124075", "n01443537"]
    for wnid in wnids:
        write_images(folder / "train" / wnid / "images", 2, wnid + "_{}.JPEG", size=(64, 64))
    write_images(folder / "val" / "images", 4, "val_{}.JPEG", seed=1, size=(64, 64))
    lines = [f"val_{number}.JPEG\t{wnids[number % 2]}\t0\t32\t44\t62\n" for number in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(wnids))
    for wnid in ("n01443537", "n01494475"):
        write_images(folder.parent / "imagenet-r" / wnid, 2, "art_{}.jpg", seed=2)
    return folder


@pytest.fixture(scope="session")
def cub(tmp_path_factory, write_images):
    """CUB-200-2011 of three species with three training and two test images."""
    folder = tmp_path_factory.mktemp("cub") / "CUB_200_2011"
    species = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    names = []
    for name in species:
        write_images(folder / "images" / name, 5, name[4:] + "_000{}.jpg")
        names += [f"{name}/{name[4:]}_000{number}.jpg" for number in range(5)]
    tables = {
        "images.txt": names,
        "image_class_labels.txt": [1 + row // 5 for row in range(15)],
        "train_test_split.txt": [int(row % 5 < 3) for row in range(15)],
        "classes.txt": species,
    }
    for name, values in tables.items():
        rows = (f"{number} {value}\n" for number, value in enumerate(values, start=1))
        (folder / name).write_text("".join(rows))
    return folder


@pytest.fixture(scope="session")
def cifar100(tmp_path_factory):
    """The official Python version of CIFAR-100, with five images of each of four classes."""
    folder = tmp_path_factory.mktemp("cifar100") / "cifar-100-python"
    folder.mkdir()
    for seed, split in enumerate(("train", "test")):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {
            "data": pixels,
            "fine_labels": [row % 4 for row in range(20)],
            "coarse_labels": [0] * 20,
            "filenames": [f"{row}.png" for row in range(20)],
            "batch_label": split,
        }
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))
    return folder.parent


@pytest.fixture(scope="session")
def modelnet40(tmp_path_factory):
    """Meshes of two classes: tetrahedra."""
    root = tmp_path_factory.mktemp("modelnet")
    for name in ("airplane", "bed"):
        for split, count in (("train", 2), ("test", 1)):
            folder = root / "ModelNet40" / name / split
            folder.mkdir(parents=True)
            for i in range(count):
                text = f"OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 {i + 1}\n"
                text += "3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
                (folder / f"{name}_{i:04d}.off").write_text(text)
    return root


@pytest.fixture(scope="session")
def nlvr2(tmp_path_factory, write_images):
    """NLVR2 of four pairs in each split, and a tiny CLIP with its tokenizer's vocabulary."""
    root = tmp_path_factory.mktemp("nlvr2")
    for split, folder in (("train", "images/train/3"), ("dev", "images/dev"), ("test1", "test1")):
        rows = []
        for i in range(4):
            write_images(root / folder, 2, f"{split}-{i}-0-img{{}}.png", seed=i)
            row = {"sentence": f"{i} dogs", "label": str(bool(i % 2))}
            row["identifier"] = f"{split}-{i}-0-0"
            rows.append(json.dumps({**row, "directory": 3} if split == "train" else row))
        (root / f"{split}.json").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A folder with a tiny CLIP and a tokenizer, as transformers writes them."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    part = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.CLIPConfig(
        vision_config={**part, "hidden_size": 16, "image_size": 32, "patch_size": 16},
        text_config={**part, "hidden_size": 8, "vocab_size": 40, "max_position_embeddings": 77},
        projection_dim=8,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dogs", "0", "1", "2", "3"]
    (folder / "vocab.txt").write_text("\n".join(words))
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory, lit_ssl_in, imagenet):
    """A run of one step of nac/imagenet.yaml with few modules; the result, and the checkpoint."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = ["--config", "nac/imagenet.yaml", "--data.root", imagenet]
    words += ["--model.net.graph_prior.arguments={m: 2}", *FEW_MODULES, *FEW_INPUTS, SHORT_FIT]
    result = lit_ssl_in(folder, "fit", *words, *ONE_STEP)
    assert result.code == 0, result.err
    return result, next(folder.rglob("last.ckpt"))


# one step of each


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "tiny" in name])
def test_tiny_imagenet(lit_ssl, tiny_imagenet, name):
    words = ["--config", name, "--data.root", tiny_imagenet, *FEW_MODULES]
    words += [] if "perceiver" in name else [*FEW_INPUTS, SHORT_FIT]
    result = lit_ssl("fit", *words, *ONE_STEP, NO_FILES)
    assert result.code == 0, result.err
    assert "val/acc1" in result.out
    assert "val/r_acc1" in result.out


def test_imagenet(pretrained):
    assert "val/acc1" in pretrained[0].out


@pytest.mark.parametrize("name", ["nac/imagenet_640.yaml", "perceiver_io/imagenet.yaml"])
def test_imagenet_by_modules_that_read(lit_ssl, imagenet, name):
    words = ["--config", name, "--data.root", imagenet, *FEW_MODULES]
    words += [] if "perceiver" in name else [SHORT_FIT]
    result = lit_ssl("fit", *words, *ONE_STEP, NO_FILES)
    assert result.code == 0, result.err
    assert "val/acc1" in result.out


@pytest.mark.parametrize("name", ["cub", "cifar100"])
def test_few_shot(lit_ssl, request, pretrained, name):
    words = ["--config", f"nac/few_shot_{name}.yaml", "--model.pretrained", pretrained[1]]
    words += ["--data.data.root", request.getfixturevalue(name), "--data.ways=3", "--data.shots=2"]
    words += ["--data.classes=[0, 1, 2]"]
    steps = without(ONE_STEP, "--data.batch_size", "--data.num_workers", "--model.warmup_epochs")
    words += [*steps, "--data.data.num_workers=0", "--data.data.batch_size=6"]
    result = lit_ssl("fit", *words, "--then=test")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out


def test_modelnet40(lit_ssl, modelnet40):
    words = ["--config=nac/modelnet40.yaml", "--data.root", modelnet40, *FEW_MODULES, *FEW_INPUTS]
    result = lit_ssl("fit", *words, SHORT_FIT, *ONE_STEP, "--then=test")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out


def test_nlvr2(lit_ssl, nlvr2, clip):
    generator = "--model.net.generator."
    words = ["--config=nac/nlvr2.yaml", "--data.root", nlvr2, f"--data.tokenizer={clip}/vocab.txt"]
    words += ["--model.net.tokenizer.encoder.path", clip, *FEW_MODULES, *FEW_INPUTS, SHORT_FIT]
    words += [f"{generator}text_dim=8", f"{generator}num_modules=16", f"{generator}depth=1"]
    words += [f"{generator}num_input_modules=4", f"{generator}num_output_modules=4"]
    words += ["--data.train_transform.crop.size=32", "--data.eval_transform.size=32"]
    result = lit_ssl("fit", *words, *ONE_STEP, "--then=test")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out


def test_nlvr2_without_clip(lit_ssl, nlvr2):
    words = ["--config=nac/nlvr2_small.yaml", "--data.root", nlvr2, SHORT_FIT, *ONE_STEP]
    result = lit_ssl("fit", *words, "--then=test")
    assert result.code == 0, result.err
    assert "test/acc1" in result.out
