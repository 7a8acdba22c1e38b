"""The two-stream network: words and patches in transformers that look at each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.vl.initial import init_vl_weights_
from lit_ssl.models.vl.output import EmbeddedImages, VLOutput, check_text, embedded_images
from lit_ssl.models.vl.streams import ImageStream, TextStream

__all__ = ["CoAttention", "CoAttentionBackbone"]


class CoAttention(nn.Module):
    """Layers in which each stream looks at itself, then at the previous state of the other one.

    Text ``x [B, L, D]`` and image ``y [B, N, D]``, in each layer:

        x, y = text_layer(x, y), image_layer(y, x)    # self-attention, cross-attention, MLP
        pooled = concat(tanh(W x[:, 0]), tanh(V y[:, 0]))    # y.mean(1) without a class token

    Args:
        hidden_size: D.
        num_layers: of each stream.
        num_heads: of each attention.
        mlp_ratio: width inside the MLPs, as a multiple of D.
        dropout: of attentions, projections and MLPs.
        image_class_token: whether image tokens begin with a class token.

    Raises:
        InputError: if there is no layer, or ``num_heads`` does not divide ``hidden_size``.

    Source: METER (arXiv 2111.02387, zdou0830/METER). Its layer is torch's decoder layer, normalised
    after each part.
    """

    def __init__(
        self,
        hidden_size: int = 768,
        num_layers: int = 6,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        image_class_token: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1 or hidden_size < 1 or num_heads < 1 or hidden_size % num_heads:
            raise InputError(
                "co-attention needs num_layers ≥ 1 and a hidden_size that num_heads divides, got "
                f"{num_layers}, {hidden_size} and {num_heads}"
            )

        def layers() -> nn.ModuleList:
            made = (
                nn.TransformerDecoderLayer(
                    hidden_size,
                    num_heads,
                    int(hidden_size * mlp_ratio),
                    dropout,
                    "gelu",
                    layer_norm_eps=1e-12,
                    batch_first=True,
                )
                for _ in range(num_layers)
            )
            return nn.ModuleList(made)

        self.text_layers, self.image_layers = layers(), layers()
        self.text_pooler = nn.Linear(hidden_size, hidden_size)
        self.image_pooler = nn.Linear(hidden_size, hidden_size)
        self.image_class_token = image_class_token
        self.apply(init_vl_weights_)

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor, image_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fuse both streams.

        Args:
            text: ``[B, L, D]``.
            image: ``[B, N, D]``.
            text_mask: bool ``[B, L]``, True where a token is; at least one in each row.
            image_mask: bool ``[B, N]``, likewise.

        Returns:
            Text and image states of the same shapes, and pooled ``[B, 2 D]``.
        """
        no_text, no_image = ~text_mask, ~image_mask
        for text_layer, image_layer in zip(self.text_layers, self.image_layers, strict=True):
            text, image = (
                text_layer(
                    text, image, tgt_key_padding_mask=no_text, memory_key_padding_mask=no_image
                ),
                image_layer(
                    image, text, tgt_key_padding_mask=no_image, memory_key_padding_mask=no_text
                ),
            )
        if self.image_class_token:
            seen = image[:, 0]
        else:
            shares = image_mask.to(image.dtype)[:, :, None]
            seen = (image * shares).sum(dim=1) / shares.sum(dim=1)
        pooled = (self.text_pooler(text[:, 0]).tanh(), self.image_pooler(seen).tanh())
        return text, image, torch.cat(pooled, dim=1)


