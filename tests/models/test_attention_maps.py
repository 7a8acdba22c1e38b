import pytest
import timm
import torch
from timm.layers import Attention
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.models import ClassTokenViT
from lit_ssl.models.attention_maps import class_attention, find_vit

SMALL = {"img_size": 28, "patch_size": 7, "in_chans": 1, "embed_dim": 32, "depth": 3,
         "num_heads": 4, "num_classes": 0}  # fmt: skip


def small_vit(name="vit_tiny_patch16_224", **kwargs):
    torch.manual_seed(0)
    vit = timm.create_model(name, **{**SMALL, **kwargs}).eval()
    for parameter in vit.parameters():  # so that attention is far from even
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return vit


def explicit(vit, images, mask=None):
    """softmax(q kᵀ / √d) of every block, [B, H, N, N] each, from the inputs of its attention."""
    inputs, found = [], []
    hooks = [
        block.attn.register_forward_pre_hook(lambda attn, args: inputs.append(args[0]))
        for block in vit.blocks
    ]
    vit(images)
    for hook in hooks:
        hook.remove()
    for block, x in zip(vit.blocks, inputs, strict=True):
        attn = block.attn
        q, k, _ = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = attn.q_norm(q), attn.k_norm(k)
        found.append((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1))
    return found


def rolled_out(weights):
    product = None
    for found in weights:
        step = 0.5 * found.mean(1) + 0.5 * torch.eye(found.shape[-1])
        product = step if product is None else step @ product
    return product[:, 0]


KINDS = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "norms of queries and keys": {"qk_norm": True},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "patches in a row": {"img_size": (14, 28)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_queried", [False, True])
@torch.no_grad()
def test_maps_are_the_softmax_of_queries_and_keys(kind, is_queried):
    vit = small_vit(**KINDS[kind])
    if is_queried and kind == "distilled":
        pytest.skip("it has two tokens, which ClassTokenViT does not compute")
    images = torch.randn(3, 1, *((14, 28) if kind == "patches in a row" else (28, 28)))
    expected = explicit(vit, images)
    prefix = vit.num_prefix_tokens
    network = ClassTokenViT(vit) if is_queried else vit
    before = network(images)
    found = class_attention(find_vit(network), images, network)
    torch.testing.assert_close(found.last.flatten(2), expected[-1][:, :, 0, prefix:])
    torch.testing.assert_close(found.rollout.flatten(1), rolled_out(expected)[:, prefix:])
    assert torch.equal(network(images), before)
    assert all(block.attn.fused_attn == Attention(8).fused_attn for block in vit.blocks)
    assert not any(part._forward_hooks for part in network.modules())


@torch.no_grad()
def test_masked_keys_have_no_attention():
    vit = small_vit()
    images = torch.randn(2, 1, 28, 28)
    mask = torch.zeros(17, 17)
    mask[:, 5:] = -torch.inf

    def forward(x):
        tokens = vit._pos_embed(vit.patch_embed(x))
        for block in vit.blocks:
            tokens = block(tokens, attn_mask=mask)
        return tokens

    for network in (vit, ClassTokenViT(vit).vit):
        found = class_attention(network, images, forward)
        assert found.last.flatten(2)[..., 4:].eq(0).all()
        assert found.rollout.flatten(1)[..., 4:].eq(0).all()
        assert (found.last.flatten(2).sum(-1) > 0).all()


@torch.no_grad()
def test_images_of_another_size_and_half_precision():
    network = ClassTokenViT(small_vit())
    with torch.autocast("cpu", torch.bfloat16):
        found = class_attention(network.vit, torch.randn(1, 1, 45, 31), network)
    assert found.last.shape == (1, 4, 6, 4)
    assert found.last.dtype == found.rollout.dtype == torch.float32


@torch.no_grad()
def test_other_transformers_of_timm():
    eva = timm.create_model(
        "eva02_tiny_patch14_224", img_size=28, patch_size=14, embed_dim=48, depth=2, num_heads=4
    ).eval()
    found = class_attention(find_vit(nn.Sequential(eva)), torch.randn(2, 3, 28, 28), eva)
    assert found.last.shape == (2, 4, 2, 2)
    assert (found.last.sum((2, 3)) < 1).all()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 1)), "it has none in it"),
        (lambda: small_vit(class_token=False, global_pool="avg"), "it pools otherwise"),
        (lambda: nn.ModuleList([small_vit(), small_vit()]), "has 2 transformers in it"),
        (lambda: timm.create_model("resnet18", num_classes=0), "it has none in it"),
    ],
)
def test_networks_without_maps(network, message):
    with pytest.raises(InputError, match=message):
        find_vit(network())


def test_a_pass_that_leaves_blocks_out_is_refused():
    vit = small_vit()
    with pytest.raises(InputError, match="went 1 times through the 3 blocks"):
        class_attention(
            vit, torch.randn(1, 1, 28, 28), lambda x: vit.blocks[0](torch.zeros(1, 17, 32))
        )


@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks():
    vit = small_vit()
    images = torch.randn(1, 1, 28, 28)
    expected = class_attention(vit, images)
    for block in vit.blocks:
        block.compile()
    vit(images)
    torch.testing.assert_close(class_attention(vit, images), expected)
