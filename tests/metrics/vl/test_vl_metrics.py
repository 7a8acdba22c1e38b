"""Vision-language metrics: parity with the papers' scripts, and any shares of the rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_ssl.errors import InputError
from lit_ssl.metrics import NLVR2Accuracy, RetrievalRecall, VQAScore
from lit_ssl.text.vqa_answers import normalize_answer, score_answer, soft_score

GOLDEN = Path(__file__).parents[2] / "golden/vl_masking"


def arrays(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def nlvr2_rows():
    values = arrays("nlvr2_metrics")
    parts = [name.split("-") for name in values["identifier"]]
    names = [f"{split}-{group}-{sentence}" for split, group, _, sentence in parts]
    statements = np.unique(names, return_inverse=True)[1]
    tensors = (values["prediction"], values["label"], statements)
    return [torch.from_numpy(np.asarray(t).astype(np.int64)) for t in tensors], values


# NLVR2


@pytest.mark.parametrize("size", [2460, 7])
def test_nlvr2_as_the_official_script(size):
    rows, values = nlvr2_rows()
    metric = NLVR2Accuracy()
    for batch in zip(*(t.split(size) for t in rows), strict=True):
        metric.update(*batch)
    scores = metric.compute()
    assert scores.accuracy.item() == pytest.approx(float(values["accuracy"]), abs=1e-12)
    assert scores.consistency.item() == pytest.approx(float(values["consistency"]), abs=1e-12)
    assert scores.num_rows == 2460


@pytest.mark.parametrize("part", ["balanced", "unbalanced"])
def test_nlvr2_parts(part):
    rows, values = nlvr2_rows()
    mask = torch.from_numpy(values[f"{part}_mask"])
    metric = NLVR2Accuracy(consistency=False)
    metric.update(rows[0][mask], rows[1][mask])
    scores = metric.compute()
    assert scores.accuracy.item() == pytest.approx(float(values[f"{part}_accuracy"]), abs=1e-12)
    assert scores.consistency.isnan()


def test_nlvr2_logits_unknown_labels_and_reset():
    metric = NLVR2Accuracy()
    empty = metric.compute()
    assert empty.accuracy.isnan()
    assert empty.consistency.isnan()
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    # statement 4 has a row that nobody knows; 9 is right, 11 wrong
    metric.update(logits, torch.tensor([1, 0, -1, 1]), torch.tensor([4, 9, 4, 11]))
    scores = metric.compute()
    assert scores.accuracy.item() == pytest.approx(2 / 3)
    assert (scores.consistency.item(), scores.num_statements, scores.num_rows) == (0.5, 2, 3)
    metric.reset()
    assert metric.compute().accuracy.isnan()


def test_nlvr2_as_a_step_of_lightning():
    metric = NLVR2Accuracy()
    ones, zeros = torch.ones(2).long(), torch.zeros(2).long()
    assert metric(ones, ones, torch.tensor([0, 1])).consistency == 1
    assert metric(ones, zeros, torch.tensor([1, 2])).consistency == 0
    assert metric.compute().consistency.item() == pytest.approx(1 / 3)


def test_nlvr2_mistakes():
    two = torch.ones(2).long()
    with pytest.raises(InputError, match="needs the statement of each row"):
        NLVR2Accuracy().update(two, two)
    with pytest.raises(InputError, match=r"needs logits \[B, 2\]"):
        NLVR2Accuracy().update(torch.rand(2, 3), two, two)
    with pytest.raises(InputError, match=r"needs logits \[B, 2\]"):
        NLVR2Accuracy().update(torch.rand(2), two, two)


# VQA


def test_vqa_answers_as_in_vilt():
    values = arrays("vqa_normalize")
    assert [normalize_answer(str(raw)) for raw in values["raw"]] == values["normalized"].tolist()
    assert [soft_score(int(count)) for count in values["counts"]] == values["score"].tolist()


@pytest.mark.parametrize("count", range(8))
def test_soft_score_is_the_mean_over_sets_without_one_annotator(count):
    given = ["yes"] * count + ["no"] * (7 - count)
    without = [given[:i] + given[i + 1 :] for i in range(7)]
    by_hand = np.mean([min(1, rest.count("yes") / 3) for rest in without])
    assert score_answer("Yes!", given) == pytest.approx(by_hand)


def test_contractions_are_mended_only_where_the_official_table_does():
    mended = {
        "couldntve": "couldntve", "couldnt've": "couldn't've", "yalld've": "yalld've",
        "y'alld've": "y'all'd've", "somebody'd": "somebodyd", "shes": "shes", "twas": "'twas",
        "ma'am": "ma'am", "lets": "lets",
    }  # fmt: skip
    assert {raw: normalize_answer(raw) for raw in mended} == mended


def test_vqa_score():
    metric = VQAScore()
    assert metric.compute().isnan()
    target = torch.tensor([[0.3, 0.9], [0.0, 0.0], [1.0, 0.6]])
    metric.update(torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]]), target)
    assert metric.compute().item() == pytest.approx((0.9 + 0 + 0.6) / 3)
    metric.update(["a Dog", "cat"], [["dog"] * 10, ["dog"] * 9 + ["cat"]])
    assert metric.compute().item() == pytest.approx((1.5 + 1 + 0.3) / 5)


def test_vqa_mistakes():
    with pytest.raises(InputError, match="needs logits"):
        VQAScore().update(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(InputError, match=r"in \[0, 1\], got 0 to 3"):
        VQAScore().update(torch.eye(2), torch.tensor([[3.0, 0], [0, 0]]))
    with pytest.raises(InputError, match="got Tensor and list"):
        VQAScore().update(torch.rand(1, 2), [["a"]])
    with pytest.raises(InputError, match="1 of them empty"):
        VQAScore().update(["a", "b"], [["a"], []])


# Retrieval


def retrieval_rows():
    values = arrays("retrieval_recall")
    names = ("scores", "image_ids", "text_image_ids")
    return [torch.from_numpy(values[name]) for name in names], values


@pytest.mark.parametrize("size", [40, 7])
def test_retrieval_as_in_vilt(size):
    (scores, images, texts), values = retrieval_rows()
    metric = RetrievalRecall()
    for rows in torch.randperm(40).split(size):
        metric.update(scores[rows], images[rows], texts)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert list(found) == ["tr_r1", "tr_r5", "tr_r10", "ir_r1", "ir_r5", "ir_r10"]
    for name, value in found.items():
        assert value == pytest.approx(float(values[name]), abs=1e-7)


def test_equal_scores_find_nothing():
    metric = RetrievalRecall(k=(1, 3))
    metric.update(torch.zeros(3, 3), torch.arange(3), torch.arange(3))
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "tr_r1": 0, "tr_r3": 1, "ir_r1": 0, "ir_r3": 1,
    }  # fmt: skip


def test_retrieval_by_forward():
    (scores, images, texts), values = retrieval_rows()
    metric = RetrievalRecall()
    for rows in torch.arange(40).split(40):
        assert metric(scores[rows], images[rows], texts)["ir_r1"].item() == pytest.approx(0.47)
    assert metric.compute()["tr_r1"].item() == pytest.approx(float(values["tr_r1"]))


@pytest.mark.parametrize(
    ("scores", "images", "texts", "message"),
    [
        (torch.rand(2, 2), [3, 3], [3, 3], "images 3 more than once"),
        (torch.rand(2, 2), [3, 4], [3, 3], "images 4 without any text"),
        (torch.rand(1, 2), [3], [3, 8], "texts of the images 8, but not these images"),
        (torch.rand(1, 0), [3], [], "got no texts"),
        (torch.rand(2, 3), [3, 4], [3, 4], r"needs scores \[b, T\]"),
    ],
)
def test_retrieval_mistakes(scores, images, texts, message):
    metric = RetrievalRecall()

    def measure():
        metric.update(scores, torch.tensor(images), torch.tensor(texts, dtype=torch.int64))
        metric.compute()

    with pytest.raises(InputError, match=message):
        measure()


def test_retrieval_refuses_other_texts():
    metric = RetrievalRecall()
    metric.update(torch.rand(1, 2), torch.tensor([1]), torch.tensor([1, 2]))
    with pytest.raises(InputError, match="other texts than before"):
        metric.update(torch.rand(1, 2), torch.tensor([2]), torch.tensor([2, 1]))
    with pytest.raises(InputError, match="numbers k from 1"):
        RetrievalRecall(k=(0, 5))


# Three processes with unequal shares, the last without a row


def fill(rank, nlvr2, recall, vqa):
    """Give a process its share."""
    rows, _ = nlvr2_rows()
    (scores, images, texts), _ = retrieval_rows()
    share = [slice(0, 1001), slice(1001, None)][rank]
    part = [slice(0, 13), slice(13, None)][rank]
    nlvr2.update(*(t[share] for t in rows))
    recall.update(scores[part], images[part], texts)
    vqa.update(torch.eye(3)[: rank + 1], torch.eye(3)[: rank + 1] * 0.3 * (rank + 1))


def check_whole(nlvr2, recall, vqa):
    """Every process has the scores of all rows."""
    _, values = nlvr2_rows()
    found = nlvr2.compute()
    assert found.accuracy.item() == pytest.approx(float(values["accuracy"]), abs=1e-12)
    assert found.consistency.item() == pytest.approx(float(values["consistency"]), abs=1e-12)
    assert found.num_rows == 2460
    _, golden = retrieval_rows()
    for name, value in recall.compute().items():
        assert value.item() == pytest.approx(float(golden[name]), abs=1e-7)
    assert vqa.compute().item() == pytest.approx((0.3 + 0.6 + 0.6) / 3)


def run_thread(rank, barrier, board):
    def gather(tensor, group=None):
        board[rank] = tensor
        barrier.wait(timeout=20)  # breaks where another one gathers less often
        found = list(board)
        barrier.wait(timeout=20)
        return found

    kinds = (NLVR2Accuracy, RetrievalRecall, VQAScore)
    options = {"dist_sync_fn": gather, "distributed_available_fn": lambda: True}
    metrics = [kind(**options) for kind in kinds]
    if rank < 2:
        fill(rank, *metrics)
    check_whole(*metrics)


def test_unequal_shares_are_put_together():
    barrier, board = threading.Barrier(3), [None] * 3
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run_thread, rank, barrier, board) for rank in range(3)]:
            done.result()


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    metrics = NLVR2Accuracy(), RetrievalRecall(), VQAScore()
    if rank < 2:
        fill(rank, *metrics)
    check_whole(*metrics)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
def test_unequal_shares_of_three_processes(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=3)
