"""What ``predict`` leaves on the disk: outputs, and the file and label of each."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors.torch import save
from torch import Tensor

from lit_ssl.cells import plain_cell
from lit_ssl.checkpoints.whole import save_whole
from lit_ssl.cli.output import short, tell
from lit_ssl.contracts.modules import features_of_inputs
from lit_ssl.datamodules.loading.resumable import RowsLoader
from lit_ssl.files import write_file
from lit_ssl.opening import writing
from lit_ssl.trainer.run import run_folder

__all__ = ["save_predictions"]

_ENDINGS = (".pt", ".safetensors", ".csv")


class _Known(NamedTuple):
    """What is known of the rows of this process, in the order in which they were predicted."""

    rows: np.ndarray  # int64 [n], in the split
    files: list[str]  # "" where a row has no name
    labels: np.ndarray | None  # int64 [n], -1 unknown
    readable: np.ndarray  # bool [n], False where another image stood in for one


def save_predictions(trainer: pl.Trainer) -> None:
    """Write what ``predict`` returned, unless a callback does so.

    Tensors of all batches are joined, in ``predictions.pt``; ``predictions.safetensors`` holds them
    as ``features`` (of classifiers: ``predictions``) with ``rows`` and ``labels``, and
    ``predictions.csv`` says the row, file and label of each. Images that could not be read are left
    out. With several processes each writes its share, of every W-th image, to
    ``predictions_RANK.*``.

    Args:
        trainer: which has just predicted.
    """
    predictions: Any = trainer.predict_loop.predictions
    has_writer = any(isinstance(c, BasePredictionWriter) for c in trainer.callbacks)  # type: ignore[attr-defined]
    stems = ["predictions"]
    if trainer.world_size > 1:
        stems = [f"predictions_{rank}" for rank in range(trainer.world_size)]
    names = [f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    folder = None if has_writer else run_folder(trainer, names)
    if not predictions or folder is None:
        return
    path = folder / stems[trainer.global_rank]
    if all(isinstance(part, Tensor) and part.ndim for part in predictions):
        predictions = _with_names(trainer, torch.cat(list(predictions)), path)
    with writing(path.with_suffix(".pt")):
        save_whole(predictions, path.with_suffix(".pt"))
    tell(f"predictions: {short(path.with_suffix('.pt'))}")


def _with_names(trainer: pl.Trainer, outputs: Tensor, path: Path) -> Tensor:
    """Write outputs with what is known of their rows; return those of readable images."""
    known = _known(trainer, len(outputs))
    if not known.readable.all():
        tell(f"left out: {int((~known.readable).sum()):,} images that cannot be read")
        kept = np.flatnonzero(known.readable)
        outputs = outputs[torch.from_numpy(kept)]
        files = [known.files[i] for i in kept]
        labels = None if known.labels is None else known.labels[kept]
        known = _Known(known.rows[kept], files, labels, known.readable[kept])
    step = getattr(type(trainer.lightning_module), "predict_step", None)
    kind = "features" if step is features_of_inputs else "predictions"
    tensors = {kind: outputs.contiguous(), "rows": torch.from_numpy(known.rows)}
    if known.labels is not None:
        tensors["labels"] = torch.from_numpy(known.labels)
    if tensors[kind].dtype == torch.bfloat16:  # which NumPy does not know
        tensors[kind] = tensors[kind].float()
    content = save(tensors, _metadata(trainer))
    write_file(path.with_suffix(".safetensors"), lambda file: file.write(content), binary=True)
    class_names = getattr(getattr(trainer, "datamodule", None), "class_names", None) or ()
    text = _table(known, class_names)
    write_file(path.with_suffix(".csv"), lambda file: file.write(text), binary=True)
    tell(f"with files and labels: {short(path)}.csv, {short(path)}.safetensors")
    return outputs


def _known(trainer: pl.Trainer, count: int) -> _Known:
    rows = trainer.global_rank + trainer.world_size * np.arange(count, dtype=np.int64)
    loader = trainer.predict_dataloaders
    reader = getattr(getattr(loader, "dataset", None), "reader", None)
    labels = name = None
    if isinstance(loader, RowsLoader) and loader.targets is not None:
        name = getattr(reader, "name", None)
        known = loader.targets()[0][rows]
        # numbers of images, and answers of several people, are no labels
        carried = getattr(getattr(trainer, "datamodule", None), "carried", ("label",))
        labels = known if carried[0] == "label" and known.ndim == 1 else None
    files = ["" if name is None else name(int(row)) or "" for row in rows]
    corrupt = getattr(reader, "corrupt", None)
    readable = np.ones(count, dtype=bool) if corrupt is None else ~corrupt[rows]
    return _Known(rows, files, labels, readable)


def _metadata(trainer: pl.Trainer) -> dict[str, str]:
    """Where the images lie, for whoever wants to show them."""
    reader = getattr(getattr(trainer.predict_dataloaders, "dataset", None), "reader", None)
    folder = getattr(reader, "folder", None)
    return (
        {}
        if folder is None
        else {"folder": os.fsencode(os.path.abspath(folder)).decode("utf-8", "replace")}
    )


def _table(known: _Known, class_names: Sequence[str]) -> bytes:
    """Rows, files, labels and names of classes as CSV; names of files as the disk has them.

    Names that a spreadsheet would take for formulas are written as ``lit_ssl.cells`` says.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "file", "label", "class"])
    labels = [""] * len(known.rows) if known.labels is None else known.labels.tolist()
    for row, file, label in zip(known.rows.tolist(), known.files, labels, strict=True):
        is_named = label != "" and 0 <= label < len(class_names)
        name = class_names[label] if is_named else ""
        writer.writerow([row, plain_cell(file), label, plain_cell(name)])
    return text.getvalue().encode("utf-8", "surrogateescape")
