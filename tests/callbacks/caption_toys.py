"""Captions of images whose right guesses can be told by hand, and a module that makes them."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

NUMBERS = (5, 5, 5, 2, 7, 7, 2, 9, 9, 9, 9, 4, 1)  # of the images of captions
LENGTHS = (4, 6, 3, 5, 2, 7, 4, 6, 3, 5, 4, 6, 5)


class Captions(Dataset):
    """Row i: an image full of its number, and tokens that are all different."""

    def __init__(self, numbers=NUMBERS, without_words=False):
        self.numbers = numbers
        self.lengths = [LENGTHS[i % len(LENGTHS)] for i in range(len(numbers))]
        self.without_words = without_words

    def __len__(self):
        return len(self.numbers)

    def ids(self, row):
        step = 3 if self.without_words else 1
        return [3 + 7 * row + (step * place) % 7 for place in range(self.lengths[row])]

    def __getitem__(self, row):
        return row


class CaptionData(pl.LightningDataModule):
    """Rows r, r + W, … for process r of W: shards differ in length."""

    def __init__(self, batch_size=4, numbers=NUMBERS, candidates=True, without_words=False):
        super().__init__()
        self.batch_size = batch_size
        self.captions = Captions(numbers, without_words)
        self.candidates = candidates

    def collate(self, rows):
        width = max(self.captions.lengths[row] for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        for place, row in enumerate(rows):
            found = torch.tensor(self.captions.ids(row))
            ids[place, : len(found)] = found
        numbers = torch.tensor([self.captions.numbers[row] for row in rows])
        # the width of images differs between batches, and so the number of their tokens
        images = numbers[:, None, None, None].expand(-1, 1, 1, 2 + width).float()
        inputs = {"images": images, "input_ids": ids, "attention_mask": (ids > 0).long()}
        inputs["word_ids"] = torch.where(ids > 0, torch.arange(width), -1)
        if self.candidates:
            inputs["candidates"] = is_content(ids)
        return inputs, numbers

    def val_dataloader(self):
        world = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        rows = list(range(rank, len(self.captions), world))
        return DataLoader(rows, self.batch_size, collate_fn=self.collate)

    train_dataloader = test_dataloader = val_dataloader


class Pieces:
    """Token n is the piece "##n" within a word if it is 80 to 99, else the word "n"."""

    def decode(self, ids, clean_up_tokenization_spaces):
        assert not clean_up_tokenization_spaces
        return " " + " ".join(f"##{n}" if 80 <= n < 100 else str(n) for n in ids)


class WrittenCaptions(CaptionData):
    """With what pictures need besides."""

    text_tokenizer = Pieces()
    mean, std = (0.0,), (0.1,)


def is_chosen(ids):
    """The fixed mask."""
    return (ids > 0) & (ids % 5 < 2)


def is_content(ids):
    return (ids > 0) & (ids % 2 == 0)


def is_right(ids, number):
    """Whether a token is guessed with an image of this number."""
    return (ids * (number + 1)) % 3 == 0


def log_odds(first_id, number):
    """That a caption belongs to an image; 0 for some, which is no right answer twice."""
    return (first_id + number) % 3 - 1


class CaptionModule(pl.LightningModule):
    """Guesses by the rules above; it draws random numbers wherever it can."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.embedded = 0

    def embed(self, inputs):
        assert not self.training
        torch.rand(3)
        self.embedded += 1
        images = inputs["images"]
        embeds = images.flatten(1)[:, :, None].clone()  # [B, N, 1]
        rest = {name: value for name, value in inputs.items() if name != "images"}
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool)
        return {**rest, "image_embeds": embeds, "image_mask": mask}

    def number(self, inputs):
        if "images" in inputs:
            inputs = self.embed(inputs)
        mask = inputs["image_mask"]
        return (inputs["image_embeds"][:, :, 0] * mask).sum(1).div(mask.sum(1)).round().long()

    def fixed_mask(self, inputs):
        return is_chosen(inputs["input_ids"])

    def guess(self, inputs, mask):
        ids, number = inputs["input_ids"], self.number(inputs)[:, None]
        answers = torch.where(is_right(ids, number), ids, ids + 1)[mask]
        assert len(answers)
        return nn.functional.one_hot(answers, 200).float() + torch.rand(len(answers), 1) / 9

    def match(self, inputs):
        return log_odds(inputs["input_ids"][:, 0], self.number(inputs)).float()

    def align(self, inputs):
        return torch.zeros(len(inputs["input_ids"]), 5, inputs["input_ids"].shape[1])

    def training_step(self, batch, batch_idx):
        return self.linear(self.drop(torch.rand(3, 4))).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def expected(captions, world=1, candidates=True):
    """What is to be logged, row by row."""
    counts = {"grounding": [0, 0, 0], "grounding_content": [0, 0, 0], "itm": [0, 0, 0]}
    for rank in range(world):
        rows = list(range(rank, len(captions), world))
        numbers = [captions.numbers[row] for row in rows]
        if len(set(numbers)) < 2:
            continue
        for place, row in enumerate(rows):
            earlier = [n for n in numbers[:place] if n != numbers[place]]
            later = [n for n in numbers[place:] if n != numbers[place]]
            other = earlier[-1] if earlier else later[0]
            ids = captions.ids(row)
            for kind in ("grounding", "grounding_content"):
                for one in ids:
                    if not is_chosen(torch.tensor(one)):
                        continue
                    if kind == "grounding_content" and not (candidates and one % 2 == 0):
                        continue
                    counts[kind][0] += 1
                    counts[kind][1] += bool(is_right(one, numbers[place]))
                    counts[kind][2] += bool(is_right(one, other))
            counts["itm"][0] += 1
            counts["itm"][1] += log_odds(ids[0], numbers[place]) > 0
            counts["itm"][2] += log_odds(ids[0], other) <= 0
    values = {}
    for kind, (number, right, rolled) in counts.items():
        if number:
            values[f"{kind}_true"], values[f"{kind}_rolled"] = right / number, rolled / number
            if kind != "itm":
                values[kind] = (right - rolled) / number
    return values
