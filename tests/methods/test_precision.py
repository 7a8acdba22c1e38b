"""Half precision and sharding: slow state is not rounded away, what would be wrong is refused."""

from __future__ import annotations

from contextlib import nullcontext

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from lit_ssl import (
    BARACK,
    JTT,
    MSN,
    PAWS,
    PMSN,
    AttributePredictor,
    GroupRobustClassifier,
    ImageClassifier,
    RoPAWS,
    SuNCEt,
)
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.methods import FineTuning, LinearEvaluation
from lit_ssl.models import SmallCNN, ema_update_
from lit_ssl.models.backbones.vit import draw_kept_patches
from lit_ssl.models.ema import target_copy
from lit_ssl.optim.clipping import clip_grad_norm_

TINY_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}


# ------------------------------------------------------------------- half precision


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("method", [MSN, PMSN])
def test_the_target_follows_in_half_precision(tiny, method, precision):
    if precision == "16-true" and method is PMSN:
        pytest.skip("one method is enough")
    ways = {}
    for kind in ("32-true", precision):
        torch.manual_seed(0)
        module = tiny.msn(method, ema_decay=0.98, final_ema_decay=0.98, mask_ratio=0.0)
        start = module.target_head.fc1.weight.detach().clone()
        goal = start + 0.1 * torch.randn_like(start)

        class Hold(pl.Callback):
            weight = goal

            def on_before_optimizer_step(self, trainer, pl_module, optimizer):
                for parameter in pl_module.parameters():
                    parameter.grad = None

            def on_train_start(self, trainer, pl_module):
                pl_module.projection_head.fc1.weight.data.copy_(self.weight)

        trainer = tiny.trainer(precision=kind, callbacks=[Hold()])
        trainer.fit(module, tiny.loader([tiny.views() for _ in range(40)]))
        way = (module.target_head.fc1.weight - start).norm() / (goal - start).norm()
        ways[kind] = way.item()
    assert ways["32-true"] == pytest.approx(1 - 0.98**40, rel=1e-3)
    assert ways[precision] == pytest.approx(ways["32-true"], rel=0.02)


def test_half_precision_reaches_the_network_but_not_its_slow_state(tiny):
    module = tiny.msn(PMSN, prior="power_law").to(torch.bfloat16)
    assert module.backbone.vit.pos_embed.dtype == module.prototypes.dtype == torch.bfloat16
    slow = [*module.target_backbone.parameters(), *module.target_head.buffers(), module.loss.prior]
    assert {t.dtype for t in slow if t.is_floating_point()} == {torch.float32}
    images = torch.randn(4, 3, 16, 16, dtype=torch.bfloat16)
    assert module(images).shape == module.features(images).shape == (4, 12)
    torch.testing.assert_close(module(images).float(), module(images.float()), atol=0.1, rtol=0.1)
    doubles = tiny.msn(PMSN).double()
    assert doubles.target_head.fc1.weight.dtype == doubles.loss.prior.dtype == torch.float64


def test_a_network_made_in_half_precision_has_a_float32_target():
    network = nn.Linear(3, 2).to(torch.bfloat16)
    target = target_copy(network)
    assert target.weight.dtype == torch.float32
    before = target.weight.clone()
    network.weight.data.add_(1.0)
    ema_update_(target, network, 0.75)
    torch.testing.assert_close(target.weight, 0.75 * before + 0.25 * network.weight.float())


