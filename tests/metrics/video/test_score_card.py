"""The card of a score."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lit_ssl.errors import InputError
from lit_ssl.metrics import FrechetVideoDistance, score_card, write_card
from lit_ssl.metrics.video.card import fvd_name

sys.path.insert(0, str(Path(__file__).parent))
from clip_networks import Small, clips


@pytest.mark.parametrize(("protocol", "divisor"), [("stylegan_v", "N"), ("tats", "N - 1")])
def test_a_card_tells_what_a_number_is_of(tmp_path, protocol, divisor):
    metric = FrechetVideoDistance(Small(), 6, protocol, clip_length=4, max_items=5)
    for real in (True, False):
        metric.update(clips(3), real=real)
    score = {"value": float("nan"), "num_real": 3, "num_fake": 3, **metric.card()}
    card = score_card({"fvd": score}, {"split": None, "stride": 1}, "1.2.3")
    path = write_card(tmp_path / "new" / "card.json", card)
    found = json.loads(path.read_text())
    assert found["made_by"] == "lit_ssl 1.2.3"
    assert found["data"] == {"split": None, "stride": 1}
    assert "favour the quality of single frames" in found["note"]
    fvd = found["scores"]["fvd"]
    assert fvd["value"] is None
    assert fvd["protocol"] == protocol
    assert fvd["covariance_divided_by"] == divisor
    assert fvd["extractor"] == {"name": "Small", "sha256": None, "called_with": {}}
    assert fvd["resolution_before_resize"] == [7, 9]
    assert (fvd["clip_length"], fvd["max_items"], fvd["num_clips_of_protocol"]) == (4, 5, 2048)
    path.write_text("mine")
    with pytest.raises(InputError, match=r"card.json exists; give another file"):
        write_card(path, card)
    assert path.read_text() == "mine"


def test_names_as_in_stylegan_v():
    assert fvd_name(2048, 16) == "fvd2048_16f"
    assert fvd_name(2048, 128, 8) == "fvd2048_128f_subsample8f"
