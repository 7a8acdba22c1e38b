"""What makes a trained circuit smaller and faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from lit_ssl.models.nac.attention import Propagator
from lit_ssl.models.nac.pruning import fold_circuit, pruned
from lit_ssl.models.nac.ranking import rank_modules
from lit_ssl.models.nac.read_in import ReadIn

__all__ = ["Smaller"]

Circuit = TypeVar("Circuit", bound="Smaller")


class Smaller(nn.Module):
    """Part of a ``NeuralAttentiveCircuit``: leaving modules out for good."""

    read_in: ReadIn
    read_out: Propagator
    generator: nn.Module | None

    def prune(
        self: Circuit, keep: Tensor | Sequence[int], outputs: Tensor | Sequence[int] | None = None
    ) -> Circuit:
        """A smaller network of some modules; this one stays as it is.

        It computes what this network computes with ``keep``. Where a kernel has an
        ``eval_truncation``, that is its truncation from now on, and links beyond it are gone.

        Args:
            keep: positions of the mediators to keep, at least one; their order does not matter.
            outputs: positions of the output modules to keep; None: all.

        Returns:
            A copy; ``kept_modules`` and ``kept_outputs`` tell what its modules were called at
            first. Its weights load, strictly, into a network that is built with as many modules.

        Raises:
            ValueError: if a list is empty, out of range or has one twice, or for a network whose
                circuit is another one for each sample.
        """
        return pruned(self, keep, outputs)

    def rank_modules(
        self, method: str, batches: Iterable[tuple[Any, Tensor]] | None = None
    ) -> Tensor:
        """Order the mediators by importance; see [`rank_modules`][lit_ssl.models.rank_modules].

        Args:
            method: of ranking, such as ``eigenvector`` or ``taylor``.
            batches: ``(inputs, labels)`` on this device, for the methods that look at a loss.

        Returns:
            int64 ``[U]`` on the CPU, best first.

        Raises:
            ValueError: for an unknown method, or without what it needs.
        """
        return rank_modules(self, method, batches)

    @property
    def is_folded(self) -> bool:
        """Whether ``fold`` is in effect."""
        kernel = self.read_out.attention.kernel
        return self.read_in.query.folded is not None or (
            kernel is not None and kernel.folded is not None
        )

    def fold(self: Circuit) -> Circuit:
        """Switch to evaluation and compute once what does not depend on the input.

        These are the factors that codes give and the biases that signatures give. It ends with the
        next ``train()`` or loading of weights. Nothing is kept where it is another one for each
        sample or depth.

        Returns:
            This network.
        """
        self.eval()
        if self.generator is None:
            fold_circuit(self)
        return self
