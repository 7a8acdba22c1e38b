"""``decode: device``: JPEG files travel as they are, and everything else is as with workers."""

from __future__ import annotations

import io
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from lit_ssl.datamodules import (
    ImageFolderDataModule,
    SemiSupervisedDataModule,
    StreamingImageDataModule,
)
from lit_ssl.datamodules.loading import encoded as loading
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.datamodules.reading.encoded import Jpeg, encoded
from lit_ssl.datamodules.streaming.sharding import shard_images
from lit_ssl.errors import InputError
from lit_ssl.transforms import CropSpec, EvalTransform, MultiCrop, SingleView

CANVAS = 48
VIEWS = MultiCrop([CropSpec(size=16, count=2, hflip=0.5, brightness=0.4, hue=0.1)])


def picture(seed, height=40, width=44):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(seed=0, mode="RGB", size=(40, 44), **options):
    file = io.BytesIO()
    picture(seed, *size).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def without_tables(content):
    """A file in order from its header to its end, which no decoder can read."""
    place = content.index(b"\xff\xdb")
    length = int.from_bytes(content[place + 2 : place + 4], "big")
    rest = content[:place] + content[place + 2 + length :]
    return without_tables(rest) if b"\xff\xdb" in rest else rest


@pytest.fixture
def root(tmp_path):
    """Twelve images of two classes, of many kinds; each is plain but those named otherwise."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, which is ignored
    files = {
        "a/0.jpg": jpeg(0),
        "a/1.jpg": jpeg(1, size=(33, 47)),
        "a/2_grey.jpg": jpeg(2, "L"),
        "a/3_cmyk.jpg": jpeg(3, "CMYK"),
        "a/4_turned.jpg": jpeg(4, size=(30, 40), exif=exif),
        "a/5_progressive.jpg": jpeg(5, progressive=True),
        "b/6_large.jpg": jpeg(6, size=(60, 80)),
        "b/7.jpg": jpeg(7),
        "b/8.jpg": jpeg(8, subsampling=0),
        "b/9.jpg": jpeg(9),
        "b/10.jpg": jpeg(10),
    }
    for name, content in files.items():
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    picture(11).save(tmp_path / "train" / "b" / "11.png")
    return tmp_path


def make(root, decode="device", **options):
    options = {"num_workers": 0, "batch_size": 4, "train_transform": VIEWS, **options}
    data = ImageFolderDataModule(
        root=str(root),
        augment="device",
        decode=decode,
        canvas_size=CANVAS,
        eval_transform=EvalTransform(16),
        seed=3,
        **options,
    )
    data.setup("fit")
    return data


def finished(data, batches=None):
    batches = data.train_dataloader() if batches is None else batches
    return [data.on_after_batch_transfer(batch, 0) for batch in batches]


def same(first, second):
    assert len(first) == len(second) > 0
    for (views, labels), (others, other_labels) in zip(first, second, strict=True):
        assert torch.equal(labels, other_labels)
        for one, other in zip(views, others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_views_are_those_of_images_decoded_in_workers(root, num_workers):
    same(finished(make(root, num_workers=num_workers)), finished(make(root, "worker")))


def test_files_travel_and_what_is_no_plain_jpeg_is_decoded(root):
    data = make(root, batch_size=12)
    images, rows = data.train_dataloader().dataset.__getitems__([(row, 0) for row in range(12)])
    names = [data.rows("train").source.name(int(row)) for row in rows]
    sent = {names[place] for place in images.places}
    assert {"a/2_grey.jpg", "a/3_cmyk.jpg", "b/11.png"} == set(names) - sent
    assert len(images.pixels) == 3
    contents = [(root / "train" / names[place]).read_bytes() for place in images.places]
    assert [part.numpy().tobytes() for part in images.contents()] == contents
    assert images.sizes[names.index("b/6_large.jpg")].tolist() == [36, 48]


def test_batches_are_pinned_and_files_stay_on_the_host(root, monkeypatch):
    data = make(root, batch_size=12)
    batch = next(iter(data.train_dataloader()))
    pinned = []

    def pin(tensor, *_):
        pinned.append(tensor.shape)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    (images, labels) = pin_memory(batch)
    assert images.pixels.shape in pinned
    moved, labels = move_data_to_device((images, labels), torch.device("meta"))
    assert moved is images
    assert labels.is_meta
    assert images.files.device.type == images.pixels.device.type == "cpu"


def test_an_epoch_goes_on_in_its_middle(root):
    whole = finished(make(root))
    loader = make(root).train_dataloader()
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    data = make(root)
    rest = data.train_dataloader()
    rest.load_state_dict(state)
    same(finished(data, rest), whole[1:])


@pytest.mark.parametrize("damage", [without_tables, lambda content: content[: len(content) // 2]])
def test_a_corrupt_image_stops_the_run_by_its_name(root, damage):
    path = root / "train" / "a" / "1.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptImageError, match=r"Cannot read the image .*a/1\.jpg"):
        finished(make(root))


@pytest.mark.parametrize("damage", [without_tables, lambda content: content[: len(content) // 2]])
def test_a_corrupt_image_is_replaced_with_its_label(root, damage):
    """The last one of its class: the next readable one is of the other class."""
    path = root / "train" / "a" / "5_progressive.jpg"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"Skipped: .*a/5_progressive\.jpg"):
        expected = finished(make(root, "worker", on_corrupt="skip"))
    data = make(root, on_corrupt="skip", num_workers=0)
    with pytest.warns(UserWarning, match=r"Skipped: .*a/5_progressive\.jpg"):
        same(finished(data), expected)
    assert data.num_corrupt == 1
    assert sum(int((labels == 0).sum()) for _, labels in expected) == 5


def test_one_bad_file_does_not_take_its_batch_along_on_cuda(monkeypatch):
    """With an operator in the place of nvJPEG's, which gives nothing when one file is bad."""
    asked = []

    def decode(files, mode, device):
        asked.append(len(files))
        if any(len(file) == 2 for file in files):
            raise RuntimeError("nvjpegDecode failed: 3\nmore")
        return [torch.full((3, 1, 1), len(file)) for file in files]

    monkeypatch.setattr(torch.ops.image, "decode_jpegs_cuda", decode, raising=False)
    files = [torch.zeros(length, dtype=torch.uint8) for length in (1, 2, 3)]
    with pytest.warns(UserWarning, match="is read on the host, .*: nvjpegDecode failed: 3$"):
        pixels = loading._decode(files, torch.device("cuda"))
    assert [None if one is None else int(one[0, 0, 0]) for one in pixels] == [1, None, 3]
    assert asked == [3, 1, 1, 1]

    def full(files, mode, device):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.ops.image, "decode_jpegs_cuda", full)
    with pytest.raises(torch.OutOfMemoryError):
        loading._decode(files, torch.device("cuda"))


