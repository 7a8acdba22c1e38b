"""Tokens of two images and a text, by a frozen CLIP and by small layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import FrozenCLIP, ImagePairTextTokenizer, SmallPairEncoder
from lit_ssl.models.backbones.fetching import weights_follow


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a tiny CLIP."""
    from transformers import CLIPConfig, CLIPModel

    shape = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **shape, "vocab_size": 50, "hidden_size": 8, "max_position_embeddings": 14,
            "bos_token_id": 48, "eos_token_id": 49,
        },
        vision_config={**shape, "hidden_size": 12, "image_size": 16, "patch_size": 8},
        projection_dim=6,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    CLIPModel(config).save_pretrained(folder)
    return folder


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def small_tokenizer(**kwargs):
    encoder = SmallPairEncoder(20, image_size=16, image_dim=8, text_dim=6, max_length=9)
    return ImagePairTextTokenizer(encoder, 7, 5, 3, 2, **kwargs)


def batch(tokenizer, size=3, lengths=(7, 2, 4)):
    inputs = tokenizer.example(size)
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
    return inputs


def test_clip_gives_the_last_hidden_states_of_both_towers(clip):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip).eval()
    encoder = FrozenCLIP(str(clip))
    images, ids, mask = torch.randn(2, 3, 16, 16), torch.randint(48, (2, 9)), torch.ones(2, 9)
    mask[1, 5:] = 0
    expected = model(pixel_values=images, input_ids=ids, attention_mask=mask.long())
    seen, words = encoder.encode_images(images), encoder.encode_text(ids, mask.bool())
    torch.testing.assert_close(seen, expected.vision_model_output.last_hidden_state)
    torch.testing.assert_close(words, expected.text_model_output.last_hidden_state)
    assert seen.shape == (2, encoder.num_image_tokens, encoder.image_dim)
    assert (encoder.image_size, encoder.vocab_size, encoder.max_length) == (16, 50, 14)


def test_the_shapes_of_clip_vit_b_32():
    """2 · 50 + 64 = 164 tokens of 256, from 768 and 512 channels."""
    from transformers import CLIPConfig

    config = CLIPConfig()
    assert config.vision_config.hidden_size == 768
    assert config.text_config.hidden_size == 512
    encoder = SmallPairEncoder(100, image_size=224, image_dim=8, preset="atto")
    encoder.num_image_tokens = (
        config.vision_config.image_size // config.vision_config.patch_size
    ) ** 2 + 1
    encoder.encode_images = lambda images: torch.zeros(len(images), 50, 8)
    tokenizer = ImagePairTextTokenizer(encoder)
    assert tokenizer(tokenizer.example(1)).values.shape == (1, 164, 256)


def test_frozen_parts_stay_frozen_and_are_saved(clip):
    tokenizer = ImagePairTextTokenizer(FrozenCLIP(str(clip)), max_length=7)
    tokenizer.train()
    assert not any(module.training for module in tokenizer.encoder.vision.modules())
    assert not any(module.training for module in tokenizer.encoder.text.modules())
    tokenizer(batch(tokenizer)).values.square().sum().backward()
    for name, parameter in tokenizer.named_parameters():
        frozen = name.startswith("encoder.")
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
    with weights_follow():
        torch.manual_seed(5)
        other = ImagePairTextTokenizer(FrozenCLIP(str(clip)), max_length=7)
    inputs = batch(tokenizer)
    assert not torch.equal(other(inputs).text[0], tokenizer(inputs).text[0])
    other.load_state_dict(tokenizer.state_dict())
    torch.testing.assert_close(other(inputs), tokenizer(inputs), rtol=0, atol=0)


def test_tokens_are_both_images_and_the_text():
    tokenizer = small_tokenizer().eval()
    inputs = batch(tokenizer)
    tokens = tokenizer(inputs)
    assert tokens.values.shape == (3, 2 * 4 + 7, tokenizer.token_dim)
    assert tokens.mask[:, :8].all()
    assert tokens.mask[:, 8:].sum(1).tolist() == [7, 2, 4]
    # one table of positions for both images, one row of categories for each part
    torch.testing.assert_close(tokens.values[0, :4, 5:8], tokenizer.image_positions)
    torch.testing.assert_close(tokens.values[1, 4:8, 5:8], tokenizer.image_positions)
    torch.testing.assert_close(tokens.values[2, 8:, 5:8], tokenizer.text_positions)
    parts = tokens.values[..., 8:].split([4, 4, 7], dim=1)
    categories = (*tokenizer.image_category, tokenizer.text_category[0])
    for part, category in zip(parts, categories, strict=True):
        torch.testing.assert_close(part, category.expand_as(part))
    seen = tokenizer.encoder.encode_images(inputs["images"][:, 1])
    torch.testing.assert_close(tokens.values[:, 4:8, :5], tokenizer.image_project(seen))


