"""Parts of the strategies that need no processes."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from datetime import timedelta
from functools import partial
from inspect import signature
from typing import Literal

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import StrategyRegistry
from timm.optim import Lamb, Lars
from torch import nn
from torch.testing import assert_close

from lit_ssl.errors import InputError
from lit_ssl.optim import InnerLrLars
from lit_ssl.strategies import (
    DiLoCoStrategy,
    LocalSGDStrategy,
    QuadraticSyncRule,
    SlowMomentumStrategy,
)
from lit_ssl.strategies.ddp.attempts import attempt_store
from lit_ssl.strategies.state.rank_state import get_rng, set_rng
from lit_ssl.strategies.sync.averaging import flat_dtype, pack_, unpack_
from lit_ssl.strategies.sync.buffers import assign_by_prefix, collect, fingerprints
from lit_ssl.strategies.sync.compression import BFloat16Codec, Int8Codec
from lit_ssl.strategies.sync.evaluation import Recalibration
from lit_ssl.strategies.sync.inner_optimizer import choose_policy, reset_
from lit_ssl.strategies.sync.local_steps import LocalStepsStrategy
from lit_ssl.strategies.sync.rounds import Round, SyncSchedule
from lit_ssl.strategies.sync.units import SyncUnit, split_fragments

# rounds


def test_constant_and_listed_periods():
    assert [SyncSchedule(5).period(step, 0.1) for step in (0, 100)] == [5, 5]
    listed = SyncSchedule(5, [[10, 2], [20, 8]])
    assert [listed.period(step, 0.1) for step in (0, 9, 10, 19, 20, 99)] == [5, 5, 2, 2, 8, 8]


def test_quadratic_rule_waits_while_the_rate_rises():
    schedule = SyncSchedule(2, QuadraticSyncRule(coefficient=0.4, max_every=100))
    state = Round(period=2)
    seen = []
    for lr in (0.0, 0.05, 0.1, 0.1, 0.05, 0.0):
        state.restart(schedule.period(0, lr, state if seen else None), lr)
        seen.append(state.period)
    assert seen == [2, 2, 2, 16, 64, 64]


def test_quadratic_rule_takes_the_rate_of_the_first_step():
    schedule = SyncSchedule(2, QuadraticSyncRule(coefficient=0.4, max_every=100))
    state = Round(period=2, start_lr=0.4)
    state.restart(schedule.expected(2, state), 0.4)  # the scheduler has not had its turn yet
    assert state.period == 2
    for lr in (0.1, 0.05):  # only the first step counts
        schedule.begin(state, torch.tensor(lr))
        state.advance([lr])
        assert state.period == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": [[0, 1, 2]]}, "pairs"),
        ({"schedule": [[5, 2], [5, 3]]}, "must increase"),
        ({"schedule": [[0, 2]], "shortest": 3}, "at least 3"),
        ({"schedule": QuadraticSyncRule(0.0)}, "coefficient > 0"),
        ({"schedule": QuadraticSyncRule(0.1, 3)}, "max_every >= sync_every"),
    ],
)
def test_impossible_schedules(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyncSchedule(4, **arguments)


def test_round_counts_learning_rates_by_group():
    state, tensor = Round(period=3), torch.tensor(0.4)
    state.advance([0.1, tensor])
    tensor.fill_(0.2)  # schedulers change learning rates kept as tensors in place
    state.advance([0.3, tensor])
    assert state.last_lr(1) == pytest.approx(0.2)
    assert [state.mean_lr(g) for g in (0, 1)] == pytest.approx([0.2, 0.3])
    again = Round(period=1)
    again.load_state_dict(state.state_dict())
    assert (again.step, again.mean_lr(0)) == (2, pytest.approx(0.2))
    state.restart(5, 0.3)
    assert (state.step, state.worked, state.count, state.period) == (0, 0, 1, 5)


# options


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (LocalSGDStrategy, {"sync_every": 0}, "sync_every must be at least 1, not 0"),
        (LocalSGDStrategy, {"buffers": "keep"}, r"buffers must be one of .*'maintain'.*not 'keep'"),
        (LocalSGDStrategy, {"delay": 8}, r"at least 9 step"),
        (LocalSGDStrategy, {"average_every": 8}, "between 1 and sync_every - 1 = 7"),
        (LocalSGDStrategy, {"average_group": 2}, "needs average_every"),
        (LocalSGDStrategy, {"uneven": "join", "warmup_steps": 5}, "uneven='join' cannot"),
        (LocalSGDStrategy, {"average_every": 2, "delay": 1}, "average_every cannot be combined"),
        (LocalSGDStrategy, {"static_graph": True, "warmup_steps": 5}, "static_graph=True cannot"),
        (LocalSGDStrategy, {"model_averaging_period": 4}, "averages by itself"),
        (LocalSGDStrategy, {"bucket_cap_mb": 0}, "bucket_cap_mb must be positive"),
        (SlowMomentumStrategy, {"slow_momentum": 1.0}, r"slow_momentum lie in \[0, 1\)"),
        (SlowMomentumStrategy, {"lr_reference": "first"}, "lr_reference must be"),
        (
            SlowMomentumStrategy,
            {"shard_slow_state": True, "compression": "bf16"},
            "cannot be combined with compression",
        ),
        (DiLoCoStrategy, {"mix": 1.0}, r"mix must lie in \[0, 1\)"),
        (DiLoCoStrategy, {"fragments": 9, "sync_every": 4}, "1 to sync_every"),
        (DiLoCoStrategy, {"fragments": 2, "first_sync": "immediate"}, "cannot be combined"),
    ],
)
def test_impossible_options(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


CLASSES = (LocalSGDStrategy, SlowMomentumStrategy, DiLoCoStrategy)
NAMES = ("local_sgd", "post_local_sgd", "slowmo", "slowmo_bmuf", "diloco")


@pytest.mark.parametrize("make", [*CLASSES, *NAMES])
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("sync_evry", "sync_every"),
        ("warmup_step", "warmup_steps"),
        ("compresion", "compression"),
        ("find_unused_parameter", "find_unused_parameters"),
        ("process_group_backen", "process_group_backend"),
    ],
)
def test_unknown_option_is_refused_by_the_nearest_name(make, name, nearest):
    cls = StrategyRegistry[make]["strategy"] if isinstance(make, str) else make
    given = StrategyRegistry[make]["init_params"] if isinstance(make, str) else {}
    message = rf"{cls.__name__} has no option '{name}'\. Did you mean {nearest}\b"
    with pytest.raises(InputError, match=message):
        cls(**given, **{name: 2})
    assert isinstance(cls(**given), cls)


def test_options_of_relatives_are_unknown():
    for cls, name in ((LocalSGDStrategy, "slow_momentum"), (SlowMomentumStrategy, "fragments")):
        with pytest.raises(InputError, match=f"has no option '{name}'"):
            cls(**{name: 1})


@pytest.mark.parametrize("cls", CLASSES)
def test_options_of_ddp_are_known_by_name(cls):
    ddp = {
        "find_unused_parameters": True, "gradient_as_bucket_view": True, "static_graph": True,
        "broadcast_buffers": False,
    }  # fmt: skip
    lightning = {"process_group_backend": "gloo", "timeout": timedelta(seconds=7)}
    strategy = cls(**ddp, **lightning, start_method="fork", bucket_cap_mb=5)
    assert strategy._ddp_kwargs == {**ddp, "bucket_cap_mb": 5}
    assert strategy._process_group_backend == "gloo"
    assert strategy._timeout == timedelta(seconds=7)
    assert strategy._start_method == "fork"


def test_every_option_has_one_default_that_its_signature_shows():
    shown = signature(LocalStepsStrategy.__init__).parameters
    chosen = LocalSGDStrategy().settings()
    main = {n: p.default for n, p in signature(LocalSGDStrategy).parameters.items()}
    main.pop("kwargs")
    assert main == {name: chosen[name] for name in main}
    rare = {n: p for n, p in shown.items() if n not in main and n not in ("self", "kwargs")}
    assert {n: p.default for n, p in rare.items()} == {n: chosen[n] for n in rare}
    assert set(main) | set(rare) == set(chosen) - {"fragments", "mix"}
    assert shown["uneven"].annotation == Literal["error", "join"]


def test_static_graph_without_warm_up_is_fine():
    assert LocalSGDStrategy(static_graph=True)._ddp_kwargs["static_graph"]


# flat buffers and compression


def test_packing_keeps_values_formats_and_storage():
    tensors = [torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.randn(())]
    tensors.append(torch.randn(5, 4).t())
    before = [(t.data_ptr(), t.stride()) for t in tensors]
    flat = pack_(torch.empty(2 * 48 + 1 + 20), tensors)
    assert torch.equal(flat[:96].view(2, 3, 4, 4), tensors[0])
    unpack_(flat * 2, tensors)
    assert [(t.data_ptr(), t.stride()) for t in tensors] == before
    assert torch.equal(pack_(torch.empty_like(flat), tensors), flat * 2)


def test_averages_are_never_taken_in_half_precision():
    half, single, double = (
        torch.zeros(1, dtype=d) for d in (torch.bfloat16, torch.float32, torch.float64)
    )
    assert flat_dtype([half]) == flat_dtype([half, double]) == flat_dtype([single]) == torch.float32
    assert flat_dtype([double]) == torch.float64


def test_int8_codec_is_right_to_half_a_level():
    codec, x = Int8Codec(block=4), torch.tensor([1.0, -127.0, 0.4, 3.0, 0.0, 0.0, 0.0, 0.0])
    levels, scale = codec.encode(x)
    assert levels.dtype == torch.int8
    assert scale.tolist() == [1.0, 0.0]
    assert codec.decode((levels, scale)).tolist() == [1.0, -127.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    assert codec.decode(codec.part((levels, scale), 4, 8)).tolist() == [0.0] * 4
    x = torch.randn(4 * 1024)
    decoded = Int8Codec().decode(Int8Codec().encode(x))
    step = x.view(4, 1024).abs().amax(-1) / 127
    assert ((decoded - x).view(4, 1024).abs().amax(-1) <= step / 2 * 1.001).all()


def test_bfloat16_codec():
    x = torch.randn(100)
    assert torch.equal(BFloat16Codec().decode(BFloat16Codec().encode(x)), x.bfloat16().float())


# units


@pytest.mark.parametrize(
    ("fragments", "expected"),
    [
        (1, [0, 0, 0, 0]),
        (2, [0, 0, 1, 1]),
        (["a.*", "*"], [0, 0, 1, 1]),
        ([["a.w", "b.w"], ["?.b"]], [0, 1, 0, 1]),
    ],
)
def test_fragments(fragments, expected):
    names, sizes = ["a.w", "a.b", "b.w", "b.b"], [30, 5, 40, 5]
    assert split_fragments(names, sizes, fragments) == expected


def make_unit(shards=1, shard=0):
    parameters = [nn.Parameter(torch.arange(float(n))) for n in (3, 4, 5)]
    groups = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    unit = SyncUnit(optimizer, 0, 0, ["a", "b", "c"], parameters, Round(4), "maintain")
    unit.shards, unit.shard = shards, shard
    unit.take_snapshot()
    return unit


def test_unit_knows_the_groups_of_its_flat_parameters():
    assert make_unit().group_slices() == [(slice(0, 7), 0), (slice(7, 12), 1)]
    parts = [make_unit(5, shard) for shard in range(5)]
    assert [p.bounds for p in parts] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 12)]
    assert parts[2].group_slices() == [(slice(0, 1), 0), (slice(1, 3), 1)]
    assert torch.equal(torch.cat([p.x0 for p in parts]), make_unit().x0)


def test_unit_follows_added_and_removed_parameters():
    unit = make_unit()
    unit.outer["u"] = torch.arange(12.0)
    kept, new = unit.parameters[2], nn.Parameter(torch.full((2,), 9.0))
    unit.replace_parameters(["new", "c"], [new, kept])
    assert unit.outer["u"].tolist() == [0, 0, 7, 8, 9, 10, 11]
    assert unit.x0.tolist() == [9, 9, 0, 1, 2, 3, 4]
    assert unit.fresh == [slice(0, 2)]


@pytest.mark.parametrize(
    ("optimizer", "every", "policy"),
    [
        (torch.optim.SGD([torch.zeros(1)], lr=1, momentum=0.9), 8, "reset"),
        (torch.optim.SGD([torch.zeros(1)], lr=1, momentum=0.9), 7, "maintain"),
        (torch.optim.SGD([torch.zeros(1)], lr=1), 8, "maintain"),
        (torch.optim.AdamW([torch.zeros(1)]), 64, "maintain"),
    ],
)
def test_automatic_buffer_policy(optimizer, every, policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_policy("auto", optimizer, every) == policy


def test_short_rounds_with_reset_momentum_are_warned_about():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1, momentum=0.9)
    with pytest.warns(UserWarning, match="no time to build up"):
        assert choose_policy("reset", optimizer, 2) == "reset"


def test_reset_zeroes_in_place():
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    moment = optimizer.state[parameter]["exp_avg"]
    reset_(optimizer, [parameter])
    assert optimizer.state[parameter]["exp_avg"] is moment
    assert not moment.any()
    assert optimizer.state[parameter]["step"] == 0


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.SGD, partial(torch.optim.SGD, momentum=0.9, dampening=0.5), torch.optim.NAdam,
        partial(torch.optim.SGD, momentum=0.9, nesterov=True), torch.optim.Rprop, torch.optim.ASGD,
        torch.optim.Adam, partial(torch.optim.AdamW, amsgrad=True), torch.optim.RAdam,
        partial(torch.optim.RMSprop, centered=True, momentum=0.9), torch.optim.Adamax,
        partial(torch.optim.Adagrad, initial_accumulator_value=0.3), torch.optim.Adadelta,
        partial(Lars, momentum=0.9), Lamb, partial(InnerLrLars, momentum=0.9),
    ],
)  # fmt: skip
def test_reset_optimizer_goes_on_like_a_fresh_one(make):
    """Three steps, a reset, and three more; two parameters, one of them a scalar."""
    torch.manual_seed(0)
    gradients = [[torch.randn(3), torch.randn(())] for _ in range(6)]

    def steps(optimizer, parameters, some):
        for pair in some:
            for parameter, gradient in zip(parameters, pair, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()

    used = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.tensor(2.0))]
    optimizer = make(used, lr=0.1)
    steps(optimizer, used, gradients[:3])
    new = [nn.Parameter(p.detach().clone()) for p in used]
    reset_(optimizer, used)
    steps(optimizer, used, gradients[3:])
    steps(make(new, lr=0.1), new, gradients[3:])
    for a, b in zip(used, new, strict=True):
        assert torch.equal(a, b)


def test_optimizer_whose_fresh_state_is_unknown_is_not_reset():
    class Own(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1)
            self.state[self.param_groups[0]["params"][0]]["start"] = torch.ones(3)

    optimizer = Own([nn.Parameter(torch.ones(3))])
    assert choose_policy("maintain", optimizer, 8) == "maintain"
    with pytest.raises(InputError, match="Own has a state before its first step"):
        choose_policy("reset", optimizer, 8)


# buffers and frozen tensors


def test_collecting_buffers_and_frozen_parameters():
    module = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3).requires_grad_(False)
    )
    module.register_buffer("ignored", torch.zeros(1))
    module._ddp_params_and_buffers_to_ignore = ["ignored"]
    owned = {id(p) for p in module.parameters() if p.requires_grad}
    found = collect(module, owned, "average", frozen=True)
    assert {x.name: x.kind for x in found.floats} == {
        "2.weight": "mean", "2.bias": "mean", "1.running_mean": "mean", "1.running_var": "variance",
    }  # fmt: skip
    assert list(found.integers) == ["1.num_batches_tracked"]
    assert not collect(module, owned, "none", frozen=False).floats
    kinds = Counter(x.kind for x in collect(module, owned, "broadcast", frozen=False).floats)
    assert kinds == {"first": 2}


def test_buffers_that_are_assigned_anew_are_found():
    module = nn.BatchNorm1d(2)
    before = fingerprints(collect(module, set(), "average", False))
    module.running_mean = module.running_mean + 1
    found = collect(module, set(), "average", False)
    changed = {k for k, v in fingerprints(found).items() if v != before[k]}
    assert changed == {"running_mean"}
    assert found.floats[0].tensor is module.running_mean


def test_extras_go_with_the_nearest_optimizer():
    owners = [["generator.conv.weight", "generator.out.weight"], ["critic.conv.weight"]]
    names = ["critic.norm.running_mean", "generator.conv.mask", "target.weight", "generator.ema.w"]
    assert assign_by_prefix(names, owners) == dict(zip(names, [1, 0, 0, 0], strict=True))


def test_recalibration_counts_anew_and_leaves_the_rest():
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    batches = [torch.randn(8, 2) + 5, torch.randn(8, 2) * 3]
    recalibration = Recalibration(2)
    for batch in (torch.zeros(8, 2), *batches):
        recalibration.remember((batch, None))
    state = torch.get_rng_state()
    recalibration.estimate_(module)
    assert_close(module[0].running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    assert_close(module[0].running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert not module[0].training
    assert module[0].momentum == 0.1
    assert torch.equal(torch.get_rng_state(), state)


# processes


def test_random_states_are_plain_and_complete(tmp_path):
    import random

    import numpy as np

    device = torch.device("cpu")
    torch.save(get_rng(device), tmp_path / "rng.pt")
    draw = lambda: (random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1))  # noqa: E731, NPY002
    first = draw()
    set_rng(torch.load(tmp_path / "rng.pt", weights_only=True), device)
    assert draw() == first


def test_every_attempt_has_its_own_part_of_the_store():
    """Keys of processes that have died, in a store that lives on, are not seen."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def attempt(ranks):
        stores, threads = {}, []

        def join(rank):
            client = dist.TCPStore("127.0.0.1", server.port, is_master=False)
            stores[rank] = attempt_store(client, rank, 3, timedelta(seconds=5))
            stores[rank].set(f"address{rank}", f"of attempt {len(attempts)}")

        for rank in ranks:
            threads.append(threading.Thread(target=join, args=(rank,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return stores

    attempts = []
    server.set("lit_ssl/hello/1", "a process that died before it was answered")
    for order in ((0, 1, 2), (2, 1, 0)):
        stores = attempt(order)
        for rank in range(3):
            for other in range(3):
                expected = f"of attempt {len(attempts)}".encode()
                assert stores[rank].get(f"address{other}") == expected
        attempts.append(stores)
    assert not attempts[1][0].check(["only in the first"])
    attempts[0][0].set("only in the first", "x")
    assert not attempts[1][2].check(["only in the first"])


def test_missing_process_is_named():
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(RuntimeError, match=r"rank\(s\) \[1\] of 2 did not join"):
        attempt_store(server, 0, 2, timedelta(seconds=0.1))
