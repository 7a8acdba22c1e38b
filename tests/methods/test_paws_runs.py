"""PAWS on its data module: resuming, and one, two and three processes."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lit_ssl.datamodules import ImageDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.methods import PAWS
from lit_ssl.models import ProjectionHead
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop


class Blobs(ImageDataModule):
    """48 images of 6 classes, which differ in brightness."""

    class_names = tuple("abcdef")

    def default_eval_transform(self):
        return EvalTransform(10)

    def load_rows(self, split):
        if split != "train":
            return None
        labels = np.arange(48) % 6
        noise = torch.randint(0, 40, (48, 3, 12, 12), generator=torch.Generator().manual_seed(0))
        pixels = torch.from_numpy(labels * 30).view(-1, 1, 1, 1) + noise
        return Rows(ArrayImages(pixels.to(torch.uint8)), {"label": labels})

    def val_dataloader(self):
        return []


def data(augment="worker", world=1, **kwargs):
    crops = [CropSpec(size=8, count=2, hflip=0.5, brightness=0.2), CropSpec(size=6, count=1)]
    dataset = Blobs(
        batch_size=12 // world, num_workers=0, train_transform=MultiCrop(crops), augment=augment
    )
    options = {"subset": Subset(per_class=6), "images_per_class": 6, "support_views": 2}
    return SemiSupervisedDataModule(dataset, **{**options, **kwargs})


def network():
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    net.embed_dim = 6
    return net


def paws(**kwargs):
    arguments = {"backbone": network(), "num_classes": 6, "proj_output_dim": 8, "warmup_epochs": 1,
                 "lr": 0.5, "start_lr": 0.1, "final_lr": 0.01}  # fmt: skip
    return PAWS(**{**arguments, **kwargs})


class SaveAll(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, *args):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_a_resumed_run_ends_with_the_same_weights(tiny, tmp_path, augment):
    def train(ckpt_path=None, **kwargs):
        torch.manual_seed(0)
        module = paws()
        trainer = tiny.trainer(max_epochs=3, **kwargs)
        trainer.fit(module, datamodule=data(augment), ckpt_path=ckpt_path, weights_only=True)
        assert trainer.global_step == 12
        return module

    whole = train(callbacks=[SaveAll(tmp_path)])
    for step in (2, 4, 7):
        resumed = train(tmp_path / f"{step}.ckpt")
        for key, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], value), (step, key)


class Save(pl.Callback):
    """Keeps the weights at the end."""

    def __init__(self, name):
        self.name = name

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), f"{self.name}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_and_three_processes_equal_one(tiny, tmp_path):
    weights = {}
    # classes divided over two processes, and images of each class over three
    for world, unique in ((1, False), (2, True), (3, False)):
        torch.manual_seed(0)
        module = paws()
        # BatchNorm over processes exists on GPUs only.
        module.projection_head = ProjectionHead(6, 16, 8, use_bn=False, init_std=None)
        module.prediction_head = nn.Linear(8, 8)
        start = {key: value.double() for key, value in module.state_dict().items()}
        trainer = tiny.trainer(
            devices=world, strategy="ddp_spawn" if world > 1 else "auto", precision="64-true",
            max_epochs=2, callbacks=[Save(f"weights{world}")],
        )  # fmt: skip
        trainer.fit(module, datamodule=data(world=world, unique_classes_per_rank=unique))
        weights[world] = torch.load(tmp_path / f"weights{world}.pt")
    for world in (2, 3):
        for key, value in weights[1].items():
            torch.testing.assert_close(weights[world][key], value, rtol=1e-7, atol=1e-9)
    assert max((weights[1][key] - value).abs().max() for key, value in start.items()) > 1e-3


def test_batchnorm_without_synchronisation_is_warned_of(tiny):
    module = paws()
    module.trainer = tiny.trainer()
    module.on_train_start()  # one process: nothing to say

    class Two:
        world_size = 2

    module._trainer = Two()
    module._fabric = None
    with pytest.warns(UserWarning, match="PAWS on 2 processes needs BatchNorm over all of them"):
        module.on_train_start()
