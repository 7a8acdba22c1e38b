"""Heads of vision-language models: masked words, matching, ranking, answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError
from lit_ssl.models.vl.initial import init_vl_weights_

__all__ = ["MLMHead", "MatchingHead", "RetrievalHead", "VLClassifierHead"]

_MATCH = 1  # the class of a text with its own image


class MLMHead(nn.Module):
    """Logits over the vocabulary: Linear, GELU, LayerNorm, Linear.

    Args:
        hidden_size: D of the text states.
        vocab_size: V.
        tied_to: the word embeddings ``[V, D]`` whose weight the last layer shares; None: it has its
            own, as in ViLT.

    Raises:
        ValueError: if the embeddings have another size.

    Source: dandelin/ViLT (BERT's head, its decoder not tied).
    """

    def __init__(
        self, hidden_size: int, vocab_size: int, tied_to: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.decoder = nn.Linear(hidden_size, vocab_size)
        self.apply(init_vl_weights_)
        if tied_to is not None:
            if tied_to.weight.shape != self.decoder.weight.shape:
                raise InputError(
                    f"a tied MLM head needs word embeddings [{vocab_size}, {hidden_size}], got "
                    f"{list(tied_to.weight.shape)}: do not tie it"
                )
            self.decoder.weight = tied_to.weight

    def forward(self, states: Tensor) -> Tensor:
        """``[…, D]`` → ``[…, V]``.

        Give it masked positions only ([`gather_masked`][lit_ssl.losses.gather_masked]): the
        vocabulary is what costs.

        Args:
            states: of the last layer.
        """
        return self.decoder(self.norm(self.act(self.dense(states))))


class MatchingHead(nn.Linear):
    """Whether image and text belong together: ``[B, P]`` → ``[B, 2]``, class 1 is a match.

    Args:
        pooled_size: P.
    """

    def __init__(self, pooled_size: int) -> None:
        super().__init__(pooled_size, 2)
        init_vl_weights_(self)


class RetrievalHead(nn.Linear):
    """How well image and text go together: ``[B, P]`` → ``[B, 1]``.

    Args:
        pooled_size: P.
    """

    def __init__(self, pooled_size: int) -> None:
        super().__init__(pooled_size, 1)
        init_vl_weights_(self)

    @torch.no_grad()
    def start_from_(self, weight: Tensor, bias: Tensor) -> None:
        """Take the row of a match out of a matching head.

        Args:
            weight: ``[2, P]``.
            bias: ``[2]``.

        Raises:
            ValueError: if it is of another size.

        Source: dandelin/ViLT.
        """
        if weight.shape != (2, self.in_features) or bias.shape != (2,):
            raise InputError(
                f"the matching head has {list(weight.shape)}, not [2, {self.in_features}]"
            )
        self.weight.copy_(weight[_MATCH:])
        self.bias.copy_(bias[_MATCH:])


class VLClassifierHead(nn.Sequential):
    """Answers about a pair, or about two images: Linear, LayerNorm, GELU, Linear.

    NLVR2 gives it the pooled vectors of both images, side by side. Both papers have twice the width
    of a token inside, whatever the input.

    Args:
        in_dim: P, for NLVR2 twice that.
        hidden_dim: width inside.
        num_classes: number of answers.

    Source: dandelin/ViLT, zdou0830/METER (arXiv 2111.02387).
    """

    def __init__(self, in_dim: int, hidden_dim: int, num_classes: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_classes),
        )
        self.apply(init_vl_weights_)
