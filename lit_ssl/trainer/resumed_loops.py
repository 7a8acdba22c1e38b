"""Where in the Trainer's loops a checkpoint was written, and what was still to do there.

Lightning writes down its counters as they stand, and guesses from them where to go on. It guesses
wrong where a checkpoint is of the last batch of an epoch, of a batch that is followed by a
validation, of a fit that was stopped in mid-epoch, or of the end of an epoch with ``max_steps``:
epochs are counted twice or cut short, validations and what follows an epoch are left out. Here the
counters are set to those of a place between two batches, or between two epochs, from which
Lightning goes on rightly; what was still to do is told in a ``Rest``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["KEY", "Rest", "mend"]

KEY = "lit_ssl.loops"  # of what Lightning does not write down, in a checkpoint
_EPOCH = "epoch_progress"
_BATCH = "epoch_loop.batch_progress"
_VALIDATION = "epoch_loop.val_loop.batch_progress"
_COUNTS = ("ready", "started", "processed", "completed")


@dataclass
class Rest:
    """What was still to do when a checkpoint was written.

    Attributes:
        in_epoch: The epoch goes on; else the next thing is a new epoch.
        after_batch: What follows its last batch was still to do: a validation if one is due,
            schedules that look at metrics, after the last batch of an epoch also the end of it.
        validated: The validation behind that batch had been done.
        after_epoch: Schedules that look at metrics after an epoch had not been told of it.
        before_end: The fit had not ended: what its end brings is still to do if it is over here.
        validated_at: Finished batches of the run at its last validation; −1: not known.
        end_validated_at: The same of one that was known to be of the end when it began.
        metrics: What callbacks and schedules knew of earlier logs; None: not known.
    """

    in_epoch: bool = False
    after_batch: bool = False
    validated: bool = False
    after_epoch: bool = False
    before_end: bool = False
    validated_at: int = -1
    end_validated_at: int = -1
    metrics: dict[str, Any] | None = field(default=None)


def mend(checkpoint: dict[str, Any]) -> Rest | None:
    """Set the counters of a checkpoint's fit loop to a place from which Lightning goes on rightly.

    Args:
        checkpoint: As it was loaded; its counters are changed in place. Under ``KEY`` it may hold
            ``validated`` and ``end_validated`` (finished batches of the run at the last
            validation, and at the last one of its end), ``validating`` (whether a validation was
            under way), ``last`` (whether the batch was the last of its epoch) and ``metrics``.
            Without them it is of a run that did not write them down.

    Returns:
        What was still to do; None where the counters are not those of Lightning 2.
    """
    loops, known = checkpoint["loops"]["fit_loop"], checkpoint.get(KEY)
    if _EPOCH not in loops or _BATCH not in loops:
        return None
    epoch, batch = loops[_EPOCH], loops[_BATCH]
    now, total = batch["current"], batch["total"]
    validating = (
        now["completed"] == now["processed"] if known is None else bool(known["validating"])
    )
    is_last = batch["is_last_batch"] if known is None else bool(known["last"])
    rest = Rest()
    if known is not None:
        rest.metrics = known["metrics"]
        rest.validated_at, rest.end_validated_at = known["validated"], known["end_validated"]
    done = epoch["current"]["processed"]
    if epoch["current"]["started"] > done:
        rest.in_epoch = now["processed"] > 0
        # In mid-step the batch before is over; that one comes again.
        over = now["ready"] > now["processed"] or (now["completed"] == now["processed"])
        rest.after_batch = rest.in_epoch and (validating or not over)
    else:
        unfinished = now["processed"] > 0 and not is_last
        if epoch["current"]["ready"] == done and unfinished:  # stopped in mid-epoch
            rest.in_epoch, done = True, done - 1
        at_end = known is not None and validating  # when all else is done, in its last epoch
        rest.before_end = epoch["current"]["completed"] < epoch["current"]["processed"]
        rest.after_epoch = rest.before_end and not (rest.in_epoch or at_end)
        if at_end:
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    if rest.after_batch:
        rest.validated = (
            _is_over(loops.get(_VALIDATION)) and validating
            if known is None
            else rest.validated_at == total["processed"]
        )
    begun = done + rest.in_epoch
    for counts in (epoch["current"], epoch["total"]):
        _set(counts, ready=begun, started=begun, processed=done, completed=done)
    _set(total, *[total["processed"]] * 4)
    _set(now, *[now["processed"] if rest.in_epoch else 0] * 4)
    batch["is_last_batch"] = rest.in_epoch and rest.after_batch and is_last
    return rest


def _is_over(progress: dict[str, Any] | None) -> bool:
    """Whether a validation has come to its end."""
    if progress is None:
        return False
    now = progress["current"]
    return bool(progress["is_last_batch"]) and now["completed"] == now["ready"] > 0


def _set(counts: dict[str, int], ready: int, started: int, processed: int, completed: int) -> None:
    values = (ready, started, processed, completed)
    counts.update(zip(_COUNTS, values, strict=True))
