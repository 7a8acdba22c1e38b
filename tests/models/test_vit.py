"""The class-token ViT against the reference, timm, and an explicit attention mask."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from lit_ssl.models import ClassTokenViT, draw_kept_patches, keep_count
from lit_ssl.models.backbones.queried_block import QueriedBlock


def small_vit(**kwargs) -> VisionTransformer:
    arguments = {
        "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2,
        "num_classes": 0,
    }  # fmt: skip
    return VisionTransformer(**{**arguments, **kwargs})


@pytest.fixture
def reference(golden):
    data = golden("msn/vit_forward")
    encoder = ClassTokenViT(small_vit(num_heads=int(data["heads"]))).double()
    state = {k.removeprefix("sd/"): v.double() for k, v in data.items() if k.startswith("sd/")}
    encoder.vit.load_state_dict(state)
    return encoder.eval(), data


def test_forward_equals_the_reference(reference):
    encoder, data = reference
    image, focal = data["image"].double(), data["focal"].double()
    close = {"rtol": 1e-9, "atol": 1e-9}
    kept = data["kept_patches"]
    torch.testing.assert_close(encoder(image), data["cls_full"], **close)
    torch.testing.assert_close(encoder(focal), data["cls_focal"], **close)
    torch.testing.assert_close(encoder(image, kept), data["cls_masked"], **close)
    torch.testing.assert_close(encoder(image, norm=False), data["blocks1"], **close)
    torch.testing.assert_close(encoder(image, norm=False, blocks=2), data["blocks2"], **close)
    positions = torch.cat(encoder.positions(2, 2), dim=1)
    torch.testing.assert_close(positions, data["pos_focal"], **close)


def test_kept_patches_of_the_whole_batch_or_of_each_image_agree(reference):
    encoder, data = reference
    kept, image = data["kept_patches"], data["image"].double()
    per_image = torch.stack([kept, kept.flip(0)])  # the order of tokens is irrelevant
    torch.testing.assert_close(encoder(image, per_image), encoder(image, kept))


def test_dropping_equals_hiding_in_the_attention():
    vit = small_vit().eval()
    encoder = ClassTokenViT(vit)
    images = torch.randn(3, 3, 32, 32)
    keep = draw_kept_patches(3, 16, 0.4, "image", "cpu")
    visible = torch.zeros(3, 17, dtype=torch.bool)
    visible[:, 0] = True
    visible.scatter_(1, keep + 1, True)
    hidden = vit.forward_features(images, attn_mask=visible[:, None, None, :])[:, 0]
    torch.testing.assert_close(encoder(images, keep), hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"reg_tokens": 4, "no_embed_class": True},
        {"init_values": 1e-2, "qk_norm": True},
        {"pre_norm": True},
    ],
)
def test_values_and_gradients_equal_timm(kwargs):
    timms = small_vit(**kwargs)
    vit = deepcopy(timms)
    images = torch.randn(4, 3, 32, 32)
    weight = torch.randn(4, 24)
    encoder = ClassTokenViT(vit)
    assert all(type(block) is QueriedBlock for block in vit.blocks)
    gradients = []
    outputs = []
    for network, forward in ((timms, lambda x: timms.forward_features(x)[:, 0]), (vit, encoder)):
        out = forward(images)
        (out * weight).sum().backward()
        outputs.append(out)
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_every_parameter_gets_a_gradient_so_that_ddp_finds_none_unused():
    encoder = ClassTokenViT(small_vit(reg_tokens=2))
    keep = draw_kept_patches(2, 16, 0.5, "image", "cpu")
    encoder(torch.randn(2, 3, 32, 32), keep).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_checkpointing_gives_the_same_gradients():
    encoder = ClassTokenViT(small_vit())
    images = torch.randn(2, 3, 32, 32)
    encoder(images).square().sum().backward()
    plain = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    encoder.vit.set_grad_checkpointing()
    encoder(images).square().sum().backward()
    for a, b in zip(plain, (p.grad for p in encoder.parameters()), strict=True):
        torch.testing.assert_close(a, b)


def test_borders_that_fill_no_patch_are_cropped():
    encoder = ClassTokenViT(small_vit()).eval()
    images = torch.randn(2, 3, 21, 30)
    torch.testing.assert_close(encoder(images), encoder(images[..., :16, :24]))
    with pytest.raises(ValueError, match="hold no patch of 8×8"):
        encoder(torch.randn(1, 3, 7, 32))


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [(196, 0.15, 166), (196, 0.3, 137), (196, 0.7, 58), (20, 0.3, 14), (4, 0.9, 1)],
)
def test_number_of_kept_patches(patches, ratio, kept):
    assert keep_count(patches, ratio) == kept


def test_masks_are_uniform_and_differ_between_images_as_asked():
    keep = draw_kept_patches(4000, 16, 0.25, "image", "cpu")
    assert keep.shape == (4000, 12)
    assert all(len(row.unique()) == 12 for row in keep[:50])
    frequency = torch.bincount(keep.flatten(), minlength=16) / 4000
    # each patch, the last one included, is kept with probability 0.75 (s.e. 0.007)
    assert ((frequency - 0.75).abs() < 0.035).all()
    assert not torch.equal(keep[0].sort().values, keep[1].sort().values)
    assert draw_kept_patches(4, 16, 0.25, "batch", "cpu").shape == (12,)
    assert draw_kept_patches(4, 16, 0.0, "image", "cpu") is None


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_tiny_patch16_224", 5_524_416),
        ("vit_small_patch16_224", 21_665_664),
        ("vit_small_patch8_224", 21_670_272),
        ("vit_base_patch16_224", 85_798_656),
    ],
)
def test_sizes_of_the_papers_networks(name, parameters):
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=0)
    assert sum(p.numel() for p in vit.parameters()) == parameters


def test_patch_sizes_of_the_paper_that_timm_has_no_name_for():
    for name, patch, parameters in [
        ("vit_base_patch16_224", 4, 87_503_616),
        ("vit_large_patch16_224", 7, 303_513_600),
    ]:
        with torch.device("meta"):
            vit = timm.create_model(name, num_classes=0, patch_size=patch)
        assert sum(p.numel() for p in vit.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"), [("vitc_4gf", 17_369_136), ("deit_small_convstem", 27_113_904)]
)
def test_convolutional_stems(name, parameters):
    encoder = ClassTokenViT.create(name)
    assert sum(p.numel() for p in encoder.parameters()) == parameters
    encoder.eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        timm_features = encoder.vit(images)
        torch.testing.assert_close(encoder(images), timm_features, rtol=1e-4, atol=1e-5)
        keep = draw_kept_patches(2, 196, 0.5, "image", "cpu")
        assert encoder(images, keep).shape == (2, 384)
        assert encoder(images[..., :96, :96]).shape == (2, 384)


def test_initialisation_is_the_references():
    vit = ClassTokenViT.create("vit_tiny_patch16_224").vit
    assert vit.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert vit.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    fan_in = 3 * 16 * 16
    assert vit.patch_embed.proj.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)


def test_sincos_initialisation_lets_a_narrow_network_see():
    kwargs = {"img_size": 28, "patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 4}
    images = torch.randn(8, 3, 28, 28)

    def variation(initialization: str) -> float:
        encoders = [
            ClassTokenViT.create("vit_tiny_patch16_224", initialization, **kwargs) for _ in range(8)
        ]
        return sum(encoder(images).std(dim=0).mean().item() for encoder in encoders)

    assert variation("sincos") > 2 * variation("reference")
    vit = ClassTokenViT.create("vit_tiny_patch16_224", "sincos", **kwargs).vit
    table = vit.pos_embed[0, 1:]
    assert table.abs().max() <= 1
    distances = torch.cdist(table, table) + torch.eye(49) * 9
    assert distances.min() > 0.5  # every place has its own embedding
    assert distances[0].argmin() in (1, 7)  # and the most similar one is a neighbour's
    with pytest.raises(ValueError, match="a width that 4 divides, not 6"):
        ClassTokenViT.create("vit_tiny_patch16_224", "sincos", embed_dim=6, num_heads=2)


def test_other_networks_are_refused_with_a_hint():
    with pytest.raises(TypeError, match=r"not Linear; .*forward\(images, keep=None\)"):
        ClassTokenViT(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no class token"):
        ClassTokenViT(small_vit(class_token=False, global_pool="avg"))
    with pytest.raises(ValueError, match="blocks must lie in 1 … 2"):
        ClassTokenViT(small_vit())(torch.randn(1, 3, 32, 32), blocks=3)


SMALL = {"img_size": 32, "depth": 1, "embed_dim": 12, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deit_tiny_distilled_patch16_224", {}, "VisionTransformerDistilled has a _pos_embed of"),
        ("vit_tiny_r_s16_p8_224", {"depth": 1}, r"come out of a network \(HybridEmbed\)"),
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg"}, "pools with global_pool='avg'"),
        ("vit_tiny_patch16_224", {**SMALL, "patch_drop_rate": 0.5}, "patch_drop_rate"),
        ("vit_tiny_patch16_224", {**SMALL, "dynamic_img_pad": True}, "dynamic_img_pad"),
        ("vit_base_patch16_siglip_224", {"depth": 1, "global_pool": "map"}, "no class token"),
        ("beit_base_patch16_224", {"depth": 1}, "not Beit"),
    ],
)
def test_what_is_not_computed_is_refused(name, options, message):
    from lit_ssl import MSN

    with pytest.raises(ValueError, match=message):
        ClassTokenViT(timm.create_model(name, num_classes=0, **options))
    with pytest.raises(ValueError, match=message):
        ClassTokenViT.create(name, **{"global_pool": "token"} | options)
    with pytest.raises(ValueError, match=message) as error:
        MSN(timm.create_model(name, num_classes=0, **options))
    assert "\n" not in str(error.value)


def test_a_subclass_that_computes_the_same_is_taken():
    class Mine(VisionTransformer):
        def extra(self):
            return 1

    class Other(VisionTransformer):
        def forward_features(self, x, attn_mask=None):
            return 2 * super().forward_features(x)

    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    vit = Mine(**arguments, num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ClassTokenViT(vit)(images), vit(images))
    with pytest.raises(TypeError, match="Other has a forward_features of its own"):
        ClassTokenViT(Other(**arguments, num_classes=0))


@pytest.mark.parametrize("options", [{"fc_norm": True}, {"final_norm": False}, {"reg_tokens": 3},
                                     {"pre_norm": True}, {"no_embed_class": True}])  # fmt: skip
def test_final_norms_and_register_tokens_are_timms(options):
    vit = small_vit(**options).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ClassTokenViT(vit)(images), vit(images))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_tinyy_patch16_224", {}, "timm has no model .* Did you mean vit_tiny_patch16_224"),
        ("resnet18", {}, "cannot build 'resnet18' as a vision transformer with {}: Invalid pool"),
        ("vit_tiny_patch16_224", {"heads": 3}, "with {'heads': 3}: .*unexpected keyword .*'heads'"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "dim should be divisible by num_heads"),
    ],
)
def test_what_timm_cannot_build(name, options, message):
    with pytest.raises(ValueError, match=message):
        ClassTokenViT.create(name, **options)


def test_images_with_other_channels_are_named():
    encoder = ClassTokenViT.create("vit_tiny_patch16_224", img_size=32, depth=1)
    with pytest.raises(ValueError, match=r"images have 1 channels, but the network takes 3: build"):
        encoder(torch.zeros(2, 1, 32, 32))
