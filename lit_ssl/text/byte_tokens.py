"""Texts as their bytes: a tokenizer that needs no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lit_ssl.text.tokens import Tokens

__all__ = ["BYTE_PADDING", "BYTE_VOCABULARY", "byte_tokens"]

BYTE_PADDING = 256
BYTE_VOCABULARY = 257  # the bytes 0 to 255, and the padding


def byte_tokens(texts: Sequence[str], max_length: int) -> Tokens:
    """Return the bytes of texts in UTF-8 as token ids.

    Args:
        texts: N texts.
        max_length: Longer ones are cut, if need be within a character.
    """
    encoded = [text.encode()[:max_length] for text in texts]
    lengths = np.array([0, *map(len, encoded)], dtype=np.int64)
    ids = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int32)
    return Tokens(ids, None, np.cumsum(lengths), BYTE_PADDING)
