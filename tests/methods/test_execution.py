"""Execution: the same training, compiled or laid out otherwise, and everything put back."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from lit_ssl import PAWS, ImageClassifier
from lit_ssl.callbacks import ExactResume, Execution, StepSeeder
from lit_ssl.contracts.networks import blocks_of, names_of, networks_of
from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.models import ClassTokenViT

CALLS: list[int] = []


def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    """A backend that notes each call of a compiled graph."""

    def call(*args: Any) -> Any:
        CALLS.append(1)
        return graph(*args)

    return call


class Compiled(Execution):
    """Graphs are run as they are."""

    backend: ClassVar[Any] = staticmethod(counting)


class AheadOfTime(Execution):
    """Graphs of forward and backward, as inductor gets them, run as they are."""

    backend: ClassVar[Any] = aot_autograd(fw_compiler=counting)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    CALLS.clear()


def msn(tiny):
    """AdamW and BatchNorm would blow the rounding errors of gradients near zero up."""
    return tiny.msn(proj_use_bn=False, optimizer=lambda g: torch.optim.SGD(g, 0.1), lr=0.1)


def fitted(tiny, module=None, callbacks=(), batches=2, **kwargs):
    torch.manual_seed(0)
    module = msn(tiny) if module is None else module
    torch.manual_seed(1)
    loader = tiny.loader([tiny.views() for _ in range(batches)])
    trainer = tiny.trainer(callbacks=[StepSeeder(0), *callbacks], **kwargs)
    trainer.fit(module, loader, ckpt_path=None)
    return module


@pytest.mark.parametrize(("mode", "kind"), [("blocks", AheadOfTime), ("network", Compiled)])
def test_a_compiled_training_is_the_plain_one(tiny, mode, kind, caplog):
    plain = fitted(tiny)
    assert not CALLS
    with caplog.at_level("INFO"):
        compiled = fitted(tiny, callbacks=[kind(compile=mode)])
    assert CALLS
    line = {"blocks": "2 of backbone, 2 of target_backbone", "network": "backbone, projection_head"}
    assert line[mode] in caplog.text
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for name, value in compiled.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-4, atol=1e-5)
    # the run is over: calls are plain again
    CALLS.clear()
    compiled.eval()(torch.randn(2, 3, 16, 16))
    assert not CALLS


def test_all_blocks_of_a_step_are_compiled(tiny):
    """Two blocks each: target, masked anchors and focal anchors, and no graph beside them."""
    fitted(tiny, callbacks=[Compiled(compile="blocks")], batches=3)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    CALLS.clear()
    fitted(tiny, callbacks=[Compiled(compile="blocks")], batches=1)
    assert len(CALLS) >= 3 * 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize(("first", "then"), [("blocks", "blocks"), ("none", "blocks")])
def test_a_run_goes_on_whether_or_not_it_was_compiled(tiny, tmp_path, first, then):
    torch.manual_seed(1)
    loader = tiny.loader([tiny.views() for _ in range(4)])

    def run(mode, steps, path=None):
        torch.manual_seed(0)
        module = msn(tiny)
        saver = ModelCheckpoint(tmp_path / str(steps), save_last=True, every_n_train_steps=1)
        callbacks = [StepSeeder(0), ExactResume(), Compiled(compile=mode), saver]
        options = {"max_epochs": 2, "limit_train_batches": 4, "enable_checkpointing": True}
        trainer = tiny.trainer(callbacks=callbacks, **options)
        stop = _StopAfter(steps)
        trainer.callbacks.append(stop)
        trainer.fit(module, loader, ckpt_path=path, weights_only=True)
        return module

    run(first, 4)
    resumed = run(then, 8, tmp_path / "4" / "last.ckpt")
    torch._dynamo.reset()
    whole = run(first, 8)
    for name, value in resumed.state_dict().items():
        if first == then:
            assert torch.equal(value, whole.state_dict()[name]), name
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-3, atol=1e-4)


class _StopAfter(pl.Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step >= self.steps


def test_evaluations_are_compiled_too(tiny):
    module = tiny.msn().eval()
    loader = DataLoader([(torch.randn(2, 3, 16, 16), torch.zeros(2).long())], batch_size=None)
    trainer = tiny.trainer(callbacks=[Compiled(compile="network")])
    for command in (trainer.validate, trainer.test, trainer.predict):
        CALLS.clear()
        command(module, loader)
        assert CALLS


def test_what_is_global_is_put_back(tiny):
    seen = []

    class Look(pl.Callback):
        def on_train_batch_end(self, *args):
            precision = torch.get_float32_matmul_precision()
            seen.append((precision, torch.backends.cudnn.benchmark))
            if len(seen) > 1:
                raise RuntimeError("in the middle")

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    options = {"float32_matmul": "high", "cudnn_benchmark": not before[1]}
    fitted(tiny, callbacks=[Execution(**options), Look()], batches=1)
    after = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    assert after == before
    with pytest.raises(RuntimeError, match="in the middle"):
        fitted(tiny, callbacks=[Compiled(**options, compile="blocks"), Look()], batches=1)
    after = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    assert after == before
    assert seen == [("high", not before[1])] * 2


def paws(**kwargs):
    torch.manual_seed(0)
    options = {"num_classes": 2, "proj_output_dim": 8, "warmup_epochs": 0, "lr": 0.1}
    return PAWS("resnet10t", **options, **kwargs)


def two_streams(batches=2):
    torch.manual_seed(1)
    return [
        {
            "unlabelled": [torch.randn(4, 2, 3, 32, 32)],
            "support": (torch.randn(4, 2, 3, 32, 32), torch.arange(4) % 2),
        }
        for _ in range(batches)
    ]


def is_laid_out(module):
    weights = [p for p in module.backbone.parameters() if p.ndim == 4 and p.shape[2] > 1]
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_channels_last_leaves_weights_of_other_shapes():
    class Volumes(nn.Module):
        num_features = 4

        def __init__(self) -> None:
            super().__init__()
            self.plane, self.volume = nn.Conv2d(3, 4, 3), nn.Conv3d(4, 4, 1)
            self.table = nn.Parameter(torch.zeros(1, 4, 1, 1, 1))

        def forward(self, images):
            return (self.volume(self.plane(images)[:, :, None]) + self.table).mean((2, 3, 4))

    module = ImageClassifier(Volumes(), num_classes=3)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    Execution(channels_last=True).setup(trainer, module, "fit")
    weights = [module.backbone.plane.weight, module.backbone.volume.weight]
    assert weights[0].is_contiguous(memory_format=torch.channels_last)
    assert weights[1].is_contiguous()


def test_channels_last_trains_to_the_same_weights(tiny, caplog):
    found = {}
    for on in (False, True):
        module = paws()
        trainer = tiny.trainer(callbacks=[StepSeeder(0), Execution(channels_last=on)])
        trainer.fit(module, tiny.loader(two_streams()))
        assert is_laid_out(module) is on
        found[on] = module.state_dict()
    for name, value in found[True].items():
        torch.testing.assert_close(value, found[False][name], rtol=1e-3, atol=3e-3)


@pytest.mark.parametrize("given", [True, False])
def test_old_configurations_of_paws_still_say_it(tiny, given):
    module = paws(channels_last=given)
    assert "channels_last" not in module.hparams
    trainer = tiny.trainer(callbacks=[Execution()])
    trainer.fit(module, tiny.loader(two_streams(1)))
    assert is_laid_out(module) is given


def test_gradients_are_clipped_where_they_are_scaled(tiny):
    """Lightning refuses to clip with a fused optimizer there."""

    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            assert not trainer.optimizers[0].param_groups[0]["fused"]

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    fitted(tiny, callbacks=[Look()], plugins=plugins, gradient_clip_val=1.0, batches=1)


class Images(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 16, 16, generator=generator), index % 3


def classifier():
    torch.manual_seed(0)
    kwargs = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 12, "num_heads": 2}
    return ImageClassifier("vit_tiny_patch16_224", kwargs, num_classes=3, warmup_epochs=0)


class _Keep(pl.Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save((pl_module.state_dict(), len(CALLS)), self.path)

    def teardown(self, trainer, pl_module, stage):
        if torch.distributed.is_initialized():  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("strategy", ["ddp_spawn", "local"])
def test_two_processes_train_compiled_blocks(tiny, tmp_path, strategy):
    found = {}
    for mode in ("none", "blocks"):
        chosen: Any = strategy
        if strategy == "local":
            from lit_ssl.strategies import LocalSGDStrategy

            chosen = LocalSGDStrategy(sync_every=2, start_method="spawn")
        callbacks = [Compiled(compile=mode), _Keep(tmp_path / f"{mode}.pt")]
        trainer = tiny.trainer(devices=2, strategy=chosen, callbacks=callbacks)
        trainer.fit(classifier(), DataLoader(Images(), batch_size=2, shuffle=False))
        found[mode] = torch.load(tmp_path / f"{mode}.pt")
    assert found["none"][1] == 0
    assert found["blocks"][1] > 0
    for name, value in found["blocks"][0].items():
        torch.testing.assert_close(value, found["none"][0][name], rtol=1e-4, atol=1e-5)


# refusals


@pytest.mark.parametrize("option", ["compile", "float32_matmul"])
def test_unknown_words_are_refused(option):
    with pytest.raises(InputError, match=f"{option} must be"):
        Execution(**{option: "fast"})


def test_two_of_them_are_refused(tiny):
    with pytest.raises(InputError, match="a run has one Execution"):
        fitted(tiny, callbacks=[Execution(), Execution()])


@pytest.mark.parametrize("how", ["module", "network", "block"])
def test_what_was_compiled_before_is_refused(tiny, how):
    module: Any = tiny.msn()
    if how == "module":
        module = torch.compile(module, backend="eager")
    elif how == "network":
        module.backbone = torch.compile(module.backbone, backend="eager")
    else:
        module.backbone.vit.blocks[0].compile(backend="eager")
    with pytest.raises(InputError, match="was compiled before the run"):
        fitted(tiny, module, [Compiled(compile="blocks")])


class Plain(pl.LightningModule):
    """A user's module, without blocks and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.mean = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), MeanMetric()

    def training_step(self, batch, batch_idx):
        return self.net(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"compile": "blocks"}, "no network with repeated blocks"), ({"channels_last": True}, "none")],
)
def test_networks_that_cannot_be_executed_so_are_refused(tiny, options, message):
    with pytest.raises(InputError, match=message):
        tiny.trainer(callbacks=[Compiled(**options)]).fit(Plain(), DataLoader(torch.randn(2, 4)))


