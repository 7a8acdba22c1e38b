"""Accuracies of a circuit on one set and on several, over the classes that each may answer."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lit_ssl.contracts.evaluation_sets import EvaluationSet
from lit_ssl.errors import InputError
from lit_ssl.methods.nac.nac import NAC
from lit_ssl.models import CircuitOutput


class Echo(nn.Module):
    """Inputs are the scores."""

    embed_dim, num_modules, graph_prior, has_graph, depth = 4, 2, None, False, 1

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(1, 1)
        self.signatures = nn.ParameterDict()

    def init_signatures(self):
        return None

    def forward(self, inputs, keep=None):
        logits = inputs.flatten(1)
        return CircuitOutput(logits, logits[:, :4], logits[:, None])


class Data(pl.LightningDataModule):
    """Two sets for validation and test: all classes, and some of them."""

    def __init__(self, tiny, sets, loaders):
        super().__init__()
        self.tiny, self.sets, self.loaders = tiny, sets, loaders

    def evaluation_sets(self, split):
        return self.sets

    def val_dataloader(self):
        return [self.tiny.loader(batches) for batches in self.loaders]

    test_dataloader = val_dataloader


def scores(count, classes, among=None, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    among = torch.arange(classes) if among is None else torch.tensor(among)
    made = []
    for start in range(0, count, size):
        n = min(size, count - start)
        labels = among[torch.randint(len(among), (n,), generator=generator)]
        made.append((torch.randn(n, classes, generator=generator), labels))
    return made


def evaluate(tiny, module, data, command="validate"):
    trainer = tiny.trainer()
    getattr(trainer, command)(module, datamodule=data, verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def right(batches, classes, k):
    """Share of labels among the k best of the allowed classes, by hand."""
    hits = total = 0
    for logits, labels in batches:
        best = torch.tensor(classes)[logits[:, classes].topk(k).indices]
        known = labels != -1
        hits += int(((best == labels[:, None]).any(1) & known).sum())
        total += int(known.sum())
    return hits / total


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_second_set_answers_among_its_62_classes(tiny, command):
    classes = tuple(range(3, 189, 3))
    assert len(classes) == 62
    loaders = [scores(65, 200), scores(33, 200, classes, seed=1)]  # last batches of one
    loaders[0][0][1][:5] = -1
    module = NAC(Echo(200), 200)
    data = Data(tiny, [EvaluationSet(), EvaluationSet("r", classes)], loaders)
    found = evaluate(tiny, module, data, command)
    split = {"validate": "val", "test": "test"}[command]
    everything = list(range(200))
    for k in (1, 5):
        assert found[f"{split}/acc{k}"] == pytest.approx(right(loaders[0], everything, k))
        assert found[f"{split}/r_acc{k}"] == pytest.approx(right(loaders[1], list(classes), k))
    assert f"{split}/r_loss" not in found


def test_chance_of_62_columns_is_1_in_62(tiny):
    classes = tuple(range(0, 186, 3))
    data = Data(tiny, [EvaluationSet("r", classes)], [scores(20_000, 200, classes, size=5000)])
    found = evaluate(tiny, NAC(Echo(200), 200), data)
    assert found["val/r_acc1"] == pytest.approx(1 / 62, abs=4 * (1 / 62 / 20_000) ** 0.5)
    assert found["val/r_acc5"] == pytest.approx(5 / 62, abs=4 * (5 / 62 / 20_000) ** 0.5)


def test_the_loss_is_a_mean_over_known_labels(tiny):
    batches = scores(33, 7)
    batches[0][1][:20] = -1
    found = evaluate(
        tiny, NAC(Echo(7), 7, label_smoothing=0.0), Data(tiny, [EvaluationSet()], [batches])
    )
    logits, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    expected = nn.functional.cross_entropy(logits, labels, ignore_index=-1)
    assert found["val/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_top_5_is_left_out_where_it_is_certain(tiny):
    sets = [EvaluationSet(), EvaluationSet("few", (0, 2, 3))]
    data = Data(tiny, sets, [scores(9, 8), scores(9, 8, (0, 2, 3))])
    found = evaluate(tiny, NAC(Echo(8), 8), data)
    assert "val/acc5" in found
    assert "val/few_acc1" in found
    assert "val/few_acc5" not in found
    assert "val/acc5" not in evaluate(
        tiny, NAC(Echo(5), 5), Data(tiny, [EvaluationSet()], [scores(9, 5)])
    )


def test_an_evaluation_is_not_added_to_the_last_one(tiny):
    module = NAC(Echo(6), 6)
    first, second = scores(20, 6), scores(20, 6, seed=5)
    evaluate(tiny, module, Data(tiny, [EvaluationSet()], [first]))
    found = evaluate(tiny, module, Data(tiny, [EvaluationSet()], [second]))
    assert found["val/acc1"] == pytest.approx(right(second, list(range(6)), 1))


def test_no_known_label_is_no_accuracy_of_0(tiny):
    batches = [(torch.randn(3, 6), torch.full((3,), -1))]
    found = evaluate(tiny, NAC(Echo(6), 6), Data(tiny, [EvaluationSet()], [batches]))
    assert torch.tensor(found["val/acc1"]).isnan()


def test_labels_that_are_positions_in_the_list_of_classes_are_refused(tiny):
    data = Data(tiny, [EvaluationSet("r", (4, 5, 6))], [scores(9, 8, (0, 1, 2))])
    with pytest.raises(InputError, match="which is none of its 3 classes"):
        evaluate(tiny, NAC(Echo(8), 8), data)


def test_every_loader_has_a_name(tiny):
    data = Data(tiny, [EvaluationSet()], [scores(4, 3), scores(4, 3)])
    with pytest.raises(InputError, match="NAC got 2 loaders to evaluate on, and names of 1 sets"):
        evaluate(tiny, NAC(Echo(3), 3), data)
    data = Data(tiny, [EvaluationSet("r", (1, 9))], [scores(4, 3)])
    with pytest.raises(InputError, match=r"must lie in \[0, 3\)"):
        evaluate(tiny, NAC(Echo(3), 3), data)


def test_predictions_are_probabilities(tiny):
    module = NAC(Echo(3), 3)
    rows = tiny.trainer().predict(module, tiny.loader(scores(5, 3)))
    assert rows[0].sum(dim=1) == pytest.approx(torch.ones(5))
