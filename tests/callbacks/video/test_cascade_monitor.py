"""Generated videos against real ones, while it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_ssl.callbacks import CascadeMonitor
from lit_ssl.errors import InputError
from lit_ssl.metrics.video.motion import motion_statistic
from lit_ssl.metrics.video.random_features import RandomFeatureDistance

sys.path.insert(0, str(Path(__file__).parent))
from video_toys import ColumnMaker, NoiseClips, UpperLevel


def logged(trainer):
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_values_are_those_of_the_videos(make_trainer):
    trainer, module, data = make_trainer(callbacks=[CascadeMonitor(10)]), UpperLevel(), NoiseClips()
    trainer.validate(module, data, verbose=False)
    made = [ask for ask in module.asked if ask[1] != "gap"]
    assert [n for n, _, _ in made] == [8, 2]
    assert len({seed for _, _, seed in made}) == 2  # other noise for each group
    module.eval()
    fakes = [module.sample(n, generator=torch.Generator().manual_seed(seed)) for n, _, seed in made]
    metric = RandomFeatureDistance(32)
    metric.update(data.videos, real=True)
    metric.update(torch.cat(fakes), real=False)
    found = logged(trainer)
    assert found["val/random_feature_distance"] == pytest.approx(metric.compute().item(), rel=1e-5)
    motion = motion_statistic(torch.cat(fakes)).item()
    assert found["val/motion"] == pytest.approx(motion, rel=1e-5)
    assert found["val/motion_real"] == pytest.approx(motion_statistic(data.videos).item())
    own = (8 * 0.8 + 2 * 0.2) / 10
    assert found["val/matching_own"] == pytest.approx(own)
    assert found["val/matching_shuffled"] == 2
    assert found["val/matching_gap"] == pytest.approx(1 - own / 2)
    trainer = make_trainer(callbacks=[CascadeMonitor(10)])
    trainer.test(ColumnMaker(), data, verbose=False)
    assert logged(trainer)["test/random_feature_distance"] == pytest.approx(
        found["val/random_feature_distance"]
    )
    assert not any("matching" in name for name in logged(trainer))


def test_real_videos_are_the_first_frames_of_the_first_ones(make_trainer):
    trainer, data = make_trainer(callbacks=[CascadeMonitor(4)]), NoiseClips(frames=6)
    trainer.validate(ColumnMaker(), data, verbose=False)
    expected = motion_statistic(data.videos[:4, :4]).item()
    assert logged(trainer)["val/motion_real"] == pytest.approx(expected)


def test_checkpoints_wait_for_epochs_that_measure(make_trainer, tmp_path):
    best = ModelCheckpoint(
        tmp_path, monitor="val/random_feature_distance", filename="{epoch}", save_top_k=-1
    )
    callbacks = [CascadeMonitor(4, every_n_epochs=2), best]
    trainer = make_trainer(callbacks=callbacks, max_epochs=5, enable_checkpointing=True)
    module = ColumnMaker()
    trainer.fit(module, NoiseClips())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"epoch={epoch}.ckpt" for epoch in (1, 3, 4)
    ]
    assert len(module.asked) == 3
    assert len(set(map(str, module.asked))) == 1


def test_training_does_not_notice(make_trainer):
    weights = []
    for callbacks in ([], [CascadeMonitor(4)]):
        torch.manual_seed(1)
        module = UpperLevel()
        make_trainer(callbacks=callbacks, max_epochs=2, num_sanity_val_steps=1).fit(
            module, NoiseClips()
        )
        weights.append(module.weight.detach().clone())
        assert module.drop.training or not callbacks
    assert torch.equal(*weights)


def test_values_that_cannot_be_told_are_said(make_trainer):
    class Alike(UpperLevel):
        def matching_gap(self, n, generator):
            return {"own": 0.0, "shuffled": 0.0, "gap": float("nan")}

    with pytest.warns(UserWarning, match="matching_gap cannot be told at step 0: the videos are"):
        make_trainer(callbacks=[CascadeMonitor(4)]).validate(Alike(), NoiseClips(), verbose=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"frames": 3}, r"makes 4 frames of 6 x 8 pixels.* has 3 .* eval_frames: 4"),
        ({"size": (6, 6)}, r".* has 4 frames of 6 x 6: give the data .*size: \[6, 8\]"),
    ],
)
def test_other_sizes_are_refused(make_trainer, data, message):
    with pytest.raises(InputError, match=f"CascadeMonitor: the module {message}"):
        make_trainer(callbacks=[CascadeMonitor()]).fit(ColumnMaker(), NoiseClips(**data))


def test_mistakes(toys, make_trainer):
    with pytest.raises(InputError, match="num_videos >= 2 and every_n_epochs >= 1, got 1, 1"):
        CascadeMonitor(1)
    with pytest.raises(InputError, match=r"compares with 2 videos .* and got 1: give"):
        make_trainer(callbacks=[CascadeMonitor()]).validate(ColumnMaker(), NoiseClips(count=1))
    with pytest.raises(AttributeError, match=r"CascadeMonitor needs a module .* has no level"):
        make_trainer(callbacks=[CascadeMonitor()]).fit(toys.ToyModule(), toys.ToyData())
    module = ColumnMaker()
    module.level = 2
    with pytest.raises(AttributeError, match=r"CascadeMonitor needs matching_gap\(n, generator\)"):
        make_trainer(callbacks=[CascadeMonitor()]).fit(module, NoiseClips())
    with pytest.raises(TypeError, match=r"CascadeMonitor needs batches \(video"):
        make_trainer(callbacks=[CascadeMonitor()]).validate(ColumnMaker(), toys.ToyData())


@pytest.mark.slow
@pytest.mark.distributed
def test_processes_share_the_work(tmp_path):
    script = Path(__file__).with_name("run_monitor.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(script), str(out)],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    alone, shared, few = json.loads(out.read_text())
    assert shared == pytest.approx(alone, rel=1e-5)
    assert set(few) == set(alone)  # the second process made nothing
