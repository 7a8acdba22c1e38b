"""From a text file to a file of collocations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TextIO

from lit_ssl.errors import InputError, InputFileNotFoundError
from lit_ssl.files import read_text, write_file
from lit_ssl.text.collocations.pmi import build_collocations
from lit_ssl.text.masking.caption_words import splitter
from lit_ssl.text.tokens import load_tokenizer

__all__ = ["write_vocabulary"]


def write_vocabulary(
    text: str | Path,
    out: str | Path,
    tokenizer: str | None = None,
    *,
    size: int | None = None,
    coverage: float = 0.5,
    min_count: int = 10,
    exponent: float = 1.0,
) -> list[str]:
    """Write the collocations of a text, as ``PMIVocabulary.load`` reads them; all or nothing.

    A line has the words, a tab, the score, a tab and the number of occurrences.

    Args:
        text: File with a sentence or caption a line.
        out: File to write.
        tokenizer: Folder of a tokenizer, or a ``vocab.txt``: its words count; None: those of
            uncased BERT.
        size: See [`build_collocations`][lit_ssl.text.build_collocations], as the following.
        coverage: As there.
        min_count: As there.
        exponent: As there.

    Returns:
        Lines that say what was found.

    Raises:
        InputError: There is no such file, ``out`` is the text itself or a folder, or a value is
            out of range.
    """
    if not Path(text).is_file():
        raise InputFileNotFoundError(f"no text file at {text}: give one with a sentence a line")
    if Path(out).is_dir():
        raise InputError(f"{out} is a folder: give the file to write")
    if Path(out).resolve() == Path(text).resolve():
        raise InputError(f"{out} is the text itself: give another file to write")
    split = splitter(None if tokenizer is None else load_tokenizer(tokenizer))
    sentences = map(split, read_text(text).split("\n"))
    found = build_collocations(sentences, size, coverage, min_count, exponent)

    def write(file: TextIO) -> None:
        for words, score, occurrences in found.entries:
            file.write(f"{' '.join(words)}\t{score:.6f}\t{occurrences}\n")

    write_file(out, write)
    lengths = Counter(len(entry.words) for entry in found.entries)
    kinds = ", ".join(f"{lengths[n]:,} of {n} words" for n in sorted(lengths))
    lines = [
        f"wrote {out}: {len(found.entries):,} collocations ({kinds})",
        f"they cover {found.coverage:.1%} of {found.words:,} words",
    ]
    if size is None and found.coverage < coverage:
        lines.append(
            f"less than {coverage:.0%}: no more n-grams occur {min_count} times; a lower"
            " --min-count or a larger text gives more"
        )
    return lines