def test_swapped_images_swap_all_but_positions_and_categories():
    tokenizer = small_tokenizer().eval()
    inputs = batch(tokenizer)
    first = tokenizer(inputs).values[..., :8]
    second = tokenizer({**inputs, "images": inputs["images"].flip(1)}).values[..., :8]
    torch.testing.assert_close(second[:, :4], first[:, 4:8])
    torch.testing.assert_close(second[:, 4:8], first[:, :4])


def test_a_text_for_the_generator_alone_is_none_of_the_tokens():
    tokenizer = small_tokenizer(text_in_executor=False)
    assert not any(name.startswith("text_") for name, _ in tokenizer.named_parameters())
    inputs = batch(tokenizer)
    tokens = tokenizer(inputs)
    assert tokens.values.shape == (3, 8, tokenizer.token_dim)
    assert tokens.mask is None
    values, mask = tokens.text
    assert values.shape == (3, 7, tokenizer.text_dim)
    assert torch.equal(mask, inputs["attention_mask"].bool())


@pytest.mark.parametrize("kind", ["small", "clip"])
def test_an_empty_text_is_finite(kind, clip):
    tokenizer = (
        small_tokenizer()
        if kind == "small"
        else ImagePairTextTokenizer(FrozenCLIP(str(clip)), max_length=7)
    )
    tokens = tokenizer(batch(tokenizer, lengths=(0, 1, 7)))
    assert tokens.values.isfinite().all()
    assert tokens.text[1].sum(1).tolist() == [1, 1, 7]


def test_every_parameter_of_the_small_layers_learns():
    tokenizer = small_tokenizer()
    tokenizer(tokenizer.example(2)).values.square().sum().backward()
    assert [n for n, p in tokenizer.named_parameters() if p.grad is None] == []


def test_half_precision():
    tokenizer = small_tokenizer().eval()
    inputs = batch(tokenizer)
    exact = tokenizer(inputs).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = tokenizer(inputs).values
    torch.testing.assert_close(narrow.float(), exact, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"images": torch.zeros(3, 2, 3, 8, 8)}, "3, 16, 16"), ({"images": None}, "images"),
     ({"images": torch.zeros(3, 3, 16, 16)}, "B, 2, C, H, W"),
     ({"images": torch.zeros(3, 3, 3, 16, 16)}, "two images"),
     ({"images": torch.zeros(2, 2, 3, 16, 16)}, "two images"),
     ({"input_ids": torch.full((3, 7), 20)}, "vocabulary")],
)  # fmt: skip
def test_wrong_inputs_are_refused(change, words):
    tokenizer = small_tokenizer()
    with pytest.raises(InputError, match=words):
        tokenizer({**batch(tokenizer), **change})


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="at most 9"):
        ImagePairTextTokenizer(SmallPairEncoder(9, image_size=8, max_length=9), max_length=10)
    with pytest.raises(InputError, match="8 divides"):
        SmallPairEncoder(9, image_size=12)
    with pytest.raises(InputError, match="vocab_size"):
        SmallPairEncoder(0)


def test_a_folder_that_is_no_clip_is_refused(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*config\.json.*nothing is downloaded"):
        FrozenCLIP(str(tmp_path))
    folder = copied(clip, tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="cannot read"):
        FrozenCLIP(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot read"):
        FrozenCLIP(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        FrozenCLIP(str(folder))


def test_missing_weights_are_refused_and_not_made_up(clip, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copied(clip, tmp_path)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "text_model" in name and name.endswith("fc1.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(InputError, match=r"lacks 1 weights.*fc1\.weight"):
        FrozenCLIP(str(folder))


def test_another_kind_of_model_is_refused(clip, tmp_path):
    folder = copied(clip, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(InputError, match="'bert'"):
        FrozenCLIP(str(folder))


def test_they_are_built_from_yaml(clip):
    from jsonargparse import ArgumentParser
    from torch import nn

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tokenizer", type=nn.Module)
    encoders = [
        {"class_path": "lit_ssl.models.FrozenCLIP", "init_args": {"path": str(clip)}},
        {"class_path": "lit_ssl.models.SmallPairEncoder",
         "init_args": {"vocab_size": 11, "image_size": 8}},
    ]  # fmt: skip
    for encoder in encoders:
        tokenizer = {
            "class_path": "lit_ssl.models.ImagePairTextTokenizer",
            "init_args": {"encoder": encoder, "max_length": 6, "text_in_executor": False},
        }
        config = parser.parse_object({"tokenizer": tokenizer})
        # named `instantiate` since jsonargparse 4.49
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
        built = instantiate(config).tokenizer
        assert isinstance(built, ImagePairTextTokenizer)
        assert type(built.encoder).__name__ == encoder["class_path"].rpartition(".")[2]
        assert built(built.example(2)).text[0].shape == (2, 6, built.text_dim)
