"""Start-up time of `lit-ssl`, next to the import of Lightning that it cannot avoid.

    python benchmarks/startup.py --repeats 5

Each command runs in a process of its own; the table shows the median of the processor time (user
and system) and its ratio to `import lightning.pytorch.cli`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("lit-ssl"))
PYTHON = [sys.executable, "-c"]
COMMANDS = {
    "import lightning.pytorch.cli": [*PYTHON, "import lightning.pytorch.cli"],
    "import lit_ssl": [*PYTHON, "import lit_ssl"],
    "import lit_ssl.cli.training": [*PYTHON, "import lit_ssl.cli.training"],
    "lit-ssl --help": [SCRIPT, "--help"],
    "lit-ssl configs": [SCRIPT, "configs"],
    "lit-ssl methods": [SCRIPT, "methods"],
    "lit-ssl imagenetx score --help": [SCRIPT, "imagenetx", "score", "--help"],
    "lit-ssl fit --help": [SCRIPT, "fit", "--help"],
}


def cpu_seconds(command: list[str]) -> float:
    """Processor time of a command and its children, in seconds."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def main() -> None:
    """Measure all commands in turn, several times over, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():  # fill the file cache
        cpu_seconds(command)
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            times[name].append(cpu_seconds(command))
    base = statistics.median(next(iter(times.values())))
    print(f"{'command':<31} {'seconds':>8} {'ratio':>6}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<31} {median:8.2f} {median / base:6.2f}")


if __name__ == "__main__":
    main()
