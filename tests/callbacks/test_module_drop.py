"""The sweep over numbers of modules: what is measured, what is written, and when it is void."""

from __future__ import annotations

import csv
import json

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from lit_ssl.callbacks import ModuleDropSweep
from lit_ssl.contracts.evaluation_sets import EvaluationSet
from lit_ssl.errors import InputError
from lit_ssl.methods import NAC
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer, PerceiverIO


def circuit(kind=NeuralAttentiveCircuit, **kwargs):
    arguments = {"num_output_modules": 3, "signature_dim": 8, "code_dim": 16}
    arguments = {} if kind is PerceiverIO else arguments
    sizes = {"state_dim": 16, "num_modules": 7, "depth": 2, "num_heads": 2, "head_dim": 8}
    return kind(PatchTokenizer(8, 4, 1, 8, 4), 4, layer_scale=None, **sizes, **arguments, **kwargs)


def batches(count=3, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        images = torch.randn(size, 1, 8, 8, generator=generator)
        made.append((images, torch.randint(4, (size,), generator=generator)))
    made[-1] = tuple(part[:1] for part in made[-1])  # a last batch of one
    made[0][1][0] = -1
    return made


class Data(pl.LightningDataModule):
    """A set, and another one of two classes; batches of training images for a calibration."""

    num_classes = 4

    def __init__(self, second=False):
        super().__init__()
        self.loaders = [batches(), batches(2, seed=1)][: 2 if second else 1]
        if second:
            for _, labels in self.loaders[1]:
                labels.copy_(1 + 2 * (labels % 2))

    def evaluation_sets(self, split):
        return [EvaluationSet(), EvaluationSet("r", (1, 3))][: len(self.loaders)]

    def test_dataloader(self):
        return [DataLoader(part, batch_size=None) for part in self.loaders]

    val_dataloader = test_dataloader

    def bank_dataloader(self):
        return DataLoader(batches(4, seed=2), batch_size=None)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Runs a test with the callback; returns the content of its JSON file and the Trainer."""
    monkeypatch.chdir(tmp_path)

    def run(net, data=None, command="test", module=None, **kwargs):
        trainer_kwargs = kwargs.pop("trainer", {})
        options = {"min_runs": 1, "seconds": 0.0, "batch_sizes": (1, 3)}
        callback = ModuleDropSweep(**{**options, **kwargs})
        trainer = pl.Trainer(
            callbacks=[callback], accelerator="cpu", enable_progress_bar=False,
            **{"logger": False, **trainer_kwargs},
        )  # fmt: skip
        getattr(trainer, command)(module or NAC(net, 4), datamodule=data or Data(), verbose=False)
        path = tmp_path / "module_drop.json"
        return json.loads(path.read_text()) if path.is_file() else None, trainer

    return run


def accuracy(answer, loader):
    hits = total = 0
    with torch.no_grad():
        for inputs, labels in loader:
            hits += int((answer(inputs).argmax(1) == labels)[labels >= 0].sum())
            total += int((labels >= 0).sum())
    return hits / total


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("wiring", ["from_input", "persistent"])
def test_accuracies_are_those_of_the_kept_modules(sweep, wiring, command):
    net, data = circuit(wiring=wiring).eval(), Data(second=True)
    found, trainer = sweep(net, data, command, levels=(0.5, 0.1), method="in_strength")
    order = net.rank_modules("in_strength").tolist()
    assert found["kept_first"] == order
    assert [row["modules"] for row in found["levels"]] == [7, 4, 1]
    split = {"validate": "val", "test": "test"}[command]
    for row in found["levels"]:
        keep = order[: row["modules"]]
        expected = accuracy(lambda x, keep=keep: net(x, keep=keep).logits, data.loaders[0])
        assert row["acc1"] == pytest.approx(expected)
        among = accuracy(
            lambda x, keep=keep: net(x, keep=keep).logits[:, [1, 3]],
            [(x, (y - 1) // 2) for x, y in data.loaders[1]],
        )
        assert row["r_acc1"] == pytest.approx(among)
        assert trainer.callback_metrics[f"{split}/modules_{row['modules']}_acc1"] == pytest.approx(
            row["acc1"]
        )


def test_times_and_speed_ups_of_both_batch_sizes(sweep, tmp_path, capsys):
    found, _ = sweep(circuit(), counts=(2,))
    whole, small = found["levels"]
    for size in (1, 3):
        for kind in ("circuit", "network"):
            assert whole[f"{kind}_ms_b{size}"] > 0
            assert whole[f"{kind}_speedup_b{size}"] == 1
            expected = whole[f"{kind}_ms_b{size}"] / small[f"{kind}_ms_b{size}"]
            assert small[f"{kind}_speedup_b{size}"] == pytest.approx(expected)
    with (tmp_path / "module_drop.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["modules"] for row in rows] == ["7", "2"]
    assert float(rows[1]["acc1"]) == pytest.approx(small["acc1"])
    assert (tmp_path / "module_drop.png").read_bytes()[1:4] == b"PNG"
    text = capsys.readouterr().out
    assert "Circuit with fewer modules" in text
    assert "modules ranked by eigenvector" in text
    assert found["threads"] == torch.get_num_threads()


def test_the_network_is_as_it_was(sweep):
    net = circuit()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sweep(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert isinstance(net.tokenizer, PatchTokenizer)
    assert net.num_modules == 7
    assert not net.is_folded


def test_void_where_mediators_are_by_passed(sweep, capsys):
    net = circuit(wiring="persistent")
    with torch.no_grad():  # the read-out learns nothing from mediators that say nothing
        for propagator in net.propagators:
            propagator.attention.out.weight.zero_()
            propagator.ffn.fc2.weight.zero_()
    found, _ = sweep(net)
    gate = found["gate"]
    assert gate["network"] == "no mediator"
    expected = accuracy(lambda x: net.eval()(x, keep=[]).logits, Data().loaders[0])
    assert gate["acc1"] == pytest.approx(expected)
    assert gate["is_void"] == (found["levels"][0]["acc1"] - gate["acc1"] < 0.05)
    assert ("VOID" in capsys.readouterr().out) == gate["is_void"]


def test_the_gate_of_from_input_is_one_module_drawn_by_the_seed(sweep):
    net = circuit().eval()
    one, _ = sweep(net, seed=3)
    number = int(torch.randint(7, (), generator=torch.Generator().manual_seed(3)))
    assert one["gate"]["network"] == f"mediator {number} alone, drawn at random"
    expected = accuracy(lambda x: net(x, keep=[number]).logits, Data().loaders[0])
    assert one["gate"]["acc1"] == pytest.approx(expected)
    assert one["gate"]["gap"] == pytest.approx(one["levels"][0]["acc1"] - expected)


@pytest.mark.parametrize("method", ["taylor", "loo"])
def test_a_ranking_by_loss_looks_at_training_images(sweep, method):
    net = circuit().eval()
    found, _ = sweep(net, method=method, calibration_batches=2)
    assert found["kept_first"] == net.rank_modules(method, batches(4, seed=2)[:2]).tolist()


def test_a_perceiver_io_is_swept_by_an_order_that_needs_no_graph(sweep):
    found, _ = sweep(circuit(PerceiverIO), method="nested")
    assert found["kept_first"] == list(range(7))
    with pytest.raises(InputError, match="without a graph by eigenvector"):
        sweep(circuit(PerceiverIO), method="eigenvector")
    with pytest.raises(InputError, match="no graph to rank its modules by"):
        sweep(circuit(PerceiverIO))


def test_loggers_show_the_curve_and_a_debugging_run_leaves_nothing(sweep, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "tb")
    sweep(circuit(), trainer={"logger": logger})
    assert (tmp_path / logger.log_dir / "module_drop.csv").is_file()
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["images"] == ["module_drop"]
    found, _ = sweep(circuit(), trainer={"fast_dev_run": True})
    assert found is None


@pytest.mark.parametrize(
    ("training", "method"), [("sandwich", "nested"), ("random", "eigenvector")]
)
def test_without_a_method_the_training_tells_it(sweep, training, method):
    net = circuit()
    found, _ = sweep(net, module=NAC(net, 4, module_dropout=training), plot=False)
    assert found["method"] == method
    assert found["kept_first"] == net.rank_modules(method).tolist()


def test_bf16_and_no_plot(sweep, tmp_path):
    found, _ = sweep(circuit(), plot=False, trainer={"precision": "bf16-mixed"})
    assert found["precision"] == "bf16-mixed"
    assert not (tmp_path / "module_drop.png").exists()


def test_nothing_happens_in_a_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = NAC(circuit(), 4, warmup_epochs=0)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, callbacks=[ModuleDropSweep()],
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches(), batch_size=None), Data().val_dataloader()[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"levels": (0.5, 1.5)}, "levels"),
        ({"levels": ()}, "levels"),
        ({"counts": (0,)}, "counts"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"method": "eigenvektor"}, "Did you mean eigenvector"),
    ],
)
def test_wrong_options(kwargs, match):
    with pytest.raises(InputError, match=match):
        ModuleDropSweep(**kwargs)


def test_wrong_modules_and_counts(sweep):
    with pytest.raises(InputError, match="at most the 7 modules"):
        sweep(circuit(), counts=(8,))

    class Other(pl.LightningModule):
        def test_step(self, batch, batch_idx):
            pass

    with pytest.raises(InputError, match="needs a module with a circuit as net"):
        sweep(None, module=Other())
