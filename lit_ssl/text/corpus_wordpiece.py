"""A WordPiece vocabulary trained on one's own texts, once, and kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_ssl.errors import InputError
from lit_ssl.files import write_file
from lit_ssl.text.wordpiece import read_pieces

__all__ = ["CorpusWordPiece", "train_wordpiece"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Texts are made lower case; a capital letter among the pieces would say that they are not.
_PRINTABLE = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
_CHUNK = 10_000


@dataclass(frozen=True)
class CorpusWordPiece:
    """A vocabulary that is trained on the training texts, and kept in a folder.

    Its file, ``wordpiece_<size>_<hash of the words>.txt``, has BERT's format, so that later runs
    and other data sets can be given its path as their tokenizer. A checkpoint needs the vocabulary
    that it was trained with: the same texts and size always give the same file.

    Args:
        folder: Where it is kept; made if need be.
        size: Most pieces, special ones included; at least 200. All printable characters of ASCII
            are pieces, so that no such text becomes [UNK].
    """

    folder: str
    size: int = 8000

    def __post_init__(self) -> None:
        if self.size < 200:
            raise InputError(
                f"CorpusWordPiece.size must be at least 200, since single characters are"
                f" pieces too, got {self.size}"
            )

    def vocabulary(self, texts: Iterable[str]) -> Path:
        """Return the file of the vocabulary; it is trained unless the folder has it.

        Args:
            texts: The corpus. Upper and lower case are the same; their order does not matter.

        Raises:
            InputError: There is no word in the texts, or the file that the folder has is another.
        """
        counts = _count_words(texts)
        if not counts:
            raise InputError("CorpusWordPiece needs texts to train on, and found no word")
        digest = hashlib.sha256(repr(sorted(counts.items())).encode()).hexdigest()[:12]
        folder = Path(self.folder).expanduser()
        path = folder / f"wordpiece_{self.size}_{digest}.txt"
        if not path.is_file():
            pieces = _train(counts, self.size)
            write_file(path, lambda file: file.write("".join(f"{piece}\n" for piece in pieces)))
        elif not set(_SPECIAL) <= set(read_pieces(path)):
            raise InputError(
                f"{path} is not the vocabulary that was written there: delete it, so that it is"
                " made again"
            )
        return path


def train_wordpiece(texts: Iterable[str], size: int) -> list[str]:
    """Train a WordPiece vocabulary.

    Texts are made lower case, lose their accents and are split at blanks and punctuation, as BERT
    does. The special pieces [PAD], [UNK], [CLS], [SEP] and [MASK] have the ids 0 to 4.

    Args:
        texts: The corpus.
        size: Most pieces. There are more where single characters alone are more.

    Returns:
        The pieces in the order of their ids; the same for the same words, in any order.
    """
    return _train(_count_words(texts), size)


def _count_words(texts: Iterable[str]) -> dict[str, int]:
    from tokenizers import normalizers, pre_tokenizers

    lower, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    # Captions repeat: each different text is split once.
    times = Counter(texts)
    counts: Counter[str] = Counter()
    for text, count in times.items():
        for word, _ in split.pre_tokenize_str(lower.normalize_str(text)):
            counts[word] += count
    return dict(counts)


def _train(counts: Mapping[str, int], size: int) -> list[str]:
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import WordPiece

    # Characters within words get their ids from here: the trainer would number them in the order
    # of a hash table, which changes from run to run, and break ties between pairs by their ids.
    inside = sorted({f"##{character}" for word in counts for character in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        initial_alphabet=_PRINTABLE,
        special_tokens=[*_SPECIAL, *inside],
        show_progress=False,
    )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # words are split already
    tokenizer.train_from_iterator(_repeated(sorted(counts.items())), trainer)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    return sorted(ids, key=ids.__getitem__)


def _repeated(counts: Sequence[tuple[str, int]]) -> Iterable[list[str]]:
    """Words as often as they occur, in pieces of bounded length."""
    for word, count in counts:
        for begin in range(0, count, _CHUNK):
            yield [word] * min(_CHUNK, count - begin)
