"""Distances between sets of clips as metrics: shares, orders, cuts, checkpoints, processes."""

from __future__ import annotations

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torchmetrics import MetricCollection

from lit_ssl.errors import InputError
from lit_ssl.metrics import (
    FrechetVideoDistance,
    KernelVideoDistance,
    RandomFeatureDistance,
    VideoInceptionScore,
    bootstrap_interval,
    frechet_distance_from_features,
    polynomial_mmd,
    self_distance,
)
from lit_ssl.metrics.video import clip_features

sys.path.insert(0, str(Path(__file__).parent))
from clip_networks import Small, clips

pytestmark = pytest.mark.filterwarnings("ignore:.*published numbers are of")
REAL, FAKE = clips(30, seed=1), clips(23, seed=2)
OPTIONS = {"num_features": 6, "clip_length": 4}


class Rows(nn.Module):
    """Gives rows that were made before, by the number that the first pixel holds."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, video):
        return self.rows[video[:, 0, 0, 0, 0].long()]


def numbered(count):
    return torch.arange(count).byte()[:, None, None, None, None].expand(count, 16, 3, 1, 1)


def features(video):
    return Small()(video.transpose(1, 2)).detach()


def fvd(**options):
    return FrechetVideoDistance(Small(), **{**OPTIONS, **options})


def filled(metric, real=REAL, fake=FAKE, size=8):
    for part in real.split(size):
        metric.update(part, real=True)
    for part in fake.split(size):
        metric.update(part, real=False)
    return metric


@pytest.mark.parametrize("protocol", ["stylegan_v", "tats"])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_values_are_those_of_the_features(protocol, size):
    found = filled(fvd(protocol=protocol), size=size).compute()
    scale = (lambda v: v) if protocol == "stylegan_v" else (lambda v: 2 * v / 255 - 1)
    # resizing keeps levels up to the weight of the border
    rows = [features(scale(v.float())) for v in (REAL, FAKE)]
    close = {"rel": 1e-6} if protocol == "stylegan_v" else {"rel": 0.2}
    expected = frechet_distance_from_features(*rows, unbiased=protocol == "tats").item()
    assert found.item() == pytest.approx(expected, **close)
    assert found.dtype == torch.float64


def test_golden_rows_are_cut_in_the_middle_of_a_batch(golden):
    values = golden("video_frechet")
    real, fake = values["c0_real"], values["c0_fake"]
    metrics = {}
    for real_items, fake_items in ((101, 101), (90, 90), (None, None)):
        metric = FrechetVideoDistance(Rows(real), 16, max_items=real_items)
        for part in numbered(200).split(37):
            metric.update(part, real=True)
        metric._extractor[0].network.rows = fake
        metric.max_items = fake_items
        for part in numbered(200).split(37):
            metric.update(part, real=False)
        metric.max_items = None
        metrics[real_items, fake_items] = metric
    whole = metrics[None, None].compute().item()
    assert whole == pytest.approx(values["c0_fd_biased_sgv"].item(), rel=1e-6)
    # 101 real rows and 90 fake ones
    cut = frechet_distance_from_features(
        metrics[101, 101].features()[0], metrics[90, 90].features()[1]
    )
    assert cut.item() == pytest.approx(values["c0_fd_biased_sgv_max"].item(), rel=1e-6)


def test_order_and_parts_of_the_clips_do_not_matter():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    one = filled(fvd(), size=30).compute().item()
    for size in (1, 13):
        other = filled(fvd(), real=REAL[order], fake=FAKE.flip(0), size=size).compute().item()
        assert other == pytest.approx(one, rel=1e-9)
    assert abs(filled(fvd(), fake=REAL[order]).compute().item()) < 1e-9


def test_half_precision_of_a_module_around_it_changes_nothing():
    class Around(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.fvd = fvd()

    around = Around().to(torch.bfloat16)
    assert list(around.parameters()) == []
    assert around.state_dict() == {}
    found = filled(around.fvd).compute().item()
    assert found == pytest.approx(filled(fvd()).compute().item(), rel=1e-12)


def test_kernel_distance_and_its_collection():
    metrics = MetricCollection(
        {"fvd": fvd(), "kvd": KernelVideoDistance(Small(), **OPTIONS, max_items=25)}
    )
    for part in REAL.split(7):
        metrics.update(part, real=True)
    metrics.update(FAKE, real=False)
    found = metrics.compute()
    expected = polynomial_mmd(features(REAL[:25]), features(FAKE)).item()
    assert found["kvd"].item() == pytest.approx(expected, rel=1e-6)
    assert found["fvd"].item() == pytest.approx(filled(fvd()).compute().item(), rel=1e-9)


def test_metrics_of_a_collection_share_only_what_they_both_want():
    """A collection lets metrics with equal states share them after the first batch."""
    metrics = MetricCollection({
        "few": fvd(max_items=8, reset_real_features=False),
        "all": fvd(max_items=None),
        "inception": VideoInceptionScore(
            Small(), protocol="stylegan_v", splits=1, num_classes=6, clip_length=4
        ),
    })  # fmt: skip
    for part in REAL.split(8):
        metrics.update(part, real=True)
    metrics.update(FAKE, real=False)
    found = metrics.compute()
    assert found["all"].item() == pytest.approx(filled(fvd()).compute().item(), rel=1e-9)
    assert found["few"].item() == pytest.approx(filled(fvd(max_items=8)).compute().item(), rel=1e-9)
    assert found["inception"].num_clips == len(FAKE)
    metrics.reset()
    assert [len(metrics[name].rows("real")) for name in ("few", "all")] == [8, 0]


def test_clips_of_processes_have_one_size():
    def gathered(value, group):
        return [value, value.flip(0) if value.shape == (3,) else value]

    metric = filled(fvd(dist_sync_fn=gathered, distributed_available_fn=lambda: True))
    with pytest.raises(InputError, match=r"sizes \(4 frames of 7 x 9, 9 frames of 7 x 4\)"):
        metric.compute()


def test_reset_keeps_real_clips_where_asked():
    metric = filled(fvd(reset_real_features=False))
    first = metric.compute().item()
    metric.reset()
    with pytest.raises(InputError, match="needs at least 2 clips of each set, got 0 fake"):
        metric.compute()
    metric.update(FAKE, real=False)
    assert metric.compute().item() == pytest.approx(first, rel=1e-12)
    with pytest.raises(InputError, match="after 4 of 7 x 9"):
        metric.update(clips(2, size=(8, 9)), real=False)
    forgets = filled(fvd())
    forgets.reset()
    with pytest.raises(InputError, match="got 0 real and 0 fake"):
        forgets.compute()


def test_real_features_travel_in_a_state_dict(tmp_path):
    metric = filled(fvd(reset_real_features=False))
    torch.save(metric.state_dict(), tmp_path / "metric.pt")
    again = fvd(reset_real_features=False)
    again.load_state_dict(torch.load(tmp_path / "metric.pt", weights_only=True))
    again.update(FAKE, real=False)
    assert again.compute().item() == pytest.approx(metric.compute().item(), rel=1e-12)
    with pytest.raises(InputError, match="after 4 of 7 x 9"):
        again.update(clips(2, size=(8, 9)), real=True)


class Measures(pl.LightningModule):
    """Real clips once, generated ones at every validation."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.fvd = fvd(reset_real_features=False, compute_with_cache=False)
        self.found = []

    def training_step(self, batch, index):
        return self.weight.sum()

    def on_validation_start(self):
        if not self.found and not len(self.fvd.rows("real")):
            self.fvd.update(REAL, real=True)

    def validation_step(self, batch, index):
        self.fvd.update(batch, real=False)
        self.log("val/fvd", self.fvd, on_epoch=True)

    def on_validation_epoch_end(self):
        self.found.append(self.fvd.compute().item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(FAKE, batch_size=20)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(FAKE, batch_size=9)


def test_in_lightning_and_its_checkpoint(tmp_path):
    options = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": tmp_path,
        "num_sanity_val_steps": 0, "limit_train_batches": 1,
    }  # fmt: skip
    expected = filled(fvd()).compute().item()
    model = Measures()
    trainer = pl.Trainer(max_epochs=2, **options)
    trainer.fit(model)
    assert trainer.callback_metrics["val/fvd"].item() == pytest.approx(expected, rel=1e-6)
    assert model.found == pytest.approx([expected] * 2, rel=1e-9)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = Measures()
    pl.Trainer(max_epochs=3, **options).fit(resumed, ckpt_path=tmp_path / "a.ckpt")
    assert len(resumed.fvd.rows("real")) == 30
    assert resumed.found == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (FAKE.float(), r"FrechetVideoDistance needs a video, uint8 .* lit_ssl.metrics.to_uint8"),
        (FAKE.transpose(1, 2), r"move the frames to the front: video.transpose\(1, 2\)"),
        (FAKE[0], r"got torch.uint8 \[4, 3, 7, 9\]"),
        (FAKE[:, :3], "got clips of 3 frames, clip_length is 4"),
    ],
)
def test_wrong_videos_add_nothing(video, message):
    metric = fvd()
    with pytest.raises(InputError, match=message):
        metric.update(video, real=False)
    assert len(metric.rows("fake")) == 0


