"""ViLT against the reference code, on square and on mixed sizes; patches, positions, modalities."""

from __future__ import annotations

import json

import jsonargparse
import pytest
import timm
import torch
import torch.nn.functional as F

from lit_ssl.errors import InputError
from lit_ssl.losses import (
    MaskedLMLoss,
    WordPatchAlignment,
    gather_masked,
    matching_loss,
    vqa_loss,
)
from lit_ssl.models import MatchingHead, MLMHead, RetrievalHead, ViltBackbone, VLClassifierHead
from lit_ssl.models.backbones.fetching import weights_follow

pytest.importorskip("transformers")

VALUE = {"rtol": 0, "atol": 1e-5}
GRADIENT = {"rtol": 0, "atol": 1e-4}
SMALL = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 32, "max_position_embeddings": 9, "image_size": 12, "patch_size": 4,
}  # fmt: skip


def small(**fields):
    return ViltBackbone({**SMALL, **fields})


def pairs(rows=3, height=12, width=12, length=9):
    ids = torch.randint(5, 50, (rows, length))
    mask = (torch.arange(length) < torch.tensor([length, 4, 2, 7])[:rows, None]).long()
    images = torch.randn(rows, 3, height, width)
    return {"images": images, "input_ids": ids * mask, "attention_mask": mask}


class Reference:
    """The network and the arrays of a file of reference values."""

    def __init__(self, data):
        self.data = data
        vocab, hidden, layers, heads, inner, text, image, patch, answers = data["cfg"].tolist()
        self.backbone = ViltBackbone(
            {
                "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": inner, "image_size": image,
                "max_position_embeddings": text, "patch_size": patch,
            }
        ).eval()  # fmt: skip
        weights = self.part("w.")
        own = {k: v for k, v in weights.items() if not k.startswith("head.")}
        self.backbone.model.load_state_dict(own)
        self.mlm = MLMHead(hidden, vocab)
        self.mlm.load_state_dict(
            {
                "dense.weight": weights["head.mlm_score.transform.dense.weight"],
                "dense.bias": weights["head.mlm_score.transform.dense.bias"],
                "norm.weight": weights["head.mlm_score.transform.LayerNorm.weight"],
                "norm.bias": weights["head.mlm_score.transform.LayerNorm.bias"],
                "decoder.weight": weights["head.mlm_score.decoder.weight"],
                "decoder.bias": weights["head.mlm_score.bias"],
            }
        )
        self.matching = self.head(MatchingHead(hidden), "itm_score.fc.")
        self.ranking = self.head(RetrievalHead(hidden), "rank_output.")
        self.vqa = self.head(VLClassifierHead(hidden, 2 * hidden, answers), "vqa_classifier.")
        self.nlvr2 = self.head(VLClassifierHead(2 * hidden, 2 * hidden, 2), "nlvr2_classifier.")

    def part(self, prefix):
        found = {k: v for k, v in self.data.items() if k.startswith(prefix)}
        return {k.removeprefix(prefix): v.float() for k, v in found.items()}

    def head(self, module, prefix):
        module.load_state_dict(self.part(f"w.head.{prefix}"))
        return module

    def batch(self, ids="text_ids", images="image"):
        data = self.data
        return {
            "input_ids": data[f"in.{ids}"].long(),
            "attention_mask": data["in.text_masks"].long(),
            "images": data[f"in.{images}"].float() if isinstance(images, str) else images,
            "pixel_mask": data["in.pixel_mask"],
        }

    def check_gradients(self, loss, name):
        embeddings = self.backbone.model.embeddings
        parts = {
            "word": embeddings.text_embeddings.word_embeddings.weight,
            "patch": embeddings.patch_embeddings.projection.weight,
            "pos": embeddings.position_embeddings,
            "modality": embeddings.token_type_embeddings.weight,
        }
        wanted = {k: p for k, p in parts.items() if f"grad.{name}.{k}" in self.data}
        assert wanted
        found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True)
        for part, gradient in zip(wanted, found, strict=True):
            torch.testing.assert_close(gradient, self.data[f"grad.{name}.{part}"], **GRADIENT)


@pytest.fixture(params=["vilt_square", "vilt_rect"])
def reference(request, golden):
    return Reference(golden(f"vl_masking/{request.param}"))


