"""Whose weights: find a network among all that a file of another library holds, by its names.

lightly, solo-learn and stable-pretraining save a Lightning module (``backbone.``, ``model.``,
``student_backbone.`` …), DINO a ``teacher``, MoCo an ``encoder_q``: the names below some prefix are
those of the network. The one prefix that fits is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from lit_ssl.errors import InputError, did_you_mean, listed

__all__ = [
    "CLASSIFIER",
    "HEADS",
    "Found",
    "StateDict",
    "all_tensors",
    "in_a_row",
    "names_of",
    "network_under",
]

StateDict = dict[str, Tensor]

CLASSIFIER = re.compile(r"(?:fc|head|head_dist|classifier|head\.fc)\.(?:weight|bias)")
HEADS = ("fc.", "head.", "head_dist.", "classifier.", "pred.")

_CONTAINERS = ("state_dict", "model")
_NOT_WEIGHTS = ("optimizer", "optimizer_states", "lr_schedulers", "callbacks", "loops", "opt")
# torchvision's ResNet in a row without its classifier, as lightly's tutorials have it
_ROW = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# of two networks that fit, the one that the authors evaluate → the other
_EVALUATED = {
    "teacher": "student",
    "encoder_q": "encoder_k",
    "base_encoder": "momentum_encoder",
}
_UNCOUNTED = "num_batches_tracked"  # BatchNorm of before 2018 does not count its batches


class Found(NamedTuple):
    """A network in a file.

    Attributes:
        prefix: where it stands, with the dot at the end.
        state: its weights, with its own names.
        online: of a slow copy (DINO's teacher) the trained network.
    """

    prefix: str
    state: StateDict
    online: StateDict | None = None


def all_tensors(content: Mapping[str, Any], prefix: str | None = None) -> StateDict:
    """All weights of a file by dotted names, without ``state_dict``, ``module`` and the like.

    Beside a ``state_dict`` or ``model``, only that counts, unless a prefix begins with the name of
    something else, such as ``state_dict_ema``.

    Args:
        content: what the file holds.
        prefix: the beginning of the names that are wanted; None: of any.
    """
    first = (prefix or "").partition(".")[0]
    if first not in _CONTAINERS and isinstance(content.get(first), Mapping):
        return {f"{first}.{name}": tensor for name, tensor in all_tensors(content[first]).items()}
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping) and content[key]:
            return all_tensors(content[key])
    found: StateDict = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            found[_plain(str(key))] = value
        elif isinstance(value, Mapping) and key not in _NOT_WEIGHTS:
            found |= {f"{key}.{name}": tensor for name, tensor in all_tensors(value).items()}
    return found


def network_under(
    tensors: StateDict, path: str | Path, network: nn.Module | None, prefix: str | None
) -> Found | None:
    """The weights below a prefix, or below the one prefix that fits a network.

    Args:
        tensors: see ``all_tensors``.
        path: their file, for messages.
        network: where they go.
        prefix: where they stand in the file, or what begins so (``teacher``); None: found by the
            names of the network.

    Returns:
        The network; the likeliest one where none fits, so that the misfit can be explained; None
        where nothing is like it.

    Raises:
        InputError: if there is nothing below the prefix, or several networks of the file fit.
    """
    asked = "" if prefix is None else _asked(tensors, path, prefix)
    given = None if prefix is None else Found(asked, in_a_row(_below(tensors, asked)))
    if network is None:
        return given
    wanted = names_of(network)
    needed = {k for k in wanted if not CLASSIFIER.fullmatch(k) and not k.endswith(_UNCOUNTED)}
    fits: dict[str, StateDict] = {}
    likeliest, most = given, len(needed) // 2
    for place in _prefixes(tensors):
        if not place.startswith(asked):
            continue
        state = in_a_row(_below(tensors, place))
        own = {k: v for k, v in state.items() if k in wanted or not k.startswith(HEADS)}
        same = sum(k in needed and v.shape == wanted[k].shape for k, v in own.items())
        if same == len(needed) and all(k in wanted for k in own):
            fits[place] = own
        elif same > most:
            likeliest, most = Found(place, state), same
    if given is not None and asked in fits:
        return Found(asked, fits[asked])
    if len(fits) == 2:
        for first, second in (tuple(fits), tuple(reversed(fits))):
            one, other = ({*p.split(".")} for p in (first, second))
            names = [name for name in one - other if _EVALUATED.get(name) in other - one]
            if names:
                online = fits[second] if names == ["teacher"] else None
                return Found(first, fits[first], online)
    if len(fits) > 1:
        places = " and ".join(repr(found.rstrip(".")) for found in fits)
        raise InputError(
            f"{path} holds several networks that fit, {places}: say which one is meant, as prefix; "
            "where there is no such option, write that one to a file first, `lit-ssl export "
            "--prefix PREFIX`"
        )
    return Found(*next(iter(fits.items()))) if fits else likeliest


def _asked(tensors: StateDict, path: str | Path, prefix: str) -> str:
    """A prefix as it was typed, perhaps as the file has it, in the names of the tensors."""
    if not prefix:
        return ""
    name = f"{prefix.rstrip('.')}."
    for typed in (name, *(name.removeprefix(f"{key}.") for key in _CONTAINERS)):
        parts = [part for part in typed.split(".") if part not in ("module", "_orig_mod")]
        for asked in (typed, ".".join(parts)):
            if any(key.startswith(asked) for key in tensors):
                return asked
    known = sorted({found.rstrip(".") for found in _prefixes(tensors)} - {""})
    tops = list(dict.fromkeys(found.partition(".")[0] for found in known))
    raise InputError(
        f"{path} has no weights under the prefix {prefix!r}; it has {listed(tops, 8)}."
        f"{did_you_mean(prefix.rstrip('.'), known, list_up_to=0)}"
    )


def _plain(name: str) -> str:
    """A name without what DDP and torch.compile put into it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _prefixes(tensors: StateDict) -> list[str]:
    """All that stands before a dot, with the dot, the outermost first."""
    found: dict[str, None] = {"": None}
    for name in tensors:
        parts = name.split(".")
        found |= {".".join(parts[:n]) + ".": None for n in range(1, len(parts))}
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _below(tensors: StateDict, prefix: str) -> StateDict:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def names_of(network: nn.Module) -> StateDict:
    """The weights of a network that a file must have, without the wrapper of class tokens.

    Args:
        network: the network that is to be loaded.
    """
    state = network.state_dict()
    inside = "vit." if state and all(key.startswith("vit.") for key in state) else ""
    return {key.removeprefix(inside): value for key, value in state.items()}


def in_a_row(state: StateDict) -> StateDict:
    """A ResNet that was cut into a sequence of its parts, with the names of the parts.

    Args:
        state: the weights; where they are of no such ResNet, they come back as they are.
    """
    if "0.weight" not in state or "4.0.conv1.weight" not in state:
        return state
    renamed = {}
    for name, value in state.items():
        first, dot, rest = name.partition(".")
        renamed[_ROW.get(first, first) + dot + rest] = value
    return renamed
