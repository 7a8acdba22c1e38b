"""Clips of videos in memory: which frames, which crops, which rows."""

from __future__ import annotations

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.datamodules import Subset, VideoDataModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.video.sources import ArrayClips
from lit_ssl.errors import InputError


class NumberedClips(ArrayClips):
    """Red is the row, green the frame, blue the column of a pixel; of any length."""

    def __init__(self, lengths, size=(6, 9), fps=25.0):
        height, width = size
        videos = np.zeros((len(lengths), max(lengths), height, width, 3), dtype=np.uint8)
        videos[..., 0] = np.arange(len(lengths))[:, None, None, None]
        videos[..., 1] = np.arange(max(lengths))[None, :, None, None]
        videos[..., 2] = np.arange(width)
        super().__init__(videos, fps)
        self.frames = np.asarray(lengths)

    def select(self, rows):
        chosen = copy.copy(self)
        chosen.videos, chosen.frames = self.videos[rows], self.frames[rows]
        chosen.fps = self.fps[rows]
        return chosen


class Numbered(VideoDataModule):
    """23 training and 7 test videos of 12 to 22 frames; the label is the row modulo 2."""

    class_names = ("even", "odd")

    def __init__(self, *, lengths=None, rate=25.0, **kwargs):
        super().__init__(
            **{"num_workers": 0, "batch_size": 4, "num_frames": 5, "size": 6, **kwargs}
        )
        self.lengths = lengths
        self.rate = rate

    def load_rows(self, split):
        if split == "val":
            return None
        count = 23 if split == "train" else 7
        lengths = self.lengths or [12 + row % 11 for row in range(count)]
        clips = NumberedClips(lengths, fps=self.rate)
        return Rows(clips, {"label": np.arange(len(lengths)) % 2})


def rows_of(video):
    return video[:, 0, 0, 0, 0].tolist()


def frames_of(video):
    """Number of each frame, [B, T]."""
    return video[:, :, 1, 0, 0].tolist()


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


@pytest.fixture
def make():
    def build(**options):
        data = Numbered(**options)
        data.setup()
        return data

    return build


def test_training_clips_begin_anywhere_and_stay_inside(make):
    data = make(stride=2)
    starts, lefts = set(), set()
    for number in range(6):
        for video, labels in epoch(data, number):
            assert video.shape == (4, 5, 3, 6, 6)
            assert video.dtype == torch.uint8
            assert labels.tolist() == [row % 2 for row in rows_of(video)]
            for row, frames, clip in zip(rows_of(video), frames_of(video), video, strict=True):
                start = frames[0]
                assert frames == list(range(start, start + 9, 2))
                assert frames[-1] < 12 + row % 11
                starts.add(start)
                left = int(clip[0, 2, 0, 0])
                # one place for all frames
                assert torch.equal(clip[:, 2], (left + torch.arange(6)).expand(5, 6, 6))
                lefts.add(left)
    assert starts == set(range(14))
    assert lefts == {0, 1, 2, 3}


def test_training_clips_are_a_function_of_seed_epoch_and_row(make):
    first = epoch(make(seed=3), 1)
    again = epoch(make(seed=3, num_workers=1), 1)
    for (video, labels), (same_video, same_labels) in zip(first, again, strict=True):
        assert torch.equal(video, same_video)
        assert torch.equal(labels, same_labels)
    by_row = {}
    for data, number in ((make(seed=3), 2), (make(seed=4), 1)):
        for video, _ in epoch(data, number):
            by_row.update(zip(rows_of(video), frames_of(video), strict=True))
        same = [
            by_row[row] == frames
            for video, _ in first
            for row, frames in zip(rows_of(video), frames_of(video), strict=True)
            if row in by_row
        ]
        assert sum(same) < len(same) / 2
    # the batch a video is in does not matter
    alone = dict(
        pair
        for video, _ in epoch(make(seed=3, batch_size=1), 1)
        for pair in zip(rows_of(video), frames_of(video), strict=True)
    )
    for video, _ in first:
        assert [alone[row] for row in rows_of(video)] == frames_of(video)


def test_mirrored_clips(make):
    mirrored = []
    for number in range(8):
        for video, _ in epoch(make(hflip=True), number):
            steps = video[:, :, 2].int().diff(dim=3)
            assert ((steps == 1).flatten(1).all(1) | (steps == -1).flatten(1).all(1)).all()
            mirrored += (steps[:, 0, 0, 0] < 0).tolist()
    assert 0.35 < np.mean(mirrored) < 0.65


def test_evaluation_is_the_middle(make):
    data = make(batch_size=3)
    batches = list(data.val_dataloader())
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    for video, labels in batches:
        for row, frames, clip in zip(rows_of(video), frames_of(video), video, strict=True):
            start = (12 + row % 11 - 5) // 2
            assert frames == list(range(start, start + 5))
            assert int(clip[0, 2, 0, 0]) == 1
        assert labels.tolist() == [row % 2 for row in rows_of(video)]
    assert data.validates_on_test