def test_states_equal_the_reference(reference):
    output = reference.backbone(reference.batch())
    real = reference.data["in.text_masks"].bool()
    torch.testing.assert_close(output.text[real], reference.data["out.text_feats"][real], **VALUE)
    torch.testing.assert_close(output.pooled, reference.data["out.pooled"], **VALUE)


def test_masked_words_equal_the_reference(reference):
    labels = reference.data["in.text_labels_mlm"].long()
    output = reference.backbone(reference.batch("text_ids_mlm"))
    states, ids = gather_masked(output.text, labels)
    logits = reference.mlm(states)
    torch.testing.assert_close(logits, reference.data["out.mlm_logits_masked"], **VALUE)
    loss = MaskedLMLoss()(logits, ids)
    torch.testing.assert_close(loss, reference.data["out.mlm_loss"], **VALUE)
    reference.check_gradients(loss, "mlm")


def test_matching_and_alignment_equal_the_reference(reference):
    labels = reference.data["out.itm_labels"].long()
    true, false = (reference.data[f"in.{name}"].float() for name in ("image", "false_image"))
    images = torch.where(labels[:, None, None, None] == 1, true, false)
    batch = reference.batch(images=images)
    output = reference.backbone(batch)
    logits = reference.matching(output.pooled)
    torch.testing.assert_close(logits, reference.data["out.itm_logits"], **VALUE)
    loss = matching_loss(logits, labels)
    torch.testing.assert_close(loss, reference.data["out.itm_loss"], **VALUE)
    reference.check_gradients(loss, "itm")
    aligned = WordPatchAlignment()(
        output.text, output.image, batch["attention_mask"], output.image_mask, labels
    )
    torch.testing.assert_close(0.1 * aligned.loss, reference.data["out.itm_wpa_loss"], **VALUE)
    reference.check_gradients(0.1 * aligned.loss, "wpa")


def test_pairs_of_images_equal_the_reference(reference):
    pooled = [
        reference.backbone(reference.batch(images=name), image_type=number).pooled
        for number, name in ((1, "image"), (2, "image_1"))
    ]
    logits = reference.nlvr2(torch.cat(pooled, dim=1))
    torch.testing.assert_close(logits, reference.data["out.nlvr2_logits"], **VALUE)
    loss = F.cross_entropy(logits, reference.data["in.nlvr2_answers"].long())
    torch.testing.assert_close(loss, reference.data["out.nlvr2_loss"], **VALUE)
    reference.check_gradients(loss, "nlvr2")


def test_answers_equal_the_reference(reference):
    logits = reference.vqa(reference.backbone(reference.batch()).pooled)
    torch.testing.assert_close(logits, reference.data["out.vqa_logits"], **VALUE)
    loss = vqa_loss(logits, reference.data["out.vqa_targets"])
    torch.testing.assert_close(loss, reference.data["out.vqa_loss"], **VALUE)


