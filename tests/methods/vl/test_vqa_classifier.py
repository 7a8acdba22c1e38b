"""VQA: the reference's loss, scores under half precision, and whose answers a head gives."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl import VQAClassifier
from lit_ssl.errors import InputError

CLOSE = {"rtol": 0, "atol": 1e-5}


class Step(pl.Callback):
    """Loss and gradients of one step."""

    def on_after_backward(self, trainer, pl_module):
        self.gradients = {n: p.grad.clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.loss = outputs["loss"]


@pytest.mark.parametrize("name", ["vilt_square", "vilt_rect"])
def test_a_step_has_the_loss_and_answers_of_the_reference(tasks, golden, reference_vilt, name):
    data = golden(f"vl_masking/{name}")
    answers = len(data["w.head.vqa_classifier.3.bias"])
    module = VQAClassifier(reference_vilt.backbone(data), answers, lr=0.0)
    module.vqa_head.load_state_dict(reference_vilt.head(data, "vqa_classifier"))
    batch = (reference_vilt.inputs(data), data["out.vqa_targets"])
    step = Step()
    trainer = tasks.trainer(callbacks=[step])
    trainer.fit(module, DataLoader([batch], batch_size=None))
    torch.testing.assert_close(step.loss, data["out.vqa_loss"], **CLOSE)
    error = (data["out.vqa_logits"].sigmoid() - data["out.vqa_targets"]).mean(0)
    torch.testing.assert_close(step.gradients["vqa_head.3.bias"], error, rtol=0, atol=1e-5)
    (found,) = trainer.predict(module, DataLoader([batch], batch_size=None))
    assert torch.equal(found, data["out.vqa_logits"].argmax(1))


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "16-true"])
def test_scores_are_exact_in_any_precision(tasks, precision):
    """Lightning makes them half precision; 0.3 would become 0.3008."""
    inputs, _ = tasks.batch("vqa", rows=5)
    tenths = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0])
    batch = (inputs, tenths[:, None].expand(5, 5).contiguous())
    module = tasks.module("vqa")
    trainer = tasks.trainer(precision=precision)
    (found,) = trainer.test(module, DataLoader([batch], batch_size=None), verbose=False)
    assert found["test/vqa_score"] == pytest.approx(tenths.double().mean().item(), abs=1e-7)


# Whose answers


def trained(tasks, path, **kwargs):
    module, trainer = tasks.module("vqa"), tasks.trainer()
    trainer.fit(module, datamodule=tasks.data("vqa"))
    trainer.save_checkpoint(path)
    return module


def with_answers(data, names):
    data.class_names = names
    return data


TURNED = ("yes", "no", "blue", "green", "red")


def test_a_checkpoint_of_other_answers_is_refused(tasks, tmp_path):
    trained(tasks, tmp_path / "run.ckpt")
    other = with_answers(tasks.data("vqa"), TURNED)
    for command in ("test", "predict", "fit"):
        run = getattr(tasks.trainer(max_epochs=2), command)
        with pytest.raises(InputError, match="other answers than those of the data"):
            run(tasks.module("vqa"), datamodule=other, ckpt_path=tmp_path / "run.ckpt",
                weights_only=True)  # fmt: skip
    restored = VQAClassifier.load_from_checkpoint(
        tmp_path / "run.ckpt", backbone=tasks.backbone(), weights_only=True
    )
    with pytest.raises(InputError, match="This module was trained for other answers"):
        tasks.trainer().test(restored, datamodule=other)


def test_a_head_for_other_answers_is_not_loaded(tasks, tmp_path, caplog):
    source = trained(tasks, tmp_path / "run.ckpt")
    module = tasks.module("vqa", pretrained=str(tmp_path / "run.ckpt"))
    fresh = module.vqa_head[3].weight.clone()
    data = with_answers(tasks.data("vqa"), TURNED)
    with pytest.warns(UserWarning, match="trained for other answers than the data's 5"):
        tasks.trainer().test(module, datamodule=data)
    assert torch.equal(module.vqa_head[3].weight, fresh)
    assert torch.equal(module.backbone.model.pooler.dense.weight,
                       source.backbone.model.pooler.dense.weight)  # fmt: skip

    module = tasks.module("vqa", pretrained=str(tmp_path / "run.ckpt"), num_classes=4)
    data = with_answers(tasks.data("vqa"), TURNED[:4])
    with (
        pytest.warns(UserWarning, match="trained for 5 answers than the data's 4"),
        caplog.at_level("INFO"),
    ):
        tasks.trainer().test(module, datamodule=data)
    assert "starting afresh: vqa_head" in caplog.text


def test_answers_that_a_file_does_not_say_are_warned_of(tasks, tmp_path):
    source = tasks.module("vqa")
    torch.save(
        {"state_dict": source.state_dict(), "pytorch-lightning_version": "2.6.0"},
        tmp_path / "run.ckpt",
    )
    module = tasks.module("vqa", pretrained=str(tmp_path / "run.ckpt"))
    with pytest.warns(UserWarning, match="same ones in the same order"):
        tasks.trainer().test(module, datamodule=tasks.data("vqa"))
    assert torch.equal(module.vqa_head[3].weight, source.vqa_head[3].weight)


def test_the_same_answers_are_taken_without_a_word(tasks, tmp_path, recwarn):
    trained(tasks, tmp_path / "run.ckpt")
    module = tasks.module("vqa", pretrained=str(tmp_path / "run.ckpt"))
    tasks.trainer().test(module, datamodule=tasks.data("vqa"))
    tasks.trainer().test(
        module, datamodule=tasks.data("vqa"), ckpt_path=tmp_path / "run.ckpt", weights_only=True
    )
    assert not [w for w in recwarn if "answers" in str(w.message)]
