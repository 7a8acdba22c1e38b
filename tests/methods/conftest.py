"""A tiny MSN and the pieces to train it."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader

from lit_ssl import MSN


class Tiny:
    """Builders for small objects, handed to tests as one fixture."""

    @staticmethod
    def vit(**kwargs) -> VisionTransformer:
        arguments = {
            "img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2,
            "num_classes": 0,
        }  # fmt: skip
        return VisionTransformer(**{**arguments, **kwargs})

    @classmethod
    def msn(cls, method: type[MSN] = MSN, **kwargs) -> MSN:
        arguments = {
            "backbone": cls.vit(), "mask_ratio": 0.3, "num_prototypes": 10, "proj_hidden_dim": 16,
            "proj_output_dim": 8, "warmup_epochs": 1, "lr": 0.01, "start_lr": 0.002,
        }  # fmt: skip
        return method(**{**arguments, **kwargs})

    @staticmethod
    def views(batch: int = 6, anchors: int = 1, focal: int = 2) -> list[torch.Tensor]:
        views = [torch.randn(batch, 1 + anchors, 3, 16, 16)]
        return [*views, torch.randn(batch, focal, 3, 8, 8)] if focal else views

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
