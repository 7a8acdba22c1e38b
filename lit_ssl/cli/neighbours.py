"""``lit-ssl neighbours``: which images a network finds alike, from features that predict wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.new_folder import made_folder, new_folder
from lit_ssl.cli.printing import say
from lit_ssl.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from lit_ssl.cli.predicted_features import PredictedFeatures

__all__ = ["run"]

_TABLE, _GALLERY = "neighbours.csv", "neighbours.png"
_PAIRS, _PAIR_GALLERY = "near_duplicates.csv", "near_duplicates.png"
_OUTPUT = "lit_ssl_neighbours"
_DRAWN = 8  # queries where none are given
_SHOWN, _WIDEST = 50, 24  # rows of a gallery, neighbours in a row
_MOST_PAIRS, _SHOWN_PAIRS = 1_000, 24
_SPLITS = ("", "test", "val", "valid", "validation", "train", "training", "testing")


class _Found(NamedTuple):
    """A query and its neighbours, best first."""

    query: int
    places: list[int]
    similarities: list[float]


def run(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: What follows ``neighbours`` on the command line.

    Raises:
        InputError: For wrong words, files or values, or images that are not there.
    """
    args = _parse(words)
    new_folder(args.output, _OUTPUT)
    from lit_ssl.cli.predicted_features import read_features

    bank = read_features(args.features)
    if len(bank.files) < 2:
        raise InputError(f"{args.features[0]} has {len(bank.files)} row: neighbours need two")
    queries, others = bank, False
    files = [one for one in args.query if one.endswith(".safetensors")]
    if files:
        if len(files) < len(args.query):
            raise InputError("--query takes images of the features, or files of others: not both")
        queries, others = read_features(files), True
        ours, theirs = bank.features.shape[1], queries.features.shape[1]
        if ours != theirs:
            raise InputError(
                f"the features have {ours} dimensions and those of --query {theirs}: predict both"
                " with one network"
            )
        places = list(range(len(queries.files)))
    elif args.query:
        places = list(dict.fromkeys(bank.find(one) for one in args.query))
    else:
        places = _drawn(len(bank.files))
    gallery = _Gallery(bank, args.images)
    asking = gallery if not others else _Gallery(queries, None)
    new_folder(args.output, _OUTPUT, images=gallery.folder)
    found = _nearest(queries, places, bank, args.k, alone=not others)
    output = made_folder(args.output, _OUTPUT, images=gallery.folder)
    _write_table(output, found, queries, bank)
    _write_gallery(output, found, asking, gallery)
    if not args.query:
        _write_pairs(output, gallery, args.threshold)


def _parse(words: Sequence[str]) -> Any:
    parser = LineParser(
        "lit-ssl neighbours",
        description="Nearest neighbours by cosine similarity of features that `lit-ssl predict` "
        "wrote: a table and a gallery. Without --query: of some images at random, and the pairs "
        "that are almost the same.",
    )
    parser.add_argument(
        "features",
        nargs="+",
        help="predictions.safetensors, those of all processes, or the folder that holds them",
    )
    parser.add_argument(
        "--query",
        nargs="+",
        default=[],
        help="images among them, by file or row; or the predictions.safetensors of others",
    )
    parser.add_argument("--k", type=int, default=8, help="neighbours of each (default: 8)")
    parser.add_argument(
        "--images",
        metavar="ROOT",
        help="folder of the images, if they lie elsewhere than when they were predicted",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.98,
        help="similarity of pairs that are almost the same (default: 0.98)",
    )
    parser.add_argument(
        "--output", help="folder to write: new or empty (default: lit_ssl_neighbours/version_N)"
    )
    args = parser.parse_args(words)
    if args.k < 1:
        raise InputError(f"--k must be at least 1, not {args.k}")
    if not -1 <= args.threshold <= 1:
        raise InputError(f"--threshold must lie between -1 and 1, not {args.threshold}")
    return args


def _drawn(count: int) -> list[int]:
    """Some rows, always the same."""
    from lit_ssl.seeding import keyed_permutation

    return sorted(keyed_permutation(count, 0)[:_DRAWN].tolist())


