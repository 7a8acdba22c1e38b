"""Checkpoints of a stranger: each makes the file `entered` where what it names is run."""

from __future__ import annotations

from pathlib import Path

import torch

ENTERED = "entered"
# What an archive may hold beside the checkpoint, where the working folder is on Python's path.
PLANTED = """\
open("entered", "w").close()

import torch
from torch import nn


class Network(nn.Linear):
    embed_dim = 4

    def __init__(self) -> None:
        super().__init__(4, 4)


class ImageClassifier(nn.Module):
    pass


def network() -> nn.Module:
    return Network()


def optimizer(params) -> torch.optim.Optimizer:
    return torch.optim.SGD(params)


def instantiate(kind, hparams):
    return kind(num_classes=2)
"""
SOURCE = "def forward(self, x):\n    return x\n"
COMPILED = {
    "class_path": "torch.fx.graph_module.reduce_graph_module",  # -> torch.nn.Module
    "init_args": {"body": {"_code": SOURCE}, "import_block": "open('entered', 'w').close()\n"},
}
HOST = "lit_ssl.methods.ImageClassifier"
PLAIN = {"_class_path": HOST, "backbone": "resnet10t", "num_classes": 2}

# name → hyper-parameters; every one names code that is not the package's
ATTACKS: dict[str, dict] = {
    "function": {**PLAIN, "backbone": COMPILED},
    "function in the folder": {**PLAIN, "backbone": {"class_path": "planted.network"}},
    "class in the folder": {**PLAIN, "backbone": {"class_path": "planted.Network"}},
    "module of the folder": {**PLAIN, "_class_path": "planted.ImageClassifier"},
    "optimizer": {**PLAIN, "optimizer": {"class_path": "planted.optimizer"}},
    "deep in lists": {**PLAIN, "milestones": [[{"a": ({"class_path": "planted.Network"},)}]]},
    "arguments of a network": {
        **PLAIN,
        "backbone": {"class_path": "torch.nn.Sequential", "dict_kwargs": {"0": COMPILED}},
    },
    "instantiator": {**PLAIN, "_instantiator": "planted.instantiate"},
    "shell": {**PLAIN, "backbone": {"class_path": "os.system", "init_args": {"command": "id"}}},
    "script of torch": {
        **PLAIN,
        "backbone": {"class_path": "torch.utils.bottleneck.__main__.main"},
    },
    "graph of torchvision": {
        **PLAIN,
        "backbone": {"class_path": "torchvision.models.feature_extraction.DualGraphModule"},
    },
    "TorchScript": {**PLAIN, "backbone": {"class_path": "torch.jit.ScriptModule"}},
    "not a name": {**PLAIN, "backbone": {"class_path": ["planted", "Network"]}},
    "remote code": {**PLAIN, "backbone_kwargs": {"trust_remote_code": True}},
    "compiled kernels": {**PLAIN, "backbone_kwargs": {"attn_implementation": "who/kernels"}},
    "reads a file": {
        **PLAIN,
        "backbone": {
            "class_path": "timm.models.VisionTransformer",
            "init_args": {"pretrained_cfg": {"file": "planted.pth"}},
        },
    },
}
# Here the type of the argument makes jsonargparse look behind a plain string.
STRINGS: dict[str, dict] = {
    "function": {**PLAIN, "backbone": "planted.network"},
    "class": {**PLAIN, "backbone": "planted.Network"},
    "optimizer": {**PLAIN, "optimizer": "planted.optimizer"},
    "YAML in the folder": {**PLAIN, "backbone": "net.yaml"},
    "YAML in a string": {**PLAIN, "backbone": "{class_path: planted.Network}"},
    "YAML in a string, escaped": {**PLAIN, "backbone": '{"\\x63lass_path": planted.Network}'},
    "YAML in YAML": {**PLAIN, "backbone_kwargs": {"a": "'{class_path: planted.Network}'"}},
}


def plant(folder: Path) -> None:
    """Put what the attacks name into a folder."""
    (folder / "planted.py").write_text(PLANTED)
    (folder / "net.yaml").write_text("class_path: planted.Network\n")


def write_checkpoint(path: Path, hparams: dict, **more: object) -> Path:
    """Write a checkpoint without weights."""
    content = {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 0,
        "state_dict": {"backbone.weight": torch.zeros(1)},
        "hyper_parameters": hparams,
        **more,
    }
    torch.save(content, path)
    return path
