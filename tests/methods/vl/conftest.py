"""Small networks, digit scenes as data of each task, and the pieces to train on them."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lit_ssl import NLVR2Classifier, VisualEntailmentClassifier, VQAClassifier
from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import DigitScenesDataModule, DigitScenesNLVR2DataModule
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.models import ViltBackbone

ANSWERS = ("red", "green", "blue", "no", "yes")


class _Labelled(DigitScenesDataModule):
    """Scenes of digits with labels, in place of captions of the same image."""

    carried: ClassVar[tuple[str, ...]] = ("label",)

    def load_rows(self, split):
        rows = super().load_rows(split)
        if rows is None:
            return None
        labels = np.arange(len(rows.labels)) % len(self.class_names)
        labels[2] = -1
        return Rows(rows.source, {**rows.columns, "label": labels})


class Entailments(_Labelled):
    """The third row has no label."""

    class_names = ("contradiction", "neutral", "entailment")


class Questions(_Labelled):
    """One or two right answers; the third row has none that is known."""

    class_names = ANSWERS

    def load_rows(self, split):
        rows = super().load_rows(split)
        if rows is None:
            return None
        ids = 1000 + 7 * np.arange(len(rows))
        return Rows(rows.source, {**rows.columns, "question_id": ids})

    def on_after_batch_transfer(self, batch, dataloader_idx):
        inputs, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        scores = torch.zeros(len(labels), len(self.class_names), device=labels.device)
        known = labels >= 0
        scores[known, labels[known]] = 0.9
        scores[known, (labels[known] + 1) % len(self.class_names)] += 0.3
        return inputs, scores


class Tasks:
    """Builders for small objects, handed to tests as one fixture."""

    methods: ClassVar[dict[str, Any]] = {
        "nlvr2": NLVR2Classifier,
        "vqa": VQAClassifier,
        "entailment": VisualEntailmentClassifier,
    }
    answers = ANSWERS

    @staticmethod
    def backbone(num_modalities=3, **fields) -> ViltBackbone:
        config = {
            "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 24, "image_size": 32,
            "patch_size": 16, "initializer_range": 0.2,
        }  # fmt: skip
        return ViltBackbone({**config, **fields}, num_modalities=num_modalities)

    @classmethod
    def module(cls, task, backbone=None, **kwargs):
        arguments = {"lr": 3e-3, **({"num_classes": len(ANSWERS)} if task == "vqa" else {})}
        return cls.methods[task](backbone or cls.backbone(), **{**arguments, **kwargs})

    @staticmethod
    def data(task, sizes=(16, 6, 5), **kwargs):
        """Sizes are rows; of NLVR2 statements, which have four rows each."""
        kind = {"vqa": Questions, "entailment": Entailments}.get(task, DigitScenesNLVR2DataModule)
        sizes = tuple(-(-size // 4) for size in sizes) if task == "nlvr2" else sizes
        return kind(sizes=sizes, **{"batch_size": 4, "seed": 0, **kwargs})

    @staticmethod
    def batch(task, rows=3, height=32):
        """A batch as it comes to a step."""
        sides = (2,) if task == "nlvr2" else ()
        inputs = {
            "images": torch.randn(rows, *sides, 3, height, 32),
            "input_ids": torch.randint(5, 73, (rows, 7)),
            "attention_mask": torch.ones(rows, 7, dtype=torch.long),
        }
        if task == "vqa":
            return inputs, torch.rand(rows, len(ANSWERS))
        return inputs, torch.arange(rows) % 2

    @staticmethod
    def trainer(**kwargs) -> pl.Trainer:
        arguments = {
            "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
            "num_sanity_val_steps": 0, "use_distributed_sampler": False,
        }  # fmt: skip
        callbacks = [StepSeeder(0), *kwargs.pop("callbacks", [])]
        return pl.Trainer(**{**arguments, **kwargs}, callbacks=callbacks)


@pytest.fixture
def tasks(tmp_path, monkeypatch) -> type[Tasks]:
    pytest.importorskip("mlxtend")
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    return Tasks


class ReferenceViLT:
    """The network and inputs of a file of reference values."""

    @staticmethod
    def backbone(data) -> ViltBackbone:
        vocab, hidden, layers, heads, inner, text, image, patch, _ = data["cfg"].tolist()
        backbone = ViltBackbone(
            {
                "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": heads, "intermediate_size": inner, "image_size": image,
                "max_position_embeddings": text, "patch_size": patch,
            }
        )  # fmt: skip
        weights = {k.removeprefix("w."): v.float() for k, v in data.items() if k.startswith("w.")}
        own = {k: v for k, v in weights.items() if not k.startswith("head.")}
        backbone.model.load_state_dict(own)
        return backbone

    @staticmethod
    def head(data, name):
        prefix = f"w.head.{name}."
        found = {k: v for k, v in data.items() if k.startswith(prefix)}
        return {k.removeprefix(prefix): v.float() for k, v in found.items()}

    @staticmethod
    def inputs(data):
        return {
            "images": data["in.image"].float(),
            "pixel_mask": data["in.pixel_mask"].bool(),
            "input_ids": data["in.text_ids"].long(),
            "attention_mask": data["in.text_masks"].long(),
        }

    @staticmethod
    def check_gradients(data, loss, gradients):
        embeddings = "backbone.model.embeddings"
        parts = {
            "word": f"{embeddings}.text_embeddings.word_embeddings.weight",
            "patch": f"{embeddings}.patch_embeddings.projection.weight",
            "pos": f"{embeddings}.position_embeddings",
            "modality": f"{embeddings}.token_type_embeddings.weight",
        }
        wanted = [part for part in parts if f"grad.{loss}.{part}" in data]
        assert wanted
        for part in wanted:
            torch.testing.assert_close(
                gradients[parts[part]], data[f"grad.{loss}.{part}"], rtol=0, atol=1e-4
            )


@pytest.fixture
def reference_vilt() -> type[ReferenceViLT]:
    pytest.importorskip("transformers")
    return ReferenceViLT
