from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import CorruptImageError
from lit_ssl.datamodules.reading.decoding import read_image
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader


def test_packed_strings():
    names = ["a", "", "Köln/été.JPEG", "x" * 300]
    packed = pickle.loads(pickle.dumps(PackedStrings(names)))
    assert [packed[index] for index in range(len(packed))] == names
    assert [packed.select(np.array([2, 0]))[index] for index in (0, 1)] == [names[2], names[0]]
    with pytest.raises(IndexError, match="4"):
        packed[4]
    assert len(PackedStrings([])) == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "LA", "P", "1"])
def test_every_mode_becomes_rgb(tmp_path, write_image, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    pixels = write_image(path, mode=mode)
    image = read_image(str(path))
    assert image.shape == (3, 20, 30)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    if mode in ("RGB", "RGBA", "CMYK"):
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - pixels).max() <= 1
    if mode in ("L", "LA", "1"):
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
    assert read_image(str(tmp_path / "p.png"))[:, 0, 0].tolist() == [10, 200, 30]


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.full((3, 3), 0x80FF, dtype=np.uint16)).save(tmp_path / "grey.png")
    assert read_image(str(tmp_path / "grey.png")).unique().tolist() == [0x80]


def test_exif_rotation_is_ignored(tmp_path):
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).shape == (3, 20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_max_side_shrinks_in_proportion(tmp_path, write_image, suffix):
    path = tmp_path / f"large.{suffix}"
    write_image(path, height=200, width=300)
    small = read_image(str(path), max_side=60)
    assert small.shape == (3, 40, 60)
    whole = read_image(str(path)).float()
    expected = torch.nn.functional.interpolate(
        whole[None], (40, 60), mode="bicubic", antialias=True, align_corners=False
    )[0]
    assert (small - expected).abs().mean() < 2
    assert read_image(str(path), max_side=300).shape == (3, 200, 300)


def broken_file(path, write_image, kind):
    write_image(path, height=64, width=64)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an image")
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "missing"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_unreadable_images_are_named(tmp_path, write_image, kind, suffix):
    path = tmp_path / f"broken.{suffix}"
    broken_file(path, write_image, kind)
    with pytest.raises(CorruptImageError, match=rf"broken\.{suffix} .*on_corrupt: skip"):
        read_image(str(path))


@pytest.fixture
def files(tmp_path, write_image):
    names = [f"{index}.png" for index in range(4)]
    for index, name in enumerate(names):
        write_image(tmp_path / name, seed=index)
    return FileImages(str(tmp_path), names)


def test_skipping_takes_the_next_image_with_its_label(tmp_path, files):
    (tmp_path / "2.png").write_text("")
    (tmp_path / "3.png").write_text("")
    reader = ImageReader(files, skip_corrupt=True)
    assert reader.num_corrupt == 0
    with pytest.warns(UserWarning, match=r"3\.png") as record:
        image, label = reader.read(3)
    assert len(record) == 1
    assert label == 0
    assert torch.equal(image, files.read(0))
    with pytest.warns(UserWarning, match=r"2\.png") as record:
        assert reader.read(2)[1] == 0
    assert len(record) == 1  # 3.png is known
    assert reader.read(1)[1] == 1
    assert reader.num_corrupt == 2


def test_nothing_readable(tmp_path, files):
    for name in ("0.png", "1.png", "2.png", "3.png"):
        (tmp_path / name).write_text("")
    reader = ImageReader(files, skip_corrupt=True)
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(CorruptImageError, match="None of the 4 images"),
    ):
        reader.read(1)


def test_array_images_check_their_shape():
    with pytest.raises(ValueError, match=r"uint8 \[N, C, H, W\], got torch.float32 \(3, 1, 4, 4\)"):
        ArrayImages(torch.zeros(3, 1, 4, 4))


def test_a_column_has_a_value_for_each_row():
    with pytest.raises(ValueError, match="'label' has 2 values for 3 rows"):
        Rows(ArrayImages(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)), {"label": np.zeros(2)})
    with pytest.raises(ValueError, match="'group' has 1 values for 2 rows"):
        Rows(FileImages("", ["a", "b"]), {"label": np.arange(2), "group": np.zeros(1)})


def test_rows_are_chosen_with_their_columns_and_outlined_without_pixels():
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    columns = {"label": np.arange(4, dtype=np.int32), "box": np.eye(4)}
    rows = Rows(ArrayImages(pixels), columns).select(np.array([3, 1]))
    assert rows.source.pixels.flatten().tolist() == [3, 1]
    assert (rows.labels.tolist(), rows.labels.dtype) == ([3, 1], np.int64)
    assert rows.columns["box"].tolist() == np.eye(4)[[3, 1]].tolist()
    outline = rows.outline()
    assert (len(outline), outline.name(0), outline.labels.tolist()) == (2, None, [3, 1])
    assert not hasattr(outline.source, "pixels")
    assert Rows(FileImages("", ["a", "b"]), {"label": np.arange(2)}).outline().name(1) == "b"
