from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_ssl.callbacks import ViewLogger
from lit_ssl.callbacks.pictures.view_grid import draw_dropped, view_grid


def test_dropped_patches_turn_grey_and_kept_ones_stay():
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([[0, 3], [1, 2]])  # patches of 2×2: two rows of two, one pixel row beyond
    drawn = draw_dropped(images, kept, (2, 2))
    assert torch.equal(drawn[0, :, :2, :2], images[0, :, :2, :2])
    assert torch.equal(drawn[0, :, 2:4, 2:], images[0, :, 2:4, 2:])
    assert torch.equal(drawn[1, :, :2, 2:], images[1, :, :2, 2:])
    for part in (drawn[0, :, :2, 2:], drawn[1, :, :2, :2], drawn[:, :, 4]):
        assert (part - 0.55).abs().max() < 0.07
    with pytest.raises(ValueError, match=r"run from 0 to 4, but images of 5×4 .* have 4 patches"):
        draw_dropped(images, torch.tensor([[0, 4], [1, 2]]), (2, 2))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_dropped_patches_of_grey_images_are_blue(channels):
    images = torch.rand(2, 1, 4, 4).repeat(1, channels, 1, 1)
    images[1] = 0.55  # plain grey: what was painted grey before could not be seen
    kept = torch.tensor([[0, 3], [1, 2]])
    drawn = draw_dropped(images, kept, (2, 2))
    assert drawn.shape == (2, 3, 4, 4)
    assert torch.equal(drawn[1, :, :2, 2:], images[1, :1, :2, 2:].expand(3, -1, -1))
    for dropped in (drawn[0, :, :2, 2:], drawn[1, :, :2, :2]):
        assert (dropped[2] - dropped[0] > 0.5).all()


def test_grid_holds_the_pixels_of_every_cell_enlarged():
    large = torch.linspace(0, 1, 2 * 16).view(2, 1, 4, 4)
    small = torch.ones(2, 3, 2, 2) * 0.2
    picture = view_grid([("a", large), ("b", small)], min_cell=8)
    assert picture.dtype == torch.uint8
    top = 22
    expected = (large * 255).round().byte().repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(picture[:, top : top + 8, 4:12], expected[0].expand(3, -1, -1))
    assert torch.equal(picture[:, top + 12 : top + 20, 4:12], expected[1].expand(3, -1, -1))
    assert (picture == 51).all(0).sum() == 2 * 4 * 4  # both small views, at the same factor


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_pictures_of_epochs_that_are_due_are_written(toys, make_trainer, tmp_path):
    make_trainer(callbacks=[ViewLogger(every_n_epochs=2)], max_epochs=3).fit(
        toys.ToyModule(), toys.ToyData(views=True)
    )
    written = sorted(p.name for p in (tmp_path / "views").iterdir())
    assert written == ["epoch_0000.png", "epoch_0002.png"]


class Cloud(DummyLogger):
    """Takes images as WandbLogger does; its folder is that of all runs."""

    name = "project"
    version = "a1b2"
    save_dir = "."

    def __init__(self):
        super().__init__()
        self.images = []

    def log_image(self, key, images, step=None, **kwargs):
        self.images += [(key, step, np.asarray(image)) for image in images]


def test_pictures_go_to_every_logger_that_takes_them_and_to_files(toys, make_trainer, tmp_path):
    cloud, board = Cloud(), TensorBoardLogger(tmp_path / "tb")
    trainer = make_trainer(
        callbacks=[ViewLogger(every_n_epochs=2)], max_epochs=3,
        logger=[cloud, CSVLogger(tmp_path / "csv"), board],
    )  # fmt: skip
    trainer.fit(toys.ToyModule(), toys.ToyData(views=True))
    paths = sorted(tmp_path.rglob("views/*.png"))
    assert [path.name for path in paths] == ["epoch_0000.png", "epoch_0002.png"]
    assert [(key, step) for key, step, _ in cloud.images] == [("views", 1), ("views", 11)]
    for (*_, image), path in zip(cloud.images, paths, strict=True):
        assert np.array_equal(image, read(path))
    events = EventAccumulator(board.log_dir, size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("views")] == [1, 11]


