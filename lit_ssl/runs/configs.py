"""Configurations of runs as flat values, and what tells some of them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_ssl.errors import InputError
from lit_ssl.files import read_text
from lit_ssl.yaml_text import YAMLError, load_yaml

__all__ = [
    "Flat",
    "as_text",
    "differing_keys",
    "is_seed",
    "read_config",
    "short_names",
    "shown",
    "telling",
]

# key, as it is written on the command line → value
Flat = dict[str, Any]

CONFIGS = ("config.yaml", "hparams.yaml")
_MOST = 20_000  # values in a config
_DEEPEST = 50
_COLUMNS = 4  # keys that a table has room for
# What says where a run writes, what it prints and how fast it reads, and nothing about its result.
_ABOUT_THE_MACHINE = (
    "auto_resume", "ckpt_path", "config", "trainer.barebones", "trainer.default_root_dir",
    "trainer.enable_checkpointing", "trainer.enable_model_summary", "trainer.enable_progress_bar",
    "trainer.log_every_n_steps", "trainer.logger", "trainer.profiler",
)  # fmt: skip
_ABOUT_READING = (
    "dirpath", "num_workers", "output", "persistent_workers", "pin_memory", "prefetch_factor",
    "save_dir", "verbose",
)  # fmt: skip
# Callbacks that watch a training, by the ends of their names.
_WATCHING = re.compile(
    r"trainer\.callbacks\.\w*(Checkpoint|Checkpoints|Evaluator|Graph|Grounding|Logger|Captions|Monitor"
    r"|ProgressBar|Report|Results|Sheet|Summary|Sweep|Validation|Predictions|Writer|Pictures|Page)(_\d+)?(\.|$)"
)
_CLASS = "class_path"
# What a table of all numbers calls its own columns.
_TAKEN = ("table", "baseline", "metric", "options", "mean", "sd", "n", "seeds")


def read_config(path: Path) -> Flat:
    """Read the config that a run has saved; nothing in it is built or imported.

    Args:
        path: ``config.yaml`` of the command line, or the ``hparams.yaml`` of a logger.

    Returns:
        Values by key, in the order of the file: ``model`` is the name of a class, ``model.lr`` an
        argument of it. Items of lists of objects are named by their classes, as in
        ``trainer.callbacks.KNNEvaluator.k``; other lists are one value.

    Raises:
        InputError: it cannot be read, is no YAML or no mapping, or is far larger than configs are.
    """
    try:
        found = load_yaml(read_text(path))
    except (yaml.YAMLError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as YAML: {reason:.200}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{path} is no config of a run: expected keys and values")
    flat: Flat = {}
    _flatten(found, "", flat, path, 0)
    return flat


def _flatten(value: Any, key: str, flat: Flat, path: Path, depth: int) -> None:
    if depth > _DEEPEST or len(flat) > _MOST:
        raise InputError(f"{path} is no config of a run: it has more values than any")
    if isinstance(value, Mapping) and isinstance(value.get(_CLASS), str):
        flat[key or _CLASS] = value[_CLASS].rpartition(".")[2]
        rest = {name: part for name, part in value.items() if name not in (_CLASS, "init_args")}
        arguments = value.get("init_args")
        for part in (arguments, rest):
            _flatten(part if isinstance(part, Mapping) else {}, key, flat, path, depth + 1)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _flatten(part, f"{key}.{name}" if key else str(name), flat, path, depth + 1)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        seen: dict[str, int] = {}
        for item in value:
            name = item.get(_CLASS) if isinstance(item, Mapping) else None
            name = name.rpartition(".")[2] if isinstance(name, str) else "item"
            seen[name] = seen.get(name, 0) + 1
            number = "" if seen[name] == 1 else f"_{seen[name]}"
            _flatten(item, f"{key}.{name}{number}", flat, path, depth + 1)
    else:
        flat[key] = value


def is_seed(key: str) -> bool:
    """Whether a key of a config is a seed.

    Args:
        key: as ``seed_everything`` or ``data.seed``.
    """
    return key.rpartition(".")[2] in ("seed_everything", "seed")


def telling(config: Flat, ignored: Sequence[str] = ()) -> Flat:
    """The part of a config that says what is trained: no seeds, folders, loggers or workers.

    Args:
        config: of a run.
        ignored: further keys, or beginnings of keys up to a dot, to leave out.
    """
    left_out = (*_ABOUT_THE_MACHINE, *ignored)
    return {
        key: value
        for key, value in config.items()
        if not is_seed(key)
        and key.rpartition(".")[2] not in _ABOUT_READING
        and not _WATCHING.match(key)
        and not any(key == name or key.startswith(f"{name}.") for name in left_out)
    }


def differing_keys(settings: Sequence[Flat]) -> tuple[list[str], dict[str, list[str]]]:
    """The keys that tell settings apart.

    What another class brings with it, such as the learning rate of one method where each has its
    own, is no key of its own; where more than four keys are left, neither is one that differs
    together with another. Keys of the model come first.

    Args:
        settings: one for each run.

    Returns:
        The keys, in order, and for some of them the further ones that differ together with them.
    """
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    varied = [key for key in keys if len({_value(setting, key) for setting in settings}) > 1]
    varied.sort(key=_rank)  # stable: else as in the files
    objects = {key for key in varied if any(other.startswith(f"{key}.") for other in keys)}
    chosen, together = _reduced(varied, settings, objects)
    if len(chosen) > _COLUMNS:
        chosen, more = _reduced(chosen, settings, set(chosen))
        for key, others in more.items():
            together.setdefault(key, []).extend(others)
    for key in [key for key in together if key not in chosen]:
        home = next(one for one, others in together.items() if key in others)
        together[home].extend(together.pop(key))
    return chosen, together


def _reduced(
    varied: Sequence[str], settings: Sequence[Flat], settling: Collection[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Keys without those whose values follow from some before them."""
    chosen: list[str] = []
    together: dict[str, list[str]] = {}
    for key in varied:
        known = [one for one in chosen if one in settling]
        groups = [*([one] for one in known), *([known] if len(known) > 1 else [])]
        group = next((one for one in groups if _settles(one, key, settings)), None)
        if group is None:
            chosen.append(key)
        else:
            together.setdefault(group[-1], []).append(key)
    return chosen, together


