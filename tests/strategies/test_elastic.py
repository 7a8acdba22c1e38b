"""A process is killed under torchrun; the run continues by itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close


@pytest.mark.slow
@pytest.mark.distributed
def test_killed_process_comes_back_and_training_ends_as_if_nothing_had_happened(tmp_path, golden):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--max-restarts", "2", "--master-port", str(port),
        str(Path(__file__).with_name("elastic_run.py")), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=240)
    expected = golden("strategies/slowmo_sgd_w2")["traj32"]
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert result["attempt"] == 1
        assert result["steps"] == 24
        # The last checkpoint before the death in step 10 is of step 9, inside a round.
        assert_close(result["trajectory"], expected[9:, rank], atol=5e-6, rtol=0)
