"""Training batches with groups: weights, resuming, workers that stay alive."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest

from lit_ssl.datamodules import GroupCSVDataModule
from lit_ssl.transforms import CropSpec, MultiCrop

TRUE = np.arange(43) % 2 * 3 + np.arange(43) // 2 % 3


def shuffled_weights(data, epoch):
    """Other weights and other groups in each epoch, as a method may set them."""
    data.set_sampling(np.roll(np.arange(43.0) % 5, epoch))
    data.set_groups(np.arange(43) % 2 * 3 + (np.arange(43) + epoch) % 3)


class SaveEverywhere(pl.Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, module, *args):
        trainer.save_checkpoint(self.folder / f"{len(module.seen):02d}.ckpt")


def test_batches_carry_labels_and_groups_of_their_images(toy):
    data = toy(seed=3)
    rows = []
    for images, labels, groups in data.train_dataloader():
        batch = images[:, 0, 0, 0].long().numpy()
        assert labels.tolist() == (batch % 2).tolist()
        assert groups.tolist() == TRUE[batch].tolist()
        rows += batch.tolist()
    assert len(rows) == len(set(rows)) == 40


def test_weighted_epochs(toy):
    data = toy(drop_last=False)
    loader = data.train_dataloader()
    weights = np.zeros(43)
    weights[[5, 6]] = 1, 3
    data.set_sampling(weights)  # after the loader was made
    rows = [row for images, *_ in loader for row in images[:, 0, 0, 0].tolist()]
    assert len(rows) == 43
    assert set(rows) == {5, 6}
    data.set_sampling(None)
    assert sorted(row for images, *_ in loader for row in images[:, 0, 0, 0].tolist()) == list(
        range(43)
    )


@pytest.mark.parametrize(
    "weights", [np.ones(42), -np.ones(43), np.zeros(43), np.full(43, np.nan)], ids=lambda w: w[0]
)
def test_values_of_weights(toy, weights):
    with pytest.raises(ValueError, match="must be 43 finite numbers >= 0, one for each training"):
        toy().set_sampling(weights)


@pytest.mark.parametrize(("augment", "workers"), [("worker", 0), ("worker", 2), ("device", 0)])
def test_every_checkpoint_continues_identically_under_weights(
    tmp_path, toy, fit, recorder, augment, workers
):
    views = MultiCrop([CropSpec(size=8, count=2, scale=(0.3, 1.0), hflip=0.5, brightness=0.4)])

    def make():
        return toy(train_transform=views, augment=augment, num_workers=workers)

    whole = fit(make(), module=recorder(shuffled_weights), callbacks=[SaveEverywhere(tmp_path)])
    assert len(whole.seen) == 30
    assert len({seen[3] for seen in whole.seen}) == 30
    for path in sorted(tmp_path.glob("*.ckpt"))[:: 2 if workers == 0 else 7]:
        rest = fit(make(), path, module=recorder(shuffled_weights))
        assert rest.seen == whole.seen[int(path.stem) :], path.name


def test_workers_that_stay_alive_serve_the_new_groups(toy, fit, recorder):
    def make(workers):
        return toy(num_workers=workers)

    whole = fit(make(2), module=recorder(shuffled_weights))
    assert whole.seen == fit(make(0), module=recorder(shuffled_weights)).seen
    for epoch, labels, groups, _ in whole.seen:
        assert [group // 3 for group in groups] == labels
        assert len(set(groups)) > 1, epoch


def test_overfit_batches_keeps_labels_and_groups(toy, fit):
    module = fit(toy(), overfit_batches=2, max_epochs=2)
    assert [seen[2] for seen in module.seen] == [TRUE[:4].tolist(), TRUE[4:8].tolist()] * 2


def test_groups_change_between_epochs_not_within(toy):
    data = toy(num_workers=1)
    loader = data.train_dataloader()
    first = iter(loader)
    found = [next(first)[2]]
    data.set_groups(np.arange(43) % 2 * 3 + 2)
    found += [groups for *_, groups in first]
    assert {group for groups in found for group in groups.tolist()} == set(range(6))
    assert {group for *_, groups in loader for group in groups.tolist()} == {2, 5}


def test_resuming_without_the_weights_warns(tmp_path, toy, fit, recorder):
    fit(toy(), module=recorder(shuffled_weights), callbacks=[SaveEverywhere(tmp_path)])
    with pytest.warns(UserWarning, match=r"the order of the samples has changed.*sampling_weights"):
        fit(toy(), tmp_path / "13.ckpt")


def test_bank_of_some_rows_and_evaluation(toy):
    data = toy(group_label_fraction=0.5)
    positions = np.array([40, 3, 17])
    images, labels, groups = next(iter(data.bank_dataloader(positions)))
    assert images[:, 0, 0, 0].tolist() == positions.tolist()
    assert labels.tolist() == [0, 1, 1]
    assert groups.tolist() == data.group_array("train")[positions].tolist()
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        batches = list(loader)
        assert [len(batch[0]) for batch in batches] == [4, 4, 1]
        groups = np.concatenate([groups.numpy() for *_, groups in batches])
        assert groups.tolist() == TRUE[:9].tolist()


def test_images_are_normalised_and_the_rest_left_alone(toy):
    data = toy(mean=[0.5], std=[0.5])
    images, labels, groups = data.on_after_batch_transfer(next(iter(data.bank_dataloader())), 0)
    assert images[3, 0, 0, 0].item() == pytest.approx((3 / 255 - 0.5) / 0.5)
    assert (labels.tolist(), groups.tolist()) == ([0, 1, 0, 1], [0, 3, 1, 4])


def test_skipped_image_takes_label_and_group_of_the_one_in_its_place(group_csv):
    rows = [(f"{i}.png", "train", i % 2, i // 2) for i in range(4)]
    root = group_csv(rows)
    (root / "1.png").write_bytes(b"no image")
    data = GroupCSVDataModule(root=str(root), num_workers=0, image_size=8, on_corrupt="skip")
    with pytest.warns(UserWarning, match=r"Skipped: .*1.png"):
        images, labels, groups = next(iter(data.bank_dataloader()))
    assert images[:, 0, 4, 4].tolist() == [0, 2, 2, 3]
    assert labels.tolist() == [0, 0, 0, 1]
    assert groups.tolist() == [0, 1, 1, 3]
    assert data.num_corrupt == 1
