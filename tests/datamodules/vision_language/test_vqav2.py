"""VQAv2 in its official layout."""

from __future__ import annotations

import json
from collections import Counter

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lit_ssl.cli.predictions import save_predictions
from lit_ssl.contracts.batches import labelled_inputs, parts_of, scored_inputs
from lit_ssl.datamodules import Subset, VQAv2DataModule
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.errors import InputError
from lit_ssl.text.corpus_wordpiece import CorpusWordPiece
from lit_ssl.text.vqa_answers import score_answer
from lit_ssl.transforms import CropSpec, KeepAspect, SingleView, normalize

# question_id (its image is the thousands), question, what the majority says, what ten people say
TRAIN = [
    (9000, "What color is the net?", "net", {"net": 8, "white": 2}),
    (9001, "How many dogs?", "2", {"2": 3, "two": 3, "3": 2, "many dogs": 2}),
    (25000, "Is it noon?", "yes", {"yes": 10}),
    (25001, "How many caf\u00e9s?", "two", {"two": 1, "yes": 2, "no": 3, "purple": 4}),
    (30000, "What color?", "purple", {"purple": 5, "violet": 5}),
]
VAL = [
    (42000, "Is it a cat?", "yes", {"yes": 4, "no": 6}),
    (42001, "Is the dog left?", "no", {"no": 10}),
    (73000, "Is it a dog?", "no", {"no": 9, "yes": 1}),
    (73001, "What is it?", "net", {"net": 2, "a net": 2, "racket": 6}),
    (74000, "What color?", "mauve", {"mauve": 10}),
    (285000, "Who?", "nobody", {"nobody": 10}),
]
TEST_DEV = [(1000, "Is it a cat?"), (14001, "Why?")]
TEST = [*TEST_DEV, (14000, "Where is the dog?")]
ANSWERS = ("net", "2", "yes", "no")  # with two majorities or more, as they first occur


def ten(given):
    """What ten people said, one by one."""
    answers = [answer for answer, count in given.items() for _ in range(count)]
    assert len(answers) == 10
    return answers


def questions(part, rows):
    listed = [
        {"image_id": row[0] // 1000, "question": row[1], "question_id": row[0]} for row in rows
    ]
    return {
        "info": {"description": "This is v2.0 of the VQA dataset.", "version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": {"url": "http://example.org", "name": "CC BY 4.0"},
        "data_subtype": part,
        "questions": listed,
    }


def annotations(part, rows):
    listed = [
        {
            "question_type": "what",
            "multiple_choice_answer": majority,
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": number}
                for number, answer in enumerate(ten(given), start=1)
            ],
            "image_id": question // 1000,
            "answer_type": "other",
            "question_id": question,
        }
        for question, _, majority, given in rows
    ]
    return {
        "info": {"description": "This is v2.0 of the VQA dataset.", "version": "2.0"},
        "license": {"url": "http://example.org", "name": "CC BY 4.0"},
        "data_subtype": part,
        "data_type": "mscoco",
        "annotations": listed,
    }


def path_of(root, kind, part):
    name = "OpenEnded_mscoco" if kind == "questions" else "mscoco"
    return root / f"v2_{name}_{part}_{kind}.json"


def image_of(question, part):
    return f"{part}/COCO_{part}_{question // 1000:012d}.jpg"


@pytest.fixture
def vqa(tmp_path):
    """Each image is grey, as light as the last digits of its number, and of a size of its own."""
    root = tmp_path / "vqa"
    root.mkdir()
    for part, rows in (("train2014", TRAIN), ("val2014", VAL)):
        path_of(root, "questions", part).write_text(json.dumps(questions(part, rows)))
        path_of(root, "annotations", part).write_text(json.dumps(annotations(part, rows)))
    for part, rows in (("test-dev2015", TEST_DEV), ("test2015", TEST)):
        path_of(root, "questions", part).write_text(json.dumps(questions(part, rows)))
    parts = (("train2014", TRAIN), ("val2014", VAL), ("test2015", TEST))
    for place, (part, row) in enumerate((part, row) for part, rows in parts for row in rows):
        path = root / image_of(row[0], part)
        path.parent.mkdir(exist_ok=True)
        shade = row[0] // 1000 % 256
        Image.new("L", (20 + 5 * place, 30), shade).save(path, quality=98)
    return root


@pytest.fixture
def make(vqa):
    def build(**options):
        options = {"image_size": 8, "num_workers": 0, "tokenizer": "bytes", **options}
        options = {"min_answers": 2, "val_images": 2, **options}
        return VQAv2DataModule(**{"root": str(vqa), **options})

    return build


def rewrite(root, kind, part, change):
    """Change a file by a function of its content, which may return another."""
    path = path_of(root, kind, part)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))
    return path


