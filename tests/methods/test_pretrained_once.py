"""Weights to start from are loaded at the start, and never over trained ones."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl import MSN, PAWS, FineTuning, ImageClassifier, LinearEvaluation
from lit_ssl.trainer.run import origin_of

KWARGS = {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2}
MADE = {
    MSN: {"num_prototypes": 4, "proj_hidden_dim": 8, "proj_output_dim": 8},
    PAWS: {"num_classes": 3, "proj_output_dim": 8, "pred_hidden_dim": 4},
    ImageClassifier: {"num_classes": 3},
    FineTuning: {"num_classes": 3},
    LinearEvaluation: {"num_classes": 3},
}


@pytest.fixture(params=MADE, ids=lambda method: method.__name__)
def start(request, tmp_path, tiny):
    method = request.param
    network = tiny.vit(depth=1)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    def make():
        name = "vit_tiny_patch16_224"
        file = "weights" if method is LinearEvaluation else "pretrained"
        return method(name, KWARGS, **{file: str(tmp_path / "net.pth")}, **MADE[method])

    return make, network.patch_embed.proj.weight


def first_weight(module):
    return module.encoder.patch_embed.proj.weight


def test_a_test_after_a_fit_keeps_what_was_trained(start):
    make, weight = start
    module = make()
    module.setup("fit")
    assert torch.equal(first_weight(module), weight)
    with torch.no_grad():
        first_weight(module).add_(1.0)
    module.setup("test")
    torch.testing.assert_close(first_weight(module), weight + 1)
    assert named(module) is None


def named(module):
    """The file that a report of another trainer would name."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    origin = origin_of(trainer)
    assert origin["weights"].endswith("net.pth")
    return origin["checkpoint"]


def test_reports_name_the_file_to_start_from_while_its_weights_are_held(start):
    module = start[0]()
    module.setup("test")
    assert named(module).endswith("net.pth")
    module.setup("validate")
    assert named(module).endswith("net.pth")
    module.setup("fit")
    assert named(module) is None


def test_a_loaded_checkpoint_keeps_its_weights(start, tmp_path):
    make, weight = start
    module = make()
    module.setup("fit")
    with torch.no_grad():
        first_weight(module).add_(1.0)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = type(module).load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    loaded.setup("test")
    torch.testing.assert_close(first_weight(loaded), weight + 1)
    assert named(loaded) is None  # it is not the file with which that run began
