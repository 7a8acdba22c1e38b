"""The supervised classifier: schedule, probe mode, loss, metrics, weights and errors."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_ssl import MSN, ImageClassifier
from lit_ssl.checkpoints.export import export_encoder
from lit_ssl.optim import MultiStep, Schedule


class Net(nn.Module):
    """Convolution and BatchNorm, pooled."""

    embed_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images):
        return self.norm(self.conv(images)).relu().mean((2, 3))


def classifier(**kwargs):
    arguments = {"backbone": Net(), "num_classes": 3, "warmup_epochs": 0, "lr": 0.1}
    return ImageClassifier(**{**arguments, **kwargs})


def batches(count=4, size=8, classes=3):
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        labels = torch.randint(classes, (size,), generator=generator)
        noise = torch.randn(size, 3, 8, 8, generator=generator)
        made.append((noise + 2 * F.one_hot(labels, 3).float()[:, :, None, None], labels))
    return made


class Rates(pl.Callback):
    """Learning rate and weight decay of every step."""

    def __init__(self):
        self.seen, self.decays = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])
        self.decays.append([g["weight_decay"] for g in optimizer.param_groups])


def fit(tiny, module, data=None, **kwargs):
    rates = Rates()
    trainer = tiny.trainer(callbacks=[rates], **kwargs)
    loader = tiny.loader(data or batches())
    trainer.fit(module, loader, loader)
    return rates, trainer


# ------------------------------------------------------------------- schedule


def test_warm_up_and_milestones_count_in_epochs(tiny):
    module = classifier(
        lr=3.2, start_lr=0.1, warmup_epochs=1.5, milestones=[2, 3], weight_decay=0.1
    )
    rates, _ = fit(tiny, module, max_epochs=4)
    expected = MultiStep(0.1, 3.2, (8, 12), 0.1, 6)
    assert rates.seen == pytest.approx([expected(step) for step in range(16)])
    assert rates.seen[8] == pytest.approx(0.32)  # the first step of the third epoch
    assert rates.decays[-1] == [0.1, 0.0]


def test_cosine_over_the_run_and_accumulation(tiny):
    module = classifier(lr=1.0, final_lr=0.1, start_lr=0.2, warmup_epochs=1)
    rates, trainer = fit(tiny, module, max_epochs=3, accumulate_grad_batches=2)
    assert trainer.global_step == 6
    expected = Schedule(0.2, 1.0, 0.1, 6, 2)
    assert rates.seen == pytest.approx([expected(step) for step in range(6)])


def test_a_second_fit_of_another_length_has_its_own_schedule(tiny):
    module = classifier(lr=1.0)
    fit(tiny, module, max_epochs=1)
    rates, _ = fit(tiny, module, max_epochs=2)
    assert rates.seen == pytest.approx([Schedule(0.01, 1.0, 0.0, 8)(step) for step in range(8)])


def test_resumed_run_equals_an_uninterrupted_one(tiny, tmp_path):
    def run(**kwargs):
        torch.manual_seed(0)
        module = classifier(milestones=[1], weight_decay=0.01)
        trainer = tiny.trainer(**kwargs)
        return module, trainer

    whole, trainer = run(max_epochs=3)
    trainer.fit(whole, tiny.loader(batches()))
    half, trainer = run(max_epochs=1)
    trainer.fit(half, tiny.loader(batches()))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, trainer = run(max_epochs=3)
    path = str(tmp_path / "half.ckpt")
    trainer.fit(resumed, tiny.loader(batches()), ckpt_path=path, weights_only=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_default_is_nesterov_and_another_optimizer_keeps_the_schedule(tiny):
    _, trainer = fit(tiny, classifier(momentum=0.8))
    group = trainer.optimizers[0].param_groups[0]
    assert (group["nesterov"], group["momentum"]) == (True, 0.8)
    module = classifier(optimizer=lambda groups: torch.optim.AdamW(groups, lr=9.0), lr=0.01)
    rates, trainer = fit(tiny, module)
    assert isinstance(trainer.optimizers[0], torch.optim.AdamW)
    assert rates.seen[0] == pytest.approx(0.01)


def test_what_is_not_decayed(tiny):
    module = classifier(backbone=tiny.vit(), weight_decay=0.1)
    module.trainer = tiny.trainer(max_steps=1)
    module._schedule = MultiStep(0.0, 1.0, ())
    names = {id(p): n for n, p in module.named_parameters()}
    assert not module._is_undecayed("classifier.weight", module.classifier.weight)
    undecayed = {n for n, p in module.named_parameters() if module._is_undecayed(n, p)}
    assert {"backbone.pos_embed", "backbone.cls_token", "classifier.bias"} <= undecayed
    assert "backbone.blocks.0.attn.qkv.weight" not in undecayed
    assert undecayed < set(names.values())


# ------------------------------------------------------------ loss and metrics


def test_loss_smooths_labels_and_ignores_unknown_ones(tiny):
    module = classifier(label_smoothing=0.3)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    known = logits[labels >= 0].log_softmax(1)
    right = known[torch.arange(3), labels[labels >= 0]]
    expected = -(0.7 * right + 0.3 * known.mean(1)).mean()
    torch.testing.assert_close(module._loss(logits, labels), expected)
    assert module._loss(logits, torch.full((4,), -1)) == 0
    assert module._loss(logits.bfloat16(), labels).dtype == torch.float32


def test_accuracies_are_those_of_the_logits(tiny):
    module, data = classifier(lr=0.3), batches(6)
    _, trainer = fit(tiny, module, data, max_epochs=5)
    module.eval()
    with torch.no_grad():
        hits = [module.logits(x).argmax(1) == y for x, y in data]
    accuracy = torch.cat(hits).float().mean()
    assert trainer.logged_metrics["val/acc1"] == pytest.approx(accuracy.item())
    assert accuracy > 0.9
    assert trainer.logged_metrics["train/acc1"] > 0.5
    unknown = [(x, torch.where(torch.arange(8) < 4, y, -1)) for x, y in data]
    result = trainer.test(module, tiny.loader(unknown), verbose=False)[0]
    assert result["test/acc1"] == pytest.approx(torch.cat([h[:4] for h in hits]).float().mean())


def test_predictions_are_probabilities(tiny):
    module, data = classifier(), batches(2)
    rows = torch.cat(tiny.trainer().predict(module, tiny.loader(data)))
    assert rows.shape == (16, 3)
    torch.testing.assert_close(rows.sum(1), torch.ones(16))


# ----------------------------------------------------------------------- probe


def test_a_probe_moves_nothing_but_the_classifier(tiny):
    module = classifier(freeze_backbone=True, lr=1.0)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    _, trainer = fit(tiny, module, max_epochs=2)  # validation in between
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"classifier.weight", "classifier.bias"}
    assert sum(len(g["params"]) for g in trainer.optimizers[0].param_groups) == 2
    module.train()
    assert not module.backbone.norm.training
    assert module.training
    images = torch.randn(2, 3, 8, 8)
    assert not module(images).requires_grad
    assert module.logits(images).requires_grad


def test_without_freezing_batch_norm_is_trained(tiny):
    module = classifier()
    fit(tiny, module)
    assert module.backbone.norm.num_batches_tracked == 4


# -------------------------------------------------------------------- backbones


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "mobilenetv3_small_050",
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_any_timm_model_by_name(name):
    module = ImageClassifier(name, num_classes=5).eval()
    with torch.no_grad():
        features = module(torch.randn(2, 3, 224, 224))
    assert features.shape == (2, module.embed_dim)
    assert module.encoder is module.backbone


def test_networks_of_this_package_by_name_and_residual_branches_off():
    module = ImageClassifier(
        "wide_resnet", {"depth": 10, "width": 1, "in_chans": 1}, num_classes=3
    ).eval()
    assert module(torch.randn(2, 1, 16, 16)).shape == (2, module.embed_dim)
    assert not ImageClassifier("resnet18", num_classes=3).backbone.layer1[0].bn2.weight.any()
    with pytest.raises(ValueError, match="there is no backbone 'resnet19'"):
        ImageClassifier("resnet19", num_classes=3)


def test_a_checkpoint_of_another_method_is_probed(tiny, tmp_path):
    msn = tiny.msn()
    msn.target_backbone.vit.norm.bias.data += 1
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(msn)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    probe = ImageClassifier(tiny.vit(), num_classes=3, pretrained=str(tmp_path / "run.ckpt"))
    probe.setup("fit")
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(probe.eval()(images), msn.eval()(images), rtol=1e-4, atol=1e-5)


def test_hyper_parameters_reload(tiny, tmp_path):
    kwargs = {"in_chans": 1}
    module = ImageClassifier("resnet10t", kwargs, num_classes=3, milestones=[1, 2])
    trainer = tiny.trainer(max_steps=0)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(loaded.eval().logits(images), module.eval().logits(images))
    assert loaded.milestones == [1, 2]


def test_an_exported_encoder_of_another_method_is_probed(tiny, tmp_path):
    kwargs = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    msn = MSN("vit_tiny_patch16_224", kwargs, proj_hidden_dim=8, proj_output_dim=4).eval()
    path = str(tmp_path / "encoder.safetensors")
    export_encoder(msn.encoder, path, "vit_tiny_patch16_224", kwargs)
    probe = ImageClassifier(
        "vit_tiny_patch16_224", kwargs, num_classes=3, pretrained=path, freeze_backbone=True,
        warmup_epochs=0,
    )  # fmt: skip
    data = [(torch.randn(4, 3, 16, 16), torch.randint(3, (4,)))]
    fit(tiny, probe, data)
    torch.testing.assert_close(probe(data[0][0]), msn(data[0][0]))


def test_weights_with_a_classifier_load_and_others_are_refused(tiny, tmp_path):
    import timm

    trained = timm.create_model("resnet10t", num_classes=7)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    module = ImageClassifier("resnet10t", num_classes=3)
    module.load_backbone(str(tmp_path / "trained.pth"))
    assert torch.equal(module.backbone.conv1[0].weight, trained.conv1[0].weight)
    with pytest.raises(ValueError, match="differ in name or shape"):
        ImageClassifier("resnet18", num_classes=3).load_backbone(str(tmp_path / "trained.pth"))
    torch.save({"pytorch-lightning_version": "2.6"}, tmp_path / "run.ckpt")
    with pytest.raises(ValueError, match="lit-ssl export"):
        module.load_backbone(str(tmp_path / "run.ckpt"))


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": None}, "needs num_classes"),
        ({"num_classes": 0}, "at least 2 classes, not num_classes=0: .*one folder for each class"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
        ({"milestones": [3, 2]}, "milestones must be increasing"),
        ({"milestone_factor": 0.0}, "milestone_factor must be positive"),
        ({"backbone_kwargs": {"depth": 2}}, "belong to a backbone given by name"),
        ({"backbone": nn.Conv2d(3, 4, 1)}, "has neither embed_dim nor num_features"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        classifier(**kwargs)


def test_a_backbone_with_a_classifier_and_unpooled_features_are_refused(tiny):
    with pytest.raises(ValueError, match="build it with num_classes=0"):
        classifier(backbone=tiny.vit(num_classes=4))
    flat = nn.Conv2d(3, 4, 1)
    flat.embed_dim = 4
    with pytest.raises(ValueError, match="needs pooled features"):
        classifier(backbone=flat)(torch.randn(2, 3, 8, 8))


def test_views_instead_of_images_are_explained(tiny):
    with pytest.raises(ValueError, match="give it a SingleView"):
        fit(tiny, classifier(), [([torch.randn(2, 2, 3, 8, 8)], torch.zeros(2).long())])


def test_a_run_without_an_end_is_refused(tiny):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield batches(1)[0]

    loader = torch.utils.data.DataLoader(Endless(), batch_size=None)
    with pytest.raises(ValueError, match="schedules of ImageClassifier need the length"):
        tiny.trainer().fit(classifier(), loader)
    with pytest.raises(ValueError, match="warmup_epochs counts epochs"):
        tiny.trainer(max_steps=1).fit(classifier(warmup_epochs=1), loader)
    tiny.trainer(max_steps=1).fit(classifier(), loader)