def whole(loader):
    (batch,) = loader
    return batch


def ids(data, split):
    return data.column("question_id", split).tolist()


# Answers


def test_answers_are_frequent_majorities_in_the_order_of_the_released_code(make):
    data = make()
    assert tuple(data.class_names) == ANSWERS  # "two" is "2"; before setup
    assert data.num_classes == 4
    assert tuple(make(min_answers=1).class_names) == (
        "net", "2", "yes", "purple", "no", "mauve", "nobody",
    )  # fmt: skip


def test_scores_are_those_of_the_evaluation(make):
    data = make(val_images="all")
    data.setup("fit")
    for split, rows in (("train", TRAIN), ("val", VAL)):
        given = {row[0]: ten(row[3]) for row in rows}
        loader = data.bank_dataloader() if split == "train" else data.val_dataloader()
        batch = whole(loader)
        inputs, scores = data.on_after_batch_transfer(batch, 0)
        expected = [
            [score_answer(answer, given[number]) for answer in ANSWERS]
            for number in ids(data, split)
        ]
        assert scores.dtype == torch.float32
        assert scores.is_contiguous()
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert torch.equal(data.on_after_batch_transfer((inputs, scores), 0)[1], scores)
        one = data.answer_vocabulary.scores(batch[1][:1])
        assert torch.equal(one, scores[:1])
    assert data.answer_vocabulary.scores(torch.empty(0, 10, dtype=torch.int64)).shape == (0, 4)


def test_levels_of_agreement(make):
    answers = torch.full((6, 10), -1)
    for count in range(5):
        answers[count, 3 : 3 + count] = 2
    answers[5] = torch.tensor([0, 1, 2, 3, 0, 1, 2, 0, 1, 0])
    scores = make().answer_vocabulary.scores(answers)
    np.testing.assert_allclose(scores[:5, 2], [0, 0.3, 0.6, 0.9, 1.0], atol=1e-6)
    assert scores[:5, [0, 1, 3]].abs().max() == 0
    np.testing.assert_allclose(scores[5], [1.0, 0.9, 0.6, 0.3], atol=1e-6)


def test_labels_are_the_majority(make):
    data = make(val_images="all")
    data.setup("fit")
    assert data.labels("train").tolist() == [0, 1, 2, 1]
    assert data.labels("val").tolist() == [2, 3, 3, 0, -1, -1]


