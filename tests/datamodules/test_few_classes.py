"""Training batches of few classes: each sample once, few classes, resumable, the YAML way."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest

from lit_ssl.datamodules import ClassesPerBatchSampler, EpochSampler

LABELS = np.tile(np.arange(10), 64)  # 640 samples


def indices(sampler):
    return np.array([index for index, _ in sampler])


def classes_of_batches(order, labels=LABELS, size=32):
    return [len(np.unique(labels[order[i : i + size]])) for i in range(0, len(order), size)]


def test_each_sample_once_in_batches_of_few_classes():
    order = indices(ClassesPerBatchSampler(LABELS, 2, 32))
    assert sorted(order) == list(range(640))
    # 64 samples of a class are four whole runs of 16, so no run is shared
    counts = classes_of_batches(order)
    assert max(counts) == 2
    assert np.mean(classes_of_batches(indices(EpochSampler(range(640))))) > 9


def test_classes_that_do_not_fill_their_runs_share_them():
    labels = np.repeat(np.arange(10), [300, 150, 90, 50, 20, 10, 8, 6, 4, 2])
    order = indices(ClassesPerBatchSampler(labels, 4, 32))
    assert sorted(order) == list(range(640))
    assert np.mean(classes_of_batches(order, labels)) < 5


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = ClassesPerBatchSampler(LABELS, 2, 32, seed=seed)
        sampler.set_epoch(epoch)
        return indices(sampler).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*keys)) for keys in ((0, 0), (0, 1), (1, 0))}) == 3
    sampler = ClassesPerBatchSampler(LABELS, 2, 32)
    sampler.start_at(0, 64)
    assert indices(sampler).tolist() == order(0, 0)[64:]


def test_processes_share_the_batches():
    shards = [indices(ClassesPerBatchSampler(LABELS, 2, 16, 2, rank)) for rank in range(2)]
    joined = np.stack(shards, axis=1).ravel()
    assert sorted(joined) == list(range(640))
    assert max(classes_of_batches(joined)) == 2
    for shard in shards:
        assert max(classes_of_batches(shard, size=16)) == 2


def test_wrong_numbers():
    with pytest.raises(ValueError, match=r"2 x 16 = 32 images, got 5"):
        ClassesPerBatchSampler(LABELS, 5, 16, 2)
    with pytest.raises(ValueError, match="got 0"):
        ClassesPerBatchSampler(LABELS, 0, 16)
    with pytest.raises(ValueError, match="needs labels"):
        ClassesPerBatchSampler(np.full(8, -1), 2, 4)


def test_in_a_data_module(toy, fit, tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 15:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def data():
        return toy(classes_per_batch=2)

    whole = fit(data(), callbacks=[Save()]).seen
    # 43 images in batches of 4: runs of two images; a class has 10 or 11 images
    assert np.mean([len(set(labels)) for _, labels, _ in whole]) < 2.4
    assert np.mean([len(set(labels)) for _, labels, _ in fit(toy()).seen]) > 2.4
    resumed = fit(data(), ckpt_path=tmp_path / "middle.ckpt").seen
    assert resumed == whole[15:]
