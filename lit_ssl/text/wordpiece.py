"""BERT's tokenizer from a vocabulary alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.files import read_text

__all__ = ["read_pieces", "tokenizer_of_pieces", "wordpiece_tokenizer"]

_NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def wordpiece_tokenizer(path: str | Path) -> Any:
    """Return BERT's tokenizer with the pieces of a file, in transformers' form.

    Args:
        path: The file; see ``read_pieces``. Texts are treated as ``tokenizer_of_pieces``
            says.

    Raises:
        InputError: It is no such file.
    """
    return tokenizer_of_pieces(read_pieces(path), str(path))


def read_pieces(path: str | Path) -> list[str]:
    """Read a vocabulary of BERT's, ``vocab.txt``: a piece a line, its id the line from 0.

    Args:
        path: of the file.
    """
    # Not splitlines: a piece may be one of the other characters that count as ends of lines.
    return [line.rstrip("\r") for line in read_text(path).rstrip("\n").split("\n")]


def tokenizer_of_pieces(pieces: Sequence[str], name: str) -> Any:
    """Return BERT's tokenizer with some pieces, in transformers' form.

    Texts are made lower case, and lose their accents, unless a piece has a capital letter.

    Args:
        pieces: The pieces; the id of each is its place.
        name: What messages call them, such as the path of their file.

    Raises:
        InputError: One of [PAD], [UNK], [CLS] and [SEP] is not among them. [MASK] may be lacking:
            see ``lit_ssl.text.tokens.mask_token_id``.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    ids = {piece: number for number, piece in enumerate(pieces)}
    if lacking := [piece for piece in _NEEDED if piece not in ids]:
        raise InputError(
            f"{name} is no vocabulary of BERT's tokenizer, since {', '.join(lacking)} is not in it:"
            " expected one piece a line, such as the vocab.txt of bert-base-uncased"
        )
    if len(ids) != len(pieces):  # an id would lie beyond the number of pieces
        twice = next(piece for number, piece in enumerate(pieces) if ids[piece] != number)
        raise InputError(f"{name} has the piece {twice!r} more than once: get the file again")
    special = (piece.startswith("[") and piece.endswith("]") for piece in pieces)
    is_cased = any(
        re.search("[A-Z]", piece) and not is_special
        for piece, is_special in zip(pieces, special, strict=True)
    )
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not is_cased)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]" if "[MASK]" in ids else None,
    )
