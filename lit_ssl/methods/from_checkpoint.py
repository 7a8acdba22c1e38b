"""Modules from a checkpoint: whole, as data, and without what it is going to replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_ssl.checkpoints.loading import loading_data
from lit_ssl.checkpoints.newest import refuse_damaged
from lit_ssl.models.backbones.fetching import weights_follow

__all__ = ["FromCheckpoint"]


class FromCheckpoint:
    """Part of a LightningModule, which may have a backbone by name with weights of its own."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As Lightning's, but nothing in the file is run, and no weights are fetched in vain.

        Args:
            checkpoint_path: path, URL or open file.
            map_location: as of ``torch.load``.
            hparams_file: ``.yaml`` or ``.csv`` in place of the hyper-parameters in the file.
            strict: as of ``load_state_dict``. With False weights are fetched: the checkpoint may
                hold some only.
            weights_only: False trusts whoever wrote the file, as Lightning does: it may hold any
                objects and name any class.
            **kwargs: arguments in place of those in the file.

        Raises:
            InputError: if the file is damaged, holds other things than plain values, or names a
                class that it must not name (``lit_ssl.checkpoints.classes.Names``).
        """
        if isinstance(checkpoint_path, str | Path):
            refuse_damaged(checkpoint_path)
        load = super().load_from_checkpoint  # type: ignore[misc]
        rest = {"map_location": map_location, "hparams_file": hparams_file, "strict": strict}
        with weights_follow(strict is not False):
            if weights_only is False:
                return load(checkpoint_path, **rest, weights_only=False, **kwargs)
            with loading_data(cls, checkpoint_path, hparams_file, kwargs):
                return load(checkpoint_path, **rest, weights_only=True, **kwargs)