def test_ranking_equals_the_reference_with_images_embedded_once(reference):
    batch = reference.batch()
    embeds, mask = reference.backbone.embed_images(batch["images"], batch["pixel_mask"])
    scores = []
    for name in ("text_ids", "false_text_0_ids", "false_text_1_ids", "false_text_2_ids"):
        texts = {"input_ids": reference.data[f"in.{name}"].long()}
        texts["attention_mask"] = batch["attention_mask"] if name == "text_ids" else (
            torch.ones_like(texts["input_ids"])
        )  # fmt: skip
        output = reference.backbone({**texts, "image_embeds": embeds, "image_mask": mask})
        scores.append(reference.ranking(output.pooled))
    loss = F.cross_entropy(torch.cat(scores, dim=1), torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(loss, reference.data["out.irtr_loss"], **VALUE)


def test_image_tokens_are_those_of_transformers_in_another_order():
    """On images of several sizes, whose patches transformers shuffles."""
    backbone = small().eval()
    batch = pairs(4, height=20, width=16)
    pixel_mask = torch.zeros(4, 20, 16, dtype=torch.long)
    for row, (height, width) in enumerate([(20, 8), (12, 12), (4, 16), (16, 12)]):
        pixel_mask[row, :height, :width] = 1
    images = backbone.embed_images(batch["images"], pixel_mask)
    theirs, mask, _ = backbone.model.embeddings.visual_embed(batch["images"], pixel_mask)
    assert torch.equal(images.mask.sum(1), mask.sum(1))
    assert images.embeds.shape == theirs.shape
    for row in range(4):
        mine, other = images.embeds[row][images.mask[row]], theirs[row][mask[row].bool()]
        distances = torch.cdist(mine, other)
        assert distances.min(dim=1).values.max() < 1e-5
        assert distances.argmin(dim=1).unique().numel() == len(mine)


def test_padding_changes_nothing():
    backbone = small().eval()
    batch = pairs()
    alone = backbone(batch)
    ones = torch.ones(3, 12, 12)
    room = (0, 8, 0, 4)
    padded = backbone(
        {**batch, "images": F.pad(batch["images"], room), "pixel_mask": F.pad(ones, room)}
    )
    torch.testing.assert_close(padded.pooled, alone.pooled, **VALUE)
    torch.testing.assert_close(padded.image, alone.image, **VALUE)  # cut to the largest image
    longer = {k: F.pad(batch[k][:, :7], (0, 2)) for k in ("input_ids", "attention_mask")}
    shorter = {k: batch[k][:, :7] for k in longer}
    torch.testing.assert_close(
        backbone({**batch, **longer}).pooled, backbone({**batch, **shorter}).pooled, **VALUE
    )


def test_evaluation_is_deterministic_and_shows_all_patches():
    backbone = small(max_image_length=4).eval()
    batch = pairs()
    first, second = backbone(batch), backbone(batch)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert first.image.shape == (3, 10, 24)
    assert first.image_mask.all()


@pytest.mark.parametrize("masked", [True, False])
def test_training_shows_a_random_part_of_large_images(masked):
    backbone = small(max_image_length=4)
    images = torch.randn(2, 3, 12, 12)
    pixel_mask = None
    if masked:
        pixel_mask = torch.ones(2, 12, 12)
        pixel_mask[1, 4:] = 0  # three patches
    whole = backbone.eval().embed_images(images, pixel_mask)
    backbone.train()
    seen = torch.zeros(2, 10)
    for _ in range(40):
        embeds, mask = backbone.embed_images(images, pixel_mask)
        assert embeds.shape == (2, 5, 24)
        for row in range(2):
            distances = torch.cdist(embeds[row][mask[row]], whole.embeds[row])
            assert distances.min(dim=1).values.max() < 1e-5
            places = distances.argmin(dim=1)
            assert places.diff().min() > 0  # in their order, none twice
            seen[row, places] += 1
    assert seen[0, 0] == 40
    assert (seen[0, 1:] > 5).all()
    if masked:
        assert (seen[1, :4] == 40).all()
        assert seen[1, 4:].sum() == 0


def test_dropout_of_image_tokens_is_drawn_for_each_text():
    backbone = small(hidden_dropout_prob=0.5)
    batch = pairs(1)
    embeds, mask = backbone.embed_images(batch.pop("images"))
    twice = {k: v.expand(2, -1) for k, v in batch.items()}
    twice |= {"image_embeds": embeds.expand(2, -1, -1), "image_mask": mask.expand(2, -1)}
    pooled = backbone(twice).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


@pytest.mark.parametrize("padded", [True, False])
def test_one_pass_over_two_batches_is_two_passes(padded):
    backbone = small().eval()
    first, second = pairs(), pairs()
    for batch in (first, second):
        if padded:
            batch["pixel_mask"] = torch.ones(3, 12, 12)
    second.get("pixel_mask", torch.ones(1, 12))[..., 8:] = 0  # narrower images
    both = backbone({name: torch.cat([first[name], second[name]]) for name in first})
    for rows, batch in ((slice(3), first), (slice(3, 6), second)):
        alone = backbone(batch)
        real = alone.image_mask
        torch.testing.assert_close(both.pooled[rows], alone.pooled, **VALUE)
        torch.testing.assert_close(both.text[rows], alone.text, **VALUE)
        torch.testing.assert_close(both.image[rows][both.image_mask[rows]], alone.image[real])


def test_half_precision_is_close_and_trains():
    backbone = small()
    batch = pairs()
    whole = backbone(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(batch)
    torch.testing.assert_close(half.pooled.float(), whole.pooled, rtol=0, atol=0.02)
    half.pooled.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in backbone.parameters())
    narrow = small().bfloat16()({**batch, "images": batch["images"].bfloat16()})
    assert narrow.pooled.dtype == torch.bfloat16
    assert narrow.pooled.isfinite().all()


def test_a_configuration_names_the_backbone():
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--backbone", type=torch.nn.Module)
    options = {"class_path": "lit_ssl.models.ViltBackbone", "init_args": {"config": SMALL}}
    # named `instantiate` since jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    built = instantiate(parser.parse_object({"backbone": options})).backbone
    assert built.hidden_size == 24


def test_a_second_image_starts_as_the_first():
    backbone = small().eval()
    batch = pairs()
    before = backbone(batch).pooled
    assert (backbone(batch, image_type=2).pooled - before).abs().max() > 1e-6
    backbone.second_image_from_first_()
    torch.testing.assert_close(backbone(batch, image_type=2).pooled, before)
    with pytest.raises(InputError, match="num_modalities: 3"):
        ViltBackbone(SMALL, num_modalities=2).second_image_from_first_()
    with pytest.raises(InputError, match="image_type 3 needs num_modalities: 4"):
        backbone(batch, image_type=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 3, 10, 12)}, "10 × 12 pixels cannot be cut into patches"),
        ({"images": torch.zeros(3, 1, 12, 12)}, r"images \[B, 3, H, W\], got \[3, 1, 12, 12\]"),
        ({"pixel_mask": torch.ones(3, 12, 16)}, r"pixel_mask must be \[3, 12, 12\]"),
        ({"pixel_mask": torch.zeros(3, 12, 12)}, "image 0 of the batch has no patch"),
        ({"pixel_mask": torch.eye(12).expand(3, 12, 12)}, "no rectangle at the top left"),
        ({"input_ids": torch.zeros(2, 9).long()}, r"need input_ids and attention_mask \[3, L\]"),
        (
            {k: torch.ones(3, 12).long() for k in ("input_ids", "attention_mask")},
            "texts have 12 tokens, but the network has 9 positions",
        ),
        ({"image_embeds": torch.zeros(3, 2, 24)}, "either images or image_embeds"),
    ],
)
def test_wrong_batches_are_named(change, message):
    with pytest.raises(InputError, match=message):
        small()({**pairs(), **change})


