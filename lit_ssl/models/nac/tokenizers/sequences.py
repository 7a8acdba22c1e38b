"""Tokens of sequences: bytes, several to a token, and symbols, one to a token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.models.nac.tokenizers.kinds import check_kind
from lit_ssl.models.nac.tokenizers.tokens import (
    Tokens,
    check_positive,
    is_readable,
    same_noise,
    with_first_token,
    with_positions,
)

__all__ = ["ByteTokenizer", "SymbolTokenizer", "ids_and_mask"]

BYTE_PADDING = 256


class ByteTokenizer(nn.Module):
    """Embedded bytes with positions, merged by a strided convolution: 4096 bytes → 512 tokens.

    Padding adds nothing to a window, so that a text gives the same tokens however far it is padded.

    Args:
        state_dim: D, divisible by 4: bytes are embedded in D/2 channels, positions in D/4 (drawn
            from N(0, 1)) are concatenated, tokens have D.
        max_length: longest text in bytes.
        stride: bytes from one token to the next.
        kernel_size: bytes that a token sees, at least ``stride``.

    Raises:
        ValueError: if a size is out of range.

    Source: ours; the paper's code has no tokenizer of bytes.
    """

    def __init__(
        self, state_dim: int = 384, max_length: int = 4096, stride: int = 8, kernel_size: int = 8
    ) -> None:
        super().__init__()
        check_positive("ByteTokenizer", max_length=max_length, stride=stride)
        if state_dim < 4 or state_dim % 4:
            raise InputError(f"ByteTokenizer needs a state_dim that 4 divides, got {state_dim}")
        if kernel_size < stride:
            raise InputError(
                f"ByteTokenizer needs kernel_size >= stride, or no token sees some bytes, got "
                f"{kernel_size} and {stride}"
            )
        self.max_length, self.stride, self.kernel_size = max_length, stride, kernel_size
        self.embedding = nn.Embedding(BYTE_PADDING + 1, state_dim // 2, padding_idx=BYTE_PADDING)
        self.positions = nn.Parameter(torch.randn(max_length, state_dim // 4))
        self.merge = nn.Conv1d(state_dim // 4 * 3, state_dim, kernel_size, stride=stride)
        self.token_dim = state_dim

    def forward(self, inputs: Mapping[str, Tensor]) -> Tokens:
        """``input_ids`` and ``attention_mask`` ``[B, L]`` → ``ceil(L / stride)`` tokens.

        A token is there where any byte of its window is.

        Args:
            inputs: tensors by these names; L at most ``max_length``.
        """
        check_kind(self, inputs, "sequences")
        ids, mask = ids_and_mask(self, inputs, BYTE_PADDING + 1, self.max_length)
        values = with_positions(self.embedding(ids), self.positions[: ids.shape[1]])
        values = values * mask[..., None]
        count = -(-ids.shape[1] // self.stride)
        missing = (count - 1) * self.stride + self.kernel_size - ids.shape[1]
        values = F.pad(values.transpose(1, 2), (0, missing))
        seen = F.pad(mask, (0, missing)).unfold(1, self.kernel_size, self.stride).any(dim=2)
        merged = self.merge(values).transpose(1, 2)
        return Tokens(merged, with_first_token(seen))

    def example(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Random bytes, up to 61 of them.

        Args:
            batch_size: B.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, L]``, the same each time.
        """
        return _random_ids(self, batch_size, BYTE_PADDING, min(self.max_length, 61))


class SymbolTokenizer(nn.Module):
    """Embedded symbols, and learned positions that are concatenated; one token for each symbol.

    Args:
        vocab_size: number of ids, with padding (0).
        embed_dim: channels of the embedding.
        position_dim: channels of the positions, drawn from N(0, 1).
        max_length: longest sequence.

    Raises:
        ValueError: if a size lies below 1.

    Source: ours; the paper's code has no tokenizer of symbols.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 192,
        position_dim: int = 64,
        max_length: int = 2000,
    ) -> None:
        super().__init__()
        check_positive(
            "SymbolTokenizer",
            vocab_size=vocab_size,
            embed_dim=embed_dim,
            position_dim=position_dim,
            max_length=max_length,
        )
        self.vocab_size, self.max_length = vocab_size, max_length
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(max_length, position_dim))
        self.token_dim = embed_dim + position_dim

    def forward(self, inputs: Mapping[str, Tensor]) -> Tokens:
        """``input_ids`` and ``attention_mask`` ``[B, L]`` → L tokens.

        Args:
            inputs: tensors by these names; L at most ``max_length``.
        """
        check_kind(self, inputs, "sequences")
        ids, mask = ids_and_mask(self, inputs, self.vocab_size, self.max_length)
        values = with_positions(self.embedding(ids), self.positions[: ids.shape[1]])
        return Tokens(values, with_first_token(mask))

    def example(self, batch_size: int = 1) -> dict[str, Tensor]:
        """Random symbols, up to 61 of them.

        Args:
            batch_size: B.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, L]``, the same each time.
        """
        return _random_ids(self, batch_size, self.vocab_size, min(self.max_length, 61))


def ids_and_mask(
    module: nn.Module, inputs: Mapping[str, Tensor], vocab_size: int, max_length: int
) -> tuple[Tensor, Tensor]:
    """Check ``input_ids`` and ``attention_mask`` of a batch; the mask becomes bool.

    Ids are compared with the vocabulary on a CPU only: elsewhere the host would have to wait, and
    the embedding itself stops.

    Args:
        module: who reads them, for messages.
        inputs: the batch.
        vocab_size: ids have to lie below.
        max_length: sequences have to be no longer.

    Returns:
        int64 ``[B, L]`` and bool ``[B, L]``.

    Raises:
        ValueError: if they are missing, of another shape, too long or out of the vocabulary.
    """
    who, names = type(module).__name__, ("input_ids", "attention_mask")
    if not isinstance(inputs, Mapping) or any(name not in inputs for name in names):
        got = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputTypeError(
            f"{who} reads dictionaries with input_ids and attention_mask, got {got}"
        )
    ids, mask = (inputs[name] for name in names)
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.shape[1]:
        raise InputError(
            f"{who} reads input_ids and attention_mask [B, L] with L >= 1, got "
            f"{list(ids.shape)} and {list(mask.shape)}"
        )
    if ids.is_floating_point():
        raise InputTypeError(f"{who} reads input_ids of whole numbers, got {ids.dtype}")
    if ids.shape[1] > max_length:
        raise InputError(
            f"{who} got a sequence of {ids.shape[1]} where max_length is {max_length}: raise "
            "max_length, or cut the sequences in the data module"
        )
    if is_readable(ids) and ids.numel():  # in this order: exports would fix the number of ids
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= vocab_size:
            raise InputError(
                f"{who} got ids from {low} to {high} where the vocabulary has 0 to "
                f"{vocab_size - 1}: its size must be that of the data"
            )
    return ids.long(), mask.bool()


def _random_ids(module: nn.Module, batch_size: int, below: int, length: int) -> dict[str, Tensor]:
    generator, device = same_noise(module)
    low = min(1, below - 1)
    ids = torch.randint(low, below, (batch_size, length), generator=generator)
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
