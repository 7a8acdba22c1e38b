"""A mask for evaluation that is a function of the text alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lit_ssl.errors import InputError
from lit_ssl.seeding import Stream, hash_integers, uniform

__all__ = ["fixed_word_mask"]


def fixed_word_mask(input_ids: Tensor, word_ids: Tensor, rate: float = 0.15) -> Tensor:
    """Choose whole words, the same ones each time that a text is met.

    A text's mask depends neither on the batch it comes in, nor on its padding, nor on the process,
    so that accuracies of runs with other batches, devices and training rates can be compared.

    Args:
        input_ids: int64 ``[B, L]``.
        word_ids: int64 ``[B, L]``: the word of each token, −1 for special tokens and padding.
        rate: Probability of each word, in [0, 1].

    Returns:
        bool ``[B, L]``.

    Raises:
        InputError: The shapes differ.
    """
    if input_ids.shape != word_ids.shape or input_ids.ndim != 2:
        raise InputError(
            f"input_ids and word_ids must be [B, L] both, got {list(input_ids.shape)} and "
            f"{list(word_ids.shape)}"
        )
    ids, words = input_ids.cpu().numpy(), word_ids.cpu().numpy()
    own = words >= 0
    places = np.arange(ids.shape[1])[None]
    # a sum over tokens: padding adds nothing; overflow wraps, as a hash may
    hashes = np.where(own, hash_integers(Stream.EVALUATION_MASK, places, ids), np.uint64(0))
    texts = hashes.sum(axis=1, dtype=np.uint64).astype(np.int64)[:, None]
    mask = own & (uniform(Stream.EVALUATION_MASK, texts, words) < rate)
    return torch.from_numpy(mask).to(input_ids.device)
