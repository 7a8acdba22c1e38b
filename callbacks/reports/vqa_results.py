"""Answers to questions in the form in which the server of VQA takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_ssl.contracts.data import data_source
from lit_ssl.distributed import gather_rows, process_rank, world_size
from lit_ssl.errors import InputError, by_name
from lit_ssl.files import write_json
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import check_output, run_folder

__all__ = ["VQAResults"]

_FILE = "vqa_results.json"
_NEEDS = (
    "needs a data module whose rows have a column question_id, and class_names, such as "
    "VQAv2DataModule; {found}"
)


class VQAResults(pl.Callback):
    """Writes the answers of ``predict`` to ``vqa_results.json``, one file for all processes.

    It is what the evaluation server of VQA takes: a list of ``{"question_id": 262148000,
    "answer": "down"}``, in the order of the questions. For a module that predicts numbers of
    answers, such as [`VQAClassifier`][lit_ssl.methods.VQAClassifier], on data with the column
    ``question_id``. A page beside it, ``index.html``, shows which answers were given most.

    Args:
        output: folder of the files; None takes the run's.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._answers: list[Tensor] = []
        self._folder: Path | None = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the data, and that the file can be written, before anything is predicted."""
        if stage != "predict":
            return
        data = data_source(trainer)
        rows = data.rows("predict") if callable(getattr(data, "rows", None)) else None
        if rows is None or "question_id" not in rows.columns:
            raise InputError(
                _NEEDS.format(
                    found=f"{type(data).__name__} has no such column. Remove the callback"
                )
            )
        if not getattr(data, "class_names", None):
            raise InputError(_NEEDS.format(found=f"{type(data).__name__} has no class_names"))
        check_output(trainer, self.output)
        self._answers = []

    @by_name
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers of a batch."""
        is_answers = isinstance(outputs, Tensor) and outputs.dtype == torch.int64
        if not is_answers or outputs.ndim != 1:
            raise InputError(
                f"needs numbers of answers, int64 [B], from predict_step, which "
                f"{type(pl_module).__name__} does not give: use VQAClassifier, or remove the "
                "callback"
            )
        self._answers.append(outputs)

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        data = data_source(trainer)
        empty = torch.empty(0, dtype=torch.int64, device=pl_module.device)
        answers = torch.cat([empty, *(part.to(empty) for part in self._answers)])
        # Shards are every W-th row, in order.
        rows = process_rank() + world_size() * torch.arange(len(answers), device=answers.device)
        found = torch.cat(gather_rows(torch.stack([rows, answers], dim=1)))
        folder = run_folder(trainer, [_FILE, PAGE], self.output)
        if folder is None or not trainer.is_global_zero:
            return
        ids, names = data.column("question_id", "predict").tolist(), data.class_names
        content = [
            {"question_id": ids[row], "answer": names[answer]}
            for row, answer in sorted(found.tolist())
        ]
        path = folder / _FILE
        with may_be_lost(trainer, "the answers of VQAResults"):
            write_json(path, content)
        part = "" if len(content) == len(ids) else f" of {len(ids):,}, which servers refuse,"
        rank_zero_info(f"VQAResults: {len(content):,} answers{part} in {path}")
        lines = [f"{len(content):,} answers{part.rstrip(',')}, none of them judged here."]
        report = Report("Answers given", [answer_table(content)], lines, [path])
        add_report(trainer, folder, type(self).__name__, report)
        self._folder = folder

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the page."""
        folder, self._folder = self._folder, None
        page = None if folder is None else finish_page(trainer, folder)
        if page is not None:
            rank_zero_info(f"VQAResults: the answers given most in {page}")


def answer_table(content: Sequence[dict[str, Any]], most: int = 20) -> Any:
    """Table of the answers that were given most, by which a network that says one thing shows.

    Args:
        content: dictionaries with ``answer``.
        most: rows at most.

    Returns:
        A ``rich`` table.
    """
    from rich.markup import escape
    from rich.table import Table

    counts = Counter(row["answer"] for row in content)
    table = Table(title=f"The {min(most, len(counts))} most of {len(counts):,} answers given")
    table.add_column("answer")
    for header in ("questions", "%"):
        table.add_column(header, justify="right")
    for answer, count in counts.most_common(most):
        table.add_row(escape(str(answer)), f"{count:,}", f"{100 * count / len(content):.1f}")
    return table
