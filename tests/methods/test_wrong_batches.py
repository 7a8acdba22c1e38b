"""Batches of one image under BatchNorm, and labels that are no classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
from lit_ssl.callbacks import LinearProbeEvaluator
from lit_ssl.contracts.batches import check_labels
from lit_ssl.datamodules import ColouredMNISTDataModule
from lit_ssl.errors import InputError
from lit_ssl.methods import FineTuning, LinearEvaluation
from lit_ssl.models import SmallCNN

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
BY_NAME = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": VIT}
MASKED = {**BY_NAME, "num_prototypes": 8, "proj_hidden_dim": 8, "proj_output_dim": 4}


class Images(Dataset):
    """Labelled images of 16 pixels, or two views of each."""

    def __init__(self, count, views=False, first=0):
        self.labels = (torch.arange(count) % 3 + first).tolist()
        self.shape = (2, 3, 16, 16) if views else (3, 16, 16)
        self.views = views

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = torch.randn(self.shape)
        return ([image] if self.views else image), self.labels[index]


def network(pixels):
    """BatchNorm on maps of so many pixels."""
    net = nn.Sequential(
        nn.AdaptiveAvgPool2d(pixels), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    net.embed_dim = 4
    return net


# --------------------------------------------------------------- clips in place of images


@pytest.mark.parametrize("method", [MSN, PAWS, SuNCEt])
@pytest.mark.parametrize("door", ["training", "validation", "predict"])
def test_clips_are_refused_with_what_to_do(method, door):
    options = MASKED if method is MSN else {"backbone": "resnet10t"}
    module = method(**options)
    batch = torch.zeros(2, 4, 3, 16, 16), torch.tensor([0, 1])
    message = rf"{method.__name__}.* images, got .*\[2, 4, 3, 16, 16\].* VideoFramesDataModule"
    with pytest.raises(InputError, match=message):
        getattr(module, f"{door}_step")(batch, 0)


# --------------------------------------------------------------- batches of one image


@pytest.mark.parametrize("method", [MSN, PMSN])
def test_a_lone_last_batch_is_refused_before_the_first_step(tiny, method):
    module, trainer = method(**MASKED, warmup_epochs=0), tiny.trainer()
    with pytest.raises(
        InputError, match=f"^{method.__name__} cannot train on the last batch .*drop"
    ):
        trainer.fit(module, DataLoader(Images(9, views=True), batch_size=4))
    assert trainer.global_step == 0
    with pytest.raises(InputError, match=f"^{method.__name__} got a training batch of one image"):
        tiny.trainer().fit(module, DataLoader(Images(3, views=True), batch_size=1))
    for loader in (
        DataLoader(Images(9, views=True), batch_size=4, drop_last=True),
        DataLoader(Images(10, views=True), batch_size=4),
    ):
        tiny.trainer().fit(method(**MASKED, warmup_epochs=0), loader)
    tiny.trainer(limit_train_batches=2).fit(module, DataLoader(Images(9, views=True), batch_size=4))
    without = method(**MASKED, proj_use_bn=False, warmup_epochs=0)
    tiny.trainer().fit(without, DataLoader(Images(9, views=True), batch_size=4))


def test_the_kept_projection_layer_needs_two_images(tiny):
    module = FineTuning(**BY_NAME, num_classes=3, proj_hidden_dim=5)
    with pytest.raises(InputError, match="FineTuning cannot train on the last batch"):
        tiny.trainer().fit(module, DataLoader(Images(7), batch_size=3))


@pytest.mark.parametrize("method", [ImageClassifier, FineTuning])
def test_batchnorm_that_may_do_with_one_image_is_warned_of(tiny, method):
    loader = DataLoader(Images(7), batch_size=3)
    with pytest.warns(UserWarning, match="last batch of an epoch has one image"):
        tiny.trainer().fit(method(network(2), num_classes=3, warmup_epochs=0), loader)
    module = method(network(1), num_classes=3, warmup_epochs=0)
    with pytest.raises(InputError, match=f"^{method.__name__} got a training batch of one image"):
        tiny.trainer().fit(module, loader)
    frozen = ImageClassifier(network(1), num_classes=3, freeze_backbone=True, warmup_epochs=0)
    tiny.trainer().fit(frozen, loader)


@pytest.mark.parametrize("method", [GroupRobustClassifier, AttributePredictor])
def test_groups_with_one_image(tiny, method):
    class Small(nn.Module):
        embed_dim = 2

        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, images):
            return self.norm(images.mean(dim=(2, 3))[:, :2])

    data = ColouredMNISTDataModule(batch_size=1, seed=0)
    with pytest.raises(InputError, match=f"^{method.__name__} got a training batch of one image"):
        tiny.trainer(num_sanity_val_steps=0).fit(method(Small(), num_classes=2), datamodule=data)


TWO_STREAMS = {
    "backbone": "resnet10t", "backbone_kwargs": {"stem_width": 4, "channels": [4, 8, 8, 16]},
    "proj_output_dim": 8,
}  # fmt: skip


def two_streams(images, supports, small=0):
    views = [torch.randn(images, 2, 3, 16, 16)]
    views += [torch.randn(images, small, 3, 8, 8)] if small else []
    support = torch.randn(len(supports), 3, 16, 16), torch.tensor(supports)
    batch = {"unlabelled": (views, torch.zeros(images, dtype=torch.int64)), "support": support}
    return DataLoader([batch], batch_size=None)


def test_a_lone_small_crop_or_support_is_explained(tiny):
    """Supports and large views are one batch for BatchNorm, small ones another."""
    message = "PAWS got a single image of one size in a training batch, which BatchNorm .*drop_last"
    with pytest.raises(InputError, match=message):
        tiny.trainer().fit(PAWS(**TWO_STREAMS), two_streams(1, [0, 1, 2], small=1))
    with pytest.raises(InputError, match=message.replace("PAWS", "SuNCEt")):
        tiny.trainer().fit(SuNCEt(**TWO_STREAMS, contrastive_weight=0.0), two_streams(2, [0]))
    for loader in (two_streams(1, [0, 1, 2]), two_streams(1, [0, 1, 2], small=2)):
        tiny.trainer().fit(PAWS(**TWO_STREAMS), loader)


# --------------------------------------------------------------- labels from 1 to N


@pytest.mark.parametrize("num_classes", [3, None])
@pytest.mark.parametrize("method", [PAWS, RoPAWS, SuNCEt])
def test_supports_without_a_label_are_refused(tiny, method, num_classes):
    module = method(**TWO_STREAMS, num_classes=num_classes)
    with pytest.raises(InputError, match=f"{method.__name__}: .*every support needs a label"):
        tiny.trainer().fit(module, two_streams(4, [0, 0, 1, 1, -1, -1]))


@pytest.mark.parametrize("method", [PAWS, SuNCEt])
def test_labels_of_supports_are_looked_at_once_in_an_epoch(tiny, method):
    """Not left to the loss, which does not look at them on an accelerator."""
    module = method(**TWO_STREAMS, num_classes=2)
    batch = next(iter(two_streams(4, [1, 1, 2, 2])))
    with pytest.raises(InputError, match="labels run from 1 to 2, expected 0 to 1"):
        module.look_at_supports(batch["support"][1], 0)
    module.look_at_supports(batch["support"][1], 1)  # the host does not wait


@pytest.mark.parametrize("method", [ImageClassifier, FineTuning, LinearEvaluation])
def test_classifiers_refuse_labels_that_begin_with_one(tiny, method):
    module = method(**BY_NAME, num_classes=3)
    wrong = DataLoader(Images(6, first=1), batch_size=6)
    message = rf"{method.__name__} got labels from 1 to 3 .*\[0, num_classes\), or be −1"
    with pytest.raises(InputError, match=message):
        tiny.trainer().fit(module, wrong)
    with pytest.raises(InputError, match=message):
        tiny.trainer().validate(module, wrong, verbose=False)


def test_the_mixing_of_finetuning_refuses_them_too(tiny):
    module = FineTuning(**BY_NAME, num_classes=3, mixup=0.5)
    with pytest.raises(InputError, match="labels from 1 to 3"):
        tiny.trainer().fit(module, DataLoader(Images(6, first=1), batch_size=6))


def test_the_online_probe_refuses_them(tiny):
    probe = LinearProbeEvaluator(num_classes=3)
    trainer = tiny.trainer(callbacks=[probe])
    with pytest.raises(InputError, match="LinearProbeEvaluator got labels from 1 to 3"):
        trainer.fit(MSN(**MASKED), DataLoader(Images(6, views=True, first=1), batch_size=6))


class Relabelled(ColouredMNISTDataModule):
    """Labels as a user's own data module may serve them."""

    def __init__(self, split, label):
        super().__init__(batch_size=64, seed=0)
        self.split, self.label = split, label

    def targets(self, split):
        labels, groups = super().targets(split)
        return np.full_like(labels, self.label) if split == self.split else labels, groups


