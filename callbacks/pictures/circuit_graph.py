"""Pictures of the circuit that a network has become."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.callbacks.pictures.circuit_drawing import draw_activity, draw_graph
from lit_ssl.callbacks.pictures.circuit_layout import circuit_layout
from lit_ssl.contracts.batches import parts_of
from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputAttributeError, InputError, InputImportError, by_name
from lit_ssl.imagenet_x.plot import figure_pixels
from lit_ssl.models.nac.signature_fit import UNTRUNCATED
from lit_ssl.trainer.pictures import keep_picture
from lit_ssl.trainer.private import ends_now, validate_the_end
from lit_ssl.trainer.run import is_fast_dev_run, run_folder

__all__ = ["CircuitGraph"]


class CircuitGraph(pl.Callback):
    """Draws the circuit of a ``NeuralAttentiveCircuit``, the module's ``net``.

    Two pictures, written to ``circuit/`` in the run's folder and shown in every logger that takes
    images (TensorBoard, Weights & Biases):

    - ``epoch_NNNN_graph.png``: link probabilities of the mediators, mean over depths, in the order
      of clusters; how many links modules have; the graph, drawn by forces. Modules are linked where
      the cosine distance of their signatures is at most ``max_distance``. Clusters are those of
      Louvain's method on these links;
    - ``epoch_NNNN_activity.png``: norm of the final state of each module, mean over the validation
      samples of each class, of the first loader. Without labels it is left out.

    During fit it draws after every n-th epoch and at the end; the activity is that of the
    validation at that step, and left out where there was none. ``trainer.validate`` and
    ``trainer.test`` draw ``validate_graph.png``, ``test_graph.png`` and so on. Where a generator
    makes another circuit for each sample, the graph is the one that it changes.

    Nothing of the training changes, random numbers included. Debugging runs draw nothing.

    Args:
        every_n_epochs: Draw after epochs n, 2n, … and at the end, >= 1.
        max_distance: In (0, 2]; None takes the kernel's truncation, or that of pruning, or 0.9.

    Raises:
        ValueError: If a value lies outside its range.
    """

    def __init__(self, every_n_epochs: int = 10, max_distance: float | None = None) -> None:
        if every_n_epochs < 1:
            raise InputError(f"CircuitGraph needs every_n_epochs >= 1, got {every_n_epochs}")
        if max_distance is not None and not 0 < max_distance <= 2:
            raise InputError(f"CircuitGraph needs max_distance in (0, 2], got {max_distance}")
        self.every_n_epochs = every_n_epochs
        self.max_distance = max_distance
        self._sums: Tensor | None = None  # of norms [K, U] and, last, the number of samples [K]
        self._epoch = 0
        self._last_step = -1  # at which it drew; −1: not in this call

    @by_name
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check what it needs before the first batch."""
        if stage == "predict" or is_fast_dev_run(trainer):
            return
        net: Any = getattr(pl_module, "net", None)
        if not hasattr(net, "module_activity") or not hasattr(net, "link_probabilities"):
            raise InputAttributeError(
                f"needs a module whose `net` is a NeuralAttentiveCircuit, not "
                f"{type(pl_module).__name__}: remove the callback, or use NAC"
            )
        if not net.has_graph:
            raise InputError(
                "needs a network with a graph; in this one every module hears every module: remove "
                "the callback"
            )
        if find_spec("matplotlib") is None:
            raise InputImportError(
                "needs matplotlib: pip install 'lit-ssl[examples]', or remove the callback"
            )
        self._last_step, self._sums = -1, None
        if stage == "fit":
            validate_the_end(trainer)
        if not _num_classes(trainer, net):
            rank_zero_info("CircuitGraph leaves out the activity per class: there are no classes")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the number of the epoch, which the trainer changes before the end of a fit."""
        self._epoch = trainer.current_epoch

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to add up, if this is a validation that is drawn."""
        self._sums = None
        net: Any = pl_module.net
        classes = _num_classes(trainer, net)
        if self._is_due(trainer) and classes:
            self._sums = torch.zeros(classes, net.num_modules + 1, device=pl_module.device)

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the activity of a batch of the first loader."""
        inputs, labels, _ = parts_of(batch)
        if self._sums is None or dataloader_idx or labels is None or inputs is None:
            return
        net: Any = pl_module.net
        with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
            norms = net.module_activity(inputs).float()
        known = (labels >= 0) & (labels < len(self._sums))
        rows = torch.cat([norms, torch.ones_like(norms[:, :1])], dim=1)[known]
        self._sums.index_add_(0, labels[known], rows)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if it is due."""
        if self._is_due(trainer):
            self._draw(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw an epoch that was not validated."""
        if self._last_step != trainer.global_step and self._is_due(trainer):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw an end that only a callback, such as EarlyStopping, has made one."""
        if self._last_step != trainer.global_step and not is_fast_dev_run(trainer):
            self._draw(trainer, pl_module)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking or is_fast_dev_run(trainer):
            return False
        is_nth = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return trainer.state.fn != "fit" or is_nth or ends_now(trainer)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        sums, self._sums = self._sums, None
        if sums is not None:
            sums = trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        folder = run_folder(trainer, ["circuit"])
        if not trainer.is_global_zero or folder is None:
            return
        command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
        name = f"epoch_{self._epoch:04d}" if command == "fit" else command
        for kind, figure in self._figures(trainer, pl_module.net, sums, name).items():
            pixels = figure_pixels(figure)
            path = folder / "circuit" / f"{name}_{kind}.png"
            picture = torch.from_numpy(pixels).permute(2, 0, 1)
            keep_picture(trainer, path, f"circuit/{kind}", picture)

    def _figures(
        self, trainer: pl.Trainer, net: Any, sums: Tensor | None, name: str
    ) -> dict[str, Any]:
        with torch.no_grad():
            links = net.link_probabilities().mean(0)[:, -net.num_modules :].double().cpu().numpy()
            unit = F.normalize(net.signatures["mediator"].double(), dim=-1)
            distances = (1 - unit @ unit.T).cpu().numpy()
        if not (np.isfinite(links).all() and np.isfinite(distances).all()):
            rank_zero_warn("CircuitGraph draws nothing: link probabilities are not finite")
            return {}
        options = net.kernel_options
        limit = self.max_distance or options.truncation or options.eval_truncation or UNTRUNCATED
        linked = distances <= limit
        layout = circuit_layout(links, linked)
        names = net.kept_modules.cpu().numpy()
        title = f"{name.replace('_', ' ')}, step {trainer.global_step}"
        note = f"{title}; linked: cosine distance ≤ {limit:g}"
        figures = {"graph": draw_graph(links, linked, layout, names, note)}
        if sums is not None and bool(sums[:, -1].any()):
            counts = sums[:, -1].numpy()
            means = (sums[:, :-1] / sums[:, -1:].clamp(min=1)).numpy()
            classes = getattr(data_source(trainer), "class_names", None)
            classes = classes if classes is not None and len(classes) == len(counts) else None
            note = f"{title}; states of the modules by class, {int(counts.sum()):,} samples"
            figures["activity"] = draw_activity(means, counts, layout, names, classes, note)
        return figures


def _num_classes(trainer: pl.Trainer, net: Any) -> int:
    return net.num_classes or getattr(data_source(trainer), "num_classes", 0) or 0
