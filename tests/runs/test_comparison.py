"""Results of several runs: which belong together, and what is never averaged."""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from written import (
    config,
    write_config,
    write_metrics,
    write_report,
    write_run,
)

from lit_ssl.errors import InputError
from lit_ssl.runs import compare_runs


def compared(*places, **options):
    said: list[str] = []
    found = compare_runs(places, say=said.append, **options)
    assert said == []
    return found


def own_rows(table):
    return [row for row in table.rows if row.baseline is None]


def scores(table, name="knn_acc1"):
    (column,) = [column for column in table.columns if column.name == name]
    return [row.scores[column] for row in own_rows(table)]


def test_runs_that_differ_in_seeds_only_are_one_row(tmp_path):
    values = {0.15: [0.90, 0.92, 0.97], 0.5: [0.8, 0.7]}
    for ratio, each in values.items():
        for seed, value in enumerate(each):
            write_run(tmp_path / f"{ratio}" / f"{seed}", value, seed, mask_ratio=ratio)
    (table,) = compared(tmp_path).tables
    assert table.keys == ("mask_ratio",)
    assert [row.setting for row in own_rows(table)] == [{"mask_ratio": 0.15}, {"mask_ratio": 0.5}]
    assert [row.seeds for row in own_rows(table)] == [("0", "1", "2"), ("0", "1")]
    for score, expected in zip(scores(table), values.values(), strict=True):
        assert score.mean == pytest.approx(statistics.fmean(expected))
        assert score.sd == pytest.approx(statistics.stdev(expected))
    assert table.best(table.columns[0]) == scores(table)[0].mean


def test_a_single_seed_has_no_spread_and_a_missing_number_is_no_zero(tmp_path):
    write_run(tmp_path / "a", None, 0, lr=0.1)
    write_run(tmp_path / "b", 0.5, 0, lr=0.2)
    write_run(tmp_path / "c", None, 1, lr=0.2)
    (table,) = compared(tmp_path).tables
    missing, there = scores(table)
    assert missing is None
    assert there.mean == 0.5
    assert there.sd is None
    assert len(there.values) == 1
    assert len(own_rows(table)[1].seeds) == 2


def test_baselines_that_are_the_same_for_all_settings_are_one_row(tmp_path):
    write_run(tmp_path / "a", 0.8, 0, lr=0.1)
    write_run(tmp_path / "b", 0.5, 0, lr=0.2)
    (table,) = compared(tmp_path).tables
    assert [row.baseline for row in table.rows] == [None, None, "untrained", "pixels"]


def test_baselines_that_differ_between_settings_have_a_row_for_each(tmp_path):
    write_run(tmp_path / "a", 0.8, 0, lr=0.1)
    other = write_run(tmp_path / "b", 0.5, 0, lr=0.2)
    report = json.loads((other / "report.json").read_text())
    report["rows"][1]["knn_acc1"] = 0.45
    (other / "report.json").write_text(json.dumps(report))
    (table,) = compared(tmp_path).tables
    assert [row.baseline for row in table.rows][2:] == ["untrained", "untrained", "pixels"]
    assert [row.setting["lr"] for row in table.rows][2:] == [0.1, 0.2, None]


@pytest.mark.parametrize(
    "other", [{"bank": 3000}, {"queries": 999}, {"split": "val"}, {"data": "CIFAR10DataModule"}]
)
def test_other_data_are_another_table(tmp_path, other):
    write_run(tmp_path / "a", 0.8, 0)
    write_config(write_report(tmp_path / "b", 0.9, **other), config(1))
    found = compared(tmp_path)
    assert len(found.tables) == 2
    assert "not comparable" in found.notes[0]
    assert found.tables[0].title != found.tables[1].title


def test_other_options_of_a_protocol_are_another_column(tmp_path):
    write_run(tmp_path / "a", 0.8, 0)
    write_config(write_report(tmp_path / "b", 0.9, k=200), config(1))
    (table,) = compared(tmp_path).tables
    labels = [table.label(column) for column in table.columns]
    assert labels == ["k-NN (k 20, T 0.07)", "1-shot", "k-NN (k 200, T 0.07)"]
    (row,) = own_rows(table)
    assert [len(score.values) for score in row.scores.values()] == [1, 2, 1]


def test_of_two_reports_of_one_run_the_newest_counts_and_that_is_said(tmp_path):
    write_run(tmp_path / "old", 0.8, 0)
    write_run(tmp_path / "new", 0.9, 0)
    os.utime(tmp_path / "old" / "report.json", (1, 1))
    (table,) = compared(tmp_path).tables
    (score,) = scores(table)
    assert score.values == (0.9,)
    (note,) = [note for note in table.notes if "2 times" in note]
    assert str(tmp_path / "new") in note.partition("counts")[0]
    assert str(tmp_path / "old") in note.partition("counts")[2]


