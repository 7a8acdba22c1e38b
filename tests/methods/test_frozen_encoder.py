"""A trained network by itself: features, weights, evaluation, no training."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import timm
import torch
from torch.utils.data import DataLoader

from lit_ssl.callbacks import KNNEvaluator
from lit_ssl.errors import InputError
from lit_ssl.methods import FrozenEncoder

KWARGS = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}


class Data(pl.LightningDataModule):
    """Four images, which are their own bank."""

    num_classes = 2

    def images(self):
        rows = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        return rows, torch.tensor([0, 1, 0, 1])

    def val_dataloader(self):
        return DataLoader([self.images()], batch_size=None)

    bank_dataloader = predict_dataloader = val_dataloader


def checkpoint(tiny, module, path):
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return str(path)


def test_features_are_those_of_the_method_that_trained_it(tiny, tmp_path):
    msn = tiny.msn(backbone="vit_tiny_patch16_224", backbone_kwargs=KWARGS).eval()
    msn.target_backbone.vit.norm.bias.data += 1
    path = checkpoint(tiny, msn, tmp_path / "run.ckpt")
    frozen = FrozenEncoder("vit_tiny_patch16_224", KWARGS, path)
    trained = FrozenEncoder("vit_tiny_patch16_224", KWARGS, path, online=True)
    frozen.setup("validate")
    trained.setup("test")
    for size in (16, 24):  # another size than that of the training
        images = torch.randn(2, 3, size, size)
        assert torch.equal(frozen(images), msn(images))
        assert torch.equal(frozen.features(images), msn.features(images))
        assert torch.equal(trained(images), msn.backbone(images))
    assert frozen.embed_dim == 12
    assert not torch.equal(frozen(images), trained(images))
    assert frozen.encoder.state_dict().keys() == msn.encoder.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet10t", {"in_chans": 1}),
        ("wide_resnet", {"depth": 10, "width": 1, "in_chans": 1}),
        ("vit_tiny_patch16_224", {**KWARGS, "in_chans": 1, "global_pool": "avg"}),
        (
            "vit_tiny_patch16_224",
            {**KWARGS, "in_chans": 1, "class_token": False, "global_pool": "avg"},
        ),
        ("deit_tiny_distilled_patch16_224", {"img_size": 16, "in_chans": 1, "depth": 1}),
    ],
)
def test_other_networks_give_their_pooled_features(name, kwargs):
    module = FrozenEncoder(name, kwargs)
    images = torch.randn(2, 1, 16, 16)
    assert module(images).shape == (2, module.embed_dim)
    assert torch.equal(module.features(images), module(images))
    assert not module.train().backbone.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "kwargs", "feature"),
    [
        ("vit_base_patch14_dinov2", {"img_size": 28, "depth": 1}, "token"),
        ("vit_tiny_patch16_224", {**KWARGS, "fc_norm": True}, "token"),
        ("deit_tiny_distilled_patch16_224", {"img_size": 16, "depth": 1}, "timm"),
        ("vit_tiny_r_s16_p8_224", {"img_size": 64, "depth": 1}, "timm"),
        ("beit_base_patch16_224", {"img_size": 32, "depth": 1}, "timm"),
        ("eva02_tiny_patch14_224", {"img_size": 28, "depth": 1}, "timm"),
        ("vit_tiny_patch16_224", {**KWARGS, "global_pool": "avg"}, "timm"),
    ],
)
def test_features_are_those_that_the_docs_name(name, kwargs, feature):
    module = FrozenEncoder(name, kwargs)
    assert not any(part.training for part in module.modules())  # from the start
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network = module.encoder
    images = torch.randn(2, 3, *network.patch_embed.img_size)
    expected = network(images)
    if feature == "token":
        tokens = network.forward_features(images)
        expected = network.fc_norm(tokens[:, 0])
    torch.testing.assert_close(module(images), expected, rtol=1e-4, atol=1e-5)


def test_a_vit_without_class_token_is_pooled_as_timm_does():
    module = FrozenEncoder("vit_base_patch16_siglip_224", {"depth": 1, "img_size": 32})
    assert module(torch.randn(1, 3, 32, 32)).shape == (1, 768)


def test_a_network_of_the_user_and_weights_of_timm(tiny, tmp_path):
    reference = timm.create_model("resnet10t", num_classes=3)
    torch.save(reference.state_dict(), tmp_path / "net.pth")
    module = FrozenEncoder(timm.create_model("resnet10t", num_classes=0), weights="net.pth")
    module.setup("validate")
    assert torch.equal(module.backbone.conv1[0].weight, reference.conv1[0].weight)

    wrapped = FrozenEncoder(tiny.vit())
    assert wrapped.features(torch.randn(1, 3, 16, 16)).shape == (1, 12)


def test_evaluators_run_on_it_and_hyper_parameters_reload(tiny, tmp_path):
    source = FrozenEncoder("vit_tiny_patch16_224", KWARGS)
    path = checkpoint(tiny, source, tmp_path / "run.ckpt")
    module = FrozenEncoder("vit_tiny_patch16_224", KWARGS, path)
    trainer = tiny.trainer(callbacks=[KNNEvaluator(k=1)])
    result = trainer.validate(module, datamodule=Data(), verbose=False)
    assert result[0]["val/knn_acc1"] == 1
    rows = torch.cat(trainer.predict(module, datamodule=Data()))
    images = Data().images()[0]
    torch.testing.assert_close(rows, source(images))
    again = FrozenEncoder.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(again(images), source(images))


def test_random_weights_are_warned_about_and_training_is_refused(tiny, tmp_path):
    module = FrozenEncoder("vit_tiny_patch16_224", KWARGS)
    with pytest.warns(UserWarning, match="has random weights: give weights"):
        module.setup("validate")
    with pytest.raises(ValueError, match="FrozenEncoder has nothing to train: run `lit-ssl val"):
        tiny.trainer().fit(module, tiny.loader([(torch.randn(2, 3, 16, 16), torch.zeros(2))]))
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "net.pth")
    wrong = FrozenEncoder("vit_tiny_patch16_224", KWARGS, weights="net.pth")
    with pytest.raises(ValueError, match="are not those of the backbone"):
        wrong.setup("test")


@pytest.mark.parametrize("backbone", ["resnet10t", "deit_tiny_distilled_patch16_224"])
def test_scores_of_a_classifier_are_no_features(backbone):
    size = {} if backbone == "resnet10t" else KWARGS
    for given, kwargs in (
        (backbone, {**size, "num_classes": 5}),
        (timm.create_model(backbone, num_classes=5, **size), None),
    ):
        with pytest.raises(InputError, match="has a classifier, whose scores are no features"):
            FrozenEncoder(given, kwargs)
