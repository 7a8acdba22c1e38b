"""NLVR2: the reference's loss, left and right, the second image's weights, consistency."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl import NLVR2Classifier
from lit_ssl.errors import InputError
from lit_ssl.models import CoAttentionBackbone

TABLE = "model.embeddings.token_type_embeddings.weight"
CLOSE = {"rtol": 0, "atol": 1e-5}


class Step(pl.Callback):
    """Loss and gradients of one step."""

    def on_after_backward(self, trainer, pl_module):
        self.gradients = {n: p.grad.clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.loss = outputs["loss"]


@pytest.mark.parametrize("name", ["vilt_square", "vilt_rect"])
def test_a_step_has_the_loss_and_gradients_of_the_reference(tasks, golden, reference_vilt, name):
    data = golden(f"vl_masking/{name}")
    module = NLVR2Classifier(reference_vilt.backbone(data), lr=0.0)
    module.nlvr2_head.load_state_dict(reference_vilt.head(data, "nlvr2_classifier"))
    inputs = reference_vilt.inputs(data)
    for key, first, second in (
        ("images", inputs["images"], data["in.image_1"].float()),
        ("pixel_mask", inputs["pixel_mask"], inputs["pixel_mask"]),
    ):
        inputs[key] = torch.stack([first, second], dim=1)
    batch = (inputs, data["in.nlvr2_answers"].long())
    step = Step()
    trainer = tasks.trainer(callbacks=[step])
    trainer.fit(module, DataLoader([batch], batch_size=None))
    torch.testing.assert_close(step.loss, data["out.nlvr2_loss"], **CLOSE)
    reference_vilt.check_gradients(data, "nlvr2", step.gradients)
    with torch.no_grad():
        logits = module.logits(inputs)
    torch.testing.assert_close(logits, data["out.nlvr2_logits"], **CLOSE)
    (found,) = trainer.predict(module, DataLoader([batch], batch_size=None))
    torch.testing.assert_close(found, data["out.nlvr2_logits"].softmax(1), **CLOSE)


def two_streams(num_modalities=3):
    text = {
        "model_type": "bert", "vocab_size": 73, "hidden_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 24,
    }  # fmt: skip
    image = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return CoAttentionBackbone(
        "vit_tiny_patch16_224", text, image, hidden_size=24, num_layers=1, num_heads=3,
        num_modalities=num_modalities,
    )  # fmt: skip


def test_heads_have_the_widths_of_the_papers(tasks):
    """Twice the pooled vector in, twice the token's width inside, of one and of two streams."""
    for backbone, widths in ((tasks.backbone(), (32, 32, 2)), (two_streams(), (96, 48, 2))):
        first, _, _, last = tasks.module("nlvr2", backbone).nlvr2_head
        assert (first.in_features, first.out_features, last.out_features) == widths
    for task, answers in (("vqa", 5), ("entailment", 3)):
        for backbone, widths in ((tasks.backbone(), (16, 32)), (two_streams(), (48, 48))):
            first, _, _, last = tasks.module(task, backbone).head
            assert (first.in_features, first.out_features) == widths
            assert last.out_features == answers


def test_two_streams_train(tasks):
    module = tasks.module("nlvr2", two_streams(), lr_mult_cross_modal=5.0)
    before = {name: p.clone() for name, p in module.named_parameters()}
    trainer = tasks.trainer()
    trainer.fit(module, datamodule=tasks.data("nlvr2"))
    assert 0 <= trainer.callback_metrics["val/acc1"] <= 1
    groups = trainer.optimizers[0].param_groups
    assert {group["name"]: group["lr_scale"] for group in groups} == {
        f"{part}_{kind}": 5.0 if part == "cross_modal" else 1.0
        for part in ("backbone", "cross_modal", "heads")
        for kind in ("decay", "no_decay")
    }
    moved = [name for name, p in module.named_parameters() if not torch.equal(p, before[name])]
    assert "backbone.modalities.weight" in moved
    assert "nlvr2_head.3.weight" in moved


