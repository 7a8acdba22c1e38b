"""RoPAWS and SuNCEt: PAWS with another loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_ssl.losses import NTXentLoss, RoPAWSLoss, SuNCEtLoss
from lit_ssl.methods import PAWS, RoPAWS, SuNCEt


def network():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.embed_dim = 6
    return net


def make(method, **kwargs):
    arguments = {"backbone": network(), "num_classes": 3, "proj_output_dim": 8, "warmup_epochs": 0}
    return method(**{**arguments, **kwargs})


def batch(size=4):
    views = [torch.randn(size, 2, 3, 16, 16), torch.randn(size, 2, 3, 8, 8)]
    supports = torch.randn(6, 2, 3, 16, 16)
    return {"unlabelled": views, "support": ([supports], torch.arange(3).repeat(2))}


def step(tiny, module, data, **kwargs):
    """Loss of each step, and the trainer."""
    losses = []

    class Keep(type(module)):
        def training_step(self, batch, batch_idx):
            out = super().training_step(batch, batch_idx)
            losses.append(out["loss"].detach())
            return out

    module.__class__ = Keep
    trainer = tiny.trainer(**kwargs)
    trainer.fit(module, tiny.loader([data]))
    return losses, trainer


def twin(method, **kwargs):
    torch.manual_seed(3)
    return make(method, **kwargs).eval()


def embed(module, images):
    h = module.projection_head(module.backbone(images))
    return h, h if module.prediction_head is None else module.prediction_head(h)


def frozen(module):
    """Keeps BatchNorm in eval mode during training, so that parts can be computed alone."""
    module.on_train_start = module.eval
    return module


def test_ropaws_is_paws_with_its_loss(tiny):
    data = batch()
    module = twin(RoPAWS, prior_temperature=0.2, label_ratio=2.0, temperature=0.2)
    views = [v.flatten(0, 1) if v.ndim == 4 else v for v in data["unlabelled"]]
    flat = [view.unbind(1) for view in views]
    support = torch.cat(list(data["support"][0][0].unbind(1)))
    with torch.no_grad():
        h, z = zip(*(embed(module, v) for group in flat for v in group), strict=True)
        support_h, support_z = embed(module, support)
        labels = data["support"][1].repeat(2)
        loss = RoPAWSLoss(temperature=0.2, prior_temperature=0.2, label_ratio=2.0)
        expected = loss(torch.stack(z), support_z, labels, torch.stack(h[:2]), support_h)
    losses, trainer = step(tiny, frozen(module), data)
    torch.testing.assert_close(losses[0], expected.loss)
    assert {"train/consistency", "train/me_max"} <= set(trainer.logged_metrics)
    assert module.hparams["prior_temperature"] == 0.2
    assert module.hparams["temperature"] == 0.2


def test_with_a_wide_prior_images_weigh_alike():
    module = make(RoPAWS, prior_temperature=1e6)
    queries = torch.randn(2, 5, 8)
    supports, columns = torch.randn(6, 8), torch.eye(3).repeat(2, 1)
    normalize = nn.functional.normalize
    _, weights = module.loss.pseudo_labels(
        None, normalize(queries, dim=2), normalize(supports, dim=1), columns
    )
    torch.testing.assert_close(weights, torch.ones(5), rtol=1e-4, atol=1e-4)


def test_suncet_is_the_sum_of_its_parts_for_some_epochs(tiny):
    data = batch()
    module = twin(
        SuNCEt, supervised_epochs=1, contrastive_weight=0.5, label_smoothing=0.1, lr=1e-9,
        start_lr=1e-9, final_lr=1e-9,
    )  # fmt: skip
    with torch.no_grad():
        large = torch.stack([embed(module, v)[1] for v in data["unlabelled"][0].unbind(1)])
        support = embed(module, torch.cat(list(data["support"][0][0].unbind(1))))[1]
        contrastive = NTXentLoss(0.1)(large)
        supervised = SuNCEtLoss(0.1, 0.1)(support, data["support"][1].repeat(2))
    losses, trainer = step(tiny, frozen(module), data, max_epochs=2)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(losses[0], 0.5 * contrastive + supervised, **close)
    torch.testing.assert_close(losses[1], 0.5 * contrastive, **close)
    assert {"train/suncet", "train/contrastive", "train/lr"} <= set(trainer.logged_metrics)


def test_labelled_images_alone_teach_suncet(tiny):
    data = batch()
    data["support"][0][0][:, :, 0] += data["support"][1].view(-1, 1, 1, 1)  # classes differ in red
    module = make(SuNCEt, contrastive_weight=0.0, lr=0.5, start_lr=0.5, final_lr=0.5)
    losses, _ = step(tiny, module, data, max_epochs=30)
    assert losses[-1] < 0.5 * losses[0]


def test_with_frozen_batchnorm_only_weights_are_tuned(tiny):
    data = batch()
    module = make(
        SuNCEt, contrastive_weight=0.0, lr=0.5, start_lr=0.5, final_lr=0.5, freeze_batchnorm=True
    )
    norm = module.projection_head.bn1
    with torch.no_grad():
        norm.running_mean.uniform_()
    before = (
        norm.running_mean.clone(),
        norm.weight.clone(),
        module.projection_head.fc1.weight.clone(),
    )
    supports, labels = data["support"]
    rows = torch.cat([supports[0][:, 0], supports[0][:, 1]])  # view-major
    expected = SuNCEtLoss()(module.embed(rows), labels.repeat(2), 3)
    data["unlabelled"] = [view * torch.nan for view in data["unlabelled"]]  # not looked at
    losses, trainer = step(tiny, module, data)
    torch.testing.assert_close(losses[0], expected)
    assert torch.equal(norm.running_mean, before[0])
    assert not torch.equal(norm.weight, before[1])
    assert not torch.equal(module.projection_head.fc1.weight, before[2])
    assert {"train/loss", "train/lr"} <= trainer.logged_metrics.keys()


@pytest.mark.parametrize(
    ("method", "kwargs"),
    [(RoPAWS, {"label_ratio": 3.0}), (SuNCEt, {"supervised_epochs": 2}), (PAWS, {"lr": 0.3})],
)
def test_checkpoints_reload(tiny, tmp_path, method, kwargs):
    module = make(
        method, backbone="wide_resnet", backbone_kwargs={"depth": 10, "width": 1}, **kwargs
    )
    trainer = tiny.trainer()
    trainer.fit(module, tiny.loader([batch()]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = method.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded.eval().embed(images), module.eval().embed(images))
    for name, value in kwargs.items():
        assert loaded.hparams[name] == value


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="prior_temperature > 0"):
        make(RoPAWS, prior_temperature=0.0)
    with pytest.raises(ValueError, match="contrastive_weight >= 0"):
        make(SuNCEt, contrastive_weight=-1.0)
