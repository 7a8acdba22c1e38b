"""Whether the optimizers of a run may be fused."""

from __future__ import annotations

import lightning.pytorch as pl

from lit_ssl.trainer.private import trainer_of

__all__ = ["may_fuse"]


def may_fuse(module: pl.LightningModule) -> bool | None:
    """False where a scaler scales gradients (``16-mixed``); None: as it is best.

    There a fused optimizer divides by the scale inside its step, and Lightning refuses to clip
    gradients, since they are still scaled.

    Args:
        module: of the run; without a Trainer nothing is scaled.
    """
    trainer = trainer_of(module)
    scaler = None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else False
