"""Kinetics and BDD100K in their usual layouts."""

from __future__ import annotations

import csv
import shutil

import pytest
from video_files import bar_video

from lit_ssl.datamodules import BDD100KVideoDataModule, KineticsDataModule
from lit_ssl.datamodules.video.kinetics_lists import is_table, read_table
from lit_ssl.errors import InputError

CLASSES = ["abseiling", "air drumming", "yoga"]
IDS = {"train": ["-aB_c", "aaa", "bbb", "ccc"], "val": ["ddd", "eee"], "test": ["fff"]}
LABELS = {"train": [2, 0, 1, 0], "val": [1, 2], "test": [-1]}

pytestmark = pytest.mark.filterwarnings("ignore:Kinetics-.* has .* classes")


def file_of(video, start=3):
    return f"{video}_{start:06}_{start + 10:06}.mp4"


@pytest.fixture(scope="session")
def one_video(tmp_path_factory):
    return bar_video(tmp_path_factory.mktemp("one") / "video.mp4", 8, size=(16, 24))


@pytest.fixture
def flat(one_video, tmp_path):
    """``root/<split>/<id>_<start>_<end>.mp4`` and the tables; one training video has vanished."""
    root = tmp_path / "k400"
    for split, ids in IDS.items():
        (root / split).mkdir(parents=True)
        for video in ids:
            shutil.copy(one_video, root / split / file_of(video))
        with (root / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            head = ["youtube_id", "time_start", "time_end", "split"]
            table.writerow(head if split == "test" else ["label", *head])
            for video, label in zip(ids, LABELS[split], strict=True):
                known = [] if split == "test" else [CLASSES[label]]
                table.writerow([*known, video, 3, 13, split])
    (root / "train" / file_of("ccc")).unlink()
    return root


@pytest.fixture
def make():
    def build(root, **options):
        options = {"version": 400, "num_frames": 4, "size": 8, "num_workers": 0, **options}
        return KineticsDataModule(root=str(root), batch_size=2, **options)

    return build


def names_of(data, split):
    rows = data.rows(split)
    return [rows.source.name(row) for row in range(len(rows))]


def check_table(data):
    data.setup()
    assert list(data.class_names) == CLASSES
    assert data.labels("train").tolist() == [2, 0, 1]
    assert data.labels("val").tolist() == [1, 2]
    assert data.labels("test").tolist() == [-1]
    assert data.validates_on_test  # Kinetics' results are those on its validation videos
    assert names_of(data, "val")[0].endswith(file_of("ddd"))
    video, _ = next(iter(data.train_dataloader()))
    assert video.shape == (2, 4, 3, 8, 8)


def test_flat_files_with_tables(make, flat, monkeypatch):
    said = []
    monkeypatch.setattr("lit_ssl.datamodules.video.matching.rank_zero_info", said.append)
    check_table(make(flat))
    assert len(said) == 1
    assert f"3 of the 4 videos that {flat / 'train.csv'} lists are in {flat / 'train'}" in said[0]
    assert f"not there: {file_of('ccc')[:-4]}" in said[0]


def test_tables_of_other_names_elsewhere_and_files_in_folders(make, flat, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    (flat / "train.csv").rename(tables / "kinetics_400_train.csv")
    (flat / "val.csv").rename(tables / "validate.csv")
    (flat / "test.csv").rename(tables / "test.csv")
    (flat / "val").rename(flat / "validate")
    (flat / "train/air drumming").mkdir()
    (flat / "train" / file_of("bbb")).rename(flat / "train/air drumming" / file_of("bbb"))
    check_table(make(flat, annotation_dir=str(tables)))


def test_too_few_found(make, flat):
    with pytest.raises(InputError, match=r"Kinetics-400, train: 3 of the 4 .*less than 0.75"):
        make(flat, min_found_fraction=0.8).setup("fit")
    for path in (flat / "val").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(InputError, match=r"val: 0 of the 2 videos .*such as ddd_000003_000013"):
        make(flat, min_found_fraction=0.0).setup("fit")


def test_class_folders(make, flat):
    for split, ids in IDS.items():
        (flat / f"{split}.csv").unlink()
        for video, label in zip(ids, LABELS[split], strict=True):
            folder = flat / split / CLASSES[label].replace(" ", "_")
            folder.mkdir(exist_ok=True)
            if (flat / split / file_of(video)).exists():
                (flat / split / file_of(video)).rename(folder / file_of(video))
    shutil.rmtree(flat / "test")
    data = make(flat)
    data.setup()
    assert list(data.class_names) == ["abseiling", "air_drumming", "yoga"]
    assert data.labels("train").tolist() == [0, 1, 2]
    assert data.labels("val").tolist() == [1, 2]
    assert data.rows("test") is data.rows("val")
    (flat / "val/yoga").rename(flat / "val/yodel")
    with pytest.raises(InputError, match="1 class folders that the training videos do not have"):
        make(flat).setup()


@pytest.mark.parametrize("below_root", [True, False])
def test_lists_of_paths(make, flat, below_root):
    for split in IDS:
        lines = [
            f"{f'{split}/' * below_root}{file_of(video)} {max(label, 0)}\n"
            for video, label in zip(IDS[split], LABELS[split], strict=True)
        ]
        (flat / f"{split}.csv").unlink()
        (flat / f"kinetics400_{split}_list_videos.txt").write_text("".join(lines))
    data = make(flat)
    data.setup()
    assert data.labels("train").tolist() == [2, 0, 1]
    assert data.num_classes == 400
    assert names_of(data, "test") == [f"test/{file_of('fff')}"]
    with pytest.raises(InputError, match="is a list, and layout is table"):
        make(flat, layout="table").setup()
    (flat / "kinetics400_val_list_videos.txt").write_text(f"{file_of('ddd')} 400\n")
    with pytest.raises(InputError, match=r"the class 400 of ddd.*numbers from 0 to 399"):
        make(flat).setup()
    (flat / "kinetics400_train_list_videos.txt").write_text("one word\n")
    with pytest.raises(InputError, match=r"line 1 of .* expected '<path> <number of the class"):
        make(flat).setup()


def test_paths_and_names_with_commas(make, tmp_path):
    names = ("train/cut, then wash/x y.mp4", "train/yoga/z.mp4")
    for name in names:
        bar_video(tmp_path / name, 6)
    for between in (" ", ",", ", ", "\t"):
        lines = [f"{name}{between}{label}" for label, name in enumerate(names)]
        (tmp_path / "train.txt").write_text("\n".join(lines))
        data = make(tmp_path, min_found_fraction=1.0)
        data.setup("fit")
        assert names_of(data, "train") == list(names)
        assert data.labels("train").tolist() == [0, 1]


@pytest.mark.parametrize(
    "table",
    [
        '"label","youtube_id","time_start","time_end"\n"cut, then wash","aaa","3","13"\n',
        'label, youtube_id, time_start, time_end\n"cut, then wash", aaa, 3, 13\n',
    ],
)
def test_tables_with_quotes_or_blanks(tmp_path, table):
    (tmp_path / "train.csv").write_text(table)
    assert is_table(tmp_path / "train.csv")
    assert read_table(tmp_path / "train.csv") == [("aaa_000003_000013", "cut, then wash")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("label,youtube_id,time_start\nyoga,aaa,3\n", "no column time_end"),
        ("label,youtube_id,time_start,time_end\nyoga,aaa,3,x\n", "line 2 of .*no times"),
        ("label,youtube_id,time_start,time_end\nyoga,aaa\n", "line 2 of .*no times"),
        ("label,youtube_id,time_start,time_end\n,aaa,3,13\n", "has videos without a label"),
        ("label,youtube_id,time_start,time_end\n", "lists no video"),
        ("label,youtube_id,time_start,time_end\nyoga,aaa,3,13\n", "val.csv has 1 classes that"),
    ],
)
def test_spoilt_tables(make, flat, table, message):
    (flat / "train.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        make(flat).setup()


def test_nothing_there(make, tmp_path, flat):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"expected .*train/<class>/\*.mp4. Found: .*is empty"):
        make(tmp_path / "none").setup()
    with pytest.raises(InputError, match=r"expected train.csv or another list.*Set annotation"):
        make(flat, annotation_dir=str(tmp_path / "none")).setup()
    with pytest.raises(InputError, match="version must be 400, 600 or 700"):
        make(flat, version=500)


@pytest.mark.parametrize("folder", ["videos", "."])
def test_bdd100k(tmp_path, folder):
    for name in ("train/a.mov", "train/b.mov", "val/c.mov"):
        bar_video(tmp_path / folder / name, 8, size=(24, 32), rotation=90)
    data = BDD100KVideoDataModule(root=str(tmp_path), num_frames=4, size=(24, 32), num_workers=0)
    data.setup()
    assert data.num_classes == 1
    assert data.labels("train").tolist() == [0, 0]
    assert names_of(data, "train") == ["a.mov", "b.mov"]
    assert names_of(data, "val") == names_of(data, "test") == ["c.mov"]
    assert data.validates_on_test
    video, _ = next(iter(data.val_dataloader()))
    assert video.shape == (1, 4, 3, 24, 32)
    # upright: the colours of the lower half go from left to right
    red, _, blue = video[0, 0, :, 20, 3].tolist()
    assert red > blue


def test_no_bdd100k(tmp_path):
    with pytest.raises(InputError, match=r"BDD100K: expected videos/train/\*.mov in"):
        BDD100KVideoDataModule(root=str(tmp_path)).setup()
