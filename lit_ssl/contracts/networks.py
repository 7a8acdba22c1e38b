"""Which networks a module consists of, and which repeated blocks these consist of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn
from torchmetrics import Metric

from lit_ssl.errors import InputTypeError

__all__ = ["blocks_of", "names_of", "networks_of"]

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def networks_of(module: nn.Module) -> list[nn.Module]:
    """The networks that a module calls as wholes.

    A module says so by ``networks_to_compile() -> list[nn.Module]``, and so may each of its
    networks, where parts of it are called by themselves. By default they are the children with
    parameters; of a list or dictionary of networks its items.

    Args:
        module: e.g. a LightningModule.

    Raises:
        InputTypeError: if ``networks_to_compile`` gives something else.
    """
    children = _said(module, "networks_to_compile") or list(module.children())
    return list(dict.fromkeys(network for child in children for network in _networks(child)))


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network as they are called: those of a transformer, of a ResNet.

    A network says so by ``blocks_to_compile() -> list[nn.Module]``. By default they are items of
    ``nn.Sequential`` and ``nn.ModuleList`` of a class that has parts of its own and is there at
    least twice; the outermost ones.

    Args:
        network: one of ``networks_of``.

    Returns:
        Empty where nothing is repeated.

    Raises:
        InputTypeError: if ``blocks_to_compile`` gives something else.
    """
    said = _said(network, "blocks_to_compile")
    if said is not None:
        return said
    counts = Counter(type(item) for part in network.modules() for item in _items(part))
    return list(_outermost(network, {kind for kind, count in counts.items() if count > 1}))


def names_of(module: nn.Module, parts: list[nn.Module]) -> list[str]:
    """Names of parts of a module, in their order; of those that are hidden in it, their class.

    Args:
        module: the module.
        parts: modules in it.
    """
    names = {id(part): name for name, part in module.named_modules()}
    return [names.get(id(part), type(part).__name__) for part in parts]


def _networks(child: nn.Module) -> list[nn.Module]:
    if isinstance(child, nn.ModuleList | nn.ModuleDict):
        return [network for item in child.children() for network in _networks(item)]
    if isinstance(child, Metric) or next(child.parameters(), None) is None:
        return []
    return _said(child, "networks_to_compile") or [child]


def _items(part: nn.Module) -> list[nn.Module]:
    """Blocks may be made of what lies in a list or a sequence, if it has parts itself."""
    if not isinstance(part, nn.ModuleList | nn.Sequential):
        return []
    return [
        item
        for item in part.children()
        if not isinstance(item, _CONTAINERS) and next(item.children(), None) is not None
    ]


def _outermost(part: nn.Module, kinds: set[type]) -> Iterator[nn.Module]:
    blocks = [item for item in _items(part) if type(item) in kinds]
    yield from blocks
    for child in part.children():
        if not any(child is block for block in blocks):
            yield from _outermost(child, kinds)


def _said(module: nn.Module, name: str) -> list[nn.Module] | None:
    """What a module says itself, checked; None if it says nothing."""
    method = getattr(module, name, None)
    if method is None:
        return None
    found = method()
    if not isinstance(found, list) or not all(isinstance(item, nn.Module) for item in found):
        raise InputTypeError(
            f"{name} of {type(module).__name__} must return a list of nn.Modules, not {found!r:.80}"
        )
    return found
