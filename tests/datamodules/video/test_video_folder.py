"""Any folder of videos: layouts, broken files, what is kept beside them."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
import torch
from video_files import bar_number, bar_video, truncated

from lit_ssl.datamodules import Subset, VideoFolderDataModule
from lit_ssl.errors import InputError

SPLITS = {
    "train/run/a.mp4": 12, "train/run/b.AVI": 14, "train/walk/c.mov": 12, "train/walk/d/e.mp4": 9,
    "val/walk/f.mp4": 12, "Test/run/g.mp4": 12,
}  # fmt: skip


def write(root, lengths, **options):
    for name, frames in lengths.items():
        path = root / name
        written = bar_video(path.with_suffix(path.suffix.lower()), frames, **options)
        written.rename(path)
    return root


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return write(tmp_path_factory.mktemp("splits"), SPLITS)


@pytest.fixture
def make():
    def build(root, setup=True, **options):
        options = {"num_frames": 4, "size": (24, 30), "num_workers": 0, "batch_size": 2, **options}
        data = VideoFolderDataModule(root=str(root), **options)
        if setup:
            data.setup()
        return data

    return build


def names_of(data, split):
    source = data.rows(split).source
    return [source.name(row) for row in range(len(source))]


def numbers(video):
    """Frame numbers [B, T] of uint8 [B, T, 3, H, W]."""
    return [[bar_number(frame) for frame in clip] for clip in video.permute(0, 1, 3, 4, 2).numpy()]


def test_splits_with_classes(make, splits):
    data = make(splits)
    assert list(data.class_names) == ["run", "walk"]
    assert names_of(data, "train") == ["run/a.mp4", "run/b.AVI", "walk/c.mov", "walk/d/e.mp4"]
    assert data.labels("train").tolist() == [0, 0, 1, 1]
    assert data.labels("val").tolist() == [1]
    assert data.labels("test").tolist() == [0]
    assert not data.validates_on_test
    batches = list(data.bank_dataloader())
    video = torch.cat([video for video, _ in batches])
    assert video.shape == (4, 4, 3, 24, 30)
    assert video.dtype == torch.uint8
    # 12, 14, 12 and 9 frames; frames of 48 x 64 are halved and lose a column on each side
    assert numbers(video) == [list(range(s, s + 4)) for s in (4, 5, 4, 2)]
    assert (splits / ".lit_ssl_index").is_dir()


def test_training_clips_are_read_as_drawn(make, splits):
    data = make(splits, stride=2, batch_size=4, seed=1)
    for number in range(3):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        ((video, labels),) = loader
        for (first, *rest), label in zip(numbers(video), labels.tolist(), strict=True):
            assert rest == [first + 2, first + 4, first + 6]
            assert label in (0, 1)


@pytest.mark.parametrize(
    ("files", "options", "classes", "labels"),
    [
        (("a/1.mp4", "b/2.mp4"), {}, ["a", "b"], [0, 1]),
        (("1.mp4", "2.mp4"), {}, ["videos"], [0, 0]),
        (("train/1.mp4", "train/2.mp4"), {}, ["videos"], [0, 0]),
        (("a/1.mp4", "b/2.mp4"), {"labelled": False}, ["videos"], [0, 0]),
        (("train/1.mp4", "val/2.mp4", "x/3.mp4"), {"layout": "classes"}, ["train", "val", "x"],
         [0, 1, 2]),
        (("train/1.mp4", "x/3.mp4"), {"layout": "splits"}, ["videos"], [0]),
    ],
    ids=["classes", "flat", "flat-train", "unlabelled", "classes-named-so", "splits"],
)  # fmt: skip
def test_layouts(make, tmp_path, files, options, classes, labels):
    write(tmp_path, dict.fromkeys(files, 6), size=(32, 32))
    data = make(tmp_path, setup=False, **options)
    assert list(data.class_names) == classes
    assert data.labels("train").tolist() == labels
    assert data.num_classes == len(classes)


def test_validation_is_held_out_of_one_folder(make, tmp_path):
    write(tmp_path, {f"{c}/{i}.mp4": 6 for c in "ab" for i in range(3)}, size=(32, 32))
    data = make(tmp_path, val_size=2)
    assert data.labels("val").tolist() == [0, 1]
    assert len(data.labels("train")) == 4
    assert not set(names_of(data, "val")) & set(names_of(data, "train"))
    assert not data.validates_on_test
    with pytest.raises(InputError, match="has no videos for the val split"):
        make(tmp_path, setup=False).setup("validate")


def test_lists_name_videos_below_the_training_folder(make, splits, tmp_path):
    chosen = tmp_path / "list.txt"
    chosen.write_text("walk/c.mov\ntrain/run/b.AVI\ne.mp4\n")
    data = make(splits, subset=Subset(file=str(chosen)))
    assert names_of(data, "train") == ["run/b.AVI", "walk/c.mov", "walk/d/e.mp4"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ((), {}, "Video folder: expected videos .* in .*is empty"),
        (("notes.txt",), {}, "expected videos .*notes.txt"),
        (("train/1.mp4", "x/3.mp4"), {}, r"may be splits \(train\), and videos in x too"),
        (("train/1.mp4", "3.mp4"), {}, r"may be splits \(train\), and videos in 3.mp4 too"),
        (("train/1.mp4", "Training/3.mp4"), {}, "several folders for the train split, Training"),
        (("val/a/1.mp4",), {}, "expected training videos in .*train/<class>/"),
        (("a/1.mp4", "b/x.txt"), {}, "1 class folders in .* hold no video: b"),
        (("a/1.mp4",), {"layout": "auto ", }, "layout must be"),
        (("a/1.mp4",), {"reader": "decord"}, "reader must be"),
    ],
)  # fmt: skip
def test_wrong_layouts(make, tmp_path, files, options, message):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=message):
            make(tmp_path, **options)


def test_splits_of_other_classes(make, tmp_path):
    write(tmp_path, {"train/a/1.mp4": 6, "val/b/1.mp4": 6}, size=(32, 32))
    with pytest.raises(InputError, match="has 1 class folders that the training videos do not"):
        make(tmp_path)


def test_no_folder(make, tmp_path):
    with pytest.raises(InputError, match=r"expected videos .*missing does not exist"):
        make(tmp_path / "missing")


def test_what_lies_beside_videos_is_told(make, tmp_path):
    write(tmp_path, {"a/1.mp4": 6, "b/2.mp4": 6, "b/.3.mp4": 6, "4.mp4": 6}, size=(32, 32))
    (tmp_path / "a/notes.txt").write_text("x")
    with pytest.warns(UserWarning, match="left out of") as told:
        make(tmp_path)
    said = " ".join(str(w.message) for w in told)
    assert "files without the ending of a video (1: a/notes.txt)" in said
    assert "hidden" in said
    assert "1 videos outside of the class folders (4.mp4)" in said


def test_a_validation_folder_without_classes(make, tmp_path):
    write(tmp_path, {"train/a/1.mp4": 6, "val/2.mp4": 6}, size=(32, 32))
    with pytest.warns(UserWarning, match="has no class folders: its videos have the label -1"):
        data = make(tmp_path)
    assert data.labels("val").tolist() == [-1]


@pytest.fixture
def damaged(tmp_path):
    """Five whole videos; one that cannot be opened, and one that breaks off after its index."""
    write(tmp_path, {f"{i}.mp4": 30 for i in range(5)}, size=(32, 32))
    truncated(bar_video(tmp_path / "5.mp4", 30, size=(32, 32)))
    broken = bar_video(tmp_path / "6.mp4", 200, size=(96, 96), gop=200)
    content = bytearray(broken.read_bytes())
    start = content.index(b"mdat") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    cut = start + length // 4
    content[cut : start + length - 8] = bytes(start + length - 8 - cut)
    broken.write_bytes(bytes(content))
    return tmp_path


def test_unreadable_videos_are_left_out_or_stop(make, damaged):
    with pytest.warns(UserWarning, match="1 of 7 videos in .* cannot be read"):
        data = make(damaged)
    assert names_of(data, "train") == [f"{i}.mp4" for i in (0, 1, 2, 3, 4, 6)]
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(InputError, match=r"1 of the 7 train videos cannot be read: 5\.mp4"),
    ):
        make(damaged, on_corrupt="raise")


@pytest.mark.filterwarnings("ignore:1 of 7 videos")
def test_a_video_that_breaks_off_is_replaced_and_counted(make, damaged):
    data = make(damaged, batch_size=1)
    reader = data.rows("train").source
    with pytest.warns(UserWarning, match=r"Skipped: .*6.mp4 cannot be read"):
        _, row = reader.read_even(5, 1)
    assert row == 0
    assert data.num_corrupt == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not again
        batches = list(data.bank_dataloader())
    assert len(batches) == 6
    assert torch.equal(batches[5][0], batches[0][0])


@pytest.mark.filterwarnings("ignore:1 of 7 videos")
def test_a_video_that_breaks_off_stops_with_its_name(make, damaged):
    (damaged / "5.mp4").unlink()
    data = make(damaged, batch_size=1, on_corrupt="raise")
    with pytest.raises(InputError, match=r"6.mp4 cannot be read: .*set on_corrupt: skip"):
        list(data.bank_dataloader())


def test_the_index_is_kept_and_follows_the_files(make, tmp_path):
    write(tmp_path / "videos", {"a.mp4": 6, "b.mp4": 6}, size=(32, 32))
    index = tmp_path / "index"
    options = {"index_dir": str(index), "num_frames": 6}
    assert len(make(tmp_path / "videos", **options).labels("train")) == 2
    assert not (tmp_path / "videos/.lit_ssl_index").exists()
    kept = {path.name for path in index.glob("*.npz")}
    assert len(kept) == 1
    assert len(make(tmp_path / "videos", **options).labels("train")) == 2
    assert {path.name for path in index.glob("*.npz")} == kept
    bar_video(tmp_path / "videos/a.mp4", 5, size=(32, 32))
    assert names_of(make(tmp_path / "videos", **options), "train") == ["b.mp4"]


def test_upright_frames_cover_the_size(make, tmp_path):
    """A phone's video: stored lying, shown upright."""
    bar_video(tmp_path / "a.mp4", 5, size=(64, 48), rotation=90)
    data = make(tmp_path, size=(50, 20))
    video, _ = next(iter(data.bank_dataloader()))
    assert video.shape == (1, 4, 3, 50, 20)
    clip = data.rows("train").source.clips.read_clip(0, np.arange(4))
    assert clip.shape == (4, 50, 38, 3)  # no smaller than needed, and no larger
    assert [bar_number(frame) for frame in clip] == [0, 1, 2, 3]


def test_a_folder_that_cannot_be_written(make, tmp_path, monkeypatch):
    write(tmp_path, {"a.mp4": 6}, size=(32, 32))
    monkeypatch.setattr("os.access", lambda *_: False)
    said = []
    monkeypatch.setattr("lit_ssl.datamodules.video.stores.rank_zero_info", said.append)
    data = make(tmp_path)
    assert len(data.labels("train")) == 1
    assert any("set index_dir to a folder" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_moved_folders_keep_working(make, splits, tmp_path):
    shutil.copytree(splits, tmp_path / "moved")
    assert make(tmp_path / "moved").labels("train").tolist() == [0, 0, 1, 1]
