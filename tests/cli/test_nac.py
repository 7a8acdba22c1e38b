"""NAC from the command line: fit, resume, few-shot adaptation of what it leaves."""

from __future__ import annotations

import pytest
import torch
import yaml

from lit_ssl.checkpoints.files import read_checkpoint

QUICK = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1", "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
]  # fmt: skip


@pytest.fixture
def recipe(workdir):
    """A tiny circuit on digits."""
    tokenizer = {
        "class_path": "lit_ssl.models.PatchTokenizer",
        "init_args": {"patch_size": 7, "embed_dim": 8, "position_dim": 4},
    }
    net = {
        "tokenizer": tokenizer, "state_dim": 16, "num_modules": 6, "num_output_modules": 3,
        "depth": 2, "num_heads": 2, "head_dim": 8, "signature_dim": 8, "layer_scale": None,
        "graph_prior": {"name": "erdos-renyi", "steps": 20}, "kernel": {"bandwidth": 0.7},
    }  # fmt: skip
    content = {
        "model": {
            "class_path": "NAC",
            "init_args": {
                "net": {"class_path": "lit_ssl.models.NeuralAttentiveCircuit", "init_args": net},
                "warmup_epochs": 0,
                "module_dropout": "nested",
                "repulsion_weight": {"start": 0.0, "stop": 0.1},
            },
        },
        "data": {"class_path": "MNIST5kDataModule", "init_args": {"batch_size": 32}},
        "trainer": {
            "callbacks": {"class_path": "ModelCheckpoint", "init_args": {"save_last": True}}
        },
    }
    (workdir / "nac.yaml").write_text(yaml.safe_dump(content))
    return workdir


def test_fit_then_test_resume_and_adapt(lit_ssl, recipe, caplog):
    done = lit_ssl("fit", "--config=nac.yaml", "--then=validate,test", *QUICK)
    assert done.code == 0, done.err
    assert "signatures fitted to the graph erdos-renyi of 6 modules: recall" in caplog.text
    assert "test/acc5" in done.out
    checkpoint = next(recipe.rglob("last.ckpt"))
    caplog.clear()
    again = lit_ssl(
        "fit", "--config=nac.yaml", f"--ckpt_path={checkpoint}", *QUICK, "--trainer.max_epochs=2"
    )
    assert again.code == 0, again.err
    assert "signatures fitted" not in caplog.text

    few = ["--model=NACFewShot", f"--model.pretrained={checkpoint}", "--model.adapt=head+codes"]
    few += ["--data=FewShotDataModule", "--data.data=MNIST5kDataModule", "--data.ways=3"]
    few += ["--data.shots=4", "--model.lr=0.01", "--trainer.default_root_dir=few", *QUICK]
    done = lit_ssl("fit", *few)
    assert done.code == 0, done.err
    assert "NACFewShot takes net from" in caplog.text
    adapted = next((recipe / "few").rglob("*.ckpt"))
    before, after = (read_checkpoint(path)["state_dict"] for path in (checkpoint, adapted))
    same = {name for name in before if torch.equal(before[name], after.get(name, torch.empty(0)))}
    assert "net.signatures.mediator" in same
    assert "net.codes.mediator" not in same
    assert after["net.head.classifier.weight"].shape[0] == 3
    checkpoint.unlink()  # what was adapted needs it no more
    words = [f"--ckpt_path={adapted}", *[w for w in few if "data" in w], *QUICK[:2], *QUICK[5:6]]
    done = lit_ssl("test", *words)
    assert done.code == 0, done.err
    assert "test/acc1" in done.out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model.module_dropout=nestd"], "module_dropout"),
        (["--model.net.init_args.kernel.bandwidth=-1"], "bandwidth"),
        (["--model.net.init_args.graph_prior.name=erdos"], "erdos"),
        (["--model.start_bandwidth=2"], "learnable_bandwidth: false"),
    ],
)
def test_a_wrong_entry_is_one_line(lit_ssl, recipe, words, part):
    done = lit_ssl("fit", "--config=nac.yaml", *words, *QUICK)
    assert done.code == 2
    line = done.err.strip().splitlines()[-1]
    assert part in line
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model.net.graph_prior=ring-of-cliques"],
            "model.net.graph_prior: expected options of GraphPrior, as {name: ...}, got "
            "'ring-of-cliques'",
        ),
        (
            ["--model.net.kernel=soft"],
            "model.net.kernel: expected options of KernelOptions, as {bandwidth: ...}, got 'soft'",
        ),
        (["--model.net=PerceiverIo"], "Did you mean PerceiverIO?"),
    ],
)
def test_a_word_in_place_of_options_gets_their_form(lit_ssl, recipe, words, message):
    done = lit_ssl("fit", "--config=nac.yaml", *QUICK, *words)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--model=NAC", "--model.net.help"], "--model.net.help NeuralAttentiveCircuit"),
        (
            ["--model=NAC", "--model.net=PerceiverIO", "--model.net.tokenizer.help"],
            "--model.net.tokenizer.help CLASS",
        ),
    ],
)
def test_help_of_a_part_asks_for_its_class(lit_ssl, recipe, words, shown):
    done = lit_ssl("fit", *words)
    assert done.code == 2
    assert f"of which class? Write it behind, as {shown}" in done.err


def test_the_baseline_takes_the_place_of_the_circuit_by_its_name(lit_ssl, workdir):
    words = ["--model=NAC", "--model.net=PerceiverIO", "--model.net.tokenizer=PatchTokenizer"]
    done = lit_ssl("fit", *words, "--data=MNIST5kDataModule", "--print_config")
    assert done.code == 0, done.err
    net = yaml.safe_load(done.out)["model"]["init_args"]["net"]
    assert net["class_path"].endswith("PerceiverIO")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--model.net.kernel.eval_truncation=null"], ["kernel", "eval_truncation"]),
        (["--model.net.graph_prior", "null"], ["graph_prior"]),
        (["--model.init_args.net.init_args.layer_scale", "~"], ["layer_scale"]),
    ],
)
def test_a_null_reaches_an_option_of_a_part(lit_ssl, recipe, words, where):
    net = ["--model.net.kernel.eval_truncation=0.9", "--model.net.layer_scale=0.1"]
    done = lit_ssl("fit", "--config=nac.yaml", *net, *words, "--print_config")
    assert done.code == 0, done.err
    found = yaml.safe_load(done.out)["model"]["init_args"]["net"]["init_args"]
    for name in where:
        found = found[name]
    assert found is None
