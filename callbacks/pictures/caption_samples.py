"""Some captions of a validation, and what a model makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_ssl.callbacks.pictures.caption_drawing import CaptionPicture, Guess, WordMap
from lit_ssl.contracts.vision_language import GuessesWords, can_match, texts_of

__all__ = ["CaptionSample", "caption_picture", "patch_grid", "take_samples"]

_MOST_MAPS = 3  # words of a caption whose place in the image is drawn


class CaptionSample(NamedTuple):
    """One caption with its image, as a batch of one without padding.

    Attributes:
        inputs: ``images`` ``[1, C, h, w]`` and what is known of the caption, ``[1, l]`` each.
        mask: bool ``[1, l]``, the tokens to guess.
        number: Of the image.
    """

    inputs: dict[str, Tensor]
    mask: Tensor
    number: int


def take_samples(
    inputs: Mapping[str, Tensor], numbers: Tensor, mask: Tensor, known: Sequence[int]
) -> Iterator[CaptionSample]:
    """Go through the rows of a batch that have a masked word, one for each new image.

    Where the batch brings ``candidates``, it is one of these.

    Args:
        inputs: Of a batch of images with captions.
        numbers: int64 ``[B]``, equal for captions of one image.
        mask: bool ``[B, L]``, the tokens to guess.
        known: Numbers of images that are not wanted again.
    """
    seen = set(known)
    content = inputs.get("candidates")
    has_words = (mask if content is None else mask & content.bool()).any(dim=1).tolist()
    for row, number in enumerate(numbers.tolist()):
        if not has_words[row] or number in seen:
            continue
        seen.add(number)
        length = int(inputs["attention_mask"][row].sum())
        one = {name: v[row : row + 1, :length].clone() for name, v in texts_of(inputs).items()}
        height, width = inputs["images"].shape[2:]
        if "pixel_mask" in inputs:
            pixels = inputs["pixel_mask"][row] > 0
            height, width = int(pixels[:, 0].sum()), int(pixels[0].sum())
        one["images"] = inputs["images"][row : row + 1, :, :height, :width].clone()
        yield CaptionSample(one, mask[row : row + 1, :length].clone(), number)


def caption_picture(
    module: GuessesWords,
    sample: CaptionSample,
    other: CaptionSample | None,
    tokenizer: Any,
    pixels_of: Callable[[Tensor], np.ndarray],
) -> CaptionPicture:
    """Let a model guess the masked words of a caption, with its image and with another one.

    Args:
        module: In evaluation mode.
        sample: The caption.
        other: Whose image is the other one; None: there is none.
        tokenizer: Of transformers.
        pixels_of: From images ``[1, C, h, w]`` of a sample to uint8 ``[h, w, 3]``.
    """
    texts = texts_of(sample.inputs)
    words = _words(sample)
    inputs = [sample.inputs] if other is None else [sample.inputs, other.inputs]
    guesses: list[list[Guess | None]] = []
    matches: list[float] = []
    for image in inputs:
        pair = {**texts, "images": image["images"]}
        logits = module.guess(pair, sample.mask).float()
        guesses.append(_guesses(sample, words, logits, tokenizer))
        if can_match(module):
            matches.append(float(module.match(pair).float().sigmoid()))
    own, apart = guesses[0], guesses[1] if other is not None else [None] * len(words)
    with_other = matches[1] if len(matches) > 1 else None
    ids = texts["input_ids"][0].tolist()
    names = [_decoded(tokenizer, [ids[i] for i in places]) for places in words]
    plan = module.align(sample.inputs)[0].float()
    return CaptionPicture(
        image=pixels_of(sample.inputs["images"]),
        other=None if other is None else pixels_of(other.inputs["images"]),
        words=names,
        guesses=[None if g is None else (g, o) for g, o in zip(own, apart, strict=True)],
        matches=(matches[0], with_other) if matches else None,
        maps=_maps(sample, words, names, plan),
    )


def patch_grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of square patches that cover an image; None if tokens are not that.

    Args:
        tokens: Number of patches.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    side = math.isqrt(height * width // tokens) if tokens > 0 else 0
    if not side or height % side or width % side or height * width != tokens * side * side:
        return None
    return height // side, width // side


def _words(sample: CaptionSample) -> list[list[int]]:
    """Places of the tokens of each word."""
    places: dict[int, list[int]] = {}
    for place, word in enumerate(sample.inputs["word_ids"][0].tolist()):
        if word >= 0:
            places.setdefault(word, []).append(place)
    return list(places.values())


def _guesses(
    sample: CaptionSample, words: Sequence[Sequence[int]], logits: Tensor, tokenizer: Any
) -> list[Guess | None]:
    """What is guessed of each word; None for those without a masked token."""
    probabilities, found = logits.softmax(dim=-1).max(dim=-1)
    masked = sample.mask[0].nonzero().flatten().tolist()
    guessed = dict(zip(masked, zip(found.tolist(), probabilities.tolist(), strict=True),
                       strict=True))  # fmt: skip
    ids = sample.inputs["input_ids"][0].tolist()
    guesses: list[Guess | None] = []
    for places in words:
        hidden = [place for place in places if place in guessed]
        if not hidden:
            guesses.append(None)
            continue
        pieces = [guessed[place][0] if place in guessed else ids[place] for place in places]
        probability = math.prod(guessed[place][1] for place in hidden)
        is_right = pieces == [ids[place] for place in places]
        guesses.append(Guess(_decoded(tokenizer, pieces), probability, is_right))
    return guesses


def _maps(
    sample: CaptionSample, words: Sequence[Sequence[int]], names: Sequence[str], plan: Tensor
) -> list[WordMap]:
    """Where some words lie, from the plan ``[N, l]``; none where tokens are no grid of patches."""
    grid = patch_grid(len(plan) - 1, *sample.inputs["images"].shape[2:])
    if grid is None:
        return []
    content = sample.inputs.get("candidates")
    content = torch.zeros_like(sample.mask) if content is None else content.bool()
    preferred = [n for n, places in enumerate(words) if bool(content[0, places].any())]
    longest = sorted(preferred or range(len(words)), key=lambda n: -len(names[n]))[:_MOST_MAPS]
    maps = []
    for number in sorted(longest):
        column = plan[1:, words[number]].sum(dim=1)
        shares = (column / column.mean()).reshape(grid)
        maps.append(WordMap(names[number], shares.cpu().numpy()))
    return maps


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The pieces of a word as one word."""
    text = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False).strip()
    return text.replace(" ##", "")  # tokenizers made of a list of pieces do not join them
