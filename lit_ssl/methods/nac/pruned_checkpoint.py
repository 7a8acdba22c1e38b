"""A checkpoint with fewer modules, out of a checkpoint."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.checkpoints.whole import save_whole
from lit_ssl.errors import InputError, OutputError, did_you_mean
from lit_ssl.methods.nac.weights import build_circuit
from lit_ssl.models.nac.ranking import RANKINGS, usual_ranking

__all__ = ["Pruned", "prune_checkpoint"]

_BY_LOSS = ("taylor", "loo", "greedy")  # rankings that need data
# What belongs to the training that is over: the rest of a checkpoint is not kept.
_KEPT = (
    "epoch", "global_step", "pytorch-lightning_version", "hparams_name",
    "datamodule_hparams_name", "datamodule_hyper_parameters",
)  # fmt: skip
# Options of NAC that are for the circuit as it was, and what the smaller one has instead.
_AFTERWARDS = {
    "prior": None,
    "prior_weight": 0.0,
    "mixture_weight": 0.0,
    "start_temperature": None,
    "start_bandwidth": None,
    "start_truncation": None,
}


class Pruned(NamedTuple):
    """What was written.

    Attributes:
        modules: numbers of the mediators in the network that was trained first, ascending.
        method: how they were chosen; None: they were given.
        sizes: parameters of the network before and after.
    """

    modules: list[int]
    method: str | None
    sizes: tuple[int, int]


def prune_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    keep: int | Sequence[int],
    outputs: Sequence[int] | None = None,
    method: str | None = None,
) -> Pruned:
    """Write a checkpoint of the same run with fewer modules, for evaluation and further use.

    It is read as any other: by ``lit-ssl test --ckpt_path``, ``NAC.load_from_checkpoint``, or as
    ``pretrained``. Optimisers and regularisers of the wiring are not in it, so that the run does
    not go on from it. A circuit with ``eval_truncation`` has it as truncation.

    Args:
        checkpoint: of a run of ``lit-ssl fit`` with a circuit as ``net``.
        out: file to write; one that exists is not written over.
        keep: positions of the mediators, or how many of the best, ≥ 1.
        outputs: positions of the output modules to keep; None: all.
        method: of [`rank_modules`][lit_ssl.models.rank_modules], where ``keep`` is a number, but
            for those that need data; None: ``nested`` after a training with prefixes of the
            modules, else ``eigenvector``.

    Raises:
        InputFileNotFoundError: if there is no such file.
        InputError: if it cannot be read, or for modules out of range, or a method that is unknown
            or needs data.
        OutputError: if the file cannot be written.
    """
    out = Path(out)
    if out.exists() and os.path.samefile(out, checkpoint):
        raise InputError(f"{out} is the checkpoint itself: give the smaller one another name")
    if out.exists():
        raise InputError(f"{out} exists: give another name, or remove it first")
    instead = "load it in Python, and keep net.prune(keep)"
    built, config = build_circuit(checkpoint, instead)
    net: Any = built
    content = read_checkpoint(checkpoint)
    hparams = content["hyper_parameters"]
    if isinstance(keep, int):
        method = _method(method, hparams, net)
        keep = _best(net, keep, method)
    elif method is not None:
        raise InputError("a method chooses modules, and these are given: leave one of them out")
    small = net.prune(keep, outputs)
    state = content["state_dict"]
    others = {k: v for k, v in state.items() if not k.startswith(("net.", "wiring."))}
    written = {name: content[name] for name in _KEPT if name in content}
    written["state_dict"] = others | {f"net.{k}": v for k, v in small.state_dict().items()}
    changed: dict[str, Any] = {k: v for k, v in _AFTERWARDS.items() if k in hparams}
    if small.num_modules == 1 and "module_dropout" in hparams:
        changed["module_dropout"] = "none"  # else it stays: prefixes of a prefix still do alone
    written["hyper_parameters"] = {**hparams, **changed, "net": _config_of(small, config)}
    try:
        save_whole(written, out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    sizes = tuple(sum(p.numel() for p in one.parameters()) for one in (net, small))
    return Pruned(small.kept_modules.tolist(), method, (sizes[0], sizes[1]))


def _method(method: str | None, hparams: Mapping[str, Any], net: Any) -> str:
    if method is None:
        return usual_ranking(hparams.get("module_dropout"), net.has_graph)
    if method not in RANKINGS:
        raise InputError(f"cannot rank modules by {method!r}.{did_you_mean(method, RANKINGS)}")
    if method in _BY_LOSS:
        raise InputError(
            f"{method} ranks modules by a loss and needs data: call net.rank_modules({method!r}, "
            "batches) in Python, and name the modules to keep"
        )
    return method


def _best(net: Any, count: int, method: str) -> list[int]:
    if not 1 <= count <= net.num_modules:
        raise InputError(f"cannot keep {count} modules: give 1 to {net.num_modules}, which it has")
    return sorted(net.rank_modules(method)[:count].tolist())


def _config_of(small: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """How the smaller network is built, from how the whole one was."""
    changed = copy.deepcopy(dict(config))
    options = dict(changed.get("init_args") or {})
    options["num_modules"] = small.num_modules
    if small.wiring == "from_input" and "num_input_modules" in options:
        options["num_input_modules"] = None  # as many
    if options.get("readout") != "slot":
        options["num_output_modules"] = len(small.kept_outputs)
    if "graph_prior" in options:
        options["graph_prior"] = None  # of another number of modules; signatures are trained
    if small.has_graph:
        kernels = {"kernel": small.kernel(0), "read_out_kernel": small.read_out.attention.kernel}
        for name, kernel in kernels.items():
            if kernel.truncation is not None:
                options[name] = {**(options.get(name) or {}), "truncation": kernel.truncation}
    changed["init_args"] = options
    return changed
