"""Text encoders of transformers as backbones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lit_ssl.errors import InputFileNotFoundError, InputImportError
from lit_ssl.models.backbones.fetching import do_weights_follow

__all__ = ["TextBackbone"]


# From this machine, and nothing of what else a folder may hold is run.
_AS_DATA: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class TextBackbone(nn.Module):
    """A transformers model that maps tokens to one feature vector: ``{...: [B, L]} → [B, D]``.

    The features are the model's pooled output where it has one (BERT), else the last state of the
    first token, with the dropout that the model's configuration has for classifiers.

    Args:
        path: folder with the model (``config.json`` and weights), or a name that transformers finds
            in its cache. Where weights follow, of a checkpoint, only ``config.json`` is read.

    Raises:
        ImportError: without the package transformers.
        FileNotFoundError: if there is no model.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise InputImportError(
                "TextBackbone needs the package transformers: pip install lit-ssl[hf]"
            ) from error
        try:
            if do_weights_follow():
                config = AutoConfig.from_pretrained(path, **_AS_DATA)
                model = AutoModel.from_config(config, trust_remote_code=False)
                self.model = model.eval()  # as from_pretrained leaves it
            else:
                self.model = AutoModel.from_pretrained(path, **_AS_DATA)
        except (OSError, ValueError) as error:
            where = "is no model" if Path(path).exists() else "is neither a folder nor cached"
            raise InputFileNotFoundError(
                f"{path} {where}: give a folder with config.json and the weights of a transformers "
                "model, as save_pretrained() writes them"
            ) from error
        self.model.train()  # transformers loads in eval mode, where its dropout would stay off
        config = self.model.config
        self.embed_dim: int = config.hidden_size
        rates = (
            getattr(config, name, None) for name in ("classifier_dropout", "hidden_dropout_prob")
        )
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.0))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Features of token batches: ``input_ids``, ``attention_mask`` and what the model takes.

        Args:
            inputs: int64 ``[B, L]`` each.

        Returns:
            ``[B, D]``: the model's pooled output, or the first token where it has none.
        """
        output = self.model(**inputs)
        pooled = getattr(output, "pooler_output", None)
        return self.dropout(output.last_hidden_state[:, 0] if pooled is None else pooled)
