"""The small recipes of NAC from the command line; those of sequences are also in tests/cli."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.methods import NAC

# Options that leave a few batches of data, and a quick fit of the signatures.
SMALL = {
    "nac/mnist5k.yaml": ["--data.subset.per_class=5"],
    "nac/mnist5k_points.yaml": ["--data.subset.per_class=5", "--model.net.graph_prior.steps=20"],
    "nac/mnist5k_bytes.yaml": ["--data.subset.per_class=5", "--model.net.graph_prior.steps=20"],
    "nac/listops_small.yaml": ["--data.sizes=[50, 16, 16]", "--model.net.graph_prior.steps=20"],
}
QUICK = [
    "--data.batch_size=16", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1",
    "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--model.warmup_epochs=1",
]  # fmt: skip
# In place of the recipe's callbacks, which measure times when it is tested.
EVERY_STEP = [
    "--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_last=true",
    "--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.save_top_k=-1",
]  # fmt: skip
SWEEP = {"module_drop.csv", "module_drop.json", "module_drop.png"}
OURS = ["nac/mnist5k.yaml", "nac/mnist5k_points.yaml"]


def weights(folder):
    content = read_checkpoint(next(folder.rglob("last.ckpt")))
    return content["global_step"], content["state_dict"]


@pytest.mark.parametrize(
    "name", [OURS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in OURS[1:])]
)
def test_all_commands_and_a_resume_in_the_middle_of_an_epoch(lit_ssl, tmp_path, name):
    words = ["--config", name, *SMALL[name], *QUICK]
    whole = [*EVERY_STEP, "--trainer.default_root_dir=whole"]
    done = lit_ssl("fit", *words, *whole, "--then=validate,test")
    assert done.code == 0, done.err
    assert "test/acc1" in done.out
    steps, expected = weights(tmp_path / "whole")
    middle = next((tmp_path / "whole").rglob("*step=2.ckpt"))
    assert steps == 6  # two epochs of three batches
    rest = lit_ssl("fit", *words, "--trainer.default_root_dir=rest", f"--ckpt_path={middle}")
    assert rest.code == 0, rest.err
    resumed, found = weights(tmp_path / "rest")
    assert resumed == steps
    assert set(found) == set(expected)
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    has_sweep = name == "nac/mnist5k.yaml"  # the last of its callbacks
    brief = ["--trainer.callbacks.seconds=0", "--trainer.callbacks.min_runs=1"] * has_sweep
    tested = lit_ssl("test", *words, *brief, f"--ckpt_path={middle}")
    assert tested.code == 0, tested.err
    drops = {path.name for path in tmp_path.rglob("module_drop.*")}
    assert drops == (SWEEP if has_sweep else set())
    few = "--trainer.limit_predict_batches=1"
    predicted = lit_ssl("predict", *words, f"--ckpt_path={middle}", few)
    assert predicted.code == 0, predicted.err


@pytest.mark.parametrize("name", OURS)
def test_half_precision(lit_ssl, tmp_path, name):
    words = ["--config", name, *SMALL[name], *QUICK, "--trainer.precision=bf16-mixed"]
    done = lit_ssl("fit", *words, "--trainer.max_epochs=1")
    assert done.code == 0, done.err
    _, found = weights(tmp_path)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.parametrize("name", SMALL)
def test_printed_configuration_is_the_recipe(lit_ssl, tmp_path, name):
    shown = lit_ssl("fit", "--config", name, "--print_config")
    assert shown.code == 0, shown.err
    (tmp_path / "printed.yaml").write_text(shown.out)
    assert lit_ssl("fit", "--config", "printed.yaml", "--print_config").out == shown.out


def test_a_trained_circuit_is_cut_and_exported(lit_ssl, tmp_path):
    name = "nac/mnist5k.yaml"
    done = lit_ssl("fit", "--config", name, *SMALL[name], *QUICK, "--trainer.max_epochs=1")
    assert done.code == 0, done.err
    whole = next(tmp_path.rglob("last.ckpt"))
    cut = lit_ssl("nac-prune", whole, "small.ckpt", "--keep=8")
    assert cut.code == 0, cut.err
    assert "modules 0, 1, 2, 3, 4, 5, 6, 7, the best by nested" in cut.out
    data = ["--data=MNIST5kDataModule", "--trainer.accelerator=cpu"]
    tested = lit_ssl("test", "--ckpt_path=small.ckpt", *data, "--trainer.limit_test_batches=1")
    assert tested.code == 0, tested.err
    assert (
        NAC.load_from_checkpoint(tmp_path / "small.ckpt", map_location="cpu").net.num_modules == 8
    )


# What is wrong on the command line, and what the one line says.
WRONG = {
    "--model.net.graph_prior={name: scale-fre}": "unknown graph prior 'scale-fre'",
    "--model.net.graph_prior={name: hypercube}\t--model.net.num_modules=20": "hypercube",
    "--model.net.wiring=persistant": "persistent",
    "--model.net.kernel.truncation=3": "truncation must be a cosine distance in (0, 2]",
    "--model.net.num_module=8": "num_modules",
    "--model.module_dropout=nestd": "nested",
    "--model.net.tokenizer.image_size=30": "needs an image_size that 4 divides, got 30",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_line(lit_ssl, words):
    result = lit_ssl("fit", "--config=nac/mnist5k.yaml", *words.split("\t"))
    assert result.code == 2
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert WRONG[words] in lines[0]
    assert "Traceback" not in result.err


def test_help_of_the_model(lit_ssl):
    result = lit_ssl("fit", "--config=nac/mnist5k.yaml", "--model.help")
    assert result.code == 0, result.err
    assert "--model.module_dropout" in result.out


# two gloo processes


LOCAL = ["LocalSGDStrategy", "SlowMomentumStrategy", "DiLoCoStrategy"]
STRATEGIES = {
    "DDPStrategy": ["--trainer.strategy=ddp"],
    **{name: [f"--trainer.strategy={name}", "--trainer.strategy.sync_every=2"] for name in LOCAL},
}


@pytest.fixture(scope="module")
def pool(request, tmp_path_factory):
    """Results of the runs that the selected tests ask for, of both processes."""
    folder = tmp_path_factory.mktemp("nac_pool")
    runs = {}
    for item in request.session.items:
        if getattr(item, "function", None) is not test_two_processes:
            continue
        name, strategy = (item.callspec.params[key] for key in ("name", "strategy"))
        runs[f"{name} {strategy}"] = [
            "fit", "--config", name, *SMALL[name], *QUICK, *STRATEGIES[strategy],
            "--data.batch_size=8", "--trainer.devices=2", "--trainer.max_epochs=1",
            "--trainer.limit_train_batches=3", "--trainer.callbacks=nac_pool.Watch",
            "--trainer.logger=false", "--trainer.num_sanity_val_steps=0",
        ]  # fmt: skip
    (folder / "runs.json").write_text(json.dumps(runs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("nac_pool.py")
    hidden = ("PYTHONPATH", "PL_GLOBAL_SEED", "LIT_SSL_DEBUG")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["OMP_NUM_THREADS"] = "1"
    words = [[str(folder), str(rank), str(port), str(folder / "runs.json")] for rank in (0, 1)]
    processes = [subprocess.Popen([sys.executable, script, *w], env=environment) for w in words]
    try:
        for process in processes:
            process.wait(timeout=200)
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


# All strategies on one recipe, DDP on all; the rest takes as long again.
RUNS = [
    pytest.param(
        name,
        strategy,
        marks=[pytest.mark.slow] if name != OURS[0] and strategy != "DDPStrategy" else [],
    )
    for name in SMALL
    for strategy in STRATEGIES
]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("name", "strategy"), RUNS)
def test_two_processes(pool, name, strategy):
    one, other = (results.get(f"{name} {strategy}") for results in pool)
    assert one is not None
    assert other is not None
    assert one["code"] == 0, one["said"]
    assert other["code"] == 0, other["said"]
    assert (one["strategy"], one["world"]) == (strategy, 2)
    assert one["steps"] == other["steps"] == 3
    assert one["finite"]
    assert one["weights"] == other["weights"]