def _rank(key: str) -> tuple[int, int]:
    top = key.partition(".")[0]
    first = {"model": 0, "data": 1, "execution": 3, "trainer": 4}.get(top, 2)
    return first, int("." in key)


def _settles(known: Sequence[str], key: str, settings: Sequence[Flat]) -> bool:
    """Whether the values of some keys tell the value of another."""
    seen: dict[tuple[str, ...], str] = {}
    for setting in settings:
        given = tuple(_value(setting, one) for one in known)
        if seen.setdefault(given, _value(setting, key)) != _value(setting, key):
            return False
    return True


def _value(setting: Flat, key: str) -> str:
    """A value as something that can be compared; numbers are the same however they are written."""
    if key not in setting:
        return "–"
    value = setting[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value)) if abs(value) < 2**53 else repr(value)
    return as_text(value)


def as_text(value: Any) -> str:
    """A value of a config as text, the same for equal ones.

    Args:
        value: of any type that YAML has.
    """
    try:
        return json.dumps(value, default=str, sort_keys=True)
    except (TypeError, ValueError):  # keys of several kinds
        return repr(value)


def short_names(keys: Sequence[str], among: Sequence[str]) -> dict[str, str]:
    """The shortest end of each key that no other key has: ``mask_ratio``, ``model.lr``.

    Args:
        keys: to be named.
        among: all keys of the configs.
    """
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        if len(parts) == 1 and key in _TAKEN:
            names[key] = f"config.{key}"
            continue
        others = [other.split(".") for other in {*among, *keys} if other != key]
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if ".".join(end) not in _TAKEN and all(other[-count:] != end for other in others):
                break
        names[key] = ".".join(end)
    return names


def shown(value: Any) -> str:
    """A value of a config in a cell of a table.

    Args:
        value: of any type.
    """
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:.12g}" if abs(value) < 2**53 else repr(value)
    text = value if isinstance(value, str) else as_text(value)
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:39]}…"
