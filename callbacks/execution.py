"""How a run is executed: compiled, images by rows of channels, the precision of float32."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from lit_ssl.contracts.networks import blocks_of, names_of, networks_of
from lit_ssl.errors import InputError, check_choice
from lit_ssl.trainer.private import compiled_before, not_compiled

__all__ = ["Execution"]


class Execution(pl.Callback):
    """Makes the networks of any method faster without changing what they compute.

    What is global (float32, cudnn) is set for the run and put back at its end, and networks are
    compiled in place for the run: parameters, checkpoints and exports keep their names, and a run
    goes on from a checkpoint of a run that was executed otherwise.

    Args:
        compile: ``blocks`` compiles the repeated blocks of each network (one compilation serves all
            blocks of one form, so that it starts soon), ``network`` each network as a whole; losses
            and logging stay as they are. Results agree up to rounding.
        channels_last: keep the convolutions' weights as ``[out, H, W, in]`` in memory, by which
            activations become ``[B, H, W, C]``: faster convolutions, on CPUs, too.
        float32_matmul: of ``torch.set_float32_matmul_precision``: ``high`` computes float32
            products in TF32 on GPUs that have it; None: as it was set before.
        cudnn_benchmark: let cudnn try its algorithms on each new size of images; None: as it was
            set before.

    Raises:
        InputError: for an unknown word; at the start for networks that cannot be executed so.
    """

    backend: ClassVar[str] = "inductor"  # of torch.compile

    def __init__(
        self,
        compile: Literal["none", "blocks", "network"] = "none",
        channels_last: bool = False,
        float32_matmul: Literal["highest", "high", "medium"] | None = None,
        cudnn_benchmark: bool | None = None,
    ) -> None:
        check_choice("compile", compile, ("none", "blocks", "network"))
        if float32_matmul is not None:
            check_choice("float32_matmul", float32_matmul, ("highest", "high", "medium"))
        self.compile = compile
        self.channels_last = channels_last
        self.float32_matmul = float32_matmul
        self.cudnn_benchmark = cudnn_benchmark
        self._compiled: list[nn.Module] = []
        self._undo: list[Callable[[], Any]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set what is global; lay out the weights of convolutions.

        Raises:
            InputError: if the run has two of these callbacks, must be deterministic while cudnn is
                to choose its algorithms by their time, or has networks without images.
        """
        if sum(isinstance(callback, Execution) for callback in _callbacks(trainer)) > 1:
            raise InputError(
                "a run has one Execution: lit-ssl adds it, so give its options as --execution.…, "
                "and leave it out of trainer.callbacks"
            )
        if self.cudnn_benchmark and torch.are_deterministic_algorithms_enabled():
            raise InputError(
                "execution.cudnn_benchmark chooses algorithms by their time, and so not always the "
                "same: leave it out where trainer.deterministic is set"
            )
        self._set_globals()
        # configurations of PAWS that are older than this callback say it there
        if self.channels_last or getattr(pl_module, "channels_last", None):
            self._lay_out(pl_module)

    def _set_globals(self) -> None:
        if self.float32_matmul is not None:
            before = torch.get_float32_matmul_precision()
            self._undo.append(lambda: torch.set_float32_matmul_precision(before))
            torch.set_float32_matmul_precision(self.float32_matmul)
        if self.cudnn_benchmark is not None:
            was = torch.backends.cudnn.benchmark
            self._undo.append(lambda: setattr(torch.backends.cudnn, "benchmark", was))
            torch.backends.cudnn.benchmark = self.cudnn_benchmark

    def _lay_out(self, pl_module: pl.LightningModule) -> None:
        networks = [
            network
            for network in networks_of(pl_module)
            if any(isinstance(part, nn.Conv2d) for part in network.modules())
        ]
        if not networks:
            raise InputError(
                f"execution.channels_last is for convolutions over images, and the networks of "
                f"{type(pl_module).__name__} have none: leave it out"
            )
        for network in networks:
            for part in network.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):  # others may have 5 axes
                    part.to(memory_format=torch.channels_last)
        names = ", ".join(names_of(pl_module, networks))
        rank_zero_info(f"Execution: channels_last in {names}")

    def _compile(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compile what the module has by now; once."""
        if self.compile == "none" or self._compiled:
            return
        if compiled_before(pl_module):
            raise InputError(
                f"{type(pl_module).__name__} or a part of it was compiled before the run: leave "
                f"out either that or execution.compile: {self.compile}"
            )
        networks = networks_of(pl_module)
        if self.compile == "network":
            parts, what = networks, ", ".join(names_of(pl_module, networks))
        else:
            blocks = {network: blocks_of(network) for network in networks}
            with_blocks = [network for network in networks if blocks[network]]
            parts = list(dict.fromkeys(part for found in blocks.values() for part in found))
            counts = [f"{len(blocks[network])} of " for network in with_blocks]
            named = zip(counts, names_of(pl_module, with_blocks), strict=True)
            what = "blocks, " + ", ".join(f"{count}{name}" for count, name in named)
        if not parts:
            raise InputError(
                f"{type(pl_module).__name__} has no network with repeated blocks: use "
                "execution.compile: network"
            )
        if self.backend == "inductor":
            _check_compiler(pl_module.device)
        for part in parts:
            part.compile(backend=self.backend)
        self._compiled = parts
        rank_zero_info(f"Execution: compiles {what}")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compile, now that the module has all of its networks."""
        self._compile(trainer, pl_module)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put back what is global, and the networks' plain way of being called."""
        self._put_back()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """As at the end."""
        self._put_back()

    def _put_back(self) -> None:
        while self._undo:
            self._undo.pop()()
        for part in self._compiled:
            not_compiled(part)
        self._compiled = []


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def _check_compiler(device: torch.device) -> None:
    """Say at the start what torch.compile would miss at the first batch."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise InputError("execution.compile needs the package triton on GPUs: pip install it")
        return
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers if name):
        raise InputError(
            "execution.compile needs a C++ compiler on CPUs: install g++, or set CXX to one"
        )
