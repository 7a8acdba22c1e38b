"""Several processes and the hub: one of them fetches, and all take the same commit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.hub_files import fetch

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_server import Hub, point_to

WEIGHTS = "hf-hub:someone/small-vit"
REPO = "someone/small-vit"


def run_rank(rank, folder, url, world):
    from huggingface_hub import constants

    point_to(url, pytest.MonkeyPatch())
    constants.HF_HUB_CACHE = f"{folder}/cache"
    constants.HF_HUB_DISABLE_XET = True
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    found = fetch(WEIGHTS, ["model.safetensors", "pytorch_model.bin"])
    try:
        fetch("hf-hub:nobody/nothing", ["model.safetensors"])
    except InputError as error:
        Path(folder, f"{rank}.txt").write_text(f"{found.name} {found.path.is_file()}; {error}")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_one_of_several_processes_fetches(tmp_path):
    hub = Hub()
    commit = hub.add(REPO, pytorch_model__bin=b"x" * 1000)
    mp.spawn(run_rank, (str(tmp_path), hub.url, 2), nprocs=2)
    lines = {(tmp_path / f"{rank}.txt").read_text() for rank in range(2)}
    assert len(lines) == 1
    assert lines.pop().startswith(f"{WEIGHTS}@{commit[:12]} True; the hub has no repository")
    assert hub.downloads() == ["pytorch_model.bin"]
    hub.close()