def test_mistakes():
    with pytest.raises(InputError, match="Small gives 6 features for each clip, num_features is 7"):
        fvd(num_features=7).update(FAKE, real=True)
    with pytest.raises(InputError, match="no value for one batch"):
        fvd()(FAKE, real=True)
    with pytest.raises(InputError, match="protocol must be 'stylegan_v' or 'tats', not 'digan'"):
        fvd(protocol="digan")
    with pytest.raises(InputError, match="max_items must be at least 1, not 0"):
        fvd(max_items=0)
    with pytest.raises(InputError, match=r"max_items must be an integer, not 2.5"):
        fvd(max_items=2.5)
    for value in ("fake", torch.ones(23).bool()):
        with pytest.raises(InputError, match=r"real must be True or False, not (str|Tensor)"):
            fvd().update(FAKE, real=value)
    with pytest.raises(InputError, match="got ndarray"):
        fvd().update(FAKE.numpy(), real=True)
    assert fvd().card()["clip_length"] is None
    with pytest.raises(InputError, match="got 1 fake"):
        filled(fvd(), fake=FAKE[:1]).compute()
    broken = torch.rand(30, 6)
    broken[[3, 17], 2] = torch.nan
    broken[20, 1] = torch.inf
    metric = FrechetVideoDistance(Rows(broken), 6)
    metric.update(numbered(30), real=True)
    metric.update(numbered(2), real=False)
    with pytest.raises(InputError, match=r"the features of 3 of 30 real clips are NaN or infinite"):
        metric.compute()


