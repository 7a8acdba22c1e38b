"""What the options of a circuit may be, and whether weights are of a circuit of the same size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from lit_ssl.errors import InputError

__all__ = ["check_ranges", "check_same_size", "freeze"]


def check_ranges(
    counts: Mapping[str, int | None],
    shares: Mapping[str, float],
    layer_scale: float | None,
    num_classes: int,
) -> None:
    """Refuse sizes and rates outside their ranges.

    Args:
        counts: of what there must be at least one, by name; None: left to a default.
        shares: in [0, 1), by name.
        layer_scale: finite, or None.
        num_classes: at least 0.

    Raises:
        ValueError: names the first one that is wrong.
    """
    given = {name: value for name, value in counts.items() if value is not None}
    if wrong := [f"{name} {value}" for name, value in given.items() if value < 1]:
        raise InputError(f"a circuit needs at least one of each, not {wrong[0]}")
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} must lie in [0, 1), not {value}")
    if layer_scale is not None and not math.isfinite(layer_scale):
        raise InputError(f"layer_scale must be a finite number, or null for none: {layer_scale}")
    if num_classes < 0:
        raise InputError(f"num_classes must be at least 0, not {num_classes}")


def check_same_size(net: Any, state: Mapping[str, Any], prefix: str, *_: object) -> None:
    """Hook before weights are loaded: refuse those of a circuit of another size, in one line.

    Args:
        net: the circuit.
        state: what is to be loaded.
        prefix: of the circuit's own names in it.
        *_: what else torch gives to such a hook; not used.

    Raises:
        ValueError: says with which options the network has to be built.
    """
    sizes = {"num_modules": "kept_modules", "num_output_modules": "kept_outputs"}
    wrong = {
        option: len(state[prefix + buffer])
        for option, buffer in sizes.items()
        if prefix + buffer in state and len(state[prefix + buffer]) != len(getattr(net, buffer))
    }
    if wrong:
        own = ", ".join(f"{option} {len(getattr(net, sizes[option]))}" for option in wrong)
        given = ", ".join(f"{option} {size}" for option, size in wrong.items())
        raise InputError(
            f"the weights are of a circuit with {given}, and this one has {own}: build it with "
            "the options of the weights, or prune the larger one to the size of the smaller"
        )


def freeze(tables: nn.ParameterDict) -> None:
    """Let no gradient into the tables.

    Args:
        tables: changed in place.
    """
    for table in tables.values():
        table.requires_grad_(False)
