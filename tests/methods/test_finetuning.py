"""Fine-tuning: layer-wise rates, mixing, kept projection layer, weights, errors."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_ssl import MSN, PAWS, ImageClassifier
from lit_ssl.checkpoints.encoders import first_projection
from lit_ssl.checkpoints.origins import read_weights
from lit_ssl.methods.classification.finetuning import FineTuning
from lit_ssl.optim.param_groups import layer_decay_groups

TINY_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
NET = {"stem_width": 4, "channels": [4, 8, 8, 16]}


def finetuning(**kwargs):
    arguments = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": TINY_VIT, "num_classes": 3}
    return FineTuning(**{**arguments, **kwargs})


def batch(size=6, pixels=16):
    return torch.randn(size, 3, pixels, pixels), torch.arange(size) % 3


class Groups(pl.Callback):
    """Parameter groups of the first two steps."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        keys = "name", "lr", "weight_decay"
        self.seen.append([tuple(g[key] for key in keys) for g in optimizer.param_groups])


# ---------------------------------------------------------------- learning rates


def test_rates_fall_with_the_depth_and_follow_the_schedule(tiny):
    module = finetuning(
        layer_decay=0.5, lr=0.1, weight_decay=0.05, optimizer=torch.optim.AdamW, warmup_epochs=0
    )
    groups, loader = Groups(), tiny.loader([batch(), batch()])
    tiny.trainer(callbacks=[groups], max_epochs=1).fit(module, loader)
    first, second = groups.seen
    rates = {name: (lr, decay) for name, lr, decay in first}
    assert rates["layer_3/decay"] == (0.1, 0.05)  # the classifier
    assert rates["layer_2/decay"] == (0.05, 0.05)  # the last block, and the norm
    assert rates["layer_1/no_decay"] == (0.025, 0.0)
    assert rates["layer_0/decay"] == pytest.approx((0.0125, 0.05))  # patches
    cosine = 0.5 * (1 + math.cos(math.pi / 2))
    for (name, lr, _), (_, later, _) in zip(first, second, strict=True):
        assert later == pytest.approx(lr * cosine), name


def test_layers_hold_what_they_should_and_every_parameter_once():
    module = finetuning(layer_decay=0.65)
    names = {id(p): name for name, p in module.named_parameters()}
    groups = module._layer_groups()
    placed = {g["name"]: sorted(names[id(p)] for p in g["params"]) for g in groups}
    assert placed["layer_3/decay"] == ["classifier.weight"]
    assert placed["layer_0/no_decay"] == [
        "backbone.cls_token", "backbone.patch_embed.proj.bias", "backbone.pos_embed"
    ]  # fmt: skip
    assert "backbone.norm.weight" in placed["layer_2/no_decay"]
    assert "backbone.blocks.0.mlp.fc1.weight" in placed["layer_1/decay"]
    assert sorted(n for part in placed.values() for n in part) == sorted(names.values())
    resnet = FineTuning("resnet10t", NET, num_classes=3, layer_decay=0.5)
    assert [g["lr_scale"] for g in resnet._layer_groups()[::2]] == [
        2.0**-n for n in range(5, -1, -1)
    ]


def test_layer_decay_needs_layers():
    with pytest.raises(ValueError, match="Linear lacks: set layer_decay to 1"):
        layer_decay_groups(nn.Linear(2, 2), [], 0.0, 0.5)
    with pytest.raises(ValueError, match="WideResNet lacks"):
        FineTuning("wide_resnet28_2", num_classes=3, layer_decay=0.5)


def test_without_layer_decay_it_is_the_classifiers_optimiser(tiny):
    module = finetuning(lr=0.02)
    groups = Groups()
    tiny.trainer(callbacks=[groups]).fit(module, tiny.loader([batch()]))
    assert groups.seen == [[("decay", 0.02, 0.0), ("no_decay", 0.02, 0.0)]]
    assert isinstance(module.trainer.optimizers[0], torch.optim.SGD)
    assert module.trainer.optimizers[0].param_groups[0]["nesterov"]


