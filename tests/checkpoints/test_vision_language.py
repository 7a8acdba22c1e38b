"""Weights of vision-language models: ViLT's files, transformers' folders, runs of this package."""

from __future__ import annotations

import argparse

import pytest
import torch

from lit_ssl.checkpoints.vision_language import fit_vl_backbone, fit_vl_head, read_vl_weights
from lit_ssl.errors import InputError
from lit_ssl.models import (
    CoAttentionBackbone,
    MatchingHead,
    MLMHead,
    RetrievalHead,
    ViltBackbone,
    VLClassifierHead,
)

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 14, "image_size": 32, "patch_size": 8,
}  # fmt: skip
IN_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


def released(data, modalities=3):
    """The arrays of a reference file by the names of the code that they come from."""
    weights = {k.removeprefix("w."): v.float() for k, v in data.items() if k.startswith("w.")}
    found = {}
    for name, value in weights.items():
        if name.startswith("head."):
            found[name.removeprefix("head.")] = value
        elif name.startswith("encoder.layer."):
            number, _, rest = name.removeprefix("encoder.layer.").partition(".")
            stem, _, kind = rest.rpartition(".")
            if stem in IN_BLOCK:
                found[f"transformer.blocks.{number}.{IN_BLOCK[stem]}.{kind}"] = value
        elif name.startswith("layernorm."):
            found[f"transformer.{name.removeprefix('layer')}"] = value
        elif name.startswith("pooler."):
            found[name] = value
        else:
            inner = name.removeprefix("embeddings.")
            inner = inner.replace("patch_embeddings.projection", "transformer.patch_embed.proj")
            inner = {
                "cls_token": "transformer.cls_token",
                "position_embeddings": "transformer.pos_embed",
            }.get(inner, inner)
            found[inner] = value
    for number in range(2):
        for kind in ("weight", "bias"):
            place = f"encoder.layer.{number}.attention.attention"
            parts = [weights[f"{place}.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"transformer.blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
    found["token_type_embeddings.weight"] = found["token_type_embeddings.weight"][:modalities]
    found["text_embeddings.position_ids"] = torch.arange(14)[None]
    return found


def test_a_checkpoint_of_the_released_code_gives_its_numbers(golden, tmp_path):
    data = golden("vl_masking/vilt_square")
    path = tmp_path / "vilt.ckpt"
    content = {"epoch": 1, "state_dict": released(data), "pytorch-lightning_version": "1.1.4"}
    torch.save({**content, "hyper_parameters": argparse.Namespace(lr=1)}, path)
    weights = read_vl_weights(path)
    assert weights.source == f"{path} (checkpoint of ViLT)"
    backbone = ViltBackbone(SMALL).eval()
    fit_vl_backbone(backbone, weights, path)
    output = backbone(
        {
            "input_ids": data["in.text_ids"].long(), "attention_mask": data["in.text_masks"].long(),
            "images": data["in.image"].float(), "pixel_mask": data["in.pixel_mask"],
        }
    )  # fmt: skip
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(output.pooled, data["out.pooled"], **close)
    answers = len(data["w.head.vqa_classifier.3.bias"])
    heads = {
        "mlm_head": MLMHead(24, 60),
        "itm_head": MatchingHead(24),
        "retrieval_head": RetrievalHead(24),
        "vqa_head": VLClassifierHead(24, 48, answers),
        "nlvr2_head": VLClassifierHead(48, 48, 2),
    }
    assert set(weights.heads) == set(heads)
    for name, head in heads.items():
        assert fit_vl_head(head, name, weights, path)
    torch.testing.assert_close(heads["vqa_head"](output.pooled), data["out.vqa_logits"], **close)
    for part, name in (("weight", "decoder.weight"), ("bias", "bias")):
        decoder = getattr(heads["mlm_head"].decoder, part)
        assert torch.equal(decoder, data[f"w.head.mlm_score.{name}"].float())
    assert not fit_vl_head(VLClassifierHead(24, 48, 3), "entailment_head", weights, path)


def test_a_file_with_two_modalities_gives_the_second_image_the_first_ones(golden, tmp_path):
    data = golden("vl_masking/vilt_square")
    torch.save(released(data, modalities=2), tmp_path / "vilt.pt")
    backbone = ViltBackbone(SMALL)
    fit_vl_backbone(backbone, read_vl_weights(tmp_path / "vilt.pt"), tmp_path / "vilt.pt")
    table = backbone.model.embeddings.token_type_embeddings.weight
    assert torch.equal(table[:2], data["w.embeddings.token_type_embeddings.weight"][:2].float())
    assert torch.equal(table[2], table[1])


@pytest.mark.parametrize(
    ("kind", "settings", "heads"),
    [
        ("ViltModel", {}, set()),
        ("ViltForMaskedLM", {}, {"mlm_head"}),
        ("ViltForQuestionAnswering", {"num_labels": 7}, {"vqa_head"}),
        ("ViltForImagesAndTextClassification", {"num_images": 2}, {"nlvr2_head"}),
        ("ViltForImageAndTextRetrieval", {}, {"retrieval_head"}),
    ],
)
def test_folders_of_transformers(tmp_path, kind, settings, heads):
    config = transformers.ViltConfig(**SMALL, **settings)
    config.modality_type_vocab_size = 3 if "num_images" in settings else 2
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path)
    weights = read_vl_weights(tmp_path)
    backbone = ViltBackbone(SMALL)
    fit_vl_backbone(backbone, weights, tmp_path)
    core = model if kind == "ViltModel" else model.vilt
    for name, value in core.state_dict().items():
        mine = backbone.model.state_dict()[name]
        assert torch.equal(mine[: len(value)], value), name
    assert set(weights.heads) == heads
    x = torch.randn(4, 24)
    if kind == "ViltForMaskedLM":
        head = MLMHead(24, 60)
        fit_vl_head(head, "mlm_head", weights, tmp_path)
        torch.testing.assert_close(head(x), model.mlm_score(x))
    if kind == "ViltForQuestionAnswering":
        head = VLClassifierHead(24, 48, 7)
        fit_vl_head(head, "vqa_head", weights, tmp_path)
        torch.testing.assert_close(head(x), model.classifier(x))


def run_of(backbone, path, **heads):
    module = torch.nn.Module()
    module.backbone = backbone
    for name, head in heads.items():
        setattr(module, name, head)
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0"}, path)
    return path


def test_a_run_of_this_package(tmp_path):
    old, head = ViltBackbone(SMALL), MLMHead(24, 60)
    path = run_of(old, tmp_path / "run.ckpt", mlm_head=head)
    weights = read_vl_weights(path)
    new, other = ViltBackbone(SMALL), MLMHead(24, 60)
    fit_vl_backbone(new, weights, path)
    assert fit_vl_head(other, "mlm_head", weights, path)
    torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(other.state_dict(), head.state_dict(), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"not those of the mlm_head.*\[60, 24\] instead of \[61"):
        fit_vl_head(MLMHead(24, 61), "mlm_head", weights, path)


def test_a_run_of_two_streams(tmp_path):
    text = {
        "model_type": "bert", "vocab_size": 50, "hidden_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 9,
    }  # fmt: skip
    image = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}

    def build(**fields):
        return CoAttentionBackbone(
            "vit_tiny_patch16_224", {**text, **fields}, image, hidden_size=24, num_layers=1,
            num_heads=3, num_modalities=3 if fields else 2,
        )  # fmt: skip

    path = run_of(build(), tmp_path / "run.ckpt")
    new = build(hidden_act="gelu")
    fit_vl_backbone(new, read_vl_weights(path), path)
    assert torch.equal(new.modalities.weight[2], new.modalities.weight[1])
    with pytest.raises(InputError, match="vocabulary of 50 tokens, but the backbone has 51"):
        fit_vl_backbone(build(vocab_size=51), read_vl_weights(path), path)


