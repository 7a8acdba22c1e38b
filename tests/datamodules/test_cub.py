"""CUB-200-2011's layout with three species: images, boxes, attributes, groups."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl import BARACK, MSN, ImageClassifier
from lit_ssl.datamodules import (
    CUB200DataModule,
    CUBGroupsDataModule,
    FewShotDataModule,
    ImageDataModule,
)
from lit_ssl.datamodules.reading.boxes import BoxImages
from lit_ssl.datamodules.reading.decoding import CorruptImageError
from lit_ssl.errors import InputError
from lit_ssl.models import SmallCNN
from lit_ssl.transforms import CropSpec, MultiCrop

SPECIES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
ATTRIBUTES = [
    "has_bill_shape::curved_(up_or_down)", "has_bill_shape::dagger", "has_wing_color::blue",
]  # fmt: skip
IMAGES = [  # species, is training, box
    (0, 1, (2.0, 3.0, 10.0, 8.0)),
    (0, 0, (0.0, 0.0, 30.0, 20.0)),
    (1, 1, (4.5, 5.5, 8.0, 6.0)),
    (1, 0, (20.0, 10.0, 15.0, 15.0)),  # beyond the image
    (2, 1, (0.0, 0.0, 1.0, 1.0)),
    (2, 1, (1.0, 1.0, 20.0, 10.0)),
    (2, 0, (1.0, 1.0, 3.0, 2.0)),
]


def attribute(image, number):
    """Whether an attribute is there, and the certainty: (image + number) by turns."""
    there = (image + number) % 2
    return (0, 1) if image == 3 and number == 2 else (there, 2 + (image + number) % 3)


@pytest.fixture
def root(tmp_path):
    """The archive as it unpacks: CUB_200_2011/ and attributes.txt beside it."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    names = []
    for number, (species, _, _) in enumerate(IMAGES, start=1):
        name = f"{SPECIES[species]}/{SPECIES[species][4:]}_{number:04d}_79{number}.jpg"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((20, 30, 3), dtype=np.uint8)
        pixels[..., 0] = 30 * number
        pixels[..., 1] = np.arange(20)[:, None] * 8
        pixels[..., 2] = np.arange(30)[None, :] * 8
        Image.fromarray(pixels).save(path, format="PNG")
        names.append(name)
    numbers = range(1, len(IMAGES) + 1)

    def write(name, rows):
        (folder / name).write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))

    write("images.txt", zip(numbers, names, strict=True))
    write("image_class_labels.txt", ((n, IMAGES[n - 1][0] + 1) for n in numbers))
    write("train_test_split.txt", ((n, IMAGES[n - 1][1]) for n in numbers))
    write("bounding_boxes.txt", ((n, *IMAGES[n - 1][2]) for n in numbers))
    write("classes.txt", enumerate(SPECIES, start=1))
    lines = []
    for image in numbers:
        for number in range(1, len(ATTRIBUTES) + 1):
            there, certainty = attribute(image, number)
            more = [0] if image == 2 else []  # as some lines of the official file
            lines.append((image, number, there, certainty, *more, 12.708))
    write("attributes/image_attribute_labels.txt", lines)
    write("attributes/certainties.txt", [(1, "not visible"), (2, "guessing")])
    text = "".join(f"{n} {name}\n" for n, name in enumerate(ATTRIBUTES, start=1))
    (tmp_path / "attributes.txt").write_text(text)
    return folder


def make(root, **arguments):
    options = {"num_workers": 0, "image_size": 16, "batch_size": 4, **arguments}
    return CUB200DataModule(root=str(root), **options)


