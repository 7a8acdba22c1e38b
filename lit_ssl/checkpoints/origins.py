"""What a file of weights holds: one dispatch over all origins, for all methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_ssl.checkpoints.files import located, read_file
from lit_ssl.checkpoints.prefixes import (
    CLASSIFIER,
    StateDict,
    all_tensors,
    in_a_row,
    names_of,
    network_under,
)
from lit_ssl.checkpoints.transformers_names import resnet_to_timm
from lit_ssl.checkpoints.vit_msn import vit_msn_to_timm
from lit_ssl.errors import InputError

__all__ = ["Weights", "read_weights", "weights_of"]

_OF_TRANSFORMERS = ("embeddings.patch_embeddings", "embedder.embedder.convolution")


class Weights(NamedTuple):
    """The parts of a file of weights; None where it has no such part.

    Backbones have the names of timm (torchvision's for a ResNet-50), heads those of
    ``lit_ssl.models.heads``. Classifiers are left out.

    Attributes:
        source: the file and what it is, in words.
        encoder: the backbone; of MSN its slow copy.
        online: the trained backbone of MSN.
        projection_head: the trained one.
        target_head: its slow copy, which only files of MSN have.
        prediction_head: of PAWS.
        prototypes: of MSN, ``[K, D]``.
        by_class_token: whether the method took the class token, however timm pools by default.
    """

    source: str
    encoder: StateDict
    online: StateDict | None = None
    projection_head: StateDict | None = None
    target_head: StateDict | None = None
    prediction_head: StateDict | None = None
    prototypes: Tensor | None = None
    by_class_token: bool = False

    def network(self, online: bool) -> StateDict:
        """The trained backbone of MSN with ``online``, else the slow copy; others have but one.

        Args:
            online: which of the two.
        """
        return self.online or self.encoder if online else self.encoder


def read_weights(
    path: str | Path, network: nn.Module | None = None, prefix: str | None = None
) -> Weights:
    """Read weights of any known origin; nothing in the file is executed.

    Known are

    - a Lightning checkpoint of a module with ``backbone``, such as those of this package and their
      subclasses, or with ``target_backbone`` (MSN, PMSN);
    - what ``lit-ssl export`` writes, and the state dict of any timm or torchvision model, by itself
      or under ``state_dict`` or ``model``, ``.safetensors`` or of ``torch.save``;
    - official checkpoints of MSN, PAWS and SuNCEt;
    - transformers' ViTMSN and ResNet: a folder or a file;
    - with a ``network``, files of other libraries, where one prefix has its names: lightly,
      solo-learn and stable-pretraining (any module that Lightning saved, by itself or its state
      dict alone), DINO (the teacher), MoCo (``encoder_q``).

    Args:
        path: file or folder, or a repository of the hub, ``hf-hub:USER/NAME[@REVISION]``, whose
            ``model.safetensors`` (or ``pytorch_model.bin``) is fetched once and read as data.
        network: the backbone that the weights are for, to find it in the file.
        prefix: of the backbone's names in the file, such as ``student_backbone``; None: found.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds no backbone.
    """
    file, name = located(path)
    return weights_of(read_file(file), name, network, prefix)


def weights_of(
    content: Mapping[str, Any],
    path: str | Path,
    network: nn.Module | None = None,
    prefix: str | None = None,
) -> Weights:
    """The parts of a file that was read; see ``read_weights``.

    Args:
        content: what the file holds.
        path: the file, for messages.
        network: see ``read_weights``.
        prefix: see ``read_weights``.

    Raises:
        InputError: if it holds no weights of a backbone, or none under ``prefix`` that fit
            ``network``.
    """
    if prefix is not None or (network is not None and _is_foreign(content, network)):
        found = network_under(all_tensors(content, prefix), path, network, prefix)
        if found is not None:
            place = found.prefix.rstrip(".")
            what = f"weights under {place}" if place else "state dict of a network"
            online = found.online and _backbone(found.online)
            return Weights(f"{path} ({what})", _backbone(found.state), online)
    if "pytorch-lightning_version" in content:
        return _of_run(content.get("state_dict", {}), path)
    trained, slow = (_mapping(content, key) for key in ("encoder", "target_encoder"))
    if slow or trained:
        return _of_official(trained, slow, content.get("prototypes"), path)
    inside = _plain(content)
    for key in ("state_dict", "model"):
        inside = _mapping(inside, key) or inside
    are_weights = all(isinstance(value, Tensor) for value in inside.values())
    if not are_weights or not any("." in key for key in inside):
        raise InputError(
            f"{path} holds no weights of a backbone: expected a Lightning checkpoint, a file of "
            "`lit-ssl export`, an official checkpoint of MSN or PAWS, transformers' ViTMSN or "
            f"ResNet, or the state dict of a timm or torchvision model; found {sorted(inside)[:5]}"
        )
    if any("embeddings.patch_embeddings" in key for key in inside):
        what = f"{path} (transformers' ViTMSN)"
        return Weights(what, vit_msn_to_timm(inside), by_class_token=True)
    if any("embedder.embedder.convolution" in key for key in inside):
        return Weights(f"{path} (transformers' ResNet)", resnet_to_timm(inside))
    return Weights(f"{path} (state dict of a network)", _backbone(inside))


def _of_official(
    trained: StateDict, slow: StateDict, prototypes: Tensor | None, path: str | Path
) -> Weights:
    """The released code keeps projection heads under ``fc``, prediction heads under ``pred``."""
    method = "MSN" if slow else "PAWS"
    return Weights(
        f"{path} (official checkpoint of {method})",
        encoder=_backbone(slow or trained, without=("fc.", "pred.")),
        online=_backbone(trained, without=("fc.", "pred.")) or None if slow else None,
        projection_head=_part(trained, "fc."),
        target_head=_part(slow, "fc."),
        prediction_head=_part(trained, "pred."),
        prototypes=prototypes,
        by_class_token=bool(slow),
    )


def _of_run(state: Mapping[str, Tensor], path: str | Path) -> Weights:
    """The parts of a module that Lightning saved."""
    names = _plain(state)
    slow, trained = _part(names, "target_backbone."), _part(names, "backbone.")
    encoder = slow or trained
    if not encoder:
        found = sorted({key.partition(".")[0] for key in names})
        raise InputError(
            f"{path} is a checkpoint of a module without `backbone`, but with {found[:5]}: write "
            "its encoder to a file first, `lit-ssl export CHECKPOINT encoder.safetensors`, and "
            "give that one"
        )
    return Weights(
        f"{path} (checkpoint of a run)",
        encoder=_backbone(encoder),
        online=_backbone(trained) if slow and trained else None,
        projection_head=_part(names, "projection_head."),
        target_head=_part(names, "target_head."),
        prediction_head=_part(names, "prediction_head."),
        prototypes=names.get("prototypes"),
        by_class_token=all(key.startswith("vit.") for key in encoder),
    )


def _is_foreign(content: Mapping[str, Any], network: nn.Module) -> bool:
    """Whether a file has none of the forms that tell themselves what is what."""
    if "pytorch-lightning_version" in content:
        names = _plain(content.get("state_dict", {}))
        tops = {key.partition(".")[0] for key in names}
        others = [top for top in tops if top.endswith("backbone") and top != "target_backbone"]
        hparams = content.get("hyper_parameters")
        made_by = str(hparams.get("_class_path")) if isinstance(hparams, Mapping) else ""
        direct = _plain(_part(names, "target_backbone.") or _part(names, "backbone.") or {})
        is_ours = others in ([], ["backbone"]) and any(key in direct for key in names_of(network))
        return not is_ours and not made_by.startswith("lit_ssl.")
    if _mapping(content, "encoder") or _mapping(content, "target_encoder"):
        return False
    return not any(name in key for key in all_tensors(content) for name in _OF_TRANSFORMERS)


def _mapping(content: Mapping[str, Any], key: str) -> StateDict:
    """The state dict under a key, with plain names; empty where there is none."""
    found = content.get(key)
    return _plain(found) if isinstance(found, Mapping) else {}


def _part(state: StateDict, prefix: str) -> StateDict | None:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)} or None


def _backbone(state: StateDict, without: tuple[str, ...] = ()) -> StateDict:
    own = {key: value for key, value in state.items() if not key.startswith(without)}
    return {k: v for k, v in in_a_row(_plain(own)).items() if not CLASSIFIER.fullmatch(k)}


def _plain(state: Mapping[str, Any]) -> StateDict:
    """Names without what torch.compile, DDP or ClassTokenViT put in front of them."""
    plain = {str(key).replace("_orig_mod.", ""): value for key, value in state.items()}
    for prefix in ("module.", "vit."):
        if all(key.startswith(prefix) for key in plain):
            plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain
