"""timm's block that can compute its first tokens alone: as a module, in place."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import nn

from lit_ssl.models import ClassTokenViT
from lit_ssl.models.backbones.queried_block import QueriedBlock, with_queried_blocks

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
OPTIONS = [{}, {"qkv_bias": False, "init_values": 0.1}, {"qk_norm": True}]


def tiny_vit(**options) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**{**TINY, "num_classes": 0, **options})


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("queries", [1, 3, None])
def test_first_tokens_and_their_gradients_are_those_of_the_whole_block(options, queries):
    plain = tiny_vit(**options).double().blocks[0]
    block = with_queried_blocks(tiny_vit(**options).double()).blocks[0]
    tokens = torch.randn(3, 17, 24, dtype=torch.float64)
    outputs, gradients = [], []
    for network, call in ((plain, {}), (block, {"queries": queries})):
        x = tokens.clone().requires_grad_()
        rows = network(x, **call)[:, :queries]
        rows.square().sum().backward()
        outputs.append(rows)
        gradients.append([x.grad, *(p.grad for p in network.parameters())])
    torch.testing.assert_close(*outputs)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mask", [{"attn_mask": torch.rand(17, 17) > 0.3}, {"is_causal": True}])
def test_masks_are_timms(mask):
    if not set(mask) <= set(signature(Block.forward).parameters):
        pytest.skip(f"the blocks of this timm have no {', '.join(mask)}")
    plain, block = tiny_vit().blocks[0], with_queried_blocks(tiny_vit()).blocks[0]
    tokens = torch.randn(3, 17, 24)
    torch.testing.assert_close(block(tokens, **mask), plain(tokens, **mask))


def test_a_network_of_the_user_computes_and_is_named_as_before():
    plain, vit = tiny_vit(), tiny_vit()
    images = torch.randn(2, 3, 32, 32)
    ClassTokenViT(vit)
    assert torch.equal(vit(images), plain(images))
    for ours, theirs in zip(
        vit.forward_intermediates(images, intermediates_only=True),
        plain.forward_intermediates(images, intermediates_only=True),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert vit.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(vit.blocks[0], Block)


def test_every_block_is_called_as_a_module_so_that_hooks_and_compilers_see_it():
    encoder = ClassTokenViT(tiny_vit(depth=3))
    images = torch.randn(2, 3, 32, 32)
    expected = encoder(images)
    graphs, called = [], []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    assert encoder.blocks_to_compile() == list(encoder.vit.blocks)
    for block in encoder.blocks_to_compile():
        block.register_forward_hook(lambda module, args, output: called.append(output.shape[1]))
        block.compile(backend=count, fullgraph=True)
    torch.testing.assert_close(encoder(images), expected)
    assert called == [17, 17, 1]
    assert len(graphs) >= 2  # of all tokens, and of the class token alone


def test_blocks_of_other_kinds_stay():
    class Mine(Block):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    for kind in (Mine, ResPostBlock):
        vit = tiny_vit(block_fn=kind)
        images = torch.randn(2, 3, 32, 32)
        expected = vit(images)
        torch.testing.assert_close(ClassTokenViT(vit)(images), expected)
        assert all(type(block) is kind for block in vit.blocks)
    vit = tiny_vit()
    vit.blocks[0].attn = Other()
    assert type(with_queried_blocks(vit).blocks[0]) is Block
    assert type(vit.blocks[1]) is QueriedBlock


class Other(nn.Module):
    def forward(self, x, attn_mask=None, is_causal=False):
        return x
