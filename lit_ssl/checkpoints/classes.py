"""Which classes the hyper-parameters of a file may name: a file must not choose code to run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_ssl.checkpoints.extent import check_extent
from lit_ssl.errors import InputError

__all__ = ["ForeignClassError", "Names", "class_paths"]

# package → where in it classes lie that build networks and optimisers out of plain values
_PLACES: dict[str, tuple[str, ...]] = {
    "lit_ssl": tuple(
        f"lit_ssl.{room}"
        for room in (
            "datamodules", "groups", "losses", "methods", "models", "optim", "text", "transforms",
            "video",
        )
    ),
    "timm": ("timm.layers", "timm.models", "timm.optim"),
    "torch": ("torch.nn.modules", "torch.optim"),
    "torchvision": ("torchvision.models", "torchvision.ops", "torchvision.transforms"),
    "transformers": ("transformers.models",),
}  # fmt: skip
# What may be imported to get there: torch.nn.ReLU is a class of torch.nn.modules.
_IMPORTED: dict[str, tuple[str, ...]] = {
    **_PLACES,
    "lit_ssl": ("lit_ssl", *_PLACES["lit_ssl"]),
    "torch": ("torch.nn", "torch.nn.modules", "torch.optim"),
    # by its own index only: some files of transformers import whatever has a certain name
    "transformers": ("transformers",),
}
_ONLY_ITSELF = ("lit_ssl", "torch.nn", "transformers")
# Networks that are themselves programs, and those that hand arguments on to loaders of files.
_PROGRAMS = (torch.jit.ScriptModule, torch.fx.GraphModule)
_LOADERS = ("transformers.models.timm_backbone", "transformers.models.timm_wrapper")
# Arguments that let another library run what a folder or the net holds, or a shell.
_TRUSTING = ("allow_pipe", "auto_map", "trust_remote_code")
# Arguments by which networks of other packages read files of their own choice.
_READING = ("backbone_kwargs", "checkpoint_path", "model_args", "pretrained_cfg",
            "pretrained_cfg_overlay")  # fmt: skip
_INSTANTIATORS = (
    "lightning.pytorch.cli.instantiate_module",
    "pytorch_lightning.cli.instantiate_module",
)
# Parents of a person's classes that a person has not written.
_LIBRARIES = ("abc", "builtins", "jsonargparse", "lightning", "pytorch_lightning", "typing",
              *_PLACES)  # fmt: skip
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MAX_SHOWN = 80


class ForeignClassError(InputError):
    """A file names a class that nobody has allowed it to name."""


class Names:
    """The classes that a file may name.

    These are networks, optimisers and configurations of this package, timm, ``torch.nn``,
    ``torch.optim``, torchvision and transformers; what a person has named; and LightningModules,
    networks and dataclasses of the files with the classes that a person has named. Functions are
    never among them, but for those that a person has named.

    Args:
        path: the file, for messages.
        named: by a person: class paths, and classes.
        how: how to allow a class, for messages; ``{name}`` and ``{option}`` are filled in.
    """

    def __init__(
        self,
        path: object,
        named: Collection[str | type] = (),
        how: str = "if you trust it, name it yourself, --{option} {name}",
    ) -> None:
        self.path = path
        self.how = how
        self.named = frozenset(named)
        found = [_imported(name) if isinstance(name, str) else name for name in named]
        self._files = {
            parent.__module__
            for kind in found
            if isinstance(kind, type)
            for parent in kind.__mro__
            if parent.__module__.partition(".")[0] not in _LIBRARIES
        }

    def find(self, name: object, option: str = "model") -> Any:
        """The class of a name; nothing is imported before it is clear that it may be.

        Args:
            name: class path in the file.
            option: where it stands, for the message.

        Raises:
            ForeignClassError: if the file must not name it.
        """
        if not isinstance(name, str) or not _DOTTED.fullmatch(name):
            raise self._refusal(name, option, "which is no class path")
        if name in self.named:
            return _imported(name) or _imported_now(name)
        found = _imported(name)
        if isinstance(found, type) and found in self.named:
            return found
        if name.partition(".")[0] in _PLACES:
            return self._of_package(name, option)
        if isinstance(found, type) and found.__module__ in self._files and _is_plain(found):
            return found
        raise self._refusal(name, option, "which is not of this package")

    def check(self, hparams: object, option: str = "model") -> None:
        """Check every name in hyper-parameters, however deep.

        Args:
            hparams: as stored.
            option: where they stand, for the message.

        Raises:
            ForeignClassError: if there is one that the file must not name.
        """
        waiting: list[tuple[Any, str, bool]] = [(hparams, option, False)]
        seen: set[tuple[int, bool]] = set()  # one object may stand in several places
        kept: list[Any] = []  # so that no other object gets the number of one in ``seen``
        while waiting:
            value, place, is_foreign = waiting.pop()
            if isinstance(value, str):
                value = self._of_yaml(value)  # as jsonargparse takes it, where a type allows
            if not isinstance(value, Mapping | list | tuple | set | frozenset):
                continue
            kept.append(value)
            if (id(value), is_foreign) in seen:
                continue
            seen.add((id(value), is_foreign))
            if not isinstance(value, Mapping):
                waiting += [(item, place, is_foreign) for item in value]
                continue
            for key in ("_class_path", "class_path"):
                if value.get(key) is not None:
                    found = self.find(value[key], place)
                    home = str(getattr(found, "__module__", "")).partition(".")[0]
                    is_foreign = home in _PLACES and home != "lit_ssl"
            for key, item in value.items():
                self._check_argument(str(key), item, place, is_foreign)
                is_inside = key in ("init_args", "dict_kwargs")
                waiting.append((item, place if is_inside else f"{place}.{key}", is_foreign))

    def _of_yaml(self, text: str) -> Any:
        """The mapping or list that a text may be taken for; None: it is only a text."""
        if not any(sign in text for sign in ":[{"):
            return None
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
        check_extent(found, self.path)
        return found

    def _check_argument(self, key: str, value: object, place: str, is_foreign: bool) -> None:
        if key == "_instantiator" and value is not None and value not in _INSTANTIATORS:
            raise self._refusal(value, key, "which is not how Lightning builds modules")
        is_kernel = key.endswith("_implementation") and re.search(r"[/:]", str(value))
        if (key in _TRUSTING and value) or (is_foreign and key in _READING and value) or is_kernel:
            raise ForeignClassError(
                f"{self.path} sets {place}.{key} to {str(value)!r:.{_MAX_SHOWN}}, which would let "
                "code or files of others in, and a file must not choose code: give "
                f"{place}.{key} yourself"
            )

    def _of_package(self, name: str, option: str) -> type:
        """A class of one of the known packages, of which other packages may be the author."""
        module, _, last = name.rpartition(".")
        if not _may_import(module):
            raise self._refusal(name, option, "which builds no network")
        try:
            with _without_working_folder():
                found = getattr(import_module(module), last)
        except (ImportError, AttributeError) as error:
            raise ForeignClassError(
                f"{self.path} names {name}, which is not there: {error}; another version of "
                f"{name.partition('.')[0]} may have it"
            ) from error
        if not isinstance(found, type):
            raise self._refusal(name, option, "which is no class")
        home = found.__module__
        own = _PLACES.get(home.partition(".")[0], ())
        if not any(_is_below(home, place) for place in own) or not _is_plain(found):
            raise self._refusal(name, option, "which builds no network")
        return found

    def _refusal(self, name: object, option: str, why: str) -> ForeignClassError:
        shown = f"{name!r:.{_MAX_SHOWN}}" if not isinstance(name, str) else f"{name:.{_MAX_SHOWN}}"
        how = self.how.format(name=shown, option=option)
        return ForeignClassError(
            f"{self.path} names {shown} ({option}), {why}, and a file must not choose code: {how}"
        )


def class_paths(value: object) -> set[str]:
    """Every ``class_path`` in a configuration that a person has given.

    Other strings do not count, for they may be names of files: ``model.ckpt`` is not the person's
    word for what a file model.py has in it.

    Args:
        value: a class or function, or values of a configuration: mappings and lists, nested.

    Returns:
        dotted names, of a class or function that of its module and its qualified name.
    """
    if callable(value):  # a class or function that has been found
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        return {name} if _DOTTED.fullmatch(name) else set()
    found: set[str] = set()
    if isinstance(value, Mapping):
        path = value.get("class_path")
        found = {path} if isinstance(path, str) else found
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        found = found.union(*map(class_paths, value))
    return found


def _may_import(module: str) -> bool:
    top = module.partition(".")[0]
    if any(part.startswith("__") for part in module.split(".")):
        return False
    return any(
        module == place if place in _ONLY_ITSELF else _is_below(module, place)
        for place in _IMPORTED[top]
    )


def _is_below(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def _is_plain(kind: type) -> bool:
    """Whether a class builds a network, optimiser or configuration, and is itself no program."""
    home = kind.__module__
    if issubclass(kind, _PROGRAMS) or any(_is_below(home, place) for place in _LOADERS):
        return False
    if _is_below(home, "lit_ssl") or is_dataclass(kind):
        return True
    if issubclass(kind, nn.Module | Optimizer | LRScheduler):
        return True
    # a class is of these packages only if they have been imported
    lightning, transformers = map(sys.modules.get, ("lightning.pytorch", "transformers"))
    if lightning is not None and issubclass(kind, lightning.LightningDataModule):
        return True
    return transformers is not None and issubclass(kind, transformers.PretrainedConfig)


def _imported(name: str) -> Any:
    """What a name stands for among the modules that have been imported; None: nothing."""
    module, _, last = name.rpartition(".")
    return vars(sys.modules[module]).get(last) if module in sys.modules else None


def _imported_now(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last, None)


@contextmanager
def _without_working_folder() -> Iterator[None]:
    """Import only what is installed: a file called timm.py beside a checkpoint is not timm."""
    here, before = Path.cwd(), list(sys.path)
    sys.path[:] = [p for p in before if p and Path(os.path.abspath(p)).resolve() != here.resolve()]
    try:
        yield
    finally:
        sys.path[:] = before
