"""Several processes that decode videos into the shards of a cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from lit_ssl.errors import InputError, InputRuntimeError
from lit_ssl.video.cache_decoding import Failure, Job, decode_videos
from lit_ssl.video.cache_files import CacheEntry, CacheSettings
from lit_ssl.video.readers import open_reader

__all__ = ["cache_videos"]

Reader = Literal["auto", "pyav", "torchcodec"]
Outcome = CacheEntry | Failure
_KILLED = (1, -2, -9, -15)  # an error of ours, or ended from outside; else the video did it


def cache_videos(
    jobs: Sequence[Job], folder: Path, settings: CacheSettings, reader: Reader, workers: int
) -> Iterator[Outcome]:
    """Decode videos into new shards, and yield what became of each as it is done.

    The processes are started by the command line of Python, so neither threads nor devices of this
    one reach them, and scripts need no guard. A video that brings its process down counts as one
    that cannot be decoded.

    Args:
        jobs: The videos.
        folder: Of the cache.
        settings: Of the cache.
        reader: Name of the reader.
        workers: Number of processes; at most 1: none but this.

    Raises:
        InputError: The disk is full.
        InputRuntimeError: A process was ended from outside, or cannot be started.
    """
    if workers <= 1 or not sys.executable:
        yield from decode_videos(jobs, folder, settings, open_reader(reader))
        return
    start = {"folder": str(folder), "settings": asdict(settings), "reader": reader}
    answers: SimpleQueue[Outcome | Exception | None] = SimpleQueue()
    waiting = _Waiting(jobs)
    crew = [_Worker(waiting, answers, json.dumps(start) + "\n") for _ in range(workers)]
    try:
        for worker in crew:
            worker.start()
        left = workers
        while left:
            answer = answers.get()
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                left -= 1
            else:
                yield answer
    finally:
        waiting.clear()
        for worker in crew:
            worker.stop()


class _Waiting:
    """Jobs that nobody does yet."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = iter(jobs)
        self._lock = threading.Lock()

    def next(self) -> Job | None:
        with self._lock:
            return next(self._jobs, None)

    def clear(self) -> None:
        with self._lock:
            self._jobs = iter(())


class _Worker:
    """Hands jobs to one process after the other, a new one where a video ends the last."""

    def __init__(
        self, waiting: _Waiting, answers: SimpleQueue[Outcome | Exception | None], start: str
    ) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._waiting, self._answers, self._first_line = waiting, answers, start
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            while (job := self._waiting.next()) is not None:
                self._answers.put(self._done(job))
            self._end()
            self._answers.put(None)
        except Exception as error:
            self._answers.put(error)

    def stop(self) -> None:
        """End the process now, if there is one."""
        if (process := self._process) is not None:
            process.kill()
        self._thread.join()

    def _done(self, job: Job) -> Outcome:
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return self._after_death(job)
        ((kind, values),) = json.loads(line).items()
        if kind == "error":
            raise InputError(values)
        return CacheEntry(*values) if kind == "CacheEntry" else Failure(*values)

    def _after_death(self, job: Job) -> Failure:
        status = self._end()
        if status in _KILLED:
            raise InputRuntimeError(
                f"a process that decodes videos ended with status {status} at {job.name}: its"
                " message stands above, or memory ran out; the same command goes on, with fewer"
                " workers if need be"
            )
        return Failure(job.name, f"its decoder ended the process with status {status}")

    def _started(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_ssl.video.cache_decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # so that an interrupt reaches the first process only
        )
        assert process.stdin is not None
        process.stdin.write(self._first_line)
        return process

    def _end(self) -> int:
        """Let the process end by itself and return its status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
        process.stdout.close()
        return status