def test_rgb_without_chroma_and_letters_as_components_are_decoded_by_workers():
    """Decoders guess in different ways that these are not luminance and chroma."""
    assert isinstance(encoded(jpeg(), "plain"), Jpeg)
    file = io.BytesIO()
    picture(0).save(file, "JPEG", keep_rgb=True)
    assert isinstance(encoded(file.getvalue(), "rgb"), torch.Tensor)


def test_both_streams_of_semi_supervised_data(root):
    def batches(decode):
        data = SemiSupervisedDataModule(
            dataset=make(root, decode, batch_size=3), images_per_class=2, classes_per_batch=2
        )
        data.setup("fit")
        loader = iter(data.train_dataloader())
        made = [data.on_after_batch_transfer(next(loader)[0], 0) for _ in range(2)]
        return [batch[stream] for batch in made for stream in ("unlabelled", "support")]

    same(batches("device"), batches("worker"))


def test_shards_send_files_too(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    shard_images(ImageFolderDataModule(root=str(root)), out)

    def make_shards(decode):
        data = StreamingImageDataModule(
            url=str(out),
            batch_size=12,
            num_workers=0,
            augment="device",
            decode=decode,
            canvas_size=CANVAS,
            train_transform=VIEWS,
            seed=3,
        )
        data.setup("fit")
        return data

    data = make_shards("device")
    (batch,) = data.train_dataloader()
    assert len(batch[0].places) == 9
    same(finished(data, [batch]), finished(make_shards("worker")))


class OneWeight(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight * batch[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_cpu_is_told_that_it_brings_nothing(root):
    data = make(root, train_transform=SingleView(CropSpec(size=16)))
    trainer = pl.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(OneWeight(), data)
    told = [str(one.message) for one in caught if "decode: device" in str(one.message)]
    assert told == [
        "decode: device without CUDA decodes in the main process, which brings nothing: set"
        " decode: worker"
    ]


def test_images_that_are_no_files_are_refused_and_batches_without_any_told(root, toy):
    with pytest.raises(InputError, match=r"is for images in files, and those of Toy.* in memory"):
        toy(augment="device", decode="device", train_transform=VIEWS).setup("fit")
    for path in root.rglob("*.jpg"):
        picture(0).save(path, "PNG")
    with pytest.warns(UserWarning, match="no image of a batch is a JPEG file") as told:
        same(finished(make(root)), finished(make(root, "worker")))
    assert len(told) == 3


@pytest.mark.parametrize("options", [{"augment": "worker"}, {"train_transform": None}])
def test_files_without_views_on_the_device_are_refused(root, options):
    options = {"augment": "device", "train_transform": VIEWS, **options}
    with pytest.raises(InputError, match="decode: device leaves the views to the device too"):
        ImageFolderDataModule(root=str(root), decode="device", **options)
    with pytest.raises(InputError, match="decode must be 'worker' or 'device', got 'gpu'"):
        ImageFolderDataModule(root=str(root), decode="gpu")
