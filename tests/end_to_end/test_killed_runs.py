"""A run that dies in the middle of an epoch and is resumed is, bit by bit, the run that was not."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path.insert(0, str(Path(__file__).parent))
from checkpoint_differences import differences

# Steps 6 to 11 are epoch 1, which has a checkpoint after step 8.
KILL = ["--trainer.callbacks.kill_at=11"]
IN_WORKERS = ["--data.augment=worker", "--data.num_workers=2"]


def final_values(logs, prefix):
    """The last value of each scalar of a group."""
    events = EventAccumulator(str(logs))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith(prefix)]
    return {tag: (events.Scalars(tag)[-1].step, events.Scalars(tag)[-1].value) for tag in tags}


def check(whole, resumed):
    assert resumed.losses == whole.losses
    first, second = whole.last, resumed.last
    names = first["state_dict"].keys()
    for part in ("backbone.", "projection_head.", "prototypes", "target_backbone.", "target_head."):
        assert any(name.startswith(part) for name in names)
    assert differences(first["state_dict"], second["state_dict"]) == []
    assert differences(first["optimizer_states"], second["optimizer_states"]) == []
    probes = [c["callbacks"]["LinearProbeEvaluator"] for c in (first, second)]
    assert probes[0]["head"]["steps"] == 18
    assert differences(*probes) == []
    assert first["global_step"] == second["global_step"] == 18
    values = final_values(whole.logs, "val/")
    assert len(values) == 9
    assert final_values(resumed.logs, "val/") == values


def test_run_killed_in_the_middle_of_an_epoch(trained, console_script, finished, recipe, tmp_path):
    killed = console_script("fit", *recipe, *KILL)
    assert killed.code == -signal.SIGKILL, killed.err
    written = (tmp_path / "losses.txt").read_text().split()[::2]
    assert written == [str(step) for step in range(1, 12)]

    resumed = console_script("fit", *recipe, "--ckpt_path", "last")
    assert resumed.code == 0, resumed.err
    first = "--ckpt_path last: lightning_logs/version_0/checkpoints/step=8.ckpt"
    assert resumed.out.splitlines()[0] == first
    check(trained, finished())
    # nothing on the error stream that is not worth reading
    told = [line for line in resumed.err.splitlines() if line.strip()]
    begins = ("Seed set to", "global batch", "GPU available", "Restor", "`Trainer.fit` stopped")
    assert [line for line in told if not line.startswith(begins)] == []


@pytest.mark.slow
def test_run_with_views_from_workers(lit_ssl, console_script, finished, recipe, tmp_path):
    words = ["fit", *recipe, *IN_WORKERS]
    assert lit_ssl(*words, "--trainer.default_root_dir=whole").code == 0
    whole = finished()._replace(folder=tmp_path / "whole")
    (tmp_path / "losses.txt").rename(tmp_path / "whole/losses.txt")

    words.append("--trainer.default_root_dir=killed")
    assert console_script(*words, *KILL).code == -signal.SIGKILL
    assert lit_ssl(*words, "--ckpt_path", "last").code == 0
    check(whole, finished())


def test_without_the_state_of_the_probe_the_comparison_would_fail(trained):
    first, second = trained.last, trained.last
    head = second["callbacks"]["LinearProbeEvaluator"]["head"]
    head["linear.weight"] = head["linear.weight"].nextafter(torch.tensor(1.0))
    assert differences(first, second) == ["/callbacks/LinearProbeEvaluator/head/linear.weight"]
