"""Pairs of image and caption in a tar, read once from its beginning to its end."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lit_ssl.errors import InputError
from lit_ssl.json_text import parse_json

__all__ = [
    "CLS",
    "LEFT_OUT",
    "NO_TEXT",
    "NUMBER",
    "TXT",
    "CorruptShardError",
    "LeftOut",
    "TarPair",
    "read_pairs",
]

TXT = "txt"
CLS = ".cls"  # labels of images, in files of this suffix
NUMBER = ".number:"  # or in a field of JSON, whose name follows
NO_IMAGE = "samples without an image"
NO_CAPTION = "samples without a caption"
NO_TEXT = "captions that are no text in UTF-8"
SAMPLE_TWICE = "samples that come twice"
MEMBER_TWICE = "members that come twice"
LEFT_OUT = (NO_IMAGE, NO_CAPTION, NO_TEXT, SAMPLE_TWICE, MEMBER_TWICE)
_IMAGES = ("jpg", "jpeg", "png", "webp")
# As webdataset has it: a key ends at the first dot behind the last slash.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError)
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")  # gzip, zstd, bzip2, xz
_CHUNK = 1 << 20
_LONGEST = 1 << 24  # bytes of a caption or its JSON

LeftOut = Callable[[str, str], None]


class CorruptShardError(InputError, RuntimeError):
    """A tar that is cut short, or none at all, or cannot be fetched."""


class TarPair(NamedTuple):
    """An image with its caption.

    Attributes:
        key: Path of the sample in the tar, without suffix.
        offset: Where the image file begins in the tar, in bytes.
        size: Its bytes.
        image: The image file; empty where it was not asked for.
        caption: The text, without blanks around it.
    """

    key: str
    offset: int
    size: int
    image: bytes
    caption: str


def read_pairs(
    file: Any, name: str, caption: str, left_out: LeftOut, with_images: bool
) -> Iterator[TarPair]:
    """Read the samples of a tar, in order: members that follow each other under one key.

    Nothing is written to disk, so a member's name is never more than a name.

    Args:
        file: Open file of bytes; it need not be seekable.
        name: What messages call it.
        caption: "txt": captions are the members ``<key>.txt``; else a field of ``<key>.json``. Of
            images with labels ``CLS``: their text is the member ``<key>.cls``; or ``NUMBER`` and a
            field of ``<key>.json``: it is the whole number there.
        left_out: Told (one of ``LEFT_OUT``, key) of each sample that is no pair.
        with_images: Read the images too; else only where they are.

    Raises:
        CorruptShardError: The tar is cut short, or is none; pairs before that have been given.
    """
    forward = _Forward(file)
    seen: set[str] = set()
    sample: _Sample | None = None
    for key, suffix, offset, size in _members(forward, name):
        if sample is None or sample.key != key:
            if sample is not None:
                yield from sample.pair(left_out)
            sample = _Sample(key, is_again=key in seen)
            seen.add(key)
        is_image = suffix in _IMAGES
        if not is_image and suffix != {TXT: "txt", CLS: "cls"}.get(caption, "json"):
            continue
        if (sample.image if is_image else sample.text) is not None:
            sample.is_doubled = True
        elif is_image:
            content = forward.content(offset, size, name) if with_images else b""
            sample.image = (offset, size, content) if size else None
        elif size > _LONGEST:
            sample.text, sample.is_text = "", False
        else:
            sample.take_text(forward.content(offset, size, name), caption)
    if sample is not None:
        yield from sample.pair(left_out)


class _Sample:
    """What was found under a key so far."""

    def __init__(self, key: str, is_again: bool) -> None:
        self.key = key
        self.is_again = is_again
        self.is_doubled = False
        self.is_text = True
        self.image: tuple[int, int, bytes] | None = None
        self.text: str | None = None

    def take_text(self, content: bytes, caption: str) -> None:
        try:
            self.text = _text(content, caption)
        except ValueError:
            self.text, self.is_text = "", False

    def pair(self, left_out: LeftOut) -> Iterator[TarPair]:
        if self.is_doubled and not self.is_again:
            left_out(MEMBER_TWICE, self.key)
        if self.is_again:
            left_out(SAMPLE_TWICE, self.key)
        elif self.image is None:
            left_out(NO_IMAGE, self.key)
        elif not self.is_text:
            left_out(NO_TEXT, self.key)
        elif not self.text:
            left_out(NO_CAPTION, self.key)
        else:
            yield TarPair(self.key, *self.image, caption=self.text)


def _text(content: bytes, caption: str) -> str:
    """The caption in a member, empty where it has none.

    Raises:
        ValueError: It is no text.
    """
    if caption in (TXT, CLS):
        return content.decode("utf-8-sig").strip()
    fields = parse_json(content)
    is_number = caption.startswith(NUMBER)
    text = fields.get(caption.removeprefix(NUMBER)) if isinstance(fields, dict) else fields
    if text is None:
        return ""
    if is_number:
        if type(text) is not int:
            raise ValueError("no whole number")
        return str(text)
    if not isinstance(text, str):
        raise ValueError("no text")
    text.encode()  # JSON may hold half characters, which no UTF-8 has
    return text.strip()


class _Forward:
    """A file as tarfile reads it, but only ever forward, so that it may be a stream."""

    def __init__(self, file: Any) -> None:
        self._file = file
        is_seekable = getattr(file, "seekable", None)
        self._seekable = is_seekable is not None and is_seekable()
        self._at = 0
        self.last = b""  # what was read last

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        if position < self._at:  # a false size in a header could make tarfile go round in circles
            raise tarfile.ReadError(f"the file at byte {self._at:,} has a false size")
        if self._seekable:
            self._file.seek(position)
            self._at = position
            return
        while self._at < position:
            if not self.read(min(_CHUNK, position - self._at)):
                return

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._file.read(min(size, _CHUNK))  # a false size would take all memory
            if not part:
                break
            parts.append(part)
            size -= len(part)
        self.last = parts[0] if len(parts) == 1 else b"".join(parts)
        self._at += len(self.last)
        return self.last

    def content(self, offset: int, size: int, name: str) -> bytes:
        try:
            self.seek(offset)
            content = self.read(size)
        except (OSError, tarfile.TarError) as error:
            raise _corrupt(name, str(error)) from error
        if len(content) < size:
            raise _corrupt(name, "it ends in the middle of a file")
        return content


def _members(file: _Forward, name: str) -> Iterator[tuple[str, str, int, int]]:
    """Key, suffix, offset and size of the regular files that have a suffix."""
    try:
        tar: Any = tarfile.TarFile(fileobj=file, encoding="utf-8")  # type: ignore[arg-type]
        while (entry := tar.next()) is not None:
            tar.members.clear()  # else it keeps all
            path = entry.name.removeprefix("./")
            match = _NAME.fullmatch(path)
            if match and entry.isreg() and not entry.issparse():
                yield match[1], match[2].lower(), entry.offset_data, entry.size
        # At a broken header tarfile stops without a word, as if it were the end.
        if len(file.last) < tarfile.BLOCKSIZE:
            raise _corrupt(name, "it ends before its end mark")
        if file.last.strip(b"\0"):
            raise _corrupt(name, f"there is no file of a tar at byte {tar.offset:,}")
        while rest := file.read(_CHUNK):
            if rest.strip(b"\0"):
                raise _corrupt(
                    name, "more follows behind its end mark, as where tars were put together by cat"
                )
    except CorruptShardError:
        raise
    except _ERRORS as error:
        why = str(error) or type(error).__name__
        if file.last.startswith(_COMPRESSED):
            why = "it is compressed, and only a plain tar can be entered anywhere: unpack it"
        raise _corrupt(name, why) from error


def _corrupt(name: str, why: str) -> CorruptShardError:
    return CorruptShardError(
        f"{name} is no whole tar ({why}). Fetch it again, or set on_corrupt: skip to use the pairs"
        " before that"
    )
