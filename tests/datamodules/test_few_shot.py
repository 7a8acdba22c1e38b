"""Few-shot episodes and parts of the classes, over data in memory and in files."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl.datamodules import (
    FewShotDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MNIST5kDataModule,
    SemiSupervisedDataModule,
    SomeClassesDataModule,
    Subset,
    TinyImageNetDataModule,
)
from lit_ssl.datamodules.reading.images import ArrayImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.transforms import CropSpec, MultiCrop, SingleView


class Numbered(ImageDataModule):
    """10 classes with 12 training and 7 test images; red is the row, green 1 in the test split."""

    class_names = tuple("abcdefghij")
    default_size = 6
    default_margin = 1

    def __init__(self, **kwargs):
        super().__init__(**{"num_workers": 0, "batch_size": 4, **kwargs})

    def load_rows(self, split):
        if split == "val":
            return None
        size = 120 if split == "train" else 70
        pixels = torch.zeros(size, 3, 6, 6, dtype=torch.uint8)
        pixels[:, 0] = torch.arange(size).view(-1, 1, 1)
        pixels[:, 1] = int(split == "test")
        return Rows(ArrayImages(pixels), {"label": np.arange(size) % 10})


def rows_of(loader):
    """Official row of each image."""
    return [int(image[0, 0, 0]) for images, _ in loader for image in images]


def support(**arguments):
    data = FewShotDataModule(Numbered(), **{"ways": 3, "shots": 2, **arguments})
    return rows_of(data.bank_dataloader())


def test_an_episode():
    data = FewShotDataModule(Numbered(), ways=3, shots=2, queries=4)
    data.setup()
    assert (data.num_classes, len(data.class_names), data.image_size) == (3, 3, 6)
    classes = data.classes.tolist()
    assert classes == sorted(set(classes))
    assert [data.data.class_names[number] for number in classes] == data.class_names
    val, test = data.val_dataloader(), data.test_dataloader()
    for loader, count, split in ((data.bank_dataloader(), 2, 0), (val, 4, 1), (test, 4, 1)):
        images = torch.cat([images for images, _ in loader])
        labels = torch.cat([labels for _, labels in loader]).tolist()
        assert (images[:, 1] == split).all()
        rows = images[:, 0, 0, 0].tolist()
        assert len(set(rows)) == len(rows) == 3 * count
        assert [classes[label] for label in labels] == [row % 10 for row in rows]
        assert np.bincount(labels).tolist() == [count] * 3
    assert data.validates_on_test


def test_a_line_says_what_the_episode_is(caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        FewShotDataModule(Numbered(), ways=3, shots=2, queries=4, classes=[1, 4, 9]).setup("fit")
    assert "episode 0: 6 support and 12 query images of 3 classes (b, e, j)" in caplog.text


def test_all_test_images_of_the_classes_are_asked_by_default():
    data = FewShotDataModule(Numbered(), ways=2, shots=1)
    assert np.bincount(data.labels("test")).tolist() == [7, 7]


def test_episodes_depend_on_their_number_and_seed_alone(monkeypatch):
    first = support()
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert support() == first
    assert rows_of(FewShotDataModule(Numbered(seed=9), ways=3, shots=2).bank_dataloader()) == first
    others = [support(episode=number) for number in range(1, 6)] + [support(episode_seed=1)]
    assert len({tuple(rows) for rows in [first, *others]}) == 7


def test_more_shots_keep_those_of_fewer():
    sizes = {shots: set(support(shots=shots, episode=3)) for shots in (1, 2, 5, 12)}
    assert sizes[1] < sizes[2] < sizes[5] < sizes[12]
    assert {len(rows) for rows in sizes.values()} == {3, 6, 15, 36}
    few = FewShotDataModule(Numbered(), ways=3, shots=1, queries=3)
    many = FewShotDataModule(Numbered(), ways=3, shots=9, queries=3)
    assert rows_of(few.test_dataloader()) == rows_of(many.test_dataloader())
    more = FewShotDataModule(Numbered(), ways=3, shots=1, queries=5)
    assert set(rows_of(few.test_dataloader())) < set(rows_of(more.test_dataloader()))


def test_all_classes_come_in_some_episode():
    episodes = [
        FewShotDataModule(Numbered(), ways=3, shots=1, episode=number).classes.tolist()
        for number in range(40)
    ]
    counts = np.bincount(np.concatenate(episodes), minlength=10)
    assert counts.min() > 0
    given = [
        FewShotDataModule(Numbered(), ways=3, classes=[9, 2, 5, 7], episode=number).classes.tolist()
        for number in range(10)
    ]
    assert {number for classes in given for number in classes} == {2, 5, 7, 9}


def test_each_epoch_gives_the_whole_support():
    data = FewShotDataModule(Numbered(batch_size=4), ways=3, shots=3)
    loader = data.train_dataloader()
    sizes = [len(labels) for _, labels in loader]
    assert sizes == [4, 4, 1]
    assert sorted(rows_of(loader)) == sorted(support(shots=3))


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_cover_each_query_once(processes):
    found = []
    for rank in range(processes):
        data = FewShotDataModule(Numbered(), ways=2, shots=1)
        data.shard = lambda rank=rank: (processes, rank)
        found += rows_of(data.test_dataloader())
    whole = rows_of(FewShotDataModule(Numbered(), ways=2, shots=1).test_dataloader())
    assert sorted(found) == sorted(whole)


def test_a_hold_out_of_the_data_is_left_alone():
    inner = Numbered(val_size=20)
    data = FewShotDataModule(inner, ways=3, shots=4)
    held_out = set(rows_of(inner.val_dataloader()))
    assert not held_out & set(rows_of(data.bank_dataloader()))
    assert data.validates_on_test


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_resuming_is_exact(tmp_path, fit, views, augment):
    def make():
        inner = Numbered(train_transform=views, augment=augment)
        return FewShotDataModule(inner, ways=3, shots=3)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            trainer.save_checkpoint(tmp_path / f"{len(module.seen)}.ckpt")

    whole = fit(make(), callbacks=[Save()]).seen
    assert len(whole) == 9
    for done in (1, 3, 5):
        assert fit(make(), tmp_path / f"{done}.ckpt").seen == whole[done:]


def test_views_and_transforms_are_those_of_the_data():
    inner = Numbered(train_transform=SingleView(CropSpec(size=4)), mean=[0, 0, 0], std=[1, 1, 1])
    data = FewShotDataModule(inner, ways=2, shots=2)
    batch = next(iter(data.train_dataloader()))
    images, labels = data.on_after_batch_transfer(batch, 0)
    assert images.shape == (4, 3, 4, 4)
    assert images.dtype == torch.float32
    assert images[:, 0].max() <= 119 / 255  # red is a row
    assert sorted(labels.tolist()) == [0, 0, 1, 1]
    digits = FewShotDataModule(MNIST5kDataModule(), ways=4, shots=1, classes=[6, 7, 8, 9])
    assert (digits.in_channels, digits.mean, digits.image_size) == (1, (0.1307,), 28)
    assert digits.class_names == ["6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 1}, "ways must be at least 2, got 1"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"episode": -1}, "episode must be at least 0"),
        ({"ways": 11}, "ways=11, but there are 10 classes"),
        ({"ways": 3, "classes": [1, 2]}, "ways=3, but there are 2 classes"),
        ({"ways": 2, "classes": [1, 2, 10]}, "classes has 10, but the 10 classes .* 0 to 9"),
        ({"ways": 2, "classes": [1, 1]}, "each class once"),
        ({"shots": 13}, r"shots=13, but 8 classes of this episode have fewer images: . \(12\)"),
        ({"queries": 8}, r"queries=8, but 8 classes .*\(7\)"),
    ],
)
def test_wrong_episodes(arguments, message):
    with pytest.raises(InputError, match=message):
        FewShotDataModule(Numbered(), **arguments).setup("fit")


def test_data_that_have_no_episodes(toy, views, tmp_path, write_image):
    two_streams = SemiSupervisedDataModule(toy(train_transform=views))
    with pytest.raises(InputTypeError, match="takes an image data module, not SemiSupervised"):
        FewShotDataModule(two_streams)
    for name in "ab":
        write_image(tmp_path / name / "0.png")
    folder = ImageFolderDataModule(root=str(tmp_path))
    with pytest.raises(InputError, match="ImageFolderDataModule has none"):
        FewShotDataModule(folder, ways=2, shots=1).setup("fit")


def test_an_image_in_both_sets_is_refused(tmp_path, write_image):
    for name in "ab":
        for number in range(3):
            write_image(tmp_path / "train" / name / f"{number}.png", seed=number)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    data = ImageFolderDataModule(root=str(tmp_path), image_size=8, num_workers=0)
    with pytest.raises(InputError, match=r"in the support and the query set: .*a/"):
        FewShotDataModule(data, ways=2, shots=1).setup("fit")


def test_the_same_pixels_in_both_sets_are_told():
    class Copied(Numbered):
        def load_rows(self, split):
            return super().load_rows("train") if split == "test" else super().load_rows(split)

    with pytest.warns(UserWarning, match="4 of the 24 query images are, pixel for pixel"):
        FewShotDataModule(Copied(), ways=2, shots=2).setup("fit")


# Some classes


def test_some_classes_are_a_data_set_of_their_own():
    data = SomeClassesDataModule(Numbered(val_size=30), classes=[7, 0, 3])
    data.setup()
    assert data.class_names == ["h", "a", "d"]
    assert data.num_classes == 3
    for split, count in (("train", 9), ("val", 3), ("test", 7)):
        assert np.bincount(data.labels(split)).tolist() == [count] * 3
    for loader in (data.bank_dataloader(), data.val_dataloader(), data.test_dataloader()):
        labels = torch.cat([labels for _, labels in loader]).tolist()
        assert [[7, 0, 3][label] for label in labels] == [row % 10 for row in rows_of(loader)]
    assert not data.validates_on_test
    assert SomeClassesDataModule(Numbered(), classes=[1, 2]).validates_on_test


def test_pretraining_classes_and_episodes_share_no_image():
    seen = SomeClassesDataModule(Numbered(), classes=range(6))
    new = FewShotDataModule(Numbered(), ways=4, shots=12, classes=range(6, 10))
    assert not set(rows_of(seen.bank_dataloader())) & set(rows_of(new.bank_dataloader()))
    nested = FewShotDataModule(SomeClassesDataModule(Numbered(), classes=[6, 8]), ways=2, shots=1)
    assert nested.class_names == ["g", "i"]
    assert {row % 10 for row in rows_of(nested.test_dataloader())} == {6, 8}


def test_lists_refer_to_the_official_images(tmp_path):
    (tmp_path / "list.txt").write_text("3\n10\n17\n27\n31\n57\n")
    subset = Subset(file=str(tmp_path / "list.txt"))
    data = SomeClassesDataModule(Numbered(), classes=[7, 3])
    positions = data.positions(subset)
    assert rows_of(data.bank_dataloader(positions)) == [3, 17, 27, 57]
    assert len(data.positions({"per_class": 2})) == 4
    with pytest.raises(InputError, match=r"none of the images in .* is among the 24"):
        SomeClassesDataModule(Numbered(), classes=[8, 9]).positions(subset)


def test_unlabelled_images_are_left_out(toy):
    class Half(toy):
        def load_rows(self, split):
            rows = super().load_rows(split)
            if rows is None:
                return None
            labels = np.where(np.arange(len(rows)) % 8 < 4, rows.labels, -1)
            return Rows(rows.source, {"label": labels})

    data = SomeClassesDataModule(Half(), classes=[1, 2])
    assert data.labels("train").tolist() == [0, 1] * 6
    assert set(data.labels("train")) == {0, 1}


@pytest.mark.parametrize("classes", [[], [0, 0], [-1, 2], [4]])
def test_wrong_classes(toy, classes):
    with pytest.raises(InputError, match=r"classes (must name|has)"):
        SomeClassesDataModule(toy(), classes=classes).setup("fit")


def test_numbers_of_classes_are_whole(toy):
    with pytest.raises(InputError, match=r"classes must be whole numbers, got 1\.5"):
        SomeClassesDataModule(toy(), classes=[0, 1.5]).setup("fit")


def test_views_of_some_classes(toy, fit, views):
    seen = fit(SomeClassesDataModule(toy(train_transform=views), classes=[3, 1])).seen
    assert {label for _, labels, _ in seen for label in labels} == {0, 1}
    data = SomeClassesDataModule(toy(train_transform=MultiCrop([CropSpec(size=8)])), classes=[0, 2])
    two_streams = SemiSupervisedDataModule(data, images_per_class=2)
    two_streams.setup("fit")
    assert len(two_streams.support_positions) == 22


def test_other_evaluation_sets_are_refused():
    with pytest.raises(InputError, match="leave out r of TinyImageNetDataModule"):
        SomeClassesDataModule(TinyImageNetDataModule(root="x", ood=["r"]), classes=[0])


def test_checkpoints_hold_plain_values(tmp_path, fit):
    class Save(pl.Callback):
        def on_train_end(self, trainer, module):
            trainer.save_checkpoint(tmp_path / "end.ckpt")

    fit(FewShotDataModule(Numbered(), ways=2), callbacks=[Save()], max_epochs=1)
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert content["datamodule_hyper_parameters"]["ways"] == 2
    assert "data" not in content["datamodule_hyper_parameters"]
