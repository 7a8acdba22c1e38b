"""Pairs streamed from shards: order, shares, resume, and shards as they should not be."""

from __future__ import annotations

import collections
import json
import os
import sys
import threading
import warnings

import pytest
import torch

from lit_ssl.datamodules import (
    CaptionShardsDataModule,
    CorruptImageError,
    ShardSet,
    Subset,
    TarPairs,
)
from lit_ssl.datamodules.vision_language.shard_batches import PairDecoder
from lit_ssl.datamodules.vision_language.shard_opening import shard_pairs
from lit_ssl.datamodules.vision_language.tar_members import CorruptShardError
from lit_ssl.errors import InputError
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.transforms import CropSpec, SingleView

pytest.importorskip("webdataset")


@pytest.fixture
def make(vocabulary):
    def build(shards, **kwargs):
        options = {
            "tokenizer": vocabulary,
            "num_workers": 0,
            "batch_size": 2,
            "image_size": 8,
            "mean": [0.0] * 3,
            "std": [1.0] * 3,
            "shuffle_buffer": 3,
            "seed": 0,
            "max_length": 6,
        }
        if not isinstance(shards, str | list):
            shards = str(shards)
        return CaptionShardsDataModule(shards=shards, **{**options, **kwargs})

    return build


def epochs(data, numbers, count=1):
    """The numbers of each batch of the first epochs."""
    data.setup("fit")
    loader = data.train_dataloader()
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        found.append([numbers(inputs) for inputs, _ in loader])
    return found


def flat(batches):
    return [number for batch in batches for number in batch]


