"""What a predictor of attributes leaves with its run: the predictions and their quality."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_ssl.files import write_json
from lit_ssl.groups.cells import cells_of, group_counts
from lit_ssl.groups.label_files import write_group_labels
from lit_ssl.methods.groups.stages import AttributeStage
from lit_ssl.metrics.groups import PredictorScores
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.run import run_folder

__all__ = ["save_predictions"]

CSV_NAME = "predicted_groups.csv"
REPORT_NAME = "predictor_report.json"


def save_predictions(trainer: Any, data: Any, stage: AttributeStage) -> dict[str, float]:
    """Write ``predicted_groups.csv`` and ``predictor_report.json`` into the run's folder.

    Precision and recall are measured on rows that the predictor was not fitted to: those held out
    of the labelled ones, and, where the data set knows more than it tells the training, all others.

    Args:
        trainer: the running trainer.
        data: the data module.
        stage: the finished predictor.

    Returns:
        Values to log, by name.
    """
    predictions = stage.predictions(data)
    groups, truth = data.group_array("train"), data.true_group_array("train")
    others = np.flatnonzero((groups < 0) & (truth >= 0))
    quality = {
        "held_out": stage.quality(groups, stage.held_out_rows),
        "unlabelled": stage.quality(truth, others),
    }
    size = len(data.group_names)
    cells = cells_of(data.labels("train"), predictions.attributes, stage.num_attributes)
    guessed = group_counts(cells, size)
    labelled = group_counts(groups, size)
    _warn_about_empty(data, labelled, guessed)
    folder = run_folder(trainer, [CSV_NAME, REPORT_NAME])
    if folder is not None and trainer.is_global_zero:
        report = {
            "training_rows": len(groups),
            "labelled_rows": int((groups >= 0).sum()),
            "held_out_rows": len(stage.held_out_rows),
            "selected": "last epoch" if stage.best_epoch is None else f"epoch {stage.best_epoch}",
            "groups": {
                name: {"labelled": int(labelled[g]), "labelled_or_predicted": int(guessed[g])}
                for g, name in enumerate(data.group_names)
            },
            **{name: _describe(scores, data.group_names) for name, scores in quality.items()},
        }
        with may_be_lost(trainer, "the predicted groups"):
            write_group_labels(folder / CSV_NAME, predictions)
            write_json(folder / REPORT_NAME, report)
        rank_zero_info(f"predicted groups: {folder / CSV_NAME}")
    return {
        f"predictor/{name}_{value}": _number
        for name, scores in quality.items()
        if scores is not None
        for value, _number in _values(scores).items()
    }


def _warn_about_empty(data: Any, labelled: np.ndarray, guessed: np.ndarray) -> None:
    unseen = [data.group_names[g] for g in np.flatnonzero(labelled == 0)]
    if unseen:
        rank_zero_warn(
            f"no labelled row is in the group {' or '.join(unseen)}: how well its members are "
            "recognised rests on the attribute looking alike in all classes, and cannot be measured"
        )
    empty = [data.group_names[g] for g in np.flatnonzero(guessed == 0)]
    if empty:
        rank_zero_warn(f"no row is predicted to be in the group {' or '.join(empty)}")


def _values(scores: PredictorScores) -> dict[str, float]:
    values = {"accuracy": scores.accuracy.item(), "worst_recall": scores.worst_recall.item()}
    for name in ("recall", "precision"):
        for group, value in enumerate(getattr(scores, name).tolist()):
            values[f"{name}_{group}"] = value
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _describe(scores: PredictorScores | None, names: list[str]) -> dict[str, Any] | None:
    if scores is None:
        return None
    columns = ("recall", "precision", "tv_bound", "sizes", "predicted")
    cells = {
        name: {column: getattr(scores, column)[g].item() for column in columns}
        for g, name in enumerate(names)
    }
    totals = {name: getattr(scores, name).item() for name in ("accuracy", "worst_recall")}
    return {**totals, "groups": cells}
