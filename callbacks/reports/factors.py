"""Table and plot of a classifier's errors by factor, after one pass over annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.contracts.batches import describe
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputAttributeError, InputImportError, InputTypeError, by_name
from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.imagenet_x.metric import ImageNetXMetric
from lit_ssl.imagenet_x.output import FILES, write_report
from lit_ssl.imagenet_x.predictions import Predictions, read_predictions, write_predictions
from lit_ssl.imagenet_x.report import (
    FactorReportData,
    build_report,
    check_names,
    protocol_lines,
)
from lit_ssl.imagenet_x.scores import ErrorType, FactorScores, RealEmpty
from lit_ssl.imagenet_x.text import print_report, report_tables
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.pictures import log_picture
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import check_output, is_fast_dev_run, origin_of, run_folder


class FactorReport(pl.Callback):
    """Says on which kinds of image a classifier fails, beside other models.

    After ``trainer.validate`` and ``trainer.test`` it prints accuracy and error ratio by factor
    with their intervals, and writes ``factors.csv``, ``.md``, ``.json``, ``.png``,
    ``metaclasses.csv``, the predictions themselves (``predictions.csv``, ImageNet-X's official
    format) and a page of it all (``index.html``) into the run's folder; loggers that take images
    (TensorBoard, Weights & Biases) show the plot.

    The data module has ``annotations`` (``lit_ssl.imagenet_x.annotations
    .FactorAnnotations`) and batches ``(images, labels, image_number)``, as
    ``ImageNetXDataModule``; the module's ``validation_step`` and ``test_step`` return a dictionary
    with ``logits`` ``[B, C]``, as ``PretrainedClassifier``. During ``fit`` it only logs.

    Args:
        compare: Files of other models' predictions (CSV) for the table and the plot; the first one
            is the model that all others are compared with.
        error_type: What is correct: the label (``class``), any class of its group
            (``metaclass``), or any of the image's ReaL labels (``real``).
        real_empty: Images without any ReaL label: ``drop`` leaves them out, as the ReaL protocol
            does; ``wrong`` counts them as errors, as ImageNet-X's official tables do.
        partial: Whether annotated images may lack a prediction; for data modules that do not say it
            themselves (attribute ``partial``, as ``ImageNetXDataModule``). Where the data are
            partial, or the Trainer limits its batches, the report is.
        name: Of the model; None takes ``model_name`` of the module.
        output: Folder of the files; None takes the run's.
        plot: Whether to draw the plot (needs matplotlib).
    """

    def __init__(
        self,
        compare: Sequence[str] = (),
        error_type: ErrorType = "class",
        real_empty: RealEmpty = "drop",
        partial: bool = False,
        name: str | None = None,
        output: str | None = None,
        plot: bool = True,
    ) -> None:
        self.compare = tuple(compare)
        self.error_type: ErrorType = error_type
        self.real_empty: RealEmpty = real_empty
        self.partial = partial
        self.name = name
        self.output = output
        self.plot = plot
        self._metric: ImageNetXMetric | None = None
        self._others: list[Predictions] = []
        self._finished: tuple[FactorReportData, dict[str, Path], Path | None] | None = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the contracts and read the other models, before any image is read."""
        if stage == "predict":
            return
        annotations = getattr(data_source(trainer), "annotations", None)
        if not isinstance(annotations, FactorAnnotations):
            raise InputAttributeError(
                f"{type(data_source(trainer)).__name__} has no annotations: expected the "
                "attribute annotations with FactorAnnotations; use ImageNetXDataModule, or remove "
                "the callback"
            )
        check_output(trainer, self.output)
        if self.plot:
            _need_matplotlib()
        self._others = [read_predictions(path, annotations) for path in self.compare]
        name = self.name or getattr(pl_module, "model_name", type(pl_module).__name__)
        self._metric = ImageNetXMetric(
            annotations,
            error_type=self.error_type,
            real_empty=self.real_empty,
            partial=self._is_partial(trainer),  # one decision, before the first image
            name=str(name),
        )
        # before hours of work, not after them
        check_names([*(other.name for other in self._others), self._metric.name])
        for other in self._others:
            self._scores(other)
        self._finished = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the predictions of earlier weights."""
        assert self._metric is not None
        self._metric = self._metric.to(pl_module.device)
        self._metric.reset()

    on_test_start = on_validation_start

    @by_name
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch."""
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        if not isinstance(logits, Tensor) or len(batch) != 3:
            raise InputTypeError(
                "needs batches (images, labels, image_number) and steps that return a "
                f"dictionary with logits [B, C]; got {describe(batch)} and {describe(outputs)}"
            )
        assert self._metric is not None
        self._metric.update(logits, batch[2])

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log, and outside of ``fit`` make the report."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log and make the report."""
        self._evaluate(trainer, pl_module, "test")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the report, after Lightning's own table of metrics."""
        if self._finished is None:
            return
        (report, files, folder), self._finished = self._finished, None
        if folder is not None and (page := finish_page(trainer, folder)) is not None:
            files = {**files, "page": page}
        if trainer.progress_bar_callback is not None:  # else it is drawn again, below the report
            trainer.progress_bar_callback.teardown(trainer, pl_module, stage)
        print_report(report)
        for kind, path in files.items():
            print(f"{kind + ':':<13}{path}")

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        assert self._metric is not None
        predictions = self._metric.predictions()
        folder = None
        if trainer.state.fn != "fit":
            folder = run_folder(trainer, [*FILES, "predictions.csv", PAGE], self.output)
        if folder is not None and trainer.is_global_zero:  # before they are judged
            with may_be_lost(trainer, "the predictions of FactorReport"):
                write_predictions(folder / "predictions.csv", predictions, self._metric.annotations)
        values = self._metric.compute()  # the same on all processes
        factors = self._metric.annotations.factors
        logged = {f"{split}/factor_average": values["average"]}
        logged[f"{split}/factor_worst"] = values["worst_factor"]
        for f, name in enumerate(factors):
            if values["count"][f] > 0:
                logged[f"{split}/factor_{name}_acc1"] = values["accuracy"][f]
        for name, value in logged.items():
            pl_module.log(name, value.float(), sync_dist=True)
        if trainer.state.fn != "fit" and trainer.is_global_zero:
            self._report(trainer, folder)

    def _is_partial(self, trainer: pl.Trainer) -> bool:
        is_test = trainer.state.fn == "test"
        limit: Any = trainer.limit_test_batches if is_test else trainer.limit_val_batches
        # 1.0 is all batches, but the integer 1 is one batch
        limited = isinstance(limit, int) or limit != 1.0
        of_data = getattr(data_source(trainer), "partial", False) is True
        return self.partial or of_data or is_fast_dev_run(trainer) or limited

    def _scores(self, predictions: Predictions) -> FactorScores:
        assert self._metric is not None
        return FactorScores(
            predictions,
            self._metric.annotations,
            self.error_type,
            self.real_empty,
            self._metric.partial,
        )

    def _report(self, trainer: pl.Trainer, folder: Path | None) -> None:
        assert self._metric is not None
        others = [self._scores(other) for other in self._others]
        mine = self._metric.scores()
        preprocessing = getattr(data_source(trainer), "preprocessing", None)
        notes = {
            "model": mine.name,
            "preprocessing": getattr(preprocessing, "text", None),
            "precision": str(trainer.precision),
            **origin_of(trainer),
        }
        report = build_report([*others, mine], self.real_empty, notes=notes)
        files: dict[str, Path] = {}
        if folder is not None:
            with may_be_lost(trainer, "the factor report"):
                files = write_report(report, folder, self.plot)
                files["predictions"] = folder / "predictions.csv"
            self._show(trainer, report)
            drawn = [files["plot"]] if "plot" in files else []
            shown = Report(
                f"Errors by factor ({', '.join(report.names)})",
                report_tables(report), protocol_lines(report), list(files.values()), drawn,
            )  # fmt: skip
            add_report(trainer, folder, type(self).__name__, shown)
        self._finished = report, files, folder

    def _show(self, trainer: pl.Trainer, report: FactorReportData) -> None:
        """The plot in loggers that take images."""
        if not self.plot or not trainer.loggers:
            return
        from lit_ssl.imagenet_x.plot import draw_report, figure_pixels

        pixels = torch.from_numpy(figure_pixels(draw_report(report))).permute(2, 0, 1)
        log_picture(trainer, "factors", pixels)


def _need_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputImportError(
            "the plot needs matplotlib: pip install 'lit-ssl[examples]', or set plot: false"
        )
