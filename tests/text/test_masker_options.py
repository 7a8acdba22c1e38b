"""Maskers in a configuration: two values in a YAML, or a class of your own."""

from __future__ import annotations

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lit_ssl.text import ContentWords, SpacyTagger
from lit_ssl.text.masking.maskers import MaskerLike
from lit_ssl.text.masking.rates import RateSchedule


class Model:
    def __init__(self, masker: MaskerLike, schedule: RateSchedule | None = None) -> None:
        self.masker, self.schedule = masker, schedule


class First:
    """A user's."""

    def __init__(self, rate: float = 0.3) -> None:
        self.rate = rate

    def __call__(self, input_ids, maskable, word_ids, rate=None, generator=None, **more):
        return maskable & (maskable.cumsum(1) == 1)


@pytest.fixture
def build():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model")

    def run(text):
        return parser.instantiate_classes(parser.parse_object({"model": yaml.safe_load(text)}))

    return lambda text: run(text).model


def test_rate_and_strategy(build, make_texts):
    model = build(
        "masker: {class_path: lit_ssl.text.WholeWordMasker, init_args: {rate: 0.15}}\n"
        "schedule: {class_path: lit_ssl.text.LinearRate, init_args: {start: 0.6, end: 0.2}}\n"
    )
    assert (model.masker.rate, model.schedule(0.5)) == (0.15, pytest.approx(0.4))
    texts = make_texts(count=3)
    assert texts.masked(model.masker, rate=model.schedule(0.0)).any()


@pytest.mark.parametrize("name", ["Uniform", "WholeWord", "Span", "PMI", "NounVerb", "ContentWord"])
def test_every_masker(build, name):
    model = build(f"masker: {{class_path: lit_ssl.text.{name}Masker, init_args: {{rate: 1}}}}")
    assert model.masker.rate == 1.0


def test_taggers(build):
    masker = "masker: {class_path: lit_ssl.text.%s, init_args: %s}"
    found = build(masker % ("NounVerbMasker", "{tagger: {class_path: lit_ssl.text.SpacyTagger}}"))
    assert isinstance(found.masker.tagger, SpacyTagger)
    found = build(masker % ("ContentWordMasker", "{stop_words: [a, the]}"))
    assert isinstance(found.masker.tagger, ContentWords)
    assert found.masker.tagger(["a", "dog"]) == [False, True]


def test_a_masker_of_your_own(build, monkeypatch):
    import sys
    from types import ModuleType

    module = ModuleType("my_project")
    module.First = First
    monkeypatch.setattr(First, "__module__", "my_project")
    monkeypatch.setitem(sys.modules, "my_project", module)
    model = build("masker: {class_path: my_project.First, init_args: {rate: 0.4}}")
    assert (type(model.masker), model.masker.rate) == (First, 0.4)
    inside = torch.tensor([[False, True, True]])
    assert model.masker(inside.long(), inside, None).tolist() == [[False, True, False]]
