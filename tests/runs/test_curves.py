from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from lit_ssl.runs.curves import has_curves, read_curves


def board(folder, name="loss", steps=range(5), value=float, picture=False, **kwargs):
    with SummaryWriter(str(folder), **kwargs) as writer:
        for step in steps:
            writer.add_scalar(name, value(step), step)
        if picture:
            writer.add_image("views", np.zeros((3, 200, 200), dtype=np.uint8), 0)
            noise = np.random.default_rng(0).integers(0, 255, (3, 200, 200), dtype=np.uint8)
            writer.add_image("views", noise, 1)
            writer.add_scalar(name, 99.0, 99)
    return sorted(folder.glob("events*"))


def quiet(line):
    raise AssertionError(line)


def test_a_csv_of_lightning(tmp_path):
    logger = CSVLogger(tmp_path, name=None, version="")
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.log_metrics({"train/loss": float("nan"), "epoch": 0}, step=5)
    logger.log_metrics({"val/acc1": 0.5, "epoch": 0}, step=5)
    logger.log_metrics({"train/loss": float("inf")}, step=9)
    logger.save()
    curves = read_curves(tmp_path, quiet)
    assert list(curves["train/loss"].steps) == [0, 5, 9]
    assert curves["train/loss"].values[0] == 2
    assert math.isnan(curves["train/loss"].values[1])
    assert curves["train/loss"].values[2] == math.inf
    assert list(curves["val/acc1"].steps) == [5]
    assert list(curves["val/acc1"].values) == [0.5]


def test_events_of_tensorboard_with_pictures_between_them(tmp_path):
    board(tmp_path, picture=True)
    curve = read_curves(tmp_path, quiet)["loss"]
    assert list(curve.steps) == [0, 1, 2, 3, 4, 99]
    assert list(curve.values) == [0, 1, 2, 3, 4, 99]


def test_scalars_of_the_new_style(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss", 0.5, 3, new_style=True)
        writer.add_text("words", "no number", 3)
        writer.add_histogram("weights", np.arange(9.0), 3)
    curves = read_curves(tmp_path, quiet)
    assert list(curves) == ["loss"]
    assert list(curves["loss"].values) == [0.5]


def test_a_resumed_run_goes_on_from_an_earlier_step(tmp_path):
    first = board(tmp_path, steps=range(10))
    for path in first:  # names begin with seconds
        os.rename(path, path.with_name(path.name.replace("tfevents.", "tfevents.0")))
    board(tmp_path, steps=range(6, 8), value=lambda step: 100.0 + step)
    curve = read_curves(tmp_path, quiet)["loss"]
    assert list(curve.steps) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert list(curve.values) == [0, 1, 2, 3, 4, 5, 106, 107]


def test_tensorboard_counts_where_both_know_a_metric(tmp_path):
    board(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,loss,other,step\n0,7.0,8.0,0\n")
    curves = read_curves(tmp_path, quiet)
    assert len(curves["loss"].steps) == 5
    assert list(curves["other"].values) == [8.0]


@pytest.mark.parametrize("cut", [1, 30, 60])
def test_a_growing_file_is_read_as_far_as_it_goes(tmp_path, cut):
    (path,) = board(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    said = []
    curve = read_curves(tmp_path, said.append)["loss"]
    assert list(curve.values) == list(map(float, range(len(curve.steps))))
    assert 3 <= len(curve.steps) < 5
    assert len(said) == 1
    assert "within a record" in said[0]
    assert path.name in said[0]


@pytest.mark.parametrize("at", ["length", "record", "zeros"])
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path, at):
    (path,) = board(tmp_path)
    content = bytearray(path.read_bytes())
    last = len(content) - (len(content) - 48) // 6  # somewhere in the last records
    if at == "zeros":
        content[last:] = bytes(len(content) - last)
    else:
        content[-3 if at == "record" else last] ^= 0xFF
    path.write_bytes(content)
    said = []
    curve = read_curves(tmp_path, said.append)["loss"]
    assert 3 <= len(curve.steps) < 5
    assert len(said) == 1
    assert "damaged" in said[0]


def test_damaged_csv(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss,step\n0,1.0,0\n0,what,1\n0,2.0,2\n0,3.")
    said = []
    curve = read_curves(tmp_path, said.append)["loss"]
    assert list(curve.steps) == [0, 2]
    assert "2 of its lines or cells" in said[0]
    path.write_bytes(b"epoch,loss,step\n0,1.0,0\n" + bytes(100) + b"\n")
    said.clear()
    assert list(read_curves(tmp_path, said.append)["loss"].steps) == [0]
    assert "zero bytes" in said[0]
    path.write_text("a,b\n1,2\n")
    said.clear()
    assert read_curves(tmp_path, said.append) == {}
    assert "no column step" in said[0]


def test_nothing_there(tmp_path):
    assert read_curves(tmp_path, quiet) == {}
    assert read_curves(tmp_path / "none", quiet) == {}
    assert not has_curves(tmp_path / "none")
    (tmp_path / "metrics.csv").touch()
    assert has_curves(tmp_path)
    assert read_curves(tmp_path, quiet) == {}


def test_twenty_thousand_points_take_no_time_to_speak_of(tmp_path):
    board(tmp_path, steps=range(20_000))
    start = time.process_time()
    assert len(read_curves(tmp_path, quiet)["loss"].steps) == 20_000
    assert time.process_time() - start < 8


@pytest.mark.parametrize(
    "fault", [{"dtype": 77}, {"dtype": 7}, {"dtype": 20}, {"tensor_content": b"ab"}, {}]
)
def test_tensors_of_events_that_are_not_what_they_say(tmp_path, fault):
    written(tmp_path, {"dtype": 1, "float_val": [2.0]}, {"dtype": 1, **fault})
    said = []
    assert list(read_curves(tmp_path, said.append)["x"].values) == [2.0]
    assert len(said) == 1
    assert "none of TensorBoard's" in said[0]


def test_tensors_of_any_size_are_no_numbers(tmp_path):
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=10**12)])
    written(tmp_path, {"dtype": 1, "tensor_shape": shape, "float_val": [1.0]})
    assert read_curves(tmp_path, quiet) == {}


def written(folder, *tensors):
    """A file of TensorBoard with a value `x` for each tensor."""
    with (folder / "events.out.tfevents.1").open("wb") as file:
        for step, tensor in enumerate(tensors):
            event = Event(step=step)
            value = event.summary.value.add(tag="x", tensor=TensorProto(**tensor))
            value.metadata.plugin_data.plugin_name = "scalars"
            RecordWriter(file).write(event.SerializeToString())
