"""Tiny-ImageNet's layout with three classes, and ImageNet-R and -A beside it."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F

from lit_ssl.contracts.evaluation_sets import evaluation_sets, mask_classes
from lit_ssl.datamodules import Subset, TinyImageNetDataModule
from lit_ssl.datamodules.images.shifted_sets import TINY_IMAGENET_R
from lit_ssl.datamodules.reading.decoding import read_image
from lit_ssl.errors import InputError
from lit_ssl.methods import NAC
from lit_ssl.models import NeuralAttentiveCircuit, PatchTokenizer

WNIDS = ["n02124075", "n01443537", "n12267677"]  # the first is not in ImageNet-R
VAL = [2, 0, 0, 1, 2]  # places in WNIDS of the validation images 0 ... 4
SORTED = sorted(WNIDS)  # n01443537, n02124075, n12267677


@pytest.fixture
def root(tmp_path, write_image):
    folder = tmp_path / "data" / "tiny-imagenet-200"
    for place, wnid in enumerate(WNIDS):
        for number in range(2 + place):
            name = f"{wnid}_{number}.JPEG"
            write_image(folder / "train" / wnid / "images" / name, 64, 64, seed=place)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(
            f"{wnid}_0.JPEG\t0\t10\t63\t58\n"
        )
    lines = []
    for number, place in enumerate(VAL):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", 64, 64, seed=10 + number)
        lines.append(f"val_{number}.JPEG\t{WNIDS[place]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 64, 64)
    (folder / "wnids.txt").write_text("\n".join(WNIDS))
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\n")
    return folder


@pytest.fixture
def renditions(root, write_image):
    """All of ImageNet-R, as it unpacks: some of its classes are not those of Tiny-ImageNet."""
    folder = root.parent / "imagenet-r"
    for wnid, count in {"n01443537": 3, "n12267677": 2, "n01494475": 1}.items():
        for number in range(count):
            write_image(folder / wnid / f"art_{number}.jpg", 40 + number, 90, seed=number)
    (folder / "README.txt").write_text("...")
    return folder


def make(root, **arguments):
    options = {"num_workers": 0, "batch_size": 4, **arguments}
    return TinyImageNetDataModule(root=str(root), **options)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.filterwarnings("error")  # the files of boxes are part of the layout
def test_official_layout(root, above):
    data = make(root.parent if above else root)
    data.setup()
    assert data.class_names == SORTED
    assert np.bincount(data.labels("train")).tolist() == [3, 2, 4]
    assert [SORTED[label] for label in data.labels("val")] == [WNIDS[place] for place in VAL]
    assert data.labels("test").tolist() == data.labels("val").tolist()
    assert data.validates_on_test
    assert (data.image_size, data.in_channels, data.num_classes) == (64, 3, 3)
    assert [data.rows("train").name(row) for row in (0, 3)] == [
        "n01443537/images/n01443537_0.JPEG", "n02124075/images/n02124075_0.JPEG",
    ]  # fmt: skip
    assert evaluation_sets(data, "val") == [("", None)]
    assert not isinstance(data.val_dataloader(), list)
    images, labels = next(iter(data.val_dataloader()))
    assert (images.shape, images.dtype, len(labels)) == ((4, 3, 64, 64), torch.uint8, 4)


@pytest.mark.filterwarnings("error")
def test_sorted_folders_are_the_same_set(root):
    """As scripts leave it that sort the validation images by class."""
    official = make(root)
    expected = {
        official.rows("val").name(i): label for i, label in enumerate(official.labels("val"))
    }
    for name, label in expected.items():
        folder = root / "val" / SORTED[label]
        folder.mkdir(exist_ok=True)
        (root / "val" / "images" / name).rename(folder / name)
    (root / "val" / "images").rmdir()
    for wnid in WNIDS:
        inside = root / "train" / wnid
        for path in (inside / "images").iterdir():
            path.rename(inside / path.name)
        (inside / "images").rmdir()
        (inside / f"{wnid}_boxes.txt").unlink()
    data = make(root)
    data.setup()
    found = [data.rows("val").name(i).rpartition("/")[2] for i in range(5)]
    assert dict(zip(found, data.labels("val"), strict=True)) == expected
    assert data.labels("train").tolist() == official.labels("train").tolist()


def test_evaluation_transform(root):
    data = make(root)
    image = data.rows("val").source.images.read(0)
    small = F.resize(image, [73], F.InterpolationMode.BICUBIC, antialias=True)
    images, _ = next(iter(data.val_dataloader()))
    assert torch.equal(images[0], F.center_crop(small, [64, 64]))
    assert make(root, image_size=32).eval_transform.resize == 36
    assert data.mean == (0.485, 0.456, 0.406)


def test_held_out_and_listed_images(root, tmp_path):
    data = make(root, val_size=3)
    assert len(data.labels("train")) == 6
    assert not data.validates_on_test
    assert len(data.labels("test")) == 5
    (tmp_path / "list.txt").write_text("n01443537_2.JPEG\nn02124075_0.JPEG\n")
    assert make(root, subset=Subset(file=str(tmp_path / "list.txt"))).labels("train").tolist() == [
        0,
        1,
    ]


# ImageNet-R and -A


def test_all_of_imagenet_r_gives_the_shared_classes(root, renditions):
    data = make(root, ood=["r"], batch_size=2)
    data.setup("validate")
    own, shifted = evaluation_sets(data, "val")
    assert own == ("", None)
    assert shifted == ("r", (0, 2))  # columns of the sorted wnids
    loaders = data.val_dataloader()
    assert [len(loader.dataset) for loader in loaders] == [5, 5]
    batches = list(loaders[1])
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 2, 2]
    again = data.test_dataloader()
    assert torch.equal(next(iter(again[1]))[0], batches[0][0])


def test_renditions_are_squared_whatever_their_shape(root, renditions):
    data = make(root, ood=["r"])
    bicubic = F.InterpolationMode.BICUBIC
    image = read_image(str(renditions / "n01443537" / "art_1.jpg"))
    assert image.shape == (3, 41, 90)
    square = F.resize(image, [64, 64], bicubic, antialias=True)
    expected = F.center_crop(F.resize(square, [73], bicubic, antialias=True), [64, 64])
    images, _ = next(iter(data.val_dataloader()[1]))
    assert torch.equal(images[1], expected)


def test_masked_answers_are_shared_classes(root, renditions):
    data = make(root, ood=["r"])
    _, shifted = data.evaluation_sets("test")
    logits = torch.tensor([[1.0, 9.0, 2.0]])
    assert mask_classes(logits, shifted.classes).argmax(1).tolist() == [2]


def test_the_62_columns_of_200(root, write_image):
    others = [f"n{9_000_000 + number:08d}" for number in range(138)]
    (root / "wnids.txt").write_text("\n".join([*reversed(TINY_IMAGENET_R), *others]))
    write_image(root / "val" / TINY_IMAGENET_R[0] / "0.JPEG", 8, 8)
    (root / "val" / "images").rename(root / "flat")
    for wnid in (*TINY_IMAGENET_R, "n01494475"):
        write_image(root.parent / "imagenet-r" / wnid / "0.jpg", 8, 8)
    data = make(root, ood=["r"])
    _, shifted = data.evaluation_sets("val")
    assert len(shifted.classes) == 62
    assert list(shifted.classes) == sorted(shifted.classes)
    assert [data.class_names[label] for label in shifted.classes] == sorted(TINY_IMAGENET_R)
    with pytest.warns(UserWarning, match="200 of the 200 classes of the val split do not have 50"):
        loader = data.val_dataloader()[1]
    labels = torch.cat([labels for _, labels in loader])
    # the same answer to all is right for one class of 62
    logits = mask_classes(torch.arange(200.0).expand(62, -1), shifted.classes)
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(1 / 62)


def test_tiny_folders_and_another_root(root, tmp_path, write_image):
    elsewhere = tmp_path / "shifts"
    write_image(elsewhere / "tiny-imagenet-r" / "n12267677" / "0.jpg")
    write_image(elsewhere / "imagenet-a" / "n02124075" / "0_x.jpg")
    write_image(elsewhere / "imagenet-a" / "n01498041" / "0_y.jpg")
    data = make(root, ood=["a", "r"], ood_root=str(elsewhere))
    with pytest.warns(UserWarning, match="no image of 1 of the 2 classes .n01443537.*none on Tiny"):
        data.setup("test")
    # -R keeps the columns of its protocol; -A has those of its images
    assert data.evaluation_sets("test") == [("", None), ("a", (1,)), ("r", (0, 2))]
    assert [len(loader.dataset) for loader in data.test_dataloader()] == [5, 1, 1]


def test_what_is_asked_for_has_to_be_there(root, write_image):
    with pytest.raises(FileNotFoundError, match="Tiny-ImageNet-R: expected tiny-imagenet-r"):
        make(root, ood=["r"]).setup("fit")
    with pytest.raises(FileNotFoundError, match="Tiny-ImageNet-A: expected"):
        make(root, ood=["a"], ood_root=str(root)).setup("test")
    write_image(root.parent / "tiny-imagenet-r" / "n01494475" / "0.jpg")
    with pytest.raises(InputError, match=r"1 classes that the training images .*n01494475"):
        make(root, ood=["r"]).setup("fit")
    (root.parent / "tiny-imagenet-r").rename(root.parent / "imagenet-r")
    with pytest.raises(FileNotFoundError, match="images of the training classes"):
        make(root, ood=["r"]).setup("fit")
    make(root, ood=["r"]).setup("predict")
    make(root).setup()  # without asking, nobody looks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ood": ["v2"]}, "ood must be 'r' or 'a', not 'v2'"),
        ({"ood": ["r", "r"]}, "twice"),
        ({"ood_root": "x"}, "name them"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        make("x", **options)


def test_classes_of_tiny_imagenet_r():
    assert len(set(TINY_IMAGENET_R)) == 62
    assert list(TINY_IMAGENET_R) == sorted(TINY_IMAGENET_R)


# Wrong layouts


def no_annotations(root):
    (root / "val" / "val_annotations.txt").unlink()


def strange_annotation(root):
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n12267677\t", "n00000001\t", 1))


def short_annotations(root):
    path = root / "val" / "val_annotations.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def lost_image(root):
    (root / "val" / "images" / "val_3.JPEG").unlink()


def lost_class(root):
    (root / "train" / WNIDS[0]).rename(root / "gone")


def strange_class(root):
    (root / "train" / WNIDS[0]).rename(root / "train" / "n00000001")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_annotations, "val_annotations.txt, which has their classes, is missing"),
        (strange_annotation, "line 1 of .*n00000001.*expected a file name and one of the 3 wnids"),
        (short_annotations, "no class for 1 of the images .*val_4.JPEG"),
        (lost_image, "1 of the 5 images that .*: val_3.JPEG"),
        (lost_class, "no images of 1 of the 3 classes .*n02124075"),
        (strange_class, "1 folders of images that .*wnids.txt does not name: n00000001"),
        (lambda root: (root / "wnids.txt").unlink(), "expected wnids.txt in .*tiny-imagenet-200"),
        (lambda root: (root / "train").rename(root / "gone"), "expected images in .*<wnid>/images"),
        (lambda root: (root / "val").rename(root / "gone"), "expected images in .*val/images with"),
    ],
)
def test_another_layout_is_told(root, spoil, message):
    spoil(root)
    with pytest.raises(InputError, match=message):
        make(root).setup()


# In the Trainer


class Counter(pl.LightningModule):
    """Counts the images of each loader."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        return self.weight * batch[0].mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        images, labels = batch
        assert images.dtype == torch.float32
        self.seen.setdefault(dataloader_idx, []).extend(labels.tolist())
        self.log("val/r_acc1", 1.0)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, max_epochs=1, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_trainer_evaluates_all_sets(root, renditions, tmp_path):
    module, data = Counter(), make(root, ood=["r"])
    trainer(tmp_path, enable_checkpointing=False).fit(module, datamodule=data)
    assert {index: len(labels) for index, labels in module.seen.items()} == {0: 5, 1: 5}
    module.seen.clear()
    trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert module.seen[1] == [0, 0, 0, 2, 2]


