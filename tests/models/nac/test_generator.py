"""The generator of circuits from texts."""

from __future__ import annotations

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import (
    ImagePairTextTokenizer,
    NeuralAttentiveCircuit,
    SmallPairEncoder,
    SymbolTokenizer,
    TextCircuitGenerator,
)


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


def text_circuit(generator=None, text_in_executor=False, **kwargs):
    encoder = SmallPairEncoder(20, image_size=8, image_dim=4, text_dim=6, max_length=9)
    tokenizer = ImagePairTextTokenizer(encoder, 9, 5, 3, 2, text_in_executor)
    arguments = {
        "num_classes": 2, "state_dim": 10, "signature_dim": 7, "num_modules": 5,
        "num_input_modules": 4, "num_output_modules": 3, "depth": 2, "num_heads": 2,
        "head_dim": 4, "wiring": "persistent",
    }  # fmt: skip
    return NeuralAttentiveCircuit(tokenizer, generator=generator, **{**arguments, **kwargs})


def pairs(net, lengths=(4, 9, 1)):
    inputs = net.tokenizer.example(len(lengths))
    inputs["attention_mask"] = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    return inputs


@pytest.mark.parametrize("wiring", ["persistent", "from_input"])
def test_a_new_generator_leaves_the_circuit_as_it_is(wiring):
    inputs = 4 if wiring == "persistent" else None
    generator = make(trained=False, num_input_modules=inputs)
    net = text_circuit(generator, wiring=wiring, num_input_modules=inputs).eval()
    batch = pairs(net)
    with_text = net(batch)
    other = {**batch, "input_ids": batch["input_ids"].flip(1)}
    same(net(other), with_text)  # the executor reads the images alone
    net.generator = None
    same(net(batch), with_text)


@pytest.mark.parametrize("wiring", ["persistent", "from_input"])
def test_each_sample_has_a_circuit_of_its_own(wiring):
    inputs = 4 if wiring == "persistent" else None
    generator = make(num_input_modules=inputs)
    net = text_circuit(generator, wiring=wiring, num_input_modules=inputs).eval()
    batch = pairs(net)
    together = net(batch).logits
    for i in range(3):
        same(net({k: v[i : i + 1] for k, v in batch.items()}).logits[0], together[i])
    other = {**batch, "input_ids": batch["input_ids"].flip(1)}
    assert (net(other).logits - together).abs().max() > 1e-4
    hidden = batch["attention_mask"] == 0
    padded = {**batch, "input_ids": batch["input_ids"].masked_fill(hidden, 0)}
    same(net(padded).logits, together)
    # as a circuit whose free tables are those of the sample
    text = net.tokenizer(batch).text
    changes = generator(*text)
    alone = text_circuit(None, True, wiring=wiring, num_input_modules=inputs).eval()
    alone.tokenizer = net.tokenizer
    alone.load_state_dict({k: v for k, v in net.state_dict().items() if "generator" not in k})
    with torch.no_grad():
        for name, table in alone.codes.items():
            table += changes[name][1][1]
        for name, table in alone.signatures.items():
            table += changes[name][0][1]
    same(alone(batch).logits[1], together[1])


def test_a_circuit_with_a_generator_trains_every_parameter():
    for wiring, inputs in (("persistent", 4), ("from_input", None)):
        generator = make(num_input_modules=inputs)
        net = text_circuit(generator, wiring=wiring, num_input_modules=inputs).train()
        out = net(pairs(net))
        (out.logits.square().sum() + out.features.square().sum()).backward()
        assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_a_new_generator_learns_from_the_first_step_on():
    """Its last layers start at zero, but not their gradients."""
    net = text_circuit(make(trained=False)).train()
    net(pairs(net)).logits.square().sum().backward()
    assert net.generator.to_codes.weight.grad.any()
    assert net.generator.to_signatures.weight.grad.any()


def test_a_circuit_learns_what_only_text_and_images_together_tell():
    """Are the images of the colour that the word names? Neither says anything alone."""
    torch.manual_seed(1)
    noise = torch.Generator().manual_seed(1)
    encoder = SmallPairEncoder(
        4, image_size=8, image_dim=8, text_dim=8, max_length=2, preset="atto"
    )
    tokenizer = ImagePairTextTokenizer(encoder, 2, 8, 4, 4, text_in_executor=False)
    generator = TextCircuitGenerator(
        8, num_modules=6, num_output_modules=2, signature_dim=8, code_dim=16, width=16, num_heads=2,
        depth=1,
    )  # fmt: skip
    net = NeuralAttentiveCircuit(
        tokenizer, 2, state_dim=16, signature_dim=8, num_modules=6, num_output_modules=2, depth=1,
        num_heads=2, head_dim=8, layer_scale=None, generator=generator,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(300):
        colour, word = torch.randint(2, (2, 64), generator=noise)
        images = (2.0 * colour - 1)[:, None, None, None, None].expand(-1, 2, 3, 8, 8)
        ids = torch.stack([word + 1, torch.full_like(word, 3)], dim=1)
        inputs = {"images": images, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        loss = torch.nn.functional.cross_entropy(net(inputs).logits, (word == colour).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.2:  # chance: 0.69
            break
    assert loss < 0.2


@pytest.mark.parametrize(
    ("theirs", "circuit", "words"),
    [({"num_modules": 6}, {}, "6 mediator.*5 mediator"),
     ({"num_output_modules": 1}, {}, "1 output"),
     ({"num_input_modules": None}, {}, "5 input.*4 input"), ({"code_dim": 9}, {}, "code_dim 9"),
     ({"signature_dim": 1}, {}, "signature_dim 1"), ({"text_dim": 5}, {}, "text of 5 channels"),
     ({}, {"modulation": "none", "initial_state": "learned"}, "needs a graph and a modulation"),
     ({}, {"graph": False}, "needs a graph")],
)  # fmt: skip
def test_a_generator_for_another_circuit_is_refused(theirs, circuit, words):
    with pytest.raises(InputError, match=words):
        text_circuit(make(**theirs), **circuit)


def test_a_text_that_nobody_reads_is_refused():
    with pytest.raises(InputError, match="no generator that reads"):
        text_circuit(None, text_in_executor=False)
    with pytest.raises(InputError, match="SymbolTokenizer has no text"):
        NeuralAttentiveCircuit(SymbolTokenizer(9), generator=make())
