"""Data modules that come from a checkpoint: its file is data, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_ssl.checkpoints.loading import loading_data
from lit_ssl.checkpoints.newest import refuse_damaged

__all__ = ["DataFromCheckpoint"]


class DataFromCheckpoint:
    """Part of a LightningDataModule."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As Lightning's, but nothing in the file is run.

        Args:
            checkpoint_path: Path, URL or open file.
            map_location: As of ``torch.load``.
            hparams_file: ``.yaml`` or ``.csv`` in place of the hyper-parameters in the file.
            weights_only: False trusts whoever wrote the file, as Lightning does: it may hold any
                objects and name any class.
            **kwargs: Arguments in place of those in the file.

        Raises:
            InputError: If the file is damaged, holds other things than plain values, or names a
                class that it must not name (``lit_ssl.checkpoints.classes.Names``).
        """
        if isinstance(checkpoint_path, str | Path):
            refuse_damaged(checkpoint_path)
        load = super().load_from_checkpoint  # type: ignore[misc]
        rest = {"map_location": map_location, "hparams_file": hparams_file}
        if weights_only is False:
            return load(checkpoint_path, **rest, weights_only=False, **kwargs)
        with loading_data(cls, checkpoint_path, hparams_file, kwargs):
            return load(checkpoint_path, **rest, weights_only=True, **kwargs)
