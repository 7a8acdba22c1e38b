"""Tokenizers of images, points, bytes and symbols."""

from __future__ import annotations

import math

import pytest
import torch

from lit_ssl.errors import InputError, InputTypeError
from lit_ssl.models import (
    ByteTokenizer,
    ConvNeXtTokenizer,
    PatchTokenizer,
    PointTokenizer,
    SymbolTokenizer,
)
from lit_ssl.models.nac.tokenizers.points import farthest_points, nearest_points

NAMES = {
    "downsample_layers.0.0.": "0.0.",
    "downsample_layers.0.1.": "0.1.",
    "downsample_layers.1.0.": "1.0.",
    "downsample_layers.1.1.": "1.1.",
    "stages.0.0.dwconv.": "0.2.conv_dw.",
    "stages.0.0.pwconv1.": "0.2.mlp.fc1.",
    "stages.0.0.pwconv2.": "0.2.mlp.fc2.",
    "stages.0.0.": "0.2.",
}


def renamed(name):
    """Our name of a parameter of the reference's backbone."""
    old = next(old for old in NAMES if name.startswith(old))
    return NAMES[old] + name.removeprefix(old)


def symbols(ids, mask=None):
    ids = torch.as_tensor(ids)
    mask = torch.ones_like(ids) if mask is None else torch.as_tensor(mask)
    return {"input_ids": ids, "attention_mask": mask}


def all_tokenizers():
    return [
        ConvNeXtTokenizer(state_dim=16, preset="femto", image_size=24, position_dim=5),
        PatchTokenizer(image_size=15, patch_size=5, in_channels=2, embed_dim=7, position_dim=3),
        PointTokenizer(num_centres=9, group_size=4, bands=3, hidden_dim=8, embed_dim=6),
        ByteTokenizer(state_dim=8, max_length=61),
        SymbolTokenizer(vocab_size=7, embed_dim=5, position_dim=3, max_length=13),
    ]


def test_convnext_equals_the_reference(golden):
    data = golden("nac/tokenizer_femto2")
    tokenizer = ConvNeXtTokenizer(
        state_dim=16, preset="femto", image_size=32, position_dim=4
    ).eval()
    state = {
        renamed(key.removeprefix("p/backbone.")): value
        for key, value in data.items()
        if key.startswith("p/backbone.")
    }
    tokenizer.backbone.load_state_dict(state)  # strict: each parameter has its counterpart
    with torch.no_grad():
        # the reference keeps the grid as [channels, rows, columns]
        tokenizer.positions.copy_(data["p/positional_grid.grid"].flatten(1).T)
    tokens = tokenizer(data["image"])
    torch.testing.assert_close(tokens.values, data["tokens"], rtol=1e-5, atol=1e-5)
    assert tokens.mask is None
    assert tokens.values.shape[-1] == tokenizer.token_dim == 12


@pytest.mark.parametrize(
    ("preset", "num_stages", "blocks"),
    [("tiny", 3, (3, 3, 9)), ("mini", 3, (3, 3, 6)), ("micro", 3, (3, 3, 3)),
     ("nano", 3, (1, 1, 1)), ("pico", 2, (1, 1)), ("femto", 2, (1, 0)), ("atto", 1, (0,))],
)  # fmt: skip
def test_presets_have_their_blocks(preset, num_stages, blocks):
    tokenizer = ConvNeXtTokenizer(8, preset, num_stages, image_size=32)
    assert tuple(len(stage) - 2 for stage in tokenizer.backbone) == blocks
    side = 32 // (4 * 2 ** (num_stages - 1))
    assert tokenizer(tokenizer.example()).values.shape == (1, side**2, tokenizer.token_dim)


def test_the_tokenizer_of_tiny_imagenet_has_1_239_million_parameters():
    tokenizer = ConvNeXtTokenizer(state_dim=384)
    assert sum(p.numel() for p in tokenizer.parameters()) == 1_239_136
    assert tokenizer.token_dim == 192 + 64
    assert tokenizer(tokenizer.example(1)).values.shape == (1, 64, 256)


def test_drop_path_rises_to_its_value_and_is_off_in_evaluation():
    tokenizer = ConvNeXtTokenizer(8, "micro", 2, image_size=16, drop_path=0.5)
    rates = [
        getattr(block.drop_path, "drop_prob", 0.0)
        for stage in tokenizer.backbone
        for block in stage[2:]
    ]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    images = tokenizer.example(4)
    tokenizer.eval()
    torch.testing.assert_close(tokenizer(images), tokenizer(images), rtol=0, atol=0)


