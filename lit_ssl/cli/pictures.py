"""``lit-ssl pictures``: what the features of a checkpoint are like, as PNGs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl

from lit_ssl.callbacks import (
    AttentionMaps,
    EmbeddingMap,
    NeighbourGrid,
    PrototypeGallery,
    SupportAssignments,
)
from lit_ssl.callbacks.evaluators.features import Split
from lit_ssl.callbacks.pictures.attention import encoder_of
from lit_ssl.callbacks.pictures.base import SplitPicture
from lit_ssl.checkpoints.classes import Names, class_paths
from lit_ssl.checkpoints.files import read_checkpoint, read_file
from lit_ssl.checkpoints.parsing import only_names
from lit_ssl.cli.composing import plain_name, read_entries
from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.objects import class_parser
from lit_ssl.cli.output import FirstBatch, short, tell
from lit_ssl.cli.parser import ParseError
from lit_ssl.cli.recipes import resolve_configs
from lit_ssl.cli.training import LitSSLCLI, run_cli
from lit_ssl.contracts.modules import prototypes_of
from lit_ssl.errors import InputError, did_you_mean
from lit_ssl.models.attention_maps import find_vit
from lit_ssl.trainer.pictures import kept_pictures
from lit_ssl.trainer.private import option_types
from lit_ssl.trainer.run import refuse_closed

__all__ = ["KINDS", "run"]

_USAGE = (
    "lit-ssl pictures CHECKPOINT [--kinds map,neighbours,...] [--output DIR] [--split val|test]"
    " [--data ...] [--trainer ...]"
)
_FROZEN = "lit_ssl.methods.FrozenEncoder"
# The run's: a picture of a checkpoint neither logs nor trains.
_OF_THE_RUN = ("callbacks", "logger", "plugins", "profiler")


class _Kind(NamedTuple):
    """A kind of picture: how it is made, and why it cannot be of some module and data."""

    make: Callable[[], SplitPicture]
    problem: Callable[[Any, Any], str | None]
    by_default: bool = True


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: what follows ``pictures`` on the command line.

    Raises:
        InputError: for wrong words, or a file that is no checkpoint or needs data to be named.
    """
    parser = LineParser(
        "lit-ssl pictures",
        usage=_USAGE,
        allow_abbrev=False,
        description="Draw what the features of a checkpoint are like. Other options are those of "
        "`lit-ssl validate`. The data are those of the run unless --data names others; files that "
        "are not of a run (official weights, other libraries) need data and are read by "
        "FrozenEncoder: --config eval/folder.yaml --data.root DIR.",
    )
    parser.add_argument("checkpoint", help="checkpoint of a run, or any other file of weights")
    parser.add_argument(
        "--kinds", help=f"which pictures, with commas: {', '.join(KINDS)} (default: all that fit)"
    )
    parser.add_argument("--output", default="pictures", help="folder of the PNGs")
    parser.add_argument("--split", default="val", choices=("val", "test"), help="default: val")
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
        raise InputError(f"the checkpoint comes first: {_USAGE}")
    args, rest = parser.parse_known_args(words)
    kinds = None if args.kinds is None else _chosen(args.kinds)
    command = {"val": "validate", "test": "test"}[args.split]
    path = os.path.expanduser(args.checkpoint)
    output = os.path.expanduser(args.output)
    refuse_closed(output, "--output")
    run_cli(lambda first_batch: PicturesCLI(path, kinds, output, [command, *rest], first_batch))


