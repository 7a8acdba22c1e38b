"""The contract of every data module, on a data set in memory and on files of different sizes."""

from __future__ import annotations

import io
import pickle
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data._utils.pin_memory import pin_memory

from lit_ssl.datamodules import CorruptImageError, ImageFolderDataModule, RawImages, Subset
from lit_ssl.datamodules.reading.images import ArrayImages, FileImages
from lit_ssl.datamodules.reading.skip_corrupt import ImageReader
from lit_ssl.transforms import CropSpec, EvalTransform, SingleView, normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def transferred(data, batch):
    return data.on_after_batch_transfer(batch, 0)


def indices(images):
    """The toy images have their index as red channel."""
    return images[:, 0, 0, 0].tolist()


@pytest.fixture
def folder(tmp_path, write_image):
    """Ten images of different sizes, label = number // 5."""
    for number in range(10):
        name = f"{'cat' if number < 5 else 'dog'}/{number}.png"
        write_image(tmp_path / "train" / name, 20 + 3 * number, 40 - 2 * number, seed=number)
    return tmp_path


def make_folder(folder, **arguments):
    options = {"num_workers": 0, "image_size": 16, "batch_size": 10, **arguments}
    return ImageFolderDataModule(root=str(folder), **options)


def test_attributes_before_setup(toy):
    data = toy()
    assert (data.num_classes, data.image_size, data.in_channels) == (4, 10, 3)
    assert (data.mean, data.std) == (MEAN, STD)
    other = toy(mean=[0.5] * 3, std=[0.5] * 3, eval_transform=EvalTransform(6, resize=8))
    assert (other.image_size, other.mean, other.std) == (6, (0.5,) * 3, (0.5,) * 3)


def test_multi_view_batches(toy, views):
    large, small = views.crops
    for augment in ("worker", "device"):
        data = toy(train_transform=views, augment=augment)
        images, labels = transferred(data, next(iter(data.train_dataloader())))
        assert [tuple(view.shape) for view in images] == [
            (4, large.count, 3, 8, 8),
            (4, small.count, 3, 4, 4),
        ]
        assert all(view.dtype == torch.float32 for view in images)
        assert labels.dtype == torch.int64
        assert labels.shape == (4,)


def test_workers_send_bytes(toy, views):
    images, _ = next(iter(toy(train_transform=views).train_dataloader()))
    assert {view.dtype for view in images} == {torch.uint8}


def test_worker_views_are_the_recipe_applied_with_the_samples_seed(toy, views):
    data = toy(train_transform=views)
    loader = data.train_dataloader()
    images, labels = transferred(data, next(iter(loader)))
    pairs = list(loader.sampler)[:4]
    assert labels.tolist() == [index % 4 for index, _ in pairs]
    for row, (index, seed) in enumerate(pairs):
        original = data.rows("train").source.read(index)[0]
        for view, expected in zip(images, views(original, seed), strict=True):
            assert torch.equal(view[row], normalize(expected, MEAN, STD))


def test_single_views_are_labelled_batches(toy):
    recipe = SingleView(CropSpec(size=8, hflip=0.5))
    for augment in ("worker", "device"):
        data = toy(train_transform=recipe, augment=augment)
        images, labels = transferred(data, next(iter(data.train_dataloader())))
        assert images.shape == (4, 3, 8, 8)
        assert labels.shape == (4,)


def test_without_recipe_training_uses_the_evaluation_transform(toy):
    data = toy(augment="device")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 10, 10)
    assert [index % 4 for index in indices(images)] == labels.tolist()


def test_device_batches_are_raw_images(toy, views):
    data = toy(train_transform=views, augment="device")
    raw, _ = next(iter(data.train_dataloader()))
    assert isinstance(raw, RawImages)
    assert raw.images.shape == (4, 3, 12, 10)
    assert raw.images.dtype == torch.uint8
    assert raw.sizes is None
    assert isinstance(raw.seeds, np.ndarray)  # Lightning leaves it on the CPU


def test_device_views_depend_on_the_seeds_alone(toy, views):
    data = toy(train_transform=views, augment="device")
    batch = next(iter(data.train_dataloader()))
    torch.manual_seed(0)
    first = transferred(data, batch)[0]
    torch.manual_seed(1)
    again = transferred(data, batch)[0]
    raw, labels = batch
    other = transferred(data, (raw._replace(seeds=raw.seeds + 1), labels))[0]
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_transfer_goes_by_type(toy):
    data = toy()
    labels = torch.zeros(2, dtype=torch.int64)
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = normalize(pixels, MEAN, STD)
    assert torch.equal(transferred(data, (pixels, labels))[0], expected)
    assert transferred(data, [expected, labels])[0] is expected
    one, two = transferred(data, ([pixels, expected], labels))[0]
    assert torch.equal(one, expected)
    assert torch.equal(two, expected)


