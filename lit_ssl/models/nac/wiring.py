"""Who is linked with whom in a circuit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.nac.attention import Propagator
from lit_ssl.models.nac.graph_priors import GraphPrior
from lit_ssl.models.nac.kernel import KernelOptions, SignatureKernel
from lit_ssl.models.nac.signature_fit import FitReport, fit_signatures

__all__ = ["Wiring"]


class Wiring(nn.Module):
    """Part of a ``NeuralAttentiveCircuit``: the graph of its modules."""

    depth: int
    wiring: str
    graph_prior: GraphPrior | None
    kernel_options: KernelOptions
    signatures: nn.ParameterDict
    propagators: nn.ModuleList
    kept_modules: Tensor
    is_wired: Tensor

    @property
    def num_modules(self) -> int:
        """Number U of mediators."""
        return len(self.kept_modules)

    @property
    def has_graph(self) -> bool:
        """Whether signatures decide who is linked."""
        return "mediator" in self.signatures

    def propagator(self, depth: int) -> Propagator:
        """The propagator of a depth; the same for all where they are shared.

        Args:
            depth: from 0.
        """
        return self.propagators[depth % len(self.propagators)]  # type: ignore[return-value]

    def init_signatures(self) -> FitReport | None:
        """Fit the signatures of the mediators to ``graph_prior``.

        For the start of a training: seconds, on the CPU, the same for the same seed. Distances
        keep a margin around the truncation that the kernel has, in training or after pruning. It
        is done once: a network that has been fitted, here or as its weights say, stays as it is.

        Returns:
            What the fit reached; None where there is no prior, or it has been done before.
        """
        if self.graph_prior is None or self.is_wired:
            return None
        prior, options = self.graph_prior, self.kernel_options
        table = self.signatures["mediator"]
        fitted, report = fit_signatures(
            prior.adjacency(self.num_modules),
            table.shape[1],
            truncation=options.truncation or options.eval_truncation,
            margin=prior.margin,
            steps=prior.steps,
            lr=prior.lr,
            seed=prior.seed,
        )
        with torch.no_grad():
            table.copy_(fitted)
            self.is_wired.fill_(1)
        return report

    def link_probabilities(self, depth: int | None = None) -> Tensor:
        """P of the mediators as receivers, differentiable, float32 or float64.

        Args:
            depth: of one propagator; None: of all.

        Returns:
            ``[U, V]``, or ``[depth, U, V]``; V senders: the mediators, after the input modules in
            the wiring ``persistent``.

        Raises:
            ValueError: for a network without a graph.
        """
        if not self.has_graph:
            raise InputError("this network has no graph: every module hears every module")
        if depth is None:
            return torch.stack([self.link_probabilities(d) for d in range(self.depth)])
        mediators = self.signatures["mediator"]
        senders = mediators
        if self.wiring == "persistent":
            senders = torch.cat([self.signatures["input"], mediators])
        return self.kernel(depth).link_probabilities(mediators, senders)

    def kernel(self, depth: int) -> SignatureKernel:
        """The kernel of a depth.

        Args:
            depth: from 0.

        Raises:
            ValueError: for a network without a graph.
        """
        kernel = self.propagator(depth).attention.kernel
        if kernel is None:
            raise InputError("this network has no graph: every module hears every module")
        return kernel

    def bandwidths(self) -> Tensor:
        """ε of each depth, ``[depth]``."""
        return torch.stack([self.kernel(depth).bandwidth for depth in range(self.depth)])

    @torch.no_grad()
    def graph(self, threshold: float = 0.5, depth: int = 0) -> Tensor:
        """Which mediators are linked: bool ``[U, U]``, P ≥ threshold.

        Args:
            threshold: in [0, 1].
            depth: from 0.

        Returns:
            Row: who hears; column: who is heard.
        """
        return self.link_probabilities(depth)[:, -self.num_modules :] >= threshold
