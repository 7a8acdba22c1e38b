"""What the fine-tuned tasks have in common: training, resume, precision, weights, wrong input."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lit_ssl.errors import InputError

TASKS = ("nlvr2", "vqa", "entailment")
SCORE = {"nlvr2": "acc1", "vqa": "vqa_score", "entailment": "acc1"}


class Losses(pl.Callback):
    """The loss of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("task", TASKS)
def test_training_learns_and_counts(tasks, task):
    module, losses = tasks.module(task), Losses()
    data = tasks.data(task)
    trainer = tasks.trainer(max_epochs=25, callbacks=[losses])
    trainer.fit(module, datamodule=data)
    assert sum(losses.seen[-4:]) < 0.7 * sum(losses.seen[:4])
    logged = trainer.callback_metrics
    assert {"train/loss", f"train/{SCORE[task]}", "train/lr", "val/loss"} <= set(logged)
    assert 0 <= logged[f"val/{SCORE[task]}"] <= 1


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_all_rows_whatever_the_batches(tasks, task):
    """Five or six rows in batches of four and of all; the last batch has one or two."""
    module, found = tasks.module(task), []
    for size in (3, 5, 8):
        trainer = tasks.trainer()
        (result,) = trainer.test(module, datamodule=tasks.data(task, batch_size=size))
        found.append(result)
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)
    data = tasks.data(task, batch_size=8)
    data.setup()
    inputs, targets, *_ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        logits = module.logits(inputs)
    if task == "vqa":
        score = targets[torch.arange(5), logits.argmax(1)].mean()
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    else:
        known = targets != -1
        score = (logits.argmax(1) == targets)[known].float().mean()
        loss = F.cross_entropy(logits[known], targets[known])
    assert found[0][f"test/{SCORE[task]}"] == pytest.approx(score.item(), abs=1e-6)
    assert found[0]["test/loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tasks, task, tmp_path):
    def fit(path=None, folder=None, **options):
        torch.manual_seed(1)
        # dropout, so that the random numbers of a step count
        module = tasks.module(task, tasks.backbone(hidden_dropout_prob=0.1))
        saver = [pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
        trainer = tasks.trainer(
            max_epochs=2,
            callbacks=saver if folder else [],
            enable_checkpointing=folder is not None,
        )
        data = tasks.data(task, batch_size=3, drop_last=False, **options)
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        return module.state_dict(), trainer.global_step

    whole, steps = fit(folder=tmp_path / "run")
    assert steps == 12  # six batches an epoch, the last of one row
    for step in (2, 6, 7):
        (path,) = (tmp_path / "run").glob(f"*step={step}.ckpt")
        rest, end = fit(path, num_workers=2 if step == 2 else 0)
        assert end == steps
        assert same(whole, rest), step


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("task", TASKS)
def test_half_precision(tasks, task, precision):
    module = tasks.module(task)
    trainer = tasks.trainer(precision=precision, max_epochs=2)
    trainer.fit(module, datamodule=tasks.data(task))
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {p.dtype for p in module.parameters()} == {dtype}
    assert all(p.isfinite().all() for p in module.parameters())
    assert trainer.callback_metrics["train/loss"].dtype == torch.float32


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_gives_the_same_answers(tasks, task, tmp_path):
    module = tasks.module(task)
    trainer = tasks.trainer()
    trainer.fit(module, datamodule=tasks.data(task))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    restored = tasks.methods[task].load_from_checkpoint(
        tmp_path / "run.ckpt", backbone=tasks.backbone(), weights_only=True
    )
    inputs, _ = tasks.batch(task)
    with torch.no_grad():
        first, second = (one.eval().logits(inputs) for one in (module, restored))
    assert torch.equal(first, second)
    assert restored.hparams["lr"] == 3e-3


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_is_trained_at_the_rate_of_its_part(tasks, task):
    module = tasks.module(task, lr=1e-3, lr_mult_head=10.0)
    trainer = tasks.trainer(limit_train_batches=1, limit_val_batches=0)
    trainer.fit(module, datamodule=tasks.data(task))
    (optimizer,) = trainer.optimizers
    scales = {group["name"]: group["lr_scale"] for group in optimizer.param_groups}
    assert {name.split("_")[0]: scale for name, scale in scales.items()} == {
        "backbone": 1.0,
        "heads": 10.0,
    }
    grouped = sum(len(group["params"]) for group in optimizer.param_groups)
    assert grouped == len(list(module.parameters()))


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_another_task(tasks, task, tmp_path, capsys, caplog):
    """The backbone is taken, the head starts afresh, and both are said."""
    source = tasks.module("vqa" if task != "vqa" else "entailment")
    trainer = tasks.trainer()
    trainer.fit(source, datamodule=tasks.data("vqa" if task != "vqa" else "entailment"))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    module = tasks.module(task, pretrained=str(tmp_path / "other.ckpt"))
    head = {name: value.clone() for name, value in module.head.state_dict().items()}
    with caplog.at_level("INFO"):
        tasks.trainer().test(module, datamodule=tasks.data(task), verbose=False)
    (name,) = module.heads
    assert f"takes backbone from {tmp_path / 'other.ckpt'} (checkpoint of a run); " in caplog.text
    assert f"starting afresh: {name}" in caplog.text
    assert same(head, module.head.state_dict())
    mine, theirs = module.backbone.state_dict(), source.backbone.state_dict()
    table = "model.embeddings.token_type_embeddings.weight"
    assert torch.equal(mine.pop(table)[:2], theirs.pop(table)[:2])
    assert same(mine, theirs)


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_the_same_task_bring_the_head(tasks, task, tmp_path, caplog):
    source, trainer = tasks.module(task), tasks.trainer()
    trainer.fit(source, datamodule=tasks.data(task))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    module = tasks.module(task, pretrained=str(tmp_path / "run.ckpt"))
    with caplog.at_level("INFO"):
        tasks.trainer().test(module, datamodule=tasks.data(task), verbose=False)
    assert same(source.state_dict(), module.state_dict())
    assert f"takes backbone, {module.heads[0]} from" in caplog.text


def test_weights_of_another_vocabulary_are_refused(tasks, tmp_path):
    source, trainer = tasks.module("entailment"), tasks.trainer()
    trainer.fit(source, datamodule=tasks.data("entailment"))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    words = [f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
    other = tasks.data("nlvr2", tokenizer=[*words, *(f"word{i}" for i in range(68))])
    module = tasks.module("nlvr2", pretrained=str(tmp_path / "run.ckpt"))
    with pytest.raises(InputError, match="another vocabulary"):
        tasks.trainer().fit(module, datamodule=other)


@pytest.mark.parametrize(
    ("task", "other", "found"),
    [("nlvr2", "entailment", 3), ("entailment", "nlvr2", 2), ("vqa", "entailment", 3)],
)
def test_data_of_another_task_is_refused_before_training(tasks, task, other, found):
    with pytest.raises(InputError, match=rf"answers, but \w+ has num_classes = {found}"):
        tasks.trainer().fit(tasks.module(task), datamodule=tasks.data(other))


def wrong(task, tasks):
    """Batches, and what is said of them."""
    inputs, targets = tasks.batch(task)
    shorter = {**inputs, "input_ids": inputs["input_ids"][:2]}
    yield (inputs, targets[:2]), "got 3 inputs and 2 labels"
    yield (shorter, targets), "texts of 3 images need input_ids and attention_mask"
    yield inputs, "needs"
    if task == "vqa":
        yield (inputs, targets[:, :4]), r"each of 5 answers is worth, floats \[B, 5\], got Tensor"
        yield (inputs, targets[:, 0]), r"floats \[B, 5\]"
        yield (inputs, targets > 0.5), r"floats \[B, 5\], got Tensor\[3, 5\] of torch.bool"
        yield (inputs, targets + 0.5), r"must lie in \[0, 1\]"
        yield (inputs, targets * torch.nan), r"must lie in \[0, 1\]"
    else:
        yield (inputs, targets + 2), "got labels from 2 to 3 where num_classes is"
        yield (inputs, targets - 2), "got labels from -2 to -1"
    if task == "nlvr2":
        one = {**inputs, "images": inputs["images"][:, 0]}
        yield (one, targets), r"needs two images for each text, images \[B, 2, C, H, W\].*got \["
        three = {**inputs, "images": inputs["images"][:, [0, 1, 1]]}
        yield (three, targets), r"needs two images for each text.*\[3, 3, 3, 32, 32\]"
        none = {name: x for name, x in inputs.items() if name != "images"}
        yield (none, targets), "needs two images for each text.*attention_mask"
        yield (inputs, targets, torch.zeros(3, 2)), "NLVR2Accuracy needs the statement of each row"
    else:
        two = {**inputs, "images": inputs["images"][:, None].expand(-1, 2, -1, -1, -1)}
        yield (two, targets), r"ViLT needs images \[B, 3, H, W\]"


@pytest.mark.parametrize("task", TASKS)
def test_wrong_batches_are_one_clear_error(tasks, task):
    for batch, message in wrong(task, tasks):
        module = tasks.module(task)
        with pytest.raises(InputError, match=message):
            tasks.trainer().test(module, DataLoader([batch], batch_size=None), verbose=False)


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_without_known_labels_leaves_the_weights_finite(tasks, task):
    inputs, targets = tasks.batch(task)
    targets = targets * 0 if task == "vqa" else targets * 0 - 1
    loader = DataLoader([(inputs, targets)], batch_size=None)
    module, losses = tasks.module(task), Losses()
    trainer = tasks.trainer(callbacks=[losses])
    trainer.fit(module, loader, loader)
    assert all(p.isfinite().all() for p in module.parameters())
    if task == "vqa":  # without a right answer every answer is wrong
        assert losses.seen[0] > 0
        assert trainer.callback_metrics["val/vqa_score"] == 0
    else:
        assert losses.seen == [0.0]
        assert trainer.callback_metrics["val/acc1"].isnan()


@pytest.mark.parametrize("task", TASKS)
def test_predictions(tasks, task):
    module, data = tasks.module(task), tasks.data(task)
    parts = tasks.trainer().predict(module, datamodule=data)
    found = torch.cat(parts)
    rows = 8 if task == "nlvr2" else 5
    if task == "vqa":
        assert found.dtype == torch.int64
        assert found.shape == (rows,)
        assert 0 <= found.min() <= found.max() < 5
    else:
        assert found.shape == (rows, 2 if task == "nlvr2" else 3)
        torch.testing.assert_close(found.sum(1), torch.ones(rows))


def test_options_outside_their_ranges(tasks):
    with pytest.raises(InputError, match="needs a finite lr >= 0, not nan"):
        tasks.module("nlvr2", lr=float("nan"))
    with pytest.raises(InputError, match="at least 2 answers, not num_classes=1"):
        tasks.module("vqa", num_classes=1)
    with pytest.raises(InputError, match="needs num_classes, the number of answers"):
        tasks.module("vqa", num_classes=None)
