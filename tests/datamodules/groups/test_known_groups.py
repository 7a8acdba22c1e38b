"""Which attributes a run may know, and what its batches carry."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.groups.label_files import GroupLabels, write_group_labels

TRUE = np.arange(43) % 2 * 3 + np.arange(43) // 2 % 3


def bank(data):
    batches = list(data.bank_dataloader())
    return [np.concatenate([batch[place].numpy() for batch in batches]) for place in (1, 2)]


def test_groups_are_class_by_attribute(toy):
    data = toy()
    assert data.group_names == ["a, x", "a, y", "a, z", "b, x", "b, y", "b, z"]
    assert data.group_array("train").tolist() == TRUE.tolist()
    assert data.true_group_array("train").tolist() == TRUE.tolist()
    assert data.num_labelled == 43
    assert data.group_counts("train").tolist() == np.bincount(TRUE).tolist()
    labels, groups = bank(data)
    assert labels.tolist() == data.labels("train").tolist()
    assert groups.tolist() == TRUE.tolist()


def test_fraction_hides_attributes_of_training_rows_only(toy):
    data = toy(group_label_fraction=0.3, group_label_seed=4)
    groups = data.group_array("train")
    known = groups >= 0
    assert known.sum() == data.num_labelled == 13
    assert (groups[known] == TRUE[known]).all()
    assert data.known("train").tolist() == known.tolist()
    assert data.group_counts("train").tolist() == np.bincount(TRUE[known], minlength=6).tolist()
    assert data.true_group_array("train").tolist() == TRUE.tolist()
    assert (data.group_array("val") >= 0).all()
    assert bank(data)[1].tolist() == groups.tolist()


def test_the_choice_has_its_own_seed_and_is_nested(toy):
    def chosen(**options):
        return set(np.flatnonzero(toy(**options).known("train")).tolist())

    some = chosen(group_label_fraction=0.3)
    assert some == chosen(group_label_fraction=0.3, seed=9, batch_size=7)
    assert some != chosen(group_label_fraction=0.3, group_label_seed=1)
    assert some < chosen(group_label_fraction=0.6) < chosen()


def test_the_choice_is_uniform(toy):
    seeds = 400
    times = sum(
        toy(group_label_fraction=0.5, group_label_seed=seed).known("train").astype(int)
        for seed in range(seeds)
    )
    share = 22 / 43  # round(21.5)
    sigma = np.sqrt(seeds * share * (1 - share))
    assert abs(times - seeds * share).max() < 4 * sigma


def test_rows_without_an_attribute_stay_unknown(toy):
    data = toy(unknown=range(20, 40), group_label_fraction=0.5)
    assert data.num_labelled == round(23 / 2)
    assert not data.known("train")[20:40].any()
    assert data.true_group_array("train")[25] == -1


def test_values_of_the_fraction(toy):
    for value in (0, 1.5, -0.1):
        with pytest.raises(ValueError, match=rf"must be in \(0, 1\], got {value}"):
            toy(group_label_fraction=value)
    with pytest.raises(InputError, match=r"group_label_fraction 0.001 of the 43 training .* none"):
        toy(group_label_fraction=0.001).setup("fit")
    with pytest.raises(ValueError, match="ToyGroups takes no classes_per_batch"):
        toy(classes_per_batch=2)


# What is said


def test_setup_says_what_is_known(toy, monkeypatch):
    said = []
    monkeypatch.setattr("lit_ssl.datamodules.groups.data.rank_zero_info", said.append)
    data = toy(group_label_fraction=0.1)
    data.setup("fit")
    data.setup("test")
    data.setup("fit")
    assert len(said) == 1
    assert said[0].startswith("Group labels: 4 of 43 training rows (a, x: ")
    assert said[0].endswith(", 9 of 9 validation rows.")


def test_group_that_training_lacks(toy):
    class Lacking(toy):
        def load_rows(self, split):
            rows = super().load_rows(split)
            if split == "train":
                attributes = rows.columns["attribute"]
                attributes[(rows.labels == 1) & (attributes == 2)] = 0
            return rows

    with pytest.warns(UserWarning, match="No training row is in the group b, z: nothing can be"):
        Lacking().setup("fit")


# Files of predicted groups


def labels_for(data, probabilities=False, seed=0):
    generator = np.random.default_rng(seed)
    known = np.arange(43) % 3 == 0
    soft = generator.dirichlet(np.ones(3), size=43).astype(np.float32)
    true = data.attribute_array("train")
    soft[known] = np.eye(3, dtype=np.float32)[true[known]]
    return GroupLabels(soft.argmax(1), known, soft if probabilities else None)


def test_file_with_attributes(toy, tmp_path):
    labels = labels_for(toy())
    path = write_group_labels(tmp_path / "groups.csv", labels)
    data = toy(group_labels=str(path), group_label_fraction=0.1)
    expected = np.arange(43) % 2 * 3 + labels.attributes
    assert data.group_array("train").tolist() == expected.tolist()
    assert data.soft_group_array() is None
    assert data.num_labelled == labels.known.sum()
    assert data.known("train").tolist() == labels.known.tolist()
    assert bank(data)[1].tolist() == expected.tolist()


def test_file_with_probabilities(toy, tmp_path):
    labels = labels_for(toy(), probabilities=True)
    data = toy(group_labels=str(write_group_labels(tmp_path / "groups.csv", labels)))
    soft = data.soft_group_array()
    assert soft.shape == (43, 6)
    assert soft.dtype == np.float32
    for row in range(43):
        y = row % 2
        np.testing.assert_allclose(soft[row, 3 * y : 3 * y + 3], labels.probabilities[row])
        assert soft[row, 3 * (1 - y) : 3 * (1 - y) + 3].tolist() == [0, 0, 0]
    assert data.group_array("train").tolist() == soft.argmax(1).tolist()
    carried = bank(data)[1]
    assert carried.dtype == np.float32
    np.testing.assert_array_equal(carried, soft)


def test_file_of_other_rows(toy, tmp_path):
    labels = labels_for(toy())
    shifted = GroupLabels(np.roll(labels.attributes, 1), labels.known)
    path = write_group_labels(tmp_path / "groups.csv", shifted)
    with pytest.raises(InputError, match=r"gives \d+ training rows another known attribute than"):
        toy(group_labels=str(path)).setup("fit")
    with pytest.raises(InputError, match=r"no group labels at .*nowhere.csv"):
        toy(group_labels=str(tmp_path / "nowhere.csv")).setup("fit")


# Groups that are set while training


def test_set_groups_replaces_what_batches_carry_and_nothing_else(toy):
    data = toy(group_label_fraction=0.2)
    known = data.group_array("train")
    predicted = np.arange(43) % 2 * 3 + 1
    data.set_groups(predicted)
    predicted[:] = 0  # a copy was taken
    assert set(bank(data)[1].tolist()) == {1, 4}
    assert data.group_array("train").tolist() == known.tolist()
    assert data.num_labelled == 9
    soft = np.zeros((43, 6), dtype=np.float64)
    soft[np.arange(43), np.arange(43) % 2 * 3] = 1
    data.set_groups(soft)
    assert bank(data)[1].dtype == np.float32
    np.testing.assert_array_equal(bank(data)[1], soft)
    data.set_groups(None)
    assert bank(data)[1].tolist() == known.tolist()


def test_groups_that_do_not_belong_to_the_rows(toy):
    data = toy()
    with pytest.raises(ValueError, match=r"must be \[43\], .* or probabilities \[43, 6\], got \[4"):
        data.set_groups(np.zeros(42, dtype=np.int64))
    with pytest.raises(ValueError, match=r"\[43, 6\], got \[43, 4\]"):
        data.set_groups(np.zeros((43, 4)))
    with pytest.raises(ValueError, match="of 42 rows do not fit their classes, first row 1: 0 w"):
        data.set_groups(np.roll(TRUE, 1))
    with pytest.raises(ValueError, match=r"of 22 rows .* first row 0: 6 with the label 0"):
        data.set_groups(np.where(TRUE < 3, 6, TRUE))
    soft = np.eye(6)[TRUE]
    soft[5] = np.nan
    with pytest.raises(ValueError, match=r"of 1 rows .* first row 5"):
        data.set_groups(soft)
