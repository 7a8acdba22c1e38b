"""Four training steps under a Trainer against the reference code."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl import MSN


class Recorded(MSN):
    """Uses the given masks and keeps what it logs."""

    def draw_mask(self, images, mask_ratio):
        return self.masks[self.trainer.global_step] if mask_ratio else None

    def log(self, name, value, **kwargs):
        self.record.setdefault(name, []).append(float(value))

    def log_dict(self, values, **kwargs):
        for name, value in values.items():
            self.log(name, value)


class StopAndLook(pl.Callback):
    """Stops after four steps; keeps what the optimiser used."""

    def __init__(self) -> None:
        self.used = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        group = trainer.optimizers[0].param_groups[0]
        decay = pl_module.ema_decay_at(trainer.global_step - 1)
        self.used.append((group["lr"], group["weight_decay"], decay))
        trainer.should_stop = trainer.global_step == 4


@pytest.fixture
def run(golden, tiny):
    data = golden("msn/train_steps")
    module = tiny.msn(
        Recorded, mask_ratio=float(data["patch_drop"]), lr=float(data["lr_peak"]),
        start_lr=float(data["start_lr"]), final_lr=float(data["final_lr"]),
        warmup_epochs=float(data["warmup_epochs"]), weight_decay=float(data["wd_start"]),
        final_weight_decay=float(data["wd_final"]), clip_grad_norm=float(data["clip_grad"]),
    )  # fmt: skip
    module.record, module.masks = {}, data["kept_patches"]
    state = {k.removeprefix("sd/"): v for k, v in data.items() if k.startswith("sd/")}
    head = {k.removeprefix("fc."): state.pop(k) for k in list(state) if k.startswith("fc.")}
    for backbone in (module.backbone, module.target_backbone):
        backbone.vit.load_state_dict(state)
    for projector in (module.projection_head, module.target_head):
        projector.load_state_dict(head)
    module.prototypes.data.copy_(data["prototypes"])
    views = data["views"].transpose(1, 2).double(), data["focal_views"].transpose(1, 2).double()
    look = StopAndLook()
    trainer = tiny.trainer(precision="64-true", max_epochs=int(data["epochs"]), callbacks=[look])
    trainer.fit(module, tiny.loader([[large, focal] for large, focal in zip(*views, strict=True)]))
    return module, look, data


def test_losses_and_schedules(run):
    module, look, data = run
    names = {
        "train/loss": "loss", "train/cross_entropy": "ce", "train/me_max": "memax",
        "train/grad_norm": "grad_norm",
    }  # fmt: skip
    for name, key in names.items():
        assert module.record[name] == pytest.approx(data[key].tolist(), rel=1e-9), name
    expected = zip(data["lr"].tolist(), data["wd"].tolist(), data["ema_m"].tolist(), strict=True)
    for got, wanted in zip(look.used, expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-12)


def test_weights_and_batchnorm_statistics(run):
    module, _, data = run
    networks = {
        "final/": (module.backbone, module.projection_head),
        "target/": (module.target_backbone, module.target_head),
    }
    compared = 0
    for prefix, (backbone, head) in networks.items():
        ours = dict(backbone.vit.state_dict())
        ours |= {f"fc.{key}": value for key, value in head.state_dict().items()}
        for key in [key for key in data if key.startswith(prefix)]:
            got = ours[key.removeprefix(prefix)].double()
            # stored in float32
            torch.testing.assert_close(got, data[key].double(), rtol=1e-6, atol=2e-7, msg=key)
            compared += 1
    assert compared == 40
    expected = data["final_prototypes"].double()
    torch.testing.assert_close(module.prototypes.double(), expected, rtol=1e-6, atol=2e-7)
