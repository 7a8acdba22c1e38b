"""Gauge and pictures with the real module, and from the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.__main__ import main
from lit_ssl.callbacks import Grounding, MaskedCaptions
from lit_ssl.callbacks.pictures.caption_samples import caption_picture, take_samples
from lit_ssl.datamodules import DigitScenesDataModule
from lit_ssl.methods import VLPretraining
from lit_ssl.models import CoAttentionBackbone, ViltBackbone
from lit_ssl.text import UniformMasker

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")

FIELDS = {
    "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "image_size": 32, "patch_size": 16, "max_position_embeddings": 24,
}  # fmt: skip


def make_module(**kwargs):
    torch.manual_seed(0)
    backbone = ViltBackbone(FIELDS, initialization="fan_in")
    return VLPretraining(backbone, UniformMasker(0.6), **kwargs)


def scenes(**kwargs):
    return DigitScenesDataModule(sizes=(64, 0, 21), batch_size=8, **kwargs)


def test_true_accuracy_is_that_of_the_module(make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[Grounding(), MaskedCaptions()])
    trainer.validate(make_module(), scenes(), verbose=False)
    found = trainer.callback_metrics
    assert float(found["val/grounding_true"]) == pytest.approx(float(found["val/mlm_acc"]))
    assert 0 <= found["val/itm_true"] <= 1
    assert np.asarray(Image.open(tmp_path / "masked_captions/validate.png")).std() > 10


def test_a_module_without_matching_is_measured_on_words(make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[Grounding(), MaskedCaptions()])
    trainer.validate(make_module(itm_weight=0.0, wpa_weight=0.0), scenes(), verbose=False)
    assert "val/grounding_content" in trainer.callback_metrics
    assert not any("itm" in name for name in trainer.callback_metrics)
    assert (tmp_path / "masked_captions/validate.png").exists()


def test_a_fit_is_the_same_with_both(make_trainer):
    weights = []
    for callbacks in ([], [Grounding(), MaskedCaptions()]):
        module = make_module()
        make_trainer(callbacks=callbacks, max_epochs=1, num_sanity_val_steps=1).fit(
            module, scenes(seed=0)
        )
        weights.append({name: value.clone() for name, value in module.state_dict().items()})
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_samples_of_padded_images_are_guessed_as_in_their_batch():
    """Cut out of its batch, a pair has the same guesses; words lie in its own grid."""
    module = make_module().eval()
    module.mask_id = 4
    sizes = torch.tensor([[32, 64], [48, 32], [16, 80]])
    pixel_mask = torch.zeros(3, 48, 80, dtype=torch.bool)
    for row, (height, width) in enumerate(sizes.tolist()):
        pixel_mask[row, :height, :width] = True
    ids = torch.randint(5, 73, (3, 9))
    lengths = torch.tensor([[9], [5], [7]])
    attention = (torch.arange(9) < lengths).long()
    words = torch.arange(9).expand(3, -1) - 1
    words = torch.where((words >= 0) & (words < lengths - 2), words, -1)
    inputs = {
        "images": torch.randn(3, 3, 48, 80) * pixel_mask[:, None], "pixel_mask": pixel_mask,
        "input_ids": ids, "attention_mask": attention, "word_ids": words,
    }  # fmt: skip
    mask = torch.zeros_like(words, dtype=torch.bool)
    mask[:, 2] = True
    samples = list(take_samples(inputs, torch.arange(3), mask, []))
    tokenizer = scenes().text_tokenizer
    with torch.no_grad():
        probabilities = module.guess(inputs, mask).softmax(dim=1)
        matches = module.match(inputs).sigmoid()
        pictures = [
            caption_picture(module, sample, None, tokenizer, lambda images: images)
            for sample in samples
        ]
    for row, (picture, size) in enumerate(zip(pictures, sizes.tolist(), strict=True)):
        ((guess, _),) = [one for one in picture.guesses if one is not None]
        assert guess.probability == pytest.approx(float(probabilities[row].max()), rel=1e-4)
        assert picture.matches[0] == pytest.approx(float(matches[row]), rel=1e-4)
        assert [one.shares.shape for one in picture.maps] == [(size[0] // 16, size[1] // 16)] * 3
        for one in picture.maps:
            assert one.shares.mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("encoder", "kwargs", "has_maps"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1}, True),
        ("resnet10t", {}, False),  # tokens are a grid without a class token
    ],
)
def test_two_streams(make_trainer, tmp_path, monkeypatch, encoder, kwargs, has_maps):
    from lit_ssl.callbacks.pictures import masked_captions

    text = {
        "model_type": "bert", "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 24,
    }  # fmt: skip
    net = CoAttentionBackbone(encoder, text, kwargs, 16, 1, 2)
    module = VLPretraining(net, UniformMasker(0.6), wpa_weight=0)
    seen = []
    draw = masked_captions.draw_captions
    monkeypatch.setattr(
        masked_captions, "draw_captions", lambda p, title: seen.append(p) or draw(p, title)
    )
    trainer = make_trainer(callbacks=[Grounding(), MaskedCaptions(num_samples=2)])
    trainer.validate(module, scenes(), verbose=False)
    assert "val/grounding" in trainer.callback_metrics
    assert [bool(picture.maps) for picture in seen[0]] == [has_maps] * 2


def test_short_names_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = "trainer: {callbacks: [{class_path: Grounding}, {class_path: MaskedCaptions}]}"
    (tmp_path / "more.yaml").write_text(more)
    words = [
        "fit", "--config", "vl/digit_scenes.yaml", "--config", "more.yaml",
        "--data.sizes", "[32, 0, 16]", "--trainer.max_epochs", "1", "--trainer.logger", "CSVLogger",
        "--trainer.logger.save_dir", ".", "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["lit-ssl", *words])
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert main() is None, capsys.readouterr().err
    (picture,) = tmp_path.rglob("masked_captions/*.png")
    assert picture.name == "step_00000002.png"
    (table,) = tmp_path.rglob("metrics.csv")
    header = table.read_text().splitlines()[0].split(",")
    assert {"val/grounding", "val/grounding_content", "val/itm_rolled"} <= set(header)
