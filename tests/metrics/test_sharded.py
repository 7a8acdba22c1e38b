"""Banks in shards on three processes: what comes out is what the joined bank gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_ssl import distributed
from lit_ssl.metrics import (
    ShardedFeatures,
    knn,
    knn_neighbours,
    knn_predict,
    sharded_knn,
    sharded_soft_nn,
    soft_nearest_neighbor,
)

WORLD, CLASSES = 3, 12
LAYOUTS = {
    "in turn": lambda row, count: row % WORLD,
    "in blocks": lambda row, count: row * WORLD // count,
    "one process has nothing": lambda row, count: 2 * (row % 2),
    "one process has nearly all": lambda row, count: 1 if row < count - 2 else 0,
}


def problem(kind):
    """Bank, its labels, queries; similarities of the tied ones are exact and mostly equal."""
    generator = torch.Generator().manual_seed(len(kind))
    bank, queries = (torch.randn(n, 4, generator=generator) for n in (97, 41))
    if kind == "tied":
        bank, queries = bank.sign(), queries.sign()  # norm 2: all cosines are multiples of 1/2
    if kind == "all equal":
        bank, queries = torch.ones_like(bank), torch.ones_like(queries)
    if kind == "not a number":
        bank[5] = torch.nan
    if kind == "queries not a number":
        queries[3], queries[7] = torch.inf, torch.nan
    return bank, torch.randint(0, CLASSES, (97,), generator=generator), queries


KINDS = ("random", "tied", "all equal", "not a number", "queries not a number")


def shard(features, labels, layout, rank):
    """Shard of a process, with junk and copies in between that are no rows of the split."""
    rows = torch.tensor([r for r in range(len(features)) if layout(r, len(features)) == rank])
    stored = torch.cat([torch.full((2, features.shape[1]), 9.0), features[rows.long()].flip(0)])
    places = torch.arange(len(stored) - 1, 1, -1)
    return ShardedFeatures(stored, places, rows.long(), labels)


def measured(split):
    """All that is asked of shards; `split` makes those of a process."""
    found = {}
    for kind in KINDS:
        bank, labels, queries = problem(kind)
        asked = split(queries, torch.zeros(len(queries), dtype=torch.int64))
        found[kind, "knn"] = sharded_knn(split(bank, labels), asked, CLASSES, k=7, top=5)
        found[kind, "k capped"] = sharded_knn(split(bank, labels), asked, CLASSES, k=500, top=5)
        if kind != "tied":  # sums in another order may rank equal classes in another one
            found[kind, "soft"] = sharded_soft_nn(split(bank, labels), asked, CLASSES, 0.1, top=5)
        few = torch.arange(3, 97, 31)
        found[kind, "few"] = sharded_knn(split(bank, labels).pick(few), asked, CLASSES, k=2)
        found[kind, "picked"] = split(bank, labels).pick(few).everywhere()
        found[kind, "everywhere"] = split(bank, labels).everywhere()
        found[kind, "rank zero"] = split(bank, labels).on_rank_zero()
    shards = split(*problem("tied")[:2])
    whole = shards.on_rank_zero()
    asked = split(problem("tied")[2], torch.zeros(41, dtype=torch.int64))
    found["after gathering"] = sharded_knn(shards, asked, CLASSES, k=7, top=5)
    assert whole is None or whole.data_ptr() == shards.stored.data_ptr()  # no second copy
    again = shards.everywhere()
    assert shards.everywhere().data_ptr() == again.data_ptr()
    assert shards.on_rank_zero() is None or torch.equal(again, shards.on_rank_zero())
    return found


def run_rank(rank, folder):
    torch.set_num_threads(1)
    distributed._GATHER_BYTES = 400  # several pieces, of unequal lengths
    knn._BANK_CHUNK = 10
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    found = {
        name: measured(lambda f, n, layout=layout: shard(f, n, layout, rank))
        for name, layout in LAYOUTS.items()
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    mp.spawn(run_rank, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def alone():
    return measured(lambda f, n: shard(f, n, lambda row, count: 0, 0))


@pytest.mark.distributed
@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_processes_find_what_one_finds(processes, alone, layout):
    for rank, found in enumerate(processes):
        for key, value in alone.items():
            if key[1] == "rank zero" and rank:
                assert found[layout][key] is None
            else:
                both = torch.as_tensor(found[layout][key]), torch.as_tensor(value)
                torch.testing.assert_close(*both, rtol=0, atol=0, equal_nan=True, msg=str(key))


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_finds_what_the_plain_functions_find(alone, kind):
    bank, labels, queries = problem(kind)
    assert torch.equal(alone[kind, "knn"], knn_predict(bank, labels, queries, CLASSES, 7, top=5))
    assert torch.equal(alone[kind, "rank zero"].nan_to_num(), bank.nan_to_num())
    if kind == "tied":
        return
    probs = soft_nearest_neighbor(queries, bank, labels, 0.1, CLASSES)
    lost = probs.isnan().any(dim=1)
    assert torch.equal(alone[kind, "soft"][~lost, 0], probs[~lost].argmax(1))
    assert (alone[kind, "soft"][lost] == -2).all()


def test_of_equally_similar_rows_the_earlier_count(monkeypatch):
    bank, _, queries = problem("tied")
    cosine = (queries @ bank.T) / 4
    expected = torch.stack([
        torch.tensor(sorted(range(97), key=lambda row: (-line[row].item(), row))[:9])
        for line in cosine
    ])  # fmt: skip
    for chunk, block in ((65_536, 2**22), (10, 2**22), (97, 100)):
        monkeypatch.setattr(knn, "_BANK_CHUNK", chunk)
        monkeypatch.setattr(knn, "_TIED_BLOCK", block)
        similarity, rows = knn_neighbours(bank, queries, 9)
        assert torch.equal(rows, expected)
        assert torch.equal(similarity, cosine.gather(1, expected))


def test_rows_of_all_are_not_copied_and_some_share_memory():
    features = torch.randn(6, 3)
    labels = torch.arange(6)
    shards = ShardedFeatures(features, labels, labels, labels)
    assert shards.everywhere().data_ptr() == features.data_ptr()
    assert shards.pick(labels) is shards
    some = shards.pick(torch.tensor([1, 4]))
    assert some.stored.data_ptr() == features.data_ptr()
    assert torch.equal(some.everywhere(), features[[1, 4]])
    assert some.labels.tolist() == [1, 4]


def test_wrong_options_are_named():
    labels = torch.tensor([0, 1])
    split = ShardedFeatures(torch.zeros(2, 3), labels, labels, labels)
    with pytest.raises(ValueError, match="temperature > 0"):
        sharded_knn(split, split, 2, temperature=0.0)
    with pytest.raises(ValueError, match="from 0 to 1, expected 0 to 0"):
        sharded_knn(split, split, 1)
    with pytest.raises(ValueError, match="temperature must be positive"):
        sharded_soft_nn(split, split, 2, temperature=-1.0)
    with pytest.raises(ValueError, match="from 0 to 1, expected 0 to 0"):
        sharded_soft_nn(split, split, 1)