def test_patches_lie_in_the_order_of_rows():
    tokenizer = PatchTokenizer(image_size=6, patch_size=2, in_channels=2, embed_dim=8)
    images = tokenizer.example(3)
    weight = tokenizer.project.weight.flatten(1)
    patch = images[:, :, 2:4, 4:6].flatten(1)  # row 1, column 2
    tokens = tokenizer(images).values
    torch.testing.assert_close(tokens[:, 5, :8], patch @ weight.T + tokenizer.project.bias)
    torch.testing.assert_close(tokens[0, 5, 8:], tokenizer.positions[5])


@pytest.mark.parametrize("tokenizer", all_tokenizers(), ids=lambda t: type(t).__name__)
def test_examples_fit_and_every_parameter_learns(tokenizer):
    state = torch.get_rng_state()
    inputs = tokenizer.example(3)
    assert torch.equal(torch.get_rng_state(), state)  # the trajectory of a run is left alone
    tokens = tokenizer(inputs)
    assert tokens.values.shape[0] == 3
    assert tokens.values.shape[2] == tokenizer.token_dim
    if tokens.mask is not None:
        assert tokens.mask.dtype == torch.bool
        assert tokens.mask.shape == tokens.values.shape[:2]
    torch.testing.assert_close(
        tokenizer(tokenizer.example(1)).values.shape[1:], tokens.values[0].shape
    )
    tokens.values.square().sum().backward()
    assert [n for n, p in tokenizer.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("tokenizer", all_tokenizers(), ids=lambda t: type(t).__name__)
def test_half_precision_gives_finite_tokens(tokenizer):
    inputs = tokenizer.example(2)
    exact = tokenizer.eval()(inputs).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = tokenizer(inputs).values
    torch.testing.assert_close(narrow.float(), exact, rtol=0.1, atol=0.05)
    assert tokenizer.bfloat16()(tokenizer.example(2)
                                if isinstance(inputs, dict)
                                else inputs.bfloat16()).values.isfinite().all()  # fmt: skip


@pytest.mark.parametrize("tokenizer", all_tokenizers()[2:], ids=lambda t: type(t).__name__)
def test_they_are_exported_with_other_inputs_than_the_example(tokenizer):
    exported = torch.export.export(tokenizer.eval(), (tokenizer.example(2),)).module()
    inputs = tokenizer.example(2)
    inputs = inputs.flip(1) * 0.7 if isinstance(inputs, torch.Tensor) else {
        "input_ids": inputs["input_ids"].flip(1), "attention_mask": inputs["input_ids"] % 2
    }  # fmt: skip
    torch.testing.assert_close(exported(inputs), tokenizer(inputs))


def test_points_are_compared_in_float32_inside_autocast():
    points = torch.rand(2, 300, 3) * 1e-3 + 1  # all alike in bfloat16
    tokenizer = PointTokenizer(num_centres=20, group_size=4).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        places = tokenizer(points).values[..., -tokenizer.features.dim :]
    assert places[..., :3].unique(dim=1).shape[1] == 20


def plain_farthest(cloud, count):
    """The rule, one point at a time."""
    chosen = [int((cloud - cloud.mean(0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        distance = torch.stack([(cloud - cloud[i]).norm(dim=1) for i in chosen]).amin(0)
        chosen.append(int(distance.argmax()))
    return chosen


def test_centres_are_the_farthest_points():
    points = torch.randn(3, 37, 3)
    assert farthest_points(points, 11).tolist() == [plain_farthest(cloud, 11) for cloud in points]


def test_groups_are_the_nearest_points_with_their_centre():
    points = torch.randn(2, 50, 3)
    groups = nearest_points(points[:, :7], points, 5)
    distance = (points[:, :7, None] - points[:, None]).norm(dim=3)
    expected = distance.argsort(dim=2)[..., :5]
    assert torch.equal(groups.sort(2).values, expected.sort(2).values)
    assert torch.equal(groups[..., 0], torch.arange(7).expand(2, 7))


def test_tokens_of_points_do_not_depend_on_their_order():
    tokenizer = PointTokenizer(num_centres=16, group_size=5).eval()
    points = torch.randn(2, 101, 3)
    mixed = points[:, torch.randperm(101)]
    torch.testing.assert_close(tokenizer(mixed).values, tokenizer(points).values)


def test_small_clouds_have_one_token_for_each_point():
    tokenizer = PointTokenizer(num_centres=16, group_size=5).eval()
    points = torch.randn(2, 3, 3)
    places = tokenizer(points).values[..., -tokenizer.features.dim :]
    assert places.shape[1] == 3
    torch.testing.assert_close(places[..., :3].sort(1).values, points.sort(1).values)
    assert tokenizer(points[:, :1]).values.isfinite().all()


def test_copies_of_points_are_no_centres_while_others_are_left():
    points = torch.randn(1, 9, 3).repeat(1, 4, 1)
    chosen = farthest_points(points, 20)
    assert chosen.unique().numel() == 20
    assert points[0, chosen[0, :9]].unique(dim=0).shape[0] == 9


def test_points_are_relative_to_their_centre():
    """Far away, only the part of a token that says where has changed."""
    tokenizer = PointTokenizer(num_centres=6, group_size=4).eval().double()
    points = torch.randn(1, 40, 3)
    here, there = tokenizer(points).values, tokenizer(points + 4).values
    dim = tokenizer.features.dim
    torch.testing.assert_close(there[..., :-dim], here[..., :-dim], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(there[..., -dim : 3 - dim], here[..., -dim : 3 - dim] + 4)


def test_bytes_fall_into_windows():
    """13 bytes, stride 8: two tokens, the second from 5 bytes and nothing for the padding."""
    tokenizer = ByteTokenizer(state_dim=8, max_length=13)
    ids = torch.randint(256, (2, 13))
    values = torch.cat([tokenizer.embedding(ids), tokenizer.positions.expand(2, -1, -1)], dim=2)
    values = torch.cat([values, torch.zeros(2, 3, 6)], dim=1).unflatten(1, (2, 8))
    weight = tokenizer.merge.weight
    expected = torch.einsum("bwkc,dck->bwd", values, weight) + tokenizer.merge.bias
    tokens = tokenizer(symbols(ids))
    torch.testing.assert_close(tokens.values, expected)
    assert tokens.mask.all()
    assert tokens.values.shape == (2, 2, 8)


def test_4096_bytes_are_512_tokens():
    tokenizer = ByteTokenizer(state_dim=8)
    assert tokenizer(symbols(torch.full((1, 4096), 65))).values.shape == (1, 512, 8)


@pytest.mark.parametrize(("stride", "kernel_size"), [(8, 8), (3, 5)])
def test_padding_of_a_text_changes_none_of_its_tokens(stride, kernel_size):
    tokenizer = ByteTokenizer(8, max_length=64, stride=stride, kernel_size=kernel_size)
    ids = torch.randint(256, (3, 11))
    short = tokenizer(symbols(ids))
    padded = torch.cat([ids, torch.full((3, 30), 256)], dim=1)
    mask = torch.cat([torch.ones(3, 11), torch.zeros(3, 30)], dim=1).long()
    long = tokenizer(symbols(padded, mask))
    count = math.ceil(11 / stride)
    torch.testing.assert_close(long.values[:, :count], short.values)
    assert long.mask.sum(1).tolist() == [count] * 3


def test_an_empty_text_keeps_one_token():
    for tokenizer in (ByteTokenizer(8, max_length=20), SymbolTokenizer(9, 4, 2, 20)):
        mask = torch.zeros(2, 20, dtype=torch.long)
        mask[1, :3] = 1
        tokens = tokenizer(symbols(torch.zeros(2, 20, dtype=torch.long), mask))
        assert tokens.mask[0].tolist() == [True] + [False] * (tokens.mask.shape[1] - 1)
        assert tokens.mask[1].sum() == (1 if isinstance(tokenizer, ByteTokenizer) else 3)


def test_symbols_are_their_embedding_and_position():
    tokenizer = SymbolTokenizer(vocab_size=9, embed_dim=4, position_dim=2, max_length=20)
    ids = torch.randint(1, 9, (2, 13))
    tokens = tokenizer(symbols(ids)).values
    torch.testing.assert_close(tokens[..., :4], tokenizer.embedding.weight[ids])
    torch.testing.assert_close(tokens[1, :, 4:], tokenizer.positions[:13])


@pytest.mark.parametrize("tokenizer", all_tokenizers()[-2:], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [(symbols(torch.ones(2, 62, dtype=torch.long)), "62 where max_length is"),
     (symbols([[1, 300]]), "vocabulary"), (symbols([[-1, 2]]), "vocabulary"),
     (symbols([[1, 2]], [[1, 1, 1]]), r"\[1, 2\] and \[1, 3\]"),
     (symbols([[1.0, 2.0]]), "whole numbers"), ({"input_ids": torch.ones(1, 2)}, "attention_mask"),
     (torch.ones(1, 2), "dictionaries"), (symbols(torch.ones(2, 0).long()), "L >= 1")],
)  # fmt: skip
def test_wrong_sequences_are_refused(tokenizer, inputs, words):
    with pytest.raises(InputError, match=words):
        tokenizer(inputs)


@pytest.mark.parametrize(
    ("tokenizer", "inputs", "words"),
    [(ConvNeXtTokenizer(8, "atto", image_size=16), torch.zeros(1, 3, 24, 16), "3, 16, 16"),
     (ConvNeXtTokenizer(8, "atto", image_size=16), torch.zeros(1, 1, 16, 16), "in_channels"),
     (ConvNeXtTokenizer(8, "atto", image_size=16), {"images": 0}, "reads images"),
     (PatchTokenizer(8, 4), torch.zeros(1, 8, 8), "B, C, H, W"),
     (PointTokenizer(4, 2), torch.zeros(1, 4, 2), "B, P, 3"),
     (PointTokenizer(4, 2), torch.zeros(1, 0, 3), "B, P, 3"),
     (PointTokenizer(4, 2), torch.full((1, 5, 3), math.nan), "not a number"),
     (PointTokenizer(4, 2), [0], "reads points"),
     (PointTokenizer(4, 2), torch.zeros(2, 1, 8, 8), "data are images.*choose.*PatchTokenizer"),
     (PatchTokenizer(8, 4), torch.zeros(2, 9, 3), "data are points.*choose.* PointTokenizer"),
     (PatchTokenizer(8, 4), {"input_ids": 0, "attention_mask": 0}, "sequences.*ByteTokenizer"),
     (ByteTokenizer(8), torch.zeros(2, 1, 8, 8), "reads sequences.*images"),
     # it has texts, and the images would be left out in silence
     (SymbolTokenizer(9, 4), {"images": torch.zeros(1, 2, 3, 8, 8), "input_ids": torch.ones(1, 4),
                              "attention_mask": torch.ones(1, 4)}, "ImagePairTextTokenizer")],
)  # fmt: skip
def test_wrong_inputs_are_refused(tokenizer, inputs, words):
    with pytest.raises(InputError, match=words):
        tokenizer(inputs)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [(ConvNeXtTokenizer, {"preset": "tinny"}, "Did you mean tiny"),
     (ConvNeXtTokenizer, {"preset": "x"}, "Valid: atto"),
     (ConvNeXtTokenizer, {"state_dim": 6}, "multiple of 4"),
     (ConvNeXtTokenizer, {"num_stages": 4}, "1 to 3"),
     (ConvNeXtTokenizer, {"drop_path": 1.0}, "drop_path"),
     (ConvNeXtTokenizer, {"image_size": 28}, "8 divides, got 28"),
     (ConvNeXtTokenizer, {"position_dim": 0}, "position_dim >= 1"),
     (PatchTokenizer, {"image_size": 30}, "divides image_size 30"),
     (PointTokenizer, {"num_centres": 0}, "num_centres >= 1"),
     (PointTokenizer, {"max_frequency": 0.5}, "max_frequency"),
     (ByteTokenizer, {"state_dim": 10}, "4 divides"),
     (ByteTokenizer, {"kernel_size": 4}, "no token sees some bytes"),
     (SymbolTokenizer, {"vocab_size": 0}, "vocab_size >= 1")],
)  # fmt: skip
def test_wrong_options_are_refused(kind, arguments, words):
    with pytest.raises(InputError, match=words):
        kind(**arguments)


def test_the_kind_of_inputs_is_a_type_error():
    with pytest.raises(InputTypeError):
        SymbolTokenizer(5)(torch.ones(2, 3))
