"""``lit-ssl neighbours``: which images a network finds alike, from features that predict wrote."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_ssl.cli.mistakes.one_line import LineParser
from lit_ssl.cli.new_folder import new_folder
from lit_ssl.cli.printing import say
from lit_ssl.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from lit_ssl.cli.predicted_features import PredictedFeatures

__all__ = ["run"]

_TABLE, _GALLERY = "neighbours.csv", "neighbours.png"
_PAIRS, _PAIR_GALLERY = "near_duplicates.csv", "near_duplicates.png"
_DRAWN = 8  # queries where none are given
_SHOWN = 50  # rows of a gallery
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
    output = new_folder(args.output, "lit_ssl_neighbours")
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
    found = _nearest(queries, places, bank, args.k, alone=not others)
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
        self.folder: Path | None = known.folder
        named = [file for file in known.files if file]
        if root is not None:
            base = Path(root).expanduser()
            folders = [base / split for split in _SPLITS if not split or (base / split).is_dir()]
            self.folder = next((f for f in folders if named and (f / named[0]).is_file()), None)
            if self.folder is None:
                first = named[0] if named else "images with names"
                raise InputError(f"--images {root} does not hold {first}, which the features name")
        elif self.folder is not None and not (named and (self.folder / named[0]).is_file()):
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
    from lit_ssl.drawing.palette import RIGHT, WRONG
    from lit_ssl.drawing.rows import Row, draw_rows
    from lit_ssl.drawing.sheet import Tile

    ours, theirs = asking.known, gallery.known
    by_label = bool((ours.labels >= 0).any())
    rows = []
    for one in found[:_SHOWN]:
        tiles = []
        for place, value in zip(one.places, one.similarities, strict=True):
            same = RIGHT if ours.classes[one.query] == theirs.classes[place] else WRONG
            text = f"{value:.3f}\n{theirs.name(place)}"
            tiles.append(Tile(gallery.picture(place), text, same if by_label else None))
        rows.append(Row(tiles, Tile(asking.picture(one.query), ours.name(one.query))))
    more = f", the first {_SHOWN} of {len(found):,}" if len(found) > _SHOWN else ""
    frames = "; green: of the same class, orange: of another" if by_label else ""
    title = f"Images{more}, and their nearest neighbours by the cosine of features{frames}"
    _save(output / _GALLERY, draw_rows(rows, title=title))


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
    from lit_ssl.drawing.sheet import Tile, draw_sheet

    tiles = []
    best = zip(similarity.tolist(), pairs.tolist(), strict=True)
    for value, (one, other) in islice(best, _SHOWN_PAIRS):
        tiles.append(Tile(gallery.picture(one), f"{value:.4f}\n{known.name(one)}"))
        tiles.append(Tile(gallery.picture(other), f"and\n{known.name(other)}"))
    shown = f"the {len(tiles) // 2:,} most similar of {count:,} pairs, four in a row"
    sheet = draw_sheet(tiles, 8, title=f"Almost the same: {shown}")
    _save(output / _PAIR_GALLERY, sheet)


def _have_images(*galleries: _Gallery) -> bool:
    for gallery in galleries:
        if gallery.folder is None:
            where = gallery.known.folder or "in no folder that predict has noted"
            say(f"no gallery: the images are not there any more ({where}); --images says where")
            return False
    return True


def _save(path: Path, picture: Image.Image) -> None:
    from lit_ssl.files import write_file

    write_file(path, lambda file: picture.save(file, "png"), binary=True)
    say(f"gallery: {path}")
