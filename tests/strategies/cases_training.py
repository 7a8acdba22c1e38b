"""Cases about the training itself."""

from __future__ import annotations

import contextlib
from functools import partial

import lightning.pytorch as pl
import torch
from cases_golden import ADAMW, LOCAL, SGD, SLOWMO
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from problems import CountCollectives, GoldenModule, Noisy, flat, load, make_trainer
from torch.utils.data import DataLoader, IterableDataset

from lit_ssl.errors import NonFiniteError
from lit_ssl.methods import MSN
from lit_ssl.strategies import (
    LocalSGDStrategy,
    QuadraticSyncRule,
    SlowMomentumStrategy,
)
from lit_ssl.strategies.sync import compression
from lit_ssl.strategies.sync.compression import CompressedSum, make_codec


def fit(strategy, rank, world, optimizer=SGD, steps=12, cls=GoldenModule, data=None, **options):
    torch.manual_seed(0)
    module = cls(data or load("slowmo_sgd_w2"), optimizer, rank)
    make_trainer(strategy, world, max_steps=steps, **options).fit(module)
    return module


def trajectory(*args, **kwargs):
    return torch.stack(fit(*args, **kwargs).trajectory)


class Halfway(LocalSGDStrategy):
    """The example of the documentation."""

    def _outer_step(self, unit, mean):
        unit.x0.lerp_(mean, 0.5)
        return unit.x0


def equalities(rank, world, folder):
    plain = partial(torch.optim.SGD, lr=0.1)
    run = partial(trajectory, rank=rank, world=world)
    return {
        "local": run(LOCAL(sync_every=3)),
        "slow": run(SLOWMO(sync_every=3, slow_momentum=0.0)),
        "every_step": run(LOCAL(sync_every=1), optimizer=plain),
        "ddp": run(DDPStrategy(), optimizer=plain),
        "halfway": run(Halfway(sync_every=3, buffers="maintain")),
        "lookahead": run(SLOWMO(sync_every=3, slow_momentum=0.0, slow_lr=0.5)),
        "whole": run(SLOWMO(sync_every=3)),
        "sharded": run(SLOWMO(sync_every=3, shard_slow_state=True)),
        "small_buckets": run(SLOWMO(sync_every=3, bucket_cap_mb=20 / 2**20)),
    }


def learning_rates(rank, world, folder):
    data = load("slowmo_sgd_w2")
    zero = {**data, "lr": data["lr"].clone()}
    zero["lr"][:4], zero["lr"][8:12] = 0, 0
    drop = {**data, "lr": torch.full_like(data["lr"], 0.1)}
    drop["lr"][3:] = 0.001  # in the last step of the first round
    result = {"zero": trajectory(SLOWMO(sync_every=4), rank, world, data=zero)}
    for reference in ("last", "mean", "none"):
        strategy = SLOWMO(sync_every=4, lr_reference=reference, slow_momentum=0.8)
        result[reference] = trajectory(strategy, rank, world, data=drop)
        result[f"norm_{reference}"] = strategy.slow_norm()
    return result


def silence(rank, world, folder):
    class Watch(pl.Callback):
        calls = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                self.counter = CountCollectives().__enter__()
                self.events = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.events.append((len(self.counter.calls), trainer.strategy.just_synced))
            if batch_idx == 11:
                self.counter.__exit__()
                self.calls = tuple(self.counter.calls)

    result = {}
    for name, strategy in {"local": LOCAL(sync_every=4), "slowmo": SLOWMO(sync_every=4)}.items():
        watch = Watch()
        fit(strategy, rank, world, callbacks=[watch])
        result[name] = (watch.calls, watch.events, strategy.bytes_sent, strategy.rounds)
    return result


def in_place(rank, world, folder):
    class Image(GoldenModule):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

        def training_step(self, batch, batch_idx):
            images = torch.full((1, 3, 4, 4), float(self.rank + 1))
            return super().training_step(batch, batch_idx) + self.conv(images).square().mean()

        def on_train_start(self):
            super().on_train_start()
            self.pointers = [p.data_ptr() for p in self.parameters()]

        def on_train_end(self):
            self.same = self.pointers == [p.data_ptr() for p in self.parameters()]
            self.last = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            self.size = [p.untyped_storage().nbytes() == p.nbytes for p in self.parameters()]

    module = fit(SLOWMO(sync_every=4), rank, world, cls=Image)
    return {"same": module.same, "channels_last": module.last, "own_storage": all(module.size)}


