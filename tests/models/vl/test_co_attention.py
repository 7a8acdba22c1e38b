"""Co-attention against METER's block, and over encoders of every form."""

from __future__ import annotations

import jsonargparse
import pytest
import torch
import torch.nn.functional as F

from lit_ssl.errors import InputError
from lit_ssl.losses import matching_loss
from lit_ssl.models import CoAttentionBackbone, MatchingHead
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.vl.co_attention import CoAttention

pytest.importorskip("transformers")

BERT = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 9,
}  # fmt: skip
VIT = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
FUSED = {"hidden_size": 24, "num_layers": 2, "num_heads": 3}


def small(image="vit_tiny_patch16_224", image_kwargs=VIT, text=BERT, **kwargs):
    return CoAttentionBackbone(image, text, image_kwargs, **{**FUSED, **kwargs})


def pairs(rows=3, side=12):
    ids = torch.randint(5, 50, (rows, 9))
    mask = (torch.arange(9) < torch.tensor([9, 4, 2])[:rows, None]).long()
    images = torch.randn(rows, 3, side, side)
    return {"images": images, "input_ids": ids * mask, "attention_mask": mask}


def as_torch(weights, prefix):
    """The weights of METER's layer by the names of torch's decoder layer."""
    names = {
        "linear1": "intermediate.dense", "linear2": "output.dense", "norm3": "output.LayerNorm",
    }  # fmt: skip
    for mine, theirs, norm in (
        ("self_attn", "attention", "norm1"),
        ("multihead_attn", "crossattention", "norm2"),
    ):
        names |= {f"{mine}.out_proj": f"{theirs}.output.dense", norm: f"{theirs}.output.LayerNorm"}
    found = {
        f"{mine}.{kind}": weights[f"{prefix}.{theirs}.{kind}"]
        for mine, theirs in names.items()
        for kind in ("weight", "bias")
    }
    for mine, theirs in (("self_attn", "attention"), ("multihead_attn", "crossattention")):
        for kind in ("weight", "bias"):
            parts = [f"{prefix}.{theirs}.self.{p}.{kind}" for p in ("query", "key", "value")]
            found[f"{mine}.in_proj_{kind}"] = torch.cat([weights[part] for part in parts])
    return {k: v.float() for k, v in found.items()}


@pytest.mark.parametrize("class_token", [True, False])
def test_co_attention_equals_the_reference(golden, class_token):
    data = golden("vl_masking/meter_cross")
    weights = {k.removeprefix("w."): v.float() for k, v in data.items() if k.startswith("w.")}
    hidden, heads, layers, inner = data["cfg"].tolist()
    fusion = CoAttention(
        hidden, layers, heads, inner / hidden, image_class_token=class_token
    ).eval()
    for stream in ("text", "image"):
        pooler = getattr(fusion, f"{stream}_pooler")
        pooler.weight.data = weights[f"{stream}_pooler.dense.weight"]
        pooler.bias.data = weights[f"{stream}_pooler.dense.bias"]
        for index, layer in enumerate(getattr(fusion, f"{stream}_layers")):
            layer.load_state_dict(as_torch(weights, f"{stream}_layers.{index}"))
    head = MatchingHead(2 * hidden)
    head.load_state_dict({k: weights[f"itm.fc.{k}"] for k in ("weight", "bias")})
    inputs = {name: data[f"in.{name}"].clone().requires_grad_() for name in ("text", "image")}
    streams = [
        F.linear(x, weights[f"{name}_transform.weight"], weights[f"{name}_transform.bias"])
        + weights["token_type.weight"][kind]
        for kind, (name, x) in enumerate(inputs.items())
    ]
    mask = data["in.text_mask"].bool()
    text, image, pooled = fusion(*streams, mask, torch.ones_like(streams[1][:, :, 0]).bool())
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(text[mask], data["out.text"][mask], **close)
    torch.testing.assert_close(image, data["out.image"], **close)
    torch.testing.assert_close(
        pooled, data["out.cls" if class_token else "out.cls_avgpool"], **close
    )
    if class_token:
        logits = head(pooled)
        torch.testing.assert_close(logits, data["out.itm_logits"], **close)
        loss = matching_loss(logits, torch.arange(len(logits)) % 2)
        torch.testing.assert_close(loss, data["out.itm_loss"], **close)
        loss.backward()
        for name, x in inputs.items():
            torch.testing.assert_close(x.grad, data[f"grad.{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kwargs", "side", "tokens", "class_token"),
    [
        ("vit_tiny_patch16_224", VIT, 12, 10, True),
        ("vit_base_patch16_clip_quickgelu_224", VIT, 12, 10, True),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
             "window_size": 2},
            32, 16, False,
        ),
        ("resnet10t", {}, 33, 4, False),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [4, 4, 4, 8]}, 64, 4, False),
    ],
)  # fmt: skip
def test_every_form_of_image_encoder_is_trained_as_a_whole(name, kwargs, side, tokens, class_token):
    backbone = small(name, kwargs)
    batch = pairs(side=side)
    output = backbone(batch)
    assert backbone.fusion.image_class_token == class_token
    assert output.text.shape == (3, 9, 24)
    assert output.image.shape == (3, tokens, 24)
    assert output.image_mask.all()
    assert output.pooled.shape == (3, backbone.pooled_size) == (3, 48)
    (output.pooled.sum() + output.text.sum()).backward()
    idle = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_padded_words_change_nothing():
    backbone = small().eval()
    batch = pairs()
    before = backbone(batch)
    hidden = batch["attention_mask"] == 0
    changed = {**batch, "input_ids": batch["input_ids"].masked_fill(hidden, 7)}
    torch.testing.assert_close(backbone(changed).pooled, before.pooled)
    torch.testing.assert_close(backbone(changed).image, before.image)