def test_few_clips_are_said():
    with pytest.warns(UserWarning, match="of 30 real and 23 fake clips: .* are of 2,048"):
        filled(fvd()).compute()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled(RandomFeatureDistance(8)).compute()
        filled(KernelVideoDistance(Small(), **OPTIONS)).compute()


def test_an_interval_is_as_wide_as_new_clips_spread():
    """Against the spread of distances of 40 sets that were really drawn anew."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(60, 3, generator=generator) + shift for shift in (0, 1))
    spread = torch.stack([
        frechet_distance_from_features(
            torch.randn(60, 3, generator=generator), torch.randn(60, 3, generator=generator) + 1
        )
        for _ in range(40)
    ]).std()  # fmt: skip
    found = bootstrap_interval(frechet_distance_from_features, real, fake)
    value = frechet_distance_from_features(real, fake).item()
    assert 0.6 < found.std / spread.item() < 1.6
    assert found.low < value < found.high
    assert found == bootstrap_interval(frechet_distance_from_features, real, fake)
    assert found != bootstrap_interval(frechet_distance_from_features, real, fake, seed=1)
    with pytest.raises(InputError, match="at least 20 replicates"):
        bootstrap_interval(frechet_distance_from_features, real, fake, replicates=3)


def test_halves_of_real_clips():
    rows = torch.randn(41, 3, generator=torch.Generator().manual_seed(0)).double()
    found = self_distance(frechet_distance_from_features, rows)
    assert 0 < found < 1
    assert found == self_distance(frechet_distance_from_features, rows)
    halves = []
    self_distance(lambda a, b: halves.extend([a, b]) or torch.zeros(()), rows)
    assert [len(half) for half in halves] == [20, 20]
    assert len(torch.cat(halves).unique(dim=0)) == 40
    with pytest.raises(InputError, match="need 4 real clips, got 3"):
        self_distance(frechet_distance_from_features, rows[:3])


# Several processes: shares as loaders give them (every W-th clip), one with few, one without any

CUTS = (None, 11, 7)


def make(cut):
    options = {"num_features": 6, "clip_length": 4, "max_items": cut}
    score = VideoInceptionScore(
        Small(), protocol="stylegan_v", splits=2, num_classes=6, clip_length=4, max_items=cut
    )
    return [
        fvd(max_items=cut), fvd(max_items=cut, reset_real_features=False, protocol="tats"),
        KernelVideoDistance(Small(), **options), RandomFeatureDistance(8, max_items=cut), score,
    ]  # fmt: skip


def give(metrics, real, fake):
    for metric in metrics:
        for part in fake.split(4):
            if isinstance(metric, VideoInceptionScore):
                metric.update(part)
            else:
                metric.update(part, real=False)
        if not isinstance(metric, VideoInceptionScore):
            for part in real.split(3):
                metric.update(part, real=True)


def as_numbers(metrics):
    *distances, score = (metric.compute() for metric in metrics)
    return torch.stack([*distances, score.mean, score.std])


def whole(world, cut):
    """What one process finds; with unequal shares the order is that of the places."""
    metrics = make(cut)
    real, fake = shares(world)
    give(metrics, in_order(real), in_order(fake))
    return as_numbers(metrics)


def shares(world):
    """Real clips: every W-th; generated ones: few on rank 1, none on rank 2."""
    unequal = [FAKE[:17], FAKE[17:20], FAKE[:0]][:world]
    return [REAL[rank::world] for rank in range(world)], unequal


def in_order(parts):
    """First the first clip of each process, then the second ones."""
    longest = max(map(len, parts))
    return torch.cat([part[i : i + 1] for i in range(longest) for part in parts])


def check_checkpoints(rank, world, share, single, metric):
    """One of several processes holds a share: forgotten, and said. One of a single: loaded once."""
    with pytest.warns(UserWarning, match=f"clips of one of {world} processes only"):
        metric.load_state_dict(share)
    assert len(metric.rows("real")) == 0
    metric.load_state_dict(single)
    assert len(metric.rows("real")) == (30 if rank == 0 else 0)


def run_thread(rank, world, barrier, board, expected):
    def gather(tensor, group=None):
        board[rank] = tensor
        barrier.wait(timeout=20)
        found = list(board)
        barrier.wait(timeout=20)
        return found

    for cut in CUTS:
        metrics = make(cut)
        for metric in metrics:
            metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
        give(metrics, *(part[rank] for part in shares(world)))
        torch.testing.assert_close(as_numbers(metrics), expected[cut], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("world", [2, 3])
def test_shares_are_put_together(world, monkeypatch):
    local = threading.local()
    expected = {cut: whole(world, cut) for cut in CUTS}
    single = filled(fvd(reset_real_features=False)).state_dict()
    monkeypatch.setattr(clip_features, "world_size", lambda: world)
    monkeypatch.setattr(clip_features, "process_rank", lambda: local.rank)
    barrier, board = threading.Barrier(world), [None] * world

    def run(rank):
        local.rank = rank
        run_thread(rank, world, barrier, board, expected)

    with ThreadPoolExecutor(world) as pool:
        for done in [pool.submit(run, rank) for rank in range(world)]:
            done.result()
    for local.rank in range(world):
        share = filled(fvd(reset_real_features=False)).state_dict()
        check_checkpoints(local.rank, world, share, single, fvd(reset_real_features=False))


def run_rank(rank, world, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    warnings.simplefilter("ignore")
    expected = torch.load(Path(folder, "expected.pt"), weights_only=True)
    for cut in CUTS:
        metrics = make(cut)
        give(metrics, *(part[rank] for part in shares(world)))
        torch.testing.assert_close(as_numbers(metrics), expected[cut], rtol=1e-6, atol=1e-8)
    single = torch.load(Path(folder, "single.pt"), weights_only=True)
    check_checkpoints(rank, world, metrics[1].state_dict(), single, fvd(reset_real_features=False))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 3])
def test_processes_find_what_one_finds(world, tmp_path):
    metric = filled(fvd(reset_real_features=False))
    expected = {cut: whole(world, cut) for cut in CUTS}
    torch.save(expected, tmp_path / "expected.pt")
    torch.save(metric.state_dict(), tmp_path / "single.pt")
    mp.spawn(run_rank, (world, str(tmp_path)), nprocs=world)