def learnt(tasks, rows=256):
    """A network that was trained to say whether the left image is the brighter one."""
    torch.manual_seed(0)
    module = tasks.module("nlvr2", lr=1e-2)

    def batch(seed):
        (inputs, _), generator = tasks.batch("nlvr2", 16), torch.Generator().manual_seed(seed)
        labels = torch.randint(2, (16,), generator=generator)
        images = 0.1 * torch.randn(inputs["images"].shape, generator=generator)
        images[torch.arange(16), 1 - labels] += 1
        inputs = {**inputs, "images": images}
        inputs["input_ids"] = torch.full_like(inputs["input_ids"], 7)
        return inputs, labels

    batches = DataLoader([batch(seed) for seed in range(rows // 16)], batch_size=None)
    tasks.trainer(max_epochs=4).fit(module.train(), batches)
    return module.eval(), batch(1000)


def test_exchanging_the_images_changes_answers_about_the_left_one(tasks):
    module, (inputs, labels) = learnt(tasks)
    turned = {**inputs, "images": inputs["images"].flip(1)}
    with torch.no_grad():
        one, other = module.logits(inputs).argmax(1), module.logits(turned).argmax(1)
    assert (one == labels).float().mean() > 0.9
    assert (other == 1 - labels).float().mean() > 0.9


def test_the_second_image_has_its_own_modality(tasks):
    module = tasks.module("nlvr2").eval()
    inputs, _ = tasks.batch("nlvr2")
    with torch.no_grad():
        before = module.logits(inputs)
        module.backbone.model.embeddings.token_type_embeddings.weight[2] += torch.randn(16)
        after = module.logits(inputs)
        both_first = torch.cat(
            [module(dict(inputs, images=inputs["images"][:, side])).pooled for side in (0, 1)], 1
        )
    assert (before - after).abs().max() > 1e-3
    assert (module.nlvr2_head(both_first) - after).abs().max() > 1e-3


# The row of the second image


def run_file(path, module_or_backbone, **others):
    module = torch.nn.Module()
    module.backbone = module_or_backbone
    for name, part in others.items():
        setattr(module, name, part)
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "2.6.0"}, path)
    return str(path)


def loaded_rows(tasks, path, caplog):
    module = tasks.module("nlvr2", pretrained=str(path))
    with caplog.at_level("INFO"):
        tasks.trainer().test(module, datamodule=tasks.data("nlvr2"), verbose=False)
    return module.backbone.state_dict()[TABLE]


@pytest.mark.parametrize("rows", [2, 3])
def test_after_pretraining_the_second_image_starts_as_the_first(tasks, tmp_path, caplog, rows):
    """Pretraining has shown no second image, even where there is a row for it."""
    backbone = tasks.backbone(num_modalities=rows)
    path = run_file(tmp_path / "run.ckpt", backbone, itm_head=torch.nn.Linear(16, 2))
    table = loaded_rows(tasks, path, caplog)
    assert torch.equal(table[:2], backbone.state_dict()[TABLE][:2])
    assert torch.equal(table[2], table[1])
    assert "the second image starts with the first one's modality" in caplog.text


def test_weights_of_an_nlvr2_run_keep_their_second_image(tasks, tmp_path, caplog):
    source = tasks.module("nlvr2")
    path = run_file(tmp_path / "run.ckpt", source.backbone, nlvr2_head=source.nlvr2_head)
    table = loaded_rows(tasks, path, caplog)
    assert torch.equal(table, source.backbone.state_dict()[TABLE])
    assert not torch.equal(table[2], table[1])
    assert "second image" not in caplog.text


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("bare", [True, False])
def test_folders_of_transformers(tasks, tmp_path, caplog, rows, bare):
    """They have a third row only where it was trained on pairs."""
    transformers = pytest.importorskip("transformers")
    config = tasks.backbone().model.config
    config.modality_type_vocab_size, config.num_images = rows, 2
    kind = transformers.ViltModel if bare else transformers.ViltForImagesAndTextClassification
    model = kind(config)
    model.save_pretrained(tmp_path / "folder")
    theirs = (model if bare else model.vilt).embeddings.token_type_embeddings.weight
    table = loaded_rows(tasks, tmp_path / "folder", caplog)
    assert torch.equal(table[:rows], theirs)
    assert torch.equal(table[2], table[1]) == (rows == 2)


def test_resuming_keeps_the_second_image(tasks, tmp_path, caplog):
    path = run_file(tmp_path / "start.ckpt", tasks.backbone())
    module = tasks.module("nlvr2", pretrained=path)
    trainer = tasks.trainer()
    trainer.fit(module, datamodule=tasks.data("nlvr2"))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    trained = module.backbone.state_dict()[TABLE]
    assert not torch.equal(trained[2], trained[1])
    again = tasks.module("nlvr2", pretrained=path)
    tasks.trainer().test(
        again, datamodule=tasks.data("nlvr2"), ckpt_path=tmp_path / "run.ckpt", weights_only=True
    )
    assert torch.equal(again.backbone.state_dict()[TABLE], trained)


@pytest.mark.parametrize("build", [lambda tasks: tasks.backbone(2), lambda tasks: two_streams(2)])
def test_a_backbone_without_a_second_image_is_refused(tasks, build):
    with pytest.raises(InputError, match="num_modalities: 3, not 2"):
        NLVR2Classifier(build(tasks))


# Accuracy and consistency


def test_consistency_is_of_whole_statements(tasks):
    module = tasks.module("nlvr2")
    data = tasks.data("nlvr2", sizes=(16, 0, 40), batch_size=7)
    (result,) = tasks.trainer().test(module, datamodule=data, verbose=False)
    assert set(result) == {"test/acc1", "test/consistency", "test/loss"}
    answers = torch.cat(tasks.trainer().predict(module, datamodule=data)).argmax(1)
    right = answers == torch.from_numpy(data.labels("test"))
    assert len(right) == 40
    assert result["test/acc1"] == pytest.approx(right.float().mean().item())
    assert result["test/consistency"] == right.view(-1, 4).all(1).float().mean().item()


def test_unknown_labels_leave_their_statement_out(tasks):
    inputs, _ = tasks.batch("nlvr2", rows=4)
    module = tasks.module("nlvr2").eval()
    with torch.no_grad():
        answers = module.logits(inputs).argmax(1)
    labels = torch.tensor([answers[0], -1, answers[2], 1 - answers[3]])
    batch = (inputs, labels, torch.tensor([7, 7, 9, 8]))
    (found,) = tasks.trainer().test(module, DataLoader([batch], batch_size=None), verbose=False)
    assert found["test/acc1"] == pytest.approx(2 / 3)
    assert found["test/consistency"] == 0.5  # of 9 and 8


def test_batches_without_statements_have_accuracy_only(tasks, caplog):
    batch = tasks.batch("nlvr2")
    module, trainer = tasks.module("nlvr2"), tasks.trainer()
    with caplog.at_level("INFO"):
        (found,) = trainer.test(module, DataLoader([batch], batch_size=None), verbose=False)
    assert set(found) == {"test/acc1", "test/loss"}
    assert caplog.text.count("consistency is not measured") == 1
