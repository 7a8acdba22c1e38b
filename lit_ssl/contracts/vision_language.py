"""What callbacks ask of a module that is pretrained on images with captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from lit_ssl.errors import InputAttributeError, InputError

__all__ = ["GuessesWords", "can_match", "guesses_words", "texts_of"]

_ASKED = ("embed", "fixed_mask", "guess", "match", "align")
_HEADS = ("mlm_head", "itm_head")


@runtime_checkable
class GuessesWords(Protocol):
    """A module that guesses masked words and matches texts with images.

    ``inputs`` is the dictionary of a batch of images with captions; in place of its ``images`` it
    may hold ``image_embeds`` and ``image_mask``, as ``embed`` gives them, which may be reordered.

    A module that may be built without one of both says in ``heads`` which it has: ``mlm_head`` for
    words, ``itm_head`` for matching.
    """

    def embed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inputs with ``image_embeds`` and ``image_mask`` in place of ``images``.

        Args:
            inputs: images ``[B, C, H, W]`` and token tensors ``[B, L]`` of a batch.
        """

    def fixed_mask(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the words that an evaluation masks, bool ``[B, L]``: a function of the texts.

        Args:
            inputs: of a batch, with or without its images.
        """

    def guess(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Return logits ``[n, V]`` of masked tokens, row after row, each replaced by [MASK].

        Args:
            inputs: With clean ``input_ids``.
            mask: bool ``[B, L]`` with n tokens.
        """

    def match(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the log-odds ``[B]`` that text and image belong together.

        Args:
            inputs: of a batch, with its images or with ``image_embeds`` and ``image_mask``.
        """

    def align(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the plan of word–patch alignment, ``[B, N, L]``; see its loss.

        Args:
            inputs: as of ``match``.
        """


def guesses_words(module: Any) -> GuessesWords:
    """Return a module that has to be one which guesses words.

    Args:
        module: of any kind.

    Raises:
        InputError: It lacks one of the methods, or has no head for words.
    """
    for name in _ASKED:
        if not callable(getattr(module, name, None)):
            raise InputAttributeError(
                "needs a module that guesses masked words, such as VLPretraining, and "
                f"{type(module).__name__} has no {name}(): remove the callback"
            )
    if "mlm_head" not in getattr(module, "heads", _HEADS):
        raise InputError(
            f"needs a module that guesses masked words, and this {type(module).__name__} has no "
            "head for them: give it an mlm_weight above 0, or remove the callback"
        )
    return module


def can_match(module: Any) -> bool:
    """Whether a module that guesses words can tell, too, which images go with a text.

    Args:
        module: one that guesses words.
    """
    return "itm_head" in getattr(module, "heads", _HEADS)


def texts_of(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the inputs of a batch say of the captions, all of it ``[B, L]``: no images.

    Args:
        inputs: of a batch, with ``input_ids`` ``[B, L]``.
    """
    shape = inputs["input_ids"].shape
    return {name: value for name, value in inputs.items() if value.shape == shape}
