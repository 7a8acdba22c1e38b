"""The generator of circuits from texts."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import TextCircuitGenerator


def make(trained=True, **kwargs):
    arguments = {
        "text_dim": 6, "num_modules": 5, "num_output_modules": 3, "num_input_modules": 4,
        "signature_dim": 7, "code_dim": 10, "width": 8, "num_heads": 2,
    }  # fmt: skip
    generator = TextCircuitGenerator(**{**arguments, **kwargs})
    if trained:
        for head in (generator.to_signatures, generator.to_codes):
            torch.nn.init.normal_(head.weight)
    return generator.eval()


def texts(lengths=(4, 9, 1)):
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), 9, 6), mask


def same(first, second):
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_shapes_and_tables():
    parts = make()(*texts())
    assert {k: (tuple(s.shape), tuple(c.shape)) for k, (s, c) in parts.items()} == {
        "mediator": ((3, 5, 7), (3, 5, 10)),
        "output": ((3, 3, 7), (3, 3, 10)),
        "input": ((3, 4, 7), (3, 4, 10)),
    }
    assert make(num_input_modules=None).tables["input"] == 5
    assert set(make(num_input_modules=0, num_output_modules=0)(*texts())) == {"mediator"}


def test_a_new_generator_adds_nothing():
    for signatures, codes in make(trained=False)(*texts()).values():
        assert not signatures.any()
        assert not codes.any()


def test_every_parameter_gets_a_gradient():
    generator = make().train()
    sum(s.square().sum() + c.square().sum() for s, c in generator(*texts()).values()).backward()
    still = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_text_has_an_influence_and_padding_has_none():
    generator = make()
    tokens, mask = texts()
    parts = generator(tokens, mask)
    other = torch.where(mask[..., None], tokens, torch.full_like(tokens, 100.0))
    same(generator(other, mask), parts)
    changed = tokens.clone()
    changed[0, 3, 0] += 1
    for name, (signatures, codes) in generator(changed, mask).items():
        assert (signatures[0] - parts[name][0][0]).abs().max() > 1e-3
        assert (codes[0] - parts[name][1][0]).abs().max() > 1e-3
        same(signatures[1:], parts[name][0][1:])


def test_samples_do_not_see_each_other():
    generator = make()
    tokens, mask = texts()
    parts = generator(tokens, mask)
    for i, length in enumerate((4, 9, 1)):
        alone = generator(tokens[i : i + 1, :length])
        for name, (signatures, codes) in alone.items():
            same(signatures[0], parts[name][0][i])
            same(codes[0], parts[name][1][i])


def test_the_order_of_text_tokens_is_in_the_tokens_only():
    generator = make()
    tokens, _ = texts()
    same(generator(tokens.flip(1)), generator(tokens))


def test_reading_is_attention_by_its_formula():
    generator = make(depth=0)
    tokens, mask = texts()
    read = generator.read
    query = read.query(read.query_norm(generator.queries))
    key, value = read.key_value(read.text_norm(tokens)).chunk(2, dim=2)
    mixed = []
    for h in (slice(0, 4), slice(4, 8)):
        scores = query[:, h] @ key[..., h].transpose(1, 2) / 2
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(2)
        mixed.append(weights @ value[..., h])
    modules = generator.queries + read.out(torch.cat(mixed, dim=2))
    expected = generator.to_codes(generator.norm(modules))
    same(torch.cat([codes for _, codes in generator(tokens, mask).values()], dim=1), expected)


def test_an_empty_text_is_finite():
    tokens, mask = texts((0, 3))
    for signatures, codes in make()(tokens, mask).values():
        assert signatures.isfinite().all()
        assert codes.isfinite().all()


def test_what_is_added_is_float32_inside_autocast():
    generator = make()
    exact = generator(*texts())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = generator(*texts())
    for name, parts in narrow.items():
        assert [x.dtype for x in parts] == [torch.float32] * 2
        assert parts[0].shape == exact[name][0].shape
    tokens, mask = texts()
    assert generator.bfloat16()(tokens, mask)["mediator"][0].isfinite().all()


def test_pruned_modules_are_those_of_the_whole():
    generator = make()
    tokens, mask = texts()
    whole = generator(tokens, mask)
    pruned = generator.prune({"mediator": torch.tensor([1, 2, 4]), "output": torch.tensor([2])})
    parts = pruned(tokens, mask)
    assert torch.equal(parts["mediator"][0], whole["mediator"][0][:, [1, 2, 4]])
    assert torch.equal(parts["output"][1], whole["output"][1][:, [2]])
    assert torch.equal(parts["input"][1], whole["input"][1])
    twice = pruned.prune({"mediator": torch.tensor([0, 2])})
    assert torch.equal(twice(tokens, mask)["mediator"][1], whole["mediator"][1][:, [1, 4]])
    other = make().prune({"mediator": torch.tensor([0, 1, 2]), "output": torch.tensor([0])})
    other.load_state_dict(pruned.state_dict())
    same(other(tokens, mask), parts)


@pytest.mark.parametrize(
    ("keep", "words"),
    [({"mediator": [5]}, "0 to 4"), ({"output": []}, "0 to 2"), ({"mediator": [-1]}, "0 to 4"),
     ({"x": [0]}, "no table 'x'")],
)  # fmt: skip
def test_wrong_positions_are_refused(keep, words):
    with pytest.raises(InputError, match=words):
        make().prune({name: torch.tensor(at, dtype=torch.long) for name, at in keep.items()})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"width": 9}, "num_heads divides"), ({"num_modules": 0}, "num_modules"),
     ({"depth": -1}, "depth"), ({"num_output_modules": -1}, "negative")],
)  # fmt: skip
def test_wrong_options_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        make(**arguments)


def test_tokens_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"\[B, L, 6\], got \[2, 3, 5\]"):
        make()(torch.zeros(2, 3, 5))
