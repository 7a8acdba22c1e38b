from __future__ import annotations

import numpy as np
import torch

from lit_ssl.groups.cells import attributes_of, cells_of, group_counts, group_shares

LABELS, ATTRIBUTES = np.array([0, 1, 1, 0]), np.array([2, 0, -1, 1])


def test_cells_and_back():
    cells = cells_of(LABELS, ATTRIBUTES, 3)
    assert cells.tolist() == [2, 3, -1, 1]
    assert attributes_of(cells, 3).tolist() == ATTRIBUTES.tolist()
    assert attributes_of(torch.from_numpy(cells), 3).tolist() == ATTRIBUTES.tolist()
    assert cells.tolist() == [2, 3, -1, 1]  # not changed on the way
    assert group_counts(cells, 6).tolist() == [0, 1, 1, 1, 0, 0]


def test_shares_lie_in_the_cells_of_the_known_class():
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    shares = group_shares(np.array([1, 0]), probabilities, 2)
    assert shares.tolist() == [[0, 0, 0.25, 0.75], [1, 0, 0, 0]]