def test_seeds_that_nobody_knows_are_runs_of_their_own(tmp_path):
    write_run(tmp_path / "a", 0.8, None)
    write_run(tmp_path / "b", 0.9, None)
    (table,) = compared(tmp_path).tables
    assert own_rows(table)[0].seeds == ("?", "?")


def test_the_config_is_that_of_the_training_even_where_all_was_moved(tmp_path):
    trained = tmp_path / "seed_0" / "lightning_logs" / "version_0"
    write_config(trained, config(0, mask_ratio=0.5))
    # where it lay when it was trained
    checkpoint = "/gone/seed_0/lightning_logs/version_0/checkpoints/last.ckpt"
    write_report(tmp_path / "seed_0", 0.8, checkpoint=checkpoint)
    # its evaluation has a config of its own, of another module
    write_config(tmp_path / "seed_0", config(0, model="FrozenEncoder"))
    write_run(tmp_path / "seed_1", 0.9, 0, mask_ratio=0.25)
    (table,) = compared(tmp_path).tables
    assert [row.setting for row in own_rows(table)] == [{"mask_ratio": 0.25}, {"mask_ratio": 0.5}]


def test_a_report_above_several_runs_is_refused(tmp_path):
    write_report(tmp_path, 0.8)
    write_config(tmp_path / "version_0", config(0))
    write_config(tmp_path / "version_1", config(1))
    with pytest.raises(InputError, match="of which of the 2 runs"):
        compare_runs([tmp_path])


def test_a_report_without_a_config_is_called_by_its_folder(tmp_path):
    write_report(tmp_path / "mine", 0.8)
    write_report(tmp_path / "theirs", 0.9)
    (table,) = compared(tmp_path / "mine" / "report.json", tmp_path / "theirs").tables
    assert [row.setting["run"] for row in own_rows(table)] == ["mine", "theirs"]
    assert len([note for note in table.notes if "no config.yaml" in note]) == 2


def test_runs_without_a_report_show_what_they_logged_last(tmp_path):
    text = "epoch,step,train/loss,val/acc1,val/acc1_std,test/acc1\n0,9,3.5,,,\n0,9,,0.5,0.1,\n"
    for seed, last in enumerate(["1,19,,0.7,0.1,\n1,19,,,,0.6\n", "1,19,,0.8,0.1,\n1,1"]):
        write_metrics(tmp_path / f"{seed}", text + last)
        write_config(tmp_path / f"{seed}", config(seed))
    val, test = compared(tmp_path).tables
    (score,) = scores(val, "val/acc1")
    assert score.values == (0.7, 0.8)
    assert [column.name for column in val.columns] == ["val/acc1"]
    (score,) = scores(test, "test/acc1")
    assert score.values == (0.6,)


def test_a_run_with_a_report_is_not_read_from_its_log_again(tmp_path):
    write_metrics(write_run(tmp_path / "a", 0.9), "epoch,step,val/acc1\n0,1,0.5\n")
    assert [table.title for table in compared(tmp_path).tables] == [
        "MNIST5kDataModule, 1,000 test images, bank of 3,500, features(images)"
    ]


def test_without_a_config_the_hyper_parameters_of_a_logger_tell_runs_apart(tmp_path):
    for lr in (0.1, 0.2):
        write_config(write_report(tmp_path / f"{lr}", lr), {"lr": lr, "depth": 3}, "hparams.yaml")
    (table,) = compared(tmp_path).tables
    assert [row.setting for row in own_rows(table)] == [{"lr": 0.1}, {"lr": 0.2}]
    (table,) = compared(tmp_path / "0.1").tables
    assert [row.setting for row in own_rows(table)] == [{"run": "all runs"}]


def test_tensorboards_curves_alone_are_no_results(tmp_path):
    write_config(tmp_path / "version_0", config(0))
    (tmp_path / "version_0" / "events.out.tfevents.1.host.2.0").write_bytes(b"")
    with pytest.raises(InputError, match="no results but TensorBoard's curves"):
        compare_runs([tmp_path])


def test_a_log_without_such_metrics_is_said(tmp_path):
    write_run(tmp_path / "a", 0.9)
    write_metrics(tmp_path / "b", "epoch,step,train/loss\n0,1,0.5\n")
    said = []
    compare_runs([tmp_path], say=said.append)
    assert said == [
        f"{tmp_path / 'b' / 'metrics.csv'} has no metrics val/… or test/…, and is left out"
    ]