class PicturesCLI(LitSSLCLI):
    """Builds the module and the data of a checkpoint, and draws.

    Args:
        checkpoint: the file.
        kinds: names of ``KINDS``; None: all that fit.
        output: folder.
        words: ``validate`` or ``test``, and options.
        first_batch: told when the first batch is done.

    Raises:
        InputError: if the file names no data, and neither do the words.
    """

    def __init__(
        self,
        checkpoint: str,
        kinds: Sequence[str] | None,
        output: str,
        words: Sequence[str],
        first_batch: FirstBatch,
    ) -> None:
        self.checkpoint = checkpoint
        self.kinds = kinds
        self.output = output
        hparams = read_file(checkpoint).get("hyper_parameters")
        self.is_of_run = isinstance(hparams, dict) and "_class_path" in hparams
        self.stored_data: dict[str, Any] = {}
        self.data_class: str | None = None
        self.changed_data: dict[str, Any] = {}  # options of the run's data that a person gives
        options = list(words[1:])
        if not _names_data(options):
            if self.is_of_run:
                self.stored_data = _plain(
                    read_checkpoint(checkpoint), "datamodule_hyper_parameters"
                )
                self.data_class = self.stored_data.pop("_class_path", None)
            if self.data_class is None:
                raise InputError(
                    f"{checkpoint} does not say what data it is of: give --data CLASS and its "
                    "options, or --config eval/folder.yaml --data.root DIR"
                )
            self.changed_data, options = _without_data(options)
        args = [words[0], "--trainer.devices=1", *options]
        super().__init__(args=args, first_batch=first_batch)

    def _parse_ckpt_path(self) -> None:
        """Fill in the checkpoint, what it knows, and what pictures need."""
        command = self.config["subcommand"]
        config = self.config[command]
        if config.get("ckpt_path") is not None:
            raise InputError("the checkpoint is given once, in front: leave out --ckpt_path")
        for name in _OF_THE_RUN:
            config["trainer"][name] = None
        config["trainer"]["logger"] = False
        config["trainer"]["strategy"] = "auto"
        config["trainer"]["default_root_dir"] = self.output
        if config["trainer"].get("fast_dev_run"):
            raise InputError("trainer.fast_dev_run leaves no files, and so no pictures")
        model = config.get("model")
        if (model is None and not self.is_of_run) or _is_frozen(model):
            self._merge(
                {"model": {"class_path": _FROZEN, "init_args": {"weights": self.checkpoint}}}
            )
        else:
            config["ckpt_path"] = self.checkpoint
        if self.data_class is not None:
            self._merge_data(self.data_class)
        super()._parse_ckpt_path()

    def _merge_data(self, class_path: str) -> None:
        """Take the data from the file, with the options that a person has changed."""
        named = class_paths(self.config[self.config["subcommand"]].as_dict())
        names = Names(self.checkpoint, named)
        accepted = option_types(class_parser(names.find(class_path, "data")))
        kept = {name: value for name, value in self.stored_data.items() if name in accepted}
        names.check(kept, "data")
        for name, value in self.changed_data.items():
            _put(kept, name.split("."), value)
        with only_names(names):
            self._merge({"data": {"class_path": class_path, "init_args": kept}})
        self.names = names  # where they are built, too

    def _merge(self, entries: dict[str, Any]) -> None:
        whole = {self.config["subcommand"]: entries}
        try:
            self.config = self.parser.parse_object(whole, self.config)
        except ParseError as error:
            line = self._explain(error, whole)
            where = "" if self.changed_data else f"hyper-parameters of {self.checkpoint}: "
            raise InputError(f"{where}{line}") from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with the pictures alone."""
        module, data = self.model, self.datamodule
        chosen = self.kinds
        if chosen is None:
            fits = {name: kind.problem(module, data) for name, kind in KINDS.items()}
            for name, problem in fits.items():
                if problem is not None and KINDS[name].by_default:
                    tell(f"without {name}: {problem}")
            chosen = [name for name, kind in KINDS.items() if kind.by_default and not fits[name]]
        pictures = {name: KINDS[name].make() for name in chosen}
        if self.kinds is None:
            for name, picture in pictures.items():
                _say_what_cannot_be(name, picture)
        return super().instantiate_trainer(**{**kwargs, "callbacks": [*pictures.values()]})

    def after_validate(self) -> None:
        """Say where the pictures are.

        Raises:
            InputError: if there is none.
        """
        kept = kept_pictures(self.trainer)
        for picture in kept:
            tell(short(picture.path))
        if not kept:
            raise InputError(f"no picture of {self.checkpoint} was drawn, for the reasons above")

    after_test = after_validate


def _say_what_cannot_be(name: str, picture: SplitPicture) -> None:
    """Of a kind that nobody asked for, let a line say why there is none, and draw the others.

    What batches hold shows only where they are read: texts, clips, points.
    """
    draw = picture.draw

    def draw_or_say(trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> Any:
        try:
            return draw(trainer, pl_module, split)
        except InputError as error:
            tell(f"without {name}: {error}")
            return None

    picture.draw = draw_or_say  # type: ignore[method-assign]


def _chosen(text: str) -> list[str]:
    kinds = [word for word in text.replace(" ", "").split(",") if word]
    for word in kinds:
        if word not in KINDS:
            raise InputError(f"--kinds has no {word!r}.{did_you_mean(word, KINDS)}")
    if not kinds:
        raise InputError(f"--kinds takes some of {', '.join(KINDS)}, with commas between them")
    return list(dict.fromkeys(kinds))


def _names_data(words: Sequence[str]) -> bool:
    """Whether options or configs name the class of the data."""
    entries = read_entries(["validate", *resolve_configs(words)])
    return any(
        name in ("data", "data.class_path") and isinstance(value, str)
        for entry in entries
        for name, value in entry.leaves()
    )


def _without_data(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options of data whose class nobody names, by their name in it, and all other words."""
    changed: dict[str, Any] = {}
    left = ["validate", *words]
    for entry in reversed(read_entries(left)):
        name = plain_name(entry.name)
        if name.startswith("data."):
            changed.setdefault(name.removeprefix("data."), entry.value)
            count = 1 if "=" in left[entry.position] else 2
            del left[entry.position : entry.position + count]
    return changed, left[1:]


