"""Do a training some harm, start it again, and see what has become of it."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.damage import DAMAGE
from soak.faults import KINDS, Plan
from soak.fingerprints import end_of, is_finite, read, steps_on_disk
from soak.forks import Command, Job
from soak.references import Reference, table_of
from soak.scenarios import EVERY, SCENARIOS, STEPS

__all__ = ["HANG", "Tried", "make_try"]

HANG = 10.0  # seconds
_PATIENCE = 60.0
_RESUMES = (("--ckpt_path", "last"), ("--auto_resume",))
_STAGES = ("setup", "begin", "batch", "step", "validation", "saving", "epoch")
_TERMINATED = (128 + signal.SIGTERM, -signal.SIGTERM)


@dataclass
class Tried:
    """What has become of a try; all counts are 0 or 1, but ``kills``, ``damaged`` and ``hangs``.

    Args:
        kind: of the harm.
        number: of the try.
        scenario: its training.
        kills: signals that ended processes, or a write that did.
        damaged: checkpoints that were damaged.
        survived: in the end it was trained, or a damaged file was refused by name.
        lost: what a checkpoint should have kept had to be trained again, or could not go on.
        identical: it ended as the undisturbed training did, in every bit.
        refused: damage was named.
        wrong: it went on in silence, with other results.
        hangs: waits of more than ten seconds for an end, or for a first step.
        wrongs: what is not as it should be.
        commands: those that were run, as lines of a shell.
        to_end: the longest time from a signal to the end of all processes, s.
        to_step: the longest time from the start to the first step, s.
    """

    kind: str
    number: int
    scenario: str
    kills: int = 0
    damaged: int = 0
    survived: int = 0
    lost: int = 0
    identical: int = 0
    refused: int = 0
    wrong: int = 0
    hangs: int = 0
    wrongs: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    to_end: float = 0.0
    to_step: float = 0.0


class _Try:
    """A try under way: its commands share a folder."""

    def __init__(self, plan: Plan, reference: Reference, folder: Path) -> None:
        self.plan, self.reference, self.folder = plan, reference, folder
        self.ranks = SCENARIOS[plan.scenario].ranks
        self.rng: random.Random = plan.rng
        self.tried = Tried(plan.kind, plan.number, plan.scenario)
        self.run = folder / "run"
        self.resume = self.rng.choice(_RESUMES)  # stands in all commands of the try

    # commands

    def start(self, *words: str, **options: Any) -> Job:
        """Start a command in the folder of the try; the words follow those of the training."""
        command, *more = words
        line = (command, *self.reference.words, *more)
        name = f"command_{len(self.tried.commands) + 1}"
        job = Job(Command(line, self.folder, name, self.ranks, **options))
        self.tried.commands.append(job.command.as_shell())
        return job

    def note(self, what: str) -> None:
        """Add a comment to the command that was started last."""
        self.tried.commands[-1] += f"  # {what}"

    def finish(self, job: Job, seconds: float = _PATIENCE) -> None:
        """Wait for the end of a command that is left alone."""
        self.first_step(job)
        if not job.wait(lambda: False, seconds):
            self.hang(job, f"it did not end within {seconds:.0f} s")
        job.end()

    def first_step(self, job: Job) -> None:
        """Wait for the first step, or the end."""
        if not job.wait(lambda: any(e.stage == "step" for e in job.journal()), HANG):
            self.hang(job, f"no step within {HANG:.0f} s")
        elif not all(code is not None for code in job.codes.values()):
            self.tried.to_step = max(self.tried.to_step, job.seconds())

    def ends(self, job: Job, since: float) -> None:
        """Wait for the end of a command that was given a reason to end."""
        if not job.wait(lambda: False, HANG):
            left = [rank for rank, code in job.codes.items() if code is None]
            self.hang(job, f"process {left} is there {HANG:.0f} s after the signal")
        else:
            self.tried.to_end = max(self.tried.to_end, time.monotonic() - since)
        job.end()

    def hang(self, job: Job, why: str) -> None:
        """Count a hang."""
        self.tried.hangs += 1
        self.fail(f"hang: {why}; stages {[tuple(e) for e in job.journal()[-3:]]}")

    def fail(self, why: str) -> None:
        """Note what is not as it should be."""
        self.tried.wrongs.append(why)

    # harm

    def signalled(self, job: Job, signum: signal.Signals, wait: Callable[[Job], bool]) -> bool:
        """Send a signal when the wait is over, and see the processes end.

        Returns:
            False if the command had ended before.
        """
        one = self.rng.randrange(self.ranks) if KINDS[self.plan.kind].is_for_two else None
        if not wait(job) or not job.poll():
            job.end()
            return False
        since, seconds = time.monotonic(), job.seconds()
        job.send(signum, None if one is None else [one])
        self.tried.kills += 1
        to = "" if one is None else f" to process {one}"
        self.note(
            f"{signum.name}{to} after {seconds:.2f} s, at {[tuple(e) for e in job.journal()[-1:]]}"
        )
        self.ends(job, since)
        return True

    def some_time(self, job: Job) -> bool:
        """Wait for a moment between the start and the end."""
        moment, begun = self.rng.uniform(0, self.reference.seconds), 0.0
        if KINDS[self.plan.kind].is_for_two:
            # before they have met, only what has started them can know that one is missing
            job.wait(lambda: len({e.rank for e in job.journal()}) == self.ranks, _PATIENCE)
            moment, begun = self.rng.uniform(0, self.reference.seconds / 2), job.seconds()
        return job.wait(lambda: job.seconds() >= begun + moment, _PATIENCE)

    def stop(self, stages: Iterable[str]) -> dict[str, Any]:
        """Draw a stage at which a process stops."""
        stage = self.rng.choice([s for s in stages if self.reference.counts.get(s)])
        count = self.rng.randint(1, self.reference.counts[stage])
        return {"stage": stage, "count": count, "rank": self.rng.randrange(self.ranks)}

    def signals(self) -> list[Job]:
        """Start the training and end it by signals."""
        signum = signal.SIGTERM if "SIGTERM" in self.plan.kind else signal.SIGKILL
        at_stage = (
            self.rng.random() < 0.5
            if KINDS[self.plan.kind].is_for_two
            else " in " in self.plan.kind
        )
        jobs = []
        for _ in range(1 + ("again" in self.plan.kind)):
            if at_stage:
                job = self.start("fit", *self.resume, beacon={"stop": self.stop(_STAGES)})
                came = self.signalled(
                    job, signum, lambda j: j.wait(lambda: bool(j.stopped), _PATIENCE)
                )
            else:
                job = self.start("fit", *self.resume)
                came = self.signalled(job, signum, self.some_time)
            jobs.append(job)
            if came and signum == signal.SIGTERM:
                self.check_terminated(job)
        return jobs

    def check_terminated(self, job: Job) -> None:
        """SIGTERM ends a training with status 143 and its last step saved."""
        stages = {entry.stage for entry in job.journal()}
        codes = set(job.codes.values())
        if "end" in stages and codes <= {0, *_TERMINATED}:
            return
        if "begin" not in stages and self.ranks > 1 and 0 not in codes:
            return  # nothing is trained, and the others may only see that one is gone
        if not codes <= set(_TERMINATED):
            self.fail(f"exit status {sorted(map(str, codes))} after SIGTERM, not 143")
        made = [e.step for e in job.journal() if e.stage == "step" and e.rank == 0]
        if made and max(made) not in steps_on_disk(self.run):
            self.tried.lost = 1
            self.fail(f"SIGTERM after step {max(made)}, saved are {steps_on_disk(self.run)}")

    def write(self) -> list[Job]:
        """Start the training, and let the write of a checkpoint fail or be its end."""
        dies = "killed" in self.plan.kind
        stop = {**self.stop(["saving"]), "rank": 0}
        job = self.start("fit", *self.resume, beacon={"stop": stop}, dies_of_large_files=dies)
        if job.wait(lambda: bool(job.stopped), _PATIENCE) and job.poll():
            limit = self.rng.randrange(self.reference.largest)
            job.limit_files(limit)
            self.note(f"from save {stop['count']} on, files of at most {limit} bytes")
            self.tried.kills += dies
            since = time.monotonic()
            job.go_on()
            self.ends(job, since)
            files = [path.stat() for path in self.run.rglob("*.ckpt")]
            newest = max(files, key=lambda file: file.st_mtime_ns, default=None)
            # the last file of a training in local steps is smaller than those within rounds
            fits = newest is not None and newest.st_size <= limit
            if not any(job.codes.values()) and not fits:
                self.fail("exit status 0, and a checkpoint could not be written")
            elif any(job.codes.values()) and not dies:
                self.check_line(job)
        job.end()
        return [job]

    def numbers(self) -> list[Job]:
        """Spoil a weight or a gradient of the training; it has to stop, with no such file left."""
        part = "weight" if "weight" in self.plan.kind else "gradient"
        spoil = {"part": part, "step": self.rng.randint(1, STEPS)}
        job = self.start("fit", *self.resume, beacon={"spoil": spoil})
        self.finish(job)
        if not any(job.codes.values()):
            self.tried.wrong = 1
            self.fail(f"exit status 0 with a {part} that is no number from step {spoil['step']} on")
        else:
            self.check_line(job)
        contents = {path: read(path) for path in self.run.rglob("*.ckpt")}
        spoilt = [path.name for path, c in contents.items() if c is not None and not is_finite(c)]
        if spoilt:
            self.tried.wrong = 1
            self.fail(f"NaN in {', '.join(sorted(spoilt))}")
            shutil.rmtree(self.run)  # else the rest of the try would tell nothing new
        return [job]

    def check_line(self, job: Job) -> None:
        """A line says why a training stopped; other processes may only see that one is gone."""
        output = job.output()
        if "error: " in output and ("Traceback" not in output or self.ranks > 1):
            self.tried.refused = 1
        else:
            self.fail(f"no line that says why it stopped, but {_last_line(job)}")

    # what follows

    def goes_on(self, jobs: list[Job]) -> None:
        """Start the same command again and compare its end with the undisturbed one."""
        kept = steps_on_disk(self.run)
        made = [e.step for job in jobs for e in job.journal() if e.stage == "step" and e.rank == 0]
        due = (max(made, default=1) - 1) // EVERY * EVERY
        if max(kept, default=0) < due and not self.tried.wrong:
            self.tried.lost = 1
            self.fail(f"after step {max(made)} only checkpoints of steps {kept} can be read")
        job = self.start("fit", *self.resume)
        self.finish(job)
        began = next((e.step for e in job.journal() if e.stage == "begin"), STEPS)
        if any(job.codes.values()):
            self.tried.lost = 1
            self.fail(f"it does not go on: exit status {job.codes}; {_last_line(job)}")
            return
        self.tried.survived = 1
        if began < max(kept, default=0):
            self.tried.lost = 1
            self.fail(f"it went on from step {began}, with checkpoints of steps {kept}")
        self.compare()
        # an unfinished file stays where the training that left it had no checkpoint to go on from
        left = [p.name for p in self.folder.rglob(".*.part") if any(p.parent.glob("*.ckpt"))]
        if left:
            self.fail(f"left {', '.join(left)}")

    def compare(self) -> None:
        """Compare the end with that of the undisturbed training."""
        found = end_of(self.run)
        if found == self.reference.end:
            self.tried.identical = 1
            return
        self.tried.wrong = 1
        self.fail(f"it ended with {found}, the undisturbed one with {self.reference.end}")

    def damage(self) -> None:
        """Damage checkpoints of a training that has stopped half-way, and use them."""
        shutil.copytree(self.reference.half, self.run)
        newest, last = (next(self.run.rglob(n)) for n in (f"step={2 * EVERY}.ckpt", "last.ckpt"))
        if self.plan.kind.startswith("all"):
            files = sorted(self.run.rglob("*.ckpt"))
        elif self.plan.kind.startswith("newest"):
            files = self.rng.choice([[last], [newest], [newest, last], [newest, last]])
        else:
            files = [self.rng.choice([newest, last])]
        ways = [self.rng.choice(list(DAMAGE)) for _ in files]
        for path, way in zip(files, ways, strict=True):
            DAMAGE[way](path, self.rng)
        self.tried.damaged = len(files)
        is_named = "named" in self.plan.kind
        source = (
            ("--ckpt_path", str(files[0].relative_to(self.folder))) if is_named else self.resume
        )
        command = "validate" if "validate" in self.plan.kind else "fit"
        job = self.start(command, *source)
        done = zip(ways, files, strict=True)
        self.note("; ".join(f"{way}: {path.relative_to(self.folder)}" for way, path in done))
        self.finish(job)
        said = [
            line for line in job.output().splitlines() if line.startswith(("passing", "error:"))
        ]
        self.tried.refused = int(any(path.name in line for path in files for line in said))
        if any(job.codes.values()):
            can_refuse = is_named or self.plan.kind.startswith("all")
            self.tried.survived = int(
                can_refuse and self.tried.refused and set(job.codes.values()) == {2}
            )
            if not can_refuse:
                self.tried.lost = 1
            if not self.tried.survived:
                self.fail(f"exit status {job.codes}; {_last_line(job)}")
            return
        self.tried.survived = 1
        if command == "validate":
            if table_of(job.output()) == self.reference.validated:
                self.tried.identical = 1
            else:
                self.tried.wrong = 1
                self.fail("it validates to other numbers, and says nothing")
            return
        began = next((e.step for e in job.journal() if e.stage == "begin"), STEPS)
        if began == 0:
            self.tried.lost = 1
            self.fail("it started from scratch")
        self.compare()


def _last_line(job: Job) -> str:
    lines = [line for line in job.output().splitlines() if line.strip()]
    return (lines or [""])[-1][:300]


def make_try(plan: Plan, reference: Reference, folder: Path) -> Tried:
    """Make one try.

    Args:
        plan: what is tried.
        reference: the undisturbed training of its scenario.
        folder: of this try; deleted if all is as it should be.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    this = _Try(plan, reference, folder)
    family = KINDS[plan.kind].family
    if family == "damage":
        this.damage()
    else:
        this.goes_on(
            {"signal": this.signals, "write": this.write, "numbers": this.numbers}[family]()
        )
    tried = this.tried
    if tried.wrongs:
        (folder / "commands.txt").write_text("\n".join([*tried.commands, "", *tried.wrongs, ""]))
    else:
        shutil.rmtree(folder)
    return tried