REPORTS = {
    "group_report.json": {
        "worst": 0.6, "average": 0.9, "adjusted_average": None, "training_group_labels": 32,
        "groups": [{"group": "a", "test_rows": 10, "accuracy": 0.6}],
    },
    "factors.json": {
        "protocol": {"annotations": "ImageNet-X", "images": 50000, "error_type": "class",
                     "model": "mine"},
        "models": [
            {"model": "other", "accuracy": 0.7, "factors": []},
            {"model": "mine", "accuracy": 0.8, "worst_factor_accuracy": 0.5,
             "calibration_error": 0.1, "factors": [{"factor": "pose", "accuracy": 0.9}]},
        ],
    },
    "linear_sweep.json": {"chosen": 0, "val_acc1": 0.7, "test_acc1": 0.6, "heads": [{}]},
    "module_drop.json": {
        "split": "test", "method": "nested", "gate": {"is_void": True},
        "levels": [{"modules": 8, "acc1": 0.9}, {"modules": 4, "acc1": 0.8}],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group_report.json", {"worst": 0.6, "average": 0.9, "training_group_labels": 32}),
        ("factors.json", {"accuracy": 0.8, "worst_factor_accuracy": 0.5, "calibration_error": 0.1}),
        ("linear_sweep.json", {"val_acc1": 0.7, "test_acc1": 0.6}),
        ("module_drop.json", {"modules_8_acc1": 0.9, "modules_4_acc1": 0.8}),
    ],
)
def test_reports_of_all_kinds_whatever_they_are_called(tmp_path, name, expected):
    write_config(tmp_path, config(0))
    for file in (tmp_path / name, tmp_path / "renamed.txt"):
        file.write_text(json.dumps(REPORTS[name]))
        (table,) = compared(file).tables
        (row,) = table.rows
        found = {column.name: score.mean for column, score in row.scores.items() if score}
        assert found == expected


def test_details_are_shown_where_they_are_asked_for(tmp_path):
    (tmp_path / "factors.json").write_text(json.dumps(REPORTS["factors.json"]))
    (table,) = compared(tmp_path, metrics=["pose", "Accuracy"]).tables
    assert [column.name for column in table.columns] == ["accuracy", "factor pose"]
    with pytest.raises(InputError, match=r"metric 'acuracy'\. Did you mean accuracy"):
        compare_runs([tmp_path], ["acuracy"])


def test_keys_can_be_ignored(tmp_path):
    write_run(tmp_path / "a", 0.8, 0, lr=0.1, backbone="x")
    write_run(tmp_path / "b", 0.8, 1, lr=0.1, backbone="y")
    (table,) = compared(tmp_path, ignored=["model.backbone"]).tables
    assert [row.seeds for row in own_rows(table)] == [("0", "1")]
    (table,) = compared(tmp_path, ignored=["model"]).tables
    assert [row.seeds for row in own_rows(table)] == [("0", "1")]


def test_rows_are_plain(tmp_path):
    write_run(tmp_path / "a", 0.8, 0)
    found = compared(tmp_path).rows
    assert json.loads(json.dumps(found)) == found
    assert found[0] == {
        "table": "MNIST5kDataModule, 1,000 test images, bank of 3,500, features(images)",
        "model": "MSN", "baseline": None, "metric": "knn_acc1", "options": "k 20, T 0.07",
        "mean": 0.8, "sd": None, "n": 1, "seeds": "0",
    }  # fmt: skip


