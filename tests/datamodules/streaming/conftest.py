"""Images in files, the same as shards, and stores that serve them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_ssl.datamodules import ImageFolderDataModule, StreamingImageDataModule
from lit_ssl.datamodules.streaming.sharding import shard_images

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from store_servers import web_server
from streaming_sets import CHUNK, options


def picture(path: Path, seed: int, size: tuple[int, int]) -> None:
    draws = np.random.default_rng(seed)
    small = draws.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="session")
def image_root(tmp_path_factory):
    """60 training and 9 validation images of three classes, in two formats and some sizes."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 20), ("val", 3)):
        for number, name in enumerate(("ant", "bee", "cat")):
            for i in range(count):
                ending = "png" if i % 4 == 3 else "jpg"
                size = (40 + i, 30 + number)
                seed = 1000 * number + i + 500 * (split == "val")
                picture(root / split / name / f"{i:02}.{ending}", seed, size)
    return root


@pytest.fixture(scope="session")
def shard_root(image_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "set"
    shard_images(ImageFolderDataModule(root=str(image_root)), out, size=CHUNK)
    return out


@pytest.fixture
def files(image_root):
    return lambda **more: ImageFolderDataModule(root=str(image_root), **options(**more))


@pytest.fixture
def stream(shard_root):
    def make(url=shard_root, **more):
        return StreamingImageDataModule(url=str(url), **options(**more))

    return make


@pytest.fixture
def web(shard_root):
    """A web server over the shards: its URL, and the list of what was asked of it."""
    with web_server(shard_root) as found:
        yield found
