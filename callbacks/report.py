"""One table that says what a representation is worth."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.callbacks.contract import (
    FeatureFunction,
    check_bank,
    feature_function,
    is_fast_dev_run,
    num_classes_of,
)
from lit_ssl.callbacks.evaluator import labelled_only, on_rank_zero
from lit_ssl.callbacks.features import (
    Features,
    Split,
    clear_features,
    collect_features,
    extract_features,
)
from lit_ssl.callbacks.low_shot import draw_supports, mean_and_std, warn_about_short_classes
from lit_ssl.callbacks.report_output import (
    find_run_files,
    print_report,
    protocol_text,
    report_table,
    write_report,
)
from lit_ssl.metrics import fit_linear_probe, knn_predict, low_shot_accuracies, topk_accuracy
from lit_ssl.utils.distributed import is_distributed

_WHO = "RepresentationReport"
_MAX_PIXEL_BYTES = 2 * 2**30


class RepresentationReport(pl.Callback):
    """Compares trained features with untrained ones and with raw pixels, in one table.

    After ``trainer.test`` and ``trainer.validate`` it prints k-NN, linear and low-shot accuracy of
    each kind of features, the protocol, and where the run's files lie, and writes ``report.json``
    and ``report.csv`` (accuracies in [0, 1]). All rows share the data and the labelled draws.

    The untrained row is the module as it was built, copied before Lightning loads a checkpoint
    (``trainer.test(model, ckpt_path=...)``, ``lit-ssl test --ckpt_path ...``) or before ``fit``. It
    is left out, with a note, when the module was trained before the callback saw it.

    Args:
        shots: Labelled images per class, each >= 1.
        draws: Random draws of labelled images, >= 1; seeded 0, 1, ….
        k: Neighbours that vote, >= 1.
        temperature: Sharpness of the k-NN vote, > 0.
        l2: Low-shot regularisation x (:func:`lit_ssl.metrics.fit_low_shot`), > 0.
        baselines: Further rows. ``pixels`` are the flattened normalised images; they are left out
            when those of the bank would take more than 2 GiB.
        feature_method: Method of the module that maps images ``[B, C, H, W]`` to ``[B, D]``.
        num_classes: Number of classes; None takes the data module's.
        output: Folder of the two files; None takes the run's (``trainer.log_dir``).

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
    ) -> None:
        if not shots or min(shots) < 1 or draws < 1 or k < 1 or temperature <= 0 or l2 <= 0:
            raise ValueError(
                f"{_WHO} needs shots, draws, k >= 1 and temperature, l2 > 0, got {list(shots)}, "
                f"{draws}, {k}, {temperature}, {l2}"
            )
        if unknown := set(baselines) - {"untrained", "pixels"}:
            raise ValueError(
                f"{_WHO} knows the baselines 'untrained' and 'pixels', got {sorted(unknown)}"
            )
        self.shots = tuple(shots)
        self.draws = draws
        self.k = k
        self.temperature = temperature
        self.l2 = l2
        self.baselines = tuple(baselines)
        self.feature_method = feature_method
        self.num_classes = num_classes
        self.output = output
        self._untrained: pl.LightningModule | None = None
        self._notes: list[str] = []
        self._finished: tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the contracts and copy the module while it is still untrained."""
        if stage == "predict":
            return
        num_classes_of(trainer, self.num_classes, _WHO)
        check_bank(trainer, _WHO)
        feature_function(pl_module, self.feature_method, _WHO)
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
        rows, protocol, files = self._finished
        self._finished = None
        if trainer.progress_bar_callback is not None:  # else it is drawn again, below the report
            trainer.progress_bar_callback.teardown(trainer, pl_module, stage)
        title = f"What the frozen features are worth ({type(pl_module).__name__})"
        lines = [protocol_text(protocol), *protocol["notes"]]
        print_report(report_table(rows, self.shots, title), lines, files)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> None:
        self._notes = []
        classes = num_classes_of(trainer, self.num_classes, _WHO)
        measure = partial(self._measure, trainer, pl_module.device, classes)

        def labelled(which: Split) -> Features:
            extracted = extract_features(trainer, pl_module, which, self.feature_method, _WHO)
            return labelled_only(extracted, classes, which, _WHO)

        bank, queries = labelled("bank"), labelled(split)
        if not is_fast_dev_run(trainer):
            warn_about_short_classes(bank.labels, max(self.shots), _WHO)
        rows = [{"features": "trained", **measure(bank, queries)}]
        for name in self.baselines:
            pair = self._baseline(name, trainer, pl_module, split, len(bank.labels))
            if pair is not None:
                known = (labelled_only(part, classes, split, _WHO) for part in pair)
                rows.append({"features": name, **measure(*known)})
        protocol = self._protocol(trainer, split, len(bank.labels), len(queries.labels))
        self._finish(trainer, rows, protocol)

    def _measure(
        self,
        trainer: pl.Trainer,
        device: torch.device,
        classes: int,
        bank: Features,
        queries: Features,
    ) -> dict[str, float]:
        """All accuracies of one kind of features; computed on rank zero."""

        def compute() -> dict[str, float]:
            known, asked = bank.features.to(device), queries.features.to(device)
            ranked = knn_predict(known, bank.labels, asked, classes, self.k, self.temperature)
            probe = fit_linear_probe(known, bank.labels, classes)
            hits = probe.predict(asked).cpu() == queries.labels
            values = {
                "knn_acc1": topk_accuracy(ranked, queries.labels),
                "linear_acc1": hits.float().mean().item(),
                "linear_l2": probe.penalty,
            }
            for n in self.shots:
                supports = draw_supports(bank.labels, n, self.draws)
                mean, std = mean_and_std(
                    low_shot_accuracies(
                        known, bank.labels, asked, queries.labels, classes, supports, self.l2
                    )
                )
                values |= {f"lowshot_{n}_acc1": mean, f"lowshot_{n}_std": std}
            return values

        return on_rank_zero(trainer, compute)

    def _baseline(
        self,
        name: str,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        split: Split,
        bank_size: int,
    ) -> tuple[Features, Features] | None:
        """Bank and queries of a baseline, or None with a note that says why."""
        function: FeatureFunction
        if name == "pixels":
            module, function = pl_module, partial(_pixels, bank_size)
        else:
            note = on_rank_zero(trainer, lambda: self._why_not_untrained(pl_module))
            if note is not None:
                self._notes.append(f"No untrained row: {note}.")
                return None
            module = _on_device(self._untrained, trainer, pl_module.device)
            function = feature_function(module, self.feature_method, _WHO)
        try:
            return (
                collect_features(trainer, module, "bank", function, _WHO),
                collect_features(trainer, module, split, function, _WHO),
            )
        except _TooManyPixelsError as error:
            self._notes.append(f"No pixels row: {error}.")
            return None
        finally:
            if module is not pl_module:
                module.cpu()

    def _why_not_untrained(self, pl_module: pl.LightningModule) -> str | None:
        if self._untrained is None:
            return "the module had been trained before this callback saw it"
        before, now = self._untrained.state_dict(), pl_module.state_dict()
        if before.keys() != now.keys():
            return "the module built its layers after setup (configure_model)"
        if all(torch.equal(before[name].cpu(), now[name].cpu()) for name in now):
            return "the module still has the weights it was built with (give ckpt_path)"
        return None

    def _protocol(
        self, trainer: pl.Trainer, split: str, bank_size: int, query_size: int
    ) -> dict[str, Any]:
        return {
            "split": split,
            "bank": bank_size,
            "queries": query_size,
            "feature_method": self.feature_method,
            "k": self.k,
            "temperature": self.temperature,
            "l2": self.l2,
            "draws": self.draws,
            "shots": list(self.shots),
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "notes": self._notes,
        }

    def _finish(
        self, trainer: pl.Trainer, rows: list[dict[str, Any]], protocol: dict[str, Any]
    ) -> None:
        run = Path(trainer.log_dir or trainer.default_root_dir)  # asks all processes
        if not trainer.is_global_zero:
            return
        folders = [run, Path(trainer.default_root_dir)]
        files = find_run_files(protocol["checkpoint"], folders)
        if not is_fast_dev_run(trainer):
            folder = Path(self.output) if self.output else run
            write_report(folder, rows, protocol)
            files = {"report": str(folder / "report.json"), **files}
        self._finished = rows, protocol, files


class _TooManyPixelsError(Exception):
    pass


def _pixels(bank_size: int, images: Tensor) -> Tensor:
    rows = images.flatten(1)
    size = 4 * bank_size * rows.shape[1]
    if size > _MAX_PIXEL_BYTES:
        raise _TooManyPixelsError(
            f"{bank_size:,} images of {rows.shape[1]:,} values would take {size / 2**30:.0f} GiB"
        )
    return rows


def _on_device(
    module: pl.LightningModule | None, trainer: pl.Trainer, device: torch.device
) -> pl.LightningModule:
    """Move a copy to the device, in the trainer's precision, with rank zero's weights."""
    assert module is not None
    module = trainer.precision_plugin.convert_module(module.to(device))  # type: ignore[assignment]
    if is_distributed():
        for value in module.state_dict().values():
            torch.distributed.broadcast(value, src=0)
    return module