def test_picture_shows_what_the_network_saw(toys, make_trainer, tmp_path, monkeypatch):
    seen = {}
    columns_of = ViewLogger._columns

    def spy(self, trainer, pl_module, batch, kept):
        seen["kept"] = kept
        seen["columns"] = columns_of(self, trainer, pl_module, batch, kept)
        return seen["columns"]

    monkeypatch.setattr(ViewLogger, "_columns", spy)
    data = toys.ToyData(views=True)
    make_trainer(callbacks=[ViewLogger(num_samples=3)], max_steps=1).fit(toys.ToyModule(), data)
    names = [name for name, _ in seen["columns"]]
    assert names == ["target", "masked 1", "masked 2", "focal 1", "focal 2"]
    columns = dict(seen["columns"])
    originals = data.bank.images[:3].float() / 255
    torch.testing.assert_close(columns["target"], originals, rtol=0, atol=1e-5)
    torch.testing.assert_close(columns["focal 2"], originals[..., 4:, 4:], rtol=0, atol=1e-5)
    # View-major rows: the mask of view 2 of sample 1 is row 8 * 1 + 1.
    expected = draw_dropped(originals.flip(-2)[1:2], seen["kept"][9:10], (2, 2))
    torch.testing.assert_close(columns["masked 2"][1:2], expected, rtol=0, atol=1e-5)
    assert read(tmp_path / "views/epoch_0000.png").shape[0] > 3 * 84


@pytest.mark.parametrize("kept_rows", ["all views", "one mask for all", None])
def test_other_forms_of_masks(toys, make_trainer, tmp_path, kept_rows):
    class Other(toys.ToyModule):
        def training_step(self, batch, batch_idx):
            out = super().training_step(batch, batch_idx)
            images = batch[0]
            out.pop("kept_patches", None)
            if kept_rows == "all views":  # a masked auto-encoder: one view, one mask each
                out["kept_patches"] = torch.zeros(len(images), 1, dtype=torch.int64)
            elif kept_rows == "one mask for all":
                out["kept_patches"] = torch.arange(3)
            return out

    views = kept_rows == "one mask for all"
    make_trainer(callbacks=[ViewLogger(num_samples=2)], max_steps=1).fit(
        Other(), toys.ToyData(views=views)
    )
    picture = read(tmp_path / "views/epoch_0000.png")
    blue = (picture[..., 2] - picture[..., 0] > 100).mean()  # the images have no colour
    assert bool(blue > 0.3) is (kept_rows is not None)


def test_tensorboard_gets_the_picture_too(toys, make_trainer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="run")
    make_trainer(callbacks=[ViewLogger()], max_steps=1, logger=logger).fit(
        toys.ToyModule(), toys.ToyData(views=True)
    )
    path = tmp_path / "run/version_0/views/epoch_0000.png"
    events = EventAccumulator(str(path.parents[1]))
    events.Reload()
    (image,) = events.Images("views")
    height, width, _ = read(path).shape
    assert (image.height, image.width) == (height, width)


def test_fast_dev_run_leaves_nothing_behind(toys, make_trainer, tmp_path):
    make_trainer(callbacks=[ViewLogger()], fast_dev_run=True).fit(
        toys.ToyModule(), toys.ToyData(views=True)
    )
    assert not list(tmp_path.iterdir())


def test_missing_patch_size_warns_and_still_draws(toys, make_trainer, tmp_path):
    class NoPatch(toys.ToyModule):
        patch_size = None

    with pytest.warns(UserWarning, match="module NoPatch has no patch_size"):
        make_trainer(callbacks=[ViewLogger()], max_steps=1).fit(NoPatch(), toys.ToyData(views=True))
    assert (tmp_path / "views/epoch_0000.png").exists()


def test_data_without_mean_and_std_is_stretched(toys, make_trainer, tmp_path):
    class Raw(toys.ToyData):
        def normalise(self, images):
            return images.float() * 1000 - 5

    data = Raw()
    Raw.mean = Raw.std = None
    make_trainer(callbacks=[ViewLogger(num_samples=1)], max_steps=1).fit(toys.ToyModule(), data)
    picture = read(tmp_path / "views/epoch_0000.png")
    assert picture[22:, 4:-8].min() < 10


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="num_samples, every_n_epochs and max_views >= 1"):
        ViewLogger(num_samples=0)