def test_batches_survive_pinning_and_the_trip_to_the_device(toy, views, monkeypatch):
    data = toy(train_transform=views, augment="device")
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *args: self.clone())
    moved = move_data_to_device(pin_memory(batch), torch.device("cpu"))
    for pinned, direct in zip(
        transferred(data, moved)[0], transferred(data, batch)[0], strict=True
    ):
        assert torch.equal(pinned, direct)


def test_data_modules_and_their_data_sets_can_be_sent_to_other_processes(toy, views):
    data = pickle.loads(pickle.dumps(toy(train_transform=views, subset=Subset(per_class=3))))
    dataset = pickle.loads(pickle.dumps(data.train_dataloader().dataset))
    assert len(dataset) == 12
    assert dataset[(0, 5)][0][0].shape == (1, 2, 3, 8, 8)


def test_too_small_classes_are_named(toy, folder):
    with pytest.raises(ValueError, match=r"per_class=12, but 4 classes .*: a \(11\), b \(11\)"):
        toy(subset=Subset(per_class=12)).setup("fit")
    with pytest.raises(ValueError, match=r"1 classes .*: without a label \(10\)"):
        make_folder(folder, labelled=False, subset=Subset(per_class=12)).setup("fit")


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_images_have_the_dtype_of_the_model(toy, views, recorder, precision):
    dtypes = []

    class Watcher(recorder):
        def training_step(self, batch, batch_idx):
            dtypes.append(batch[0][0].dtype)
            return self.weight * batch[0][0].mean()

    pl.Trainer(
        accelerator="cpu",
        precision=precision,
        fast_dev_run=True,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Watcher(), datamodule=toy(train_transform=views, augment="device"))
    assert dtypes == [torch.bfloat16 if precision == "bf16-true" else torch.float64]


def test_bank_is_the_training_images_in_order(toy):
    for subset, expected in ((None, 43), (Subset(per_class=2), 8)):
        data = toy(subset=subset, val_size=0)
        found = [i for images, _ in data.bank_dataloader() for i in indices(images)]
        assert len(found) == expected
        assert found == sorted(set(found))
        trained = toy(subset=subset, batch_size=1).train_dataloader()
        assert sorted(i for images, _ in trained for i in indices(images)) == found


def test_held_out_images_are_not_trained_on(toy):
    data = toy(val_size=10, subset=Subset(fraction=0.5))
    train = {i for images, _ in data.bank_dataloader() for i in indices(images)}
    val = {i for images, _ in data.val_dataloader() for i in indices(images)}
    assert (len(train), len(val)) == (16, 10)
    assert not train & val
    again = toy(val_size=10, seed=5)
    assert {i for images, _ in again.val_dataloader() for i in indices(images)} == val


def test_listed_images_are_held_out(toy, tmp_path):
    held = tmp_path / "held.txt"
    held.write_text("3\n11\n30\n")
    data = toy(val_file=str(held), subset=Subset(fraction=0.5))
    assert {i for images, _ in data.val_dataloader() for i in indices(images)} == {3, 11, 30}
    train = {i for images, _ in data.bank_dataloader() for i in indices(images)}
    assert train
    assert not train & {3, 11, 30}
    everything = tmp_path / "everything.txt"
    everything.write_text("3\n4\n")
    with pytest.raises(ValueError, match=r"1 of the 2 images in .* are held out for validation"):
        toy(val_file=str(held), subset=Subset(file=str(everything))).train_dataloader()
    with pytest.raises(ValueError, match="set val_size to 0, not 5"):
        toy(val_file=str(held), val_size=5)


def test_validation_falls_back_to_test(toy):
    data = toy()
    assert len(data.labels("val")) == len(data.labels("test")) == 7


def test_evaluation_is_the_same_one_by_one_and_in_batches(toy):
    data = toy(eval_transform=EvalTransform(6, resize=9), batch_size=7)
    images, _ = next(iter(data.test_dataloader()))
    for row in range(7):
        expected = data.eval_transform(data.rows("test").source.read(row)[0])
        assert torch.equal(images[row], expected)


def test_loading_leaves_the_global_generator_alone(toy, views):
    data = toy(train_transform=views, num_workers=1)
    state = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.bank_dataloader()):
        next(iter(loader))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_fewer_images_than_a_batch_are_one_smaller_batch(toy, views, fit, augment):
    data = toy(batch_size=64, train_transform=views, augment=augment)
    with pytest.warns(UserWarning, match="batch_size") as caught:
        seen = fit(data, max_epochs=2).seen
    told = [str(w.message) for w in caught if "batch_size" in str(w.message)]
    assert told == [
        "Only 43 training images per process, but batch_size is 64: each epoch is one batch of 43."
    ]
    assert [(epoch, len(labels)) for epoch, labels, _ in seen] == [(0, 43), (1, 43)]
    assert seen[0][1] != seen[1][1]