# ----------------------------------------------------------- first step and mixing


def test_the_classifier_starts_at_zero():
    module = finetuning()
    assert torch.equal(module.logits(batch()[0]), torch.zeros(6, 3))
    spread = finetuning(head_std=0.5).classifier
    assert spread.weight.std() > 0.2
    assert not spread.bias.any()


def test_soft_loss_without_mixing_is_the_hard_one(tiny):
    module = finetuning(head_std=0.3, label_smoothing=0.1, mixup=1.0)
    images, labels = batch()
    labels[2] = -1
    module.mixing = lambda images, targets: (images, targets)
    module.log = lambda *args, **kwargs: None
    module._lr = lambda: 0.1
    expected = F.cross_entropy(module.logits(images), labels, ignore_index=-1, label_smoothing=0.1)
    torch.testing.assert_close(module.training_step((images, labels), 0)["loss"], expected)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_mixed_as_the_images_are(mixup, cutmix):
    module = finetuning(mixup=mixup, cutmix=cutmix)
    # each image is its class everywhere, so that its mean tells its share
    labels = torch.arange(3)
    images = labels.float()[:, None, None, None].expand(3, 3, 16, 16).contiguous()
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = module.mixing(images, module._soft_targets(labels))
        torch.testing.assert_close(targets.sum(1), torch.ones(3))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(3.0))
        values = mixed[2].unique()
        shares.append("cut" if all(v in (1.0, 2.0) for v in values) else "mix")
        torch.manual_seed(seed)
        assert torch.equal(module.mixing(images, module._soft_targets(labels))[0], mixed)
    expected = {"mix"} if not cutmix else {"cut"} if not mixup else {"cut", "mix"}
    assert set(shares) == expected


def test_mixed_training_runs_and_is_reproducible(tiny):
    data = [batch(), batch()]

    def train():
        torch.manual_seed(2)
        module = finetuning(mixup=0.8, cutmix=1.0, label_smoothing=0.1, lr=0.5)
        torch.manual_seed(3)
        trainer = tiny.trainer(max_epochs=2)
        trainer.fit(module, tiny.loader(data), tiny.loader(data))
        assert {"train/loss", "val/acc1"} <= trainer.callback_metrics.keys()
        return module

    first, second = train(), train()
    assert first.classifier.weight.abs().max() > 1e-3
    assert torch.equal(first.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.8, "cutmix": 1.0}])
def test_images_are_erased_in_training_only_and_before_mixing(tiny, mixing):
    class Spy(FineTuning):
        seen = ()

        def forward(self, images):
            self.seen = (*self.seen, images)
            return super().forward(images)

    arguments = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": TINY_VIT, "num_classes": 3}
    module = Spy(**arguments, random_erasing=1.0, **mixing)
    order = []
    if mixing:
        mix = module.mixing
        module.mixing = lambda *args: order.append(args[0]) or mix(*args)
    images, labels = torch.zeros(6, 3, 16, 16), torch.arange(6) % 3
    loader = tiny.loader([(images, labels)])
    tiny.trainer(num_sanity_val_steps=0).fit(module, loader, loader)
    trained, validated = module.seen
    first = order[0] if mixing else trained
    assert (first != 0).flatten(1).any(dim=1).all()
    assert not validated.any()
    assert not images.any()


# ---------------------------------------------------------------------- weights


@pytest.fixture
def paws_checkpoint(tiny, tmp_path):
    """A checkpoint of a PAWS with random weights and moved statistics, and the module."""
    module = PAWS("resnet10t", NET, num_classes=3, proj_output_dim=8, proj_hidden_dim=10)
    for buffer in (module.projection_head.bn1.running_mean, module.projection_head.bn1.running_var):
        buffer.add_(torch.rand(10))
    trainer = tiny.trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "paws.ckpt")
    return tmp_path / "paws.ckpt", module