def test_questions_without_a_known_answer(make, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    data = make(val_images="all")
    data.setup("fit")
    assert ids(data, "train") == [9000, 9001, 25000, 25001]
    assert ids(data, "val") == [row[0] for row in VAL]
    messages = " ".join(caplog.messages)
    assert "train: 1 of 5 questions have none of the 4 answers, and are left out" in messages
    assert "val: 2 of 6 questions have none of the 4 answers, and score 0" in messages
    _, scores = data.on_after_batch_transfer(whole(data.val_dataloader()), 0)
    assert scores[4:].abs().max() == 0


def test_answers_of_a_list(make, vqa, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_bytes(b"yes\r\nmauve\r\n\r\nnet\r\nnever said\r\n")
    data = make(answers=str(path), val_images="all")
    assert tuple(data.class_names) == ("yes", "mauve", "", "net", "never said")
    data.setup("validate")
    _, scores = data.on_after_batch_transfer(whole(data.val_dataloader()), 0)
    expected = [[score_answer(answer, ten(row[3])) for answer in data.class_names] for row in VAL]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    # Only what is scored is read.
    path_of(vqa, "annotations", "train2014").unlink()
    make(answers=str(path), val_images="all").setup("validate")
    path_of(vqa, "annotations", "val2014").unlink()
    data = make(answers=str(path))
    data.setup("predict")
    assert ids(data, "predict") == [1000, 14001]


def test_a_foreign_list_may_spell_an_answer_twice(make, tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("no\na net\nyes\nnet\n")
    data = make(answers=str(path), val_images="all")
    _, scores = data.on_after_batch_transfer(whole(data.val_dataloader()), 0)
    assert torch.equal(scores[:, 1], scores[:, 3])
    assert scores[3].tolist() == [0, 1, 0, 1]
    assert data.labels("val").tolist() == [2, 0, 0, 1, -1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yes\nno\nyes\n", r"has 'yes' in line 1 and in line 3"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("yes\n", "one answer"),
        ("qwerty\nuiop\n", r"none of the 5 training questions has one of the 2 answers \(qwerty"),
    ],
)
def test_lists_that_are_none(make, tmp_path, text, message):
    path = tmp_path / "answers.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        make(answers=str(path), val_images="all").setup("fit")


def test_no_list_and_no_answers(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"answers: there is no file .*none"):
        make(answers=str(tmp_path / "none")).setup("fit")
    with pytest.raises(InputError, match=r"of 4 questions \(at most of 2\): lower min_answers"):
        make(min_answers=4).setup("fit")
    with pytest.raises(InputError, match="min_answers must be at least 1"):
        make(min_answers=0)


# Splits


def test_some_validation_images_are_held_out(make, vqa):
    data = make()
    data.setup("fit")
    train, val = ids(data, "train"), ids(data, "val")
    assert len({number // 1000 for number in val}) == 2
    assert not {number // 1000 for number in val} & {number // 1000 for number in train}
    assert sorted(val) == [
        row[0] for row in VAL if row[0] // 1000 in {number // 1000 for number in val}
    ]
    known = {row[0] for row in [*TRAIN, *VAL]} - {30000, 74000, 285000}
    assert set(train) == known - set(val)
    assert train[:4] == [9000, 9001, 25000, 25001]
    assert not data.validates_on_test
    # The same ones whatever the seed, and the order of the file.
    assert ids(make(seed=5), "val") == val
    rewrite(vqa, "questions", "val2014", lambda content: content["questions"].reverse())
    assert ids(make(), "val") == val[::-1]


def test_held_out_images_of_a_list(make, tmp_path):
    path = tmp_path / "images.txt"
    path.write_text("73\n285\n73\n")
    data = make(val_images=str(path))
    data.setup("fit")
    assert ids(data, "val") == [73000, 73001, 285000]
    assert ids(data, "train") == [9000, 9001, 25000, 25001, 42000, 42001]
    path.write_text("73\n9\n")
    with pytest.raises(InputError, match=r"1 of the 2 images in .* are not in .*val2014.*: 9"):
        make(val_images=str(path)).setup("fit")
    path.write_text("73\nCOCO_val2014_000000000042.jpg\n")
    with pytest.raises(InputError, match="lines that are no numbers of images: COCO_val2014"):
        make(val_images=str(path)).setup("fit")
    with pytest.raises(
        FileNotFoundError, match="val_images: there is no file al: give a number of"
    ):
        make(val_images="al").setup("fit")


@pytest.mark.parametrize("count", [0, 4, 1000])
def test_hold_outs_of_none_or_all(make, count):
    message = f"val_images: {count} holds out .* of the 4 images .*: hold out from 1 to 3, or"
    with pytest.raises(InputError, match=message):
        make(val_images=count).setup("fit")


def test_batches(make):
    data = make(val_images="all", batch_size=3)
    data.setup()
    batches = list(data.val_dataloader())
    assert [len(answers) for _, answers in batches] == [3, 3]
    batches = list(data.bank_dataloader())
    assert [len(answers) for _, answers in batches] == [3, 1]
    inputs, answers = batches[0]
    assert set(inputs) == {"images", "input_ids", "attention_mask"}
    assert inputs["images"].shape == (3, 3, 8, 8)
    assert inputs["images"].dtype == torch.uint8
    assert inputs["images"].float().mean((1, 2, 3)).tolist() == pytest.approx([9, 9, 25], abs=1)
    texts = [bytes(row[row < 256].tolist()).decode() for row in inputs["input_ids"]]
    assert texts == [row[1] for row in TRAIN[:3]]
    assert inputs["attention_mask"].sum(1).tolist() == [len(row[1]) for row in TRAIN[:3]]
    assert answers.dtype == torch.int64
    assert Counter(answers[1].tolist()) == {1: 6, -1: 4}
    on_device, scores = data.on_after_batch_transfer(batches[0], 0)
    torch.testing.assert_close(
        on_device["images"], normalize(inputs["images"], data.mean, data.std)
    )
    # The one parser of batches knows them, and those who want labels refuse them.
    assert parts_of((on_device, scores)).labels is None
    assert scored_inputs((on_device, scores), 4)[1] is scores
    with pytest.raises(InputError, match="do the data have num_classes answers"):
        scored_inputs((on_device, scores), 3129)
    with pytest.raises(InputError, match="needs labelled batches"):
        labelled_inputs((on_device, scores), 4)


def test_what_was_found_is_said(make, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    make(val_images="all").setup("fit")
    messages = " ".join(caplog.messages)
    assert "train: 4 questions of 3 of 4 classes (none of no) in" in messages
    assert (
        "val: 6 questions of 3 of 4 classes (none of 2), 2 of them without a label, in" in messages
    )


def test_subset_by_names(make, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("train2014/COCO_train2014_000000000009.jpg#9001\n")
    data = make(subset=Subset(file=str(path)))
    assert ids(data, "train") == [9001]
    assert data.identifiers("train") == ["train2014/COCO_train2014_000000000009.jpg#9001"]


# Test questions have no answers


def test_there_is_nothing_to_test_on(make):
    data = make()
    message = "answers to test-dev2015 are not public, .* Use predict"
    with pytest.raises(InputError, match=message):
        data.setup("test")
    with pytest.raises(InputError, match=message):
        data.test_dataloader()
    with pytest.raises(InputError, match=message):
        pl.Trainer(accelerator="cpu", logger=False, enable_model_summary=False).test(
            Answering(), datamodule=data
        )


class Answering(pl.LightningModule):
    def predict_step(self, batch, batch_idx):
        inputs, scores = batch
        assert scores.abs().max() == 0
        assert inputs["images"].is_floating_point()
        return inputs["attention_mask"].sum(1) % 4

    def test_step(self, batch, batch_idx):
        raise AssertionError("no test")


def test_predict_says_which_question(make, tmp_path):
    data = make(test_split="test2015", batch_size=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path / "run",
    )
    outputs = trainer.predict(Answering(), datamodule=data)
    assert [len(output) for output in outputs] == [2, 1]
    assert ids(data, "predict") == [1000, 14001, 14000]
    save_predictions(trainer)
    lines = (tmp_path / "run/predictions.csv").read_text().splitlines()
    assert lines == [
        "row,file,label,class",
        "0,test2015/COCO_test2015_000000000001.jpg#1000,,",
        "1,test2015/COCO_test2015_000000000014.jpg#14001,,",
        "2,test2015/COCO_test2015_000000000014.jpg#14000,,",
    ]
    tensors = load_file(tmp_path / "run/predictions.safetensors")
    assert set(tensors) == {"predictions", "rows"}


def test_without_test_questions(make, vqa):
    for part in ("test-dev2015", "test2015"):
        path_of(vqa, "questions", part).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"v2_OpenEnded_mscoco_test-dev2015_questions\.json"
    ):
        make().setup("predict")
    data = make(test_split=None)
    data.setup("test")
    data.setup("predict")
    assert ids(data, "predict") == ids(data, "test") == ids(data, "val")
    assert data.validates_on_test
    with pytest.raises(InputError, match="test_split must be 'test-dev2015', 'test2015' or None"):
        make(test_split="val2014")


# Images


def test_missing_images_stop_or_take_their_questions_along(make, vqa):
    (vqa / image_of(9000, "train2014")).unlink()
    (vqa / image_of(42000, "val2014")).unlink()
    message = (
        r"1 images that the questions in .* are not in .*"
        r" \(train2014/COCO_train2014_000000000009\.jpg\)\. .* their 2 of 4 questions"
    )
    with pytest.raises(FileNotFoundError, match=message):
        make(val_images="all").setup("fit")
    data = make(val_images="all", missing_images="skip")
    with pytest.warns(UserWarning, match="1 images .*; their 2 of 4 questions are left out"):
        data.setup("fit")
    assert ids(data, "train") == [25000, 25001]
    assert ids(data, "val") == [73000, 73001, 74000, 285000]
    inputs, answers = whole(data.bank_dataloader())
    assert inputs["images"].float().mean((1, 2, 3)).tolist() == pytest.approx([25, 25], abs=1)
    assert answers[0].tolist() == [2] * 10
    assert data.labels("train").tolist() == [2, 1]
    with pytest.raises(InputError, match="missing_images must be 'error' or 'skip'"):
        make(missing_images="ignore")


def test_which_images_are_held_out_does_not_depend_on_what_is_missing(make, vqa):
    held_out = ids(make(), "val")
    (vqa / image_of(held_out[0], "val2014")).unlink()
    data = make(missing_images="skip")
    with pytest.warns(UserWarning, match="are left out"):
        data.setup("fit")
    assert ids(data, "val") == [n for n in held_out if n // 1000 != held_out[0] // 1000]


def test_no_images_at_all(make, vqa, tmp_path):
    for path in (vqa / "test2015").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"images that .* names, such as test2015/COCO"):
        make(missing_images="skip").setup("predict")
    (vqa / "test2015").rmdir()
    with pytest.raises(FileNotFoundError, match=r"such as test2015/COCO_.*, in test2015/ in"):
        make(missing_images="skip").setup("predict")


def test_images_may_lie_elsewhere(make, vqa, tmp_path):
    (vqa / "images").mkdir()
    for part in ("train2014", "val2014"):
        (vqa / part).rename(vqa / "images" / part)
    make().setup("fit")
    make().setup("predict")  # test images are still in root
    (vqa / "images").rename(tmp_path / "coco")
    with pytest.raises(FileNotFoundError, match="images_root names another folder"):
        make().setup("fit")
    data = make(images_root=str(tmp_path / "coco"))
    assert len(whole(data.bank_dataloader())[1]) == len(ids(data, "train"))


def test_images_that_keep_their_form_are_padded(make):
    data = make(val_images="all", eval_transform=KeepAspect(8, longer=40, multiple=2))
    data.setup("fit")
    inputs, scores = data.on_after_batch_transfer(whole(data.bank_dataloader()), 0)
    mask = inputs["pixel_mask"]
    assert inputs["images"].shape == (4, 3, *mask.shape[1:])
    assert len(set(mask.sum((1, 2)).tolist())) > 1
    padding = inputs["images"].masked_select(~mask[:, None])
    assert len(padding) > 0
    assert (padding == 0).all()
    assert scores.shape == (4, 4)
    for row in range(4):
        one = whole(data.bank_dataloader(np.array([row])))
        alone, _ = data.on_after_batch_transfer(one, 0)
        assert "pixel_mask" not in alone
        height, width = alone["images"].shape[-2:]
        assert torch.equal(inputs["images"][row, :, :height, :width], alone["images"][0])


def test_broken_image_is_never_another_row(make, vqa):
    path = vqa / image_of(42000, "val2014")
    path.write_text("<html>404</html>")
    message = r"val2014_000000000042\.jpg \(UnidentifiedImageError: .*set missing_images: skip"
    with pytest.raises(CorruptImageError, match=message):
        list(make(val_images="all", missing_images="skip").val_dataloader())


# Files that are others


def spoil(key, place, **changes):
    def change(content):
        for name, value in changes.items():
            if value is None:
                del content[key][place][name]
            else:
                content[key][place][name] = value

    return change


TWICE = "more than one {} with the question_id 42000"
NO_QUESTION = "question number 2 is no object with a question, a question_id and an image_id"
NO_ANNOTATION = "annotation number 1 is no object with a question_id, an image_id, a multiple"
ANSWER = {"answer": "yes", "answer_id": 1}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "questions",
            lambda c: c["questions"],
            r"is not the JSON that was expected: expected '\{'",
        ),
        ("questions", lambda c: {"questions": []}, "its list is empty"),
        ("questions", lambda c: {"a": 3}, "expected the list 'questions', found 'a'"),
        ("questions", spoil("questions", 1, question="  "), NO_QUESTION),
        ("questions", spoil("questions", 1, question="a \ud800"), NO_QUESTION),
        ("questions", spoil("questions", 1, question_id="7"), NO_QUESTION),
        ("questions", spoil("questions", 1, question_id=True), NO_QUESTION),
        ("questions", spoil("questions", 1, image_id=10**12), NO_QUESTION),
        ("questions", spoil("questions", 1, image_id=None), NO_QUESTION),
        ("questions", lambda c: c["questions"].append(3), "number 7 is no object .*, but 3"),
        ("questions", spoil("questions", 1, question_id=42000), TWICE.format("question")),
        (
            "questions",
            lambda c: c["questions"].pop() and None,
            r"1 annotations without their questions \(2",
        ),
        (
            "annotations",
            lambda c: c["annotations"].pop() and None,
            r"1 questions without their annot.*\(285",
        ),
        ("annotations", spoil("annotations", 1, question_id=42000), TWICE.format("annotation")),
        ("annotations", spoil("annotations", 1, image_id=9), "42001 is about the image 9, but"),
        ("annotations", spoil("annotations", 0, multiple_choice_answer=None), NO_ANNOTATION),
        (
            "annotations",
            spoil("annotations", 0, answers=None),
            "42000 has 0 answers in place of 10",
        ),
        ("annotations", spoil("annotations", 0, answers=[ANSWER] * 9), "has 9 answers in place"),
        ("annotations", spoil("annotations", 0, answers=[ANSWER] * 11), "has 11 answers in place"),
        ("annotations", spoil("annotations", 0, answers=[{"answer": 3}] * 10), "has 0 answers"),
    ],
)
def test_wrong_files_name_the_entry(make, vqa, kind, change, message):
    path = rewrite(vqa, kind, "val2014", change)
    with pytest.raises(InputError, match=message) as caught:
        make(val_images="all").setup("validate")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"annotations": [{"question_id": 1,'])
def test_files_that_are_cut_short(make, vqa, text):
    path = path_of(vqa, "annotations", "train2014")
    path.write_text(text)
    with pytest.raises(InputError, match=r"annotations\.json is not the JSON that was expected"):
        make().setup("fit")
    path.write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match=r"annotations\.json is no text in UTF-8"):
        make().setup("fit")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected v2_mscoco_train2014_annotations\.json"):
        make().setup("fit")


# Texts


def test_a_vocabulary_of_the_training_questions(make, tmp_path, caplog):
    pytest.importorskip("transformers")
    data = make(tokenizer=CorpusWordPiece(folder=str(tmp_path / "words"), size=200))
    caplog.set_level("INFO", logger="lightning.pytorch")
    data.prepare_data()
    data.setup("fit")
    assert sum("train: 3 of 7 questions have none" in message for message in caplog.messages) == 1
    inputs, _ = whole(data.bank_dataloader())
    words = [
        data.text_tokenizer.decode(row, skip_special_tokens=True) for row in inputs["input_ids"]
    ]
    assert words[1].replace(" ?", "?") == "how many dogs?"
    assert set(inputs) == {"images", "input_ids", "attention_mask"}


# Training


class Recorder(pl.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, scores = batch
        self.seen.append({"scores": scores, **inputs})
        return self.weight * inputs["images"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, path=None, folder=None, **options):
    callbacks = []
    if folder is not None:
        save = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
        callbacks = [save]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


def same(first, second):
    return len(first) == len(second) and all(
        set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first, second, strict=True)
    )


VIEW = SingleView(CropSpec(size=8, scale=(0.5, 1.0), brightness=0.4))


def test_resume_is_the_identical_trajectory(make, tmp_path):
    def data(**options):
        return make(batch_size=2, train_transform=VIEW, **options)

    whole_run = fit(data(), folder=tmp_path / "run")
    assert len(whole_run) == 3 * (len(ids(data(), "train")) // 2)
    assert {tuple(batch["scores"].shape) for batch in whole_run} == {(2, 4)}
    for step in (1, 4):
        (path,) = (tmp_path / "run").glob(f"*step={step}.ckpt")
        assert same(fit(data(), path), whole_run[step:]), step
    assert same(fit(data(num_workers=2)), whole_run)
    assert not same(fit(data(seed=1)), whole_run)


def test_scores_stay_float32_where_images_do_not(make):
    seen = fit(make(batch_size=2, train_transform=VIEW), precision="bf16-true")
    assert seen[0]["images"].dtype == torch.bfloat16
    assert seen[0]["scores"].dtype == torch.float32
    allowed = torch.tensor([0, 0.3, 0.6, 0.9, 1.0])
    values = torch.cat([batch["scores"].flatten() for batch in seen])
    assert (values[:, None] - allowed).abs().min(1).values.max() < 1e-6


def test_three_shards_cover_each_row_once(make, monkeypatch):
    data = make()
    found = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        found += [row for _, answers in data.bank_dataloader() for row in answers.tolist()]
    assert sorted(found) == sorted(data.column("answers", "train").tolist())
