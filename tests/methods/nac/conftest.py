"""A tiny circuit and the pieces to train it."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl.methods.nac.nac import NAC
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer


class Tiny:
    """Builders for small objects, handed to tests as one fixture."""

    @staticmethod
    def net(image_size=8, **kwargs) -> NeuralAttentiveCircuit:
        arguments = {
            "tokenizer": PatchTokenizer(image_size, image_size // 4, 1, 8, 4), "state_dim": 16,
            "num_modules": 6, "num_output_modules": 3, "depth": 2, "num_heads": 2, "head_dim": 8,
            "signature_dim": 8, "layer_scale": None,
        }  # fmt: skip
        return NeuralAttentiveCircuit(**{**arguments, **kwargs})

    @classmethod
    def nac(cls, net=None, **kwargs) -> NAC:
        arguments = {"num_classes": 3, "lr": 3e-3, "warmup_epochs": 0}
        return NAC(net or cls.net(), **{**arguments, **kwargs})

    @staticmethod
    def batches(count=4, size=8, classes=3, seed=1) -> list:
        """Images whose brightest quarter is the class."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for _ in range(count):
            labels = torch.randint(classes, (size,), generator=generator)
            images = torch.randn(size, 1, 8, 8, generator=generator)
            for image, label in zip(images, labels, strict=True):
                row, column = divmod(int(label) % 4, 2)
                image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 5
            made.append((images, labels))
        return made

    @staticmethod
    def loader(batches: list) -> DataLoader:
        return DataLoader(batches, batch_size=None)

    @staticmethod
    def trainer(**kwargs) -> pl.Trainer:
        arguments = {
            "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
        }  # fmt: skip
        return pl.Trainer(**{**arguments, **kwargs})


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> type[Tiny]:
    monkeypatch.chdir(tmp_path)
    return Tiny
