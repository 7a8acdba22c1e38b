"""Activation checkpointing: less is kept, and no gradient changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.methods import MSN, PMSN

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
OPTIONS = {
    "backbone": "vit_tiny_patch16_224", "num_prototypes": 8, "proj_hidden_dim": 16,
    "proj_output_dim": 8,
}  # fmt: skip


def made(method, checkpointed, **kwargs):
    torch.manual_seed(0)
    options = {**OPTIONS, "backbone_kwargs": {**VIT, **kwargs}}
    return method(**options, activation_checkpointing=checkpointed)


def step(module, compiled=False):
    """Loss and gradients of one step with masks and dropout; bytes kept for the gradient."""
    if compiled:
        for block in module.backbone.vit.blocks:
            block.compile(backend="aot_eager")
    kept = []
    torch.manual_seed(1)
    images = torch.randn(4, 3, 32, 32)
    _, targets = module.encode_target(images)
    keep = module.draw_mask(images, 0.5)

    def pack(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        anchors = module.encode_anchor(images, keep)
        loss = module.loss(anchors, targets, module.prototypes, 0.25).loss
    loss.backward()
    grads = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    return loss.detach(), grads, sum(kept)


@pytest.mark.parametrize("method", [MSN, PMSN])
@pytest.mark.parametrize("drop", [{}, {"drop_path_rate": 0.5, "proj_drop_rate": 0.3}])
def test_gradients_are_the_same(method, drop):
    loss, grads, kept = step(made(method, False, **drop))
    again, others, kept_less = step(made(method, True, **drop))
    assert torch.equal(loss, again)
    assert list(grads) == list(others)
    for name, value in grads.items():
        assert torch.equal(value, others[name]), name
    assert kept_less < 0.5 * kept


def test_with_compiled_blocks():
    loss, grads, _ = step(made(MSN, False), compiled=True)
    again, others, _ = step(made(MSN, True), compiled=True)
    torch.testing.assert_close(loss, again)
    for name, value in grads.items():
        torch.testing.assert_close(value, others[name])


def test_weights_have_the_same_names():
    assert list(made(MSN, False).state_dict()) == list(made(MSN, True).state_dict())


def test_other_backbones_are_refused():
    class Other(nn.Module):
        embed_dim, patch_size = 8, (8, 8)

        def forward(self, images, keep=None):
            return images.mean((1, 2, 3))[:, None].expand(-1, 8)

    with pytest.raises(InputError, match="activation_checkpointing needs a vision transformer"):
        MSN(Other(), num_prototypes=8, proj_hidden_dim=16, activation_checkpointing=True)