# Order


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("remote", [True, False])
def test_each_pair_once_per_epoch(shards, serve, make, numbers, tmp_path, workers, remote):
    folder = shards(tmp_path / "cc", [4] * 6)
    address, asked = serve(folder)
    data = make(
        f"{address}/{{00000..00005}}.tar" if remote else folder,
        epoch_samples=24 if remote else None,
        num_workers=workers,
        streams=2,
    )
    first, second, third = epochs(data, numbers, 3)
    assert len(first) == len(data.train_dataloader()) == 12
    for epoch in (first, second, third):
        assert sorted(flat(epoch)) == list(range(24))
    assert flat(first) != flat(second)
    assert flat(first) != list(range(24))
    # Batches of the two streams alternate, and a shard is of one stream.
    of_stream = [{number // 4 for number in flat(first[stream::2])} for stream in (0, 1)]
    assert not of_stream[0] & of_stream[1]
    assert [{number // 4 for number in flat(second[stream::2])} for stream in (0, 1)] != of_stream
    fetched = collections.Counter(path for path in asked if path.endswith(".tar"))
    assert sorted(fetched) == ([f"/0000{number}.tar" for number in range(6)] if remote else [])


def test_batch(shards, make, tmp_path):
    data = make(shards(tmp_path, [3]), batch_size=3, shuffle_buffer=1, padding="max_length")
    data.setup("fit")
    ((inputs, image_numbers),) = data.train_dataloader()
    assert sorted(inputs) == ["attention_mask", "images", "input_ids", "word_ids"]
    assert inputs["images"].dtype == torch.uint8
    assert inputs["images"].shape == (3, 3, 8, 8)
    assert inputs["input_ids"].tolist() == [[2, 5 + number, 3, 0, 0, 0] for number in range(3)]
    assert inputs["word_ids"].tolist() == [[-1, 0, -1, -1, -1, -1]] * 3
    assert image_numbers.dtype == torch.int64
    assert len(set(image_numbers.tolist())) == 3
    assert image_numbers.min() >= 0
    inputs, _ = data.on_after_batch_transfer((inputs, image_numbers), 0)
    assert inputs["images"].dtype == torch.float32
    assert data.mask_id == 4
    assert data.encode(["7"])["input_ids"].tolist() == [[2, 12, 3, 0, 0, 0]]


def test_word_columns_and_json_captions(shards, make, tmp_path):
    data = make(shards(tmp_path, [2]), caption="caption")
    data.word_columns["candidates"] = lambda words: [word.isdigit() for word in words]
    data.setup("fit")
    ((inputs, _),) = data.train_dataloader()
    assert inputs["candidates"].tolist() == [[False, False, True, False]] * 2


def test_order_does_not_depend_on_workers(shards, make, numbers, tmp_path):
    folder = shards(tmp_path, [3, 5, 4, 4])
    crop = SingleView(CropSpec(size=8, scale=(0.5, 1.0), brightness=0.9))

    def run(**kwargs):
        data = make(folder, streams=4, train_transform=crop, **kwargs)
        data.setup("fit")
        return [
            (image_numbers.tolist(), inputs["images"].sum().item())
            for inputs, image_numbers in data.train_dataloader()
        ]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*worker processes in total.*")
        runs = [run(num_workers=workers) for workers in (0, 1, 2, 4)]
    assert len(runs[0]) == 8
    assert all(one == runs[0] for one in runs)
    assert run(seed=1) != runs[0]


def test_without_a_buffer_pairs_come_as_they_lie(shards, make, numbers, tmp_path):
    (batches,) = epochs(make(shards(tmp_path, [4, 4]), shuffle_buffer=1), numbers)
    assert flat(batches) in ([*range(8)], [4, 5, 6, 7, 0, 1, 2, 3])


def test_the_buffer_shuffles_evenly(shards, make, numbers, tmp_path):
    data = make(shards(tmp_path, [6]), shuffle_buffer=100, batch_size=1)
    firsts = collections.Counter(flat(one)[0] for one in epochs(data, numbers, 120))
    assert set(firsts) == set(range(6))
    assert max(firsts.values()) < 36  # 20 expected, standard deviation 4


def test_streams_of_unequal_size(shards, make, numbers, tmp_path):
    """A stream with fewer pairs begins again; one with more does not show the others."""
    data = make(shards(tmp_path, [2, 7]), streams=2, epoch_samples=8)
    (batches,) = epochs(data, numbers)
    counts = collections.Counter(flat(batches))
    assert len(flat(batches)) == 8
    assert counts[0] == counts[1] == 2
    assert len([number for number in counts if number >= 2]) == 4
    # No pair comes a second time before all of its stream have come once.
    assert len(set(flat(batches[::2]))) in (2, 4)


def test_epochs_longer_and_shorter_than_the_shards(shards, make, numbers, tmp_path):
    folder = shards(tmp_path, [3, 3])
    (batches,) = epochs(make(folder, epoch_samples=20), numbers)
    counts = collections.Counter(flat(batches))
    assert set(counts) == set(range(6))
    assert set(counts.values()) == {3, 4}
    short = epochs(make(folder, epoch_samples=2), numbers, 30)
    assert all(len(flat(one)) == 2 for one in short)
    assert {number for one in short for number in flat(one)} == set(range(6))


def test_last_batch(shards, make, numbers, tmp_path):
    folder = shards(tmp_path, [5])
    assert [len(batch) for batch in epochs(make(folder), numbers)[0]] == [2, 2]
    (batches,) = epochs(make(folder, drop_last=False), numbers)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert sorted(flat(batches)) == list(range(5))
    with pytest.warns(UserWarning, match="Only 5 training captions per process"):
        assert [len(batch) for batch in epochs(make(folder, batch_size=9), numbers)[0]] == [5]


def test_mixture(shards, make, numbers, tmp_path):
    small, large = shards(tmp_path / "a", [4, 4]), shards(tmp_path / "b", [30, 30], first=100)
    sets = [
        ShardSet(str(small), weight=3),
        ShardSet([str(large / "00000.tar"), str(large / "00001.tar")]),
    ]
    data = make(sets, epoch_samples=400, streams=2)
    first, second = (flat(one) for one in epochs(data, numbers, 2))
    share = sum(number < 100 for number in first) / 400
    assert abs(share - 0.75) < 0.07  # three standard deviations
    assert first != second
    counts = collections.Counter(number for number in first if number < 100)
    assert max(counts.values()) - min(counts.values()) <= 6  # passes, not draws with replacement
    assert set(counts) == set(range(8))
    assert flat(epochs(make(sets, epoch_samples=400, streams=2), numbers)[0]) == first


def test_same_keys_in_two_sets_are_two_images(shards, make, tmp_path):
    folders = [shards(tmp_path / name, [2]) for name in ("a", "b")]
    data = make([str(folder) for folder in folders], batch_size=4, epoch_samples=4)
    data.setup("fit")
    ((_, image_numbers),) = data.train_dataloader()
    assert len(set(image_numbers.tolist())) == 4


# Resume


@pytest.mark.parametrize("workers", [0, 2])
def test_resume(shards, make, tmp_path, fit, save_everywhere, workers):
    folder = shards(tmp_path / "cc", [3, 5, 4, 4, 2])
    crop = SingleView(CropSpec(size=8, scale=(0.5, 1.0), brightness=0.9))

    def module(workers):
        # an epoch of 9 batches ends in the middle of a turn of the streams
        return make(
            folder, streams=2, num_workers=workers, train_transform=crop, val_shards=str(folder)
        )

    saved = tmp_path / "saved"
    saved.mkdir()
    whole = fit(module(workers), callbacks=[save_everywhere(saved)])
    assert len(whole.seen) == 27
    assert len(whole.validated) == 3 * 18
    names = [path.stem for path in sorted(saved.iterdir())]
    # With other workers, too.
    chosen = names if workers == 0 else names[4::9]
    for name in chosen:
        for number in (0,) if workers == 0 else (2, 1, 0):
            rest = fit(module(number), saved / f"{name}.ckpt")
            assert rest.seen == whole.seen[int(name[:2]) :], name


def test_resuming_decodes_nothing_of_what_is_passed_over(
    shards, make, tmp_path, numbers, monkeypatch
):
    data = make(shards(tmp_path, [6, 6]), seed=3)
    (whole,) = epochs(data, numbers)
    decoded = []
    original = PairDecoder.batch
    monkeypatch.setattr(
        PairDecoder, "batch", lambda self, samples, *rest, **options: decoded.append(len(samples))
        or original(self, samples, *rest, **options),
    )  # fmt: skip
    loader = make(tmp_path, seed=3).train_dataloader()
    loader.load_state_dict({**loader.state_dict(), "batches": 4})
    assert [numbers(inputs) for inputs, _ in loader] == whole[4:]
    assert decoded == [2, 2]


def test_a_changed_order_is_said(shards, make, tmp_path, fit, save_everywhere):
    folder = shards(tmp_path / "cc", [4, 4, 4, 4])
    saved = tmp_path / "saved"
    saved.mkdir()
    fit(make(folder, streams=2), callbacks=[save_everywhere(saved)], max_epochs=1)
    with pytest.warns(
        UserWarning, match=r"order of the samples has changed since \(streams 2 -> 4"
    ):
        fit(make(folder, streams=4), saved / "03-batch.ckpt", max_epochs=1)
    (folder / "00003.tar").unlink()
    with pytest.warns(UserWarning, match=r"list_of_shards \d+ -> "):
        fit(make(folder, streams=2), saved / "03-batch.ckpt", max_epochs=1)


def test_sets_stay_out_of_checkpoints(shards, make, tmp_path, fit, save_everywhere):
    folder = shards(tmp_path / "cc", [4, 4])
    saved = tmp_path / "saved"
    saved.mkdir()
    sets = [ShardSet(str(folder))]
    whole = fit(make(sets, val_shards=sets), callbacks=[save_everywhere(saved)], max_epochs=1)
    assert fit(make(sets), saved / "01-batch.ckpt", max_epochs=1).seen == whole.seen[1:]


def test_overfitting_one_batch(shards, make, tmp_path, fit):
    seen = fit(make(shards(tmp_path / "cc", [4, 4])), overfit_batches=1).seen
    assert len(seen) == 3
    assert len({tuple(numbers) for _, _, numbers, _ in seen}) == 1


def test_steps_are_known_before_the_start(shards, make, tmp_path, fit):
    lengths = []

    class Ask(fit.__globals__["pl"].Callback):
        def on_fit_start(self, trainer, module):
            lengths.append(trainer.estimated_stepping_batches)

    fit(make(shards(tmp_path / "cc", [4, 4, 5])), callbacks=[Ask()])
    assert lengths == [3 * 6]


# Validation


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_validation_is_one_pass_in_order(shards, make, numbers, tmp_path, workers):
    folder = shards(tmp_path / "cc", [4, 0, 5])
    data = make(folder, val_shards=str(folder), num_workers=workers, streams=2)
    data.setup("validate")
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for _ in range(2):
            assert [numbers(inputs) for inputs, _ in loader] == [
                [0, 1],
                [2, 3],
                [4, 5],
                [6, 7],
                [8],
            ]


@pytest.mark.parametrize("processes", [2, 3])
def test_validation_over_processes(shards, make, numbers, tmp_path, monkeypatch, processes):
    folder = shards(tmp_path / "cc", [4, 6])
    parts = []
    for rank in range(processes):
        data = make(folder, val_shards=str(folder), batch_size=3)
        monkeypatch.setattr(data, "shard", lambda rank=rank: (processes, rank))
        data.setup("validate")
        parts.append([numbers(inputs) for inputs, _ in data.val_dataloader()])
        assert flat(parts[-1]) == list(range(rank, 10, processes))
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1  # as without a stream


def test_no_validation(shards, make, tmp_path):
    data = make(shards(tmp_path / "cc", [4]))
    assert data.val_dataloader() == []
    assert not data.validates_on_test
    with pytest.raises(InputError, match="no shards to test on: set val_shards"):
        data.setup("test")
    with pytest.raises(InputError, match="read them with TarPairs"):
        data.bank_dataloader()


# Shards, pairs and images as they should not be


def test_a_shard_that_is_cut_short(shards, make, numbers, tmp_path):
    folder = shards(tmp_path / "cc", [4, 4])
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[: 13 * 512 + 30])  # in the third sample
    with pytest.raises(CorruptShardError, match=r"00001\.tar is no whole tar .*ends in the middle"):
        epochs(make(folder), numbers)
    data = make(folder, on_corrupt="skip")
    with pytest.warns(UserWarning, match=r"There are shards that are broken, such as .*00001\.tar"):
        (batches,) = epochs(data, numbers)
    assert set(flat(batches)) <= {0, 1, 2, 3, 4, 5}
    assert len(flat(batches)) == 8
    assert data.tally.counts()["shards that are broken"] >= 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read(shards, tar, members, make, numbers, tmp_path, workers):
    bad = members(7)
    tar(
        tmp_path / "0.tar",
        [*members(0), *members(1), (bad[0][0], b"GIF89a"), *bad[1:], *members(3)],
    )
    options = {"batch_size": 4, "epoch_samples": 4, "num_workers": workers}
    options |= {"shuffle_buffer": 1, "val_shards": str(tmp_path / "0.tar")}
    with pytest.raises(CorruptImageError, match=r"0\.tar: '000000007'"):
        epochs(make(tmp_path / "0.tar", **options), numbers)
    data = make(tmp_path / "0.tar", on_corrupt="skip", **options)
    # The next pair of the batch, with its own caption and number, stands in its place.
    assert epochs(data, numbers) == [[[0, 1, 3, 3]]]
    assert data.num_corrupt == 1
    assert [numbers(inputs) for inputs, _ in data.val_dataloader()] == [[0, 1, 3]]
    options["batch_size"] = 1
    with pytest.raises(CorruptImageError, match="None of the 1 images of a batch can be read"):
        epochs(make(tmp_path / "0.tar", on_corrupt="skip", **options), numbers)


def test_what_is_left_out_is_said_once_and_counted(tar, members, make, numbers, tmp_path, caplog):
    image, fields, text = zip(*(members(number) for number in range(9)), strict=True)
    for shard in range(2):
        tar(
            tmp_path / f"{shard}.tar",
            [
                *members(3 * shard), fields[7], image[8], fields[8], *members(3 * shard),
                (text[6][0], b"\xff"), image[6], *members(3 * shard + 1),
            ],
        )  # fmt: skip
    with pytest.raises(
        CorruptShardError, match=r"The caption of .*'000000006' is no text in UTF-8"
    ):
        epochs(make(tmp_path, epoch_samples=4), numbers)
    data = make(tmp_path, epoch_samples=4, on_corrupt="skip")
    with pytest.warns(UserWarning, match="only counted") as caught:
        (batches,) = epochs(data, numbers)
    assert sorted(flat(batches)) == [0, 1, 3, 4]
    said = [str(one.message) for one in caught if "only counted" in str(one.message)]
    assert len(said) == 4
    expected = {
        "samples without an image": 2,
        "samples without a caption": 2,
        "samples that come twice": 2,
        "captions that are no text in UTF-8": 2,
    }
    assert data.tally.counts() == expected
    with caplog.at_level("INFO"):
        data.teardown("fit")
    assert "2 samples without an image; 2 samples without a caption" in caplog.text


def test_counts_of_workers_arrive(shards, tar, members, make, numbers, tmp_path):
    for shard in range(2):
        tar(
            tmp_path / f"{shard}.tar", [*members(2 * shard), members(9)[1], *members(2 * shard + 1)]
        )
    data = make(tmp_path, epoch_samples=4, num_workers=2)
    epochs(data, numbers, 2)
    assert data.tally.counts() == {"samples without an image": 4}


def test_captions_that_are_cut(tar, members, make, tmp_path):
    image = members(1)[0]
    texts = ["1 2 3 4", "1 2 3 4 5", "1"]
    entries = []
    for number, text in enumerate(texts):
        entries += [(f"{number}.png", image[1]), (f"{number}.txt", text.encode())]
    tar(tmp_path / "0.tar", entries)
    data = make(tmp_path, batch_size=3, epoch_samples=3)
    data.setup("fit")
    with pytest.warns(UserWarning, match=r"captions longer than max_length \(cut\), such as .*'1'"):
        ((inputs, _),) = data.train_dataloader()
    assert inputs["input_ids"].shape == (3, 6)
    assert data.tally.counts() == {"captions longer than max_length (cut)": 1}


def test_no_pairs(tar, make, numbers, tmp_path):
    tar(tmp_path / "0.tar", [])
    tar(tmp_path / "1.tar", [("a.json", b"{}")])
    data = make(tmp_path, epoch_samples=4, val_shards=str(tmp_path))
    with pytest.raises(InputError, match=r"No pair .* in 2 shards: .*Expected <key>\.jpg"):
        epochs(data, numbers)
    with pytest.raises(InputError, match="No pair of an image and a caption"):
        list(data.val_dataloader())


# URLs and commands


def test_addresses_that_do_not_answer(shards, serve, make, numbers, tmp_path):
    folder = shards(tmp_path / "cc", [2])
    address, _ = serve(folder)
    urls = [f"{address}/00000.tar", f"{address}/00001.tar"]
    message = r"00001\.tar is no whole tar .*status 22, an HTTP error"
    with pytest.raises(CorruptShardError, match=message):
        epochs(make(urls, epoch_samples=4), numbers)
    data = make(urls, epoch_samples=4, on_corrupt="skip")
    with pytest.warns(UserWarning, match="shards that are broken"):
        assert sorted(flat(epochs(data, numbers)[0])) == [0, 0, 1, 1]
    with pytest.raises(CorruptShardError, match="status 7, no connection"):
        epochs(make("http://127.0.0.1:9/{0..1}.tar", epoch_samples=2), numbers)


def test_a_shard_that_breaks_off_while_it_is_fetched(shards, serve, make, numbers, tmp_path):
    folder = shards(tmp_path / "cc", [3])
    address, _ = serve(folder)
    path = folder / "00000.tar"
    path.write_bytes(path.read_bytes()[: 12 * 512])
    with pytest.raises(CorruptShardError, match="ends before its end mark"):
        epochs(make(f"{address}/00000.tar", epoch_samples=4), numbers)


def test_a_command_runs_only_where_it_is_allowed(shards, make, numbers, tmp_path):
    folder = shards(tmp_path / "cc", [2, 2])
    shard = f"pipe:cat {folder}/{{00000..00001}}.tar && touch {tmp_path}/ran"
    data = make(shard, epoch_samples=4)
    with pytest.raises(InputError, match=r"runs a command of the shell .*set allow_pipe: true"):
        data.setup("fit")
    with pytest.raises(InputError, match="runs a command"):
        data.train_dataloader()
    with pytest.raises(InputError, match="runs a command"):
        make(folder, val_shards=shard).setup("fit")
    assert not (tmp_path / "ran").exists()
    (batches,) = epochs(make(shard, epoch_samples=4, allow_pipe=True), numbers)
    assert sorted(flat(batches)) == [0, 1, 2, 3]
    assert (tmp_path / "ran").exists()
    with pytest.raises(CorruptShardError, match="no whole tar"):
        epochs(make("pipe:false", epoch_samples=2, allow_pipe=True), numbers)


def test_a_stream_that_is_left_ends_its_command(shards, tmp_path):
    """A command that never ends must not be waited for."""
    folder = shards(tmp_path / "cc", [2])
    command = f"pipe:echo $$ >{tmp_path}/pid; head -c 6144 {folder}/00000.tar; exec sleep 600"
    pairs = shard_pairs(command, "txt", left_out=None)
    assert next(pairs).caption == "0"
    process = int((tmp_path / "pid").read_text())
    os.kill(process, 0)  # it runs
    leaving = threading.Thread(target=pairs.close, daemon=True)
    leaving.start()
    leaving.join(60)
    assert not leaving.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_fsspec_opens_other_addresses(shards, make, numbers, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    folder = shards(tmp_path / "cc", [2, 3])
    memory = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        memory.pipe(f"/cc/{path.name}", path.read_bytes())
    (batches,) = epochs(make("memory://cc/{00000..00001}.tar", epoch_samples=4), numbers)
    assert len(set(flat(batches))) == 4
    with pytest.raises(CorruptShardError, match=r"memory://cc/7\.tar cannot be opened"):
        epochs(make("memory://cc/7.tar", epoch_samples=4), numbers)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("nowhere://a/0.tar", "neither webdataset nor fsspec opens nowhere://"),
        ("http://host/*.tar", r"cannot be listed, since it is a URL: write the numbers"),
        ("http://host/0.tar", "epoch_samples is needed, since nothing here tells"),
        ("/no/such/*.tar", "not there"),
    ],
)
def test_shards_that_cannot_be_opened_or_counted(make, shards, message):
    with pytest.raises(InputError, match=message):
        make(shards).setup("fit")


def test_packages_that_are_missing(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset.gopen", None)
    with pytest.raises(ImportError, match=r"pip install 'lit-ssl\[webdataset\]'"):
        make("http://host/0.tar", epoch_samples=4).setup("fit")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match="curl, which is not installed"):
        make("http://host/0.tar", epoch_samples=4).setup("fit")


# Options


def test_counts_of_img2dataset(shards, make, tmp_path):
    folder = shards(tmp_path, [3, 4])
    assert make(folder).train_samples == 7
    nothing = shards(tmp_path / "nothing", [0])
    with pytest.raises(InputError, match="count no pair in all shards"):
        make(nothing).setup("fit")
    (folder / "00001_stats.json").write_text(json.dumps({"count": 3}))
    with pytest.raises(InputError, match=r"00001_stats\.json does not tell .*set epoch_samples"):
        make(folder).setup("fit")
    (folder / "00001_stats.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*00001_stats\.json to count"):
        make(folder).setup("fit")
    make(folder, epoch_samples=7).setup("fit")


def test_more_streams_than_shards(shards, make, tmp_path, monkeypatch):
    folder = shards(tmp_path, [3, 4, 3])
    data = make(folder, streams=2)
    data.setup("fit")
    monkeypatch.setattr(data, "shard", lambda: (2, 0))
    message = "3 shards, such as .* cannot be shared among 2 processes with 2 streams each"
    with pytest.raises(InputError, match=message):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": CorpusWordPiece("x")}, "train it once on some of the shards with TarPairs"),
        ({"tokenizer": "bytes"}, "needs words to mask"),
        ({"epoch_samples": 0}, "epoch_samples must be at least 1"),
        ({"streams": 0}, "streams must be at least 1"),
        ({"streams": 3, "num_workers": 2}, "multiple of num_workers"),
        ({"shuffle_buffer": 0}, "shuffle_buffer must be at least 1"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be"),
        ({"other_images": True}, "texts are matched with other images of their batch"),
        ({"subset": Subset(per_class=1)}, "no rows to choose a subset from"),
    ],
)
def test_wrong_options(make, options, message):
    with pytest.raises(InputError, match=message):
        make("x.tar", **options)


def test_names_and_sets_are_not_mixed(make):
    with pytest.raises(InputError, match="not both"):
        make(["a.tar", ShardSet("b.tar")])
    with pytest.raises(InputError, match=r"ShardSet\.weight must be above 0"):
        ShardSet("b.tar", weight=0)


def test_both_ways_read_the_same(shards, make, numbers, tmp_path):
    folder = shards(tmp_path, [5, 4])
    rows = TarPairs(str(folder)).load_rows("train")
    (batches,) = epochs(make(folder, drop_last=False), numbers)
    assert sorted(map(str, flat(batches))) == sorted(rows.source.texts)
