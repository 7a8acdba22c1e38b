from __future__ import annotations

import pytest
import torch

from lit_ssl.callbacks import KNNEvaluator, RepresentationReport
from lit_ssl.contracts.batches import first_view, split_batch

IMAGES = torch.rand(4, 3, 8, 8)
LABELS = torch.arange(4)
VIEWS = [torch.rand(4, 2, 3, 8, 8), torch.rand(4, 5, 3, 4, 4)]


def test_every_form_of_batch_is_taken_apart():
    for batch in ((IMAGES, LABELS), [IMAGES, LABELS], (IMAGES, LABELS, LABELS % 2)):
        inputs, labels = split_batch(batch)
        assert inputs is IMAGES
        assert labels is LABELS
        assert first_view(inputs) is IMAGES
    for batch in ((VIEWS, LABELS), [tuple(VIEWS), LABELS]):
        inputs, labels = split_batch(batch)
        assert inputs == VIEWS
        assert labels is LABELS
        assert torch.equal(first_view(inputs), VIEWS[0][:, 0])
    assert split_batch(IMAGES) == (IMAGES, None)
    assert split_batch(VIEWS) == (VIEWS, None)  # two views are no (images, labels)
    two_streams = {"unlabelled": (VIEWS, LABELS), "support": ([VIEWS[0]], LABELS)}
    assert split_batch(two_streams)[0] == VIEWS
    assert split_batch(two_streams)[1] is LABELS


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({"image": IMAGES}, "type dict"),
        ([IMAGES, "cat"], r"list\(Tensor\[4, 3, 8, 8\], str\)"),
        ([], r"list\(\)"),
    ],
)
def test_other_batches_are_named(batch, found):
    with pytest.raises(TypeError, match=rf"cannot read a batch of type .*{found}|{found}"):
        split_batch(batch)


def test_a_data_module_with_zero_classes_counts_as_unlabelled(toys, make_trainer):
    data = toys.ToyData()
    data.num_classes = 0
    with pytest.raises(AttributeError, match="ToyData has num_classes = 0, so the data counts"):
        make_trainer(callbacks=[RepresentationReport()]).test(toys.ToyModule(), data)
    with pytest.raises(ValueError, match="at least two classes, got num_classes=1"):
        make_trainer(callbacks=[KNNEvaluator(num_classes=1)]).fit(toys.ToyModule(), data)