@pytest.mark.parametrize(("method", "epochs"), [(JTT, "first"), (BARACK, "predictor")])
@pytest.mark.parametrize("label", [2, -1])
def test_first_networks_refuse_labels_that_are_no_classes(tiny, method, epochs, label):
    trainer = tiny.trainer(max_epochs=2, num_sanity_val_steps=0, limit_train_batches=1)
    module = method(backbone=SmallCNN(2), num_classes=2, **{f"{epochs}_epochs": 1})
    with pytest.raises(InputError, match=rf"{method.__name__} got labels from {label} to"):
        trainer.fit(module, datamodule=Relabelled("train", label))
    assert trainer.global_step == 0


@pytest.mark.parametrize(("split", "label"), [("train", 2), ("train", -1), ("val", 2)])
def test_the_predictor_of_attributes_refuses_labels_that_are_no_classes(tiny, split, label):
    trainer = tiny.trainer(num_sanity_val_steps=0, limit_train_batches=1)
    module = AttributePredictor(SmallCNN(2), num_classes=2)
    with pytest.raises(InputError, match=rf"AttributePredictor got labels from {label} to"):
        trainer.fit(module, datamodule=Relabelled(split, label))


@pytest.mark.parametrize(("split", "label"), [("train", 2), ("train", -1), ("val", 2)])
def test_groups_refuse_labels_that_are_no_classes(tiny, split, label):
    trainer = tiny.trainer(num_sanity_val_steps=0, limit_train_batches=1)
    module = GroupRobustClassifier(SmallCNN(2), num_classes=2)
    with pytest.raises(InputError, match=rf"GroupRobustClassifier got labels from {label} to"):
        trainer.fit(module, datamodule=Relabelled(split, label))


