"""The training commands of ``lit-ssl``: fit, validate, test and predict on LightningCLI."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint, RichModelSummary
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lit_ssl.callbacks import (
    ExactResume,
    Execution,
    FiniteGuard,
    GlobalBatch,
    LastCheckpoint,
    LastValidation,
    StepSeeder,
)
from lit_ssl.checkpoints.classes import Names, class_paths
from lit_ssl.checkpoints.newest import refuse_damaged
from lit_ssl.checkpoints.parsing import only_names
from lit_ssl.cli.auto_resume import earlier_run, home_without_logger, with_true_flag
from lit_ssl.cli.composing import origin_of, read_entries, with_empty_lists
from lit_ssl.cli.help import with_class_to_help
from lit_ssl.cli.mistakes.entries import wrong_entry
from lit_ssl.cli.mistakes.one_line import debugging, disk_line, one_line, raised_in
from lit_ssl.cli.nulls import with_whole_nulls
from lit_ssl.cli.objects import Instantiator, ModuleInstantiator, import_components
from lit_ssl.cli.output import (
    FirstBatch,
    ParameterSummary,
    SaveConfig,
    best_checkpoint,
    drop_placeholder,
    quiet,
    quiet_about,
    refuse_nothing,
    remove_unused_run,
    short,
    tell,
    tell_results,
)
from lit_ssl.cli.parser import LitSSLParser, ParseError
from lit_ssl.cli.predictions import save_predictions
from lit_ssl.cli.recipes import resolve_configs
from lit_ssl.cli.resume import (
    explain_misfit,
    is_file_here,
    last_checkpoint,
    line_after_nonfinite,
    line_that_resumes,
    stored_model,
)
from lit_ssl.cli.trainer_options import (
    check_strategy,
    say_kept_options,
    say_which_of_a_list,
    tell_if_nothing,
    with_strategy_classes,
    without_checkpoints,
)
from lit_ssl.errors import InputError, NonFiniteError, OutputError, check_numbers, did_you_mean
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.strategies.ddp.attempts import leave_group_at_exit
from lit_ssl.trainer.checkpoint_io import write_whole
from lit_ssl.trainer.lost_files import LastingLogs, lost_files, quiet_writers
from lit_ssl.trainer.private import (
    option_types,
    subcommand_parsers,
    summary_options,
)
from lit_ssl.trainer.requeue import SlurmRequeue, was_terminated
from lit_ssl.trainer.run_lock import RunLock
from lit_ssl.trainer.termination import end_children, end_workers, leaves_at_once, terminated

__all__ = ["DEFAULT_SEED", "LitSSLCLI", "run", "run_cli"]

# Every run is reproducible unless another seed, or `--seed_everything true`, is asked for.
DEFAULT_SEED = 0

_AFTER_FIT = ("validate", "test", "predict")


class LitSSLCLI(LightningCLI):
    """LightningCLI with named recipes, one-line errors, and a command line that always wins.

    Differences from LightningCLI:

    - ``--config msn/mnist5k`` finds the packaged recipe when there is no such file here;
    - what is typed, or stands in a config, beats the hyper-parameters of ``--ckpt_path``, which in
      turn beat the defaults;
    - ``--ckpt_path last`` finds the newest whole checkpoint of earlier runs;
    - checkpoints are written by ``WholeCheckpointIO``, unless another plugin is given;
    - a model that takes ``num_classes`` gets the data module's, unless it is given;
    - how a run is executed (compiled, channels_last, TF32) is ``--execution.…``, of ``Execution``;
    - always among the callbacks are ``ExactResume`` and ``StepSeeder``, so that resumed runs
      continue identically, ``LastCheckpoint`` and ``LastValidation``, so that the end of a fit is
      saved and validated, ``FiniteGuard``, which stops a fit that has diverged, ``LastingLogs``, so
      that a full disk costs logs and not the training, ``SlurmRequeue``, which saves before a
      scheduler ends the job, where all processes share a step, and ``RunLock``, so that no other
      run writes into its folders; ``GlobalBatch`` says how many samples a step sees.

    Args:
        args: command line, or a parsed configuration; None: ``sys.argv``.
        first_batch: told when the first batch is done.
        **kwargs: passed to LightningCLI.

    Raises:
        InputError: for wrong entries, with the one line to print.
    """

    def __init__(
        self, args: ArgsType = None, first_batch: FirstBatch | None = None, **kwargs: Any
    ) -> None:
        import_components()
        self.first_batch = first_batch or FirstBatch()
        self.argv: list[str] = []
        self.words: list[str] = []  # as they were typed
        self.parsed_args: dict[str, Any] | Namespace | None = None
        self.stored: dict[str, Any] = {}
        self.names: Names | None = None  # what the checkpoint may name
        self.failure: Exception | None = None
        self.then: list[str] = []  # what follows a fit
        self.home: Path | None = None  # with --auto_resume: the folder of an earlier run, or a root
        self.goes_on = False  # … which this one goes on with
        self.finds_itself = False  # --auto_resume
        self.run_lock = RunLock()
        self._num_classes: tuple[int | None, int | None] = (None, None)  # given, of the data
        defaults: dict[str, Any] = {
            "subclass_mode_model": True,
            "subclass_mode_data": True,
            "auto_configure_optimizers": False,
            "save_config_callback": SaveConfig,
            "save_config_kwargs": {"overwrite": True},
            "seed_everything_default": DEFAULT_SEED,
            "parser_class": LitSSLParser,
        }
        super().__init__(
            pl.LightningModule, pl.LightningDataModule, args=args, **{**defaults, **kwargs}
        )

    # parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add how a run is executed; let ``num_classes`` flow from the data module to models."""
        parser.add_lightning_class_args(Execution, "execution")
        parser.link_arguments(
            "data.num_classes",
            "model.init_args.num_classes",
            compute_fn=self._choose_num_classes,
            apply_on="instantiate",
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # Lightning runs what is in a checkpoint behind a URL, unless it is told not to
        parser.set_defaults(weights_only=True)
        parser.add_argument(
            "--global_batch",
            type=int | None,
            default=None,
            help="samples of an optimizer step, over all devices and accumulated batches, that the "
            "learning rates were chosen for; a fit with another number warns",
        )
        if subcommand == "fit":
            parser.add_argument(
                "--then",
                type=str | None,
                default=None,
                help="commands to follow the training, of its best checkpoint if a monitor chose "
                "one, else of its end: validate,test",
            )
            parser.add_argument(
                "--auto_resume",
                type=bool,
                default=False,
                help="go on with the run that the same command has begun, in its folder, from its "
                "newest checkpoint; start where there is none; do nothing if it is finished",
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line after resolving the names of recipes.

        Raises:
            InputError: for a wrong entry.
        """
        if args is None or isinstance(args, list):
            self.words = sys.argv[1:] if args is None else args
            self.argv = with_class_to_help(resolve_configs(with_true_flag(self.words)))
        else:
            self.parsed_args = args
        self.config = self._parse(defaults=True)
        part = self.config.get(self.config.get("subcommand") or "")
        if isinstance(part, Namespace):
            say_kept_options(read_entries(self.argv), part.as_dict())
            say_which_of_a_list(read_entries(self.argv), part.as_dict())

    def _parse(self, defaults: bool) -> Namespace:
        try:
            if self.parsed_args is not None:
                return self.parser.parse_object(self.parsed_args, defaults=defaults)
            words = with_empty_lists(with_whole_nulls(with_strategy_classes(self.argv)))
            return self.parser.parse_args(words, defaults=defaults)
        except (ParseError, UnicodeDecodeError) as error:  # the latter of a config
            raise InputError(self._explain(error, self.parsed_args or self.argv)) from error

    def _explain(self, error: Exception, entries: dict[str, Any] | Namespace | list[str]) -> str:
        """Name the wrong entry, or what the parser says where all of them look right."""
        found: Any = entries.as_dict() if isinstance(entries, Namespace) else entries
        parsers = subcommand_parsers(self)
        command = next((word for word in parsers if word in found), None)
        if command is not None:
            found = found[1:] if isinstance(found, list) else found[command]
        options = option_types(self.parser if command is None else parsers[command])
        line = wrong_entry(options, found, linked=["model.num_classes"])
        return line or " ".join(str(error).split())

    @cached_property
    def given(self) -> Namespace:
        """What the command line and the configs set, without any defaults."""
        given = self._parse(defaults=False)
        command = self.config.get("subcommand")
        return given.get(command, Namespace()) if command else given

    # checkpoints

    def _parse_ckpt_path(self) -> None:
        """Fill in what the checkpoint knows and nobody has given; replaces Lightning's rule."""
        command = self.config.get("subcommand")
        if not command:
            return
        config = self.config[command]
        if config.pop("auto_resume", False):  # out, so that every command can read what is saved
            self.finds_itself = True
            self._find_earlier_run(command)
        if config.get("ckpt_path") == "last":
            config["ckpt_path"] = last_checkpoint(config.trainer.as_dict(), command)
        if is_file_here(config.get("ckpt_path")):
            self._merge_checkpoint(command, config.ckpt_path)
        elif os.path.isdir(config.get("ckpt_path") or ""):  # sharded: torch unpickles its table
            refuse_damaged(config.ckpt_path)
        needed = [name for name in ("model", "data") if not self.config[command].get(name)]
        if needed:
            classes = " ".join(f"--{name} CLASS" for name in needed)
            raise InputError(
                f"{' and '.join(needed)} missing: give --config NAME (`lit-ssl configs` lists "
                f"recipes) or {classes}"
            )

    def _find_earlier_run(self, command: str) -> None:
        """Choose what ``--auto_resume`` goes on with.

        Raises:
            SystemExit: with exit status 0, if it is finished.
        """
        config = self.config[command]
        if config.get("ckpt_path") is not None:
            raise InputError("--auto_resume chooses a checkpoint by itself: leave out --ckpt_path")
        parser: Any = subcommand_parsers(self)[command]
        with warnings.catch_warnings():  # skip_none has another name since jsonargparse 4.49
            warnings.simplefilter("ignore", DeprecationWarning)
            dumped = parser.dump(config, skip_none=False)
        plain = {key: value for key, value in yaml.safe_load(dumped).items() if key != "then"}
        self.home = home_without_logger(plain["trainer"])
        earlier = earlier_run(plain)
        if earlier is None:
            return
        if earlier.finished is not None:
            tell(
                f"--auto_resume: the run in {short(earlier.folder)} is finished, with step "
                f"{earlier.finished}"
            )
            sys.exit(0)
        self.home, self.goes_on = earlier.folder, True
        self.save_config_callback = None  # it is there, and so are checkpoints
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        config["ckpt_path"] = str(earlier.checkpoint)
        if config.get("seed_everything") is True:
            config["seed_everything"] = earlier.seed
        tell(f"--auto_resume: {config['ckpt_path'] and short(config['ckpt_path'])}")

    def _merge_checkpoint(self, command: str, path: str) -> None:
        asked = self.config[command].get("model")
        given = self.given.get("model.init_args") or Namespace()
        self.names = Names(path, class_paths(self.config[command].as_dict()))
        found = stored_model(path, asked and asked.class_path, given.as_dict(), self.names)
        if found is None:
            return
        class_path, self.stored = found
        entries = {command: {"model": {"class_path": class_path, "init_args": self.stored}}}
        with only_names(self.names):  # what looks for the mistake imports classes, too
            try:
                self.config = self.parser.parse_object(entries, self.config)
            except ParseError as error:
                line = self._explain(error, entries)
                raise InputError(f"hyper-parameters of {path}: {line}") from error

    def _part(self, config: Namespace, key: str) -> Any:
        """A part of the configuration, e.g. ``model``, of the command if there is one."""
        return (config[self.subcommand] if self.subcommand else config).get(key)

    # number of classes

    def _choose_num_classes(self, num_classes: int | None) -> int | None:
        """The number given to the model, else the checkpoint's, else the data module's."""
        model = self._part(self.config, "model")
        given = self.given.get("model.init_args.num_classes")
        chosen = given if given is not None else self.stored.get("num_classes")
        self._num_classes = (given, num_classes)
        if chosen is None:
            chosen = num_classes
        return model.get("init_args.num_classes") if chosen is None else chosen

    def check_num_classes(self, model_class: type, chosen: int | None) -> None:
        """Compare a ``num_classes`` that was given to the model with the data module's.

        Args:
            model_class: class of the model.
            chosen: what it is going to get.

        Raises:
            InputError: if they differ, or if a model that needs the number gets none.
        """
        given, num_classes = self._num_classes
        data = self._part(self.config, "data").class_path.rpartition(".")[2]
        if None not in (given, num_classes) and given != num_classes:
            raise InputError(
                f"model.num_classes is {given}, but {data} has {num_classes} classes; leave it out "
                "and the model takes the number from the data"
            )
        parameter = inspect.signature(model_class).parameters.get("num_classes")
        if chosen is None and parameter is not None and parameter.default is parameter.empty:
            raise InputError(
                f"{model_class.__name__} needs num_classes, and {data} does not know it: give "
                "--model.num_classes"
            )

    def before_instantiate_classes(self) -> None:
        """Take out what follows a fit, so that every command can read the saved configuration.

        Raises:
            InputError: for a word that is no command.
        """
        config = self.config.get(self.subcommand or "") or Namespace()
        words = (config.pop("then", None) or "").replace(" ", "").split(",")
        self.then = [word for word in words if word]
        for word in self.then:
            if word not in _AFTER_FIT:
                raise InputError(
                    f"--then takes {', '.join(_AFTER_FIT)}, with commas between them, not "
                    f"{word!r}.{did_you_mean(word, _AFTER_FIT)}"
                )

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; an error of a constructor comes out as it was raised."""
        follow = self._part(self.config, "ckpt_path") not in (None, "best", "hpc")
        try:
            with nullcontext() if self.names is None else only_names(self.names):
                with weights_follow(follow):
                    super().instantiate_classes()
                if follow and not self.model.strict_loading:  # the checkpoint may hold only some
                    super().instantiate_classes()
        except Exception as error:
            failure = error
            if self.failure is not None and raised_in(error).partition(".")[0] == "jsonargparse":
                failure = self.failure
            named = self._with_origin(failure)
            if named is error:
                raise
            raise named from (failure.__cause__ if named is failure else failure)

    def _with_origin(self, error: Exception) -> Exception:
        """An error with the config from which the values come that it names."""
        origin = origin_of(read_entries(self.argv), str(error))
        if not origin:
            return error
        if isinstance(error, InputError):
            return type(error)(f"{error}{origin}").with_traceback(error.__traceback__)
        line = None if self.first_batch.seen or debugging() else one_line(error)
        return error if line is None else InputError(f"{line}{origin}")

    def _add_instantiators(self) -> None:
        super()._add_instantiators()  # the two of these classes are replaced below
        model, data = ModuleInstantiator(self, "model"), ModuleInstantiator(self, "data")
        self.parser.add_instantiator(model, pl.LightningModule, subclasses=True)
        self.parser.add_instantiator(data, pl.LightningDataModule, subclasses=True)
        self.parser.add_instantiator(Instantiator(self), object, subclasses=True)

    # running

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer, with the callbacks that every run has."""
        given = self._part(self.config_init, "trainer")
        check_strategy(given.get("strategy"))
        plain = {k: v for k, v in given.items() if isinstance(v, int | float)}
        check_numbers(plain, "trainer.")
        callbacks = kwargs.get("callbacks") or given.get("callbacks") or []
        callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        callbacks = without_checkpoints(callbacks, given)
        for kind in (
            FiniteGuard,
            ExactResume,
            LastValidation,
            StepSeeder,
            SlurmRequeue,
            LastingLogs,
        ):
            if not any(isinstance(callback, kind) for callback in callbacks):
                callbacks.append(kind())
        if not any(isinstance(callback, GlobalBatch) for callback in callbacks):
            callbacks.append(GlobalBatch(self._part(self.config, "global_batch")))
        callbacks.append(self.run_lock)
        trainer = super().instantiate_trainer(
            **{**kwargs, "callbacks": [*callbacks, self.first_batch]}
        )
        trainer.callbacks = [  # type: ignore[attr-defined]
            ParameterSummary(**summary_options(callback))
            if type(callback) is RichModelSummary
            else callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        ]
        write_whole(trainer.strategy)
        savers = trainer.checkpoint_callbacks
        has_last = any(isinstance(saver, LastCheckpoint) for saver in savers)
        if not has_last and any(isinstance(saver, ModelCheckpoint) for saver in savers):
            trainer.callbacks.append(LastCheckpoint())  # type: ignore[attr-defined]
        if given.get("logger") in (None, True):
            drop_placeholder(trainer)
        quiet_about(self.datamodule, self.subcommand)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            self.run_lock.claim(self.trainer, self.home, self.goes_on)
            with quiet_writers():
                super()._run_subcommand(subcommand)
            if subcommand != "fit" and not self.first_batch.seen:
                refuse_nothing(self.trainer, subcommand)
        except SystemExit:  # Lightning's, after Ctrl-C, or ours, after SIGTERM
            if subcommand == "fit" and self.trainer.interrupted and self.words:
                tell(line_that_resumes(*self._stopped()))
            if not self.first_batch.seen:
                remove_unused_run(self.trainer, self.first_batch.started)
            end_children(self.trainer)
            end_workers()
            raise
        except Exception as error:
            if isinstance(error, NonFiniteError) and subcommand == "fit" and self.first_batch.seen:
                tell(line_after_nonfinite(*self._stopped()))
            if not self.first_batch.seen:
                remove_unused_run(self.trainer, self.first_batch.started)
            config = self.config[subcommand]
            is_misfit = isinstance(error, RuntimeError) and "loading state_dict" in str(error)
            if is_misfit and is_file_here(config.get("ckpt_path")):
                message = explain_misfit(config.ckpt_path, config.model.as_dict())
                raise InputError(message) from error
            named = self._with_origin(error)
            if named is error:
                raise
            raise named from error
        finally:
            self.run_lock.release()

    def _stopped(self) -> tuple[list[str], pl.Trainer, float, bool]:
        return self.words, self.trainer, self.first_batch.started, self.finds_itself

    def after_fit(self) -> None:
        """Say how the training ended, and where its files lie; then do what follows.

        Raises:
            SIGTERMException: if something is to follow and a scheduler has asked the job to end.
        """
        tell_results(self.trainer)
        best = best_checkpoint(self.trainer)
        if self.then and was_terminated(self.trainer):
            raise terminated()
        for command in self.then:
            tell(f"{command}: {short(best) if best else 'the end of the training'}")
            run_command = getattr(self.trainer, command)
            kwargs = {"datamodule": self.datamodule, "ckpt_path": best, "weights_only": True}
            run_command(self.model, **kwargs)
            getattr(self, f"after_{command}")()
        self.run_lock.note_end(self.trainer)

    def after_validate(self) -> None:
        """Say so where nothing was measured."""
        tell_if_nothing(self.trainer, "validate")

    def after_test(self) -> None:
        """Say so where nothing was measured."""
        tell_if_nothing(self.trainer, "test")

    def after_predict(self) -> None:
        """Keep the predictions."""
        save_predictions(self.trainer)


def run() -> None:
    """Run the command in ``sys.argv``.

    Raises:
        InputError: see ``run_cli``.
    """
    run_cli(lambda first_batch: LitSSLCLI(first_batch=first_batch))


def run_cli(build: Callable[[FirstBatch], LitSSLCLI]) -> None:
    """Build a command line, which runs it, and bring what fails into one line.

    Args:
        build: gets what is told when the first batch is done.

    Raises:
        InputError: with the one line that explains a mistake of the user, before the first batch is
            done; with ``LIT_SSL_DEBUG=1`` every error comes out as it was raised.
        OutputError: if something could not be written.
    """
    quiet()
    first_batch = FirstBatch()
    leave_group_at_exit()
    try:
        with leaves_at_once():
            cli = build(first_batch)
    except InputError:
        raise
    except Exception as error:
        line = disk_line(error) if first_batch.seen else one_line(error)
        if line is None or debugging():
            raise
        raise InputError(line) from error
    if (lost := lost_files(cli.trainer)) is not None:
        raise OutputError(lost)
