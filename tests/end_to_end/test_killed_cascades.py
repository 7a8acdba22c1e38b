"""Both levels of a cascade, killed within an epoch and resumed, end as undisturbed ones."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from checkpoint_differences import differences

# Epochs of 6 steps: the kill before step 12 lies in the second one, 3 steps behind a checkpoint.
TINY = (
    "--data.sizes=[24,4,4]", "--data.batch_size=4", "--model.channels=2", "--model.d_channels=2",
    "--model.z_dim=4", "--model.embed_dim=4", "--model.standing_stats_batches=1",
    "--trainer.max_steps=16", "--trainer.num_sanity_val_steps=0",
    "--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=4",
    "--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}",
    "--trainer.callbacks+=CascadeMonitor", "--trainer.callbacks.num_videos=4",
    "--trainer.callbacks+=user_project.CascadeLossWriter",
)  # fmt: skip


def words(level, name, previous):
    """The command that trains a level in the folder NAME, where its losses go."""
    below = [f"--model.previous={previous}"] if previous else []
    files = [f"--trainer.default_root_dir={name}", f"--trainer.callbacks.file={name}.txt"]
    return ["fit", f"--config=video/moving_digits_level{level}.yaml", *TINY, *files, *below]


def losses(path):
    """Both losses of each step, in hexadecimal; of a step that was made twice, the second."""
    return dict(line.split() for line in path.read_text().splitlines())


@pytest.mark.slow
def test_both_levels(lit_ssl, console_script, tmp_path):
    pytest.importorskip("mlxtend")
    below = {"whole": None, "killed": None}
    for level in (1, 2):
        names = {name: f"{name}{level}" for name in below}
        whole = words(level, names["whole"], below["whole"])
        killed = words(level, names["killed"], below["killed"])
        done = lit_ssl(*whole)
        assert done.code == 0, done.err
        assert console_script(*killed, "--trainer.callbacks.kill_at=11").code == -signal.SIGKILL
        written = (tmp_path / f"{names['killed']}.txt").read_text().split()[::2]
        assert written == [str(step) for step in range(1, 12)]
        resumed = lit_ssl(*killed, "--ckpt_path=last")
        assert resumed.code == 0, resumed.err
        assert "version_0/checkpoints/step=8.ckpt" in resumed.out.splitlines()[0]

        found = {name: losses(tmp_path / f"{folder}.txt") for name, folder in names.items()}
        assert list(found["whole"]) == [str(step) for step in range(1, 17)]
        assert found["killed"] == found["whole"]
        ends = {
            name: next((tmp_path / folder).rglob("step=16.ckpt")) for name, folder in names.items()
        }
        contents = {name: torch.load(path, weights_only=True) for name, path in ends.items()}
        parts = {key.partition(".")[0] for key in contents["whole"]["state_dict"]}
        assert parts >= {"generator", "generator_ema", "discriminators", "g_step"}
        assert ("lower" in parts) == (level == 2)
        for part in ("state_dict", "optimizer_states"):
            assert differences(*(content[part] for content in contents.values())) == []
        below = ends