@pytest.mark.filterwarnings("ignore")
def test_accuracies_of_a_circuit(root, renditions, tmp_path):
    """Each set has its own, and the answer for ImageNet-R is one of its columns."""
    torch.manual_seed(0)
    tokens = PatchTokenizer(16, 8, in_channels=3, embed_dim=8, position_dim=4)
    net = NeuralAttentiveCircuit(
        tokens, state_dim=16, num_modules=4, num_output_modules=2, depth=1, num_heads=2,
        head_dim=8, signature_dim=8, layer_scale=None,
    )  # fmt: skip
    module, data = NAC(net, num_classes=3, warmup_epochs=0), make(root, ood=["r"], image_size=16)
    parts = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    found = {name: value for part in parts for name, value in part.items()}
    expected = {}
    module.eval()
    own, shifted = data.val_dataloader()
    for name, loader, columns in (("", own, [0, 1, 2]), ("r_", shifted, [0, 2])):
        hits = []
        for batch in loader:
            images, labels = data.on_after_batch_transfer(batch, 0)
            with torch.no_grad():
                best = module.logits(images)[:, columns].argmax(1)
            hits.append(torch.tensor(columns)[best] == labels)
        expected[f"val/{name}acc1"] = torch.cat(hits).float().mean().item()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_cover_each_rendition_once(root, renditions, processes):
    seen = []
    for rank in range(processes):
        data = make(root, ood=["r"], batch_size=1)
        data.shard = lambda rank=rank: (processes, rank)
        own, shifted = data.test_dataloader()
        assert len(own) == len(range(rank, 5, processes))
        seen += [tuple(images.flatten().tolist()) for images, _ in shifted]
    whole = make(root, ood=["r"], batch_size=1).test_dataloader()[1]
    assert sorted(seen) == sorted(tuple(images.flatten().tolist()) for images, _ in whole)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_no_epoch_is_chosen_on_images_that_are_reported(root, renditions, tmp_path):
    best = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/r_acc1")
    data = make(root, ood=["r"], val_size=3)
    with pytest.raises(InputError, match="chosen on images that are reported"):
        trainer(tmp_path, callbacks=[best]).fit(Counter(), datamodule=data)


def test_unreadable_renditions_are_counted(root, renditions):
    (renditions / "n01443537" / "art_0.jpg").write_bytes(b"no image")
    data = make(root, ood=["r"], on_corrupt="skip")
    assert data.num_corrupt == 0
    with pytest.warns(UserWarning, match="art_0"):
        list(data.val_dataloader()[1])
    assert data.num_corrupt == 1
    with pytest.raises(ValueError, match="art_0"):
        list(make(root, ood=["r"]).val_dataloader()[1])


def test_an_empty_list_of_validation_images(root):
    (root / "val" / "val_annotations.txt").write_text("")
    with pytest.raises(InputError, match="has no class for 5 of the images"):
        make(root).setup("validate")
