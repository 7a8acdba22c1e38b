"""The page beside reports, from real runs, and in a real browser."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from lit_ssl.callbacks import GroupReport, RepresentationReport, RunPage, ViewLogger
from lit_ssl.callbacks.reports.vqa_results import answer_table
from lit_ssl.metrics import GroupScores
from lit_ssl.trainer import report_page
from lit_ssl.trainer.report_page import Report, add_report, finish_page
from lit_ssl.trainer.run_records import read_records, shown_config

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import Browser

HOSTILE = ["<script>document.title='hit'</script>", '"><img src=x onerror=alert(1)>', "[bold]&amp;"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def run(toys, tmp_path_factory):
    """A trained toy, and its report by another trainer, as by ``lit-ssl fit`` and ``test``."""
    folder = tmp_path_factory.mktemp("run")

    class Module(toys.ToyModule):
        def training_step(self, batch, batch_idx):
            out = super().training_step(batch, batch_idx)
            self.log("train/loss", out["loss"])
            self.log("train/broken", torch.nan if 2 <= self.global_step <= 3 else 1.0)
            return out

        def on_validation_epoch_end(self):
            self.log("val/toy_acc1", 0.25 + 0.1 * self.current_epoch)

    data = toys.ToyData(views=True)
    board = TensorBoardLogger(folder, name="logs", version=0)
    keep = ModelCheckpoint(filename="done")
    trainer = toys.make_trainer(
        folder, logger=[board, CSVLogger(folder / "csv")], enable_checkpointing=True,
        callbacks=[keep, ViewLogger(every_n_epochs=1), RunPage()],
    )  # fmt: skip
    trainer.fit(Module(), data)
    report = toys.make_trainer(folder, callbacks=[RepresentationReport(shots=[1], draws=2)])
    report.test(Module(), data, ckpt_path=keep.best_model_path, verbose=False)
    return folder


def plain(page):
    """Texts of a page, without its style."""
    body = page.read_text(encoding="utf-8").partition("</style>")[2].replace("<wbr>", "")
    return html.unescape(re.sub("<[^>]*>", " ", body))


def test_a_report_has_a_page_with_table_curves_and_pictures(run):
    page = run / "index.html"
    content, words = page.read_text(encoding="utf-8"), plain(page)
    assert "Module on ToyData" in words
    assert "logs/version_0/checkpoints/done.ckpt" in words
    assert "k-NN: cosine, k 20, T 0.07." in words  # the protocol
    assert re.search(r"1-shot +[\d.]+ ± [\d.]+", words)
    assert "train/loss, step 5:" in words
    assert "val/toy_acc1, step 9: 35 %" in words
    assert "nan at steps 2 to 3" in words
    assert "logs/version_0/views/epoch_0001.png, the last of 2" in words
    assert content.count('src="data:image/png') == 1
    assert 'href="./report.json"' in content
    assert 'href="./logs/version_0"' in content
    assert str(run) not in content  # pages are shared


def test_a_fit_has_a_page_of_its_own(run):
    words = plain(run / "logs/version_0/run.html")
    assert "fit of 10 steps" in words
    assert "val/toy_acc1 0.35" in re.sub(" +", " ", words)
    assert "views: views/epoch_0001.png" in words or "views/epoch_0001.png, the last" in words


def test_the_page_in_a_browser(run, browser):
    page = run / "index.html"
    wide = browser.look(page, 1280, 2400)
    assert wide.requests == []
    assert wide.pixels.shape == (2400, 1280, 3)
    assert _colours(wide.pixels) > 20
    assert wide.dom.count("<figure") >= 4
    assert "<script" not in wide.dom
    narrow, width = browser.look_at_phone(page, 390, 2400)
    assert width == 390  # nothing has to be scrolled sideways but tables in their frames
    assert _colours(narrow.pixels) > 20
    assert narrow.requests == []
    dark = browser.look(page, 1280, 800, "--blink-settings=preferredColorScheme=0")
    assert dark.pixels.mean() < 90 < 200 < wide.pixels.mean()


def test_the_browser_would_show_a_request(browser, tmp_path):
    page = tmp_path / "asks.html"
    page.write_text('<!DOCTYPE html><p>a<img src="http://pictures.example/a.png">')
    assert any(b"pictures.example" in line for line in browser.look(page, 500, 300).requests)


def _colours(pixels):
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


class Grouped(pl.LightningModule):
    """Answers of a classifier over groups whose names come from somebody's file."""

    uses_groups = True

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        per_group = torch.tensor([0.5, 0.25, torch.nan])
        self.group_scores = {
            "test": GroupScores(
                per_group=per_group, sizes=torch.tensor([4, 4, 0]), worst=per_group[1],
                worst_group=torch.tensor(1), average=torch.tensor(0.4),
                adjusted=torch.tensor(torch.nan),
            )
        }  # fmt: skip

    def test_step(self, batch, batch_idx):
        pass


