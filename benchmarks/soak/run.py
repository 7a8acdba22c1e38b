"""The tries of a soak in several processes, and the table."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak.faults import KINDS, plan
from soak.forks import import_all
from soak.references import Failed, reference
from soak.scenarios import SCENARIOS
from soak.tries import Tried, make_try

__all__ = ["main", "soak", "table"]

_COLUMNS = ("survived", "lost", "identical", "refused", "wrong", "hangs")


def soak(
    folder: Path,
    seed: int = 0,
    minutes: float = 15.0,
    tries: int | None = None,
    only: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
    jobs: int = 2,
) -> tuple[list[Tried], list[str]]:
    """Make tries until the time is over.

    Args:
        folder: for undisturbed trainings, and for tries in which something is wrong.
        seed: of all that is drawn.
        minutes: no try begins after them.
        tries: at most so many.
        only: parts of the names of scenarios and kinds; those that match, or all.
        numbers: only the tries with these numbers.
        jobs: how many tries at a time.

    Returns:
        The tries, in the order of their ends; and why undisturbed trainings failed, each of which
        ends a worker.
    """
    scenarios = {n: s for n, s in SCENARIOS.items() if any(o in n for o in only)} or SCENARIOS
    kinds = [name for name in KINDS if any(o in name for o in only)] or list(KINDS)
    import_all()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    deadline = time.monotonic() + 60 * minutes
    forks = multiprocessing.get_context("fork")
    counter, queue = forks.Value("i", 0), forks.SimpleQueue()

    def work() -> None:
        try:
            while time.monotonic() < deadline:
                with counter.get_lock():
                    turn = counter.value
                    counter.value += 1
                if tries is not None and turn >= tries:
                    break
                if numbers is not None and turn >= len(numbers):
                    break
                number = turn if numbers is None else numbers[turn]
                planned = plan(seed, number, kinds, scenarios)
                if planned is not None:
                    whole = reference(planned.scenario, folder / "undisturbed")
                    queue.put(make_try(planned, whole, folder / planned.name))
        except Failed as error:
            queue.put(str(error))
        except Exception:
            queue.put(traceback.format_exc())
        finally:
            queue.put(None)

    workers = [forks.Process(target=work) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    done: list[Tried] = []
    failures: list[str] = []
    running = jobs
    while running:
        found: Any = queue.get()
        if found is None:
            running -= 1
        elif isinstance(found, str):
            failures.append(found)
        else:
            done.append(found)
            _tell(found, folder, seed, only)
    for worker in workers:
        worker.join()
    return done, failures


def _tell(tried: Tried, folder: Path, seed: int, only: Sequence[str]) -> None:
    """Say what is wrong with a try, and how to repeat it."""
    if not tried.wrongs:
        return
    selection = f" --only {' '.join(map(repr, only))}" if only else ""
    print(f"\ntry {tried.number}: {tried.scenario}, {tried.kind}")
    for line in [*tried.commands, *tried.wrongs]:
        print(f"  {line}")
    again = f"python -m soak --seed {seed} --numbers {tried.number}{selection}"
    print(
        f"  folder {folder}/try_{tried.number:04d}; again: PYTHONPATH=benchmarks {again}",
        flush=True,
    )


def table(done: Sequence[Tried]) -> str:
    """Counts by kind of harm, as Markdown."""
    lines = [
        "| what happens | tries | survived | lost | identical | refused | silently wrong | hangs |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = [(kind, [t for t in done if t.kind == kind]) for kind in KINDS]
    for title, tried in [*rows, ("all", list(done))]:
        counts = [len(tried), *(sum(getattr(t, name) for t in tried) for name in _COLUMNS)]
        if tried:
            lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def summary(done: Sequence[Tried], seconds: float) -> str:
    """Numbers of all tries together."""
    return (
        f"{sum(t.kills for t in done)} kills, {sum(t.damaged for t in done)} damaged checkpoints, "
        f"{len({t.scenario for t in done})} trainings, {seconds / 60:.1f} minutes on "
        f"{os.cpu_count()} cores ({platform.machine()}); slowest end after a signal "
        f"{max((t.to_end for t in done), default=0):.1f} s, slowest first step "
        f"{max((t.to_step for t in done), default=0):.1f} s"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Parse, make the tries, print the table; exit status 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="no try begins after them")
    parser.add_argument("--tries", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="parts of names: msn ddp SIGTERM bit")
    parser.add_argument("--numbers", type=int, nargs="+", help="the tries to repeat")
    parser.add_argument("--jobs", type=int, default=2, help="tries at a time")
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    options = parser.parse_args(words)
    begin = time.monotonic()
    done, failures = soak(
        options.folder.absolute(), options.seed, options.minutes, options.tries, options.only,
        options.numbers, options.jobs,
    )  # fmt: skip
    print(f"\n{table(done)}\n\n{summary(done, time.monotonic() - begin)}")
    for failure in failures:
        print(f"\nthe soak could not go on:\n{failure}")
    sys.exit(bool(failures) or any(tried.wrongs for tried in done))
