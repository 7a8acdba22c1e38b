"""Trainings that nobody disturbs: what the others are compared with."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from soak.fingerprints import End, end_of, steps_on_disk
from soak.forks import Command, Job
from soak.scenarios import EVERY, SCENARIOS

__all__ = ["Failed", "Reference", "reference"]

_PATIENCE = 120.0


class Failed(Exception):
    """A training has failed that nobody has disturbed."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed training.

    Args:
        words: of the command, after ``lit-ssl``.
        seconds: from its start to its end.
        end: what it ended with.
        counts: how often its first process reached each stage.
        largest: bytes of its largest checkpoint.
        half: folder ``run`` as it was in mid-training, with checkpoints of two steps.
        validated: what ``validate`` prints of the newest of them.
    """

    words: tuple[str, ...]
    seconds: float
    end: End
    counts: Mapping[str, int]
    largest: int
    half: Path
    validated: str


def reference(name: str, folder: Path) -> Reference:
    """The undisturbed training of a scenario, made at the first call of any process.

    Args:
        name: of the scenario.
        folder: where all of them lie.

    Raises:
        Failed: if it does not train.
    """
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = place / "reference.json"
        if not made.exists():
            made.write_text(json.dumps(asdict(_make(name, folder)), default=str))
        found = json.loads(made.read_text())
    return Reference(
        **{
            **found,
            "words": tuple(found["words"]),
            "end": End(*found["end"]),
            "half": Path(found["half"]),
        }
    )


def _make(name: str, folder: Path) -> Reference:
    scenario, place = SCENARIOS[name], folder / name
    checkpoint = ""
    if scenario.needs:
        reference(scenario.needs, folder)
        checkpoint = str(next((folder / scenario.needs / "whole").rglob("last.ckpt")))
    words = scenario.command(checkpoint)
    seconds, job = _run(Command(("fit", *words), place / "whole", "fit", scenario.ranks))
    end = end_of(place / "whole")
    if end is None:
        raise Failed(f"no checkpoint of {job.command.as_shell()}")
    half = _half(name, words, job, place / "half")
    newest = max(half.rglob("step=*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    validate = ("validate", *words, "--ckpt_path", str(newest.relative_to(place / "half")))
    _, validated = _run(Command(validate, place / "half", "validate", scenario.ranks))
    stages = Counter(entry.stage for entry in job.journal() if entry.rank == 0)
    return Reference(
        words=words,
        seconds=seconds,
        end=end,
        counts=dict(stages),
        largest=max(path.stat().st_size for path in place.rglob("last.ckpt")),
        half=half,
        validated=table_of(validated.output()),
    )


def _run(command: Command) -> tuple[float, Job]:
    job = Job(command)
    try:
        job.wait(lambda: False, _PATIENCE)
    finally:
        job.end()
    if any(job.codes.values()):
        raise Failed(f"{command.as_shell()}\n{job.output()[-2000:]}")
    return job.seconds(), job


def _half(name: str, words: tuple[str, ...], whole: Job, folder: Path) -> Path:
    """The folder of a run that was killed in the second step after its second checkpoint."""
    begun = [e.step for e in whole.journal() if e.rank == 0 and e.stage == "batch"]
    stop = {"stage": "batch", "count": begun.index(2 * EVERY + 1) + 1, "rank": 0}
    job = Job(Command(("fit", *words), folder, "fit", SCENARIOS[name].ranks, {"stop": stop}))
    try:
        job.wait(lambda: bool(job.stopped), _PATIENCE)
    finally:
        job.end()
    if steps_on_disk(folder) != [EVERY, 2 * EVERY, 2 * EVERY]:
        raise Failed(f"{job.command.as_shell()}\nleft {steps_on_disk(folder)}\n{job.output()}")
    return folder / "run"


def table_of(output: str) -> str:
    """The lines of a table of results."""
    return "\n".join(line for line in output.splitlines() if "│" in line or "|" in line)
