"""The classes of ImageNet's devkit, out of ``meta.mat``.

scipy's reader is not made for files that are damaged: some of them end the process that reads them.
So another process does it, and only names come back.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from lit_ssl.errors import InputError, InputImportError, shortened
from lit_ssl.json_text import parse_json
from lit_ssl.opening import open_file, reading

__all__ = ["devkit_classes"]

_NUM_CLASSES = 1000


def devkit_classes(meta: Path) -> dict[int, str]:
    """Return number (ILSVRC2012_ID) → wnid of the 1,000 classes; higher numbers are inner nodes.

    Args:
        meta: The file ``meta.mat`` of the devkit.

    Raises:
        ImportError: scipy is not installed.
        InputError: It is no such file.
    """
    try:
        import scipy.io  # noqa: F401 -- the other process needs it
    except ImportError as error:
        raise InputImportError(
            f"Reading {meta} needs scipy: `pip install scipy`, or set val_labels to a list of file"
            " names and wnids"
        ) from error
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", __name__]
    with reading(meta), open_file(meta) as file:
        found = subprocess.run(command, stdin=file, capture_output=True, env=environment)
    if found.returncode != 0:
        said = found.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise InputError(
            f"{meta} is not the devkit's ({shortened(said) or 'its reader crashed'}): get the"
            " devkit again"
        )
    return {number: wnid for number, wnid in parse_json(found.stdout) if number <= _NUM_CLASSES}


def _main() -> None:
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)["synsets"]
    numbers = [int(number) for number in synsets["ILSVRC2012_ID"]]
    wnids = [str(wnid) for wnid in synsets["WNID"]]
    print(json.dumps(list(zip(numbers, wnids, strict=True))))


if __name__ == "__main__":
    _main()
