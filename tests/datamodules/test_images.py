from __future__ import annotations

import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import CorruptImageError, ImageFolderDataModule
from lit_ssl.datamodules.reading.decoding import Decoding, read_image
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages, PackedStrings
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.errors import InputError
from lit_ssl.transforms import EvalTransform


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
    assert image.permute(1, 2, 0).is_contiguous()  # as decoders write them
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


def png_16(path, values):
    """Writes uint16 [H, W, C] as PNG, which Pillow cannot for colours."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def save(path, values):
    Image.fromarray(values).save(path)
    return str(path)


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP / 255).astype(np.float32), RAMP),
        ((RAMP > 99).astype(np.float32), 255 * (RAMP > 99)),
        (RAMP.astype(np.float32), RAMP),
        (RAMP.astype(np.int32), RAMP),
        ((RAMP * 257).astype(np.int32), RAMP),
        ((RAMP * 257).astype(np.uint16), RAMP),
        (np.zeros((4, 4), dtype=np.uint16), np.zeros((4, 4))),
    ],
)
def test_grey_of_more_than_8_bits(tmp_path, values, expected):
    image = read_image(save(tmp_path / "grey.tif", values))
    assert image.dtype == torch.uint8
    assert all(np.array_equal(channel, expected) for channel in image.numpy())


@pytest.mark.parametrize(
    "values",
    [
        (RAMP * 16).astype(np.uint16),  # 12 bits, or dark
        RAMP.astype(np.uint16),
        (RAMP * 16).astype(np.int32),
        (RAMP * 1000).astype(np.int32),
        (RAMP > 99).astype(np.int32),  # a mask, or nearly black
        (RAMP - 5).astype(np.int32),
        (RAMP / 100).astype(np.float32),
        (RAMP / 255 - 0.1).astype(np.float32),
        np.where(RAMP > 3, np.nan, 0.5).astype(np.float32),
    ],
)
def test_grey_whose_white_is_not_known(tmp_path, values):
    path = save(tmp_path / "grey.tif", values)
    with pytest.raises(
        CorruptImageError, match=r"grey.tif: its values go from .*max_value"
    ) as told:
        read_image(path)
    assert "\n" not in str(told.value)


def test_white_that_a_person_gives(tmp_path):
    path = save(tmp_path / "12.png", (RAMP * 16 + 7).astype(np.uint16))
    image = read_image(path, decoding=Decoding(max_value=4095))
    assert np.array_equal(image[0], RAMP)
    assert read_image(path, decoding=Decoding(max_value=65535)).max() == 15
    path = save(tmp_path / "f.tif", (RAMP / 255 * 3.7).astype(np.float32))
    assert np.abs(read_image(path, decoding=Decoding(max_value=3.7))[0].numpy() - RAMP).max() <= 1
    with pytest.raises(CorruptImageError, match=r"0 to 3.7, and white is 2: set max_value"):
        read_image(path, decoding=Decoding(max_value=2))
    with pytest.raises(InputError, match="max_value must be above 0"):
        Decoding(max_value=0)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits(tmp_path, channels):
    values = np.full((4, 4, channels), 65535, dtype=np.uint16)
    values[..., 0] = RAMP[:4, :4] * 16  # dark, or 12 bits
    png_16(tmp_path / "bright.png", values * 1)
    values[..., :3] = np.minimum(values[..., :3], 4095)
    png_16(tmp_path / "dark.png", values)
    if channels > 2:
        assert read_image(str(tmp_path / "bright.png")).max() == 255
    with pytest.raises(CorruptImageError, match="reads the upper 8, and these go to"):
        read_image(str(tmp_path / "dark.png"))
    dark = read_image(str(tmp_path / "dark.png"), decoding=Decoding(max_value=65535))
    assert dark.max() < 16


def test_portable_grey_maps_say_what_is_white(tmp_path):
    header = b"P5 4 1 4095\n"
    (tmp_path / "g.pgm").write_bytes(header + np.array([0, 1024, 2048, 4095], ">u2").tobytes())
    path = str(tmp_path / "g.pgm")
    for decoding in (Decoding(), Decoding(max_value=4095)):
        assert read_image(path, decoding=decoding)[0].tolist() == [[0, 64, 128, 255]]


@pytest.mark.parametrize("kind", [5, 6])
def test_portable_maps_of_16_bits_may_hold_12(tmp_path, kind):
    values = np.array([0, 1024, 2048, 4095] * (1 if kind == 5 else 3), ">u2").tobytes()
    (tmp_path / "g.pnm").write_bytes(b"P%d 4 1 65535\n" % kind + values)
    path = str(tmp_path / "g.pnm")
    with pytest.raises(CorruptImageError, match="max_value"):
        read_image(path)
    assert read_image(path, decoding=Decoding(max_value=65535)).max() in (15, 16)
    if kind == 5:
        image = read_image(path, decoding=Decoding(max_value=4095))
        assert image[0].tolist() == [[0, 64, 128, 255]]


@pytest.mark.parametrize("value", [0, 1 << 11 | 2 << 5 | 1, 0xFFFF])
def test_bitmaps_of_16_bits_for_three_colours(tmp_path, value):
    header = struct.pack("<2sIHHI", b"BM", 66 + 32, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    (tmp_path / "a.bmp").write_bytes(header + masks + struct.pack("<H", value) * 16)
    expected = {0: 0, 0xFFFF: 255}.get(value, 8)
    assert read_image(str(tmp_path / "a.bmp")).unique().tolist() == [expected]


def test_transparent_value_of_16_bit_grey(tmp_path):
    path = tmp_path / "key.png"
    png_16(path, (RAMP * 257)[..., None])
    header, rest = path.read_bytes()[:33], path.read_bytes()[33:]
    key = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", 257 * 3)
    path.write_bytes(header + key + struct.pack(">I", zlib.crc32(key[4:])) + rest)
    with pytest.warns(UserWarning, match="transparent pixels"):
        assert np.array_equal(read_image(str(path))[0], RAMP)
    image = read_image(str(path), decoding=Decoding(background=(255, 0, 7)))
    assert image[:, 0, 3].tolist() == [255, 0, 7]
    assert image[:, 0, 4].tolist() == [4, 4, 4]


def test_decoders_that_fail_in_their_own_way(tmp_path, monkeypatch, write_image):
    write_image(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    for end in range(20, len(content), len(content) // 30):
        (tmp_path / "a.avif").write_bytes(content[:end])
        with pytest.raises(CorruptImageError, match=r"a.avif .*on_corrupt: skip"):
            read_image(str(tmp_path / "a.avif"))


@pytest.fixture
def transparent(tmp_path):
    """Black, whose alpha goes from 0 to 255; and the same as grey, palette and WebP."""
    alpha = Image.fromarray(RAMP.astype(np.uint8))
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    image.putalpha(alpha)
    image.save(tmp_path / "rgba.png")
    image.convert("LA").save(tmp_path / "la.png")
    image.save(tmp_path / "lossless.webp", lossless=True, exact=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "key.png", transparency=(0, 0, 0))
    Image.new("L", (16, 16)).save(tmp_path / "grey_key.png", transparency=0)
    return tmp_path


@pytest.mark.parametrize("name", ["rgba.png", "la.png", "lossless.webp", "key.png", "grey_key.png"])
def test_transparency(transparent, name):
    path = str(transparent / name)
    with pytest.warns(UserWarning, match="transparent pixels.* Set background"):
        assert read_image(path).unique().tolist() == [0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path, decoding=Decoding(background=(255, 100, 0)))
    if "key" in name:
        assert image[:, 0, 0].tolist() == [255, 100, 0]
    else:
        assert np.abs(image[0].numpy() - (255 - RAMP).astype(int)).max() <= 1
        assert image[2].unique().tolist() == [0]
    assert read_image(path, 8, Decoding(background=(255, 100, 0))).shape == (3, 8, 8)


def test_opaque_alpha_is_nothing_to_speak_of(tmp_path):
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(str(tmp_path / "a.png"))[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("colour", [(1, 2), (0, 0, 256), (-1, 0, 0)])
def test_background_is_a_colour(colour):
    with pytest.raises(InputError, match="three numbers from 0 to 255"):
        Decoding(background=colour)


def test_data_modules_hand_on_how_to_decode(tmp_path, transparent):
    (tmp_path / "only").mkdir()
    (tmp_path / "rgba.png").rename(tmp_path / "only/1.png")
    save(tmp_path / "only/2.png", (RAMP * 16).astype(np.uint16))
    options = {"image_size": 16, "num_workers": 0, "batch_size": 2}
    options["eval_transform"] = EvalTransform(16)
    root = str(tmp_path / "only")
    data = ImageFolderDataModule(root=root, background=[255, 0, 0], max_value=4095, **options)
    images, _ = next(iter(data.bank_dataloader()))
    assert images[0, 0].tolist() == (255 - RAMP).tolist()
    assert images[1, 2].tolist() == RAMP.tolist()
    data = ImageFolderDataModule(root=root, on_corrupt="skip", **options)
    with pytest.warns(UserWarning, match=r"Skipped: its values go from 0 to 4080"):
        images, _ = next(iter(data.bank_dataloader()))
    assert images.max() == 0
