"""Images of every form with captions and in pairs: files → batches → ViLT."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from lit_ssl.datamodules import NLVR2DataModule
from lit_ssl.datamodules.reading.images import FileImages
from lit_ssl.datamodules.reading.rows import Rows
from lit_ssl.datamodules.vision_language.image_captions import CaptionedImages, ImageCaptionModule
from lit_ssl.models import ViltBackbone
from lit_ssl.transforms import (
    CenterCropRandAugment,
    CropSpec,
    EvalTransform,
    KeepAspect,
    KeepAspectRandAugment,
    RandAugmentView,
    SingleView,
    normalize,
)

pytest.importorskip("transformers")

# height, width, mode
FORMS = [
    (40, 56, "RGB"), (56, 40, "RGB"), (33, 33, "L"), (1, 900, "RGB"), (900, 1, "RGB"),
    (3, 5, "RGB"), (50, 30, "RGBA"), (1, 1, "RGB"), (64, 64, "P"), (70, 41, "CMYK"),
    (44, 44, "LA"),
]  # fmt: skip
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "and", "red"]
TEXTS = ["a dog", "a cat and a dog", "a red cat"]
KEEP = KeepAspect(32, multiple=8)
VIEW = KeepAspectRandAugment(32, multiple=8)
VILT = {
    "vocab_size": 10, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 32, "max_position_embeddings": 12, "image_size": 32, "patch_size": 8,
}  # fmt: skip
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


class Captions(ImageCaptionModule):
    """Two captions of each file of a folder."""

    def __init__(self, root, **kwargs):
        super().__init__(
            **{"tokenizer": PIECES, "num_workers": 0, "batch_size": 4, "seed": 1, **HALF, **kwargs}
        )
        self.root = Path(root)

    def load_rows(self, split):
        names = sorted(path.name for path in self.root.iterdir())
        image_of = np.arange(2 * len(names)) // 2
        texts = [TEXTS[row % 3] for row in range(len(image_of))]
        source = CaptionedImages(FileImages(self.root, names), image_of, texts)
        columns = {"label": np.full(len(image_of), -1), "image_number": image_of}
        return Rows(source, columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number, (height, width, mode) in enumerate(FORMS):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(pixels[..., 0]))
        kind = "tif" if mode == "CMYK" else "png"
        image.convert(mode).save(root / f"{number:02}.{kind}")
    return root


@pytest.fixture
def make(folder):
    return lambda **options: Captions(str(folder), **options)


def on_device(data, loader):
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


@pytest.mark.filterwarnings("ignore:Some images have transparent pixels")
def test_files_of_every_form(make):
    data = make(eval_transform=KEEP)
    data.setup()
    assert data.image_size == 32
    seen = 0
    for (inputs, numbers), (done, _) in zip(
        data.bank_dataloader(), on_device(data, data.bank_dataloader()), strict=True
    ):
        for row, number in enumerate(numbers.tolist()):
            height, width = KEEP.size_of(*FORMS[number][:2])
            mask = inputs["pixel_mask"][row] if "pixel_mask" in inputs else None
            image = KEEP(data.rows("train").source.images.read(number))
            assert image.shape == (3, height, width)
            assert torch.equal(inputs["images"][row, :, :height, :width], image)
            expected = normalize(image, *HALF.values())
            assert torch.equal(done["images"][row, :, :height, :width], expected)
            if mask is not None:
                assert int(mask.sum()) == height * width
                assert mask[:height, :width].all()
                assert (done["images"][row][:, ~mask] == 0).all()
            seen += 1
    assert seen == 2 * len(FORMS)


@pytest.mark.filterwarnings("ignore:Some images have transparent pixels")
@pytest.mark.parametrize("batch_size", [22, 7])
def test_vilt_gives_each_image_what_it_gives_it_alone(make, batch_size):
    torch.manual_seed(0)
    backbone = ViltBackbone(VILT).eval()
    data = make(eval_transform=KEEP, batch_size=batch_size, padding="max_length", max_length=10)
    data.setup()
    (alone,) = [
        [inputs for inputs, _ in on_device(data, loader)]
        for loader in [make_loader(data, batch_size=1)]
    ]
    assert all("pixel_mask" not in inputs for inputs in alone)
    begin = 0
    for inputs, numbers in on_device(data, data.bank_dataloader()):
        assert ("pixel_mask" in inputs) == (len(numbers) > 2)
        with torch.no_grad():
            whole = backbone(inputs)
            for row in range(len(numbers)):
                one = backbone(alone[begin + row])
                there = inputs["attention_mask"][row].bool()
                torch.testing.assert_close(
                    whole.text[row, there], one.text[0, there], atol=1e-5, rtol=0
                )
                torch.testing.assert_close(whole.pooled[row], one.pooled[0], atol=1e-5, rtol=0)
                torch.testing.assert_close(
                    whole.image[row, whole.image_mask[row]], one.image[0], atol=1e-5, rtol=0
                )
        begin += len(numbers)
    assert begin == 2 * len(FORMS)


def make_loader(data, batch_size):
    kept, data.batch_size = data.batch_size, batch_size
    loader = data.bank_dataloader()
    data.batch_size = kept
    return loader


# One size


def test_batches_of_one_size_are_what_they_were(make):
    view = SingleView(CropSpec(size=16, scale=(0.5, 1.0), brightness=0.4))
    data = make(train_transform=view, image_size=16)
    data.setup("fit")
    images = data.rows("train").source
    order = iter(data.train_dataloader().sampler)
    for inputs, _ in data.train_dataloader():
        assert list(inputs) == ["images", "input_ids", "attention_mask", "word_ids"]
        keys = [next(order) for _ in range(4)]
        expected = torch.stack([view(images.read(row), seed) for row, seed in keys])
        assert torch.equal(inputs["images"], expected)
    (inputs, _), *_ = data.val_dataloader()
    expected = torch.stack([EvalTransform(16)(images.read(row)) for row in range(4)])
    assert torch.equal(inputs["images"], expected)
    assert "pixel_mask" not in inputs


# Views


def test_evaluation_follows_the_resize_of_training(make):
    data = make(train_transform=VIEW)
    assert data.eval_transform is VIEW.resize
    assert data.image_size == 32
    view = CenterCropRandAugment(16)
    assert make(train_transform=view).eval_transform is view.resize
    assert make(train_transform=KEEP).eval_transform is KEEP
    assert make(train_transform=VIEW, eval_transform=EvalTransform(8)).image_size == 8
    assert make(train_transform=SingleView(CropSpec(size=8))).image_size == 224
    assert make(image_size=40).eval_transform.size == 40


def test_any_function_of_image_and_seed_is_a_view(make):
    def corner(image, seed):
        return image[:, : 1 + seed % 2, :1]

    data = make(train_transform=corner, batch_size=22)
    ((inputs, _),) = data.train_dataloader()
    assert inputs["images"].shape[2:] == (2, 1)
    assert inputs["pixel_mask"].sum((1, 2)).unique().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (SingleView(CropSpec(size=8, hue=0.1)), r"changes colours \(hue\)"),
        (SingleView(CropSpec(size=8, grayscale=0.2, solarize=0.1)), r"\(grayscale, solarize\)"),
        (RandAugmentView(CropSpec(size=8)), "the operation Invert of its policy"),
        (SingleView(CropSpec(size=8, hflip=0.5)), "left and right"),
    ],
)
def test_views_that_make_texts_wrong_are_warned_of(make, view, message):
    with pytest.warns(UserWarning, match=message):
        make(train_transform=view)


def test_views_that_leave_texts_true_are_not(make, recwarn):
    for view in (VIEW, CenterCropRandAugment(8), KEEP):
        make(train_transform=view)
    make(train_transform=SingleView(CropSpec(size=8, jitter_prob=0, hue=0.1)))
    make(train_transform=RandAugmentView(CropSpec(size=8), "rand-m9-t3a"))
    assert [str(warning.message) for warning in recwarn] == []


# Training


class Recorder(pl.LightningModule):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch[1], batch[0]))
        return self.weight * batch[0]["images"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, path=None, folder=None, **options):
    callbacks = []
    if folder is not None:
        callbacks = [pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)]
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, limit_val_batches=0,
        enable_checkpointing=folder is not None, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return module.seen


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and set(x) == set(y) and all(torch.equal(x[name], y[name]) for name in x)
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


@pytest.mark.filterwarnings("ignore:Some images have transparent pixels")
def test_resume_is_the_identical_trajectory(make, tmp_path):
    def build(**options):
        return make(train_transform=VIEW, other_images=True, batch_size=5, **options)

    whole = fit(build(), folder=tmp_path)
    assert len(whole) == 8
    for _, inputs in whole:
        shape = inputs["images"].shape
        assert inputs["other_images"].shape == shape
        masks = inputs["pixel_mask"], inputs["other_pixel_mask"]
        assert all(mask.shape == (shape[0], *shape[2:]) for mask in masks)
        for images, mask in zip((inputs["images"], inputs["other_images"]), masks, strict=True):
            assert (images[(~mask)[:, None].expand_as(images)] == 0).all()
        both = torch.cat(masks)
        largest = [int(both.any(2).sum(1).max()), int(both.any(1).sum(1).max())]
        assert list(shape[2:]) == largest
    for step in (1, 5):
        (path,) = tmp_path.glob(f"*step={step}.ckpt")
        assert same(fit(build(num_workers=step // 2), path), whole[step:]), step
    assert not same(fit(build(seed=2)), whole)


def test_half_precision_keeps_padding_zero(make):
    (_, inputs), *_ = fit(
        make(train_transform=KEEP, other_images=True, batch_size=11), precision="bf16-true"
    )
    assert inputs["pixel_mask"].dtype == torch.bool
    for name in ("images", "other_images"):
        assert inputs[name].dtype == torch.bfloat16
        outside = ~inputs[name.replace("images", "pixel_mask")]
        assert (inputs[name].movedim(1, -1)[outside] == 0).all()


def test_three_shards_cover_each_row_once(make, monkeypatch):
    data = make(eval_transform=KEEP, batch_size=3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(data, "shard", lambda rank=rank: (3, rank))
        for inputs, numbers in data.bank_dataloader():
            assert len(inputs["images"]) == len(numbers)
            seen += numbers.tolist()
    assert sorted(seen) == sorted(2 * list(range(len(FORMS))))


class Keep(pl.Callback):
    """Writes, for each row that a process had, its image and the other one."""

    def on_train_end(self, trainer, pl_module):
        found = {}
        for numbers, inputs in pl_module.seen:
            for row, number in enumerate(numbers.tolist()):
                own, other = (
                    inputs[f"{which}images"][row][:, mask.any(1)][..., mask.any(0)]
                    for which in ("", "other_")
                    for mask in [inputs[f"{which}pixel_mask"][row]]
                )
                found.setdefault(number, []).append((own, other))
        torch.save(found, Path(trainer.default_root_dir) / f"{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


def rows_of(make, folder, devices):
    folder.mkdir()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, devices=devices,
        enable_model_summary=False, limit_val_batches=0, enable_checkpointing=False,
        strategy="auto" if devices == 1 else "ddp_spawn", default_root_dir=folder,
        callbacks=[Keep()],
    )  # fmt: skip
    # 22 captions for three processes: all come, two of them twice
    data = make(train_transform=VIEW, other_images=True, batch_size=8, drop_last=False)
    trainer.fit(Recorder(), datamodule=data)
    parts = [torch.load(folder / f"{rank}.pt") for rank in range(devices)]
    return {
        number: [pair for part in parts for pair in part.get(number, [])]
        for number in range(len(FORMS))
    }


@pytest.mark.slow
@pytest.mark.distributed
def test_three_processes_draw_what_one_draws(make, tmp_path):
    one, three = (rows_of(make, tmp_path / str(devices), devices) for devices in (1, 3))
    assert sum(map(len, one.values())) == 22
    assert sum(map(len, three.values())) == 24
    for number, pairs in three.items():
        assert len(pairs) >= 2
        for pair in pairs:
            assert any(all(map(torch.equal, pair, own)) for own in one[number])


# Pairs


@pytest.fixture
def nlvr2(tmp_path):
    sizes = {"train": [(40, 56), (56, 40), (32, 32), (40, 70)], "dev": [(20, 90), (33, 33)]}
    for split, forms in sizes.items():
        place = tmp_path / ("images/train/0" if split == "train" else split)
        place.mkdir(parents=True)
        rows = []
        for number, form in enumerate(forms):
            row = {"sentence": "a dog", "label": "True", "identifier": f"{split}-{number}-0-0"}
            rows.append(json.dumps({**row, "directory": 0}))
            for side in (0, 1):
                pixels = np.full((*(form if side else form[::-1]), 3), 50 + 9 * number, np.uint8)
                Image.fromarray(pixels).save(place / f"{split}-{number}-0-img{side}.png")
        (tmp_path / f"{split}.json").write_text("\n".join(rows))
    return tmp_path


def test_pairs_are_padded_to_one_size(nlvr2):
    torch.manual_seed(0)
    data = NLVR2DataModule(
        root=str(nlvr2), tokenizer="bytes", num_workers=0, batch_size=3, eval_transform=KEEP, **HALF
    )
    backbone = ViltBackbone({**VILT, "vocab_size": 257}).eval()
    batches = on_device(data, data.bank_dataloader())
    assert [len(labels) for _, labels, *_ in batches] == [3, 1]
    row = 0
    for inputs, labels, *_ in batches:
        mask = inputs["pixel_mask"]
        images = inputs["images"]
        assert mask.shape == (len(labels), 2, *images.shape[3:])
        assert (images.movedim(2, -1)[~mask] == 0).all()
        for place in range(len(labels)):
            for side in (0, 1):
                image = KEEP(data.rows("train").source.read(row)[side])
                alone = normalize(image, *HALF.values())[None]
                height, width = image.shape[1:]
                assert torch.equal(images[place, side, :, :height, :width], alone[0])
                assert int(mask[place, side].sum()) == height * width
                with torch.no_grad():
                    one = backbone.embed_images(alone).embeds
                    whole = backbone.embed_images(images[:, side], mask[:, side])
                found = whole.embeds[place, whole.mask[place]]
                torch.testing.assert_close(found, one[0], atol=1e-5, rtol=0)
            row += 1
    assert row == 4