def test_only_a_remainder_is_dropped(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = {
            size: [len(labels) for _, labels in toy(batch_size=size).train_dataloader()]
            for size in (42, 43)
        }
        whole = toy(batch_size=64, drop_last=False).train_dataloader()
    assert sizes == {42: [42], 43: [43]}
    assert len(whole) == 1


def test_fewer_images_than_processes(toy, monkeypatch):
    data = toy(train_size=3)
    monkeypatch.setattr(data, "shard", lambda: (4, 0))
    with pytest.raises(ValueError, match=r"No training batch: 3 training images for 4 processes\."):
        data.train_dataloader()


def test_the_seed_of_the_run_is_the_default(toy, monkeypatch):
    def order(**arguments):
        return list(toy(**arguments).train_dataloader().sampler)

    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert order() == order(seed=0)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert order() == order(seed=7)
    assert order(seed=0) != order(seed=7)


@pytest.mark.parametrize("argument", [{"augment": "gpu"}, {"on_corrupt": "ignore"}])
def test_wrong_words(toy, argument):
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=f"{name} must be .* or .*, got '{value}'"):
        toy(**argument)


def test_hyperparameters_are_plain(toy, views):
    data = toy(train_transform=views, subset=Subset(per_class=2), batch_size=5)
    assert data.hparams.batch_size == 5
    assert not {"train_transform", "subset"} & set(data.hparams)
    buffer = io.BytesIO()
    torch.save(dict(data.hparams), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["batch_size"] == 5


def test_images_of_different_sizes_travel_on_one_canvas(folder, views):
    data = make_folder(folder, train_transform=views, augment="device", canvas_size=35)
    loader = data.train_dataloader()
    raw, labels = next(iter(loader))
    order = [index for index, _ in loader.sampler]
    assert raw.images.shape == (10, 3, 35, 35)
    assert labels.tolist() == [index // 5 for index in order]
    for row, index in enumerate(order):
        height, width = 20 + 3 * index, 40 - 2 * index
        scale = min(1, 35 / max(height, width))
        found_height, found_width = raw.sizes[row]
        assert abs(found_height - height * scale) <= 0.5
        assert abs(found_width - width * scale) <= 0.5
        image = data.rows("train").source.read(index, 35)[0]
        assert torch.equal(raw.images[row, :, :found_height, :found_width], image)
        assert raw.images[row, :, found_height:].sum() == 0
        assert raw.images[row, :, :, found_width:].sum() == 0
    made, _ = transferred(data, (raw, labels))
    assert [view.shape[:2] for view in made] == [(10, 2), (10, 3)]


def test_canvas_padding_never_shows(folder):
    # Grey images on a black canvas: a crop that reached into the padding would be darker.
    for path in (folder / "train").rglob("*.png"):
        from PIL import Image

        with Image.open(path) as image:
            size = image.size
        Image.new("RGB", size, (128, 128, 128)).save(path)
    recipe = SingleView(CropSpec(size=12, scale=(0.5, 1.0)))
    data = make_folder(folder, train_transform=recipe, augment="device", canvas_size=64)
    made, _ = transferred(data, next(iter(data.train_dataloader())))
    expected = normalize(torch.full((1, 3, 1, 1), 128, dtype=torch.uint8), MEAN, STD)
    assert torch.allclose(made, expected.expand_as(made), atol=1e-4)


@pytest.mark.parametrize("augment", ["worker", "device"])
def test_views_of_files_do_not_depend_on_the_workers(folder, views, augment):
    def batches(workers):
        data = make_folder(
            folder, train_transform=views, augment=augment, num_workers=workers, batch_size=3
        )
        return [transferred(data, batch) for batch in data.train_dataloader()]

    for one, two in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one[1], two[1])
        assert all(torch.equal(a, b) for a, b in zip(one[0], two[0], strict=True))


def test_corrupt_images_stop_or_are_replaced(folder):
    (folder / "train" / "cat" / "2.png").write_text("")
    data = make_folder(folder)
    with pytest.raises(CorruptImageError, match=r"cat/2.png"):
        next(iter(data.bank_dataloader()))
    workers = make_folder(folder, num_workers=1)
    with pytest.raises(CorruptImageError, match=r"cat/2.png"):
        next(iter(workers.bank_dataloader()))

    data = make_folder(folder, on_corrupt="skip", num_workers=2, batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = [images for images, _ in data.bank_dataloader()]
    assert torch.equal(images[2], images[3])
    assert data.num_corrupt == 1  # reported by a worker


def test_long_paths_do_not_live_in_python_objects(folder):
    images = make_folder(folder).rows("train").source.images
    assert isinstance(images, FileImages)
    assert not [value for value in vars(images.names).values() if isinstance(value, list)]


def test_readers_know_whether_images_have_one_size(folder):
    pixels = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(-1, 1, 4, 4)
    images = ImageReader(ArrayImages(pixels)).read_batch(np.array([2, 0]))
    assert images.shape == (2, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [2, 0]
    files = FileImages(folder / "train", ["cat/0.png", "dog/9.png"])
    assert ImageReader(files).read_batch(np.array([1, 0])) is None
