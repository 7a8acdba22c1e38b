"""Tokens of two images and a text, as of NLVR2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.models.nac.tokenizers.images import check_images, random_images
from lit_ssl.models.nac.tokenizers.kinds import check_kind
from lit_ssl.models.nac.tokenizers.pair_encoders import FrozenCLIP, SmallPairEncoder
from lit_ssl.models.nac.tokenizers.sequences import ids_and_mask
from lit_ssl.models.nac.tokenizers.tokens import (
    Tokens,
    check_positive,
    same_noise,
    with_first_token,
    with_positions,
)

__all__ = ["ImagePairTextTokenizer"]


class ImagePairTextTokenizer(nn.Module):
    """Two images and a text: projected, with position and category concatenated.

    Both images share a table of positions and the projection; categories are first image, second
    image and text. With CLIP ViT-B/32 and texts of 64 tokens: 2 · 50 + 64 = 164 tokens of
    128 + 64 + 64 channels.

    Args:
        encoder: [`FrozenCLIP`][lit_ssl.models.FrozenCLIP] or
            [`SmallPairEncoder`][lit_ssl.models.SmallPairEncoder].
        max_length: longest text in tokens; no longer than the encoder's.
        embed_dim: channels of the projections.
        position_dim: channels of the positions, drawn from N(0, 1).
        category_dim: channels of the categories, drawn from N(0, 1).
        text_in_executor: whether the text is among the tokens that the circuit reads in. False
            where it only conditions the generator of the circuit.

    Raises:
        ValueError: if a size is out of range.

    Source: as the baseline for NLVR2 in the code of m2mKD (arXiv 2402.16918); a text that only
    conditions the generator is Figure 1 of arXiv 2210.08031.
    """

    def __init__(
        self,
        encoder: FrozenCLIP | SmallPairEncoder,
        max_length: int = 64,
        embed_dim: int = 128,
        position_dim: int = 64,
        category_dim: int = 64,
        text_in_executor: bool = True,
    ) -> None:
        super().__init__()
        check_positive(
            "ImagePairTextTokenizer",
            max_length=max_length,
            embed_dim=embed_dim,
            position_dim=position_dim,
            category_dim=category_dim,
        )
        if max_length > encoder.max_length:
            raise InputError(
                f"ImagePairTextTokenizer got max_length {max_length} where its encoder reads at "
                f"most {encoder.max_length} tokens"
            )
        self.encoder, self.max_length = encoder, max_length
        self.text_in_executor = text_in_executor
        self.text_dim = encoder.text_dim
        self.image_project = nn.Linear(encoder.image_dim, embed_dim)
        self.image_positions = nn.Parameter(torch.randn(encoder.num_image_tokens, position_dim))
        self.image_category = nn.Parameter(torch.randn(2, category_dim))
        if text_in_executor:
            self.text_project = nn.Linear(self.text_dim, embed_dim)
            self.text_positions = nn.Parameter(torch.randn(max_length, position_dim))
            self.text_category = nn.Parameter(torch.randn(1, category_dim))
        self.token_dim = embed_dim + position_dim + category_dim

    def forward(self, inputs: Mapping[str, Tensor]) -> Tokens:
        """``images`` ``[B, 2, C, H, W]``, ``input_ids`` and ``attention_mask`` ``[B, L]`` → tokens.

        Args:
            inputs: tensors by these names; images normalised as the encoder needs them.

        Returns:
            Tokens of the first image, of the second, of the text; the text as the encoder gives it
            stands in ``text``.
        """
        check_kind(self, inputs, "pairs of images with a text")
        ids, mask = ids_and_mask(self, inputs, self.encoder.vocab_size, self.max_length)
        images = self._images(inputs)
        mask = with_first_token(mask)
        seen = self.encoder.encode_images(images.flatten(0, 1))
        seen = self.image_project(seen.to(self.image_project.weight.dtype))
        seen = with_positions(seen, self.image_positions).unflatten(0, (-1, 2))
        category = self.image_category.to(seen.dtype)[:, None].expand(*seen.shape[:3], -1)
        values = torch.cat([seen, category], dim=3).flatten(1, 2)
        words = self.encoder.encode_text(ids, mask)
        if not self.text_in_executor:
            return Tokens(values, text=(words, mask))
        text = self.text_project(words.to(self.text_project.weight.dtype))
        text = with_positions(text, self.text_positions[: ids.shape[1]])
        text = with_positions(text, self.text_category.expand(ids.shape[1], -1))
        there = mask.new_ones(values.shape[:2])
        return Tokens(
            torch.cat([values, text], dim=1), torch.cat([there, mask], dim=1), (words, mask)
        )

    def _images(self, inputs: Mapping[str, Tensor]) -> Tensor:
        images = inputs.get("images")
        if images is None:
            raise InputTypeError(
                "ImagePairTextTokenizer reads dictionaries with images, input_ids and "
                f"attention_mask, got {sorted(map(str, inputs))}"
            )
        if "pixel_mask" in inputs:
            raise InputError(
                "ImagePairTextTokenizer reads images without padding: let the data resize them to "
                "one size, such as by EvalTransform"
            )
        check_images(self.encoder, images, 5)
        if images.shape[1] != 2 or images.shape[0] != inputs["input_ids"].shape[0]:
            raise InputError(
                "ImagePairTextTokenizer reads two images for each text, got images "
                f"{list(images.shape)} and input_ids {list(inputs['input_ids'].shape)}"
            )
        return images

    def example(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Random images and ids.

        Args:
            batch_size: B.

        Returns:
            ``images`` float ``[B, 2, C, H, W]``, ``input_ids`` and ``attention_mask`` int64 ``[B,
            L]``, L
            ``max_length``.
        """
        generator, device = same_noise(self)
        below = self.encoder.vocab_size
        ids = torch.randint(
            min(1, below - 1), below, (batch_size, self.max_length), generator=generator
        )
        return {
            "images": random_images(self.encoder, batch_size, 2).to(device),
            "input_ids": ids.to(device),
            "attention_mask": torch.ones_like(ids).to(device),
        }