def test_the_first_projection_layer_is_kept_and_trained(tiny, paws_checkpoint):
    path, paws = paws_checkpoint
    module = FineTuning(
        "resnet10t", NET, num_classes=3, proj_hidden_dim=10, pretrained=str(path), lr=0.1
    )
    module.setup("fit")
    images = torch.randn(4, 3, 32, 32)
    head = paws.eval().projection_head
    expected = head.act1(head.bn1(head.fc1(paws.backbone(images))))
    kept = module.eval().classifier[:3](module(images))
    torch.testing.assert_close(kept, expected)
    assert not module.logits(images).any()
    before = module.classifier.fc1.weight.clone(), module.classifier.bn1.running_mean.clone()
    data = tiny.loader([(images, torch.tensor([0, 1, 2, 0]))])
    trainer = tiny.trainer(max_epochs=2)
    trainer.fit(module.train(), data)
    assert not torch.equal(module.classifier.fc1.weight, before[0])
    assert not torch.equal(module.classifier.bn1.running_mean, before[1])
    trainer.save_checkpoint("tuned.ckpt")
    tuned = module.eval().logits(images)
    trainer.test(module, data)  # does not go back to the pre-trained weights
    assert torch.equal(module.eval().logits(images), tuned)
    again = FineTuning.load_from_checkpoint("tuned.ckpt")
    trainer.test(again, data)
    assert torch.equal(again.eval().logits(images), tuned)
    fresh = FineTuning(
        "resnet10t", NET, num_classes=3, proj_hidden_dim=10, pretrained=str(path), lr=0.1
    )
    trainer.test(fresh, data, ckpt_path="tuned.ckpt", weights_only=True)
    assert torch.equal(fresh.eval().logits(images), tuned)


def test_official_checkpoints_have_the_layer_too(tmp_path):
    part = {
        "fc1.weight": torch.ones(4, 3),
        "bn1.weight": torch.ones(4),
        "fc2.weight": torch.ones(2, 4),
    }
    named = {f"module.fc.{key}": value for key, value in part.items()}
    for key in ("encoder", "target_encoder"):
        torch.save({key: named}, tmp_path / "official.pt")
        path = tmp_path / "official.pt"
        found = first_projection(read_weights(path), path)
        assert sorted(found) == ["bn1.weight", "fc1.weight"]


def test_of_msn_the_slow_head_is_kept(tiny, tmp_path):
    module = tiny.msn(MSN, backbone="vit_tiny_patch16_224", backbone_kwargs=TINY_VIT)
    nn.init.ones_(module.target_head.fc1.weight)
    trainer = tiny.trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint("msn.ckpt")
    assert first_projection(read_weights("msn.ckpt"), "msn.ckpt")["fc1.weight"].eq(1).all()


def test_wrong_projections_are_refused(tiny, paws_checkpoint, tmp_path):
    path, paws = paws_checkpoint
    wide = FineTuning("resnet10t", NET, num_classes=3, proj_hidden_dim=12, pretrained=str(path))
    with pytest.raises(ValueError, match="set proj_hidden_dim to 10"):
        wide.setup("fit")
    torch.save(paws.backbone.state_dict(), tmp_path / "backbone.pt")
    without = FineTuning(
        "resnet10t",
        NET,
        num_classes=3,
        proj_hidden_dim=10,
        pretrained=str(tmp_path / "backbone.pt"),
    )
    with pytest.raises(ValueError, match="no projection head whose first layer"):
        without.setup("fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_decay": 0.0}, r"layer_decay in \(0, 1\]"),
        ({"layer_decay": 1.5}, r"layer_decay in \(0, 1\]"),
        ({"head_std": -1.0}, "head_std >= 0"),
        ({"random_erasing": 1.1}, "random erasing needs a probability"),
        ({"mixup": -0.1}, "mixup and cutmix must be >= 0"),
        ({"activation": "tanh"}, "activation 'relu' or 'gelu'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        finetuning(**arguments)


def test_it_is_a_classifier_for_everything_else():
    module = finetuning(milestones=[1, 2], momentum=0.8)
    assert isinstance(module, ImageClassifier)
    assert (module.milestones, module.momentum) == ([1, 2], 0.8)
    assert {"layer_decay", "milestones", "backbone"} <= module.hparams.keys()
