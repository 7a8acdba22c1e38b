"""UCF101 in its official layouts."""

from __future__ import annotations

import shutil

import pytest
import torch
from video_files import bar_number

from lit_ssl.datamodules import UCF101DataModule
from lit_ssl.errors import InputError

CLASSES = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]


@pytest.fixture
def make():
    def build(root, **options):
        options = {"num_frames": 16, "size": 32, "num_workers": 0, "batch_size": 4, **options}
        return UCF101DataModule(root=str(root), **options)

    return build


@pytest.fixture
def lists(ucf101, tmp_path):
    """A copy of the lists, to be spoilt."""
    return shutil.copytree(ucf101.annotations, tmp_path / "lists")


def names_of(data, split):
    rows = data.rows(split)
    return [rows.source.name(row) for row in range(len(rows))]


def spelt(name, group, clip):
    folder = f"{name}/v_{name.replace('Handstand', 'HandStand')}"
    return f"{folder}_g{group:02}_c{clip:02}.avi"


def test_fold_1(make, ucf101):
    data = make(ucf101.videos)  # the lists lie beside it
    data.setup()
    assert list(data.class_names) == CLASSES
    assert data.num_classes == 3
    for split, groups in (("train", (8, 9)), ("test", (1, 2))):
        expected = [spelt(name, g, c) for name in CLASSES for g in groups for c in (1, 2)]
        assert names_of(data, split) == expected
        assert data.labels(split).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.validates_on_test
    batches = list(data.test_dataloader())
    assert [len(labels) for _, labels in batches] == [4, 4, 4]
    video, labels = batches[1]
    assert video.shape == (4, 16, 3, 32, 32)
    assert labels.tolist() == [1] * 4
    # resized to 32 x 42 and cut to the middle, so that a wider part of the bar is gone
    assert not any(torch.equal(video[0], other) for other in video[1:])


def test_frames_of_a_training_clip(make, ucf101):
    data = make(ucf101.videos, size=(48, 64), batch_size=12, num_frames=5, stride=2, fps=12.5)
    ((video, _),) = data.train_dataloader()
    for clip in video.permute(0, 1, 3, 4, 2).numpy():
        numbers = [bar_number(frame) for frame in clip]
        assert numbers == list(range(numbers[0], numbers[0] + 20, 4))
    with pytest.raises(InputError, match=r"12 are shorter than 15 frames at 12.5 per second"):
        make(ucf101.videos, num_frames=8, stride=2, fps=12.5).setup()


def test_files_lie_anywhere_below_the_root(make, ucf101, tmp_path):
    for root in (ucf101.videos.parent, tmp_path / "flat"):
        root.mkdir(exist_ok=True)
        if root.name == "flat":
            for path in ucf101.videos.rglob("*.avi"):
                shutil.copy(path, root / path.name.lower().replace(".avi", ".AVI"))
        data = make(root, annotation_dir=str(ucf101.annotations))
        assert data.labels("train").tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert [name.rpartition("/")[2].lower() for name in names_of(data, "train")] == [
            spelt(name, group, clip).rpartition("/")[2].lower()
            for name in CLASSES for group in (8, 9) for clip in (1, 2)
        ]  # fmt: skip


def test_generative_models_may_train_on_all(make, ucf101):
    data = make(ucf101.videos, train_on="all", val_size=6)
    assert len(data.labels("train")) + len(data.labels("val")) == 24
    assert not data.validates_on_test
    with pytest.raises(InputError, match="has no videos for the test split"):
        data.test_dataloader()


def test_missing_videos_are_counted(make, ucf101, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("lit_ssl.datamodules.video.matching.rank_zero_info", said.append)
    root = shutil.copytree(ucf101.videos, tmp_path / "videos")
    (root / "YoYo/v_YoYo_g08_c02.avi").unlink()
    options = {"annotation_dir": str(ucf101.annotations)}
    with pytest.raises(
        InputError,
        match=r"11 of the 12 videos that trainlist01.txt lists are in .*; not there:"
        r" YoYo/v_YoYo_g08_c02.avi. Complete them, or set min_found_fraction, which is 1, to less"
        r" than 0.917",
    ):
        make(root, **options).setup("fit")
    data = make(root, min_found_fraction=0.9, **options)
    data.setup("fit")
    assert len(data.labels("train")) == 11
    assert len(said) == 1
    assert "not there: YoYo/v_YoYo_g08_c02.avi" in said[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classInd.txt", None, "expected classInd.txt, .*Set annotation_dir to the folder of the"),
        ("classInd.txt", "1 ApplyEyeMakeup\n3 YoYo\n", r"line 2 of .* expected '2 <class>'"),
        ("classInd.txt", "", "classInd.txt is empty"),
        (
            "classInd.txt",
            "1 ApplyEyeMakeup\n",
            "line 5 of .*trainlist01.txt .*a class of",
        ),
        (
            "trainlist01.txt",
            None,
            "expected trainlist01.txt. Found: .*holds classInd",
        ),
        ("trainlist01.txt", "", "trainlist01.txt is empty"),
        ("trainlist01.txt", "YoYo/v_YoYo_g08_c02.avi 2\n", "line 1 of .*and its number or nothing"),
        ("trainlist01.txt", "v_YoYo_g08_c02.avi 3\n", "expected '<class>/<file>'"),
        ("trainlist01.txt", "YoYo/other.avi 3\n", "0 of the 1 videos .*, such as YoYo/other.avi"),
        ("testlist01.txt", None, "expected testlist01.txt"),
    ],
)
def test_spoilt_lists(make, ucf101, lists, file, content, message):
    if content is None:
        (lists / file).unlink()
    else:
        (lists / file).write_text(content)
    with pytest.raises(InputError, match=message):
        make(ucf101.videos, annotation_dir=str(lists)).setup()


def test_no_lists_and_no_videos(make, ucf101, tmp_path):
    with pytest.raises(InputError, match=r"expected classInd.txt, trainlist01.txt .*Set annot"):
        make(tmp_path / "none").setup()
    with pytest.raises(InputError, match=r"expected videos v_<class>_gNN_cNN.avi .*is empty"):
        make(tmp_path, annotation_dir=str(ucf101.annotations)).setup()
    with pytest.raises(InputError, match="min_found_fraction must be in"):
        make(tmp_path, min_found_fraction=2.0)
    with pytest.raises(InputError, match="fold must be 1, 2 or 3"):
        make(tmp_path, fold=4)


def test_one_video_twice(make, ucf101, tmp_path):
    root = shutil.copytree(ucf101.videos, tmp_path / "videos")
    shutil.copy(root / "YoYo/v_YoYo_g08_c02.avi", root / "v_yoyo_g08_c02.mp4")
    data = make(root, annotation_dir=str(ucf101.annotations))
    with pytest.raises(InputError, match="are both the video v_yoyo_g08_c02: keep one"):
        data.setup()
