"""Invariants of an MSN training step, its optimisation options, and its errors."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_ssl import MSN, PMSN
from lit_ssl.models import ema_update_


class Snapshots(pl.Callback):
    """Copies of the state before and after every batch."""

    def __init__(self) -> None:
        self.before, self.after, self.grads = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.grads.append(
            {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append({k: v.clone() for k, v in pl_module.state_dict().items()})


def fit(tiny, module, batches, **kwargs):
    snapshots = Snapshots()
    trainer = tiny.trainer(callbacks=[snapshots], **kwargs)
    trainer.fit(module, tiny.loader(batches))
    return snapshots, trainer


def test_target_follows_the_online_network_and_gets_no_gradient(tiny):
    module = tiny.msn(ema_decay=0.9)
    snapshots, _ = fit(tiny, module, [tiny.views() for _ in range(3)])
    assert not any(name.startswith("target_") for name in snapshots.grads[0])
    trained = {n for n, p in module.named_parameters() if p.requires_grad}
    assert set(snapshots.grads[0]) == trained
    for step in range(3):
        m = module.ema_decay_at(step)
        for part in ("backbone.vit.cls_token", "head.fc1.weight"):
            online = "projection_" + part if part.startswith("head") else part
            before, after = snapshots.before[step], snapshots.after[step]
            expected = m * before[f"target_{part}"] + (1 - m) * after[online]
            torch.testing.assert_close(after[f"target_{part}"], expected)
    # BatchNorm: one forward of the target a step, two of the online network (one per crop size)
    assert module.target_head.bn1.num_batches_tracked == 3
    assert module.projection_head.bn1.num_batches_tracked == 6


def test_prototypes_are_trained(tiny):
    module = tiny.msn()
    snapshots, _ = fit(tiny, module, [tiny.views()])
    assert (snapshots.after[0]["prototypes"] - snapshots.before[0]["prototypes"]).abs().max() > 1e-4


@pytest.mark.parametrize(("steps", "moved"), [(2, [False, False, True]), (-1, [False] * 3)])
def test_prototypes_can_be_frozen(tiny, steps, moved):
    module = tiny.msn(freeze_prototypes_steps=steps)
    snapshots, _ = fit(tiny, module, [tiny.views() for _ in range(3)])
    for before, after, expected in zip(snapshots.before, snapshots.after, moved, strict=True):
        assert torch.equal(before["prototypes"], after["prototypes"]) != expected


def test_only_large_anchors_are_masked(tiny):
    seen = []

    class Spy(MSN):
        def encode_anchor(self, images, keep=None):
            seen.append((tuple(images.shape), None if keep is None else tuple(keep.shape)))
            return super().encode_anchor(images, keep)

    module = tiny.msn(Spy)
    # Focal views of the same size as the large ones must not be masked either.
    batch = [torch.randn(6, 3, 3, 16, 16), torch.randn(6, 2, 3, 16, 16)]
    tokens = []
    block = module.target_backbone.vit.blocks[0]
    block.register_forward_hook(lambda _, args, __: tokens.append(args[0].shape[1]))
    fit(tiny, module, [batch])
    assert seen == [((12, 3, 16, 16), (12, 11)), ((12, 3, 16, 16), None)]
    assert tokens == [17]


def test_views_of_an_image_meet_its_own_target(tiny):
    # Anchors equal to their targets: the assignments must agree image by image.
    module = tiny.msn(mask_ratio=0.0, sinkhorn_iterations=0, proj_use_bn=False)
    view = torch.randn(6, 1, 3, 16, 16)
    with torch.no_grad():
        _, targets = module.encode_target(view[:, 0])
        anchors = view.expand(-1, 2, -1, -1, -1).transpose(0, 1).flatten(0, 1)
        torch.testing.assert_close(module.encode_anchor(anchors), targets.repeat(2, 1))


def test_ema_once_per_optimiser_step_with_accumulation(tiny, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "lit_ssl.methods.msn.ema_update_",
        lambda target, online, decay: (calls.append(decay), ema_update_(target, online, decay)),
    )
    module = tiny.msn()
    _, trainer = fit(tiny, module, [tiny.views() for _ in range(6)], accumulate_grad_batches=3)
    assert trainer.global_step == 2
    assert calls == [d for s in range(2) for d in [module.ema_decay_at(s)] * 2]


def test_clipping_spares_the_prototypes_unless_the_trainer_clips(tiny):
    def norms(**kwargs):
        torch.manual_seed(0)
        module = tiny.msn(clip_grad_norm=1e-3)
        found = {}

        class Look(pl.Callback):
            def on_before_zero_grad(self, trainer, pl_module, optimizer):
                grads = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
                if grads:
                    rest = [g for n, g in grads.items() if n != "prototypes"]
                    found["rest"] = nn.utils.get_total_norm(rest).item()
                    found["prototypes"] = grads["prototypes"].norm().item()

        batches = [tiny.views() for _ in range(2)]
        trainer = tiny.trainer(callbacks=[Look()], **kwargs)
        trainer.fit(module, tiny.loader(batches))
        return found

    own = norms()
    assert own["rest"] == pytest.approx(1e-3, rel=1e-3)
    assert own["prototypes"] > 1e-2
    assert norms(gradient_clip_val=1e-3)["prototypes"] < 1e-3


@pytest.mark.parametrize("decay_tables", [True, False])
def test_decay_groups_by_name_for_vit_tiny(tiny, decay_tables):
    module = MSN("vit_tiny_patch16_224", decay_pos_and_cls=decay_tables, warmup_epochs=0)
    _, trainer = fit(tiny, module, [[torch.randn(2, 2, 3, 32, 32)]])
    groups = trainer.optimizers[0].param_groups
    names = {id(p): n for n, p in module.named_parameters()}
    decayed, undecayed = ({names[id(p)] for p in g["params"]} for g in groups)
    tables = {"backbone.vit.cls_token", "backbone.vit.pos_embed"}
    one_dim = {n for n, p in module.named_parameters() if p.requires_grad and p.ndim <= 1}
    assert undecayed == one_dim | {"prototypes"} | (set() if decay_tables else tables)
    assert decayed >= {"backbone.vit.blocks.0.attn.qkv.weight", "projection_head.fc3.weight"}
    assert (tables <= decayed) == decay_tables


def test_bf16_is_close_to_float32(tiny):
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(1)
        module = tiny.msn(mask_ratio=0.0)
        torch.manual_seed(2)

        class Look(pl.Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                losses.append(outputs["loss"].item())

        trainer = tiny.trainer(precision=precision, callbacks=[Look()])
        trainer.fit(module, tiny.loader([tiny.views(16)]))
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_own_optimizer_keeps_the_schedules(tiny):
    module = tiny.msn(optimizer=lambda groups: torch.optim.SGD(groups, lr=9.0, momentum=0.9))
    _, trainer = fit(tiny, module, [tiny.views() for _ in range(2)])
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


def test_a_resumed_run_with_a_queue_ends_with_the_same_weights(tiny, tmp_path):
    """The queue is saved while it is not full; modules without one are saved as they were."""
    batches = [tiny.views(3) for _ in range(2)]

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                assert len(pl_module.loss.recent_probs) == len(pl_module.loss.recent_targets) == 6
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def train(callbacks=(), **kwargs):
        module = tiny.msn(queue_size=8, mask_ratio=0.0)
        trainer = tiny.trainer(max_epochs=2, callbacks=list(callbacks))
        trainer.fit(module, tiny.loader(batches), **kwargs)
        return module

    whole = train([Save()])
    resumed = train(ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert len(resumed.loss.recent_probs) == 8
    assert not any("recent" in name for name in tiny.msn().state_dict())
    with pytest.raises(ValueError, match="gather=True"):
        tiny.msn(queue_size=8, gather=False)


def test_pmsn_has_the_queue_too(tiny):
    module = tiny.msn(PMSN, queue_size=5)
    fit(tiny, module, [tiny.views(3) for _ in range(2)])
    assert len(module.loss.recent_probs) == 5
    assert module.loss.recent_targets is None  # no Sinkhorn there


def test_features_stand_before_the_final_norm(tiny):
    module = tiny.msn().eval()
    images = torch.randn(4, 3, 16, 16)
    assert module(images).shape == (4, module.embed_dim)
    torch.testing.assert_close(module.encoder.norm(module.features(images)), module(images))
    torch.testing.assert_close(module(images), module.encoder(images))
    assert module.features(images, blocks=2, mask_ratio=0.5).shape == (4, 24)


def test_a_subclass_can_change_the_regulariser_and_its_arguments(tiny):
    class Own(MSN):
        def __init__(self, strength: float = 2.0, **kwargs) -> None:
            super().__init__(**kwargs)
            self.strength = strength

        def encode_anchor(self, images, keep=None):
            return self.strength * super().encode_anchor(images, keep)

    module = tiny.msn(Own, strength=3.0)
    snapshots, _ = fit(tiny, module, [tiny.views()])
    assert module.hparams["strength"] == 3.0
    assert snapshots.grads


def test_any_module_of_the_contract_is_a_backbone(tiny):
    class Patches(nn.Module):
        embed_dim, patch_size = 6, (4, 4)

        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(48, 6)

        def forward(self, images, keep=None):
            patches = nn.functional.unfold(images, 4, stride=4).transpose(1, 2)
            if keep is not None:
                patches = patches.gather(1, keep.unsqueeze(-1).expand(-1, -1, 48))
            return self.project(patches).mean(1)

    module = tiny.msn(backbone=Patches())
    fit(tiny, module, [tiny.views()])
    assert module(torch.randn(2, 3, 16, 16)).shape == (2, 6)


def test_wrong_batches_and_arguments_are_explained(tiny):
    with pytest.raises(ValueError, match="multi-view batches"):
        fit(tiny, tiny.msn(), [(torch.randn(6, 3, 16, 16), torch.zeros(6))])
    with pytest.raises(ValueError, match="at least one anchor view"):
        fit(tiny, tiny.msn(), [[torch.randn(6, 1, 3, 16, 16)]])
    with pytest.raises(ValueError, match="mask_ratio must lie in"):
        tiny.msn(mask_ratio=1.0)
    with pytest.raises(ValueError, match=r"num_prototypes >= 2 and .* not 0 and 1"):
        tiny.msn(num_prototypes=0)
    with pytest.raises(ValueError, match="warmup_epochs >= 0, not 10 and -1"):
        tiny.msn(warmup_epochs=-1)
    with pytest.raises(ValueError, match="mask_mode must be"):
        tiny.msn(mask_mode="images")
    with pytest.raises(ValueError, match="backbone_kwargs belong to"):
        tiny.msn(backbone_kwargs={"depth": 2})


def test_a_run_without_an_end_is_refused_before_training(tiny):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield tiny.views()

    loader = torch.utils.data.DataLoader(Endless(), batch_size=None)
    with pytest.raises(ValueError, match="need the length of the run"):
        tiny.trainer().fit(tiny.msn(), loader)
    tiny.trainer(max_steps=1).fit(tiny.msn(warmup_epochs=0), loader)


def test_values_are_logged_in_the_steps_that_loggers_write(tiny):
    class Written(pl.loggers.logger.DummyLogger):
        def __init__(self):
            super().__init__()
            self.steps = {}

        def log_metrics(self, metrics, step=None):
            self.steps[step] = set(metrics)

    logger = Written()
    trainer = tiny.trainer(logger=logger, log_every_n_steps=2)
    trainer.fit(tiny.msn(), tiny.loader([tiny.views() for _ in range(5)]))
    assert sorted(logger.steps) == [1, 3]
    values = ("loss", "cross_entropy", "me_max", "lr", "ema_decay", "grad_norm")
    assert all(names >= {f"train/{value}" for value in values} for names in logger.steps.values())


def test_warmup_in_epochs_with_only_max_steps(tiny):
    module = tiny.msn(warmup_epochs=2)
    batches = [tiny.views() for _ in range(3)]
    tiny.trainer(max_epochs=-1, max_steps=7).fit(module, tiny.loader(batches))
    peaks = [module._rates_at(step)[0] for step in range(7)]
    assert peaks.index(max(peaks)) == 5  # counted from 1: the sixth is the last of the warm-up
    assert module.ema_decay_at(7) == pytest.approx(0.996 + 0.004 / 1.25)