def test_what_is_measured_on_no_label_is_not_a_number(tiny):
    """Neither 0 nor the best of all losses."""
    trainer = tiny.trainer(num_sanity_val_steps=0, limit_train_batches=1, limit_val_batches=1)
    module = GroupRobustClassifier(SmallCNN(2), num_classes=2)
    trainer.fit(module, datamodule=Relabelled("val", -1))
    assert trainer.callback_metrics["val/loss"].isnan()
    unlabelled = DataLoader([(torch.randn(3, 3, 16, 16), torch.full((3,), -1))], batch_size=None)
    module = ImageClassifier(**BY_NAME, num_classes=3)
    assert all(
        v != v for v in tiny.trainer().validate(module, unlabelled, verbose=False)[0].values()
    )
    with pytest.raises(InputError, match=r"LinearEvaluation needs labels, .*validation images are"):
        tiny.trainer().validate(LinearEvaluation(**BY_NAME, num_classes=3), unlabelled)
    module = LinearEvaluation(**BY_NAME, num_classes=3, learning_rates=[0.1])
    with pytest.raises(InputError, match=r"LinearEvaluation needs labels, .*test images are"):
        tiny.trainer().test(module, unlabelled)


@pytest.mark.parametrize("method", [ImageClassifier, FineTuning, GroupRobustClassifier])
def test_the_loss_is_the_mean_over_known_labels(tiny, method):
    labels = torch.tensor([0, -1, -1, 1, 1, 0, -1])
    images = torch.randn(7, 3, 28, 28)
    if method is GroupRobustClassifier:
        images = images[:, :2]
        data = ColouredMNISTDataModule(batch_size=8, seed=0)
        rows = list(zip(images, labels, labels, strict=True))
        data.val_dataloader = lambda: DataLoader(rows, batch_size=3)
        module, source = method(SmallCNN(2), num_classes=2), {"datamodule": data}
    else:
        loader = DataLoader(list(zip(images, labels, strict=True)), batch_size=3)
        module, source = method(network(2), num_classes=3), {"dataloaders": loader}
    nn.init.normal_(module.get_submodule("classifier").weight)
    found = tiny.trainer().validate(module, **source, verbose=False)[0]
    with torch.no_grad():
        scores = module.eval().logits(images)
    right = (scores.argmax(dim=1) == labels)[labels >= 0].float().mean().item()
    accuracy = "val/acc_avg" if method is GroupRobustClassifier else "val/acc1"
    assert found[accuracy] == pytest.approx(right)
    loss = nn.functional.cross_entropy(scores, labels, ignore_index=-1).item()
    assert found["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_which_labels_are_classes():
    check_labels(torch.tensor([-1, 0, 2]), 3)
    check_labels(torch.tensor([], dtype=torch.int64), 3)
    with pytest.raises(InputError, match="from -1 to 2"):
        check_labels(torch.tensor([-1, 0, 2]), 3, unknown=False)
    with pytest.raises(InputError, match="from -100 to 2"):
        check_labels(torch.tensor([-100, 0, 2]), 3)
    check_labels(torch.empty(4, dtype=torch.int64, device="meta"), 3)  # the host does not wait