def _nearest(
    queries: PredictedFeatures, places: list[int], bank: PredictedFeatures, k: int, alone: bool
) -> list[_Found]:
    """The neighbours of some rows; with ``alone`` a row is none of its own."""
    import torch

    from lit_ssl.metrics.knn import knn_neighbours

    most = len(bank.files) - alone
    if k > most:
        say(f"--k {k}: there are {most:,} other images, which are all shown")
    rows = queries.features[torch.tensor(places)]
    similarity, nearest = knn_neighbours(bank.features, rows, min(k, most) + alone)
    found = []
    for query, values, others in zip(places, similarity.tolist(), nearest.tolist(), strict=True):
        pairs = [(o, v) for o, v in zip(others, values, strict=True) if not (alone and o == query)]
        pairs = pairs[: min(k, most)]
        found.append(_Found(query, [p[0] for p in pairs], [min(p[1], 1.0) for p in pairs]))
    return found


class _Gallery:
    """The images of features, as tiles.

    Args:
        known: The features.
        root: Folder of the images that a person gave; None: where they were.

    Raises:
        InputError: They do not lie in ``root``.
    """

    def __init__(self, known: PredictedFeatures, root: str | None) -> None:
        self.known = known
        self.lost: set[str] = set()  # files that could not be shown
        self.folder: Path | None = known.folder
        named = [file for file in known.files if file]
        if root is not None:
            base = Path(os.path.expanduser(root))
            # the split they were of, before others in which files have the same names
            own = [known.folder.name] if known.folder is not None else []
            folders = [base / split for split in [*own, *_SPLITS]]
            held = (f for f in folders if named and all(os.path.isfile(f / n) for n in named))
            some = (f for f in folders if named and os.path.isfile(f / named[0]))
            self.folder = next(held, None) or next(some, None)
            if self.folder is None:
                first = named[0] if named else "images with names"
                raise InputError(f"--images {root} does not hold {first}, which the features name")
        elif self.folder is not None and not (named and os.path.isfile(self.folder / named[0])):
            self.folder = None

    def picture(self, place: int) -> Image.Image:
        """Return an image, grey where it cannot be read.

        Args:
            place: Which of the features.
        """
        import warnings

        from PIL import Image

        from lit_ssl.datamodules.reading.decoding import CorruptImageError, read_image

        assert self.folder is not None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of transparent pixels
                pixels = read_image(str(self.folder / self.known.files[place]), max_side=256)
        except CorruptImageError:
            self.lost.add(self.known.name(place))
            return Image.new("RGB", (64, 64), (200, 200, 200))
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _write_table(
    output: Path, found: list[_Found], queries: PredictedFeatures, bank: PredictedFeatures
) -> None:
    from lit_ssl.files import write_csv

    table = [
        {
            "query_row": int(queries.rows[one.query]),
            "query_file": queries.files[one.query],
            "rank": rank,
            "similarity": f"{value:.6f}",
            **_columns(bank, place),
        }
        for one in found
        for rank, (place, value) in enumerate(
            zip(one.places, one.similarities, strict=True), start=1
        )
    ]
    say(f"neighbours of {len(found):,} images: {write_csv(output / _TABLE, table)}")


def _columns(known: PredictedFeatures, place: int, prefix: str = "") -> dict[str, Any]:
    label = int(known.labels[place])
    values = (known.rows[place], known.files[place], "" if label < 0 else label)
    names = ("row", "file", "label", "class")
    return {
        f"{prefix}{name}": value
        for name, value in zip(
            names, (int(values[0]), *values[1:], known.classes[place]), strict=True
        )
    }


