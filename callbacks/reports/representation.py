"""One table that says what a representation is worth."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from lit_ssl.callbacks.evaluators.batch_norm import recalibrated_batch_norm
from lit_ssl.callbacks.evaluators.features import (
    RefusedPassError,
    Split,
    clear_features,
    shard_features,
)
from lit_ssl.callbacks.evaluators.low_shot import warn_about_short_classes
from lit_ssl.callbacks.reports.kinds import (
    Asked,
    Kind,
    collect_kind,
    network_source,
    on_device,
    pixel_source,
)
from lit_ssl.callbacks.reports.labelled_sets import LabelledSet, check_names, find_positions
from lit_ssl.callbacks.reports.measurements import PROTOCOLS, Measurements
from lit_ssl.callbacks.reports.output import (
    FILES,
    find_run_files,
    print_report,
    protocol_text,
    report_table,
    write_report,
)
from lit_ssl.contracts.data import check_bank, check_bank_sample, num_classes_of, support_split
from lit_ssl.contracts.modules import embedding_method, feature_function
from lit_ssl.errors import InputError, by_name
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.passes import on_rank_zero
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import check_output, is_fast_dev_run, origin_of, run_folder


class RepresentationReport(pl.Callback):
    """Compares trained features with untrained ones and with raw pixels, in one table.

    After ``trainer.test`` and ``trainer.validate`` it prints the accuracy of each kind of features
    under each protocol, and where the run's files lie, and writes ``report.json`` and
    ``report.csv`` (accuracies in [0, 1]), and ``index.html``, which also shows the curves and
    pictures of the training. All kinds share the data and the labelled draws. Nothing
    is chosen on the images that are reported.

    The protocols: ``knn``; ``linear`` (logistic regression on the bank, its L2 chosen inside the
    bank); ``low_shot`` (MSN: logistic regression on a few images per class, and on ``label_sets``);
    ``soft_nn`` (PAWS-NN: soft nearest neighbours over all images of the data module's
    ``support_dataloader()`` if it has one, else of the bank; over a few of them per class; and,
    where they are the bank, over ``label_sets``).

    The row of the module itself is called ``trained`` where its weights come from a checkpoint, a
    file that it has read, or this Trainer's fit, and else ``as given``. The report names all three.
    The untrained row is the module as it was built, copied before Lightning loads a checkpoint
    (``trainer.test(model, ckpt_path=...)``, ``lit-ssl test --ckpt_path ...``) or before ``fit``. It
    is left out, with a note, when the module was trained before the callback saw it.

    Args:
        shots: Labelled images per class, each >= 1; may be empty.
        draws: Random draws of labelled images, >= 1; seeded 0, 1, ….
        k: Neighbours that vote, >= 1.
        temperature: Sharpness of the k-NN vote, > 0.
        l2: Low-shot regularisation x ([`fit_low_shot`][lit_ssl.metrics.fit_low_shot]), > 0.
        baselines: Further kinds. ``pixels`` are the flattened normalised images; they are left out
            when those of the bank would take more than 2 GiB.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``.
        num_classes: Number of classes; None takes the data module's.
        output: Folder of the three files; None takes the run's.
        protocols: Which of the above to measure; those left out cost nothing.
        label_sets: Further choices of labelled images by name, such as official lists
            ([`LabelledSet`][lit_ssl.callbacks.LabelledSet]); over several lists the mean and the
            standard deviation.
        soft_nn_temperature: τ of soft nearest neighbours, > 0.
        soft_nn_feature_method: Method of the module for soft nearest neighbours; None: ``embed`` of
            modules that have it (PAWS: all of the network, prediction head included), else
            ``feature_method``.
        recalibrate_bn: Take all features of networks with the BatchNorm statistics of up to 10,000
            training images under the evaluation transform, in place of those of training, which the
            module keeps.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(
        self,
        shots: Sequence[int] = (1, 2, 5),
        draws: int = 5,
        k: int = 20,
        temperature: float = 0.07,
        l2: float = 0.0025,
        baselines: Sequence[Literal["untrained", "pixels"]] = ("untrained", "pixels"),
        feature_method: str = "forward",
        num_classes: int | None = None,
        output: str | None = None,
        protocols: Sequence[Literal["knn", "linear", "low_shot", "soft_nn"]] = PROTOCOLS,
        label_sets: Mapping[str, LabelledSet] | None = None,
        soft_nn_temperature: float = 0.1,
        soft_nn_feature_method: str | None = None,
        recalibrate_bn: bool = False,
    ) -> None:
        if min(*shots, draws, k, 1) < 1 or min(temperature, l2, soft_nn_temperature) <= 0:
            raise InputError(
                "RepresentationReport needs shots, draws, k >= 1 and temperature, l2, "
                "soft_nn_temperature > 0, "
                f"got {list(shots)}, {draws}, {k}, {temperature}, {l2}, {soft_nn_temperature}"
            )
        if not protocols or set(protocols) - set(PROTOCOLS):
            raise InputError(
                f"RepresentationReport needs some of the protocols {list(PROTOCOLS)}, got "
                f"{list(protocols)}"
            )
        if unknown := set(baselines) - {"untrained", "pixels"}:
            raise InputError(
                "RepresentationReport knows the baselines 'untrained' and 'pixels', got "
                f"{sorted(unknown)}"
            )
        sets = dict(label_sets or {})
        check_names(sets, [str(n) for n in shots])
        self.measurements = Measurements(
            protocols=tuple(protocols), shots=tuple(shots), draws=draws, k=k,
            temperature=temperature, l2=l2, soft_nn_temperature=soft_nn_temperature, sets=sets,
        )  # fmt: skip
        self.baselines = tuple(baselines)
        self.feature_method = feature_method
        self.num_classes = num_classes
        self.output = output
        self.soft_nn_feature_method = soft_nn_feature_method
        self.recalibrate_bn = recalibrate_bn
        self._untrained: pl.LightningModule | None = None
        self._notes: list[str] = []
        self._finished: tuple[Report, dict[str, str], Path | None] | None = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the contracts and copy the module while it is still untrained."""
        if stage == "predict":
            return
        num_classes_of(trainer, self.num_classes)
        check_output(trainer, self.output)
        asked = self._asked(trainer, pl_module, "val")
        if self.recalibrate_bn:
            check_bank_sample(trainer)
        if asked.bank:
            check_bank(trainer)
            feature_function(pl_module, asked.method)
        if asked.supports is not None:
            feature_function(pl_module, asked.embedding)
        if stage != "fit":  # a list that is not there shows before the network runs
            m = self.measurements
            m.positions = find_positions(trainer, m.sets, m.draws)
        self._finished = None
        # Lightning calls setup before it restores weights. A trainer that has made steps has
        # trained this module already.
        untouched = trainer.global_step == 0
        if "untrained" in self.baselines and self._untrained is None and untouched:
            self._untrained = copy.deepcopy(pl_module).cpu()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop features of earlier weights."""
        clear_features(trainer)

    on_test_start = on_validation_start

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, in ``trainer.validate`` only."""
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure."""
        self._report(trainer, pl_module, "test")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Free the memory of the features."""
        clear_features(trainer)

    on_test_end = on_validation_end

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the report, after Lightning's own table of metrics."""
        if self._finished is None:
            return
        (report, files, folder), self._finished = self._finished, None
        if trainer.progress_bar_callback is not None:  # else it is drawn again, below the report
            trainer.progress_bar_callback.teardown(trainer, pl_module, stage)
        page = None if folder is None else finish_page(trainer, folder)
        pages = {} if page is None else {"page": str(page)}
        print_report(report.tables[0], report.lines, {**pages, **files})

    @by_name
    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> None:
        self._notes = []
        classes = num_classes_of(trainer, self.num_classes)
        asked = self._asked(trainer, pl_module, split)
        if self.recalibrate_bn:
            kind = self._recalibrated(trainer, pl_module, asked, classes)
        else:
            kind = collect_kind(asked, partial(shard_features, trainer, pl_module), classes)
        self._check_sizes(trainer, kind)
        measure = partial(self._measure, trainer, pl_module.device, classes)
        rows = [{"features": _name(trainer), **measure(kind)}]
        for name in self.baselines:
            baseline = self._baseline(name, trainer, pl_module, asked, classes, kind)
            if baseline is not None:
                rows.append({"features": name, **measure(baseline)})
        self._finish(trainer, rows, self._protocol(trainer, asked, kind))

    def _asked(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> Asked:
        protocols = set(self.measurements.protocols)
        supports = support_split(trainer) if "soft_nn" in protocols else None
        embedding = self.soft_nn_feature_method or embedding_method(pl_module, self.feature_method)
        return Asked(bool(protocols - {"soft_nn"}), split, supports, self.feature_method, embedding)

    def _check_sizes(self, trainer: pl.Trainer, kind: Kind) -> None:
        """Warn of classes with too few images; leave sets out where only some batches are read."""
        if is_fast_dev_run(trainer):
            self.measurements.positions = {}
            return
        shots = max(self.measurements.shots, default=0)
        if kind.bank is not None and "low_shot" in self.measurements.protocols:
            warn_about_short_classes(kind.bank.labels, shots)
        elif kind.supports is not None:
            warn_about_short_classes(kind.supports.labels, shots, "labelled images")

    def _measure(
        self, trainer: pl.Trainer, device: torch.device, classes: int, kind: Kind
    ) -> dict[str, float]:
        """All accuracies of one kind of features, the same on every process."""
        return self.measurements(kind, classes, device, partial(on_rank_zero, trainer))

    def _baseline(
        self,
        name: str,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        asked: Asked,
        classes: int,
        trained: Kind,
    ) -> Kind | None:
        """Features of a baseline, or None with a note that says why."""
        if name == "pixels":
            known = trained.bank or trained.supports
            rows = 0 if known is None else len(known.labels)
            try:
                source = pixel_source(trainer, pl_module, rows)
                return collect_kind(asked, source, classes)
            except RefusedPassError as error:  # too many, which is noted by the first process
                self._notes.append(f"No pixels row: {error}.")
                return None
        note = on_rank_zero(trainer, lambda: self._why_not_untrained(pl_module))
        if note is not None:
            self._notes.append(f"No untrained row: {note}.")
            return None
        module = on_device(self._untrained, trainer, pl_module.device)
        try:
            if self.recalibrate_bn:
                return self._recalibrated(trainer, module, asked, classes)
            return collect_kind(asked, network_source(trainer, module), classes)
        finally:
            module.cpu()

    def _recalibrated(
        self, trainer: pl.Trainer, module: pl.LightningModule, asked: Asked, classes: int
    ) -> Kind:
        """Features with BatchNorm statistics of evaluation images; they are not shared."""
        names = {asked.method} if asked.bank else set()
        names |= {asked.embedding} if asked.supports is not None else set()
        functions = [feature_function(module, name) for name in sorted(names)]
        with recalibrated_batch_norm(trainer, module, functions):
            return collect_kind(asked, network_source(trainer, module), classes)

    def _why_not_untrained(self, pl_module: pl.LightningModule) -> str | None:
        if self._untrained is None:
            return "the module had been trained before this callback saw it"
        before, now = self._untrained.state_dict(), pl_module.state_dict()
        if before.keys() != now.keys():
            return "the module built its layers after setup (configure_model)"
        if all(torch.equal(before[name].cpu(), now[name].cpu()) for name in now):
            return "the module still has the weights it was built with (give ckpt_path)"
        return None

    def _protocol(self, trainer: pl.Trainer, asked: Asked, kind: Kind) -> dict[str, Any]:
        m = self.measurements
        queries = kind.queries or kind.asked
        assert queries is not None
        supports = kind.supports
        soft_nn = None
        if supports is not None:
            soft_nn = {
                "feature_method": asked.embedding,
                "temperature": m.soft_nn_temperature,
                "supports": len(supports.labels),
                "are_bank": asked.supports == "bank",
            }
        return {
            "data": _data_name(trainer),
            "split": asked.queries,
            "bank": None if kind.bank is None else len(kind.bank.labels),
            "queries": len(queries.labels),
            "feature_method": self.feature_method,
            "k": m.k,
            "temperature": m.temperature,
            "l2": m.l2,
            "draws": m.draws,
            "shots": list(m.shots),
            "protocols": list(m.protocols),
            "soft_nn": soft_nn,
            "recalibrate_bn": self.recalibrate_bn,
            "label_sets": {
                name: {**vars(m.sets[name]), "images": [len(rows) for rows in draws]}
                for name, draws in m.positions.items()
            },
            **origin_of(trainer),
            "notes": self._notes,
        }

    def _finish(
        self, trainer: pl.Trainer, rows: list[dict[str, Any]], protocol: dict[str, Any]
    ) -> None:
        folder = run_folder(trainer, [*FILES, PAGE], self.output)
        if not trainer.is_global_zero:
            return
        logs = [getattr(logger, "log_dir", None) for logger in trainer.loggers]
        folders = [Path(place) for place in (*logs, trainer.default_root_dir) if place]
        files = find_run_files(protocol["checkpoint"], folders)
        title = f"What the frozen features are worth ({type(trainer.lightning_module).__name__})"
        lines = [protocol_text(protocol), *protocol["notes"]]
        written = [] if folder is None else [folder / name for name in FILES]
        report = Report(title, [report_table(rows, title)], lines, written)
        if folder is not None:
            with may_be_lost(trainer, "the representation report"):
                write_report(folder, rows, protocol)
                files = {"report": str(folder / "report.json"), **files}
            add_report(trainer, folder, type(self).__name__, report)
        self._finished = report, files, folder


def _data_name(trainer: pl.Trainer) -> str | None:
    """The class of the data module, of a composed one that of the data set in it."""
    data = getattr(trainer, "datamodule", None)
    inner = getattr(data, "dataset", None)
    data = inner if isinstance(inner, pl.LightningDataModule) else data
    return None if data is None else type(data).__name__


def _name(trainer: pl.Trainer) -> str:
    """What the module's own features are called: trained, as far as anybody knows."""
    origin = origin_of(trainer)
    return "trained" if origin["checkpoint"] or origin["steps"] else "as given"
