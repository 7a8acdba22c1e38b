"""JPEG files through torchvision: the pixels, and the refusals, that Pillow alone would give."""

from __future__ import annotations

import io
import warnings
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules.reading import decoding, jpeg
from lit_ssl.datamodules.reading.decoding import CorruptImageError, decode_image

TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
VARIANTS = {
    "plain": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "optimised": {"optimize": True, "quality": 20},
    "restart markers": {"restart_marker_blocks": 2},
    "progressive with restart markers": {"progressive": True, "restart_marker_rows": 1},
    "rgb inside": {"keep_rgb": True},
    "turned": {"exif": TURNED},
    "comment": {"comment": b"\xff\xc0 no frame"},
    "colour profile": {"icc_profile": bytes(100_000)},
}


def picture(height=45, width=67, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    pixels = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = (pixels + rng.integers(-20, 20, pixels.shape)).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def written(kind="JPEG", mode="RGB", height=45, width=67, **options):
    file = io.BytesIO()
    picture(height, width, mode).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def by_pillow(monkeypatch):
    """A function that decodes with Pillow alone."""

    def decode(content, max_side=None):
        with monkeypatch.context() as patched:
            patched.setattr(decoding, "read_plain", lambda image, file: None)
            return decode_image(content, "a.jpg", max_side)

    return decode


@pytest.fixture
def decoded(monkeypatch):
    """What torchvision made of each file, None where it refused it."""
    results = []

    def decode(content, original=jpeg.decode_plain):
        results.append(original(content))
        return results[-1]

    monkeypatch.setattr(jpeg, "decode_plain", decode)
    return results


def outcome(decode, content):
    """Pixels, or what the error says."""
    try:
        return decode(content)
    except CorruptImageError as error:
        return str(error)


def same(found, expected):
    if isinstance(found, str) or isinstance(expected, str):
        return isinstance(found, str) and found == expected
    return torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_torchvision_decodes_what_pillow_does(variant, mode, decoded, by_pillow):
    for height, width in ((45, 67), (1, 1), (16, 3)):
        content = written(mode=mode, height=height, width=width, **VARIANTS[variant])
        image = decode_image(content, "a.jpg")
        assert image is decoded[-1]
        assert image.shape == (3, height, width)
        assert image.permute(1, 2, 0).is_contiguous()
        assert torch.equal(image, by_pillow(content))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("MPO", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
        ("PNG", "RGB", {}),
        ("WEBP", "RGB", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
    ],
)
def test_pillow_decodes_what_is_no_plain_jpeg(kind, mode, options, decoded):
    content = written(kind, mode, **options)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.array(image.convert("RGB"))
    assert np.array_equal(decode_image(content, "a").permute(1, 2, 0), expected)
    assert decoded == []


@pytest.mark.parametrize("variant", ["plain", "progressive", "restart markers", "turned"])
def test_files_that_are_cut_short_are_told_as_before(variant, by_pillow):
    content = written(height=24, width=40, **VARIANTS[variant])
    refused = 0
    for length in {*range(2, len(content), len(content) // 50), *range(len(content))[-5:]}:
        found = outcome(lambda part: decode_image(part, "a.jpg"), content[:length])
        refused += isinstance(found, str)
        assert same(found, outcome(by_pillow, content[:length])), length
    assert refused > 40


@pytest.mark.parametrize("variant", ["plain", "progressive", "restart markers", "turned"])
def test_damaged_files_are_read_or_told_as_before(variant, by_pillow):
    content = written(height=24, width=40, **VARIANTS[variant])
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(100):
        damaged = bytearray(content)
        place = int(rng.integers(2, len(content)))
        garbage = rng.bytes(int(rng.integers(1, 60)))
        if trial % 4 == 0:
            damaged[place : place + len(garbage)] = garbage
        elif trial % 4 == 1:
            damaged[place:place] = garbage
        elif trial % 4 == 2:
            del damaged[place : place + len(garbage)]
        else:  # a marker out of place: frame, end, tables, scan, restart, reserved
            damaged[place:place] = bytes([0xFF, rng.choice([0xC0, 0xD9, 0xC4, 0xDA, 0xD3, 0xF0])])
        found = outcome(lambda part: decode_image(part, "a.jpg"), bytes(damaged))
        refused += isinstance(found, str)
        expected = outcome(by_pillow, bytes(damaged))
        # What decoders make of broken data depends on the libjpeg that each was built with.
        assert kind_of(found) == kind_of(expected), trial
    assert 10 < refused < 95


def kind_of(found):
    return found if isinstance(found, str) else found.shape


def frame_of(content):
    return content.index(b"\xff\xc0\x00\x11\x08")


def test_a_claim_of_too_many_pixels_is_refused_before_they_are_reserved(decoded):
    content = bytearray(written())
    place = frame_of(content) + 5
    content[place : place + 4] = b"\xf0\x00\xf0\x00"
    with pytest.raises(CorruptImageError, match="DecompressionBomb"):
        decode_image(bytes(content), "a.jpg")
    assert decoded == []


def test_no_decoder_sees_another_frame_than_pillow(decoded, by_pillow):
    content = written()
    place = frame_of(content)
    frame = content[place : place + 19]
    large = frame[:5] + b"\xf0\x00\xf0\x00" + frame[9:]
    for header in (
        large + frame,  # Pillow takes the last one
        b"\xff\xf0" + len(large).to_bytes(2, "big") + large[:-2] + frame,  # reserved, not skipped
        b"\x00\x00" + frame,  # between two segments
        b"\xff\xfe\xff\xff" + frame,  # a comment that is longer than the file
    ):
        changed = content[:place] + header + content[place + 19 :]
        found = outcome(lambda part: decode_image(part, "a.jpg"), changed)
        assert same(found, outcome(by_pillow, changed))
        assert decoded == []


@pytest.mark.parametrize("variant", ["plain", "progressive", "4:4:4"])
def test_shrinking_is_pillows_up_to_a_level(variant, decoded):
    content = written(height=200, width=300, **VARIANTS[variant])
    image = decode_image(content, "a.jpg", 240)
    with Image.open(io.BytesIO(content)) as whole:
        expected = np.array(whole.resize((240, 160), Image.Resampling.BICUBIC)).astype(int)
    assert len(decoded) == 1
    assert image.permute(1, 2, 0).is_contiguous()
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_large_photographs_are_still_decoded_in_part(decoded):
    content = written(height=400, width=600)
    image = decode_image(content, "a.jpg", 120)
    with Image.open(io.BytesIO(content)) as draft:
        draft.draft(None, (120, 80))
        assert draft.size == (150, 100)
        expected = np.array(draft.resize((120, 80), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 1
    assert decoded == []


def test_files_too_large_to_hold_are_left_to_pillow(monkeypatch, decoded, by_pillow):
    content = written()
    monkeypatch.setattr(jpeg, "_LONGEST", len(content) - 1)
    assert torch.equal(decode_image(content, "a.jpg"), by_pillow(content))
    assert decoded == []


def test_a_torchvision_without_libjpeg_is_told_once(monkeypatch, by_pillow):
    def refuse(content):
        raise RuntimeError("not compiled with libjpeg support")

    monkeypatch.setattr(jpeg, "_decoded", refuse)
    content = written()
    jpeg._has_decoder.cache_clear()
    try:
        with pytest.warns(UserWarning, match="decodes no JPEG files here"):
            assert torch.equal(decode_image(content, "a.jpg"), by_pillow(content))
        with warnings.catch_warnings(action="error"):
            decode_image(content, "a.jpg")
    finally:
        jpeg._has_decoder.cache_clear()


def test_images_that_are_programs_are_not_run():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with (
        patch("PIL.EpsImagePlugin.Ghostscript") as program,
        pytest.raises(CorruptImageError, match="cannot identify image file"),
    ):
        decode_image(content, "a.jpg")
    assert not program.called
