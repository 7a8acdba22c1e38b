"""What `lit-ssl export` writes besides a file for timm: transformers, ONNX, folders with cards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import yaml
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN

import lit_ssl
from lit_ssl.checkpoints.card_texts import code_block, markdown_text, without_places
from lit_ssl.checkpoints.encoder_to_export import (
    Resizing,
    difference,
    features_of,
    find_exportable,
    match_exportable,
)
from lit_ssl.checkpoints.export import write_safetensors
from lit_ssl.checkpoints.export_folder import fill_timm_folder
from lit_ssl.checkpoints.export_onnx import write_onnx
from lit_ssl.checkpoints.export_transformers import fill_transformers_folder
from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.checkpoints.run_files import is_report_of, read_report
from lit_ssl.checkpoints.shared_folder import write_shared_folder
from lit_ssl.checkpoints.whole_folder import check_new_file, check_new_folder
from lit_ssl.errors import InputError
from lit_ssl.models import SmallCNN
from lit_ssl.models.nac.described import described_circuit
from lit_ssl.transforms import EvalTransform, normalize

NAME = "vit_tiny_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 12, "num_heads": 2}


def exportable(name=NAME, **args):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, **args)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                noise = 0.1 * torch.randn(value.shape)
                value.add_(noise.abs() if "running_var" in key else noise)
    return match_exportable(network, name, args)


# ------------------------------------------------------------------ transformers

VITS = {
    "plain": {},
    "grey, not square": {"img_size": (16, 24), "in_chans": 1},
    "layer scale": {"init_values": 0.5},
    "without qkv bias": {"qkv_bias": False},
    "no position of the class token": {"no_embed_class": True},
    "fc_norm": {"fc_norm": True, "global_pool": "token"},
    "quick gelu": {"act_layer": "quick_gelu"},
    "two widths": {"mlp_ratio": 2.0},
}


@pytest.mark.parametrize("kind", VITS)
def test_transformers_vit(tmp_path, kind):
    encoder = exportable(**{**SMALL, **VITS[kind]})
    fill_transformers_folder(encoder, tmp_path)  # which compares the features
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ViTMSNModel"]
    again = read_weights(tmp_path)
    if kind in ("plain", "grey, not square", "quick gelu", "two widths"):
        own = encoder.network.state_dict()
        assert own.keys() == again.encoder.keys()
        assert all(torch.equal(value, own[name]) for name, value in again.encoder.items())
    assert again.by_class_token


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "resnet26"])
def test_transformers_resnet(tmp_path, name):
    encoder = exportable(name)
    if name == "resnet10t":
        with pytest.raises(InputError, match="its first layer is no convolution over 7"):
            fill_transformers_folder(encoder, tmp_path)
        return
    fill_transformers_folder(encoder, tmp_path)
    again, own = read_weights(tmp_path).encoder, encoder.network.state_dict()
    assert own.keys() == again.keys()
    assert all(torch.equal(value, own[key]) for key, value in again.items())


REFUSED = {
    "register tokens": (NAME, {**SMALL, "reg_tokens": 1}),
    "pools with global_pool='avg'": (NAME, {**SMALL, "global_pool": "avg"}),
    "it norms or gates": (NAME, {**SMALL, "qk_norm": True}),
    "norm in front of its blocks": (NAME, {**SMALL, "pre_norm": True}),
    "no class here for a ConvNeXt": ("convnext_atto", {"depths": (1, 1, 1, 1)}),
    "its MLPs are of another kind": ("vit_giant_patch14_dinov2", {
        **SMALL, "patch_size": 16, "img_size": 32, "mlp_ratio": 2.0,
    }),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_transformers_cannot_compute_is_refused(tmp_path, reason):
    name, args = REFUSED[reason]
    with pytest.raises(InputError, match=reason):
        fill_transformers_folder(exportable(name, **args), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_processor_does_what_the_evaluation_does(tmp_path):
    from transformers import AutoImageProcessor

    encoder = exportable(**SMALL)._replace(resizing=Resizing(40, "bicubic"))
    fill_transformers_folder(encoder, tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((80, 64), Image.Resampling.BICUBIC)  # even margins
    found = processor(image, return_tensors="pt")["pixel_values"][0]
    ours = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    expected = normalize(EvalTransform(32, 40, interpolation="bicubic")(ours), *encoder[5:7])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.05  # two levels of 255


# ------------------------------------------------------------------ ONNX


@pytest.mark.parametrize("name", [NAME, pytest.param("PerceiverIO", marks=pytest.mark.slow)])
def test_onnx(tmp_path, name):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    if name == NAME:
        encoder = exportable(**SMALL)
    else:
        sizes = {"image_size": 8, "patch_size": 4, "in_channels": 1, "embed_dim": 8}
        tokens = {"class_path": "lit_ssl.models.PatchTokenizer", "init_args": sizes}
        args = {"tokenizer": tokens, "state_dim": 16, "num_classes": 3}
        encoder = match_exportable(described_circuit(name, **args), name, args, (0.1,), (0.3,))
    path = tmp_path / "x.onnx"
    assert write_onnx(encoder, path) < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_inputs()[0].shape == ["batch", *encoder.size]
    images = torch.rand(7, *encoder.size)
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        expected = encoder.network(images)
        assert not difference(found, expected if name == NAME else expected.logits)
    about = session.get_modelmeta().custom_metadata_map
    assert about["timm_model" if name == NAME else "lit_ssl_model"] == name
    assert json.loads(about["mean"]) == list(encoder.mean)
    assert json.loads(about["input_size"]) == encoder.size
    assert onnx.load(path).opset_import[0].version == 18
    with pytest.raises(InputError, match=r"x\.onnx exists: give another name"):
        write_onnx(encoder, path)


def test_onnx_needs_images_and_its_packages(tmp_path, monkeypatch):
    encoder = exportable(**SMALL)
    with pytest.raises(InputError, match="takes other inputs than images"):
        write_onnx(encoder._replace(size=[]), tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'lit-ssl\[onnx\]'"):
        write_onnx(encoder, tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'lit-ssl\[hf\]'"):
        fill_transformers_folder(encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_onnx_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    from lit_ssl.checkpoints import export_onnx

    images, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 32, 32]), ("features", ["batch", 12]))
    )
    cut = helper.make_node("Flatten", ["images"], ["flat"])
    size = helper.make_tensor("twelve", TensorProto.INT64, [1], [12])
    start = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    axis = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    first = helper.make_node("Slice", ["flat", "zero", "twelve", "one"], ["features"])
    graph = helper.make_graph([cut, first], "wrong", [images], [features], [size, start, axis])
    wrong = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    monkeypatch.setattr(export_onnx, "_exported", lambda _: wrong.SerializeToString())
    with pytest.raises(InputError, match="features differ by up to"):
        write_onnx(exportable(**SMALL), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ folders


def from_folder(folder):
    """By its name where timm reads safetensors in folders, else by its file."""
    if tuple(int(n) for n in timm.__version__.split(".")[:3]) >= (1, 0, 26):
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = json.loads((folder / "config.json").read_text())
    source = {**config["pretrained_cfg"], "file": str(folder / "model.safetensors")}
    options = {"pretrained_cfg": source, **config["model_args"]}
    return timm.create_model(config["architecture"], pretrained=True, **options).eval()


@pytest.mark.parametrize("args", [SMALL, {**SMALL, "in_chans": 1}, {**SMALL, "global_pool": "avg"}])
def test_folder_for_timm(tmp_path, args):
    encoder = exportable(**args)._replace(resizing=Resizing(40, "bicubic"))
    fill_timm_folder(encoder, tmp_path)
    loaded = from_folder(tmp_path)
    assert torch.equal(features_of(loaded, encoder.network), encoder.features)
    config = timm.data.resolve_data_config({}, model=loaded)
    assert tuple(config["input_size"]) == tuple(encoder.size)
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 0.8)
    if encoder.mean:
        assert tuple(config["mean"]) == tuple(encoder.mean)
    again = lit_ssl.models.load_exported(tmp_path)
    assert torch.equal(features_of(again, encoder.network), encoder.features)
    assert find_exportable(tmp_path).args == encoder.args  # and exported again


def test_folder_of_a_network_of_this_package(tmp_path):
    args = {"in_chans": 3, "img_size": 20, "width": 2}
    encoder = match_exportable(SmallCNN(**args), "SmallCNN", args)
    loading = write_shared_folder(encoder, tmp_path / "x", "folder", repository="a/b")
    assert loading == [
        ("lit_ssl", "import lit_ssl\n\nmodel = lit_ssl.models.load_exported('hf-hub:a/b')")
    ]
    card = (tmp_path / "x/README.md").read_text()
    assert front(card)["library_name"] == "lit_ssl"
    again = lit_ssl.models.load_exported(tmp_path / "x")
    assert torch.equal(features_of(again, encoder.network), encoder.features)


def front(card):
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


RECIPE = {
    "model": {"_class_path": "lit_ssl.MSN", "lr": 0.002, "pretrained": "/home/eve/secret/x.pth"},
    "data": {"_class_path": "lit_ssl.datamodules.ImageFolderDataModule", "root": "/home/eve/cats"},
    "epoch": 3,
    "global_step": 1200,
}
REPORT = {
    "protocol": {
        "split": "val", "queries": 100, "checkpoint": "/home/eve/runs/last.ckpt",
        "notes": ["No pixels row: /data/eve/x.npz is large."],
    },
    "rows": [
        {"features": "trained", "knn_acc1": 0.8125, "lowshot_1_acc1": 0.5, "lowshot_1_std": 0.01,
         "soft_nn_1_acc1": 2},
        {"features": "pixels|\n# head", "knn_acc1": 0.25, "lowshot_1_acc1": "<b>"},
    ],
}  # fmt: skip


def test_the_card(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = {"model": RECIPE["model"], "trainer": {"logger": {"api_key": "12345"}},
              "data": {"class_path": "lit_ssl.datamodules.ImageFolderDataModule",
                       "init_args": {"root": "/home/eve/cats"}}}  # fmt: skip
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "report.json").write_text(json.dumps(REPORT))
    (run / "index.html").write_text("<p>report</p><b>/home/eve/runs/views/a.png</b>")
    encoder = exportable(**SMALL)._replace(method="lit_ssl.MSN", recipe=RECIPE)
    report = read_report(run)
    out = tmp_path / "out"
    write_shared_folder(encoder, out, "folder", run, "apache-2.0", report, "eve/cats-vit")
    card = (out / "README.md").read_text()
    about = front(card)
    assert about["library_name"] == "timm"
    assert about["license"] == "apache-2.0"
    assert {"msn", "self-supervised-learning"} <= set(about["tags"])
    (found,) = about["model-index"][0]["results"]
    assert found["dataset"]["name"] == "ImageFolderDataModule"
    assert [metric["value"] for metric in found["metrics"]] == [81.25, 50.0]
    assert "timm.create_model('hf-hub:eve/cats-vit', pretrained=True)" in card
    assert "https://arxiv.org/abs/2204.07141" in card
    assert "| k\\-NN, top\\-1 | 81.2 | 25.0 |" in card
    assert "| 1\\-shot, top\\-1 | 50.0 ± 1.0 | – |" in card
    assert "linear, PAWS-NN accuracy" in card
    everything = "".join(
        path.read_text() for path in out.iterdir() if path.suffix != ".safetensors"
    )
    assert "eve/" not in everything.replace("hf-hub:eve/cats-vit", "")
    assert "12345" not in everything
    assert "…/last.ckpt" in card
    assert "\n# head" not in card
    assert (out / "index.html").read_text() == "<p>report</p><b>…/a.png</b>"
    assert (
        yaml.safe_load((out / "config.yaml").read_text())["data"]["init_args"]["root"] == "…/cats"
    )


def test_a_card_of_which_little_is_known(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(exportable(**SMALL), path)
    write_shared_folder(find_exportable(path), tmp_path / "out", "folder")
    card = (tmp_path / "out/README.md").read_text()
    assert "license" not in front(card)
    assert "model-index" not in front(card)
    assert "None was named: ask the author" in card
    assert "says nothing of its training" in card
    assert "Nothing: no report was given" in card
    assert not (tmp_path / "out/config.yaml").exists()


def test_the_hub_reads_the_card(tmp_path):
    from huggingface_hub import ModelCard

    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "config.yaml").write_text("data: {class_path: a.Cats}")
    encoder = exportable(**SMALL)._replace(method="lit_ssl.MSN")
    report = read_report(tmp_path / "report.json")
    write_shared_folder(encoder, tmp_path / "out", "transformers", report=report)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.library_name == "transformers"
    results = card.data.eval_results
    assert [(r.dataset_name, r.metric_value) for r in results] == [("Cats", 81.25), ("Cats", 50.0)]


def test_texts_of_others_are_no_signs():
    text = markdown_text("[x](javascript:1) <script> | `a` **b**\n# c https://evil.example")
    assert text == (
        r"\[x\]\(javascript:1\) &lt;script&gt; \| \`a\` \*\*b\*\* \# c https<!-- -->://evil.example"
    )
    assert code_block("```\nend", "yaml").startswith("````yaml\n")


PLACES = {
    "/home/eve/data": "…/data",
    "/home/eve/my photos/": "…/my photos",
    "~/runs/last.ckpt": "…/last.ckpt",
    "C:\\Users\\eve\\x": "…/x",
    "file:///mnt/eve/x": "…/x",
    "read /mnt/eve/a.csv, then /b/c": "read …/a.csv, then …/c",
    "s3://bucket/photos": "s3://bucket/photos",
    "https://eve:pw@host/x": "https://host/x",
    "data/images": "data/images",
    "lit_ssl.MSN": "lit_ssl.MSN",
    "1/2": "1/2",
}


def test_secrets_are_taken_out():
    config = {"hf_token": "a", "secretKey": "b", "password": "c", "aws_secret_access_key": "d",
              "tokenizer": "e", "token_ids": "f", "max_tokens": 7}  # fmt: skip
    kept = {"tokenizer": "e", "token_ids": "f", "max_tokens": 7}
    assert without_places(config) == {**dict.fromkeys(config, "removed"), **kept}


@pytest.mark.parametrize("text", PLACES)
def test_places_on_a_machine_are_cut(text):
    assert without_places({"a": [text]}) == {"a": [PLACES[text]]}


WRONG_REPORTS = {
    "{": "is no JSON",
    "[]": "it has no rows",
    '{"rows": []}': "it has no rows",
    '{"rows": [1]}': "it has no rows",
}


@pytest.mark.parametrize("text", WRONG_REPORTS)
def test_wrong_reports(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=WRONG_REPORTS[text]):
        read_report(tmp_path)
    with pytest.raises(FileNotFoundError, match="no report at"):
        read_report(tmp_path / "nowhere")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "file").write_text("mine")
    encoder = exportable(**SMALL)
    with pytest.raises(InputError, match="holds file: give another name, or remove it first"):
        write_shared_folder(encoder, tmp_path, "folder")
    odd = exportable(**SMALL, reg_tokens=1)
    with pytest.raises(InputError, match="register tokens"):
        write_shared_folder(odd, tmp_path / "out", "transformers")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_split_of_a_report_is_no_sign_either(tmp_path):
    odd = {**REPORT, "protocol": {"split": "val\n\n# <script>x</script> \ud800"}}
    (tmp_path / "report.json").write_text(json.dumps(odd))
    write_shared_folder(
        exportable(**SMALL), tmp_path / "out", "folder", report=read_report(tmp_path)
    )
    card = (tmp_path / "out/README.md").read_text()
    assert r"features on val \# &lt;script&gt;" in card
    assert "\n# <script>" not in card


@pytest.mark.parametrize("kind", ["folder", "transformers"])
def test_the_card_does_not_say_where_the_folder_was_written(tmp_path, kind):
    loading = write_shared_folder(exportable(**SMALL), tmp_path / "out", kind)
    assert all(str(tmp_path / "out") in code for _, code in loading)
    card = (tmp_path / "out/README.md").read_text()
    assert str(tmp_path) not in card
    assert "'out'" in card


def test_reports_with_more_than_a_report_has(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    (tmp_path / "secret").write_text("x")
    (tmp_path / "index.html").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"index\.html is a link"):
        read_report(tmp_path)
    (tmp_path / "index.html").unlink()
    deep: list = []
    for _ in range(300):
        deep = [deep]
    (tmp_path / "report.json").write_text(json.dumps({**REPORT, "protocol": {"a": deep}}))
    with pytest.raises(InputError, match="nested too deeply"):
        read_report(tmp_path)


def test_of_which_weights_a_report_is(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.ckpt").write_text(name)
    own = tmp_path / "a/last.ckpt"
    for protocol, expected in (
        ({"checkpoint": str(own)}, True),
        ({"checkpoint": str(tmp_path / "b/last.ckpt")}, False),
        ({"checkpoint": "/moved/last.ckpt"}, True),
        ({"checkpoint": "/moved/epoch=1.ckpt"}, False),
        ({"checkpoint": str(own), "steps": 7}, True),  # of a fit that went on from there
        ({"checkpoint": str(own), "steps": 9}, False),
    ):
        content = {**REPORT, "protocol": protocol}
        (tmp_path / "report.json").write_text(json.dumps(content))
        assert is_report_of(read_report(tmp_path), own, 7) == expected


def _checkpoint(path, **hparams):
    network = exportable(**SMALL).network
    state = {f"target_backbone.vit.{k}": v for k, v in network.state_dict().items()}
    content = {"state_dict": state, "pytorch-lightning_version": "2.4.0", "hyper_parameters": {
        "_class_path": "lit_ssl.MSN", "backbone": NAME, "backbone_kwargs": SMALL, **hparams,
    }}  # fmt: skip
    torch.save(content, path)
    return path


def test_where_weights_came_from_is_no_part_of_a_network(tmp_path):
    kwargs = {**SMALL, "pretrained": True, "pretrained_cfg_overlay": {"file": "/home/eve/x.bin"}}
    found = find_exportable(_checkpoint(tmp_path / "a.ckpt", backbone_kwargs=kwargs))
    write_shared_folder(found, tmp_path / "out", "folder")
    assert found.args == {**SMALL, "global_pool": "token"} or found.args == SMALL
    assert "eve" not in (tmp_path / "out/config.json").read_text()


def test_a_network_out_of_a_folder_is_called_by_its_own_name(tmp_path):
    write_shared_folder(exportable(**SMALL), tmp_path / "first", "folder")
    name = f"local-dir:{tmp_path / 'first'}"
    found = find_exportable(_checkpoint(tmp_path / "a.ckpt", backbone=name, backbone_kwargs={}))
    assert found.name == NAME
    write_shared_folder(found, tmp_path / "again", "folder")
    for file in ("README.md", "config.json"):
        assert str(tmp_path) not in (tmp_path / "again" / file).read_text()


@pytest.mark.parametrize("name", ["hf-hub:eve/x", "local-dir:/home/eve/x"])
def test_a_file_names_no_network_of_another_place(tmp_path, name):
    content = safetensors.torch.save(exportable(**SMALL).state(), {"timm_model": name})
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="asks for the network of another place"):
        lit_ssl.models.load_exported(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="--model-name"):
        find_exportable(tmp_path / "x.safetensors")


def test_an_export_of_an_export_keeps_its_normalisation(tmp_path):
    first = exportable(**SMALL)._replace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    write_safetensors(first._replace(method="lit_ssl.MSN"), tmp_path / "x.safetensors")
    again = find_exportable(tmp_path / "x.safetensors")
    assert (tuple(again.mean), tuple(again.std)) == (first.mean, first.std)
    assert again.method == "lit_ssl.MSN"
    odd = {"timm_model": NAME, "model_args": json.dumps(SMALL), "mean": "[0.5, 0.5, 0.5]"}
    for std in ("[0, 1, 1]", "[1, 1]", "[NaN, 1, 1]", "{"):
        content = safetensors.torch.save(first.state(), {**odd, "std": std})
        (tmp_path / "odd.safetensors").write_bytes(content)
        with pytest.warns(UserWarning, match="does not say how images were normalised"):
            assert find_exportable(tmp_path / "odd.safetensors").mean == IMAGENET_DEFAULT_MEAN


def test_secrets_in_texts_and_lists_are_taken_out():
    token = "hf_" + "a" * 20
    assert without_places({"key_of_api": f"x {token}", "password": ["a", {"b": "c"}], "n": {
        "url": "https://host/x?token=abc&n=1", "headers": {"Authorization": "Bearer q"},
    }}) == {"key_of_api": "x removed", "password": ["removed", {"b": "removed"}], "n": {
        "url": "https://host/x?token=removed&n=1", "headers": {"Authorization": "removed"},
    }}  # fmt: skip


def test_places_where_nothing_can_be_written_are_said_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "link.onnx").symlink_to("nowhere")
    for check, name, message in (
        (check_new_folder, "link", "is a link"),
        (check_new_folder, ".", "is the folder you are in"),
        (check_new_folder, "file/out", "file is no folder"),
        (check_new_file, "link.onnx", "exists: give another name"),
        (check_new_file, "file/a/x.onnx", "file is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            check(Path(name))
    monkeypatch.setattr("os.access", lambda place, mode: False)
    with pytest.raises(InputError, match="is closed or read-only"):
        check_new_file(Path("new/x.onnx"))


def test_a_file_that_comes_into_being_meanwhile_stays(tmp_path, monkeypatch):
    encoder, out = exportable(**SMALL), tmp_path / "x.safetensors"
    load = lit_ssl.models.load_exported

    def meanwhile(path):
        out.write_text("of another process")
        return load(path)

    monkeypatch.setattr("lit_ssl.checkpoints.export.load_exported", meanwhile)
    with pytest.raises(InputError, match="exists: give another name"):
        write_safetensors(encoder, out)
    assert out.read_text() == "of another process"
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


NORMALISATIONS = {
    "a number": {"mean": 0.5, "std": 0.5},
    "texts": {"mean": "abc", "std": "abc"},
    "NaN": {"mean": [float("nan")] * 3, "std": [1.0] * 3},
    "zero": {"mean": [0.5] * 3, "std": [1.0, 0.0, 1.0]},
    "of other lengths": {"mean": [0.5] * 3, "std": [0.5]},
    "lists of lists": {"mean": [[0.5]] * 3, "std": [[0.5]] * 3},
}


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_odd_normalisations_are_not_noted(tmp_path, kind):
    network = timm.create_model(NAME, num_classes=0, **SMALL)
    hparams = {"_class_path": "lit_ssl.methods.ImageClassifier", "backbone": NAME,
               "backbone_kwargs": SMALL, "num_classes": 2}  # fmt: skip
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    content = {"pytorch-lightning_version": "2.6.0", "state_dict": state,
               "hyper_parameters": hparams}  # fmt: skip
    file = tmp_path / "x.ckpt"
    torch.save({**content, "datamodule_hyper_parameters": NORMALISATIONS[kind]}, file)
    with pytest.warns(UserWarning, match="of its data are no numbers for each channel"):
        found = find_exportable(file)
    assert (found.mean, found.std) == ((), ())
    inner = {"class_path": "lit_ssl.datamodules.ImageFolderDataModule", "init_args": None}
    composed = {"_class_path": "lit_ssl.datamodules.SemiSupervisedDataModule", "dataset": inner}
    torch.save({**content, "datamodule_hyper_parameters": composed}, file)
    assert tuple(find_exportable(file).mean) == IMAGENET_DEFAULT_MEAN


# network, its arguments, size of the evaluated images -> size, resizing that are noted
NARROW = {"stem_width": 8, "channels": [8] * 4}
EVALUATED = {
    "convolutional": ("resnet10t", NARROW, 48, 48, Resizing(55, "bilinear")),
    "vit": (NAME, SMALL, 32, 32, Resizing(37, "bilinear")),
    "vit of other images": (NAME, SMALL, 48, 32, None),
    "no size": ("resnet10t", NARROW, "x", 176, None),
}


@pytest.mark.parametrize("kind", EVALUATED)
def test_images_are_those_of_the_evaluation(tmp_path, kind):
    name, args, pixels, size, resizing = EVALUATED[kind]
    network = timm.create_model(name, num_classes=0, **args)
    hparams = {"_class_path": "lit_ssl.methods.ImageClassifier", "backbone": name,
               "backbone_kwargs": args, "num_classes": 2}  # fmt: skip
    content = {
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"backbone.{key}": value for key, value in network.state_dict().items()},
        "hyper_parameters": hparams,
        "datamodule_hyper_parameters": {
            "_class_path": "lit_ssl.datamodules.ImageFolderDataModule", "image_size": pixels,
            "eval_transform": None,
        },
    }  # fmt: skip
    torch.save(content, tmp_path / "x.ckpt")
    found = find_exportable(tmp_path / "x.ckpt")
    assert (found.size, found.resizing) == ([3, size, size], resizing)
    fill_timm_folder(found, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert config["input_size"] == [3, size, size]
    # as timm's own transform does it
    assert timm.data.create_transform(**timm.data.resolve_data_config(config)).transforms[
        0
    ].size == (size if resizing is None else resizing.resize)
    # another transform, made in Python, is not in the file
    del content["datamodule_hyper_parameters"]["eval_transform"]
    torch.save(content, tmp_path / "y.ckpt")
    assert find_exportable(tmp_path / "y.ckpt").resizing is None
    # and neither are data that no module served
    del content["datamodule_hyper_parameters"]
    torch.save(content, tmp_path / "z.ckpt")
    with pytest.warns(UserWarning, match="does not say how images were normalised"):
        assert find_exportable(tmp_path / "z.ckpt").mean == IMAGENET_DEFAULT_MEAN


def test_one_mean_is_that_of_all_channels():
    args = {"in_chans": 2, "img_size": 13, "width": 2}
    network = SmallCNN(**args)
    found = match_exportable(network, "SmallCNN", args, mean=(0.25,), std=(0.5,))
    assert (found.mean, found.std) == ([0.25] * 2, [0.5] * 2)
