"""ListOps as a data module: drawn, kept, and read from the benchmark's files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from lit_ssl.datamodules import ListOpsDataModule
from lit_ssl.errors import InputError
from lit_ssl.text.listops import evaluate, parse

SMALL = {"sizes": (23, 5, 7), "min_length": 10, "max_length": 60, "max_depth": 3, "max_args": 5}


def sequences(data, split):
    tokens = data.rows(split).source.tokens
    return [bytes(part) for part in np.split(tokens.ids, tokens.starts[1:-1])]


def test_drawn_expressions_and_their_values():
    data = ListOpsDataModule(**SMALL, batch_size=4)
    assert (data.vocab_size, data.pad_id, data.max_length, data.num_classes) == (16, 0, 60, 10)
    data.setup()
    for split, size in zip(("train", "val", "test"), SMALL["sizes"], strict=True):
        found = sequences(data, split)
        assert [evaluate(symbols) for symbols in found] == data.labels(split).tolist()
        assert len(found) == size
    batches = list(data.val_dataloader())
    assert [len(labels) for _, labels in batches] == [4, 1]
    for inputs, _ in batches:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert torch.equal(ids > 0, mask == 1)
        assert ids.max() <= 15


def test_expressions_do_not_hang_on_the_seed_of_the_run():
    data = [ListOpsDataModule(**SMALL, seed=seed) for seed in (0, 1)]
    assert sequences(data[0], "train") == sequences(data[1], "train")
    other = ListOpsDataModule(**SMALL, expression_seed=1)
    assert not set(sequences(other, "train")) & set(sequences(data[0], "train"))


def test_kept_expressions_are_those_that_would_be_drawn(tmp_path, monkeypatch):
    drawn = ListOpsDataModule(**SMALL)
    drawn.setup()
    data = ListOpsDataModule(**SMALL, cache_dir=str(tmp_path))
    data.prepare_data()
    (folder,) = tmp_path.iterdir()
    assert folder.name == "listops_23-5-7_length10-60_depth3_args5_seed0"
    monkeypatch.setattr("lit_ssl.datamodules.sequences.listops.distinct_expressions", None)
    again = ListOpsDataModule(**SMALL, cache_dir=str(tmp_path))
    again.prepare_data()
    read = ListOpsDataModule(root=str(folder), max_length=60)
    for split in ("train", "val", "test"):
        assert sequences(again, split) == sequences(read, split) == sequences(drawn, split)
        assert again.labels(split).tolist() == drawn.labels(split).tolist()
    lines = (folder / "basic_val.tsv").read_bytes().splitlines(keepends=True)
    (folder / "basic_val.tsv").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InputError, match="holds 4 expressions instead of 5: delete it"):
        ListOpsDataModule(**SMALL, cache_dir=str(tmp_path)).setup("validate")


def test_a_cache_that_is_lost_after_the_start_is_drawn_again(tmp_path):
    data = ListOpsDataModule(**SMALL, cache_dir=str(tmp_path))
    assert len(data.rows("test")) == 7


@pytest.fixture
def release(tmp_path):
    """Folder that holds lra_release/listops-1000."""
    folder = tmp_path / "lra_release" / "listops-1000"
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        rows = [
            f"( ( ( [MAX {number} ) 8 ) ] )\t8",
            f"( ( ( ( [SM ( ( ( [MED 5 ) 8 ) ] ) ) 9 ) {number} ) ] )\t{(15 + number) % 10}",
        ]
        content = "\r\n".join(["Source\tTarget", *rows]) + "\r\n"
        (folder / f"basic_{split}.tsv").write_bytes(content.encode())
    return tmp_path


def test_files_of_the_benchmark(release, caplog):
    data = ListOpsDataModule(root=str(release))
    with caplog.at_level("INFO"):
        data.setup()
    assert "train: 2 expressions of 2 of 10 classes (none of 0, 1, 2, …) in" in caplog.text
    assert sequences(data, "val") == [parse("[MAX 1 8 ]"), parse("[SM [MED 5 8 ] 9 1 ]")]
    assert data.labels("test").tolist() == [8, 7]


def test_a_part_of_an_expression_is_never_used(release):
    data = ListOpsDataModule(root=str(release), max_length=7)
    with pytest.raises(InputError, match=r"2 train expressions .* max_length to at least 8"):
        data.setup("fit")


def test_a_file_that_is_missing(release):
    (release / "lra_release" / "listops-1000" / "basic_val.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ListOps: expected basic_val\.tsv in"):
        ListOpsDataModule(root=str(release)).setup("fit")


def test_options_that_do_not_go_together(tmp_path):
    with pytest.raises(InputError, match="leave out cache_dir"):
        ListOpsDataModule(root=str(tmp_path), cache_dir=str(tmp_path))
    with pytest.raises(InputError, match="sizes are those of train"):
        ListOpsDataModule(sizes=(0, 1, 1))
    with pytest.raises(InputError, match="lower min_length, now 500"):
        ListOpsDataModule(max_depth=3)


def test_from_yaml():
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_object(
        {
            "data": {
                "class_path": "lit_ssl.datamodules.ListOpsDataModule",
                "init_args": {**SMALL, "sizes": [4, 2, 2], "batch_size": 2},
            }
        }
    )
    data = parser.instantiate_classes(config).data
    assert len(list(data.train_dataloader())) == 2


def test_blank_lines_are_no_expressions(tmp_path):
    (tmp_path / "basic_train.tsv").write_text("Source\tTarget\n\n[MAX 2 9 ]\t9\n   \n7\t7\n")
    data = ListOpsDataModule(root=str(tmp_path))
    assert data.labels("train").tolist() == [9, 7]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    data = ListOpsDataModule(**SMALL, cache_dir=str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write .*: set cache_dir to a folder where"):
        data.prepare_data()
