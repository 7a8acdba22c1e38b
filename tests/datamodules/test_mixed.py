"""Epochs of a mixture, long lists in JSON, and lists of strings in two arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lit_ssl.datamodules.loading.mixed import MixedEpochSampler
from lit_ssl.datamodules.reading import json_stream
from lit_ssl.datamodules.reading.images import ArrayImages, PackedStrings
from lit_ssl.datamodules.reading.joined_images import JoinedImages
from lit_ssl.datamodules.reading.json_stream import json_items
from lit_ssl.errors import InputError

SOURCES = np.array([0] * 50 + [1] * 7 + [2] * 3)
SHARES = (0.5, 0.25, 0.25)


def sampler(source_of=SOURCES, shares=SHARES, replicas=1, rank=0, **options):
    return MixedEpochSampler(source_of, source_of, shares, replicas, rank, **options)


def test_shares_hold_in_every_epoch():
    mixture = sampler()
    assert mixture.counts.tolist() == [30, 15, 15]
    for epoch in range(5):
        order = mixture.order(epoch)
        assert np.bincount(SOURCES[order]).tolist() == [30, 15, 15]
    # shuffled together, not source after source
    assert len(set(SOURCES[order[:12]])) == 3
    # largest remainders
    assert sampler(shares=(1, 1, 1.0000001)).counts.tolist() == [20, 20, 20]
    assert sampler(shares=(1, 2, 4)).counts.tolist() == [9, 17, 34]


def test_all_of_a_source_come_before_one_comes_again():
    mixture = sampler()
    for source in range(3):
        members = np.flatnonzero(np.equal(SOURCES, source))
        drawn = np.concatenate([mixture._drawn(source, epoch) for epoch in range(20)])
        number = len(drawn) // len(members)
        passes = np.split(drawn[: number * len(members)], number)
        assert all(sorted(one) == members.tolist() for one in passes)
        assert number > 4
        assert len({tuple(one) for one in passes}) > 3


def test_an_epoch_is_a_function_of_seed_and_epoch():
    assert np.array_equal(sampler().order(3), sampler().order(3))
    assert not np.array_equal(sampler().order(3), sampler().order(4))
    assert not np.array_equal(sampler().order(3), sampler(seed=1).order(3))


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_processes_share_the_draws(replicas):
    pairs = [list(sampler(replicas=replicas, rank=rank)) for rank in range(replicas)]
    (length,) = {len(share) for share in pairs}
    drawn = [share[i] for i in range(length) for share in pairs]
    alone = list(sampler())
    assert drawn == alone[: len(drawn)]
    assert len(drawn) == len(SOURCES) // replicas * replicas
    # each draw has a seed of its own, also that of a sample which comes again
    assert len({seed for _, seed in alone}) == len(alone)


def test_resume_in_the_middle():
    whole = sampler()
    whole.set_epoch(2)
    rest = sampler()
    rest.start_at(2, 11)
    assert list(rest) == list(whole)[11:]
    assert whole.depends_on() == rest.depends_on() != sampler(shares=(2, 1, 1.2)).depends_on()


def test_sources_that_never_come():
    with pytest.raises(InputError, match="source 1 gives 0 of 60 samples"):
        sampler(shares=(1, 1e-6, 1))
    with pytest.raises(InputError, match="source 3 gives 15 of 60 samples to an epoch, and has 0"):
        sampler(shares=(1, 1, 1, 1))


# JSON


@pytest.fixture
def write(tmp_path):
    def make(text, encoding="utf-8"):
        path = tmp_path / "list.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return make


ITEMS = [
    {"a": [1, "]},{", {"b": None}], "c": "\\\"ü\u2028"}, [], "text, with [", 12345, -1.5e3,
    True, {}, "\U0001f600" * 9, "",
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_items_of_any_size_of_pieces(write, monkeypatch, chunk, indent, ascii_only):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    options = {"indent": indent, "ensure_ascii": ascii_only}
    path = write(json.dumps(ITEMS, **options) + "\n")
    assert list(json_items(path)) == list(enumerate(ITEMS))
    content = {"first": {"images": [1]}, "n": 12, "images": ITEMS, "dataset": "x"}
    assert list(json_items(write(json.dumps(content, **options)), "images")) == list(
        enumerate(ITEMS)
    )
    assert list(json_items(write("[ ]"))) == []
    assert list(json_items(write("\ufeff[7]"))) == [(0, 7)]
    assert list(json_items(write("[7, 8]", "utf-16"))) == [(0, 7), (1, 8)]


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", r"expected ',' or '\]', found 'its end' \(at character 6\)|character 5"),
        ("[1 2]", r"expected ',' or '\]', found '2' \(at character 3\)"),
        ('[{"a": 1}, {"a" 2}]', r"Expecting ':' delimiter \(at character 16\)"),
        ('[{"a": "b', r"Unterminated string .*\(at character 7\)"),
        ("[1,]", r"Expecting value \(at character 3\)"),
        ("[1] x", "expected the end of the file after its list"),
        ("{}", r"expected '\[', found '\{'"),
        ("", "expected '.', found 'its end'"),
        (b"[\"\xff\"]", "is no text in UTF-8"),
    ],
)  # fmt: skip
def test_broken_lists_say_where(write, monkeypatch, chunk, text, message):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    with pytest.raises(InputError, match=message) as caught:
        list(json_items(write(text)))
    assert "list.json" in str(caught.value)


def test_lists_in_lists_without_end(write):
    with pytest.raises(InputError, match="is not the JSON that was expected"):
        list(json_items(write("[" * 100_000)))


def test_a_mistake_is_found_without_reading_on(write):
    path = write("[1, x" + "1" * 5_000_000)
    file = path.open()
    reader = json_stream._Reader(file)
    reader.expect("[")
    with pytest.raises(Exception, match="Expecting value"):
        list(json_stream._items(reader))
    assert file.tell() < 3_000_000


# Strings and images


def test_packed_strings(monkeypatch):
    texts = ["", "a", "Käse 猫", "", "\udcff", "b" * 300]
    packed = PackedStrings(iter(texts))
    assert list(packed) == packed[:] == texts
    assert packed[1:4] == texts[1:4]
    rows = np.array([5, 2, 2, 0, 4])
    assert list(packed.select(rows)) == [texts[row] for row in rows]
    assert list(packed.select(np.empty(0, dtype=np.int64))) == []
    monkeypatch.setattr("lit_ssl.datamodules.reading.images._CHUNK", 2)
    assert list(packed.select(rows)) == [texts[row] for row in rows]
    joined = PackedStrings.joined([packed, PackedStrings([]), PackedStrings(["x", "y"])])
    assert list(joined) == [*texts, "x", "y"]
    assert list(PackedStrings.joined([])) == list(PackedStrings([])) == []


def test_joined_images():
    import torch

    def images(count, value):
        return ArrayImages(torch.full((count, 1, 2, 2), value, dtype=torch.uint8))

    both = JoinedImages({"a": images(3, 1), "b": images(2, 2)})
    assert [int(both.read(i)[0, 0, 0]) for i in range(len(both))] == [1, 1, 1, 2, 2]
    chosen = both.select(np.array([4, 0]))
    assert [int(chosen.read(i)[0, 0, 0]) for i in range(len(chosen))] == [2, 1]
    assert both.name(0) is None
