"""Tars as img2dataset writes them, whose images and captions tell their number."""

from __future__ import annotations

import http.server
import io
import json
import tarfile
import threading
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(str(number) for number in range(200))]


def png(number):
    """Red is the number, whatever the transform."""
    pixels = np.zeros((9, 12, 3), dtype=np.uint8)
    pixels[..., 0] = number
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sample(number, suffix="png"):
    """Members of one sample."""
    key = f"{number:09d}"
    fields = {"caption": f"json {number}", "key": key, "status": "success", "width": 12}
    return [
        (f"{key}.{suffix}", png(number)),
        (f"{key}.json", json.dumps(fields).encode()),
        (f"{key}.txt", f"{number}".encode()),
    ]


def write_tar(path, members, kind=tarfile.USTAR_FORMAT):
    """Write (name, content) or TarInfo as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for entry in members:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return path


def write_shards(folder, sizes, first=0):
    """Shards 00000.tar, … of so many samples, numbered on, with the files beside them."""
    for shard, size in enumerate(sizes):
        members = [member for number in range(first, first + size) for member in sample(number)]
        write_tar(folder / f"{shard:05d}.tar", members)
        stats = {"count": size + 1, "successes": size, "failed_to_download": 1}
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats))
        (folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        first += size
    return folder


@pytest.fixture
def shards():
    return write_shards


@pytest.fixture
def tar():
    return write_tar


@pytest.fixture
def members():
    return sample


@pytest.fixture
def vocabulary(tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return str(path)


def numbers_of(inputs):
    """The numbers of the images of a batch, which have to be those of their captions."""
    images = inputs["images"][:, 0].float().mean((1, 2)).round().int().tolist()
    texts = [int(ids[1]) - 5 for ids in inputs["input_ids"]]
    assert images == texts
    return images


@pytest.fixture
def numbers():
    return numbers_of


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and writes down what was asked for."""

    asked = None

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def serve():
    """Serves a folder at an address of this machine; returns it and the list of what is fetched."""
    running = []

    def start(folder):
        asked = []
        handler = partial(type("Handler", (Quiet,), {"asked": asked}), directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", asked

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class Recorder(pl.LightningModule):
    """Trains one weight and remembers (epoch, numbers, image numbers) of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        inputs, image_numbers = batch
        # normalised with mean 0 and std 1 by the tests: red in [0, 1]
        seen = (inputs["images"][:, 0].mean((1, 2)) * 255).round().int().tolist()
        total = round(float(inputs["images"].double().sum()), 6)
        self.seen.append((self.current_epoch, seen, image_numbers.tolist(), total))
        return self.weight * inputs["images"].mean()

    def validation_step(self, batch, batch_idx):
        self.validated += batch[1].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(tmp_path):
    def run(data, ckpt_path=None, callbacks=(), **options):
        module = Recorder()
        given = {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": tmp_path / "fit",
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        trainer = pl.Trainer(**{**given, **options}, callbacks=list(callbacks))
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return module

    return run


class SaveEverywhere(pl.Callback):
    """Saves after each batch and epoch; the name tells how many batches were used."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, module, *args):
        trainer.save_checkpoint(self.folder / f"{len(module.seen):02d}-batch.ckpt")

    def on_train_epoch_end(self, trainer, module):
        trainer.save_checkpoint(self.folder / f"{len(module.seen):02d}-epoch.ckpt")


@pytest.fixture
def save_everywhere():
    return SaveEverywhere
