"""BERT's tokenizer from a vocabulary alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.files import read_text

__all__ = ["wordpiece_tokenizer"]

_NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def wordpiece_tokenizer(path: str | Path) -> Any:
    """Return BERT's tokenizer with the pieces of a file, in transformers' form.

    Texts are made lower case, and lose their accents, unless a piece has a capital letter. The
    file's format is that of ``vocab.txt``: a piece a line, its id is the number of the line from 0.

    Args:
        path: The file.

    Raises:
        InputError: It is no such file.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    # Not splitlines: a piece may be one of the other characters that count as ends of lines.
    pieces = [line.rstrip("\r") for line in read_text(path).rstrip("\n").split("\n")]
    ids = {piece: number for number, piece in enumerate(pieces)}
    if lacking := [piece for piece in _NEEDED if piece not in ids]:
        raise InputError(
            f"{path} is no vocabulary of BERT's tokenizer, since {', '.join(lacking)} is not in it:"
            " expected one piece a line, such as the vocab.txt of bert-base-uncased"
        )
    if len(ids) != len(pieces):  # an id would lie beyond the number of pieces
        twice = next(piece for number, piece in enumerate(pieces) if ids[piece] != number)
        raise InputError(f"{path} has the piece {twice!r} more than once: get the file again")
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