def test_masks_are_uniform_where_half_precision_is_the_default():
    try:
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        half = draw_kept_patches(8, 196, 0.5, "image", "cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    assert torch.equal(half, draw_kept_patches(8, 196, 0.5, "image", "cpu"))


def test_accuracies_that_choose_a_head_are_not_rounded():
    module = LinearEvaluation("vit_tiny_patch16_224", TINY_VIT, num_classes=3)
    module.val_acc1.copy_(torch.tensor([0.9531, 0.9546, 0.5, 0.1]))
    module = module.to(torch.bfloat16)
    assert module.val_acc1.dtype == torch.float32
    assert module.best_head == 1


# ------------------------------------------------------------------------- scaling


class ScaledFloat32(MixedPrecision):
    """Scales the loss as with float16, and computes in float32: exact up to rounding."""

    def forward_context(self):
        return nullcontext()


def fit_scaled(tiny, fused, scaler):
    norms = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            norms.append(float(trainer.callback_metrics["train/grad_norm"]))

    torch.manual_seed(0)
    module = tiny.msn(
        mask_ratio=0.0, clip_grad_norm=1e-2, lr=1e-3,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0, fused=fused),
    )  # fmt: skip
    plugins = [ScaledFloat32("16-mixed", "cpu", scaler)] if scaler else []
    trainer = tiny.trainer(plugins=plugins, callbacks=[Look()])
    torch.manual_seed(1)
    trainer.fit(module, tiny.loader([tiny.views() for _ in range(3)]))
    state = torch.cat([p.detach().flatten() for p in module.parameters()])
    return norms, state


def test_clipping_sees_gradients_without_the_scale_of_the_loss(tiny):
    """A fused optimizer takes the scale out of the gradients itself, after they were clipped."""
    plain = fit_scaled(tiny, fused=False, scaler=None)
    for fused in (False, True):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        norms, state = fit_scaled(tiny, fused, scaler)
        assert norms == pytest.approx(plain[0], rel=1e-4)
        torch.testing.assert_close(state, plain[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("max_norm", [0.5, 50.0, float("inf")])
def test_clipping_of_scaled_gradients_is_that_of_plain_ones(max_norm):
    parameters = [
        nn.Parameter(torch.zeros(4, 3)),
        nn.Parameter(torch.zeros(5)),
        nn.Parameter(torch.zeros(1)),
    ]
    gradients = [torch.randn(4, 3), torch.randn(5)]
    found = []
    for scale in (None, torch.tensor(1024.0)):
        for parameter, gradient in zip(parameters, gradients, strict=False):
            parameter.grad = gradient * (1.0 if scale is None else scale)
        norm = clip_grad_norm_(parameters, max_norm, scale)
        left = 1.0 if scale is None else scale
        found.append((norm, *(p.grad / left for p in parameters[:2])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


# ------------------------------------------------------------------------ sharding


GROUPS = {"backbone": SmallCNN(2), "num_classes": 2, "num_attributes": 2}
IMAGES = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": TINY_VIT}
CLASSES = {**IMAGES, "num_classes": 3}
METHODS = {
    MSN: IMAGES, PMSN: IMAGES, PAWS: CLASSES, RoPAWS: CLASSES, SuNCEt: CLASSES,
    ImageClassifier: CLASSES, FineTuning: CLASSES, LinearEvaluation: CLASSES,
    GroupRobustClassifier: GROUPS, BARACK: GROUPS, JTT: GROUPS, AttributePredictor: GROUPS,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_cut_parameters_are_refused_before_training(tiny, method, kind):
    data = ColouredMNISTDataModule(batch_size=8, seed=0)
    data.setup("fit")
    module = method(**METHODS[method])
    module.trainer = trainer = tiny.trainer()
    trainer._accelerator_connector.strategy = object.__new__(kind)
    trainer.datamodule = data
    with pytest.raises(InputError, match=f"{method.__name__} cannot be trained with .*ddp"):
        module.setup("fit")


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("method", METHODS)
def test_models_that_are_divided_are_refused_at_every_door(tiny, method, stage):
    data = ColouredMNISTDataModule(batch_size=8, seed=0)
    data.setup("fit")
    module = method(**METHODS[method])
    module.trainer = trainer = tiny.trainer()
    trainer._accelerator_connector.strategy = object.__new__(ModelParallelStrategy)
    trainer.datamodule = data
    with pytest.raises(InputError, match=f"{method.__name__} cannot be divided .*FSDP2.*ddp"):
        module.setup(stage)