def test_positions_do_not_start_at_zero():
    embeddings = small().model.embeddings
    for table in (embeddings.cls_token, embeddings.position_embeddings):
        assert 0.01 < table.std() < 0.03


def test_wrong_fields_are_named():
    with pytest.raises(InputError, match=r"no field 'hiden_size'. Did you mean hidden_size"):
        ViltBackbone({"hiden_size": 24})
    with pytest.raises(InputError, match=r"transformers refuses the config.*24.*5"):
        small(num_attention_heads=5)
    with pytest.raises(InputError, match="as num_modalities"):
        ViltBackbone({"modality_type_vocab_size": 3})
    with pytest.raises(InputError, match="pretrained or vit_weights, not both"):
        ViltBackbone(pretrained="a", vit_weights="b")


def save(folder, model, **config):
    model.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return str(folder)


@pytest.mark.parametrize("kind", ["ViltModel", "ViltForMaskedLM"])
def test_a_folder_of_transformers_is_read(tmp_path, kind):
    import transformers

    config = transformers.ViltConfig(**SMALL)  # two modalities
    model = getattr(transformers, kind)(config).eval()
    core = model if kind == "ViltModel" else model.vilt
    folder = save(tmp_path, model.half())
    backbone = ViltBackbone({"hidden_dropout_prob": 0.3}, pretrained=folder)
    assert backbone.training
    assert backbone.model.embeddings.dropout.p == 0.3
    batch = pairs()
    theirs = core.float()(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
        pixel_values=batch["images"], pixel_mask=torch.ones(3, 12, 12).long(),
    )  # fmt: skip
    mine = backbone.eval()(batch)
    assert mine.text.dtype == torch.float32
    torch.testing.assert_close(mine.text, theirs.last_hidden_state[:, :9], **VALUE)
    torch.testing.assert_close(backbone(batch, image_type=2), mine)  # grown as the first
    with weights_follow():
        empty = ViltBackbone(pretrained=folder)
    empty.load_state_dict(backbone.state_dict())


