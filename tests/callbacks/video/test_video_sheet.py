"""Sheets and clips of videos: what is on them, when and where they are written."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_ssl.callbacks import VideoContactSheet
from lit_ssl.callbacks.pictures import video_sheet
from lit_ssl.errors import InputError
from lit_ssl.video.sheet import contact_sheet

sys.path.insert(0, str(Path(__file__).parent))
from video_toys import ColumnMaker, NoiseClips


@pytest.fixture(autouse=True, scope="module")
def _packages():
    pytest.importorskip("av")


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.is_file())


def test_files_of_due_epochs_and_of_the_end(make_trainer, tmp_path):
    import av

    module = ColumnMaker()
    trainer = make_trainer(
        callbacks=[VideoContactSheet(num_videos=5, every_n_epochs=2)], max_epochs=3,
        num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(module, NoiseClips())
    names = [f"video_sheets/step_{step:08d}" for step in (6, 9)]
    assert written(tmp_path) == [f"{n}.{kind}" for n in names for kind in ("mp4", "png")]
    with av.open(str(tmp_path / f"{names[0]}.mp4")) as file:
        assert len(list(file.decode(video=0))) == module.num_frames
    # the same noise and classes every time, classes in turn
    assert module.asked[0] == module.asked[1]
    assert module.asked[0][:2] == (5, [0, 1, 2, 0, 1])


def test_rows_are_named_after_classes(make_trainer, tmp_path, monkeypatch):
    shown = []

    def draw(videos, captions):
        shown.append((videos, captions))
        return contact_sheet(videos, captions)

    monkeypatch.setattr(video_sheet, "contact_sheet", draw)
    data, module = NoiseClips(), ColumnMaker()
    callback = VideoContactSheet(4, write_mp4=False)
    make_trainer(callbacks=[callback]).validate(module, data, verbose=False)
    assert written(tmp_path) == ["video_sheets/validate.png"]
    ((videos, captions),) = shown
    assert captions == ["red", "green", "blue", "red"]
    assert [int(video[0, 0, 0].argmax()) for video in videos] == [0, 1, 2, 0]
    drawn = np.asarray(Image.open(tmp_path / "video_sheets/validate.png"))
    assert np.array_equal(drawn, contact_sheet(videos, captions))
    data.class_names = ("one",)
    make_trainer(callbacks=[callback]).test(module, data, verbose=False)
    assert shown[1][1] == ["0", "1", "2", "0"]
    module.num_classes = 1
    make_trainer(callbacks=[callback]).test(module, data, verbose=False)
    assert shown[2][1] == []


def test_tensorboard_shows_sheet_and_moving_picture(make_trainer, tmp_path):
    board = TensorBoardLogger(tmp_path, name="run")
    make_trainer(callbacks=[VideoContactSheet()], logger=board).test(
        ColumnMaker(), NoiseClips(), verbose=False
    )
    files = {f"run/version_0/video_sheets/test.{kind}" for kind in ("mp4", "png")}
    assert files < set(written(tmp_path))
    events = EventAccumulator(board.log_dir).Reload()
    assert sorted(events.Tags()["images"]) == ["video_sheets", "video_sheets_moving"]
    (moving,) = events.Images("video_sheets_moving")
    assert moving.encoded_image_string[:6] == b"GIF89a"


def test_an_end_by_early_stopping_is_drawn(make_trainer, tmp_path):
    class Logging(ColumnMaker):
        def validation_step(self, batch, batch_idx):
            self.log("val/nothing", 1.0)

    stop = EarlyStopping("val/nothing", mode="max", stopping_threshold=0.0)
    trainer = make_trainer(callbacks=[VideoContactSheet(every_n_epochs=50), stop], max_epochs=9)
    trainer.fit(Logging(), NoiseClips())
    assert len(written(tmp_path)) == 2


def test_training_does_not_notice(make_trainer, tmp_path):
    weights = []
    for callbacks in ([], [VideoContactSheet()]):
        torch.manual_seed(1)
        module = ColumnMaker()
        make_trainer(callbacks=callbacks, max_epochs=2).fit(module, NoiseClips())
        weights.append(module.weight.detach().clone())
    assert torch.equal(*weights)
    assert len(written(tmp_path)) == 4


def test_debugging_runs_leave_nothing(make_trainer, tmp_path):
    make_trainer(callbacks=[VideoContactSheet()], fast_dev_run=True).fit(
        ColumnMaker(), NoiseClips()
    )
    assert written(tmp_path) == []


def test_mistakes(toys, make_trainer, monkeypatch):
    with pytest.raises(InputError, match="fps > 0, got 8, 1, 0"):
        VideoContactSheet(fps=0)
    with pytest.raises(AttributeError, match=r"VideoContactSheet needs a module .* has no level"):
        make_trainer(callbacks=[VideoContactSheet()]).fit(toys.ToyModule(), toys.ToyData())
    monkeypatch.setattr(
        video_sheet, "find_spec", lambda name: None if name == "av" else find_spec(name)
    )
    with pytest.raises(ImportError, match=r"needs PyAV to write clips: pip install .*write_mp4"):
        make_trainer(callbacks=[VideoContactSheet()]).fit(ColumnMaker(), NoiseClips())
    make_trainer(callbacks=[VideoContactSheet(write_mp4=False)]).fit(ColumnMaker(), NoiseClips())
