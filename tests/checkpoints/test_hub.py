"""Weights by `hf-hub:` names, and pushes, with a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import safetensors.torch
import timm
import torch

import lit_ssl
from lit_ssl import FineTuning, FrozenEncoder
from lit_ssl.checkpoints.encoder_to_export import features_of, match_exportable
from lit_ssl.checkpoints.hub import check_push, push_folder
from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.checkpoints.shared_folder import write_shared_folder
from lit_ssl.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_checkpoints import ENTERED
from hub_server import TOKEN, Hub, be_offline, point_to

NAME = "vit_tiny_patch16_224"
ARGS = {"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2}
REPO = "someone/small-vit"
WEIGHTS = f"hf-hub:{REPO}"


@pytest.fixture(scope="module")
def server():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    server.repositories.clear()
    server.asked.clear()
    monkeypatch.chdir(tmp_path)
    return server.use(monkeypatch, tmp_path / "cache")


def network():
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=0, **ARGS).eval()


def state_file(net=None):
    return safetensors.torch.save((net or network()).state_dict())


def frozen(weights=WEIGHTS):
    return FrozenEncoder(NAME, ARGS, weights=weights)


def test_weights_are_fetched_once(hub):
    commit = hub.add(REPO, model__safetensors=state_file(), README__md=b"card")
    weights = read_weights(WEIGHTS)
    assert weights.source == f"{WEIGHTS}@{commit[:12]} (state dict of a network)"
    own = network().state_dict()
    assert all(torch.equal(value, own[name]) for name, value in weights.encoder.items())
    assert read_weights(f"{WEIGHTS}@{commit}").encoder.keys() == own.keys()
    assert hub.downloads() == ["model.safetensors"]


def test_a_revision_that_is_asked_for(hub):
    first = hub.add(REPO, model__safetensors=state_file())
    other = network()
    torch.nn.init.ones_(other.cls_token)
    hub.add(REPO, model__safetensors=state_file(other))
    assert not read_weights(f"{WEIGHTS}@{first}").encoder["cls_token"].eq(1).all()
    assert read_weights(WEIGHTS).encoder["cls_token"].eq(1).all()


def test_what_lies_in_the_cache_needs_no_network(hub, monkeypatch):
    hub.add(REPO, model__safetensors=state_file())
    read_weights(WEIGHTS)
    be_offline(monkeypatch)
    assert "cls_token" in read_weights(WEIGHTS).encoder
    with pytest.raises(InputError, match="other cannot be fetched, and is not in the cache"):
        read_weights("hf-hub:someone/other")


def test_all_that_takes_weights(hub, capsys):
    hub.add(REPO, model__safetensors=state_file())
    images = torch.randn(2, 3, 8, 8)
    expected = network()(images)
    module = frozen()
    assert hub.asked == []  # a module that is built reads nothing yet
    module.setup("validate")
    torch.testing.assert_close(module(images), expected)
    tuned = FineTuning(NAME, ARGS, num_classes=3, pretrained=WEIGHTS)
    tuned.setup("fit")
    torch.testing.assert_close(tuned.backbone(images), expected)
    start = lit_ssl.MSN(NAME, ARGS, num_prototypes=4, pretrained=WEIGHTS)
    start.setup("fit")
    torch.testing.assert_close(start(images), expected, rtol=1e-4, atol=1e-5)
    assert hub.downloads() == ["model.safetensors"]


def test_a_restored_module_fetches_nothing(hub, tmp_path):
    hub.add(REPO, model__safetensors=state_file())
    module = frozen()
    module.setup("validate")
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    hub.asked.clear()
    again = FrozenEncoder.load_from_checkpoint(tmp_path / "run.ckpt")
    again.setup("validate")
    assert again.weights == WEIGHTS
    assert hub.asked == []


def test_names_of_timm_s_form_as_backbone(hub, tmp_path):
    encoder = match_exportable(network(), NAME, ARGS)
    write_shared_folder(encoder, tmp_path / "out", "folder")
    files = {p.name.replace(".", "__"): p.read_bytes() for p in (tmp_path / "out").iterdir()}
    hub.add(REPO, **files)
    local = FrozenEncoder(f"local-dir:{tmp_path / 'out'}", weights=str(tmp_path / "out"))
    local.setup("validate")
    for loaded in (
        timm.create_model(WEIGHTS, pretrained=True),
        lit_ssl.models.load_exported(WEIGHTS),
        FrozenEncoder(WEIGHTS, {"pretrained": True}),
        local,
    ):
        torch.testing.assert_close(features_of(loaded, encoder.network), encoder.features)
    other = FrozenEncoder(weights=WEIGHTS)
    with pytest.raises(InputError, match=r"the file is of backbone: 'vit_tiny_patch16_224' with"):
        other.setup("validate")
    with pytest.raises(InputError, match="nobody/nothing cannot be loaded"):
        FrozenEncoder("hf-hub:nobody/nothing")


WRONG = {
    "hf-hub:nobody/nothing": "the hub has no repository hf-hub:nobody/nothing, or it is not for",
    f"{WEIGHTS}@{'0' * 40}": "has no such revision",
    "hf-hub:": "is no name of a repository: give it as hf-hub:USER/NAME",
    "hf-hub:one": "is no name of a repository",
    "hf-hub:../x": "is no name of a repository",
    "hf-hub:a/b/c": "is no name of a repository",
    "hf-hub:a/b@../../../c": "is no name of a repository",
    "hf-hub:someone/text": "has no file that could be read as weights: expected model.safetensors",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_are_one_line(hub, name):
    hub.add(REPO, model__safetensors=state_file())
    hub.add("someone/text", README__md=b"")
    with pytest.raises(InputError, match=WRONG[name]) as error:
        read_weights(name)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, FileNotFoundError) == ("no name" not in WRONG[name])


def test_a_server_that_is_not_there(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries again, later
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(InputError, match="cannot be fetched, and is not in the cache: check the"):
        read_weights(WEIGHTS)


class Reduced:
    """Opens a file where it is unpickled."""

    def __reduce__(self):
        return open, (ENTERED, "w")


def test_what_is_fetched_is_data(hub, tmp_path):
    torch.save({"state_dict": network().state_dict(), "x": Reduced()}, tmp_path / "x.bin")
    code = b"open('entered', 'w').close()"
    config = {"auto_map": {"AutoModel": "modeling.Model"}, "architecture": "evil"}
    hub.add(
        REPO,
        pytorch_model__bin=(tmp_path / "x.bin").read_bytes(),
        modeling__py=code,
        config__json=json.dumps(config).encode(),
    )
    assert "cls_token" in read_weights(WEIGHTS).encoder  # the object is left out
    assert hub.downloads() == ["pytorch_model.bin"]  # no code, no config
    assert not Path(ENTERED).exists()
    damaged = state_file()[:-5]
    hub.add(REPO, model__safetensors=damaged)
    with pytest.raises(InputError, match="damaged"):
        read_weights(WEIGHTS)


def test_weights_in_pieces(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="holds its weights in several files"):
        read_weights(tmp_path)


# ------------------------------------------------------------------ push


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def test_push_and_load(logged_in, tmp_path):
    encoder = match_exportable(network(), NAME, ARGS)
    write_shared_folder(encoder, tmp_path / "out", "folder", repository=REPO)
    assert check_push(REPO, private=True, update=False) == f"{REPO} is new and will be private"
    address = push_folder(tmp_path / "out", REPO, private=True)
    repository = logged_in.repositories[REPO]
    assert repository.private
    assert address == f"{logged_in.url}/{REPO}/commit/{repository.find('main')}"
    files = repository.files("main")
    assert {"README.md", "config.json", "model.safetensors"} <= set(files)
    loaded = timm.create_model(WEIGHTS, pretrained=True)
    assert torch.equal(features_of(loaded, encoder.network), encoder.features)
    with pytest.raises(InputError, match=r"exists, with \d files such as .* --update, by which"):
        check_push(REPO, private=False, update=False)
    assert check_push(REPO, False, update=True).endswith("of the same names get a new version")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/notes.txt").write_text("more")
    push_folder(tmp_path / "more", REPO, private=False)
    assert {"README.md", "notes.txt"} <= set(repository.files("main"))  # nothing is deleted
    assert repository.private


def test_what_ends_a_push_before_the_export(hub, monkeypatch):
    with pytest.raises(InputError, match="--push needs a login at the hub: run `hf auth login`"):
        check_push(REPO, False, False)
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(InputError, match="the hub refuses") as error:
        check_push(REPO, False, False)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(InputError, match="is no name of a repository: give it as USER/NAME"):
        check_push("small-vit", False, False)
    hub.add(REPO, **{"__gitattributes": b""})
    assert check_push(REPO, False, False) == f"{REPO} exists, is empty and public"
    with pytest.raises(InputError, match="exists and is public: make it private there"):
        check_push(REPO, True, False)
