"""Your own images with captions, in a table or in JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_ssl.datamodules.reading.listing import FolderListing
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.selection.own_tables import SPLIT_NUMBERS
from lit_ssl.datamodules.selection.partition import Split
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.datamodules.vision_language.captions.found_captions import (
    Caption,
    FoundCaptions,
    MissingImages,
    check_missing_images,
    safe_path,
)
from lit_ssl.errors import InputError, InputFileNotFoundError, did_you_mean, listed, quoted
from lit_ssl.files import describe_folder, text_lines
from lit_ssl.json_text import JSONError, parse_json
from lit_ssl.tables import columns_of_lines, csv_lines

__all__ = ["PairList"]

_USUAL_SPLIT = "split"
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class PairList(CaptionSource):
    """Images and captions that a file lists: CSV with a header, or JSON Lines.

    A row is the path of an image below ``root`` and a caption; rows with the same path are captions
    of one image. Images are opened by what is in them. An absolute path has to lie below ``root``;
    one that leads out of it is an error, as is an empty caption.

    Args:
        path: The file: ``.csv``, ``.tsv`` (tabs), or ``.jsonl`` (an object a line), in UTF-8, or in
            UTF-16 with a byte-order mark.
        root: Folder of the images. None: the folder of the file.
        image_column: Name of the column, or key, of the paths.
        caption_column: That of the captions.
        split_column: That of the splits: train, val or test, or 0, 1 or 2. None takes the column
            ``split`` where there is one, and otherwise all rows for training.
        missing_images: "error" stops where images are not there; "skip" leaves out their captions,
            and a warning says how many.
        name: What lines about the run call it. None: the name of the file, without its ending.

    Raises:
        InputError: The name of the file has another ending.
    """

    def __init__(
        self,
        path: str,
        root: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        split_column: str | None = None,
        missing_images: MissingImages = "error",
        name: str | None = None,
    ) -> None:
        check_missing_images(missing_images)
        self.path = Path(path).expanduser()
        if self.path.suffix.lower() not in (*_JSON_LINES, *_DELIMITERS):
            raise InputError(
                f"PairList reads .csv, .tsv and .jsonl, which {path} is not: name it by what it is"
            )
        self.root = self.path.parent if root is None else Path(root).expanduser()
        self.image_column = image_column
        self.caption_column = caption_column
        self.split_column = split_column
        self.missing_images = missing_images
        self.name = self.path.stem if name is None else name

    def load_rows(self, split: Split) -> Rows | None:
        """Return the captions of a split, None if the file has none."""
        if not self.path.is_file():
            raise InputFileNotFoundError(
                f"{self.name}: expected the file {self.path}. Found: {describe_folder(self.path)}."
                " Set path to the list of images and captions"
            )
        found = FoundCaptions(self.name, self.path, self.root, self.missing_images)
        listing = FolderListing(self.root)
        rows = found.rows(self._captions(split, listing), listing.__contains__)
        return rows if len(rows) else None

    def _captions(self, split: Split, listing: FolderListing) -> Iterator[Caption]:
        is_json = self.path.suffix.lower() in _JSON_LINES
        lines = self._json_fields() if is_json else self._csv_fields()
        found = False
        long: list[str] = []
        for number, (image, text, own) in lines:
            found = True
            where = f"line {number}"
            code = 0 if own is None else SPLIT_NUMBERS.get(own.strip())
            if code is None:
                raise InputError(
                    f"{self.path}, {where}: expected train, val or test, or 0, 1 or 2 as"
                    f" {self._split_name}, found {quoted(own)}"
                )
            if code != SPLIT_NUMBERS[split]:
                continue
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"{self.path}, {where}: expected a caption as {self.caption_column!r}, found"
                    f" {quoted(text)}. Write one, or take out the line"
                )
            if not is_json and "\n" in text:
                long.append(where)
            if isinstance(image, str) and "\\" in image and image not in listing:
                image = image.replace("\\", "/")  # of Windows
            try:
                yield where, safe_path(image, self.root), text
            except InputError as error:
                raise InputError(f"{self.path}, {where}: {error}") from error
        if long:
            rank_zero_warn(
                f"{self.name}: {len(long):,} captions of {self.path} go over several lines, up to"
                f" {listed(long, 3)}: if they should not, a quotation mark is not closed"
            )
        if not found:
            raise InputError(f"{self.path} lists nothing: expected images and captions")

    @property
    def _split_name(self) -> str:
        return repr(self.split_column or _USUAL_SPLIT)

    def _wanted(self, names: Sequence[str]) -> list[str]:
        """Columns to read, of those that there are."""
        split = self.split_column
        if split is None:
            split = _USUAL_SPLIT if _USUAL_SPLIT in names else None
            alike = [name for name in names if name.lower() == _USUAL_SPLIT]
            if split is None and alike:
                raise InputError(
                    f"{self.path} has {alike[0]!r}: set split_column to it, or rename it if it does"
                    " not say which split a row is of"
                )
        return [self.image_column, self.caption_column, *([] if split is None else [split])]

    def _csv_fields(self) -> Iterator[tuple[int, tuple[object, object, str | None]]]:
        expected = "expected a header and rows of an image and a caption"
        lines = csv_lines(self.path, expected, _DELIMITERS[self.path.suffix.lower()])
        _, header = next(lines, (0, []))
        wanted = self._wanted([name.strip() for name in header])
        for number, fields in columns_of_lines(self.path, header, lines, wanted, self.name):
            yield number, (fields[0], fields[1], fields[2] if len(fields) > 2 else None)

    def _json_fields(self) -> Iterator[tuple[int, tuple[object, object, str | None]]]:
        wanted: list[str] | None = None
        for number, line in text_lines(self.path):
            where = f"{self.path}, line {number}"
            try:
                row = parse_json(line)
            except JSONError as error:
                raise InputError(f"{where}: expected a JSON object ({error})") from error
            if not isinstance(row, dict):
                raise InputError(
                    f"{where}: expected a JSON object with an image and a caption in each line,"
                    f" found {quoted(row)}"
                )
            if wanted is None:
                wanted = self._wanted(list(row))
            if len(wanted) == 2 and _USUAL_SPLIT in row:
                raise InputError(
                    f"{where}: there is a {_USUAL_SPLIT!r}, which lines before do not have: give it"
                    " to all of them, or to none"
                )
            if absent := [name for name in wanted if name not in row]:
                raise InputError(
                    f"{where}: there is no {absent[0]!r}, but {listed(list(map(quoted, row)), 20)}."
                    f"{did_you_mean(absent[0], row, list_up_to=0)} Name the keys with image_column,"
                    " caption_column and split_column"
                )
            values = [row[name] for name in wanted]
            # Of a split that is null nobody says that it is the training one.
            yield number, (values[0], values[1], str(values[2]) if len(values) > 2 else None)
