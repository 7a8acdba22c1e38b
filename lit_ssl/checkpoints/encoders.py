"""Weights of a file into a network: all of them fit, or one line says what does not."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lit_ssl.checkpoints.files import described_network, located
from lit_ssl.checkpoints.origins import Weights, read_weights
from lit_ssl.checkpoints.prefixes import CLASSIFIER, HEADS, StateDict
from lit_ssl.errors import InputError, listed, quoted

__all__ = ["first_projection", "fit_weights", "load_encoder", "read_encoder_weights"]

_SHOWN = 3
_TELL = "give its timm name as backbone, and its arguments as backbone_kwargs"


def read_encoder_weights(
    path: str | Path, online: bool = False, prefix: str | None = None
) -> StateDict:
    """Read the weights of a backbone, with timm's names (torchvision's for a ResNet-50).

    Args:
        path: file or folder, of any origin that ``lit_ssl.checkpoints.origins.read_weights``
            knows.
        online: take the trained backbone of MSN, not its slow copy. Files with one backbone only
            give that one.
        prefix: of the names of the backbone in the file; None: by the origin.

    Returns:
        Tensors on the CPU by name; classifiers and projection heads are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds no backbone.
    """
    state = read_weights(path, prefix=prefix).network(online)
    return {key: value.clone() for key, value in state.items()}  # the file may be overwritten


def load_encoder(
    backbone: nn.Module, path: str | Path, online: bool = False, prefix: str | None = None
) -> Weights:
    """Load the weights of ``read_encoder_weights`` into a network, all of them.

    Args:
        backbone: a network of timm or torchvision, or a
            [`ClassTokenViT`][lit_ssl.models.ClassTokenViT].
        path: file or folder.
        online: see ``read_encoder_weights``.
        prefix: of its names in the file; None: by the origin, or the one prefix that fits.

    Returns:
        All that the file holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or its weights are not those of the network.
    """
    weights = read_weights(path, backbone, prefix)
    fit_weights(backbone, weights.network(online), path, mend=_mend(path))
    return weights


def _mend(path: str | Path) -> str:
    """What to give where weights do not fit: of files that say it, the network that they hold."""
    name, args = described_network(located(path)[0])
    if name is None:
        return _TELL
    return f"the file is of backbone: {quoted(name)} with backbone_kwargs: {quoted(args, 300)}"


def first_projection(weights: Weights, path: str | Path) -> StateDict:
    """``fc1`` and ``bn1`` of a projection head, of MSN those of its slow copy.

    Args:
        weights: what a file holds.
        path: the file, for the message.

    Raises:
        ValueError: if there is no projection head with two layers or more.
    """
    head = weights.target_head or weights.projection_head or {}
    first = {k: v for k, v in head.items() if k.startswith(("fc1.", "bn1."))}
    if "bn1.weight" not in first or "fc2.weight" not in head:
        raise InputError(
            f"{path} has no projection head whose first layer (fc1, bn1) could be kept: leave out "
            "proj_hidden_dim to put the classifier on the backbone"
        )
    return first


def fit_weights(
    network: nn.Module,
    state: StateDict,
    path: str | Path,
    what: str = "backbone",
    mend: str = _TELL,
) -> None:
    """Load weights into a network, or say which do not fit; a classifier may be in one of them.

    Args:
        network: where they go.
        state: the weights, by name.
        path: their file, for the message.
        what: the name of the network in the method.
        mend: what to do where they do not fit.

    Raises:
        ValueError: if they differ in name or shape.
    """
    wanted = network.state_dict()
    inside = "vit." if wanted and all(key.startswith("vit.") for key in wanted) else ""
    wanted = {key.removeprefix(inside): value for key, value in wanted.items()}
    state = {k: v for k, v in state.items() if k in wanted or not k.startswith(HEADS)}
    # BatchNorm of before 2018 does not count its batches
    free = {k for k in wanted if CLASSIFIER.fullmatch(k) or k.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key not in state and key not in free]
    unexpected = [key for key in state if key not in wanted]
    shapes = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if shapes == ["pos_embed"] and not missing and not unexpected:
        raise InputError(
            f"the weights in {path} have position embeddings for another image size: pos_embed is "
            f"{_shape(state['pos_embed'])} there, {_shape(wanted['pos_embed'])} in the {what}; "
            "give the size of the training as img_size in backbone_kwargs (images may have "
            "another size where positions are interpolated)"
        )
    if missing or unexpected or shapes:
        differing = [f"{k} {_shape(state[k])} instead of {_shape(wanted[k])}" for k in shapes]
        kinds = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
        parts = [f"{kind} {listed(names, _SHOWN)}" for kind, names in kinds.items() if names]
        raise InputError(
            f"the weights in {path} are not those of the {what}: "
            f"{len(missing) + len(unexpected) + len(shapes)} differ in name or shape "
            f"({'; '.join(parts)}); {mend}"
        )
    network.load_state_dict({inside + k: v for k, v in state.items()}, strict=False)


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
