"""Pictures of the circuit: when, where, of what, and that the training does not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_ssl.callbacks import CircuitGraph
from lit_ssl.callbacks.pictures import circuit_graph
from lit_ssl.callbacks.pictures.circuit_drawing import draw_activity, draw_graph
from lit_ssl.callbacks.pictures.circuit_layout import circuit_layout
from lit_ssl.imagenet_x.plot import figure_pixels
from lit_ssl.methods import NAC
from lit_ssl.models import GraphPrior, KernelOptions, NeuralAttentiveCircuit, PatchTokenizer

pytest.importorskip("matplotlib")


def make_module(graph=True, modules=7, **kwargs):
    torch.manual_seed(0)
    net = NeuralAttentiveCircuit(
        PatchTokenizer(8, 2, 1, 8, 4), state_dim=16, num_modules=modules, num_output_modules=3,
        depth=2, num_heads=2, head_dim=8, signature_dim=8, layer_scale=None, graph=graph, **kwargs,
    )  # fmt: skip
    return NAC(net, num_classes=4, lr=3e-3, warmup_epochs=0)


def drawn(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_pictures_of_due_epochs_and_of_the_end(toys, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[CircuitGraph(every_n_epochs=2)], max_epochs=3)
    trainer.fit(make_module(), toys.ToyData())
    assert drawn(tmp_path) == [
        f"circuit/epoch_{e:04d}_{kind}.png" for e in (1, 2) for kind in ("activity", "graph")
    ]
    for path in tmp_path.rglob("*.png"):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape[0] > 400
        assert pixels.std() > 10


@pytest.mark.parametrize("limit", [0, 2])
def test_epochs_without_validation_have_a_graph_only(toys, make_trainer, tmp_path, limit):
    trainer = make_trainer(
        callbacks=[CircuitGraph(every_n_epochs=1)], max_epochs=2, limit_val_batches=limit,
        check_val_every_n_epoch=2,
    )  # fmt: skip
    trainer.fit(make_module(), toys.ToyData())
    activity = ["circuit/epoch_0001_activity.png"] if limit else []
    assert drawn(tmp_path) == [
        "circuit/epoch_0000_graph.png",
        *activity,
        "circuit/epoch_0001_graph.png",
    ]


def test_an_end_by_early_stopping_is_drawn(toys, make_trainer, tmp_path):
    stop = EarlyStopping("val/acc1", mode="max", stopping_threshold=-1.0)
    trainer = make_trainer(callbacks=[CircuitGraph(every_n_epochs=50), stop], max_epochs=9)
    trainer.fit(make_module(), toys.ToyData())
    assert "circuit/epoch_0000_graph.png" in drawn(tmp_path)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_of_a_trained_circuit_draws_it(toys, make_trainer, tmp_path, command):
    trainer = make_trainer(callbacks=[CircuitGraph()])
    getattr(trainer, command)(make_module(), toys.ToyData(), verbose=False)
    assert drawn(tmp_path) == [f"circuit/{command}_{kind}.png" for kind in ("activity", "graph")]


def test_training_does_not_notice(toys, make_trainer):
    weights = []
    for callbacks in ([], [CircuitGraph(every_n_epochs=1)]):
        module = make_module(drop_path=0.3, kernel=KernelOptions(eval_mode="sample"))
        torch.manual_seed(1)
        make_trainer(callbacks=callbacks, max_epochs=2).fit(module, toys.ToyData())
        weights.append({name: value.clone() for name, value in module.state_dict().items()})
        assert module.training
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_activity_is_the_mean_norm_of_each_class(toys, make_trainer, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        circuit_graph, "draw_activity",
        lambda means, counts, layout, *rest: seen.update(means=means, counts=counts)
        or draw_activity(means, counts, layout, *rest),
    )  # fmt: skip
    data, module = toys.ToyData(val=13), make_module()
    data.val.labels[data.val.labels == 2] = -1  # a class without samples, labels not known
    make_trainer(callbacks=[CircuitGraph()]).validate(module, data, verbose=False)
    with torch.no_grad():
        norms = module.eval().net.module_activity(data.normalise(data.val.images))
    assert seen["counts"].tolist() == [4, 3, 0, 3]  # of 13; the last batch has three rows
    for label in (0, 1, 3):
        expected = norms[data.val.labels == label].mean(0).numpy()
        np.testing.assert_allclose(seen["means"][label], expected, rtol=1e-5)


def test_links_are_those_within_the_truncation(toys, make_trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(
        circuit_graph, "draw_graph",
        lambda links, linked, *rest: seen.append(linked) or draw_graph(links, linked, *rest),
    )  # fmt: skip
    prior = GraphPrior("tree")
    module = make_module(graph_prior=prior, kernel=KernelOptions(truncation=0.7))
    module.net.init_signatures()
    make_trainer(callbacks=[CircuitGraph()]).validate(module, toys.ToyData(), verbose=False)
    assert (seen[0] & ~np.eye(7, dtype=bool) == prior.adjacency(7).numpy()).all()
    callback = CircuitGraph(max_distance=2.0)
    make_trainer(callbacks=[callback]).validate(module, toys.ToyData(), verbose=False)
    assert seen[1].all()


def test_loggers_show_both_pictures(toys, make_trainer, tmp_path):
    board = TensorBoardLogger(tmp_path, name="run")
    trainer = make_trainer(callbacks=[CircuitGraph()], max_epochs=1, logger=board)
    trainer.fit(make_module(), toys.ToyData())
    events = EventAccumulator(board.log_dir).Reload()
    assert {"circuit/graph", "circuit/activity"} <= set(events.Tags()["images"])
    assert (tmp_path / "run/version_0/circuit/epoch_0000_graph.png").exists()


def test_debugging_runs_draw_nothing(toys, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[CircuitGraph()], fast_dev_run=True)
    trainer.fit(make_module(), toys.ToyData())
    assert drawn(tmp_path) == []


def test_weights_that_are_not_finite_are_not_drawn(toys, make_trainer, tmp_path):
    module = make_module()
    with torch.no_grad():
        module.net.signatures["mediator"].fill_(torch.nan)
    with pytest.warns(UserWarning, match="draws nothing: link probabilities are not finite"):
        make_trainer(callbacks=[CircuitGraph()]).validate(module, toys.ToyData(), verbose=False)
    assert drawn(tmp_path) == []


def test_mistakes(toys, make_trainer):
    with pytest.raises(ValueError, match="every_n_epochs >= 1, got 0"):
        CircuitGraph(every_n_epochs=0)
    with pytest.raises(ValueError, match=r"max_distance in \(0, 2\], got 3"):
        CircuitGraph(max_distance=3)
    trainer = make_trainer(callbacks=[CircuitGraph()])
    with pytest.raises(AttributeError, match=r"needs a module whose `net` is a Neural.* ToyModule"):
        trainer.fit(toys.ToyModule(), toys.ToyData())
    with pytest.raises(ValueError, match="needs a network with a graph"):
        make_trainer(callbacks=[CircuitGraph()]).fit(make_module(graph=False), toys.ToyData())


def noisy_blocks(sizes, seed=0):
    """Link probabilities of clusters whose nodes are mixed up, and the clusters."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    links = np.where(cluster[:, None] == cluster, 0.8, 0.1) > rng.random((len(cluster),) * 2)
    links = np.triu(links, 1) | np.triu(links, 1).T
    return np.where(links, 0.8, 0.2), links, cluster


