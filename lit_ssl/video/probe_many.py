"""Probing many files with several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TextIO

from lit_ssl.errors import InputRuntimeError
from lit_ssl.video.demux import need_pyav
from lit_ssl.video.probe import VideoFacts, look_at_video

__all__ = ["Progress", "Share", "probe_videos"]

_IN_THIS_PROCESS = 100  # files; starting another process takes as long as probing about so many
_PROBE = ("-m", "lit_ssl.video.probe")
_KILLED = (-2, -9, -15)  # from outside, as where memory runs out; other signals are the file's
_LONG = 10.0  # seconds
_FIRST_LOOK = 2.0


def probe_videos(paths: Sequence[Path], num_workers: int | None) -> list[tuple[VideoFacts, str]]:
    """Return what is known of each video, and why it cannot be read where that is so.

    The processes are started by the command line of Python, so neither threads nor devices of this
    one reach them, and scripts need no guard. A file that brings its process down counts as
    unreadable, but not where the process was ended from outside.

    Args:
        paths: The files.
        num_workers: Processes; None: as many as there are cores.

    Raises:
        InputImportError: PyAV is not installed.
        InputRuntimeError: No process can be started, or one was ended from outside.
    """
    need_pyav()
    workers = min(num_workers or _cores(), len(paths) // _IN_THIS_PROCESS)
    progress = Progress(len(paths))
    if workers < 2 or not sys.executable:
        return [progress.after(look_at_video(path)) for path in paths]
    with ThreadPoolExecutor(workers) as pool:
        shares = [Share(paths[i::workers], progress) for i in range(workers)]
        try:
            answers = list(pool.map(Share.run, shares))
        finally:
            for share in shares:
                share.stop()
    return [answers[row % workers][row // workers] for row in range(len(paths))]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Says once how long it takes where that is long.

    Args:
        total: number of files.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._start = monotonic()
        self._said = False
        self._lock = threading.Lock()

    def after(self, answer: tuple[VideoFacts, str]) -> tuple[VideoFacts, str]:
        """Count an answer and return it.

        Args:
            answer: what was found out of a file.
        """
        with self._lock:
            self._done += 1
            spent = monotonic() - self._start
            if not self._said and spent > _FIRST_LOOK:
                self._said = True
                left = spent / self._done * (self._total - self._done)
                if left > _LONG:
                    print(
                        f"Looking at {self._total:,} video files once: about {left:,.0f} seconds",
                        file=sys.stderr,
                        flush=True,
                    )
        return answer


class Share:
    """Files that one process after the other probes, a new one where a file ends the last.

    Args:
        paths: the files.
        progress: is told of each answer.
    """

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self._paths = paths
        self._progress = progress
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self) -> list[tuple[VideoFacts, str]]:
        """Return the answers for all files, in order.

        Raises:
            InputRuntimeError: Its process cannot work, or was killed.
        """
        answers: list[tuple[VideoFacts, str]] = []
        while len(answers) < len(self._paths) and not self._stopped:
            code = self._go_on(answers)
            if len(answers) == len(self._paths) or self._stopped:
                break
            if code in (0, 1):  # Python's own end; anything else is a crash
                raise InputRuntimeError(
                    f"Videos cannot be probed: {sys.executable} ended with"
                    f" status {code}; its message stands above"
                )
            if code in _KILLED:
                raise InputRuntimeError(
                    f"a process that looks at videos was ended with status {code} at"
                    f" {self._paths[len(answers)]}: perhaps memory ran out; start again"
                )
            why = f"its decoder ended the process with status {code}"
            answers.append((VideoFacts(0, 0.0, 0, 0), why))
        return answers

    def stop(self) -> None:
        """End the process, if there is one, and start no other."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _go_on(self, answers: list[tuple[VideoFacts, str]]) -> int:
        """Add the answers for the files that are left; return the status of the process."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            [sys.executable, *_PROBE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        ) as process:
            self._process = process
            assert process.stdin is not None
            assert process.stdout is not None
            lines = [json.dumps(os.fspath(path)) + "\n" for path in self._paths[len(answers) :]]
            writer = threading.Thread(target=_write, args=(process.stdin, lines), daemon=True)
            writer.start()
            for line in process.stdout:
                *facts, why = json.loads(line)
                answers.append(self._progress.after((VideoFacts(*facts), why)))
            writer.join()
        return process.returncode


def _write(file: TextIO, lines: list[str]) -> None:
    try:
        with file:
            file.writelines(lines)
    except BrokenPipeError:
        pass  # the process has ended; what it did not answer is asked again
