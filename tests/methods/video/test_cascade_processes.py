"""Levels of a cascade on several processes."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.multiprocessing as mp

from lit_ssl.methods import CascadedVideoGAN

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_cascades import SMALL, Blobs, level2, trainer


class SameNoise(CascadedVideoGAN):
    """Each process takes its rows of the noise of all; steps that do not blow up rounding."""

    drawn = 0

    def new_fakes(self, size):
        world, rank = self.trainer.world_size, self.trainer.global_rank
        generator = torch.Generator().manual_seed(self.drawn)
        self.drawn += 1
        z = torch.randn(size * world, self.spec.z_dim, generator=generator)[rank::world]
        labels = torch.arange(size * world)[rank::world] % 2
        return self.generator(z, labels), None, labels

    def configure_optimizers(self):
        return [
            torch.optim.SGD(part.parameters(), lr=0.02)
            for part in (self.generator, self.discriminators)
        ]


class Save(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        torch.save(pl_module.state_dict(), f"{trainer.world_size}_{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def run(folder, world):
    torch.manual_seed(0)
    options = {**SMALL, "num_frames": 6, "resolution": 8, "channels": 4, "d_frames": 6}
    runs = trainer(
        3, folder, devices=world, sync_batchnorm=world > 1, callbacks=[Save()],
        strategy="ddp_find_unused_parameters_true" if world > 1 else "auto",
    )  # fmt: skip
    runs.fit(SameNoise(**options), datamodule=Blobs(1, count=4, batch_size=4 // world))


def run_upper(folder, previous, rank):
    """A step of a level above, whose lower levels are not joined."""
    module = level2(previous, window=1)
    runs = trainer(
        1, folder, devices=2, sync_batchnorm=True, strategy="ddp_find_unused_parameters_true"
    )
    runs.fit(module, datamodule=Blobs(2, count=4, batch_size=1))
    torch.save(module.state_dict(), f"upper_{rank}.pt")


def run_rank(rank, folder, port, previous):
    os.chdir(folder)
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.manual_seed(rank)
    run_upper(folder, previous, rank)
    run(folder, 2)


@pytest.mark.distributed
def test_two_processes_with_joined_statistics_equal_one(trained_level1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(str(tmp_path), 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run_rank, (str(tmp_path), port, str(trained_level1)), nprocs=2)
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1_0", "2_0", "2_1"))
    for key, value in one.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5, msg=key)
        assert torch.equal(first[key], second[key]), key
    first, second = (torch.load(tmp_path / f"upper_{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    below = torch.load(trained_level1, weights_only=True)["state_dict"]
    lower = {k[len("lower.levels.0.") :]: v for k, v in first.items() if k.startswith("lower.")}
    assert lower
    assert all(torch.equal(value, below[f"generator_ema.{k}"]) for k, value in lower.items())