def test_code_and_machine_are_said(tmp_path):
    write_run(tmp_path / "a", 0.8, 0)
    write_config(
        write_report(tmp_path / "b", 0.8, made_with={"torch": "2.6", "commit": "abc"}), config(1)
    )
    (note,) = compared(tmp_path).notes
    assert note == ("Reports made with lit_ssl 0.1.0, commit abc, torch 2.14.1 or 2.6, threads 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("[1, 2]", "is no report of a run"),
        ("{}", "is no report of a run"),
        ('{"protocol": 1, "rows": []}', "protocol should be keys and values, not 1"),
        ('{"protocol": {}, "rows": []}', "it has no rows"),
        ('{"protocol": {}, "rows": [{"features": "a"}]}', "has no numbers"),
        ('{"protocol": {}, "rows": [{"knn_acc1": "x"}]}', "knn_acc1 should be a number, not 'x'"),
        ('{"protocol": {}, "rows": [{"knn_acc1": true}]}', "should be a number"),
        ('{"protocol": {}, "rows": [{"knn_acc1": 1' + "0" * 400 + "}]}", "is no JSON|be a number"),
        ('{"protocol": {}, "rows": [{"knn_acc1": NaN}]}', "is no JSON"),
        ('{"protocol": {}, "rows": [{"knn_acc1": 1}, {"knn_acc1": 1}]}', "two rows are called"),
        ('{"gate": [], "levels": []}', "gate should be keys and values"),
        ('{"groups": [3], "worst": 1}', "groups should be a list of keys and values"),
    ],
)
def test_a_damaged_or_foreign_report_is_one_line(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        compare_runs([tmp_path])
    assert str(tmp_path / "report.json") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- a\n- b\n", "is no config of a run"),
        ("a: !!python/object/apply:os.system ['id']", "cannot be read as YAML"),
        ("a: &a [*a]", "stands for itself"),
        ("a: 1\na: 2\n", "stands twice"),
        ("\0", "no text"),
    ],
)
def test_a_damaged_or_foreign_config_is_one_line(tmp_path, text, message):
    write_report(tmp_path, 0.5)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        compare_runs([tmp_path])
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_places_without_results(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        compare_runs([tmp_path / "none"])
    with pytest.raises(InputError, match="holds no results: expected report"):
        compare_runs([tmp_path])
    write_metrics(tmp_path, "epoch,step,val/acc1\n0,1,zero\n")
    with pytest.raises(InputError, match="line 2: zero is no number"):
        compare_runs([tmp_path])


def test_odd_values_of_configs(tmp_path):
    write_report(tmp_path / "a", 0.5)
    (tmp_path / "a" / "config.yaml").write_text(
        "model: {class_path: 3, x: 2024-01-01, y: !!set {a, b}, z: [[{1: 2, a: 3}]], n: .nan}\n"
        "trainer: null\n1: {2: 3}\n"
    )
    write_run(tmp_path / "b", 0.6)
    (table,) = compared(tmp_path).tables
    assert len(own_rows(table)) == 2


def test_a_key_that_no_config_has_is_not_ignored_in_silence(tmp_path):
    write_run(tmp_path / "a", 0.8, 0)
    with pytest.raises(InputError, match=r"no config has a key 'model\.lrr' to ignore\. Did you"):
        compare_runs([tmp_path], ignored=["model.lrr"])


@pytest.mark.parametrize("value", [1.7, -0.5])
def test_an_accuracy_that_is_no_share_is_no_result(tmp_path, value):
    write_run(tmp_path / "a", value, 0)
    with pytest.raises(InputError, match=r"knn_acc1 should be a share in \[0, 1\]"):
        compare_runs([tmp_path])


def test_logged_percents_are_no_shares_and_what_ended_as_nan_is_said(tmp_path):
    text = "epoch,step,val/acc1,val/loss\n0,1,87.5,nan\n"
    write_config(write_metrics(tmp_path / "a", text), config(0))
    (table,) = compared(tmp_path).tables
    assert [(one.name, one.is_share) for one in table.columns] == [
        ("val/acc1", False), ("val/loss", False)
    ]  # fmt: skip
    assert "a: val/loss ended as nan" in table.notes


def test_folders_that_are_not_entered_are_said(tmp_path):
    write_run(tmp_path / "runs/a", 0.8, 0)
    write_run(tmp_path / "other", 0.7, 1)
    (tmp_path / "runs/link").symlink_to(tmp_path / "other")
    (tmp_path / "runs/loop").symlink_to(tmp_path / "runs")
    write_run(tmp_path / "runs/1/2/3/4/5/6/7/8/9", 0.6, 2)
    said: list[str] = []
    compare_runs([tmp_path / "runs"], say=said.append)
    assert [line.removeprefix(f"{tmp_path}/") for line in said] == [
        "runs/link is a link to a folder elsewhere, and is left out: name it",
        "runs/1/2/3/4/5/6/7/8 has folders that lie too deep, and are left out: name those of the "
        "runs",
    ]


def test_halves_of_characters_can_be_written(tmp_path):
    write_report(tmp_path / "a", 0.8, split="te\ud800st")
    (table,) = compared(tmp_path).tables
    assert "te\N{REPLACEMENT CHARACTER}st images" in table.title


def test_a_number_that_python_does_not_print(tmp_path):
    write_run(tmp_path / "a", 0.8, 0)
    (tmp_path / "a/config.yaml").write_text(f"model: {{lr: 0x{'f' * 5000}}}")
    with pytest.raises(InputError, match="thousands of digits"):
        compare_runs([tmp_path])
