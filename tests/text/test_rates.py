"""Schedules of the masking rate."""

from __future__ import annotations

import pytest

from lit_ssl.errors import InputError
from lit_ssl.text import ConstantRate, CosineRate, LinearRate


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (ConstantRate(0.6), [0.6, 0.6, 0.6, 0.6]),
        (LinearRate(0.6, 0.2), [0.6, 0.5, 0.4, 0.2]),
        (LinearRate(0.15, 0.75), [0.15, 0.3, 0.45, 0.75]),
        (CosineRate(1.0, 0.0), [1.0, 0.8535533906, 0.5, 0.0]),
    ],
)
def test_values(schedule, values):
    found = [schedule(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx(values, abs=1e-9)
    assert (found[0], found[-1]) == (values[0], values[-1])
    assert schedule(1.7) == values[-1]
    assert schedule(-0.1) == values[0]
    assert all(0 <= schedule(step / 997) <= 1 for step in range(998))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConstantRate(15),
        lambda: LinearRate(0.6, 1.5),
        lambda: LinearRate(-0.1, 0.5),
        lambda: CosineRate(float("nan"), 0.5),
    ],
)
def test_rates_out_of_range(make):
    with pytest.raises(InputError, match="must be a number from 0 to 1"):
        make()


def test_an_unknown_length_is_said():
    with pytest.raises(InputError, match="the length of the training is unknown"):
        LinearRate(0.1, 0.6)(float("nan"))
