"""What is left out of a stream: said once, counted, or a reason to stop."""

from __future__ import annotations

import warnings

import torch

from lit_ssl.datamodules.vision_language.shards.tar_members import (
    LEFT_OUT,
    NO_TEXT,
    CorruptShardError,
)

__all__ = ["BROKEN", "CUT", "UNREADABLE", "Tally"]

BROKEN = "shards that are broken"
UNREADABLE = "images that cannot be read"
CUT = "captions longer than max_length (cut)"
_KINDS = (*LEFT_OUT, BROKEN, UNREADABLE, CUT)
_CORRUPT = (NO_TEXT, BROKEN, UNREADABLE)


class Tally:
    """What was left out so far, by all workers of this process together.

    Args:
        rows: Most streams that report at the same time, each in a row of its own.
        skip: False: what is corrupt is raised; True: it is left out like the rest.
    """

    def __init__(self, rows: int, skip: bool) -> None:
        self.skip = skip
        # In shared memory: workers write here.
        self._counts = torch.zeros(rows, len(_KINDS), dtype=torch.int64).share_memory_()

    def add(self, row: int, kind: str, name: str, error: Exception | None = None) -> None:
        """Count one, and warn if it is the first of its kind.

        Args:
            row: Of the stream.
            kind: What it is.
            name: Its name.
            error: What is wrong with it, if that was raised.

        Raises:
            InputError: It is corrupt and not to be skipped.
        """
        if kind in _CORRUPT and not self.skip:
            raise error or CorruptShardError(
                f"The caption of {name} is no text in UTF-8. Mend it, or set on_corrupt: skip to"
                " leave such pairs out"
            )
        column = _KINDS.index(kind)
        if not self._counts[:, column].any():
            why = "" if error is None else f": {error.__cause__ or error}"
            warnings.warn(
                f"There are {kind}, such as {name}{why}. Further ones are only counted",
                stacklevel=2,
            )
        self._counts[row, column] += 1

    def counts(self) -> dict[str, int]:
        """Return how many there were of each kind that there was."""
        totals = self._counts.sum(0).tolist()
        return {kind: total for kind, total in zip(_KINDS, totals, strict=True) if total}