def _write_gallery(output: Path, found: list[_Found], asking: _Gallery, gallery: _Gallery) -> None:
    if not _have_images(asking, gallery):
        return
    from lit_ssl.drawing.lettering import in_one_line
    from lit_ssl.drawing.rows import Row, draw_rows
    from lit_ssl.drawing.sheet import Tile

    ours, theirs = asking.known, gallery.known
    rows = []
    for one in found[:_SHOWN]:
        tiles = []
        for place, value in islice(zip(one.places, one.similarities, strict=True), _WIDEST):
            text = f"{value:.3f}\n{in_one_line(theirs.name(place))}"
            frame = _frame(asking, one.query, gallery, place)
            tiles.append(Tile(gallery.picture(place), text, frame))
        rows.append(Row(tiles, Tile(asking.picture(one.query), in_one_line(ours.name(one.query)))))
    framed = any(tile.frame is not None for row in rows for tile in row.tiles)
    width = max(len(one.places) for one in found)
    more = f", the first {_SHOWN} of {len(found):,}" if len(found) > _SHOWN else ""
    nearest = f"the {_WIDEST} nearest of their {width:,} neighbours"
    nearest = nearest if width > _WIDEST else "their nearest neighbours"
    frames = "; green: of the same class, orange: of another" if framed else ""
    title = f"Images{more}, and {nearest} by the cosine of features{frames}"
    _save(output / _GALLERY, draw_rows(rows, title=title), asking, gallery)


def _write_pairs(output: Path, gallery: _Gallery, threshold: float) -> None:
    """The pairs of images that are almost the same, and a gallery of them."""
    from lit_ssl.files import write_csv
    from lit_ssl.metrics.near_duplicates import closest_pairs

    known = gallery.known
    similarity, pairs, count = closest_pairs(known.features, threshold, _MOST_PAIRS)
    if not count:
        say(f"no two images are as similar as {threshold:g} (--threshold)")
        return
    table = [
        {
            "similarity": f"{value:.6f}",
            **_columns(known, one, "first_"),
            **_columns(known, other, "second_"),
        }
        for value, (one, other) in zip(similarity.tolist(), pairs.tolist(), strict=True)
    ]
    path = write_csv(output / _PAIRS, table)
    most = f", of which the most similar {_MOST_PAIRS:,} are" if count > _MOST_PAIRS else ""
    say(
        f"near-duplicates: {count:,} pairs with a similarity of {threshold:g} or more{most}: {path}"
    )
    if gallery.folder is None:
        return
    from lit_ssl.drawing.lettering import in_one_line
    from lit_ssl.drawing.sheet import Tile, draw_sheet

    tiles = []
    best = zip(similarity.tolist(), pairs.tolist(), strict=True)
    for value, (one, other) in islice(best, _SHOWN_PAIRS):
        tiles.append(Tile(gallery.picture(one), f"{value:.4f}\n{in_one_line(known.name(one))}"))
        tiles.append(Tile(gallery.picture(other), f"and\n{in_one_line(known.name(other))}"))
    shown = f"the {len(tiles) // 2:,} most similar of {count:,} pairs, four in a row"
    sheet = draw_sheet(tiles, 8, title=f"Almost the same: {shown}")
    _save(output / _PAIR_GALLERY, sheet, gallery)


def _have_images(*galleries: _Gallery) -> bool:
    for gallery in galleries:
        if gallery.folder is None:
            where = gallery.known.folder or "in no folder that predict has noted"
            say(f"no gallery: the images are not there any more ({where}); --images says where")
            return False
    return True


def _frame(asking: _Gallery, query: int, gallery: _Gallery, place: int) -> Any:
    """Colour of the frame of a neighbour; None where a class is not known."""
    from lit_ssl.drawing.palette import RIGHT, WRONG

    ours, theirs = asking.known, gallery.known
    if ours.labels[query] < 0 or theirs.labels[place] < 0:
        return None
    mine, other = ours.classes[query], theirs.classes[place]
    if mine and other:  # names, as labels of two data sets need not mean the same
        return RIGHT if mine == other else WRONG
    if ours is not theirs:
        return None
    return RIGHT if ours.labels[query] == theirs.labels[place] else WRONG


def _save(path: Path, picture: Image.Image, *galleries: _Gallery) -> None:
    from lit_ssl.errors import listed
    from lit_ssl.files import write_file

    write_file(path, lambda file: picture.save(file, "png"), binary=True)
    say(f"gallery: {path}")
    if lost := sorted(set().union(*(gallery.lost for gallery in galleries))):
        say(f"grey there, as they cannot be read: {len(lost):,} images: {listed(lost)}")
