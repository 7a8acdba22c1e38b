"""What reads the images and the text of a pair: a frozen CLIP, or small layers to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputFileNotFoundError, InputImportError
from lit_ssl.models.backbones.fetching import do_weights_follow
from lit_ssl.models.nac.tokenizers.images import convnext_stages
from lit_ssl.models.nac.tokenizers.tokens import check_positive

__all__ = ["FrozenCLIP", "SmallPairEncoder"]


class FrozenCLIP(nn.Module):
    """The two towers of a CLIP of transformers, never trained: ViT-B/32 gives 50 × 768 and L × 512.

    Their parameters take no gradient and the towers stay in evaluation mode; they are part of
    checkpoints, so a checkpoint needs no folder of weights beside it, only ``config.json``. Images
    have to be normalised by CLIP's mean and standard deviation, ids to be those of its tokenizer:
    these are settings of the data module.

    Args:
        path: folder with ``config.json`` and the weights, as ``save_pretrained`` of transformers'
            ``CLIPModel`` writes them; nothing is fetched. Where weights follow, of a checkpoint,
            only ``config.json`` is read.

    Attributes:
        image_size, in_channels: of the images that it reads.
        num_image_tokens: of one image, its class token first.
        image_dim, text_dim: channels of the tokens.
        vocab_size, max_length: of texts.

    Raises:
        ImportError: without the package transformers.
        FileNotFoundError: if there is no folder, or no model in it.
        ValueError: if it holds another model or lacks weights.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        model = _load_clip(path)
        self.vision: nn.Module = model.vision_model
        self.text: nn.Module = model.text_model
        self.requires_grad_(False).train()
        vision, text = model.config.vision_config, model.config.text_config
        self.image_size: int = vision.image_size
        self.in_channels: int = vision.num_channels
        self.num_image_tokens: int = (vision.image_size // vision.patch_size) ** 2 + 1
        self.image_dim: int = vision.hidden_size
        self.text_dim: int = text.hidden_size
        self.vocab_size: int = text.vocab_size
        self.max_length: int = text.max_position_embeddings

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Leave the towers in evaluation mode."""
        self.training = mode
        self.vision.eval()
        self.text.eval()
        return self

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` → last hidden states ``[N, num_image_tokens, image_dim]``.

        Args:
            images: normalised as CLIP needs them.
        """
        return self.vision(pixel_values=images).last_hidden_state

    @torch.no_grad()
    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask ``[B, L]`` → last hidden states ``[B, L, text_dim]``.

        Args:
            ids: of tokens, int64.
            mask: True where a token is.
        """
        return self.text(input_ids=ids, attention_mask=mask.long()).last_hidden_state


class SmallPairEncoder(nn.Module):
    """Layers to be trained from scratch where there is no CLIP: two ConvNeXt stages, an embedding.

    Words have learned positions added, since a generator that reads them alone would see their set.

    Args:
        vocab_size: number of ids, with padding (0).
        image_size: height and width, divisible by 8.
        in_channels: channels of the images.
        image_dim: channels of the image tokens, divisible by 2.
        text_dim: channels of the text tokens.
        max_length: longest text.
        preset: blocks of the two stages; see
            [`ConvNeXtTokenizer`][lit_ssl.models.ConvNeXtTokenizer].

    Attributes: See [`FrozenCLIP`][lit_ssl.models.FrozenCLIP].

    Raises:
        ValueError: if a size is out of range.

    Source: ours.
    """

    def __init__(
        self,
        vocab_size: int,
        image_size: int = 32,
        in_channels: int = 3,
        image_dim: int = 64,
        text_dim: int = 64,
        max_length: int = 64,
        preset: str = "nano",
    ) -> None:
        super().__init__()
        check_positive(
            "SmallPairEncoder",
            vocab_size=vocab_size,
            image_size=image_size,
            in_channels=in_channels,
            text_dim=text_dim,
            max_length=max_length,
        )
        if image_size % 8 or image_dim < 2 or image_dim % 2:
            raise InputError(
                "SmallPairEncoder needs an image_size that 8 divides and an even image_dim, got "
                f"{image_size} and {image_dim}"
            )
        self.vision, stride = convnext_stages(2 * image_dim, preset, 2, in_channels)
        self.words = nn.Embedding(vocab_size, text_dim, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(max_length, text_dim))
        self.image_size, self.in_channels = image_size, in_channels
        self.num_image_tokens = (image_size // stride) ** 2
        self.image_dim, self.text_dim = image_dim, text_dim
        self.vocab_size, self.max_length = vocab_size, max_length

    def encode_images(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, num_image_tokens, image_dim]``.

        Args:
            images: normalised.
        """
        return self.vision(images).flatten(2).transpose(1, 2)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids ``[B, L]`` → ``[B, L, text_dim]``; the mask is for encoders that mix tokens.

        Args:
            ids: of tokens, int64.
            mask: not used.
        """
        words = self.words(ids)
        return words + self.positions[: ids.shape[1]].to(words.dtype)


def _load_clip(path: str) -> Any:
    try:
        from transformers import CLIPConfig, CLIPModel
    except ImportError as error:
        raise InputImportError(
            "FrozenCLIP needs the package transformers: pip install lit-ssl[hf]"
        ) from error
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise InputFileNotFoundError(
            f"FrozenCLIP found no {folder / 'config.json'}: give a folder with a CLIP of "
            "transformers, as save_pretrained() writes it; nothing is downloaded"
        )
    try:
        kind = CLIPConfig.get_config_dict(path, local_files_only=True)[0].get("model_type")
        config = CLIPConfig.from_pretrained(path, local_files_only=True)
        if kind == "clip" and do_weights_follow():
            return CLIPModel(config)
        loaded: Any = CLIPModel.from_pretrained(
            path, config=config, local_files_only=True, output_loading_info=True
        )
        model, found = loaded
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputFileNotFoundError(f"FrozenCLIP cannot read {path}: {reason}") from error
    if kind != "clip":
        raise InputError(f"FrozenCLIP needs a CLIP, but {path} holds a model of type {kind!r}")
    # transformers only warns of weights that are not there, and goes on with random ones
    towers = ("vision_model.", "text_model.")
    missing = sorted(name for name in found["missing_keys"] if name.startswith(towers))
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights of CLIP, {missing[0]} among them: give the "
            "weights of a whole CLIPModel"
        )
    return model