@pytest.mark.parametrize("above", [False, True])
def test_official_layout(root, above):
    data = make(root.parent if above else root)
    data.setup()
    assert data.class_names == SPECIES
    assert data.labels("train").tolist() == [0, 1, 2, 2]
    assert data.labels("val").tolist() == data.labels("test").tolist() == [0, 1, 2]
    assert data.validates_on_test
    assert data.rows("train").name(1) == "002.Laysan_Albatross/Laysan_Albatross_0003_793.jpg"
    assert data.eval_transform.resize == 18
    images, labels = next(iter(data.bank_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    assert labels.tolist() == [0, 1, 2, 2]
    assert images[:, 0, 8, 8].tolist() == pytest.approx([30, 90, 150, 180], abs=1)
    assert CUB200DataModule(root=str(root)).eval_transform.resize == 256


def test_tables_are_joined_by_number(root):
    """Whatever the order of their lines."""
    for name in ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt"):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join(reversed(lines)))
    data = make(root, crop_to_box=True)
    assert data.labels("train").tolist() == [0, 1, 2, 2]
    assert data.rows("train").source.images.boxes[1].tolist() == [4.5, 5.5, 8.0, 6.0]


def test_held_out_images(root):
    data = make(root, val_size=1)
    data.setup("fit")
    assert (len(data.labels("train")), len(data.labels("val")), len(data.labels("test"))) == (
        3,
        1,
        3,
    )
    assert not data.validates_on_test


def test_boxes(root):
    reader = make(root, crop_to_box=True).rows("train").source
    whole = make(root).rows("train").source
    for row, (left, top, right, bottom) in enumerate(
        [(2, 3, 12, 11), (4, 5, 13, 12), (0, 0, 1, 1), (1, 1, 21, 11)]
    ):
        image, _ = reader.read(row)
        assert torch.equal(image, whole.read(row)[0][:, top:bottom, left:right])
    beyond, _ = make(root, crop_to_box=True).rows("test").source.read(1)
    assert beyond.shape == (3, 10, 10)  # what is left of 15 x 15 from (20, 10) in 30 x 20
    shrunk, _ = reader.read(3, 10)
    assert shrunk.shape == (3, 5, 10)
    images, _ = next(iter(make(root, crop_to_box=True).val_dataloader()))
    assert images.shape == (3, 3, 16, 16)


def test_a_box_outside_of_its_image(tmp_path, write_image):
    write_image(tmp_path / "a.png", 20, 30)
    images = BoxImages(tmp_path, ["a.png"], np.array([[40.0, 0, 5, 5]]))
    with pytest.raises(CorruptImageError, match=r"box of a.png .* outside of its 30 x 20 pixels"):
        images.read(0)


def test_attributes_on_request(root):
    data = make(root, attributes=True, val_size=1)
    data.setup()
    assert data.attribute_names == ATTRIBUTES
    whole = make(root, attributes=True)
    expected = [
        [-1 if certainty == 1 else there for there, certainty in row]
        for row in ([attribute(image, number) for number in (1, 2, 3)] for image in (1, 3, 5, 6))
    ]
    assert whole.attribute_array("train").tolist() == expected
    assert expected[1][1] == -1  # not visible is not absent
    # after hold-out too, rows and attributes go together
    images = torch.cat([images for images, _ in data.bank_dataloader()])
    numbers = (images[:, 0, 8, 8].float() / 30).round().long().tolist()
    found = dict(zip((1, 3, 5, 6), expected, strict=True))
    assert data.attribute_array("train").tolist() == [found[number] for number in numbers]
    assert len(next(iter(data.val_dataloader()))) == 2
    with pytest.raises(InputError, match="only with attributes: true"):
        make(root).attribute_array("train")


def test_attribute_names_may_lie_in_their_folder(root):
    (root.parent / "attributes.txt").rename(root / "attributes" / "attributes.txt")
    assert make(root, attributes=True).attribute_names == ATTRIBUTES
    (root / "attributes" / "attributes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="names of the attributes are missing"):
        make(root, attributes=True).setup("fit")
    make(root).setup("fit")  # not needed without


# Groups


def test_groups_by_an_attribute(root):
    data = CUBGroupsDataModule(
        root=str(root), attribute="has_bill_shape::dagger", num_workers=0, image_size=16
    )
    data.setup()
    assert (data.num_classes, data.num_groups) == (3, 6)
    assert data.group_names[3] == "002.Laysan_Albatross, has_bill_shape::dagger"
    values = [attribute(image, 2)[0] for image in (1, 5, 6)]
    expected = [values[0], -1, 4 + values[1], 4 + values[2]]
    assert data.group_array("train").tolist() == expected
    batch = next(iter(data.bank_dataloader()))
    assert batch[2].tolist() == expected
    assert isinstance(data, ImageDataModule)


def test_an_attribute_as_class(root):
    data = CUBGroupsDataModule(
        root=str(root),
        attribute="has_wing_color::blue",
        target="has_bill_shape::dagger",
        num_workers=0,
        image_size=16,
        crop_to_box=True,
    )
    data.setup()
    assert data.class_names == ["not has_bill_shape::dagger", "has_bill_shape::dagger"]
    # without the image whose class nobody saw
    assert data.labels("train").tolist() == [attribute(image, 2)[0] for image in (1, 5, 6)]
    assert [data.rows("train").name(row)[-7:] for row in range(3)] == [
        "791.jpg", "795.jpg", "796.jpg",
    ]  # fmt: skip
    assert data.num_groups == 4
    assert isinstance(data.rows("train").source.images, BoxImages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attribute": "has_bill_shape::daggr"}, "Did you mean has_bill_shape::dagger"),
        ({"attribute": "a", "target": "a"}, "must differ"),
    ],
)
def test_wrong_groups(root, arguments, message):
    with pytest.raises(InputError, match=message):
        CUBGroupsDataModule(root=str(root), **arguments).setup("fit")


# With the rest


def test_views_and_episodes(root):
    data = make(root, train_transform=MultiCrop([CropSpec(size=8, count=2)]))
    views, labels = next(iter(data.train_dataloader()))
    assert views[0].shape == (4, 2, 3, 8, 8)
    assert len(labels) == 4
    episode = FewShotDataModule(make(root, crop_to_box=True), ways=2, shots=1)
    episode.setup("fit")
    assert episode.labels("train").tolist() == episode.labels("test").tolist() == [0, 1]


def change(name, old, new):
    def spoil(root):
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return spoil


ALL = {"crop_to_box": True, "attributes": True}
LABELS = "attributes/image_attribute_labels.txt"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "images.txt").unlink(), "expected images.txt in"),
        (lambda root: (root / "classes.txt").unlink(), "classes.txt is missing"),
        (lambda root: (root / "bounding_boxes.txt").unlink(), "bounding_boxes.txt is missing"),
        (lambda root: (root / LABELS).unlink(), "image_attribute_labels.txt is missing"),
        (lambda root: (root / "images").rename(root / "x"), "expected the images that"),
        (change("image_class_labels.txt", "3 2\n", ""), "no line for 1 of the 7 images, numbers 3"),
        (change("image_class_labels.txt", "3 2\n", "3 4\n"), r"line 3: '4'.*classes.txt"),
        (change("train_test_split.txt", "2 0\n", "2 2\n"), r"'is_training' \(line 2: '2'\)"),
        (change("train_test_split.txt", "2 0\n", "2\n"), "line 2 .* has 1 of 2 columns"),
        (change("classes.txt", "2 002", "4 002"), "number its 3 lines from 1, and has no 2"),
        (change("images.txt", "2 001", "1 001"), "a number that comes twice"),
        (change("images.txt", "2 001", "x 001"), "should number its lines, and has line 2"),
        (change("images.txt", "1 001.", "1 009."), "1 of the 4 images that .*009.Black"),
        (change("bounding_boxes.txt", "10.0 8.0", "10.0 0.0"), "line 1: '10 x 0'.*above 0"),
        (change("bounding_boxes.txt", "10.0 8.0", "10.0 wide"), "expected a number"),
        (change(LABELS, "1 2 1 ", "1 2 7 "), "1 lines with an unknown image.*first 1 2 7"),
        (change(LABELS, "1 2 1 ", "1 4 1 "), "1 lines with an unknown image.*first 1 4 1"),
        (change(LABELS, "1 2 1 ", "9 2 1 "), "1 lines with an unknown image.*first 9 2 1"),
        (change(LABELS, "1 2 1 ", "1 1 1 "), "1 of the 21 pairs .* not at all, and 1 twice"),
        (change(LABELS, "1 2 1 ", "1 2 yes "), "does not have lines of image, attribute"),
    ],
)
def test_another_layout_is_told(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        make(root, **ALL).setup()


@pytest.mark.filterwarnings("ignore")
def test_methods_from_msn_to_barack(root, tmp_path):
    cnn = {"backbone": SmallCNN(3), "num_classes": 2, "num_attributes": 2}
    pair = {"attribute": "has_wing_color::blue", "target": "has_bill_shape::curved_(up_or_down)"}
    groups = CUBGroupsDataModule(
        root=str(root), **pair, num_workers=0, image_size=28, batch_size=2, drop_last=False
    )
    vit = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
    msn = MSN("vit_tiny_patch16_224", backbone_kwargs=vit, num_prototypes=4, warmup_epochs=0)
    views = MultiCrop([CropSpec(size=16, count=2), CropSpec(size=8, count=1)])
    runs = [
        (msn, make(root, train_transform=views)),
        (ImageClassifier(backbone=SmallCNN(3), num_classes=3), make(root, image_size=28)),
        (BARACK(**cnn, predictor_epochs=1, held_out=0.5, absent="hold"), groups),
    ]
    for module, data in runs:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        assert trainer.global_step >= 2


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_box_of_no_numbers(root, value):
    path = root / "bounding_boxes.txt"
    path.write_text(path.read_text().replace("4.5", value))
    with pytest.raises(InputError, match=f"in column 'x' .line 3: '{value}'.: expected a number"):
        CUB200DataModule(root=str(root), crop_to_box=True).setup("fit")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_with_a_byte_order_mark(root, encoding):
    expected = CUB200DataModule(root=str(root), attributes=True).attribute_array("train")
    for path in root.parent.rglob("*.txt"):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    data = CUB200DataModule(root=str(root), attributes=True, crop_to_box=True)
    assert (data.attribute_array("train") == expected).all()
    assert data.class_names == SPECIES
