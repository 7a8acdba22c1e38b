"""A training step of PAWS, its optimisation options, and its errors."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import pytest
import timm.optim
import torch
from torch import nn

from lit_ssl.losses import PAWSLoss
from lit_ssl.methods import PAWS


def network(width=6):
    """Convolution, BatchNorm, pooling."""
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net.embed_dim = width
    return net


def paws(method=PAWS, **kwargs):
    arguments = {
        "backbone": network(), "num_classes": 5, "proj_output_dim": 8, "warmup_epochs": 1,
        "lr": 0.5, "start_lr": 0.1, "final_lr": 0.01,
    }  # fmt: skip
    return method(**{**arguments, **kwargs})


def batch(size=4, small=2, classes=3, images=2, support_views=1):
    views = [torch.randn(size, 2, 3, 16, 16)]
    views += [torch.randn(size, small, 3, 8, 8)] if small else []
    labels = torch.tensor([4, 0, 2])[:classes].repeat(images)
    supports = torch.randn(len(labels), support_views, 3, 16, 16)
    return {"unlabelled": (views, torch.zeros(size)), "support": ([supports], labels)}


class Look(pl.Callback):
    """Keeps gradients, learning rates and outputs of every step."""

    def __init__(self):
        self.grads, self.rates, self.outputs = [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        self.grads.append({n: p.grad.clone() for n, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.outputs.append(outputs)


def fit(tiny, module, batches, **kwargs):
    look = Look()
    trainer = tiny.trainer(callbacks=[look], **kwargs)
    trainer.fit(module, tiny.loader(batches))
    return look, trainer


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("support_views", [1, 2])
def test_a_step_is_the_loss_of_its_parts(tiny, head, support_views):
    """Written down once more, view by view; BatchNorm in eval mode, so batches do not matter."""

    class Frozen(PAWS):
        def on_train_start(self):
            self.eval()

    module = paws(Frozen, use_prediction_head=head)
    data = batch(support_views=support_views)
    (large, small), (supports, labels) = data["unlabelled"][0], data["support"]
    module.eval()

    def embed(images):
        h = module.projection_head(module.backbone(images))
        return h, module.prediction_head(h) if head else h

    views = [*large.unbind(1), *small.unbind(1)]
    support_views_flat = torch.cat(list(supports[0].unbind(1)))
    with torch.no_grad():
        h, z = zip(*map(embed, views), strict=True)
        support_h, support_z = embed(support_views_flat)
        expected = PAWSLoss()(
            torch.stack(z), support_z, labels.repeat(support_views), torch.stack(h[:2]), support_h
        )
        features = module(views[0])
    look, _ = fit(tiny, module, [data])
    torch.testing.assert_close(look.outputs[0]["loss"], expected.loss)
    torch.testing.assert_close(look.outputs[0]["features"], features)
    # columns are the classes 0 … 4, of which 1 and 3 do not occur
    targets = look.outputs[0]["targets"]
    torch.testing.assert_close(targets[:, [0, 2, 4]], expected.targets[0])
    assert targets[:, [1, 3]].max() < 1e-6


def test_one_batch_per_image_size_with_the_small_views_last(tiny):
    sizes = []
    module = paws()
    module.backbone.register_forward_hook(lambda _, args, __: sizes.append(args[0].shape))
    data = batch(support_views=2)
    fit(tiny, module, [data])
    assert sizes == [(6 * 2 + 4 * 2, 3, 16, 16), (4 * 2, 3, 8, 8)]
    assert module.backbone[1].num_batches_tracked == 2
    assert module.prediction_head.bn1.num_batches_tracked == 2


def test_every_parameter_is_trained_and_targets_give_no_gradient(tiny):
    module = paws()
    look, _ = fit(tiny, module, [batch(), batch()])
    assert set(look.grads[0]) == {name for name, _ in module.named_parameters()}
    supports = torch.randn(6, 1, 3, 16, 16, requires_grad=True)
    data = batch()
    large = data["unlabelled"][0][0].requires_grad_()
    embedded = module.encode([supports[:, 0], large[:, 0], large[:, 1]])
    embedded = [e._replace(predictions=e.predictions.detach()) for e in embedded]
    labels = data["support"][1]
    joined = type(embedded[0])(*map(torch.cat, zip(*embedded[1:], strict=True)))
    # With the anchor branch cut off, nothing is left that could be trained.
    assert not module.compute_loss(embedded[0], joined, [], labels, 4).loss.requires_grad


def test_learning_rate_and_groups(tiny):
    module = paws()
    look, trainer = fit(tiny, module, [batch(), batch()], max_epochs=3)
    schedule = [module._rates_at(step)[0] for step in range(6)]
    assert look.rates == pytest.approx(schedule)
    assert schedule[:3] == pytest.approx([0.1, 0.3, 0.5])
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, timm.optim.Lars)
    names = {id(p): n for n, p in module.named_parameters()}
    decayed, undecayed = ({names[id(p)] for p in g["params"]} for g in optimizer.param_groups)
    assert {n for n, p in module.named_parameters() if p.ndim <= 1} == undecayed
    assert {"backbone.0.weight", "projection_head.fc1.weight"} < decayed
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-6, 0.0]
    assert [g["always_adapt"] for g in optimizer.param_groups] == [True, False]


def test_excluding_by_name_misses_batchnorm_in_shortcuts_as_the_reference_does(tiny):
    module = paws(backbone="resnet10t", exclude_mode="name")
    _, trainer = fit(tiny, module, [batch()])
    names = {id(p): n for n, p in module.named_parameters()}
    decayed, undecayed = (
        {names[id(p)] for p in g["params"]} for g in trainer.optimizers[0].param_groups
    )
    one_dim = {n for n, p in module.named_parameters() if p.ndim <= 1}
    missed = one_dim & decayed
    assert missed
    assert all("downsample" in n or "conv1." in n for n in missed)
    assert not undecayed - one_dim


def test_another_optimizer_follows_the_schedule(tiny):
    module = paws(optimizer=lambda groups: torch.optim.AdamW(groups, lr=9.0), weight_decay=0.04)
    look, trainer = fit(tiny, module, [batch(), batch()])
    assert isinstance(trainer.optimizers[0], torch.optim.AdamW)
    assert look.rates == pytest.approx([0.1, 0.3])
    assert [g["weight_decay"] for g in trainer.optimizers[0].param_groups] == [0.04, 0.0]


def test_weight_decay_rises_by_a_half_cosine(tiny):
    seen = []

    class Decays(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            seen.append([g["weight_decay"] for g in trainer.optimizers[0].param_groups])

    module = paws(weight_decay=0.04, final_weight_decay=0.4, lr=1e-3, optimizer=torch.optim.AdamW)
    trainer = tiny.trainer(callbacks=[Decays()], max_epochs=3)
    trainer.fit(module, tiny.loader([batch(), batch()]))
    wanted = [0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert [decay for decay, _ in seen] == pytest.approx(wanted)
    assert {zero for _, zero in seen} == {0.0}
    with pytest.raises(ValueError, match="final_weight_decay must not be negative, not -1"):
        paws(final_weight_decay=-1.0)


def test_the_learning_rate_may_stay_outside_of_the_momentum(tiny):
    module = paws(lr_in_momentum=False)
    _, trainer = fit(tiny, module, [batch()])
    assert type(trainer.optimizers[0]) is timm.optim.Lars


def test_bf16_is_close_to_float32(tiny):
    data, losses = batch(16), []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(1)
        look, _ = fit(tiny, paws(), [data], precision=precision)
        losses.append(look.outputs[0]["loss"].item())
        assert look.outputs[0]["loss"].dtype == torch.float32
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_without_the_number_of_classes_the_loss_is_the_same(tiny):
    data, losses = batch(), []
    for classes in (5, None):
        torch.manual_seed(1)
        look, _ = fit(tiny, paws(num_classes=classes), [data])
        losses.append(look.outputs[0]["loss"])
    torch.testing.assert_close(losses[0], losses[1])
    assert "targets" not in look.outputs[0]


def test_values_are_logged(tiny):
    _, trainer = fit(tiny, paws(), [batch()])
    logged = set(trainer.logged_metrics)
    parts = ("loss", "consistency", "me_max", "max_target_prob", "entropy", "lr")
    assert {f"train/{part}" for part in parts} <= logged


def test_features_and_embeddings():
    module = paws().eval()
    images = torch.randn(3, 3, 16, 16)
    assert module(images).shape == (3, module.embed_dim) == (3, 6)
    assert module.embed(images).shape == (3, 8)
    torch.testing.assert_close(module.encoder(images), module(images))
    expected = module.prediction_head(module.projection_head(module(images)))
    torch.testing.assert_close(module.embed(images), expected)
    assert module.predict_step((images, None), 0).shape == (3, 6)


def test_any_timm_network_is_a_backbone(tiny):
    kwargs = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2,
              "dynamic_img_size": True}  # fmt: skip
    module = paws(backbone="vit_tiny_patch16_224", backbone_kwargs=kwargs, activation="gelu")
    assert module.embed_dim == 12
    look, _ = fit(tiny, module, [batch()])
    assert torch.isfinite(look.outputs[0]["loss"])
    assert isinstance(module.projection_head.act1, nn.GELU)
    assert paws(backbone="wide_resnet28_2").embed_dim == 128


def test_a_subclass_changes_the_loss_and_adds_arguments(tiny):
    class Own(PAWS):
        def __init__(self, factor: float = 2.0, **kwargs) -> None:
            super().__init__(**kwargs)
            self.factor = factor

        def compute_loss(self, *args):
            out = super().compute_loss(*args)
            return out._replace(loss=self.factor * out.loss)

    data, losses = batch(), []
    for factor in (1.0, 3.0):
        torch.manual_seed(1)
        module = paws(Own, factor=factor)
        assert module.hparams["factor"] == factor
        look, _ = fit(tiny, module, [data])
        losses.append(look.outputs[0]["loss"])
    torch.testing.assert_close(losses[1], 3 * losses[0])


def test_supports_without_a_dimension_for_views(tiny):
    data = batch()
    (supports,), labels = data["support"]
    losses = []
    for support in (([supports], labels), (supports[:, 0], labels)):
        torch.manual_seed(1)
        look, _ = fit(tiny, paws(), [{**data, "support": support}])
        losses.append(look.outputs[0]["loss"])
    assert torch.equal(*losses)


def test_wrong_batches_and_arguments_are_explained(tiny):
    with pytest.raises(ValueError, match=r"PAWS got a batch of type list.*SemiSupervised"):
        fit(tiny, paws(), [[torch.randn(4, 3, 16, 16)]])
    one_view = batch()
    one_view["unlabelled"] = [torch.randn(4, 1, 3, 16, 16)]
    with pytest.raises(ValueError, match="PAWS got no two large crops first"):
        fit(tiny, paws(), [one_view])
    with pytest.raises(ValueError, match="run from 0 to 4, expected 0 to 3"):
        fit(tiny, paws(num_classes=4), [batch()])
    with pytest.raises(ValueError, match="activation 'relu' or 'gelu'"):
        paws(activation="silu")
    with pytest.raises(ValueError, match=r"temperature must be a finite number > 0, not -1\.0"):
        paws(temperature=-1.0)
    with pytest.raises(ValueError, match="backbone_kwargs belong to"):
        paws(backbone_kwargs={"in_chans": 1})


def test_runs_of_a_number_of_steps_have_a_warmup_too(tiny):
    look, _ = fit(tiny, paws(), [batch(), batch()], max_epochs=-1, max_steps=3)
    assert look.rates == pytest.approx([0.1, 0.3, 0.5])
