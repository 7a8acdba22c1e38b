"""Files of group labels: written and read without loss, and refused where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from lit_ssl.errors import InputError
from lit_ssl.groups.label_files import GroupLabels, read_group_labels, write_group_labels

HARD = "row,attribute,source\n0,1,known\n1,0,predicted\n2,1,predicted\n"


def test_soft_labels_come_back_exactly(tmp_path):
    probabilities = np.random.default_rng(0).random((50, 3), dtype=np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = GroupLabels(probabilities.argmax(axis=1), np.arange(50) % 3 == 0, probabilities)
    found = read_group_labels(write_group_labels(tmp_path / "new" / "a.csv", labels), 50, 3)
    for one, other in zip(labels, found, strict=True):
        assert np.array_equal(one, other)


def test_rows_may_come_in_any_order(tmp_path):
    lines = HARD.splitlines()
    (tmp_path / "a.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    found = read_group_labels(tmp_path / "a.csv", 3, 2)
    assert found.attributes.tolist() == [1, 0, 1]
    assert found.known.tolist() == [True, False, False]
    assert found.probabilities is None


def test_a_failed_write_leaves_nothing(tmp_path):
    labels = GroupLabels(np.array([0, 1]), np.array([True]))  # too few sources
    with pytest.raises(IndexError):
        write_group_labels(tmp_path / "a.csv", labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column row: expected a CSV file"),
        (HARD.replace("source", "from"), "has no column source"),
        (HARD + "3,0,known\n", "has 4 rows, but the training set has 3"),
        (HARD.replace("2,1", "1,1"), "has row 1 2 times"),
        (HARD.replace("2,1", "3,1"), "line 4 of .* has the row '3': expected an integer from 0 to"),
        (HARD.replace("1,0", "1,2"), "has the attribute '2': expected an integer from 0 to 1"),
        (HARD.replace("1,0", "1,red"), "has the attribute 'red'"),
        (HARD.replace("known", "guessed"), "has the source 'guessed'"),
        (HARD[:-11], "ends in the middle of line 4"),
        (
            "row,attribute,source,p_0\n0,1,known,1\n",
            "has the probabilities p_0, but the data has 2",
        ),
        (
            "row,attribute,source,p_0,p_1\n0,1,known,0,1\n1,1,known,x,1\n2,1,known,0,1\n",
            "a probability that is no number",
        ),
        (
            "row,attribute,source,p_0,p_1\n0,1,known,0,1\n1,1,known,0.9,0.9\n2,1,known,0,1\n",
            "probabilities in line 3 .* do not sum to 1",
        ),
    ],
)
def test_wrong_files(content, message, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    rows = 1 if content.count("\n") == 2 else 3
    with pytest.raises(InputError, match=message):
        read_group_labels(tmp_path / "a.csv", rows, 2)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no group labels at"):
        read_group_labels(tmp_path / "none.csv", 3, 2)