def extras(rank, world, folder):
    """BatchNorm, an EMA network and a constant; one sync after four steps."""
    result = {}
    for mode in ("average", "broadcast", "none"):

        class Watch(pl.Callback):
            before = after = None

            def on_before_sync(self, trainer, pl_module):
                self.before = {k: v.clone() for k, v in pl_module.state_dict().items()}

            def on_after_sync(self, trainer, pl_module):
                self.after = {k: v.clone() for k, v in pl_module.state_dict().items()}

        watch = Watch()
        strategy = LOCAL(sync_every=4, sync_buffers=mode, final_sync="none")
        fit(strategy, rank, world, cls=Noisy, steps=4, callbacks=[watch])
        result[mode] = (watch.before, watch.after, strategy.bytes_sent)
    strategy = LOCAL(sync_every=4, sync_frozen=False, final_sync="none")
    module = fit(strategy, rank, world, cls=Noisy, steps=4)
    result["local_target"] = module.target.weight.detach().clone()
    return result


class Gan(pl.LightningModule):
    def __init__(self, rank):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)
        self.norms = torch.nn.ModuleDict({"critic": torch.nn.BatchNorm1d(1)})
        self.rank, self.seen = rank, []

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        noise = torch.randn(
            4, 3, generator=torch.Generator().manual_seed(batch_idx * 2 + self.rank)
        )
        for optimizer, sign in ((generator, -1), (critic, 1)):
            self.toggle_optimizer(optimizer)
            loss = sign * torch.tanh(self.critic(self.generator(noise))).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def on_train_batch_end(self, *args):
        self.seen.append((flat(self.generator), flat(self.critic)))

    def configure_optimizers(self):
        parts = (self.generator, self.critic)
        return [torch.optim.SGD(part.parameters(), lr=0.5, momentum=0.5) for part in parts]

    def train_dataloader(self):
        return DataLoader(range(14), batch_size=1)


def gan(rank, world, folder):
    torch.manual_seed(0)
    module = Gan(rank)
    strategy = LOCAL(sync_every=4, warmup_steps=4, find_unused_parameters=True)
    make_trainer(strategy, world).fit(module)
    return {"seen": module.seen, "steps": strategy.steps, "global": module.trainer.global_step}


