"""The encoders of a two-stream network: images by timm, texts by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputFileNotFoundError, InputImportError
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.models.backbones.fetching import do_weights_follow

__all__ = ["ImageStream", "TextStream"]

_BEHIND = ("head", "fc_norm", "attn_pool", "head_norm")  # timm's parts behind the features


class ImageStream(nn.Module):
    """Tokens of images: ``[B, C, H, W]`` → ``[B, N, width]``, whatever the form of the features.

    Args:
        name: of timm or of this package.
        kwargs: arguments of the network.

    Attributes:
        width: of a token.
        class_token: whether the first one is a class token.
        start: what it is, in words.

    Raises:
        ValueError: if there is no such network, or it has no features by place.
    """

    def __init__(self, name: str, kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        network, _ = create_backbone(name, kwargs)
        if not hasattr(network, "forward_features"):
            raise InputError(f"the image encoder {name} has no forward_features: give one of timm")
        for part in _BEHIND:  # nothing reads it: it would have no gradient
            if isinstance(getattr(network, part, None), nn.Module):
                getattr(network, part).requires_grad_(False)
        self.network: Any = network
        self.width: int = network.num_features  # type: ignore[assignment]
        self.class_token = getattr(network, "cls_token", None) is not None
        given = kwargs or {}
        is_trained = given.get("pretrained") or given.get("checkpoint_path")
        self.start = f"{name} (timm)" if is_trained else f"random weights ({name})"

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` → ``[B, N, width]``.

        Args:
            images: float, normalised.

        Raises:
            ValueError: if the network is for images of another size.
        """
        embed: Any = getattr(self.network, "patch_embed", None)
        size: Any = getattr(embed, "img_size", None)
        fixed = size is not None and getattr(embed, "strict_img_size", False)
        if fixed and tuple(images.shape[2:]) != tuple(size):
            raise InputError(
                f"images have {list(images.shape[2:])} pixels, but the image encoder is for "
                f"{list(size)}: give the data that size, or the encoder image_kwargs.img_size"
            )
        features = self.network.forward_features(images)
        if features.ndim == 4:
            if getattr(self.network, "output_fmt", "NCHW") == "NHWC":  # Swin
                return features.flatten(1, 2)
            return features.flatten(2).mT
        return features


class TextStream(nn.Module):
    """States of texts: ids ``[B, L]`` → ``[B, L, width]``.

    Args:
        source: folder of an encoder of transformers, or its configuration for random weights.

    Attributes:
        width: of a state.
        vocab_size, max_length: of texts.
        start: what it is, in words.

    Raises:
        ImportError: without the package transformers.
        FileNotFoundError: if there is no folder.
        ValueError: if it holds no encoder, or lacks weights.
    """

    def __init__(self, source: str | Mapping[str, Any]) -> None:
        super().__init__()
        model = _from_folder(source) if isinstance(source, str) else _from_config(source)
        if getattr(model.config, "is_decoder", False) or model.config.is_encoder_decoder:
            raise InputError(
                f"the text encoder is a {model.config.model_type} that decodes: give an encoder, "
                "such as BERT or RoBERTa"
            )
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # what nothing reads would have no gradient
        self.model: Any = model.float().train()
        config = model.config
        self.width: int = config.hidden_size
        self.vocab_size: int = config.vocab_size
        self.max_length: int = config.max_position_embeddings - _reserved_positions(model)
        where = source if isinstance(source, str) else "random weights"
        self.start = f"{where} ({config.model_type})"

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Table ``[V, width]`` of words."""
        return self.model.get_input_embeddings()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and bool mask ``[B, L]`` → ``[B, L, width]``.

        Args:
            ids: of tokens, int64.
            mask: True where a token is.
        """
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state


def _reserved_positions(model: Any) -> int:
    """RoBERTa counts positions from behind that of padding."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _auto() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputImportError(
            "CoAttentionBackbone needs the package transformers: pip install 'lit-ssl[hf]'"
        ) from error
    return transformers


def _from_config(fields: Mapping[str, Any]) -> Any:
    transformers = _auto()
    rest = dict(fields)
    kind = rest.pop("model_type", None)
    if kind is None:
        raise InputError("text_encoder needs a model_type, such as bert, beside its other fields")
    try:
        config = transformers.AutoConfig.for_model(kind, **rest)
        unknown = [name for name in rest if name not in type(config)().to_dict()]
        if unknown:
            raise InputError(f"text_encoder: {kind} has no field {unknown[0]!r}")
        return transformers.AutoModel.from_config(config, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # the classes of its checks change with its versions
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"transformers refuses the text_encoder: {reason}") from error


def _from_folder(path: str) -> Any:
    transformers = _auto()
    if not (Path(path) / "config.json").is_file():
        raise InputFileNotFoundError(
            f"there is no text encoder in {path}: give a folder with config.json and the weights, "
            "as save_pretrained() of transformers writes them; nothing is downloaded"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        if do_weights_follow():
            return transformers.AutoModel.from_config(config, trust_remote_code=False)
        model, found = transformers.AutoModel.from_pretrained(
            path,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputFileNotFoundError(f"the text encoder in {path}: {reason}") from error
    # transformers only warns of weights that are not there, and goes on with random ones
    prefix = f"{model.base_model_prefix}."  # which some versions of transformers leave there
    missing = sorted(
        name
        for name in found["missing_keys"]
        if not name.removeprefix(prefix).startswith("pooler.")
    )
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights of its text encoder, {missing[0]} among them"
        )
    return model
