"""The page of a training: how it went, in one file."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl

from lit_ssl.errors import by_name
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.report_page import write_run_page
from lit_ssl.trainer.run import check_output, run_folder

__all__ = ["RunPage"]

_FILE = "run.html"


class RunPage(pl.Callback):
    """Writes ``run.html`` at the end of a fit: last results, curves, pictures, configuration.

    The page is one file, which opens without a network. Curves come from the files of
    TensorBoard's and the CSV logger in the run's folder; without either there are none. Reports of
    ``test`` and ``validate`` write a page of their own, ``index.html``.

    Args:
        output: folder of the page; None takes the run's.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._folder: Path | None = None

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the page can be written, before the training."""
        if stage == "fit":
            check_output(trainer, self.output)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the folder; the page waits for the pictures of other callbacks."""
        self._folder = run_folder(trainer, [_FILE], self.output)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the page."""
        folder, self._folder = self._folder, None
        if folder is None or not trainer.is_global_zero:
            return
        results = [(name, float(value)) for name, value in trainer.callback_metrics.items()]
        path = folder / _FILE
        with may_be_lost(trainer, "the page of the run"):
            write_run_page(trainer, path, results)
            print(f"page: {path}", flush=True)
