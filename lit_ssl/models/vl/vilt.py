"""The single-stream network: one transformer over the words and patches of a pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lit_ssl.errors import (
    InputError,
    InputFileNotFoundError,
    InputImportError,
    check_choice,
    did_you_mean,
)
from lit_ssl.models.backbones.fetching import do_weights_follow
from lit_ssl.models.vl.image_tokens import image_sizes, kept_tokens, position_grid
from lit_ssl.models.vl.initial import draw_small_network_
from lit_ssl.models.vl.output import EmbeddedImages, VLOutput, check_text, embedded_images
from lit_ssl.models.vl.vit_start import vit_start

__all__ = ["ViltBackbone", "grown_modalities"]

_MODALITIES = "modality_type_vocab_size"


class ViltBackbone(nn.Module):
    """ViLT: words and patches of a pair, one after the other, through one transformer.

    The layers are those of transformers' ``ViltModel``. Image tokens are made here, since the ones
    there come in random order, and in part only, in evaluation too: patches keep their order, and
    only in training an image with more than ``max_image_length`` patches shows a random part.

    Args:
        config: fields of transformers' ``ViltConfig``, such as ``vocab_size``, ``hidden_size``,
            ``num_hidden_layers``, ``image_size`` (the grid of positions is ``image_size /
            patch_size``; images may have any size), ``patch_size``, ``max_position_embeddings``
            (longest text), ``hidden_dropout_prob`` (ViLT trains with 0.1, the default is 0),
            ``max_image_length`` (−1: all patches). What is not given is as in ViLT-B/32 or, with
            ``pretrained`` and ``vit_weights``, as there.
        pretrained: folder with ``config.json`` and the weights, as ``save_pretrained`` of any of
            transformers' ViLT models writes them; nothing is fetched. Where weights follow, of a
            checkpoint, only ``config.json`` is read.
        vit_weights: start patches, positions and blocks from a vision transformer: a name of timm,
            whose weights are fetched, or a file with the state dict of one (the sizes then come
            from ``config``). The rest starts afresh.
        num_modalities: rows of the table of modalities, ≥ 2: text, image, and for NLVR2 the second
            image.
        initialization: of random weights: ``bert``: N(0, ``initializer_range``²) as transformers
            draws them; ``fan_in``: larger ones, for networks of 64 or 128 instead of 768 features,
            also in the heads that methods put on it.

    Attributes:
        hidden_size: D of the states.
        pooled_size: P of the pooled vector, equal to D.
        vocab_size, max_text_len: ids and tokens that texts may have.
        num_modalities: rows of the table of modalities.
        image_size, patch_size: of the grid of positions, ``(height, width)``.
        start: where the weights come from, in words.
        cross_modal_prefixes: names of parameters that only join both streams; none here.

    Raises:
        ImportError: without the package transformers.
        FileNotFoundError: if there is no folder or file.
        ValueError: if a field is unknown or does not go with the weights.

    Source: arXiv 2102.03334 (dandelin/ViLT).
    """

    cross_modal_prefixes: tuple[str, ...] = ()

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        pretrained: str | None = None,
        vit_weights: str | None = None,
        num_modalities: int = 3,
        initialization: Literal["bert", "fan_in"] = "bert",
    ) -> None:
        super().__init__()
        check_choice("initialization", initialization, ("bert", "fan_in"))
        if initialization != "bert" and (pretrained or vit_weights):
            raise InputError(
                "initialization is for random weights: leave it out with pretrained or vit_weights"
            )
        if pretrained is not None and vit_weights is not None:
            raise InputError("ViltBackbone takes pretrained or vit_weights, not both")
        if num_modalities < 2:
            raise InputError(f"num_modalities must be at least 2, not {num_modalities}")
        fields = dict(config or {})
        _check_fields(fields)
        self.start = "random weights"
        self.initialization = initialization
        self.model: Any
        if pretrained is not None:
            self.model = _from_folder(pretrained, fields, num_modalities)
            self.start = f"{pretrained} (transformers' ViLT)"
        elif vit_weights is not None:
            vit = vit_start(vit_weights, fields)
            self.model = _fresh({**fields, **vit.fields, _MODALITIES: num_modalities})
            if vit.state is not None:
                _load_vit(self.model, vit.state, vit_weights)
            self.start = f"{vit_weights} (vision transformer)"
        else:
            self.model = _fresh({**fields, _MODALITIES: num_modalities})
            if initialization == "fan_in":
                _draw_large_(self.model)
        known = self.model.config
        self.hidden_size: int = known.hidden_size
        self.pooled_size: int = known.hidden_size
        self.vocab_size: int = known.vocab_size
        self.max_text_len: int = known.max_position_embeddings
        self.num_modalities: int = known.modality_type_vocab_size
        self.image_size, self.patch_size = _pair(known.image_size), _pair(known.patch_size)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """Table ``[V, D]`` of words, for a tied decoder."""
        return self.model.embeddings.text_embeddings.word_embeddings

    @torch.no_grad()
    def second_image_from_first_(self) -> None:
        """Start the modality of a second image as that of the first, as for NLVR2.

        Raises:
            ValueError: if the table has no row for it.
        """
        if self.num_modalities < 3:
            raise InputError("two images need num_modalities: 3 in ViltBackbone")
        table = self.model.embeddings.token_type_embeddings.weight
        table[2] = table[1]

    def embed_images(self, images: Tensor, pixel_mask: Tensor | None = None) -> EmbeddedImages:
        """[CLS], patches and positions: the same for every text, so that they may be kept.

        Args:
            images: ``[B, C, H, W]``, sides divisible by the patch size, padded at the right and at
                the bottom.
            pixel_mask: ``[B, H, W]``, 1 where a pixel of the image is; None: everywhere.

        Returns:
            Embeds ``[B, N, D]`` ([CLS] first) and mask ``[B, N]``. In evaluation N − 1 is the
            number of patches of the largest image, in training at most ``max_image_length``.

        Raises:
            ValueError: if images or mask are of another form.
        """
        self._check_images(images, pixel_mask)
        embeddings = self.model.embeddings
        patches = embeddings.patch_embeddings(images)  # [B, D, h, w]
        padded = (patches.shape[2], patches.shape[3])
        patches = patches.flatten(2).mT
        if pixel_mask is None:
            mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=images.device)
            sizes = [padded]
        else:
            # a patch counts by its first pixel, as nearest interpolation of the mask has it
            grid = pixel_mask[:, :: self.patch_size[0], :: self.patch_size[1]] > 0
            sizes, mask = image_sizes(grid), grid.flatten(1)
        table = embeddings.position_embeddings
        own_grid = (
            self.image_size[0] // self.patch_size[0],
            self.image_size[1] // self.patch_size[1],
        )
        patches = patches + position_grid(table[:, 1:], own_grid, sizes, padded)
        most = self.model.config.max_image_length if self.training else None
        most = most if most is not None and most > 0 else None
        if pixel_mask is not None or most is not None:
            kept = kept_tokens(mask, most)
            mask = mask.gather(1, kept)
            patches = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        first = (embeddings.cls_token + table[:, :1]).expand(len(images), -1, -1)
        embeds = torch.cat([first.to(patches.dtype), patches], dim=1)
        return EmbeddedImages(embeds, torch.cat([mask.new_ones(len(images), 1), mask], dim=1))

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
        images = embedded_images(self, batch)
        check_text(batch, len(images.embeds), self.max_text_len)
        # The steps of the model's own forward, which looks at the mask on the host, to leave it out
        # where nothing is padded.
        model = self.model
        embeds, mask = model.embeddings(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"].long(),
            token_type_ids=None,
            pixel_values=None,
            pixel_mask=images.mask.long(),
            inputs_embeds=None,
            image_embeds=model.embeddings.dropout(images.embeds),
            image_token_type_idx=image_type,
        )
        masked = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill(
            mask == 0, torch.finfo(embeds.dtype).min
        )
        states = model.layernorm(model.encoder(embeds, masked[:, None, None, :])[0])
        text, image = states.split([batch["input_ids"].shape[1], images.embeds.shape[1]], dim=1)
        return VLOutput(text, image, images.mask, model.pooler(states))

    def _check_images(self, images: Tensor, pixel_mask: Tensor | None) -> None:
        channels = self.model.config.num_channels
        sides = images.shape[2:]
        if images.ndim != 4 or images.shape[1] != channels:
            raise InputError(f"ViLT needs images [B, {channels}, H, W], got {list(images.shape)}")
        if any(s % p or not s for s, p in zip(sides, self.patch_size, strict=True)):
            raise InputError(
                f"images of {sides[0]} × {sides[1]} pixels cannot be cut into patches of "
                f"{self.patch_size[0]} × {self.patch_size[1]}: give the data another image size"
            )
        if pixel_mask is not None and pixel_mask.shape != (len(images), *sides):
            raise InputError(
                f"pixel_mask must be {[len(images), *sides]}, got {list(pixel_mask.shape)}"
            )


def grown_modalities(table: Tensor, rows: int) -> Tensor:
    """A table of modalities with more rows: a second image starts as the first.

    Args:
        table: ``[2 or more, D]``.
        rows: of the result; a longer table stays as it is.
    """
    more = max(rows - len(table), 0)
    return torch.cat([table, table[1:2].expand(more, -1)])


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _check_fields(fields: Mapping[str, Any]) -> None:
    known = _transformers().ViltConfig().to_dict()
    for name in fields:
        if name == _MODALITIES:
            raise InputError("give the number of modalities as num_modalities, not in config")
        if name not in known:
            near = did_you_mean(name, known)
            raise InputError(f"transformers' ViltConfig has no field {name!r}.{near}")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputImportError(
            "ViltBackbone needs the package transformers: pip install 'lit-ssl[hf]'"
        ) from error
    return transformers


def _fresh(fields: Mapping[str, Any]) -> Any:
    transformers = _transformers()
    try:
        model = transformers.ViltModel(transformers.ViltConfig(**fields))
    except Exception as error:  # the classes of its checks change with its versions
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"transformers refuses the config of ViltBackbone: {reason}") from error
    # transformers leaves these at 0, timm's vision transformers draw them
    for table in (model.embeddings.cls_token, model.embeddings.position_embeddings):
        nn.init.trunc_normal_(table, std=model.config.initializer_range)
    return model


@torch.no_grad()
def _draw_large_(model: Any) -> None:
    model.apply(draw_small_network_)
    # positions must tell patches apart from the start
    for table in (model.embeddings.cls_token, model.embeddings.position_embeddings):
        nn.init.normal_(table, std=0.5)


def _from_folder(path: str, fields: Mapping[str, Any], num_modalities: int) -> Any:
    transformers = _transformers()
    if not (Path(path) / "config.json").is_file():
        raise InputFileNotFoundError(
            f"ViltBackbone found no {Path(path) / 'config.json'}: give a folder with a ViLT of "
            "transformers, as save_pretrained() writes it; nothing is downloaded"
        )
    kind_of = transformers.ViltConfig
    try:
        kind = kind_of.get_config_dict(path, local_files_only=True)[0].get("model_type")
        if kind != "vilt":
            raise InputError(f"ViltBackbone needs a ViLT; {path} holds a model of type {kind!r}")
        config = kind_of.from_pretrained(path, local_files_only=True, **fields)
        rows = max(config.modality_type_vocab_size, num_modalities)
        if do_weights_follow():
            config.modality_type_vocab_size = rows
            return transformers.ViltModel(config)
        model, found = transformers.ViltModel.from_pretrained(
            path, config=config, local_files_only=True, output_loading_info=True
        )
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputFileNotFoundError(f"ViltBackbone cannot read {path}: {reason}") from error
    # transformers only warns of weights that are not there, and goes on with random ones
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights of ViLT, {missing[0]} among them: give the "
            "weights of a whole ViltModel"
        )
    model.float().train()  # it is in evaluation mode, and in the precision of the file
    old = model.embeddings.token_type_embeddings
    model.embeddings.token_type_embeddings = nn.Embedding.from_pretrained(
        grown_modalities(old.weight.detach(), rows), freeze=False
    )
    model.config.modality_type_vocab_size = rows
    return model


def _load_vit(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    wanted = model.state_dict()
    fresh = ("embeddings.text_embeddings.", "embeddings.token_type_embeddings.", "pooler.")
    missing = [name for name in wanted if name not in state and not name.startswith(fresh)]
    others = [
        f"{name} {list(value.shape)} instead of {list(wanted[name].shape)}"
        for name, value in state.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    unexpected = [name for name in state if name not in wanted]
    wrong = missing or unexpected or others
    if wrong:
        raise InputError(
            f"the vision transformer in {path} has not the sizes of the config: {wrong[0]}; give "
            "config its hidden_size, num_hidden_layers, intermediate_size, patch_size, image_size"
        )
    model.load_state_dict(dict(state), strict=False)
