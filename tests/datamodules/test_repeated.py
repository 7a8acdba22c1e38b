"""Repeated augmentation: N samples an epoch, copies in other views and on other processes."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest

from lit_ssl.datamodules import (
    CUBGroupsDataModule,
    EpochSampler,
    FewShotDataModule,
    RepeatedEpochSampler,
    SomeClassesDataModule,
)
from lit_ssl.errors import InputError
from lit_ssl.transforms import CropSpec, SingleView

VIEW = SingleView(CropSpec(size=8, scale=(0.3, 1.0), hflip=0.5, brightness=0.4))


def pairs(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(("size", "repeats"), [(12, 3), (43, 3), (5, 2), (2, 3), (1, 4)])
def test_an_epoch_has_as_many_samples_of_which_each_comes_so_often(size, repeats):
    found = pairs(RepeatedEpochSampler(range(size), repeats))
    assert len(found) == size
    _, counts = np.unique([index for index, _ in found], return_counts=True)
    full, rest = divmod(size, repeats)
    assert sorted(counts) == sorted([repeats] * full + [rest] * (rest > 0))
    assert len({seed for _, seed in found}) == size  # a view of its own for each copy


def test_epochs_draw_other_samples_and_views():
    sampler = RepeatedEpochSampler(range(300), 3)
    epochs = [pairs(sampler, epoch) for epoch in range(12)]
    assert epochs[0] == pairs(sampler, 0)
    assert len({seed for epoch in epochs for _, seed in epoch}) == 12 * 300
    # all but (2/3)^12 of the samples have come by then
    assert len({index for epoch in epochs for index, _ in epoch}) > 285
    assert pairs(RepeatedEpochSampler(range(300), 3, seed=1)) != epochs[0]


def test_one_repeat_is_an_ordinary_epoch():
    assert pairs(RepeatedEpochSampler(range(43), 1), 2) == pairs(EpochSampler(range(43)), 2)


@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_copies_land_on_different_processes(processes, drop_last):
    whole = pairs(RepeatedEpochSampler(range(43), 3))
    shards = [
        pairs(RepeatedEpochSampler(range(43), 3, processes, rank, drop_last=drop_last))
        for rank in range(processes)
    ]
    lengths = {len(shard) for shard in shards}
    assert lengths == {43 // processes if drop_last else -(-43 // processes)}
    joined = [pair for together in zip(*shards, strict=True) for pair in together]
    assert joined[: len(whole)] == whole[: len(joined)]
    if processes >= 3:  # no process sees two copies of one sample
        for shard in shards:
            seen = [index for index, _ in shard][: 43 // processes]
            assert len(set(seen)) == len(seen)


def test_a_pass_may_start_in_the_middle():
    whole = pairs(RepeatedEpochSampler(range(43), 3), 1)
    sampler = RepeatedEpochSampler(range(43), 3)
    sampler.start_at(1, 17)
    assert list(sampler) == whole[17:]


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_resumes_in_mid_epoch_to_the_identical_batches(toy, fit, tmp_path, augment):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 15:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def data(repeats=3):
        return toy(repeats=repeats, train_transform=VIEW, augment=augment)

    whole = fit(data(), callbacks=[Save()]).seen
    assert len(whole) == 30  # 43 // 4 batches, 3 epochs, as without repeats
    assert len({digest for _, _, digest in whole}) == 30
    assert fit(data(), ckpt_path=tmp_path / "middle.ckpt").seen == whole[15:]
    for other in (1, 2):
        with pytest.warns(UserWarning, match="order of the samples has changed"):
            fit(data(other), ckpt_path=tmp_path / "middle.ckpt")


@pytest.mark.parametrize("workers", [0, 2])
def test_copies_are_other_views_of_one_image(toy, workers):
    data = toy(repeats=3, train_transform=VIEW, batch_size=3, num_workers=workers)
    data.setup("fit")
    for images, labels in data.train_dataloader():
        assert len(set(labels.tolist())) == 1
        assert len({image.numpy().tobytes() for image in images}) == 3


def test_parts_of_a_data_set(toy):
    data = toy(repeats=3, train_transform=VIEW)
    some = SomeClassesDataModule(data, classes=[1, 3])
    some.setup("fit")
    labels = [label for _, labels in some.train_dataloader() for label in labels.tolist()]
    assert len(labels) == 20  # of the 21 images, in batches of 4
    sampler = some.train_dataloader().sampler
    assert len({index for index, _ in sampler}) == 7
    # an epoch of an episode has each support image once
    episode = FewShotDataModule(data, ways=2, shots=3)
    episode.setup("fit")
    assert len({index for index, _ in episode.train_dataloader().sampler}) == 6


def test_what_does_not_go_together(toy):
    with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
        toy(repeats=0)
    with pytest.raises(InputError, match="repeats must be at least 1, got 0"):
        RepeatedEpochSampler(range(3), 0)
    with pytest.raises(InputError, match="repeats and classes_per_batch both order an epoch"):
        toy(repeats=3, classes_per_batch=2, train_transform=VIEW)
    with pytest.raises(InputError, match="CUBGroupsDataModule takes no repeats"):
        CUBGroupsDataModule(root="none", attribute="a", repeats=2, train_transform=VIEW)
    with pytest.warns(UserWarning, match="gives the same image 3 times"):
        toy(repeats=3)