def test_a_folder_that_does_not_fit_is_named(tmp_path):
    import transformers

    with pytest.raises(FileNotFoundError, match=r"found no .*config.json"):
        ViltBackbone(pretrained=str(tmp_path / "none"))
    model = transformers.ViltModel(transformers.ViltConfig(**SMALL), add_pooling_layer=False)
    with pytest.raises(InputError, match=r"lacks 2 weights of ViLT, pooler.dense.bias"):
        ViltBackbone(pretrained=save(tmp_path / "part", model))
    with pytest.raises(InputError, match=r"cannot read .*"):
        ViltBackbone({"vocab_size": 51}, pretrained=save(tmp_path / "part", model))
    other = save(tmp_path / "bert", model, model_type="bert")
    with pytest.raises(InputError, match="holds a model of type 'bert'"):
        ViltBackbone(pretrained=other)


VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "num_classes": 5}
OF_VIT = {**SMALL, "intermediate_size": 48}


def vit(**kwargs):
    model = timm.models.VisionTransformer(img_size=12, patch_size=4, **{**VIT, **kwargs})
    return model.eval()


def test_a_vision_transformer_gives_patches_positions_and_blocks(tmp_path):
    """With no text to look at, ViLT's blocks compute what the vision transformer computes."""
    model = vit()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "vit.pth")
    fields = {**OF_VIT, "layer_norm_eps": 1e-6}  # timm's
    backbone = ViltBackbone(fields, vit_weights=str(tmp_path / "vit.pth")).eval()
    assert "vit.pth" in backbone.start
    backbone.model.embeddings.token_type_embeddings.weight.data.zero_()
    batch = pairs()
    batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])
    image = backbone(batch).image
    torch.testing.assert_close(image, model.forward_features(batch["images"]), atol=2e-5, rtol=0)


def test_a_name_of_timm_gives_the_sizes_too(monkeypatch):
    asked = {}

    def create(name, **kwargs):
        asked.update(kwargs)
        return vit(num_classes=0)

    monkeypatch.setattr(timm, "create_model", create)
    fields = {k: SMALL[k] for k in ("vocab_size", "max_position_embeddings", "image_size")}
    backbone = ViltBackbone(fields, vit_weights="vit_base_patch32_384")
    assert asked == {"num_classes": 0, "pretrained": True, "img_size": 12}
    assert (backbone.hidden_size, backbone.image_size, backbone.patch_size) == (
        24,
        (12, 12),
        (4, 4),
    )
    with weights_follow():
        empty = ViltBackbone(fields, vit_weights="vit_base_patch32_384")
    assert asked["pretrained"] is False
    empty.load_state_dict(backbone.state_dict())
    with pytest.raises(InputError, match=r"hidden_size is 32 in the config but 24 in vit_base"):
        ViltBackbone({**fields, "hidden_size": 32}, vit_weights="vit_base_patch32_384")


def test_what_is_no_plain_vision_transformer_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "vit.pth"
    for kwargs, message in (
        ({"init_values": 0.1}, r"it has blocks.0.ls1.gamma"),
        ({"class_token": False, "global_pool": "avg"}, r"fc_norm.weight"),
        ({"pre_norm": True}, r"it has norm_pre.weight"),
        ({"depth": 1}, r"not the sizes of the config: encoder.layer.1"),
    ):
        torch.save(vit(**kwargs).state_dict(), path)
        with pytest.raises(InputError, match=message):
            ViltBackbone(OF_VIT, vit_weights=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot be read as weights"):
        ViltBackbone(OF_VIT, vit_weights=str(path))
    with pytest.raises(FileNotFoundError, match=r"is no file and no model of timm.*vit_base_patch"):
        ViltBackbone(OF_VIT, vit_weights="vit_base_patch32_38")
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: vit(act_layer=torch.nn.SiLU))
    with pytest.raises(InputError, match="has the activation SiLU"):
        ViltBackbone(OF_VIT, vit_weights="vit_base_patch32_384")