def _put(options: dict[str, Any], path: list[str], value: Any) -> None:
    """Set an option, perhaps of an object among the options."""
    first, *rest = path
    if not rest:
        options[first] = value
        return
    inner = options.get(first)
    inner = dict(inner) if isinstance(inner, dict) else {}
    if "class_path" in inner:
        inner["init_args"] = dict(inner.get("init_args") or {})
        _put(inner["init_args"], rest, value)
    else:
        _put(inner, rest, value)
    options[first] = inner


def _is_frozen(model: Any) -> bool:
    path = "" if model is None else str(model.class_path)
    return path.startswith("lit_ssl.") and path.endswith(".FrozenEncoder")


def _plain(checkpoint: dict[str, Any], key: str) -> dict[str, Any]:
    found = checkpoint.get(key)
    return dict(found) if isinstance(found, dict) else {}


def _no_bank(module: Any, data: Any) -> str | None:
    if callable(getattr(data, "bank_dataloader", None)):
        return None
    return f"{type(data).__name__} has no bank_dataloader"


def _no_vit(module: Any, data: Any) -> str | None:
    return _complaint(lambda: find_vit(encoder_of(module)))


def _no_prototypes(module: Any, data: Any) -> str | None:
    has = _complaint(lambda: prototypes_of(module)) is None
    return None if has else f"{type(module).__name__} has no prototypes"


def _no_supports(module: Any, data: Any) -> str | None:
    if not callable(getattr(module, "embed", None)):
        return f"{type(module).__name__} does not predict by supports"
    return None if getattr(data, "num_classes", None) else "the data have no classes"


def _complaint(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except InputError as error:
        return str(error)
    return None


def _fits(module: Any, data: Any) -> None:
    return None


KINDS: dict[str, _Kind] = {
    "map": _Kind(EmbeddingMap, _fits),
    "umap": _Kind(lambda: EmbeddingMap("umap"), _fits, by_default=False),
    "neighbours": _Kind(NeighbourGrid, _no_bank),
    "attention": _Kind(AttentionMaps, _no_vit),
    "prototypes": _Kind(PrototypeGallery, _no_prototypes),
    "supports": _Kind(SupportAssignments, _no_supports),
}
