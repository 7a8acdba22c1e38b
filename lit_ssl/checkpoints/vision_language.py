"""Weights of vision-language models: runs of this package, ViLT's files, transformers' folders."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from lit_ssl.checkpoints.encoders import fit_weights
from lit_ssl.checkpoints.files import located, read_file
from lit_ssl.checkpoints.prefixes import StateDict, all_tensors
from lit_ssl.errors import InputError, listed
from lit_ssl.models.vl.vilt import grown_modalities
from lit_ssl.models.vl.vit_names import vit_to_vilt

__all__ = ["VLWeights", "fit_vl_backbone", "fit_vl_head", "has_own_decoder", "read_vl_weights"]

_BACKBONE = "backbone."
_IN_MODEL = "model."  # where ViltBackbone keeps transformers' model
_TABLE = "embeddings.token_type_embeddings.weight"
_WORDS = ("embeddings.text_embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight")
_PLACES = "embeddings.text_embeddings.position_embeddings.weight"
_SECOND_IMAGE = 2  # its row in the table
_GRID = "embeddings.position_embeddings"
_IMAGE_POSITIONS = "image_encoder.network.pos_embed"  # of CoAttentionBackbone
# buffers that older versions of transformers and the released code saved
_COUNTERS = ("position_ids", "token_type_ids")

# heads: beginning of the names in files of ViLT and transformers → name here
_HEADS = {
    "mlm_score.transform.dense.": "mlm_head.dense.",
    "mlm_score.transform.LayerNorm.": "mlm_head.norm.",
    "mlm_score.decoder.": "mlm_head.decoder.",
    # transformers also calls it the decoder's, by its version
    "mlm_score.bias": "mlm_head.decoder.bias",
    "itm_score.fc.": "itm_head.",
    "rank_output.": "retrieval_head.",
    "vqa_classifier.": "vqa_head.",
    "nlvr2_classifier.": "nlvr2_head.",
    "snli_classifier.": "entailment_head.",
}


class VLWeights(NamedTuple):
    """The parts of a file.

    Attributes:
        source: the file and what it is, in words.
        backbone: by the names of the network of this package.
        heads: by name, such as ``mlm_head``, ``itm_head``; in files of ViLT and transformers also
            ``retrieval_head``, ``vqa_head``, ``nlvr2_head``, ``entailment_head``; of a run all its
            other modules.
        vocabulary: fingerprint of the vocabulary of a run; None where it is not known.
        answers: fingerprint of the answers that ``vqa_head`` gives; None where it is not known.
        knows_second_image: whether the modality of a second image was trained. A run has a row for
            it whatever it was trained on; the others only where they were trained on pairs.
    """

    source: str
    backbone: StateDict
    heads: dict[str, StateDict]
    vocabulary: str | None = None
    answers: str | None = None
    knows_second_image: bool = False


def read_vl_weights(path: str | Path) -> VLWeights:
    """Read weights of any known origin; nothing in the file is executed.

    Known are

    - a Lightning checkpoint of a module with ``backbone``, such as those of this package;
    - the released checkpoints of dandelin/ViLT, or what its code saves;
    - a folder or file of any of transformers' ViLT models.

    Args:
        path: file or folder, or a repository of the hub, ``hf-hub:USER/NAME[@REVISION]``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds no such network.
    """
    file, path = located(path)
    content = read_file(file)
    tensors = all_tensors(content)
    if any(name.startswith(_BACKBONE) for name in tensors):
        parts: dict[str, StateDict] = {}
        for name, value in tensors.items():
            top, _, rest = name.partition(".")
            parts.setdefault(top, {})[rest] = value
        backbone = parts.pop(_BACKBONE.rstrip("."))
        return VLWeights(
            f"{path} (checkpoint of a run)",
            backbone,
            parts,
            _fingerprint(content, "vocabulary"),
            _fingerprint(content, "answers"),
            knows_second_image="nlvr2_head" in parts,
        )
    if any(name.startswith("transformer.blocks.") for name in tensors):
        core, heads = _of_vilt(tensors, path)
        what = "checkpoint of ViLT"
    elif any("encoder.layer.0.layernorm_before" in name for name in tensors):
        core, heads = _of_transformers(tensors)
        what = "transformers' ViLT"
    else:
        raise InputError(
            f"{path} holds no vision-language model: expected a checkpoint of a run with `backbone`"
            ", one of dandelin/ViLT, or transformers' ViLT; found "
            f"{listed(sorted({name.partition('.')[0] for name in tensors}))}"
        )
    renamed = {_IN_MODEL + name: value for name, value in core.items()}
    knows_second = _TABLE in core and len(core[_TABLE]) > _SECOND_IMAGE
    return VLWeights(f"{path} ({what})", renamed, heads, knows_second_image=knows_second)


def _fingerprint(content: Mapping[str, Any], name: str) -> str | None:
    found = content.get(name)
    return found if isinstance(found, str) else None


def fit_vl_backbone(backbone: nn.Module, weights: VLWeights, path: str | Path) -> None:
    """Load the weights of ``read_vl_weights`` into a backbone, all of them.

    Where the file has fewer modalities than the backbone, the second image starts as the first.
    Positions of the image encoder of two streams are interpolated to another image size.

    Args:
        backbone: [`ViltBackbone`][lit_ssl.models.ViltBackbone] or
            [`CoAttentionBackbone`][lit_ssl.models.CoAttentionBackbone].
        weights: what the file holds.
        path: the file, for messages.

    Raises:
        ValueError: if they differ in name or shape; another vocabulary, length of texts or grid of
            positions is named as such.
    """
    wanted, state = backbone.state_dict(), dict(weights.backbone)
    for table in (_IN_MODEL + _TABLE, "modalities.weight"):
        if table in state and table in wanted and len(state[table]) < len(wanted[table]):
            state[table] = grown_modalities(state[table], len(wanted[table]))
    if _IMAGE_POSITIONS in state and _IMAGE_POSITIONS in wanted:
        state[_IMAGE_POSITIONS] = _resized_positions(backbone, state[_IMAGE_POSITIONS])
    for name, value in state.items():
        other = wanted.get(name)
        if other is None or other.shape == value.shape:
            continue
        if name.endswith(_WORDS) and other.shape[1] == value.shape[1]:
            raise InputError(
                f"{path} was trained with a vocabulary of {len(value)} tokens, but the backbone "
                f"has {len(other)}: give the data the tokenizer of that training, and the backbone "
                "its vocab_size"
            )
        if name == _IN_MODEL + _PLACES and other.shape[1] == value.shape[1]:
            raise InputError(
                f"{path} was trained with texts of up to {len(value)} tokens, but the backbone has "
                f"{len(other)} positions: give it max_position_embeddings: {len(value)}"
            )
        if name == _IN_MODEL + _GRID and other.shape[2] == value.shape[2]:
            raise InputError(
                f"{path} was trained with {value.shape[1] - 1} positions of patches, but the "
                f"backbone has {other.shape[1] - 1}: give it the image_size of that training; "
                "images may have another size, since positions are interpolated"
            )
    mend = "give the backbone the config of that training"
    fit_weights(backbone, state, path, mend=mend)


def _resized_positions(backbone: Any, table: Tensor) -> Tensor:
    """Positions ``[1, P + n, D]`` of patches, for the image size of the image encoder.

    METER is pretrained at 288 pixels, and fine-tuned at 384 or 576. What is no square grid, or of
    another network, is left for the comparison of shapes.
    """
    network = backbone.image_encoder.network
    wanted, grid = network.pos_embed, network.patch_embed.grid_size
    prefix = wanted.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(table.shape[1] - prefix, 0))
    fits = table.ndim == 3 and table.shape[2] == wanted.shape[2] and side > 0
    if table.shape == wanted.shape or not fits or side**2 + prefix != table.shape[1]:
        return table
    rank_zero_info(
        f"Positions of the image encoder are interpolated from {side} × {side} patches to "
        f"{grid[0]} × {grid[1]}"
    )
    return resample_abs_pos_embed(
        table.float(), list(grid), [side, side], num_prefix_tokens=prefix
    ).to(table.dtype)


def fit_vl_head(head: nn.Module, name: str, weights: VLWeights, path: str | Path) -> bool:
    """Load the weights of a head, where the file has it.

    Args:
        head: [`MLMHead`][lit_ssl.models.MLMHead] or another one.
        name: in ``VLWeights.heads``.
        weights: what the file holds.
        path: the file, for messages.

    Returns:
        Whether it was there.

    Raises:
        ValueError: if it is there and does not fit.
    """
    state = weights.heads.get(name)
    if not state:
        return False
    fit_weights(head, state, path, what=name, mend="give the module the settings of that training")
    return True


def has_own_decoder(weights: VLWeights) -> bool:
    """Whether the last layer of the MLM head was trained apart from the word embeddings.

    Args:
        weights: what a file holds.
    """
    decoder = weights.heads.get("mlm_head", {}).get("decoder.weight")
    tables = (value for name, value in weights.backbone.items() if name.endswith(_WORDS))
    words = next(tables, None)
    return decoder is not None and words is not None and not words.equal(decoder)


def _of_vilt(
    tensors: Mapping[str, Tensor], path: str | Path
) -> tuple[StateDict, dict[str, StateDict]]:
    """The released code keeps a timm transformer beside the embeddings of texts."""
    image = {
        name.removeprefix("transformer."): value
        for name, value in tensors.items()
        if name.startswith("transformer.")
    }
    core = vit_to_vilt(image, str(path))
    rest: StateDict = {}
    for name, value in tensors.items():
        if name.startswith(("text_embeddings.", "token_type_embeddings.")):
            core[f"embeddings.{name}"] = value
        elif name.startswith("pooler."):
            core[name] = value
        elif not name.startswith("transformer."):
            rest[name] = value
    return _without_counters(core), _heads(rest)


def _of_transformers(tensors: Mapping[str, Tensor]) -> tuple[StateDict, dict[str, StateDict]]:
    inside = "vilt." if any(name.startswith("vilt.") for name in tensors) else ""
    core = {k.removeprefix(inside): v for k, v in tensors.items() if k.startswith(inside)}
    rest = {k: v for k, v in tensors.items() if inside and not k.startswith(inside)}
    # its classifiers of two tasks have one name: the one with twice the input is NLVR2's
    first = rest.get("classifier.0.weight")
    if first is not None:
        width = core["embeddings.cls_token"].shape[-1]
        task = "nlvr2_classifier." if first.shape[1] == 2 * width else "vqa_classifier."
        rest = {re.sub(r"^classifier\.", task, name): value for name, value in rest.items()}
    if "mlm_score.transform.dense.weight" in rest and "mlm_score.decoder.weight" not in rest:
        # its decoder is tied and not saved
        rest["mlm_score.decoder.weight"] = core[_WORDS[0]]
    return _without_counters(core), _heads(rest)


def _without_counters(core: StateDict) -> StateDict:
    return {name: value for name, value in core.items() if not name.endswith(_COUNTERS)}


def _heads(rest: StateDict) -> dict[str, StateDict]:
    """By the names here; heads of other tasks keep theirs."""
    heads: dict[str, StateDict] = {}
    for name, value in rest.items():
        old = next((old for old in _HEADS if name.startswith(old)), "")
        head, _, inner = (_HEADS.get(old, "") + name.removeprefix(old)).partition(".")
        heads.setdefault(head, {})[inner] = value
    return heads
