"""The losses of VLPretraining against the formulas, one pair at a time and without padding."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.losses import draw_in_batch, draw_matching
from lit_ssl.methods import VLPretraining
from lit_ssl.methods.vl.pretraining import MaskedWords
from lit_ssl.models import ViltBackbone
from lit_ssl.text import UniformMasker

pytest.importorskip("transformers")
FIELDS = {
    "vocab_size": 73, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "image_size": 32, "patch_size": 16, "max_position_embeddings": 24,
}  # fmt: skip
LENGTH = 9


def surprise(scores, label):
    return torch.logsumexp(scores, 0) - scores[label]


def distance(text, image):
    """Cost of the best transport between words and patches of one pair."""
    if not len(text):
        return torch.zeros((), dtype=text.dtype)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (text, image)]
    cost = 1 - unit[0] @ unit[1].T
    words, patches = cost.shape
    kernel = torch.exp(-cost.detach().T / 0.5)
    plan, sigma = torch.ones_like(kernel), torch.full((words,), 1 / words, dtype=text.dtype)
    for _ in range(50):
        scaled = kernel * plan
        delta = 1 / (patches * (scaled @ sigma))
        sigma = 1 / (words * (delta @ scaled))
        plan = delta[:, None] * scaled * sigma
    return (cost * plan.T).sum()


def by_hand(module, inputs, words, labels, images, masks):
    """``labels`` of matching; ``images`` and ``masks``: what each text gets in it."""

    def run(ids, row, image, mask):
        length = int(inputs["attention_mask"][row].sum())
        height, width = int(mask[:, 0].sum()), int(mask[0].sum())
        alone = {"input_ids": ids[row, None, :length], "images": image[None, :, :height, :width]}
        out = module.backbone({**alone, "attention_mask": torch.ones(1, length, dtype=torch.long)})
        return out.text[0], out.image[0], out.pooled[0]

    guesses, matches, apart = [], [], torch.zeros((), dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        text, _, _ = run(words.ids, row, inputs["images"][row], inputs["pixel_mask"][row])
        for state, target in zip(text, words.labels[row].tolist(), strict=False):
            if target != -100:
                guesses.append(surprise(module.mlm_head(state), target))
        if label != -100:
            text, image, pooled = run(inputs["input_ids"], row, images[row], masks[row])
            matches.append(surprise(module.itm_head(pooled), label))
            apart = apart + (2 * label - 1) * distance(text[1:-1], image[1:])
    mean = [sum(found) / max(len(found), 1) for found in (guesses, matches)]
    return {"mlm_loss": mean[0], "itm_loss": mean[1], "wpa_loss": apart / len(labels)}


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
@pytest.mark.parametrize("other_images", [False, True], ids=["in_batch", "other_images"])
def test_losses_are_those_of_the_formulas(rows, other_images):
    generator = torch.Generator().manual_seed(rows)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    def drawn():
        mask = torch.zeros(rows, 64, 64, dtype=torch.bool)
        for row, (height, width) in enumerate((16 * integers(1, 5, rows, 2)).tolist()):
            mask[row, :height, :width] = True
        images = torch.randn(rows, 3, 64, 64, generator=generator).double()
        return images * mask[:, None], mask

    torch.manual_seed(rows)
    net = ViltBackbone(FIELDS, initialization="fan_in")
    module = VLPretraining(net, UniformMasker(0.6)).double().eval()
    lengths, places = integers(2, LENGTH + 1, rows, 1), torch.arange(LENGTH)
    mask = places < lengths  # the shortest text has no word
    images, pixel_mask = drawn()
    inputs = {
        "images": images, "pixel_mask": pixel_mask, "attention_mask": mask.long(),
        "input_ids": integers(5, 73, rows, LENGTH) * mask,
    }  # fmt: skip
    chosen = (places > 0) & (places < lengths - 1) & (integers(0, 5, rows, LENGTH) < 3)
    ids = inputs["input_ids"]
    words = MaskedWords(ids.masked_fill(chosen, 4), ids.masked_fill(~chosen, -100))
    if other_images:
        matching = draw_matching(rows, generator)
        others, other_masks = drawn()
        inputs |= {"other_images": others, "other_pixel_mask": other_masks}
        own = (matching.labels == 1)[:, None, None]
        got = torch.where(own[..., None], images, others), torch.where(own, pixel_mask, other_masks)
    else:
        numbers = integers(0, rows // 2 + 1, rows)  # some captions are of one image
        matching = draw_in_batch(numbers, generator)
        got = images[matching.sources], pixel_mask[matching.sources]
        same = numbers[matching.sources] == numbers
        assert same[matching.labels == 1].all()
        assert not same[matching.labels == 0].any()
    assert int((matching.labels == 1).sum()) == rows // 2
    loss, parts, _ = module.compute_loss(inputs, words, matching)
    wanted = by_hand(module, inputs, words, matching.labels, *got)
    for name, value in wanted.items():
        assert float(parts[name]) == pytest.approx(float(value), abs=1e-9), name
    total = wanted["mlm_loss"] + wanted["itm_loss"] + 0.1 * wanted["wpa_loss"]
    assert float(loss) == pytest.approx(float(total), abs=1e-9)
