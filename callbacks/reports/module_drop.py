"""What a circuit costs and what it knows with fewer modules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from lit_ssl.callbacks.reports.module_drop_networks import (
    Sweep,
    circuit_of,
    gate_network,
    sweep_rows,
    timed_calls,
)
from lit_ssl.callbacks.reports.module_drop_output import (
    FILES,
    TITLE,
    draw_sweep,
    module_table,
    need_matplotlib,
    print_sweep,
    sweep_lines,
    write_sweep,
)
from lit_ssl.callbacks.reports.timing import device_name, median_times, rows_of
from lit_ssl.contracts.batches import labelled_inputs
from lit_ssl.contracts.data import bank_loader, check_bank, data_source
from lit_ssl.contracts.evaluation_sets import evaluation_sets
from lit_ssl.errors import InputError, by_name, did_you_mean
from lit_ssl.imagenet_x.plot import figure_pixels
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.ranking import RANKINGS, usual_ranking
from lit_ssl.trainer.lost_files import may_be_lost
from lit_ssl.trainer.passes import evaluate_batches, on_rank_zero
from lit_ssl.trainer.pictures import log_picture
from lit_ssl.trainer.report_page import PAGE, Report, add_report, finish_page
from lit_ssl.trainer.run import check_output, is_fast_dev_run, origin_of, run_folder

__all__ = ["ModuleDropSweep"]

_GATE = 0.05  # by which the full accuracy has to exceed that without mediators
_NEED_LOSS = ("taylor", "loo", "greedy")


class ModuleDropSweep(pl.Callback):
    """Accuracy and wall-clock time of a circuit with fewer and fewer of its modules.

    After ``trainer.validate`` and ``trainer.test`` it prints a table and writes
    ``module_drop.csv``, ``.json``, ``.png`` and a page, ``index.html``, into the run's folder;
    loggers that take images (TensorBoard, Weights & Biases) show the curve. During ``fit`` it does
    nothing.

    Every level is a smaller network (``net.prune``), with all that does not depend on the input
    computed beforehand (``fold``), and so is the full one. Accuracies are over all sets, batches
    and processes of the evaluation. Times are medians on rank zero, while other processes wait, of
    the circuit alone (tokens are there) and of the whole network, in the run's precision; the host
    waits for the device. Where the Trainer limits its batches, the accuracies are over these.

    **Gate.** That modules can be dropped says nothing where they are by-passed. So the accuracy
    without any mediator is measured as well (``persistent`` wiring where the read-out hears the
    inputs), or with one random mediator (otherwise). Unless the full accuracy exceeds it by 5
    points, the table says that the sweep is void.

    Args:
        levels: Shares of the modules to keep, each in (0, 1]; the full network is always there.
        counts: Numbers of modules to keep in place of ``levels``, each ≥ 1.
        method: By which modules are ranked, the best are kept
            ([`rank_modules`][lit_ssl.models.rank_modules]). None: ``nested`` after a training
            with nested, sandwich or distilled module dropout, else ``eigenvector``.
        batch_sizes: Sizes of the batches that are timed, each ≥ 1.
        calibration_batches: Batches of training images, seen as in evaluation, for the methods that
            look at a loss (``taylor``, ``loo``, ``greedy``), ≥ 1.
        min_runs: Timed runs of each network and batch size at least, ≥ 1.
        seconds: And at least so long, for each network on average. They take turns.
        seed: Of the one random mediator.
        output: Folder of the files; None takes the run's.
        plot: Whether to draw the curve (needs matplotlib).

    Raises:
        InputError: For values outside their ranges, or a module whose ``net`` is no circuit.

    Source: ours; the gate too.
    """

    def __init__(
        self,
        levels: Sequence[float] = (1.0, 0.5, 0.25, 0.125),
        counts: Sequence[int] | None = None,
        method: str | None = None,
        batch_sizes: Sequence[int] = (1, 64),
        calibration_batches: int = 4,
        min_runs: int = 5,
        seconds: float = 0.3,
        seed: int = 0,
        output: str | None = None,
        plot: bool = True,
    ) -> None:
        if not levels or not all(0 < level <= 1 for level in levels):
            raise InputError(f"ModuleDropSweep needs levels in (0, 1], got {list(levels)}")
        least = min([*(counts or [1]), *batch_sizes, calibration_batches, min_runs])
        if least < 1 or not batch_sizes or seconds < 0:
            raise InputError(
                "ModuleDropSweep needs counts, batch_sizes, calibration_batches and min_runs >= 1 "
                f"and seconds >= 0, got {counts and list(counts)}, {list(batch_sizes)}, "
                f"{calibration_batches}, {min_runs} and {seconds}"
            )
        if method is not None and method not in RANKINGS:
            near = did_you_mean(method, RANKINGS)
            raise InputError(f"ModuleDropSweep cannot rank modules by {method!r}.{near}")
        self.levels = tuple(levels)
        self.counts = None if counts is None else tuple(counts)
        self.method = method
        self.batch_sizes = tuple(sorted(set(batch_sizes)))
        self.calibration_batches = calibration_batches
        self.min_runs = min_runs
        self.seconds = seconds
        self.seed = seed
        self.output = output
        self.plot = plot
        self._sweep: Sweep | None = None
        self._finished: tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]] | None = None
        self._folder: Path | None = None

    # hooks

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the module, the levels and the folder, before anything is read."""
        if stage not in ("validate", "test"):
            return
        self._finished = None
        net = circuit_of(pl_module)
        self._sizes(net)
        check_output(trainer, self.output)
        if self.plot:
            need_matplotlib()
        method = self._method(pl_module)
        if method in _NEED_LOSS:
            check_bank(trainer)
        if not net.has_graph and method not in (*_NEED_LOSS, "nested", "random"):
            raise InputError(
                f"cannot rank the modules of a network without a graph by {method}: choose "
                "nested, loo, taylor, greedy or random"
            )

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank and prune, outside of ``fit``."""
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Rank and prune."""
        self._begin(trainer, pl_module, "test")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Let every network answer the batch."""
        if self._sweep is not None:
            self._sweep.answer(trainer, batch, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure times; write."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure times; write."""
        self._finish(trainer, pl_module, "test")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the table, after Lightning's own table of metrics."""
        self._sweep = None
        if self._finished is None:
            return
        (rows, summary, files), self._finished = self._finished, None
        folder, self._folder = self._folder, None
        if folder is not None and (page := finish_page(trainer, folder)) is not None:
            files = {**files, "page": str(page)}
        if trainer.progress_bar_callback is not None:  # else it is drawn again, below the report
            trainer.progress_bar_callback.teardown(trainer, pl_module, stage)
        print_sweep(rows, summary, files)

    # parts

    def _method(self, pl_module: pl.LightningModule) -> str:
        if self.method is not None:
            return self.method
        training = pl_module.hparams.get("module_dropout")
        return usual_ranking(training, circuit_of(pl_module).has_graph)

    def _sizes(self, net: NeuralAttentiveCircuit) -> list[int]:
        """Numbers of modules to keep, all of them first."""
        whole = net.num_modules
        wanted = self.counts or [max(1, round(level * whole)) for level in self.levels]
        if max(wanted) > whole:
            raise InputError(f"counts must be at most the {whole} modules there are: {max(wanted)}")
        return sorted({whole, *wanted}, reverse=True)

    @by_name
    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        net = circuit_of(pl_module)
        order = on_rank_zero(trainer, lambda: self._rank(trainer, pl_module, net).tolist())
        networks: dict[int, nn.Module] = {}
        for size in self._sizes(net):
            small = net.prune(order[:size]) if size < net.num_modules else copy.deepcopy(net)
            networks[size] = small.fold()
        gate, kind = gate_network(net, self.seed)
        sets = evaluation_sets(data_source(trainer), split)
        self._sweep = Sweep(networks, gate, kind, order, sets, pl_module)

    def _rank(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, net: NeuralAttentiveCircuit
    ) -> Tensor:
        method = self._method(pl_module)
        if method not in _NEED_LOSS:
            return net.rank_modules(method)
        classes = net.num_classes
        batches = evaluate_batches(
            trainer,
            pl_module,
            lambda batch, _: labelled_inputs(batch, classes),
            bank_loader(trainer),
            self.calibration_batches,
        )
        return net.rank_modules(method, batches)

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is None:
            return
        accuracies = {size: sweep.accuracies(size) for size in (*sweep.networks, None)}
        times = on_rank_zero(trainer, lambda: self._times(trainer, pl_module, sweep))
        rows = sweep_rows(accuracies, times)
        name = next(name for name in rows[0] if name.endswith("acc1"))
        for row in rows:
            pl_module.log(f"{split}/modules_{row['modules']}_{name}", row[name], sync_dist=True)
        folder = run_folder(trainer, [*FILES, PAGE], self.output)
        if not trainer.is_global_zero:
            return
        gap = rows[0][name] - accuracies[None][name]
        summary = {
            "split": split,
            "method": self._method(pl_module),
            "kept_first": sweep.order,
            "gate": {
                "network": sweep.kind,
                **accuracies[None],
                "gap": gap,
                "is_void": not gap >= _GATE,  # also where an accuracy is not known
            },
            "device": device_name(pl_module.device),
            "threads": torch.get_num_threads(),
            "precision": str(trainer.precision),
            **origin_of(trainer),
        }
        files: dict[str, str] = {}
        if folder is not None:
            figure = draw_sweep(rows, summary, self.batch_sizes) if self.plot else None
            with may_be_lost(trainer, "the report of ModuleDropSweep"):
                files = write_sweep(folder, rows, summary, figure)
            if figure is not None:
                pixels = torch.from_numpy(figure_pixels(figure)).permute(2, 0, 1)
                log_picture(trainer, "module_drop", pixels)
            drawn = [Path(files["curve"])] if "curve" in files else []
            report = Report(
                TITLE, [module_table(rows)], sweep_lines(summary), [*map(Path, files.values())],
                drawn,
            )  # fmt: skip
            add_report(trainer, folder, type(self).__name__, report)
            self._folder = folder
        self._finished = rows, summary, files

    def _times(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, sweep: Sweep
    ) -> dict[int, dict[str, float]]:
        """Milliseconds for each input, by number of modules and kind."""
        quick = is_fast_dev_run(trainer)
        limits = (1, 0.0) if quick else (self.min_runs, self.seconds)
        times: dict[int, dict[str, float]] = {size: {} for size in sweep.networks}
        if sweep.sample is None:
            return times
        rank_zero_info(
            f"ModuleDropSweep: timing {len(times)} networks with batches of "
            f"{', '.join(map(str, self.batch_sizes))}"
        )
        for batch_size in self.batch_sizes:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                calls = timed_calls(sweep.networks, rows_of(sweep.sample, batch_size))
                taken = median_times(calls, pl_module.device, *limits)
            for (size, kind), value in taken.items():
                times[size][f"{kind}_ms_b{batch_size}"] = 1e3 * value / batch_size
        return times
