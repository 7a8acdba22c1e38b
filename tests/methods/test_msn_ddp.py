"""MSN on two processes equals one process on the joined batch."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lit_ssl import MSN


class Images(Dataset):
    """Views of 8 images, the same in every process."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.large = torch.randn(8, 2, 3, 16, 16, generator=generator, dtype=torch.float64)
        self.focal = torch.randn(8, 2, 3, 8, 8, generator=generator, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.large)

    def __getitem__(self, index: int):
        return [self.large[index], self.focal[index]], 0


class Save(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), f"weights{trainer.world_size}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize(
    "queue_size", [0, pytest.param(16, marks=pytest.mark.slow)]
)  # two batches of 8, in whatever order
def test_two_processes_equal_one_on_the_joined_batch(tiny, tmp_path, queue_size):
    for devices in (1, 2):
        torch.manual_seed(0)
        kwargs = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2}
        module = MSN(
            "vit_tiny_patch16_224", kwargs, "sincos", mask_ratio=0.0, num_prototypes=10,
            proj_hidden_dim=16, proj_output_dim=8, proj_use_bn=False, warmup_epochs=1,
            clip_grad_norm=None, queue_size=queue_size,
        )  # fmt: skip
        # SGD: AdamW would blow the rounding errors of near-zero gradients up to whole steps
        module.optimizer_factory = SGD()
        start = {key: value.clone().double() for key, value in module.state_dict().items()}
        loader = DataLoader(Images(), batch_size=8 // devices, shuffle=False)
        trainer = tiny.trainer(
            devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", precision="64-true",
            max_epochs=3, callbacks=[Save()],
        )  # fmt: skip
        trainer.fit(module, loader)
    one, two = (torch.load(tmp_path / f"weights{devices}.pt") for devices in (1, 2))
    for key, value in one.items():
        if key.startswith("loss.recent") and key.endswith("rows"):  # in the order of the processes
            two[key], value = (rows.sort(dim=0).values for rows in (two[key], value))
        torch.testing.assert_close(two[key], value, rtol=1e-7, atol=1e-9, msg=key)
    assert max((one[key] - value).abs().max() for key, value in start.items()) > 1e-4


class SGD:
    """A picklable optimiser factory."""

    def __call__(self, groups):
        return torch.optim.SGD(groups, lr=0.1)