def test_positions_of_two_streams_are_interpolated(tmp_path, caplog):
    caplog.set_level("INFO")
    text = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2}
    text |= {"num_hidden_layers": 1, "intermediate_size": 8}

    def build(size, depth=1):
        image = {"img_size": size, "patch_size": 4, "embed_dim": 8, "depth": depth, "num_heads": 2}
        options = {"hidden_size": 8, "num_layers": 1, "num_heads": 2}
        return CoAttentionBackbone("vit_tiny_patch16_224", text, image, **options)

    old = build(12)
    table = old.image_encoder.network.pos_embed
    ramp = torch.linspace(-1, 1, 3)
    with torch.no_grad():  # the first feature tells the row of a patch, the second its column
        table[0, 1:, 0], table[0, 1:, 1] = ramp.repeat_interleave(3), ramp.repeat(3)
        table[0, 1:, 2] = 0.5
    path = run_of(old, tmp_path / "run.ckpt")
    new = build((24, 32))
    fit_vl_backbone(new, read_vl_weights(path), path)
    assert "from 3 × 3 patches to 6 × 8" in caplog.text
    found = new.image_encoder.network.pos_embed
    assert torch.equal(found[:, 0], table[:, 0])
    rows, columns = (found[0, 1:, feature].view(6, 8) for feature in (0, 1))
    assert (rows.diff(dim=0) > 0).all()
    assert (columns.diff(dim=1) > 0).all()
    torch.testing.assert_close(rows, rows[:, :1].expand(-1, 8))
    torch.testing.assert_close(found[0, 1:, 2], torch.full((48,), 0.5))
    images = torch.zeros(1, 3, 24, 32)
    assert new.embed_images(images).embeds.shape == (1, 49, 8)
    caplog.clear()
    fit_vl_backbone(build(12), read_vl_weights(path), path)
    assert "interpolated" not in caplog.text
    with pytest.raises(InputError, match="not those of the backbone"):
        fit_vl_backbone(build(24, depth=2), read_vl_weights(path), path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 61}, "vocabulary of 60 tokens, but the backbone has 61"),
        ({"max_position_embeddings": 15}, "up to 14 tokens.*max_position_embeddings: 14"),
        ({"image_size": 40}, "16 positions of patches, but the backbone has 25"),
        ({"num_hidden_layers": 1}, "not those of the backbone.*config of that training"),
    ],
)
def test_weights_of_another_training_are_named(tmp_path, fields, message):
    path = run_of(ViltBackbone(SMALL), tmp_path / "run.ckpt")
    with pytest.raises(InputError, match=message):
        fit_vl_backbone(ViltBackbone({**SMALL, **fields}), read_vl_weights(path), path)


def test_other_files_are_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"no vision-language model.*found layer"):
        read_vl_weights(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_vl_weights(tmp_path / "none.ckpt")
