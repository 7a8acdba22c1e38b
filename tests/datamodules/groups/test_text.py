"""CivilComments and MultiNLI, tokenized once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from lit_ssl.datamodules import CivilCommentsDataModule, MultiNLIDataModule
from lit_ssl.datamodules.groups.multinli import has_negation
from lit_ssl.errors import InputError
from lit_ssl.text.tokens import Tokens

PAD, UNK, CLS, SEP, A, CAT, NO = 0, 1, 2, 3, 5, 6, 7
DOG, SAT, ON, NEVER, S, DOT, COMMA, YOU, ARE, BAD, GOOD = 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18


@pytest.fixture
def comments(civilcomments, tokenizer):
    def make(**options):
        return CivilCommentsDataModule(root=str(civilcomments), tokenizer=tokenizer, **options)

    return make


@pytest.fixture
def pairs(multinli, tokenizer):
    def make(**options):
        return MultiNLIDataModule(root=str(multinli), tokenizer=tokenizer, **options)

    return make


def whole(loader):
    """The only batch of a loader."""
    (batch,) = loader
    return batch


# CivilComments


def test_civilcomments(comments):
    data = comments(batch_size=8)
    data.setup("fit")
    assert data.group_names == [
        "non-toxic, no identity", "non-toxic, identity", "toxic, no identity", "toxic, identity",
    ]  # fmt: skip
    assert data.group_array("train").tolist() == [3, 0, 1, 2]
    tokens, labels, groups = whole(data.bank_dataloader())
    filled = [PAD] * 6
    assert tokens["input_ids"].tolist() == [
        [CLS, YOU, ARE, BAD, SEP, *filled],
        [CLS, A, GOOD, CAT, DOT, SEP, *filled[1:]],
        [CLS, NO, UNK, CAT, S, UNK, COMMA, NO, DOG, S, SEP],
        [CLS, A, DOG, SAT, SEP, *filled],
    ]
    assert tokens["attention_mask"].sum(1).tolist() == [5, 6, 11, 5]
    assert set(tokens) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {tensor.dtype for tensor in tokens.values()} == {torch.int64}
    assert labels.tolist() == [1, 0, 0, 1]
    assert groups.tolist() == [3, 0, 1, 2]


def test_sixteen_overlapping_groups_for_evaluation(comments):
    data = comments()
    names = data.eval_group_names
    assert len(names) == 16
    _, labels, groups = whole(data.val_dataloader())
    assert labels.tolist() == [0, 1]
    assert groups.dtype == torch.bool
    assert groups.shape == (2, 16)
    assert not groups[0].any()  # 0.4 is no identity
    found = [names[place] for place in groups[1].nonzero().flatten().tolist()]
    assert found == ["muslim, toxic", "black, toxic"]
    assert data.group_array("val").tolist() == [0, 3]
    assert data.identity_array("train")[0].tolist() == [True, *[False] * 6, True]
    (place,) = whole(data.test_dataloader())[2][0].nonzero().flatten().tolist()
    assert names[place] == "male, non-toxic"


def test_training_groups_by_one_identity(comments):
    data = comments(attribute="female")
    assert data.group_array("train").tolist() == [2, 0, 1, 2]
    assert data.attribute_names == ["not female", "female"]
    with pytest.raises(ValueError, match=r"'femal' is no identity. Did you mean female\?"):
        comments(attribute="femal")


def test_length_and_padding(comments):
    data = comments(max_length=6, batch_size=8)
    tokens = whole(data.bank_dataloader())[0]
    assert tokens["input_ids"].shape == (4, 6)
    assert tokens["input_ids"][2].tolist() == [CLS, NO, UNK, CAT, S, SEP]
    fixed = whole(comments(max_length=30, padding="max_length").val_dataloader())[0]
    assert fixed["input_ids"].shape == (2, 30)
    assert fixed["attention_mask"].sum(1).tolist() == [5, 6]
    with pytest.raises(ValueError, match="padding must be 'longest' or 'max_length', got 'none'"):
        comments(padding="none")


def test_texts_are_tokenized_once_and_let_go(comments, monkeypatch):
    counted = []
    from lit_ssl.datamodules.groups import text as group_text

    tokenize = group_text.tokenize
    monkeypatch.setattr(
        group_text, "tokenize", lambda *a: counted.append(len(a[1])) or tokenize(*a)
    )
    data = comments()
    for _ in range(2):
        data.setup("fit")
        list(data.train_dataloader())
        list(data.bank_dataloader())
    assert counted == [4, 2]
    data.setup("test")
    assert counted == [4, 2, 1]
    assert not hasattr(data.rows("train").source, "first")


def test_civilcomments_errors(comments, civilcomments):
    path = civilcomments / "all_data_with_identities.csv"
    text = path.read_text()
    path.write_text(text.replace("good cat.,train,0.0", "good cat.,train,none"))
    with pytest.raises(InputError, match=r"'toxicity' \(line 3: 'none'\): expected a number"):
        comments().setup("fit")
    path.write_text(text.replace(",val,1.0", ",dev,1.0"))  # the third comment takes two lines
    with pytest.raises(InputError, match=r"'split' \(line 8: 'dev'\): expected train, val or test"):
        comments().setup("fit")
    path.write_text(text.replace("other_religions", "others"))
    with pytest.raises(InputError, match="no column 'other_religions'"):
        comments().setup("fit")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="CivilComments: expected all_data_with_identities"):
        comments().setup("fit")


@pytest.mark.parametrize("content", [None, "empty"])
def test_no_tokenizer(civilcomments, tmp_path, content):
    pytest.importorskip("transformers")
    folder = tmp_path / "nothing"
    if content:
        folder.mkdir()
    data = CivilCommentsDataModule(root=str(civilcomments), tokenizer=str(folder))
    with pytest.raises(InputError, match=r"No tokenizer at .*nothing': expected the file of a voc"):
        data.setup("fit")


# MultiNLI


def test_multinli_joins_by_row_number(pairs):
    data = pairs(batch_size=8)
    data.setup()
    assert data.class_names == ["contradiction", "entailment", "neutral"]
    assert data.num_groups == 6
    assert data.group_names[1] == "contradiction, negation"
    # pairs without a label count in the numbers, but are in no split
    assert data.group_array("train").tolist() == [4, 2, 1]
    assert data.group_array("val").tolist() == [1]
    assert data.group_array("test").tolist() == [2]
    tokens, labels, groups = whole(data.bank_dataloader())
    assert tokens["attention_mask"].sum(1).tolist() == [11, 10, 12]
    first, second, _ = tokens["input_ids"].tolist()
    assert first == [CLS, A, CAT, SAT, DOT, SEP, A, DOG, SAT, DOT, SEP, PAD]
    assert second == [CLS, A, CAT, SAT, DOT, SEP, A, CAT, DOT, SEP, PAD, PAD]
    assert tokens["token_type_ids"][0].tolist() == [0] * 6 + [1] * 5 + [0]
    assert (labels.tolist(), groups.tolist()) == ([2, 1, 0], [4, 2, 1])


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No.", True),
        ("He said: 'never'!", True),
        ("Nobody-else", False),
        ("not, none, nor", False),
        ("there is NOTHING left", True),
        ("a\nno", False),  # split at blanks only, as in the released code
    ],
)
def test_negation_rule(sentence, expected):
    assert has_negation(sentence) is expected


def test_multinli_errors(pairs, multinli):
    metadata = multinli / "data" / "metadata_random.csv"
    text = metadata.read_text()
    metadata.write_text(text.replace("0,2,0,0", "1,2,0,0"))
    with pytest.raises(InputError, match=r"1 of the 5 rows .* another label than .* first line 2"):
        pairs().setup("fit")
    metadata.write_text(text.replace("6,1,0,2", "7,1,0,2"))
    with pytest.raises(InputError, match=r"\(line 6: '7'\): expected one of the 7 rows"):
        pairs().setup("fit")
    metadata.write_text(text.replace("0,2,0,0", "0,2,1,0"))
    with pytest.warns(UserWarning, match="differ about negation in 1 rows; the file counts"):
        assert pairs().group_array("train").tolist() == [5, 2, 1]
    metadata.write_text(text)
    path = multinli / "multinli_1.0" / "multinli_1.0_dev_matched.jsonl"
    path.write_text('{"gold_label": "neutral"}\n')
    with pytest.raises(InputError, match=r"line 1 of .*dev_matched.jsonl is no pair .KeyError"):
        pairs().setup("fit")
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"expected multinli_1.0_dev_matched.jsonl in .* or"
    ):
        pairs().setup("fit")


# Both


def test_training_batches_resume_and_follow_weights(comments, tmp_path):
    data = comments(batch_size=2, seed=1)
    data.set_sampling(np.array([0, 1.0, 0, 3]))
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == 2
    rows = [label for _, labels, _ in batches for label in labels.tolist()]
    groups = [group for *_, found in batches for group in found.tolist()]
    assert set(groups) <= {0, 2}
    assert [group // 2 for group in groups] == rows
    again = comments(batch_size=2, seed=1)
    again.set_sampling(np.array([0, 1.0, 0, 3]))
    second = again.train_dataloader()
    second.load_state_dict({**loader.state_dict(), "batches": 1})
    (rest,) = second
    assert rest[0]["input_ids"].tolist() == batches[1][0]["input_ids"].tolist()


def test_workers_serve_the_new_groups(pairs):
    data = pairs(batch_size=3, num_workers=1)
    loader = data.train_dataloader()
    assert sorted(whole(loader)[2].tolist()) == [1, 2, 4]
    data.set_groups(np.array([5, 3, 0]))
    assert sorted(whole(loader)[2].tolist()) == [0, 3, 5]


def test_packed_tokens():
    ids = np.array([4, 5, 6, 7, 8, 9], dtype=np.int32)
    tokens = Tokens(ids, None, np.array([0, 2, 2, 6]), padding=1)
    batch = tokens.batch(np.array([2, 0, 1]))
    assert batch["input_ids"].tolist() == [[6, 7, 8, 9], [4, 5, 1, 1], [1, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert set(batch) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("name", ["CivilComments", "MultiNLI"])
def test_short_names(name):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    given = [f"--data={name}DataModule", "--data.root=x", "--data.tokenizer=y"]
    data = parser.instantiate_classes(parser.parse_args([*given, "--data.max_length=64"])).data
    assert (data.max_length, data.batch_size) == (64, 32)
    assert data.hparams["tokenizer"] == "y"
