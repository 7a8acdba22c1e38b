"""`lit-ssl video-plan`: counted, and compared with what is measured."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from lit_ssl.cli.video.plan import _windows as windows_of
from lit_ssl.methods.video.costs import level_cost
from lit_ssl.models.video.cost import GIB, saved_bytes

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_cascades import fit, level1, level2

UPPER = {"resolution": 128, "channels": 64, "d_channels": 96}
# level, options → million parameters, GFLOP, GiB of a video as the specification of the recipes has
# them; GiB of level 1 are an upper bound, since the recurrence keeps less than it had been
PAPER = [
    (1, {"num_frames": 8, "resolution": 64, "channels": 96}, 174, 600, 0.7),
    (1, {"num_frames": 12, "resolution": 64, "channels": 128}, 305, 1600, 1.4),
    (3, {"num_frames": 48, "resolution": 256, "channels": 32, "window": 6}, 1.8, 1186, 7.3),
]


@cache
def upper(window, frames=48):
    """Costs of a level 2."""
    return level_cost({"level": 2, **UPPER, "window": window, "num_frames": frames})


@pytest.mark.slow
@pytest.mark.parametrize(("level", "options", "parameters", "gflop", "gib"), PAPER)
def test_costs_are_those_on_paper(level, options, parameters, gflop, gib):
    cost = level_cost({"level": level, **options}).generator
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.1)
    assert cost.flops / 1e9 == pytest.approx(gflop, rel=0.1)
    if level == 1:
        assert 0.75 * gib < cost.saved / GIB <= gib
    else:
        assert cost.saved / GIB == pytest.approx(gib, rel=0.1)


def test_level_2_costs_what_it_does_on_paper():
    _, cost, judges, _ = upper(6)
    assert cost.parameters / 1e6 == pytest.approx(6.4, rel=0.1)
    assert cost.flops / 1e9 == pytest.approx(1182, rel=0.1)
    assert cost.saved / GIB == pytest.approx(3.7, rel=0.1)
    assert judges["frames"].parameters / 1e6 == pytest.approx(33, rel=0.1)
    assert judges["frames"].flops / 1e9 == pytest.approx(138, rel=0.1)
    assert judges["matching"].parameters / 1e6 == pytest.approx(23, rel=0.1)
    assert judges["matching"].flops / 1e9 == pytest.approx(52, rel=0.1)


def test_cost_is_linear_in_the_window_and_flat_in_the_length():
    one, two, long = upper(6), upper(12), upper(6, 480)
    assert two.generator.flops == pytest.approx(2 * one.generator.flops, rel=1e-3)
    assert two.generator.saved == pytest.approx(2 * one.generator.saved, rel=1e-3)
    assert two.generator.fixed == one.generator.fixed
    assert long == one


@pytest.mark.parametrize("level", [1, 2])
def test_counted_is_what_steps_keep(level, tmp_path):
    module = level1() if level == 1 else level2(_trained(tmp_path))
    if level == 2:
        module.setup("fit")
    module.train()
    counted = level_cost(module.hparams)
    tensors = [*module.parameters(), *module.buffers()]
    real = torch.zeros(6, module.frames, 3, *module.resolution)
    labels = torch.zeros(6, dtype=torch.int64)

    def slope(step):
        few, more = (saved_bytes(lambda: step(batch), tensors) for batch in (4, 6))  # noqa: B023
        return (more - few) / 2

    of_generator = slope(module.generator_loss)
    of_judges = slope(lambda batch: module.discriminator_loss(real[:batch], labels[:batch])[0])
    judges = sum(judge.saved for judge in counted.judges.values())
    # the window of the level below is a part of more frames, which are kept with it
    assert of_generator == pytest.approx(counted.generator.saved + judges, rel=0.02)
    assert of_judges == pytest.approx(2 * judges, rel=0.01)
    assert counted.memory.activations == max(counted.generator.saved + judges, 2 * judges)
    module.eval()


def _trained(folder):
    runs = fit(level1(), folder, steps=1)
    runs.save_checkpoint(folder / "level1.ckpt")
    return str(folder / "level1.ckpt")


def test_table_of_windows(lit_ssl):
    words = ("--config", "video/moving_digits_level2.yaml", "--windows", "8,2", "--batch", 2)
    shown = lit_ssl("video-plan", *words, "--memory", 1)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith("level 2: 16 frames of 32 x 32 pixels, 0.1 M parameters")
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [row[:2] for row in rows] == [["2", "4"], ["4", "8"], ["8", "16"]]
    assert "batch 2, fp32" in shown.out
    assert float(rows[1][3]) == pytest.approx(2 * float(rows[0][3]), rel=0.05)
    assert int(rows[0][-2]) > int(rows[1][-2]) > int(rows[2][-2])
    assert int(rows[0][-1]) > int(rows[0][-2])


def test_level_1_has_one_row_and_needs_no_data(lit_ssl):
    shown = lit_ssl("video-plan", "--config", "video/ucf101_level1.yaml", "--memory", 0.1)
    assert shown.code == 0, shown.err
    assert "173.6 M parameters" in shown.out
    assert "counted for one class: give --model.num_classes NUMBER" in shown.out
    (row,) = [line for line in shown.out.splitlines() if line.strip().startswith("all")]
    assert row.split()[-2:] == ["none", "none"]


def test_a_halo_leaves_room_for_smaller_windows():
    options = {"level": 2, "num_frames": 16, "temporal_factor": 2, "window_halo": 1}
    assert windows_of({**options, "window": 4}, None) == [2, 4, 6]
    assert windows_of({**options, "window": 4}, "3") == [3, 4]


def test_numbers_that_are_divided_by(lit_ssl):
    wrong = lit_ssl("video-plan", "--config=video/ucf101_level2.yaml", "--model.d_steps=0")
    assert wrong.code == 2
    assert "error: d_steps must be at least 1, not 0" in wrong.err


def test_mistakes(lit_ssl):
    level_1, level_2 = (f"--config=video/moving_digits_level{level}.yaml" for level in (1, 2))
    for words, message in (
        ([], "say which level: --config video/ucf101_level2.yaml; usage: lit-ssl video-plan"),
        ([level_1, "--windows=2"], "level 1 is trained on whole videos and has no window"),
        ([level_2, "--windows=9"], "window=9 and window_halo=0 must fit into the 8 frames"),
        ([level_2, "--windows=a"], "--windows takes numbers with commas between, such as 2,4,8"),
        ([level_2, "--memory=-1"], "--memory must be a number of GiB above 0, not -1.0"),
        ([level_2, "--batch=0"], "--batch must be at least 1, not 0"),
        ([level_2, "--model.windw=2"], "has no option 'windw'. Did you mean window?"),
        (["--config=msn/mnist5k.yaml"], "video-plan counts CascadedVideoGAN, and this config"),
        (["--config=video/nothing.yaml"], "--config video/nothing.yaml: no such config file"),
    ):
        result = lit_ssl("video-plan", *words)
        assert result.code == 2, words
        assert message in result.err
        assert result.err.count("\n") == 1, result.err
