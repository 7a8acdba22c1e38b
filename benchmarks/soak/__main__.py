"""``python -m soak``: see the package."""

from __future__ import annotations

import os


def start() -> None:
    """Set what has to be set before torch and NumPy are imported, and run the soak.

    A fork is safe only without threads, and results of different numbers of threads differ in their
    last bits.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from soak.run import main

    main()


if __name__ == "__main__":
    start()