class CoAttentionBackbone(nn.Module):
    """A network of images and one of texts, fused by co-attention.

    Tokens of both are projected to one width, their modality is added, and ``CoAttention``
    follows.

    Args:
        image_encoder: name of timm, of a vision transformer, a Swin or a convolutional network; or
            of this package. Weights of OpenAI's CLIP go with
            ``vit_base_patch16_clip_quickgelu_224.openai`` (the variant without ``quickgelu``
            computes something else).
        text_encoder: folder with an encoder of transformers (``config.json`` and weights; nothing
            is fetched; where weights follow, of a checkpoint, only ``config.json`` is read); or its
            configuration, such as ``{model_type: bert, vocab_size: 30522, …}``, for random weights.
        image_kwargs: arguments of the image encoder: ``pretrained: true`` fetches timm's weights,
            ``img_size: 288``, …
        hidden_size: D, as the four below of ``CoAttention``.
        num_layers: of each stream.
        num_heads: of each attention.
        mlp_ratio: width inside the MLPs, as a multiple of D.
        dropout: of attentions, projections and MLPs.
        num_modalities: rows of the table of modalities, ≥ 2: text, image, and for NLVR2 the second
            image.

    Attributes:
        hidden_size: D of the states.
        pooled_size: P of the pooled vector, 2 D.
        vocab_size, max_text_len: ids and tokens that texts may have.
        num_modalities: rows of the table of modalities.
        start: where the weights come from, in words.
        cross_modal_prefixes: what the names of parameters that join the streams begin with; METER
            trains these at five times the learning rate.

    Raises:
        ImportError: without the package transformers.
        FileNotFoundError: if there is no folder.
        ValueError: if an encoder is unknown, or a value lies outside its range.

    Source: METER, arXiv 2111.02387.
    """

    cross_modal_prefixes: tuple[str, ...] = ("text_projection.", "image_projection.", "fusion.")

    def __init__(
        self,
        image_encoder: str,
        text_encoder: str | dict[str, Any],
        image_kwargs: dict[str, Any] | None = None,
        hidden_size: int = 768,
        num_layers: int = 6,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        num_modalities: int = 3,
    ) -> None:
        super().__init__()
        if num_modalities < 2:
            raise InputError(f"num_modalities must be at least 2, not {num_modalities}")
        text = TextStream(text_encoder)  # first: what is wrong with it shows before a download
        self.image_encoder = ImageStream(image_encoder, image_kwargs)
        self.fusion = CoAttention(
            hidden_size, num_layers, num_heads, mlp_ratio, dropout, self.image_encoder.class_token
        )
        self.text_encoder = text
        self.image_projection = nn.Linear(self.image_encoder.width, hidden_size)
        self.text_projection = nn.Linear(self.text_encoder.width, hidden_size)
        self.num_modalities = num_modalities
        self.modalities = nn.Embedding(num_modalities, hidden_size)
        for module in (self.image_projection, self.text_projection, self.modalities):
            init_vl_weights_(module)
        self.hidden_size, self.pooled_size = hidden_size, 2 * hidden_size
        self.vocab_size: int = self.text_encoder.vocab_size
        self.max_text_len: int = self.text_encoder.max_length
        self.start = f"{self.image_encoder.start} and {self.text_encoder.start}"

    def networks_to_compile(self) -> list[nn.Module]:
        """The image stream is called by itself, too."""
        return [self, self.image_encoder]

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Table of words, for a tied decoder."""
        return self.text_encoder.word_embeddings

    @torch.no_grad()
    def second_image_from_first_(self) -> None:
        """Start the modality of a second image as that of the first, as for NLVR2.

        Raises:
            ValueError: if the table has no row for it.
        """
        if self.num_modalities < 3:
            raise InputError("two images need num_modalities: 3 in CoAttentionBackbone")
        self.modalities.weight[2] = self.modalities.weight[1]

    def embed_images(self, images: Tensor, pixel_mask: Tensor | None = None) -> EmbeddedImages:
        """All of the image stream before it meets a text, so that it may be kept.

        Args:
            images: ``[B, C, H, W]``, of the size of the image encoder.
            pixel_mask: ``[B, H, W]``; image encoders see all pixels, so it must be 1 everywhere.

        Returns:
            Embeds ``[B, N, D]`` and mask ``[B, N]``, all True.

        Raises:
            ValueError: if there is padding.
        """
        if pixel_mask is not None and not bool((pixel_mask > 0).all()):
            raise InputError(
                "CoAttentionBackbone reads images without padding: let the data resize them to one "
                "size"
            )
        embeds = self.image_projection(self.image_encoder(images))
        return EmbeddedImages(embeds, torch.ones_like(embeds[:, :, 0], dtype=torch.bool))

    def forward(self, batch: Mapping[str, Tensor], image_type: int = 1) -> VLOutput:
        """Final states of pairs.

        Args:
            batch: ``input_ids`` and ``attention_mask`` ``[B, L]``, and the images: see
                ``lit_ssl.models.vl.output.embedded_images``.
            image_type: modality of the images: 1, or 2 for the second image of a pair.

        Raises:
            ValueError: if the batch is of another form.
        """
        if not 1 <= image_type < self.num_modalities:
            raise InputError(f"image_type {image_type} needs num_modalities: {image_type + 1}")
        image, image_mask = embedded_images(self, batch)
        check_text(batch, len(image), self.max_text_len)
        text_mask = batch["attention_mask"] > 0
        text = self.text_projection(self.text_encoder(batch["input_ids"], text_mask))
        text, image, pooled = self.fusion(
            text + self.modalities.weight[0],
            image + self.modalities.weight[image_type],
            text_mask,
            image_mask,
        )
        return VLOutput(text, image, image_mask, pooled)
