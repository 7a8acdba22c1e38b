"""The official tables of ResNet50 and DINO, where their data are.

Annotations and predictions are CC BY-NC and so not in this repository: the folder is named by the
environment variable LIT_SSL_NC_GOLDEN, or lies beside the repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lit_ssl.imagenet_x.annotations import FactorAnnotations
from lit_ssl.imagenet_x.predictions import Predictions
from lit_ssl.metrics import FactorScores

_BESIDE = Path(__file__).parents[3] / "shared" / "golden" / "robustness"
FOLDER = Path(os.environ.get("LIT_SSL_NC_GOLDEN") or _BESIDE)
NAMES = ("val_annotations", "resnet50_dino_predictions", "resnet50_dino_expected")
pytestmark = pytest.mark.skipif(
    not all((FOLDER / f"imagenetx_{name}.npz").is_file() for name in NAMES),
    reason="the CC BY-NC data of ImageNet-X are not here: set LIT_SSL_NC_GOLDEN to their folder",
)
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def arrays():
    loaded = {}
    for name in NAMES:
        with np.load(FOLDER / f"imagenetx_{name}.npz") as file:
            loaded[name.rpartition("_")[2]] = {key: file[key] for key in file}
    return loaded


@pytest.fixture(scope="module")
def annotations(arrays):
    data = arrays["annotations"]

    def make(kind, keep=False):
        kept = np.ones(len(data["is_prototype"]), bool) if keep else ~data["is_prototype"]
        bits = data["multi_mask"][kept, None] >> np.arange(16) & 1
        top = data["top_factor"][kept, None] == np.arange(16)
        return FactorAnnotations(
            factors=tuple(data["factors"]),
            numbers=data["file_number"][kept].astype(np.int64),
            members=bits.astype(bool) if kind == "multi" else top,
            labels=data["label_50k"].astype(np.int64),
            kind=kind,
            source="golden",
            real=(data["real_flat"].astype(np.int64), data["real_offsets"].astype(np.int64)),
            metaclasses=tuple(data["metaclasses"]),
            class_to_metaclass=data["class_to_metaclass"].astype(np.int64),
        )

    return make


def predictions(arrays, name):
    data = arrays["predictions"]
    classes = np.r_[-1, data[f"pred_{name}"].astype(np.int64)]
    return Predictions(name, classes, np.r_[np.nan, data[f"prob_{name}"].astype(np.float64)])


def check(value, expected):
    np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("row", "name"), [(0, "ResNet50"), (1, "DINO")])
@pytest.mark.parametrize("error_type", ["class", "metaclass", "real"])
@pytest.mark.parametrize("kind", ["top", "multi"])
def test_official_tables(arrays, annotations, kind, error_type, row, name):
    def expected(part):
        return arrays["expected"][f"{kind}_{error_type}_{part}"][row]

    scores = FactorScores(predictions(arrays, name), annotations(kind), error_type, "wrong")
    table = scores.table(draws=100)
    check(table.accuracy, expected("factor_acc"))
    check(table.average, expected("average"))
    check(table.worst_accuracy, expected("worst_factor"))
    check(table.error_ratio, expected("error_ratio"))
    check(scores.worst_classes(100), expected("worst_100_classes"))
    groups = scores.metaclasses()
    check(groups.accuracy, expected("metaclass_factor_acc"))
    check(groups.average, expected("metaclass_average"))
    assert table.count.tolist() == arrays["expected"][f"{kind}_factor_count"].tolist()
    assert (groups.factor_count == arrays["expected"][f"{kind}_metaclass_factor_count"]).all()
    if error_type == "class":
        check(scores.calibration()[0], expected("ece"))
        check(scores.calibration()[1], expected("factor_ece"))
        top1 = arrays["predictions"][f"top1_50k_{name}"]  # a float32
        assert scores.all_images_accuracy() == pytest.approx(float(top1), abs=1e-7)
        kept = FactorScores(predictions(arrays, name), annotations(kind, True)).table(draws=100)
        check(kept.accuracy, expected("keepproto_factor_acc"))
        check(kept.average, expected("keepproto_average"))


@pytest.mark.parametrize(("row", "name"), [(0, "ResNet50"), (1, "DINO")])
def test_real_protocol_and_the_identity_of_error_ratios(arrays, annotations, row, name):
    top = annotations("top")
    dropped = FactorScores(predictions(arrays, name), top, "real", "drop").table(draws=100)
    check(dropped.accuracy, arrays["expected"]["top_realdrop_factor_acc"][row])
    check(dropped.average, arrays["expected"]["top_realdrop_average"][row])
    table = FactorScores(predictions(arrays, name), top).table(draws=100)
    # the official shift leaves the two images without a factor out of its shares
    wrong = table.count - table.correct
    shift = (wrong / wrong.sum()) / (table.count / table.count.sum()) - 1
    check(shift, arrays["expected"]["top_misclassification_shift"][row])
    np.testing.assert_allclose(table.error_ratio - 1, shift, atol=2e-4)
    # each image but two has exactly one factor
    assert (table.count / table.images) @ table.error_ratio == pytest.approx(1, abs=2e-4)


def test_intervals_of_resnet50(arrays, annotations):
    """Published reference values of a bootstrap over images, to two digits."""
    table = FactorScores(predictions(arrays, "ResNet50"), annotations("top")).table()
    known = {"pose": (0.67, 0.72), "texture": (2.17, 2.62), "style": (1.38, 2.54),
             "brighter": (0.62, 1.70), "multiple_objects": (1.31, 2.54)}  # fmt: skip
    for name, (low, high) in known.items():
        f = table.factors.index(name)
        slack = 0.01 + 0.06 * (high - low)
        assert table.error_ratio_low[f] == pytest.approx(low, abs=slack)
        assert table.error_ratio_high[f] == pytest.approx(high, abs=slack)
