"""The losses that keep a circuit's wiring in shape, of the parts that a network has."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.losses.nac import DistanceMixture, LinkProbabilityMatching, SignatureRepulsion
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.graph_priors import GraphPrior, link_targets

__all__ = ["WiringLosses", "mediator_links"]


class WiringLosses(nn.Module):
    """Repulsion of signatures, distance of link probabilities from a prior, mixture of distances.

    A network without a graph, such as a Perceiver IO, has none of them. Frozen signatures have no
    repulsion and no mixture, and a matching only where the bandwidths are learned.

    Args:
        net: the network; it is not kept.
        repulsion: whether there is a repulsion.
        repulsion_hinge: see [`SignatureRepulsion`][lit_ssl.losses.SignatureRepulsion].
        prior: family of the target probabilities of the mediators; None: no matching.
        prior_divergence: see [`LinkProbabilityMatching`][lit_ssl.losses.LinkProbabilityMatching].
        prior_floor: see there.
        prior_noise: see there.
        prior_refresh: see there.
        mixture_components: see [`DistanceMixture`][lit_ssl.losses.DistanceMixture]; 0: no mixture.

    Raises:
        InputError: for values outside their ranges, or a prior for a network without a graph.
    """

    def __init__(
        self,
        net: NeuralAttentiveCircuit,
        repulsion: bool,
        repulsion_hinge: float,
        prior: GraphPrior | None,
        prior_divergence: Literal["mse", "kl"],
        prior_floor: float,
        prior_noise: float,
        prior_refresh: int,
        mixture_components: int,
    ) -> None:
        super().__init__()
        if prior is not None and not net.has_graph:
            raise InputError(
                "prior needs a network with a graph, and this one has none: leave prior out"
            )
        self.repulsion = self.matching = self.mixture = None
        if not net.has_graph:
            return
        # what nothing that is trained could change is no part of the loss
        moves = any(table.requires_grad for table in net.signatures.values())
        bends = net.kernel_options.learnable_bandwidth
        repulsion, mixture_components = repulsion and moves, mixture_components if moves else 0
        prior = prior if moves or bends else None
        if repulsion:
            self.repulsion = SignatureRepulsion(repulsion_hinge)
        if prior is not None:
            self.matching = LinkProbabilityMatching(
                link_targets(prior, net.num_modules),
                prior_divergence,
                floor=prior_floor,
                noise=prior_noise,
                refresh=prior_refresh,
            )
        if mixture_components:
            self.mixture = DistanceMixture(mixture_components)

    def forward(self, net: NeuralAttentiveCircuit) -> dict[str, Tensor]:
        """The losses by name, scalars without their weights.

        Args:
            net: the circuit.
        """
        losses: dict[str, Tensor] = {}
        signatures = list(net.signatures.values())
        if self.repulsion is not None:
            losses["repulsion"] = self.repulsion(*signatures)
        if self.matching is not None:
            losses["prior"] = self.matching(mediator_links(net))
        if self.mixture is not None:
            losses["mixture"] = self.mixture(*signatures)
        return losses


def mediator_links(net: NeuralAttentiveCircuit) -> Tensor:
    """Link probabilities among the mediators, ``[depth, U, U]``, with gradient.

    Args:
        net: the circuit, with U modules.
    """
    return net.link_probabilities()[..., -net.num_modules :]
