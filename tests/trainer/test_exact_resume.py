"""A resumed fit is the fit that was not stopped, wherever its checkpoint was written."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    Timer,
)

from lit_ssl.callbacks import LastCheckpoint

CASES = {
    "plain": {},
    "limit": {"limit_train_batches": 3},
    "part": {"limit_train_batches": 0.6},
    "steps": {"max_epochs": -1, "max_steps": 17},
    "steps and epochs": {"max_steps": 17},
    "two": {"accumulate_grad_batches": 2},
    "three": {"accumulate_grad_batches": 3},
    "every third": {"val_check_interval": 3},
    "half": {"val_check_interval": 0.5},
    "over epochs": {"val_check_interval": 10, "check_val_every_n_epoch": None},
    "overfit": {"overfit_batches": 3},
    "one batch": {"limit_val_batches": 1},
    "no validation": {"limit_val_batches": 0},
    "every other": {"check_val_every_n_epoch": 2},
    "sanity": {"num_sanity_val_steps": 2},
    "reload": {"reload_dataloaders_every_n_epochs": 1},
    "least": {"min_epochs": 2, "min_steps": 9},
    "all": {
        "accumulate_grad_batches": 2, "max_steps": 11, "max_epochs": -1, "val_check_interval": 3,
        "check_val_every_n_epoch": None, "limit_train_batches": 7,
    },
}  # fmt: skip
# Cases of the ordinary suite, and where their checkpoints lie: (kind, which of that kind).
TELLING = {
    "plain": [("batch", 7), ("validation", 0), ("epoch", 1), ("within validation", 2)],
    "limit": [("batch", 2), ("batch", 3), ("validation", 0), ("epoch", 0)],
    "steps": [("batch", 7), ("epoch", 0), ("batch", 16)],
    "three": [("batch", 3), ("batch", 7), ("validation", 1)],
    "every third": [("batch", 2), ("validation", 0), ("within validation", 1)],
    "overfit": [("batch", 4), ("epoch", 0)],
    "every other": [("batch", 7), ("batch", 15), ("epoch", 0)],
    "all": [("batch", 5), ("validation", 2), ("epoch", 1)],
}


@pytest.fixture(scope="session")
def traces():
    """The module resume_traces.py beside this file."""
    name = "lit_ssl_resume_traces"
    path = Path(__file__).with_name("resume_traces.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fit(traces, tmp_path):
    def run(*callbacks, module=None, data=None, **options):
        data = data or traces.TinyImages(drop_last=False)
        module = module or traces.TracedModule()
        return traces.fit(tmp_path, data, module, callbacks, **options)

    return run


def begin(traces, fit, folder, **options):
    """An uninterrupted fit, and its checkpoints by kind."""
    torch.manual_seed(0)
    save = traces.SaveEverywhere(folder)
    whole = fit(save, **options)
    by_kind = {}
    for saved in save.saved:
        by_kind.setdefault(saved.kind, []).append(saved)
    return whole, by_kind


@pytest.mark.parametrize("name", TELLING)
def test_resumed_is_uninterrupted(traces, fit, tmp_path, name):
    whole, saved = begin(traces, fit, tmp_path, **CASES[name])
    wrong = {}
    for kind, number in TELLING[name]:
        one = saved[kind][number]
        resumed = fit(ckpt_path=one.path, **CASES[name])
        if found := traces.unlike(whole, resumed, one):
            wrong[one.path.name] = found
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CASES)
def test_resumed_anywhere_is_uninterrupted(traces, fit, tmp_path, name):
    whole, saved = begin(traces, fit, tmp_path, **CASES[name])
    wrong = {}
    for one in (one for kind, several in saved.items() if kind != "end" for one in several):
        resumed = fit(ckpt_path=one.path, **CASES[name])
        if found := traces.unlike(whole, resumed, one):
            wrong[one.path.name] = found
    assert wrong == {}


def without_ends(trace):
    """The batches, and the epochs that they are of."""
    return [entry for entry in trace if entry[0] == "batch"]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"max_epochs": 2}, {"max_epochs": 3}),
        ({"max_epochs": -1, "max_steps": 12}, {"max_epochs": -1, "max_steps": 20}),
        ({"max_epochs": 2, "max_steps": 12}, {"max_epochs": 3, "max_steps": -1}),
        ({"max_epochs": 3, "max_steps": 8}, {"max_epochs": 3}),  # the last batch of an epoch
    ],
    ids=str,
)
def test_more_epochs_or_steps_after_the_end(traces, fit, tmp_path, short, long):
    torch.manual_seed(0)
    whole = fit(module=traces.TracedModule(monitored=False), limit_val_batches=0, **long)
    torch.manual_seed(0)
    save = traces.SaveEverywhere(tmp_path)
    module = traces.TracedModule(monitored=False)
    begun = fit(save, module=module, limit_val_batches=0, **short)
    for kind in ("batch", "epoch", "end"):
        last = next(one for one in reversed(save.saved) if one.kind == kind)
        rest = fit(
            module=traces.TracedModule(monitored=False), ckpt_path=last.path,
            limit_val_batches=0, **long,
        )  # fmt: skip
        seen = without_ends(begun.trace) + without_ends(rest.trace)
        assert seen == without_ends(whole.trace), kind
        assert traces.differences(whole.state, rest.state) == [], kind


def test_without_the_callback_it_would_fail(traces, fit, tmp_path):
    whole, saved = begin(traces, fit, tmp_path, **CASES["limit"])
    one = saved["batch"][2]
    resumed = fit(ckpt_path=one.path, exact=False, **CASES["limit"])
    assert traces.unlike(whole, resumed, one) != []


def test_checkpoints_that_were_written_without_the_callback(traces, fit, tmp_path):
    save = traces.SaveEverywhere(tmp_path)
    torch.manual_seed(0)
    module = traces.TracedModule(monitored=False)
    whole = fit(save, module=module, exact=False, max_epochs=2)
    by_kind = {}
    for one in save.saved:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, number in [("batch", 3), ("batch", 7), ("validation", 0), ("epoch", 0)]:
        one = by_kind[kind][number]
        rest = fit(module=traces.TracedModule(monitored=False), ckpt_path=one.path, max_epochs=2)
        assert rest.trace == whole.trace[one.position :], one.path.name
        assert traces.differences(whole.state["weights"], rest.state["weights"]) == []


def test_accumulation_that_changes_with_the_epochs(traces, fit, tmp_path):
    def callbacks():
        return GradientAccumulationScheduler({0: 1, 1: 3, 2: 2})

    save = traces.SaveEverywhere(tmp_path)
    torch.manual_seed(0)
    whole = fit(callbacks(), save)
    batches = [one for one in save.saved if one.kind == "batch"]
    for one in (batches[10], batches[12], batches[17]):
        rest = fit(callbacks(), ckpt_path=one.path)
        assert traces.unlike(whole, rest, one) == [], one.path.name


# The clock


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_resumed_run_gets_the_rest_of_its_time(traces, fit, tmp_path, monkeypatch, interval):
    clock = [0.0]
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: clock[0])

    class Minutes(pl.Callback):
        def on_train_batch_start(self, *args):
            clock[0] += 60

    def timer():
        return Timer(timedelta(minutes=13.5), interval)

    torch.manual_seed(0)
    save = traces.SaveEverywhere(tmp_path)
    whole = fit(Minutes(), timer(), save, max_epochs=5)
    assert len(without_ends(whole.trace)) == (14 if interval == "step" else 16)
    batches = [one for one in save.saved if one.kind == "batch"]
    for one in (batches[2], batches[7], batches[-1]):
        clock[0] += 10_000  # between the runs
        rest = fit(Minutes(), timer(), ckpt_path=one.path, max_epochs=5)
        assert traces.unlike(whole, rest, one) == [], one.path.name


# What ends a training on purpose


def stopping(patience):
    return EarlyStopping("val/loss", mode="max", patience=patience)


def test_a_training_that_was_ended_stays_so(traces, fit, tmp_path, caplog):
    save = traces.SaveEverywhere(tmp_path)
    torch.manual_seed(0)
    whole = fit(stopping(1), save, max_epochs=9)
    kinds = ("batch", "validation", "epoch")
    assert whole.state["epoch"] < 9
    for kind in kinds:
        last = next(one for one in reversed(save.saved) if one.kind == kind)
        rest = fit(stopping(1), ckpt_path=last.path, max_epochs=9)
        assert without_ends(rest.trace) == [], kind
        assert traces.differences(whole.state["weights"], rest.state["weights"]) == []
    more = fit(stopping(3), ckpt_path=last.path, max_epochs=9)
    assert len({entry[2] for entry in without_ends(more.trace)}) >= 2


# Other limits


def told(caught):
    return [str(one.message) for one in caught if "other limits" in str(one.message)]


def test_other_limits_are_told(traces, fit, tmp_path, monkeypatch):
    save = traces.SaveEverywhere(tmp_path)
    fit(save, max_epochs=1)
    monkeypatch.setattr(traces.warnings, "simplefilter", lambda *args: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        fit(ckpt_path=save.saved[3].path, max_epochs=1)
    assert told(caught) == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        fit(ckpt_path=save.saved[3].path, max_epochs=4, limit_train_batches=5)
    (line,) = told(caught)
    assert "max_epochs 1 -> 4, batches of an epoch 8 -> 5" in line


@pytest.mark.parametrize(("number", "expected"), [(4, "some samples"), (-2, "epochs from here on")])
def test_another_order_is_told(traces, fit, tmp_path, monkeypatch, number, expected):
    save = traces.SaveEverywhere(tmp_path)
    fit(save, max_epochs=1)
    monkeypatch.setattr(traces.warnings, "simplefilter", lambda *args: None)
    data = traces.TinyImages(drop_last=False, seed=4)
    with pytest.warns(UserWarning, match=f"seed 3 -> 4.*{expected}"):
        rest = fit(data=data, ckpt_path=save.saved[number].path, max_epochs=2)
    batches = [entry[3] for entry in without_ends(rest.trace)]
    assert batches == ([*range(4, 8), *range(8)] if number == 4 else [*range(8)])


# The files of a ModelCheckpoint


def keep(folder, **options):
    return ModelCheckpoint(
        folder, filename="{epoch}", monitor="val/loss", save_top_k=2, **options
    )  # fmt: skip


def test_a_run_in_another_folder_knows_the_best_files(traces, fit, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    torch.manual_seed(0)
    one = keep(first)
    fit(one, LastCheckpoint(), max_epochs=3)
    before = sorted(first.iterdir())
    contents = [path.read_bytes() for path in before]
    path = one.best_model_path
    torch.manual_seed(0)
    whole = keep(tmp_path / "whole")
    fit(whole, max_epochs=6)
    newest = max(before, key=lambda file: torch.load(file, weights_only=True)["global_step"])
    other = keep(second)
    fit(other, LastCheckpoint(), max_epochs=6, ckpt_path=newest)
    scores = sorted(value.item() for value in other.best_k_models.values())
    assert scores == sorted(value.item() for value in whole.best_k_models.values())
    assert Path(other.best_model_path).name == Path(whole.best_model_path).name
    assert sorted(first.iterdir()) == before
    assert os.path.exists(path)
    assert [file.read_bytes() for file in before] == contents  # last.ckpt, too


def test_a_folder_that_was_moved(traces, fit, tmp_path):
    first, moved = tmp_path / "first", tmp_path / "moved"
    torch.manual_seed(0)
    one = keep(first)
    fit(one, max_epochs=3)
    names = {Path(path).name for path in one.best_k_models}
    newest = max(names)
    shutil.move(first, moved)
    other = keep(moved)
    fit(other, max_epochs=3, ckpt_path=moved / newest)
    assert {Path(path).name for path in other.best_k_models} == names
    assert {Path(path).parent for path in other.best_k_models} == {moved}
    assert os.path.exists(other.best_model_path)


@pytest.mark.parametrize("ending", ["", ".ckpt"])
@pytest.mark.parametrize("how", ["protocol", "dots", "own dots", "absolute"])
def test_a_checkpoint_chooses_no_file_to_delete(fit, tmp_path, monkeypatch, how, ending):
    monkeypatch.chdir(tmp_path)
    precious = tmp_path / f"precious{ending}"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    fit(ModelCheckpoint("first", filename="x"), max_epochs=1)
    content = torch.load("first/x.ckpt", weights_only=True)
    (state,) = (s for name, s in content["callbacks"].items() if name.startswith("ModelCheckpoint"))
    there, path = {
        "protocol": ("x://", f"local://{precious}"),
        "dots": ("/x/y/z", f"/x/y/z/../../{precious.name}"),
        "own dots": (str(tmp_path / "second"), f"{tmp_path}/second/../{precious.name}"),
        "absolute": (None, str(precious)),
    }[how]
    paths = {"best_model_path": path, "last_model_path": path, "kth_best_model_path": path}
    state |= {"dirpath": there, **paths, "best_k_models": {path: torch.tensor(9.0)}}
    torch.save(content, "stranger.ckpt")
    for monitor in (None, "val/loss"):
        saves = ModelCheckpoint("second", monitor=monitor, save_last=True)
        fit(saves, LastCheckpoint(), max_epochs=3, ckpt_path="stranger.ckpt")
        assert (precious / "thesis.tex").exists()


@pytest.mark.distributed
def test_two_processes(tmp_path):
    script = Path(__file__).with_name("run_resume_ranks.py")
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == 9
        assert {name: wrong for name, wrong in found.items() if wrong} == {}