def test_images_embedded_once_give_the_same():
    backbone = small().eval()
    batch = pairs()
    whole = backbone(batch)
    embeds, mask = backbone.embed_images(batch.pop("images"), torch.ones(3, 12, 12))
    again = backbone({**batch, "image_embeds": embeds, "image_mask": mask})
    torch.testing.assert_close(again, whole)


def test_half_precision_is_close_and_trains():
    backbone = small(dropout=0.0).eval()
    batch = pairs()
    whole = backbone(batch)
    backbone.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(batch)
    half.pooled.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in backbone.parameters())
    assert whole.pooled.dtype == torch.float32
    assert half.pooled.isfinite().all()


def test_a_configuration_names_the_backbone():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--backbone", type=torch.nn.Module)
    options = {
        "class_path": "lit_ssl.models.CoAttentionBackbone",
        "init_args": {
            "image_encoder": "vit_tiny_patch16_224", "text_encoder": BERT, "image_kwargs": VIT,
            **FUSED,
        },
    }  # fmt: skip
    # named `instantiate` since jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    built = instantiate(parser.parse_object({"backbone": options})).backbone
    assert built.pooled_size == 48


def test_both_streams_see_each_other():
    backbone = small().eval()
    batch = pairs()
    before = backbone(batch)
    other_image = backbone({**batch, "images": batch["images"].roll(1, 0)})
    other_text = backbone({**batch, "input_ids": batch["input_ids"].roll(1, 0)})
    assert (other_image.text - before.text).abs().max() > 1e-3
    assert (other_text.image - before.image).abs().max() > 1e-3


def test_a_second_image_starts_as_the_first():
    backbone = small().eval()
    batch = pairs()
    before = backbone(batch).pooled
    assert (backbone(batch, image_type=2).pooled - before).abs().max() > 1e-6
    backbone.second_image_from_first_()
    torch.testing.assert_close(backbone(batch, image_type=2).pooled, before)
    with pytest.raises(InputError, match="image_type 2 needs num_modalities: 3"):
        small(num_modalities=2)(batch, image_type=2)


def test_prefixes_of_what_joins_the_streams():
    backbone = small()
    names = [n for n, _ in backbone.named_parameters()]
    joins = {n.partition(".")[0] for n in names if n.startswith(backbone.cross_modal_prefixes)}
    assert joins == {"text_projection", "image_projection", "fusion"}


def test_a_folder_of_transformers_is_read(tmp_path):
    import transformers

    config = transformers.RobertaConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    model = transformers.RobertaForMaskedLM(config).eval()
    model.half().save_pretrained(tmp_path)
    backbone = small(text=str(tmp_path))
    assert backbone.max_text_len == 10  # RoBERTa's positions begin behind that of padding
    assert backbone.training
    batch = pairs()
    backbone.eval()
    states = backbone.text_encoder(batch["input_ids"], batch["attention_mask"] > 0)
    theirs = model.float().roberta(batch["input_ids"], batch["attention_mask"])
    real = batch["attention_mask"] > 0
    torch.testing.assert_close(states[real], theirs.last_hidden_state[real], rtol=0, atol=1e-5)
    with weights_follow():
        small(text=str(tmp_path)).load_state_dict(backbone.state_dict())
    longer = {k: torch.ones(3, 11).long() for k in ("input_ids", "attention_mask")}
    with pytest.raises(InputError, match="texts have 11 tokens, but the network has 10"):
        backbone({**batch, **longer})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": 5}, "hidden_size that num_heads divides, got 2, 24 and 5"),
        ({"image": "vit_tinny"}, "no backbone 'vit_tinny'"),
        ({"text": "no/folder"}, "no text encoder in no/folder"),
        ({"text": {"hidden_size": 12}}, "needs a model_type"),
        ({"text": {**BERT, "hiden_size": 12}}, "bert has no field 'hiden_size'"),
        ({"text": {**BERT, "num_attention_heads": 5}}, "transformers refuses the text_encoder"),
        ({"text": {**BERT, "is_decoder": True}}, "a bert that decodes"),
        ({"num_modalities": 1}, "num_modalities must be at least 2"),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        small(**kwargs)


def test_wrong_images_are_named():
    backbone = small()
    with pytest.raises(
        InputError, match=r"\[16, 16\] pixels, but the image encoder is for \[12, 12"
    ):
        backbone(pairs(side=16))
    padded = torch.ones(3, 12, 12)
    padded[0, 8:] = 0
    with pytest.raises(InputError, match="images without padding"):
        backbone({**pairs(), "pixel_mask": padded})