def hostile_data(toys):
    class Groups(toys.ToyData):
        group_names, eval_group_names, adjusted_average, num_labelled = HOSTILE, None, False, 4

        def group_array(self, split):
            return np.array([0, 1, 1, 2])

        true_group_array = group_array

        def known(self, split):
            return np.ones(4, dtype=bool)

        def labels(self, split):
            return np.zeros(4)

    return Groups()


@pytest.fixture(scope="module")
def hostile(toys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    toys.make_trainer(folder, callbacks=[GroupReport()]).test(
        Grouped(), hostile_data(toys), verbose=False
    )
    return folder / "index.html"


def test_hostile_names_are_texts(hostile, browser):
    content = hostile.read_text(encoding="utf-8")
    assert "<img" not in content
    assert "<script" not in content
    words = plain(hostile)
    assert all(name in words for name in HOSTILE)
    seen = browser.look(hostile, 1000, 900)
    assert "<title>Grouped on Groups</title>" in seen.dom
    assert seen.requests == []
    assert "<img" not in seen.dom
    assert "<script" not in seen.dom


def test_reports_of_one_folder_share_a_page(toys, tmp_path):
    class Both(toys.ToyModule):
        group_scores = Grouped().group_scores

    callbacks = [GroupReport(), RepresentationReport(shots=[1], draws=1, protocols=["knn"])]
    trainer = toys.make_trainer(tmp_path, callbacks=callbacks)
    trainer.test(Both(), hostile_data(toys), verbose=False)
    words = plain(tmp_path / "index.html")
    assert "accuracy by group" in words
    assert "What the frozen features are worth" in words
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "group_report.csv", "group_report.json", "index.html", "report.csv", "report.json",
    ]  # fmt: skip


def test_no_page_of_others_is_written_over(toys, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    trainer = toys.make_trainer(tmp_path, callbacks=[GroupReport()])
    trainer.test(Grouped(), hostile_data(toys), verbose=False)
    assert (tmp_path / "index.html").read_text() == "mine"
    assert (tmp_path / "lit_ssl_runs/version_0/index.html").is_file()
    assert (tmp_path / "lit_ssl_runs/version_0/group_report.json").is_file()


def test_a_full_disk_costs_the_page_only(toys, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_page, "write_file", full)
    trainer = toys.make_trainer(tmp_path, callbacks=[GroupReport()])
    with pytest.warns(UserWarning, match="page of reports cannot be written"):
        trainer.test(Grouped(), hostile_data(toys), verbose=False)
    assert (tmp_path / "group_report.json").is_file()
    assert not (tmp_path / "index.html").exists()


def test_debugging_runs_leave_no_page(toys, tmp_path):
    trainer = toys.make_trainer(tmp_path, callbacks=[GroupReport(), RunPage()], fast_dev_run=True)
    trainer.test(Grouped(), hostile_data(toys), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_large_pictures_are_scaled_down_and_say_so(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "_BYTES", 50_000)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    trainer = toys.make_trainer(tmp_path)
    trainer.test(Grouped(), hostile_data(toys), verbose=False)
    drawn = [tmp_path / "noise.png"]
    add_report(trainer, tmp_path, "drawn", Report("Drawn", [], [], drawn, drawn))
    page = finish_page(trainer, tmp_path)
    assert "scaled down from 300×300" in plain(page)
    assert page.stat().st_size < 60_000
    before = page.stat().st_mtime_ns
    assert finish_page(trainer, tmp_path) == page
    assert page.stat().st_mtime_ns == before  # nothing new


def test_links_of_a_foreign_run_lead_nowhere(tmp_path):
    (tmp_path / "secret.txt").write_text("secret: true")
    Image.new("RGB", (9, 9)).save(tmp_path / "mine.png")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").symlink_to(tmp_path / "secret.txt")
    (run / "a.png").symlink_to(tmp_path / "mine.png")
    (run / "metrics.csv").write_text("step,loss\n0,1.0\n")
    records = read_records(run)
    assert records.config is None
    assert records.pictures == []
    assert list(records.curves) == ["loss"]


def test_secrets_stay_out_of_pages():
    text = "api_key: abc\n- hub_token: 'x y'\nnum_tokens: 5\nmax_token: null\ntokenizer: bpe\n"
    text += "root: http://me:pw@host/data\n  password: p\n"
    assert shown_config(text) == (
        "api_key: removed\n- hub_token: removed\nnum_tokens: 5\nmax_token: null\ntokenizer: bpe\n"
        "root: http://host/data\n  password: removed\n"
    )


def test_answers_given_most():
    table = answer_table([{"answer": a} for a in ["yes", "yes", "[red]"]])
    assert [list(column.cells) for column in table.columns] == [
        ["yes", r"\[red]"], ["2", "1"], ["66.7", "33.3"],
    ]  # fmt: skip
    answer_table([])