def test_layout_puts_clusters_together_the_largest_first():
    p, links, cluster = noisy_blocks([31, 17, 9])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    layout = circuit_layout(p, links)
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert sorted(layout.order.tolist()) == list(range(57))
    assert cluster[layout.order].tolist() == [0] * 31 + [1] * 17 + [2] * 9
    assert layout.degree.tolist() == (links.sum(1)).tolist()
    assert np.abs(layout.position).max() <= 1.0
    apart = np.linalg.norm(layout.position[:, None] - layout.position, axis=2)
    inside = cluster[:, None] == cluster
    assert apart[inside].mean() < 0.7 * apart[~inside].mean()
    again = circuit_layout(p, links)
    assert all(np.array_equal(one, other) for one, other in zip(layout, again, strict=True))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("linked", [False, True])
def test_graphs_without_links_and_complete_ones_can_be_drawn(n, linked):
    links = np.full((n, n), linked)
    p = np.where(links, 1.0, 0.0)
    layout = circuit_layout(p, links)
    assert np.isfinite(layout.position).all()
    names = np.arange(n)
    for figure in (
        draw_graph(p, links, layout, names),
        draw_activity(np.zeros((3, n)), np.zeros(3), layout, names),
        draw_activity(np.ones((1, n)), np.ones(1), layout, names, ["only"]),
    ):
        assert figure_pixels(figure).std() > 1


def test_many_modules_and_classes_can_be_drawn():
    p, links, _ = noisy_blocks([40] * 12 + [21])
    layout = circuit_layout(p, links)
    figure = draw_graph(p, links, layout, np.arange(501))
    assert "drawn: the 3,000 most probable" in figure.axes[2].get_title(loc="left")
    activity = np.random.default_rng(0).random((200, 501))
    pixels = figure_pixels(draw_activity(activity, np.ones(200), layout, np.arange(501)))
    assert pixels.shape[1] > 2 * 501
