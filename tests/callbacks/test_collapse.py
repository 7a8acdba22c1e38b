from __future__ import annotations

import math
import warnings

import lightning.pytorch as pl
import pytest
import torch

from lit_ssl.callbacks import CollapseMonitor
from lit_ssl.metrics import feature_std, rankme


class Scripted(pl.LightningModule):
    """Emits the outputs it is given, one per step."""

    def __init__(self, outputs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.script = outputs

    def training_step(self, batch, batch_idx):
        return {"loss": self.weight.sum(), **self.script[self.trainer.global_step]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(make_trainer, monitor, outputs):
    trainer = make_trainer(callbacks=[monitor], max_epochs=1)
    loader = torch.utils.data.DataLoader(torch.zeros(len(outputs), 1))
    trainer.fit(Scripted(outputs), loader)
    return {k: v.item() for k, v in trainer.logged_metrics.items()}


def one_hot(rows, classes):
    return torch.nn.functional.one_hot(torch.tensor(rows), classes).float()


def test_values_of_a_window_are_those_of_all_its_samples(make_trainer):
    generator = torch.Generator().manual_seed(0)
    steps = [
        {
            "features": torch.randn(6, 3, generator=generator),
            "targets": torch.randn(6, 5, generator=generator).softmax(dim=1),
        }
        for _ in range(4)
    ]
    values = run(make_trainer, CollapseMonitor(every_n_steps=2), steps)
    features = torch.cat([s["features"] for s in steps[2:]])  # the second window
    targets = torch.cat([s["targets"] for s in steps[2:]])
    mean = targets.mean(0)
    assert values["monitor/used_prototypes"] == len(targets.argmax(1).unique())
    assert values["monitor/assignment_entropy"] == pytest.approx(-(mean * mean.log()).sum().item())
    assert values["monitor/rankme"] == pytest.approx(rankme(features).item())
    assert values["monitor/feature_std"] == pytest.approx(feature_std(features).item())


def test_only_the_latest_features_of_a_window_are_kept(make_trainer):
    old, new = torch.zeros(4, 2), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    monitor = CollapseMonitor(every_n_steps=3, max_features=3)
    values = run(make_trainer, monitor, [{"features": f} for f in (old, old, new)])
    assert values["monitor/rankme"] == pytest.approx(rankme(new).item())
    assert "monitor/used_prototypes" not in values


def test_a_window_counts_optimiser_steps_not_batches(toys, make_trainer):
    windows = []

    class Noted(CollapseMonitor):
        def _measure(self):
            windows.append(len(self._features))
            return super()._measure()

    make_trainer(callbacks=[Noted(every_n_steps=1)], max_epochs=1, accumulate_grad_batches=2).fit(
        toys.ToyModule(), toys.ToyData(train=32)
    )
    assert windows == [2, 2]


def test_each_incident_warns_once_with_advice(make_trainer):
    bad = {"targets": one_hot([0] * 20, 40)}
    good = {"targets": one_hot(range(20), 40)}
    monitor = CollapseMonitor(every_n_steps=1, grace_steps=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(make_trainer, monitor, [bad, bad, bad, good, bad])
    texts = [str(w.message) for w in caught if "possible collapse" in str(w.message)]
    assert len(texts) == 2
    assert "step 2: monitor/used_prototypes is 1, below 2" in texts[0]
    assert "best possible in this window: 20" in texts[0]
    assert "raise the weight of mean-entropy maximisation" in texts[0]
    assert "step 5" in texts[1]


def test_collapsed_features_warn_and_nan_counts_as_bad(make_trainer):
    same = {"features": torch.ones(50, 40)}
    monitor = CollapseMonitor(every_n_steps=1, grace_steps=0)
    with pytest.warns(UserWarning, match="monitor/feature_std is .*all images point the same way"):
        run(make_trainer, monitor, [same])
    monitor = CollapseMonitor(every_n_steps=1, grace_steps=0)
    with pytest.warns(UserWarning, match="monitor/feature_std is NaN"):
        run(make_trainer, monitor, [{"features": torch.full((50, 40), math.nan)}])


def test_outputs_without_features_or_targets_are_fine(make_trainer):
    values = run(make_trainer, CollapseMonitor(every_n_steps=1), [{}, {}])
    assert not any(name.startswith("monitor/") for name in values)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="max_features >= 2"):
        CollapseMonitor(max_features=1)