def test_cudnn_must_not_choose_where_a_run_is_deterministic(tiny):
    try:
        with pytest.raises(InputError, match="leave it out where"):
            fitted(tiny, callbacks=[Execution(cudnn_benchmark=True)], deterministic=True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_missing_compiler_is_said_at_the_start(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        fitted(tiny, callbacks=[Execution(compile="blocks")])


# what is found


def test_networks_and_blocks_are_found(tiny):
    msn = tiny.msn()
    names = ["backbone", "projection_head", "target_backbone", "target_head"]
    assert names_of(msn, networks_of(msn)) == names
    vit = msn.backbone
    assert isinstance(vit, ClassTokenViT)
    assert blocks_of(vit) == list(vit.vit.blocks)
    resnet = ImageClassifier("resnet18", num_classes=3).backbone
    assert len(blocks_of(resnet)) == 8
    assert names_of(Plain(), networks_of(Plain())) == ["Sequential"]
    assert blocks_of(Plain().net) == []


def test_a_module_may_say_what_its_networks_are():
    class Own(Plain):
        def networks_to_compile(self):
            return [self.net[0]]

    class Wrong(Plain):
        def networks_to_compile(self):
            return self.net

    own = Own()
    assert names_of(own, networks_of(own)) == ["net.0"]
    with pytest.raises(InputTypeError, match="must return a list"):
        networks_of(Wrong())
