"""What evaluators keep of a pass: rows of batches, and of processes that have none."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lit_ssl.callbacks import KNNEvaluator, LowShotEvaluator, SoftNNEvaluator, extract_features
from lit_ssl.callbacks.evaluators.features import RefusedPassError, _KeptRows, collect_features


@pytest.mark.parametrize("expected", [0, 3, 7, 50])
def test_rows_of_batches_lie_in_one_tensor_however_many_were_expected(expected):
    batches = [(torch.randn(n, 4), torch.arange(n)) for n in (3, 1, 3)]
    kept = _KeptRows(expected)
    for features, labels in batches:
        kept.add(features.bfloat16(), labels)
    features, labels = kept.rows()
    assert torch.equal(features, torch.cat([f for f, _ in batches]).bfloat16().float())
    assert torch.equal(labels, torch.cat([n for _, n in batches]))
    assert features.dtype == torch.float32


def test_a_loader_that_does_not_know_its_length_comes_whole(toys, make_trainer):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(toys.ToyImages(41, seed=0))

    class Streamed(toys.ToyData):
        def bank_dataloader(self):
            return DataLoader(Stream(), batch_size=7)

    found = []

    class Look(pl.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            found.append(extract_features(trainer, pl_module, "bank"))

    module = toys.ToyModule()
    for data in (Streamed(), toys.ToyData()):
        make_trainer(callbacks=[Look()]).validate(module, data, verbose=False)
    assert torch.equal(found[0].features, found[1].features)
    assert found[0].labels.tolist() == [n % 4 for n in range(41)]


class Write(pl.Callback):
    """Values of a validation, and what becomes of a pass that the first process refuses."""

    def on_validation_end(self, trainer, pl_module):
        def refuse(images):
            raise RefusedPassError("too large")

        with pytest.raises(RefusedPassError, match=r"too large|another process"):
            collect_features(trainer, pl_module, "bank", refuse)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save(values, f"{trainer.world_size}_{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_a_process_without_images_takes_part(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = toys.ToyData(train=2, val=7)
    torch.manual_seed(0)
    module = toys.ToyModule()
    for processes in (1, 3):
        evaluators = [
            KNNEvaluator(k=1), SoftNNEvaluator(feature_method="doubled"), LowShotEvaluator((1,)),
        ]  # fmt: skip
        trainer = toys.make_trainer(
            tmp_path, devices=processes, callbacks=[*evaluators, Write()],
            strategy="ddp_fork" if processes > 1 else "auto",
        )  # fmt: skip
        trainer.validate(module, data, verbose=False)
    alone = torch.load("1_0.pt")
    assert {"val/knn_acc1", "val/soft_nn_acc1", "val/lowshot_1_acc1"} <= set(alone)
    for rank in range(3):
        assert torch.load(f"3_{rank}.pt") == pytest.approx(alone)