def loss_scale(rank, world, folder):
    class Plugin(MixedPrecision):
        def forward_context(self):
            return contextlib.nullcontext()  # the scaler alone

    class Bursting(GoldenModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            burst = self.rank == 1 and self.trainer.global_step in (1, 2)
            return loss * float("inf") if burst else loss

    class Watch(pl.Callback):
        scales = ()

        def on_train_batch_end(self, trainer, *args):
            self.scales += (trainer.precision_plugin.scaler.get_scale(),)

    watch = Watch()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    plugin = Plugin("16-mixed", "cpu", scaler)
    strategy = SLOWMO(sync_every=4)
    module = fit(strategy, rank, world, cls=Bursting, callbacks=[watch], plugins=[plugin])
    return {"scales": watch.scales, "trajectory": torch.stack(module.trajectory)}


def nonfinite(rank, world, folder):
    class Broken(GoldenModule):
        def on_train_batch_end(self, *args):
            if self.rank == 1 and self.trainer.global_step == 6:
                with torch.no_grad():
                    self.out.bias[0] = float("nan")
            super().on_train_batch_end(*args)

    module = fit(SLOWMO(sync_every=4, nonfinite="skip_rank"), rank, world, cls=Broken)
    result = {"trajectory": torch.stack(module.trajectory), "broken": True}
    try:
        fit(SLOWMO(sync_every=4), rank, world, cls=Broken)
    except NonFiniteError as error:
        result["message"] = str(error)
    return result


def schedules(rank, world, folder):
    class Watch(pl.Callback):
        def __init__(self):
            self.at = []

        def on_train_batch_end(self, trainer, *args):
            if trainer.strategy.just_synced:
                self.at.append(trainer.global_step)

    data = load("slowmo_sgd_w2")
    falling = {**data, "lr": torch.tensor([0.1] * 4 + [0.05] * 4 + [0.02] * 16)}
    runs = {
        "list": (LOCAL(sync_every=2, sync_schedule=[[4, 3], [9, 5]]), data),
        "rule": (LOCAL(sync_every=2, sync_schedule=QuadraticSyncRule(0.1, 6)), falling),
        "epoch": (LOCAL(sync_every=5, sync_at_epoch_end=True), data),
        "warm": (LOCAL(sync_every=5, warmup_steps=0.5), data),
        "hierarchy": (
            LOCAL(sync_every=4, average_every=2, warmup_steps=6, first_sync="immediate"),
            data,
        ),
        "accumulate": (LOCAL(sync_every=2), data),
    }
    result = {}
    for name, (strategy, values) in runs.items():
        watch = Watch()
        options = {"steps": 24, "max_epochs": 1}
        if name == "epoch":
            options = {"steps": 20, "max_epochs": 3, "limit_train_batches": 7}
        if name == "accumulate":
            options |= {"accumulate_grad_batches": 3}
        fit(strategy, rank, world, data=values, callbacks=[watch], **options)
        result[name] = watch.at
    return result


def delayed(rank, world, folder):
    result = {}
    for name in (None, "bf16"):
        strategy = LOCAL(sync_every=4, delay=2, compression=name, final_sync="none")
        result[name] = trajectory(strategy, rank, world, steps=13)
    return result


def compressed(rank, world, folder):
    run = partial(trajectory, rank=rank, world=world, steps=24)
    result, traffic = {}, {}
    for name in (None, "bf16", "int8"):
        strategy = SLOWMO(sync_every=4, compression=name)
        result[name], traffic[name] = run(strategy), strategy.bytes_sent
    return {"trajectories": result, "bytes": traffic}


def feedback(rank, world, folder):
    """Thirty compressed sums of changing values, against exact ones."""
    result = {}
    for name in ("bf16", "int8"):
        generator = torch.Generator().manual_seed(rank)
        codec, error = make_codec(name), torch.zeros(10_000)
        missing = {"kept": torch.zeros(10_000), "dropped": torch.zeros(10_000)}
        for _ in range(30):
            value = torch.randn(10_000, generator=generator)
            total = CompressedSum(value.clone(), error, codec)
            missing["kept"] += total.finish()
            compression._CHUNK = 2048
            forgetful = CompressedSum(value.clone(), torch.zeros_like(error), codec)
            missing["dropped"] += forgetful.finish()
            compression._CHUNK = 2**20
            again = CompressedSum(value.clone(), torch.zeros_like(error), codec)
            assert torch.equal(again.finish(), forgetful.value)  # whatever the size of chunks
            torch.distributed.all_reduce(value)
            for rest in missing.values():
                rest -= value
        missing = {key: rest.norm() for key, rest in missing.items()}
        result[name] = missing, total.bytes_sent / (4 * 10_000)
    return result


def added_parameters(rank, world, folder):
    class Growing(GoldenModule):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.extra = torch.nn.Parameter(torch.zeros(3), requires_grad=False)

        def forward(self, x):
            return super().forward(x) + self.extra

        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            if self.trainer.global_step == 5:
                self.extra.requires_grad_(True)
                optimizer = self.trainer.optimizers[0]
                optimizer.add_param_group({"params": [self.extra], "lr": 0.1, "momentum": 0.9})

    result = {}
    for name, make in {"slowmo": SLOWMO, "local": LOCAL}.items():
        strategy = make(sync_every=4)
        module = fit(strategy, rank, world, cls=Growing, steps=16)
        result[name] = torch.stack(module.trajectory), strategy.units[0].names
    return result


class Stream(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __iter__(self):
        yield from range(self.length)


def unequal(rank, world, folder):
    class Uneven(GoldenModule):
        stream = True

        def train_dataloader(self):
            length = 10 if self.rank == 0 else 7
            return DataLoader(Stream(length) if self.stream else range(length), batch_size=1)

    class Sized(Uneven):
        stream = False

    class Even(GoldenModule):
        def train_dataloader(self):
            return DataLoader(Stream(10), batch_size=1)

    result = {"broken": True}
    for name, steps in (("even", -1), ("plain", 10)):
        cls = Even if name == "even" else GoldenModule
        module = fit(SLOWMO(sync_every=3), rank, world, cls=cls, steps=steps)
        result[name] = torch.stack(module.trajectory)
    for name, cls in (("stream", Uneven), ("sized", Sized)):
        strategy = SLOWMO(sync_every=3, uneven="join")
        module = fit(strategy, rank, world, cls=cls, steps=-1, max_epochs=2)
        result[name] = (flat(module), strategy.steps, module.trajectory[-1])
        try:
            fit(SLOWMO(sync_every=3), rank, world, cls=cls, steps=-1)
        except RuntimeError as error:
            result[f"{name}_error"] = str(error)
    return result


def precision(rank, world, folder):
    class Compiled(GoldenModule):
        pass

    module = fit(SLOWMO(sync_every=4), rank, world, precision="bf16-true")
    strategy = module.trainer.strategy
    result = {"bf16": flat(module), "dtype": str(module.out.weight.dtype)}
    result["x0"] = strategy.units[0].x0
    torch.manual_seed(0)
    eager = torch.compile(GoldenModule(load("slowmo_sgd_w2"), SGD, rank), backend="eager")
    make_trainer(SLOWMO(sync_every=4), world, max_steps=12).fit(eager)
    result["compiled"] = torch.stack(eager._orig_mod.trajectory)
    result["plain"] = trajectory(SLOWMO(sync_every=4), rank, world)
    result["double"] = trajectory(SLOWMO(sync_every=4), rank, world, precision="64-true")
    return result


def adamw_reset(rank, world, folder):
    """Momentum policies on Adam: the step counts after the last round."""
    result = {}
    for policy in ("maintain", "reset", "average"):
        strategy = SlowMomentumStrategy(sync_every=4, buffers=policy)
        module = fit(strategy, rank, world, optimizer=ADAMW, steps=8)
        state = module.trainer.optimizers[0].state[module.out.bias]
        result[policy] = {key: value.clone() for key, value in state.items()}
    auto = LocalSGDStrategy(sync_every=8)
    fit(auto, rank, world, steps=8)
    result["auto"] = auto.units[0].policy
    return result


def msn(rank, world, folder):
    """Our own method: its EMA network moves after the strategy's step; its loss can keep silent."""

    class Views(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            generator = torch.Generator().manual_seed(index * 2 + rank)
            large = torch.rand(2, 3, 16, 16, generator=generator)
            return [large, torch.rand(2, 3, 8, 8, generator=generator)], -1

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                self.counter, self.seen = CountCollectives().__enter__(), []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            target = torch.cat([p.flatten() for p in pl_module.target_backbone.parameters()])
            online = torch.cat([p.detach().flatten() for p in pl_module.backbone.parameters()])
            self.seen.append((len(self.counter.calls), target.clone(), online))
            if batch_idx == 3:
                self.counter.__exit__()

    torch.manual_seed(0)
    module = MSN(
        "vit_tiny_patch16_224",
        {"img_size": 16, "patch_size": 4, "depth": 1, "dynamic_img_size": True},
        mask_ratio=0.3, num_prototypes=8, proj_hidden_dim=16, proj_output_dim=8, warmup_epochs=0,
        gather=False,
    )  # fmt: skip
    watch = Watch()
    loader = DataLoader(Views(), batch_size=2)
    make_trainer(SLOWMO(sync_every=2), world, max_epochs=1, callbacks=[watch]).fit(module, loader)
    return {"seen": watch.seen}


def hooks(rank, world, folder):
    """Callbacks and modules are told; a callback may end a round; drift and bytes are public."""

    class Watch(EarlyStopping):
        def __init__(self):
            super().__init__("own", patience=9)
            self.events = []

        def on_before_sync(self, trainer, pl_module):
            self.events.append(("callback before", trainer.strategy.drift()))

        def on_after_sync(self, trainer, pl_module):
            self.events.append(("callback after", trainer.strategy.drift()))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            strategy = trainer.strategy
            self.events.append((batch_idx, strategy.steps_in_round, strategy.just_synced))
            if batch_idx == 5:
                self.local = flat(pl_module)
                strategy.sync()
                strategy.sync()  # nothing to do

    class Told(GoldenModule):
        def on_before_sync(self, strategy):
            watch.events.append(("module before", strategy.rounds))

        def on_after_sync(self, strategy):
            watch.events.append(("module after", strategy.rounds))

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_step=True, sync_dist=True)
            return loss

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("own", float(self.rank), batch_size=1)

    watch = Watch()
    stopping = [watch, EarlyStopping("val_loss", patience=9)]
    run = partial(fit, SLOWMO(sync_every=4), rank, world, steps=8, cls=Told, callbacks=stopping)
    module = run(val_check_interval=4)
    return {"events": watch.events, "local": watch.local, "end": module.trajectory[4]}


ALL = (
    equalities, learning_rates, silence, in_place, extras, gan, loss_scale, nonfinite, schedules,
    delayed, compressed, feedback, added_parameters, unequal, precision, adamw_reset, msn, hooks,
)  # fmt: skip
CASES = {function.__name__: function for function in ALL}
