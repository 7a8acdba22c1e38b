"""PMSN: its priors, its identity with MSN, checkpoints, and what it says about wrong entries."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lit_ssl import MSN, PMSN
from lit_ssl.losses import PMSNLoss, power_law_prior

NETWORK = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2}
COUNTS = [1, 2, 5]  # training images of each class


class Views(Dataset):
    """Views of 8 images, long-tailed labels."""

    labels = np.repeat(np.arange(3), COUNTS)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.large = torch.randn(8, 2, 3, 16, 16, generator=generator)

    def __len__(self) -> int:
        return len(self.large)

    def __getitem__(self, index: int):
        return [self.large[index]], int(self.labels[index])


class Data(pl.LightningDataModule):
    """What PMSN needs to know of a data module, and no more."""

    num_classes = 3

    def __init__(self, labels=Views.labels) -> None:
        super().__init__()
        self._labels = labels

    def labels(self, split):
        assert split == "train"
        return self._labels

    def train_dataloader(self):
        return DataLoader(Views(), batch_size=4)


def fit(tiny, module, data=None, **kwargs):
    trainer = tiny.trainer(**kwargs)
    trainer.fit(module, datamodule=Data() if data is None else data)
    return trainer


@pytest.mark.parametrize("sinkhorn", [{"sinkhorn_iterations": 3, "me_max_weight": 1.0}, {}])
def test_a_uniform_prior_trains_as_msn_does(tiny, sinkhorn):
    weights = []
    for method, kwargs in ((MSN, {"sinkhorn_iterations": 0, "me_max_weight": 5.0, **sinkhorn}),
                           (PMSN, {"prior": "uniform", **sinkhorn})):  # fmt: skip
        torch.manual_seed(0)
        module = tiny.msn(method, **kwargs)
        fit(tiny, module, max_epochs=2)
        weights.append(module.state_dict())
    msn, pmsn = weights
    assert set(pmsn) - set(msn) == {"loss.prior"}
    for key, value in msn.items():
        torch.testing.assert_close(pmsn[key], value, rtol=1e-4, atol=1e-6, msg=key)
    torch.manual_seed(0)
    other = tiny.msn(PMSN, prior_exponent=1.0, **sinkhorn)
    fit(tiny, other, max_epochs=2)
    assert (other.prototypes - msn["prototypes"]).abs().max() > 1e-3


def test_defaults(tiny):
    module = tiny.msn(PMSN)
    assert isinstance(module.loss, PMSNLoss)
    torch.testing.assert_close(module.loss.prior, power_law_prior(10, 0.25).float())
    assert (module.loss.sinkhorn_iterations, module.loss.me_max_weight) == (0, 5.0)
    assert (module.loss.kl_direction, module.loss.sinkhorn_marginal) == ("forward", "uniform")


def test_settings_reach_the_loss(tiny):
    module = tiny.msn(
        PMSN, kl_direction="reverse", sinkhorn_marginal="prior", sinkhorn_iterations=2,
        me_max_weight=3.0, temperature=0.2, entropy_weight=0.1, gather=False,
    )  # fmt: skip
    loss = module.loss
    assert (loss.kl_direction, loss.sinkhorn_marginal) == ("reverse", "prior")
    assert (loss.sinkhorn_iterations, loss.me_max_weight) == (2, 3.0)
    assert (loss.temperature, loss.entropy_weight, loss.gather) == (0.2, 0.1, False)


def test_prior_of_the_data(tiny):
    module = tiny.msn(PMSN, prior="data", num_prototypes=6)
    fit(tiny, module)
    expected = torch.tensor([1, 1, 2, 2, 5, 5]) / 16
    torch.testing.assert_close(module.loss.prior, expected)


def test_labels_that_are_not_known_do_not_count(tiny):
    module = tiny.msn(PMSN, prior="data", num_prototypes=3)
    with pytest.warns(UserWarning, match="counts the classes of 4 of 6 training images"):
        fit(tiny, module, Data(np.array([0, 1, 1, 2, -1, -1])))
    torch.testing.assert_close(module.loss.prior, torch.tensor([0.25, 0.5, 0.25]))


def test_prior_as_list_and_as_file(tiny, tmp_path):
    np.save(tmp_path / "shares.npy", np.arange(1, 11))
    for prior in (list(range(1, 11)), str(tmp_path / "shares.npy")):
        module = tiny.msn(PMSN, prior=prior)
        fit(tiny, module)
        torch.testing.assert_close(module.loss.prior, torch.arange(1, 11) / 55)


def test_a_subclass_can_make_its_own_prior(tiny):
    class Own(PMSN):
        def make_prior(self):
            return torch.arange(1, 11) / 55

    module = tiny.msn(Own)
    fit(tiny, module)
    torch.testing.assert_close(module.loss.prior, torch.arange(1, 11) / 55)


def test_wrong_priors_are_explained(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"list of 10 positive numbers.*Did you mean power_law"):
        tiny.msn(PMSN, prior="powerlaw")
    with pytest.raises(ValueError, match="2 entries for 10 prototypes"):
        tiny.msn(PMSN, prior=[1.0, 2.0])
    with pytest.raises(ValueError, match="exponent of a power-law prior must be at least 0"):
        tiny.msn(PMSN, prior_exponent=-1.0)
    with pytest.raises(FileNotFoundError, match=r"no prior at .*absent.npy"):
        fit(tiny, tiny.msn(PMSN, prior="absent.npy"))
    with pytest.raises(ValueError, match="10 prototypes cannot be shared equally by 3 classes"):
        fit(tiny, tiny.msn(PMSN, prior="data"))
    data_prior = {"prior": "data", "num_prototypes": 3}
    with pytest.raises(ValueError, match=r"Data has none of 2 of its 3 classes \(labels 0, 2\)"):
        fit(tiny, tiny.msn(PMSN, **data_prior), Data(np.array([1, 1, -1])))
    with pytest.raises(ValueError, match=r"labels\('train'\).*: none was given"):
        tiny.trainer().fit(tiny.msn(PMSN, **data_prior), DataLoader(Views(), batch_size=4))


@pytest.mark.parametrize("prior", ["power_law", "data", "shares.txt", [1.0] * 8 + [2.0]])
def test_checkpoints_load_without_data_and_files(tiny, tmp_path, prior):
    (tmp_path / "shares.txt").write_text("\n".join("123456789"))
    settings = {"backbone": "vit_tiny_patch16_224", "backbone_kwargs": NETWORK}
    module = tiny.msn(PMSN, **settings, prior=prior, num_prototypes=9)
    trainer = fit(tiny, module)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    (tmp_path / "shares.txt").unlink()
    loaded = PMSN.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.hparams == module.hparams
    assert loaded.hparams.prior == prior
    assert torch.equal(loaded.loss.prior, module.loss.prior)
    assert loaded.loss.prior.unique().numel() > 1
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), module(images))


class SaveHalfWay(pl.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def test_resumed_run_continues_identically(tiny, tmp_path):
    half = tmp_path / "half.ckpt"

    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        # no masks: their generator is not part of a checkpoint
        module = tiny.msn(PMSN, prior="data", num_prototypes=6, mask_ratio=0.0, warmup_epochs=0)
        trainer = tiny.trainer(max_epochs=4, callbacks=list(callbacks))
        trainer.fit(module, datamodule=Data(), ckpt_path=ckpt_path, weights_only=True)
        return module, trainer.global_step

    whole, steps = run(SaveHalfWay(half))
    saved = torch.load(half, weights_only=True)
    assert saved["global_step"] == steps / 2
    assert not torch.equal(saved["state_dict"]["prototypes"], whole.prototypes)
    resumed, _ = run(ckpt_path=half)
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


# ------------------------------------------------------------------ two processes


class Save(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), f"weights{trainer.world_size}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


class SGD:
    """A picklable optimiser factory; AdamW would blow up the rounding errors of tiny gradients."""

    def __call__(self, groups):
        return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.distributed
def test_two_processes_equal_one_on_the_joined_batch(tiny, tmp_path):
    for devices in (1, 2):
        torch.manual_seed(0)
        module = PMSN(
            "vit_tiny_patch16_224", NETWORK, initialization="sincos", prior="data",
            sinkhorn_iterations=3, sinkhorn_marginal="prior", mask_ratio=0.0, num_prototypes=6,
            proj_hidden_dim=16, proj_output_dim=8, proj_use_bn=False, warmup_epochs=0,
            clip_grad_norm=None, optimizer=SGD(),
        )  # fmt: skip
        data = Data()
        data.train_dataloader = Loader(8 // devices)
        fit(
            tiny, module, data, devices=devices, strategy="ddp_spawn" if devices > 1 else "auto",
            max_epochs=3, callbacks=[Save()],
        )  # fmt: skip
    one, two = (torch.load(tmp_path / f"weights{devices}.pt") for devices in (1, 2))
    torch.testing.assert_close(two["loss.prior"], torch.tensor([1, 1, 2, 2, 5, 5]) / 16)
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=key)


class Loader:
    """A picklable train_dataloader."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def __call__(self):
        return DataLoader(Views(), batch_size=self.batch_size, shuffle=False)