def test_evaluation_with_several_longer_clips(make):
    data = make(batch_size=2, clips_per_video=3, eval_frames=8)
    batches = list(data.test_dataloader())
    assert [len(labels) for _, labels in batches] == [6, 6, 6, 3]
    for video, labels in batches:
        assert video.shape[1:] == (8, 3, 6, 6)
        rows = rows_of(video)
        assert rows == np.repeat(rows[::3], 3).tolist()
        assert labels.tolist() == [row % 2 for row in rows]
        for row, frames in zip(rows[::3], np.reshape(frames_of(video), (-1, 3, 8)), strict=True):
            last = 12 + row % 11 - 8
            assert frames[:, 0].tolist() == [0, last // 2, last]
    # one clip of each training video, as long as those that are trained on
    bank = [video for video, _ in data.bank_dataloader()]
    assert [row for video in bank for row in rows_of(video)] == list(range(23))
    assert bank[0].shape == (2, 5, 3, 6, 6)


def test_resampled_clips(make):
    data = make(fps=10, num_frames=4, rate=25.0)
    for video, _ in data.test_dataloader():
        for row, frames in zip(rows_of(video), frames_of(video), strict=True):
            numbers = [int(i * 2.5) for i in range(int((12 + row % 11) / 2.5))]
            assert frames == numbers[(len(numbers) - 4) // 2 :][:4]
    slow = make(fps=50, num_frames=6)
    video, _ = next(iter(slow.test_dataloader()))
    assert frames_of(video)[0] == [4, 5, 5, 6, 6, 7]  # 24 frames; from (24 - 6) // 2 on


@pytest.mark.parametrize("rate", [0.0, float("nan"), 1e-9])
def test_videos_without_a_rate_cannot_be_resampled(make, rate):
    assert len(make(rate=rate).labels("train")) == 23
    with pytest.raises(InputError, match="no train video is left of 23: 23 are shorter"):
        make(rate=rate, fps=10)


def test_short_and_unreadable_videos_are_left_out_and_told(make, monkeypatch):
    said = []
    module = "lit_ssl.datamodules.video.clip_module.rank_zero_info"
    monkeypatch.setattr(module, said.append)
    lengths = [9, 0, 4, 8, 12, 3, 9, 5]
    data = make(lengths=lengths, num_frames=3, stride=2, eval_frames=4, batch_size=1)
    assert data.labels("train").tolist() == [0, 1, 0, 0, 1]
    assert data.labels("test").tolist() == [0, 1, 0, 0]  # 7 frames
    assert said == [
        "train: of 8 videos, 1 cannot be read and 2 are shorter than 5 frames (3 at a stride of 2):"
        " left out",
        "test: of 8 videos, 1 cannot be read and 3 are shorter than 7 frames (4 at a stride of 2):"
        " left out",
    ]
    kept = [0, 3, 4, 6, 7]
    assert [rows_of(video)[0] for video, _ in data.bank_dataloader()] == kept
    # positions count what is left
    assert data.positions(Subset(per_class=1)).tolist() in ([0, 1], [0, 4], [2, 1], [1, 2])


def test_what_is_chosen_does_not_depend_on_what_is_usable(make):
    lengths = [12] * 10 + [4] * 10
    chosen = make(lengths=lengths, num_frames=4, val_size=8, subset=Subset(fraction=0.5))
    fewer = make(lengths=lengths, num_frames=5, val_size=8, subset=Subset(fraction=0.5))
    for split in ("train", "val"):
        most, some = (
            [row for video, _ in data.evaluation_loader(split) for row in rows_of(video)]
            for data in (chosen, fewer)
        )
        assert some == [row for row in most if row < 10]
        assert 0 < len(some) < len(most)


def test_nothing_left(make):
    with pytest.raises(
        InputError, match=r"no train video is left of 23: 23 are shorter than 30.*longest has 22"
    ):
        make(num_frames=30)
    with pytest.raises(InputError, match="no test video is left of 7"):
        make(eval_frames=30)
    with pytest.raises(InputError, match="1 of the 3 train videos cannot be read: None"):
        make(lengths=[9, 0, 9], on_corrupt="raise")


def test_on_the_device(make):
    data = make()
    video = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1, 1).expand(1, 2, 3, 4, 5)
    done, labels = data.on_after_batch_transfer((video, torch.zeros(1)), 0)
    assert done.dtype == torch.float32
    assert torch.equal(done[0, 0], -torch.ones(3, 4, 5))
    assert torch.equal(done[0, 1], torch.ones(3, 4, 5))
    again, _ = data.on_after_batch_transfer((done, labels), 0)
    assert again is done
    usual = make(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)).finish(video)
    torch.testing.assert_close(usual[0, 1, :, 0, 0], torch.tensor([3.0, 5 / 3, 1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_frames": 2.5}, "num_frames must be a whole number, got 2.5"),
        ({"size": 4.5}, "size must be pixels"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"fps": 0.0}, "fps must be a positive number"),
        ({"size": 0}, "size must be pixels"),
        ({"size": (4, 5, 6)}, "size must be pixels"),
        ({"eval_frames": 0}, "eval_frames must be at least 1"),
        ({"clips_per_video": 0}, "clips_per_video must be at least 1"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be 'raise' or 'skip'"),
        ({"std": (0.5, 0.5)}, "std"),
    ],
    ids=str,
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        Numbered(**options)


class Seen(pl.LightningModule):
    """Writes down the frames of each training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []
        self.stop_at = None

    def training_step(self, batch, batch_idx):
        if self.stop_at == len(self.seen):
            raise RuntimeError("power cut")
        video, labels = batch
        assert video.dtype == torch.bfloat16
        self.seen.append((video.float().sum().item(), labels.tolist()))
        return self.weight * video.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_stopped_epoch_goes_on_with_the_same_clips(tmp_path):
    def run(module, checkpoint=None):
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", precision="bf16-true", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=Numbered(seed=5), ckpt_path=checkpoint)
        return trainer

    class Saver(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if len(module.seen) == 3:
                trainer.save_checkpoint(tmp_path / "three.ckpt")

    whole = Seen()
    run(whole)
    assert len(whole.seen) == 10
    stopped = Seen()
    stopped.stop_at = 3
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", precision="bf16-true", logger=False, callbacks=[Saver()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(stopped, datamodule=Numbered(seed=5))
    resumed = Seen()
    run(resumed, tmp_path / "three.ckpt")
    assert resumed.seen == whole.seen[3:]
