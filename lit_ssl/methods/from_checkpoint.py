"""Modules that come from a checkpoint: whole, without what the checkpoint is going to replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_ssl.checkpoints.newest import refuse_damaged
from lit_ssl.models.backbones.fetching import weights_follow

__all__ = ["FromCheckpoint"]


class FromCheckpoint:
    """Part of a LightningModule with a backbone by name, which may ask for weights of its own."""

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """As Lightning's, but no weights are fetched for the checkpoint to replace.

        With ``strict=False`` they are: the checkpoint may hold some only.

        Raises:
            InputError: if the checkpoint is damaged.
        """
        path = kwargs.get("checkpoint_path", args[0] if args else None)
        if isinstance(path, str | Path):
            refuse_damaged(path)
        with weights_follow(kwargs.get("strict") is not False):
            return super().load_from_checkpoint(*args, **kwargs)  # type: ignore[misc]
