"""Signatures → link probabilities → a sparse random graph, as a bias of attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_ssl.errors import InputError, check_choice

__all__ = ["KernelOptions", "SignatureKernel"]

EvalMode = Literal["soft", "threshold", "sample"]
SamplePer = Literal["sample", "batch"]

_CLAMP = torch.finfo(torch.float32).eps  # of probabilities, in every precision
_SOFT_WIDTH, _SOFT_DEPTH = 0.1, 30.0  # distance over which a soft truncation falls, and how far


@dataclass(frozen=True)
class KernelOptions:
    """Options of a [`SignatureKernel`][lit_ssl.models.SignatureKernel].

    Args:
        bandwidth: ε > 0, at the start.
        learnable_bandwidth: whether log ε is trained.
        truncation: distance in (0, 2] beyond which there is no link; None: all may link. A pair
            beyond it gets no gradient, so that a dead edge stays dead: prefer ``eval_truncation``,
            ``soft_truncation`` or a small bandwidth.
        soft_truncation: beyond ``truncation``, let log P fall by 30 over a distance of 0.1 in
            training, in place of an end at once.
        eval_truncation: a truncation that only pruned networks have; see
            [`prune`][lit_ssl.models.NeuralAttentiveCircuit.prune].
        temperature: τ > 0 of the relaxed Bernoulli samples.
        stochastic: whether training samples the graph; else it uses the probabilities.
        sample_per: draw a graph for each sample, or one for the whole batch, which takes B times
            less memory and has more variance.
        eval_mode: ``soft``: the probabilities; ``threshold``: links with P ≥ 0.5; ``sample``: a
            graph is drawn as in training.

    Raises:
        ValueError: for values outside their ranges.
    """

    bandwidth: float = 1.0
    learnable_bandwidth: bool = True
    truncation: float | None = None
    soft_truncation: bool = False
    eval_truncation: float | None = None
    temperature: float = 0.5
    stochastic: bool = True
    sample_per: SamplePer = "sample"
    eval_mode: EvalMode = "soft"

    def __post_init__(self) -> None:
        check_choice("sample_per", self.sample_per, get_args(SamplePer))
        check_choice("eval_mode", self.eval_mode, get_args(EvalMode))
        for name in ("bandwidth", "temperature"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} of a kernel must be a positive number, not {value}")
        for name in ("truncation", "eval_truncation"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 2:
                raise InputError(
                    f"{name} must be a cosine distance in (0, 2], or null for none, not {value}"
                )
        if self.soft_truncation and self.truncation is None:
            raise InputError("soft_truncation softens the end at a truncation: give truncation")


class SignatureKernel(nn.Module):
    """Probabilities of links between modules, and graphs drawn from them.

        δ_uv = 1 − cos(s_u, s_v)                       in [0, 2]
        P_uv = exp(−δ_uv / ε), 0 where δ_uv > t
        K_uv = σ((logit P_uv + logit r) / τ)           r uniform, in training
        K_uv = P_uv                                    in evaluation

    All of it in float32 or float64, also inside autocast: half precision would lose small
    distances and let dead links leak. A receiver whose senders all lie beyond the truncation has
    P = 0 everywhere; where no graph is sampled, it hears the closest one.

    Args:
        options: see [`KernelOptions`][lit_ssl.models.KernelOptions].

    Attributes:
        temperature: τ, may be changed between steps.
        truncation: t or None, may be changed between steps.

    Source: arXiv 2210.08031, SKMDPA.
    """

    def __init__(self, options: KernelOptions | None = None) -> None:
        super().__init__()
        options = KernelOptions() if options is None else options
        self.options = options
        self.temperature = options.temperature
        self.truncation = options.truncation
        # Positive whatever a step does; the source keeps ε itself.
        log_bandwidth = torch.tensor(math.log(options.bandwidth))
        self.log_bandwidth = nn.Parameter(log_bandwidth, options.learnable_bandwidth)
        self.folded: Tensor | None
        self.register_buffer("folded", None, persistent=False)
        self.register_load_state_dict_pre_hook(_unfold)

    @property
    def bandwidth(self) -> Tensor:
        """ε, a number."""
        return _wide(self.log_bandwidth).exp()

    def distances(self, receivers: Tensor, senders: Tensor) -> Tensor:
        """1 − cos of signatures ``[…, U, G]`` and ``[…, V, G]`` → ``[…, U, V]``, in [0, 2].

        Args:
            receivers: signatures of U modules.
            senders: signatures of V modules.
        """
        with torch.autocast(receivers.device.type, enabled=False):
            a, b = (F.normalize(_wide(part), dim=-1) for part in (receivers, senders))
            return (1 - a @ b.transpose(-1, -2)).clamp(min=0)  # rounding may go below

    def link_probabilities(self, receivers: Tensor, senders: Tensor) -> Tensor:
        """P ``[…, U, V]`` of signatures, 0 beyond the truncation; differentiable.

        Args:
            receivers: ``[…, U, G]``.
            senders: ``[…, V, G]``.
        """
        return self._probabilities(self.distances(receivers, senders))

    def _probabilities(self, distances: Tensor) -> Tensor:
        return self._log_links(distances).exp()

    def _log_links(self, distances: Tensor) -> Tensor:
        """Log P, −inf where there is no link."""
        log_links = -distances / self.bandwidth
        if self.truncation is None:
            return log_links
        if self.options.soft_truncation and self.training:
            beyond = ((distances - self.truncation) / _SOFT_WIDTH).clamp(0, 1)
            return log_links - _SOFT_DEPTH * beyond
        return log_links.masked_fill(distances > self.truncation, -torch.inf)

    def sample(self, probabilities: Tensor, uniforms: Tensor) -> Tensor:
        """Log of relaxed Bernoulli samples.

        Args:
            probabilities: ``[…, U, V]``.
            uniforms: numbers in [0, 1] that broadcast against them.

        Returns:
            log K, finite.
        """
        wide = probabilities.clamp(_CLAMP, 1 - _CLAMP)
        noise = uniforms.clamp(_CLAMP, 1 - _CLAMP)
        return F.logsigmoid((wide.logit() + noise.logit()) / self.temperature)

    def forward(
        self, receivers: Tensor, senders: Tensor, batch: int, uniforms: Tensor | None = None
    ) -> Tensor:
        """Bias of the scores of attention: log K.

        Args:
            receivers: signatures ``[U, G]``, or ``[B, U, G]`` of each sample.
            senders: signatures ``[V, G]`` or ``[B, V, G]``.
            batch: B.
            uniforms: ``[B, U, V]``, the random numbers of a sampled graph; None: draw them.

        Returns:
            float32 or float64 ``[B, U, V]``, or ``[1, U, V]`` where all samples have the same.
        """
        if self.folded is not None:
            return self.folded
        distances = self.distances(receivers, senders)
        with torch.autocast(distances.device.type, enabled=False):
            bias = self._bias(distances, batch, uniforms)
        return bias if bias.ndim == 3 else bias[None]

    def _bias(self, distances: Tensor, batch: int, uniforms: Tensor | None) -> Tensor:
        options = self.options
        mode = (
            options.eval_mode if not self.training else "sample" if options.stochastic else "soft"
        )
        if mode == "sample":
            probabilities = self._probabilities(distances)
            if uniforms is None:
                count = batch if options.sample_per == "sample" else 1
                shape = (count, *distances.shape[-2:])
                uniforms = torch.rand(shape, device=distances.device, dtype=distances.dtype)
            return self.sample(probabilities, uniforms)
        if mode == "threshold":
            alive = keep_closest(self._probabilities(distances) >= 0.5, distances)
            return torch.zeros_like(distances).masked_fill(~alive, -torch.inf)
        if self.truncation is None or (options.soft_truncation and self.training):
            return self._log_links(distances)
        alive = keep_closest(distances <= self.truncation, distances)
        return (-distances / self.bandwidth).masked_fill(~alive, -torch.inf)

    @property
    def is_constant(self) -> bool:
        """Whether the bias is the same for all batches in evaluation."""
        return self.options.eval_mode != "sample"

    def fold(self, receivers: Tensor, senders: Tensor) -> None:
        """Keep the bias of these signatures for evaluation; ends with ``train()`` or loading.

        Args:
            receivers: ``[U, G]``.
            senders: ``[V, G]``.
        """
        self.folded = None
        self.folded = self(receivers, senders, batch=1).detach() if self.is_constant else None

    def train(self, mode: bool = True) -> SignatureKernel:
        """Switch to training, where nothing is kept, or to evaluation."""
        if mode:
            self.folded = None
        return super().train(mode)


def keep_closest(alive: Tensor, distances: Tensor) -> Tensor:
    """Where a row ``[…, U, V]`` has no link left, give it the one to its closest sender.

    Args:
        alive: bool, True where there is a link.
        distances: of the signatures, of the same shape.
    """
    closest = distances.detach().argmin(dim=-1, keepdim=True)
    rescue = torch.zeros_like(alive).scatter(-1, closest, True)
    return alive | (rescue & ~alive.any(dim=-1, keepdim=True))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _unfold(module: nn.Module, *_: object) -> None:
    module.folded = None  # type: ignore[assignment]
