"""The benchmark of circuits: both ways compute the same, and its tables are printed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_ssl.models.nac.attention import Modules
from lit_ssl.models.nac.read_in import ReadIn

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "nac_circuit.py"
SMALL = shlex.split(
    "--modules 6 --inputs 3 --outputs 4 --depth 1 --state-dim 8 --heads 2 --tokens 5 --token-dim 7 "
    "--image-size 8 --classes 3 --batch 2 --parts 2 6 --repeats 1 --warmup 0"
)


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("nac_circuit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("qv_bias", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_the_plain_read_in_is_the_absorbed_one(benchmark, heads, qv_bias):
    ours = ReadIn(7, 10, 4, heads, 5, nn.Identity(), qv_bias=qv_bias).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    plain = benchmark.plain_copy(ours)
    states, tokens = torch.randn(2, 6, 10).double(), torch.randn(2, 9, 7).double()
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    found = []
    for read_in in (ours, plain):
        codes = torch.linspace(-1, 2, 24).double().view(6, 4).requires_grad_()
        out = read_in.read(Modules(states, codes), tokens, mask)
        out.square().sum().backward()
        found.append([out, codes.grad, *(p.grad for p in read_in.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_its_tables_are_printed(benchmark, capsys):
    threads = torch.get_num_threads()
    benchmark.main(SMALL)
    torch.set_num_threads(threads)
    text = capsys.readouterr().out
    rows = re.findall(
        r"^ *(from_input|persistent) +(\d+) +(\d+) +(\d+) +[\d.]+ +[\d.]+$", text, re.M
    )
    # two batch sizes, three cases, the whole circuit and two smaller ones
    assert len(rows) == 2 * 3 * 3
    assert [row[1:3] for row in rows[:6]] == [
        ("4", "6"), ("4", "3"), ("4", "1"), ("4", "6"), ("1", "3"), ("1", "1"),
    ]  # fmt: skip
    assert len(re.findall(r"^ +[36] +[12] +(?:forward|backward) ", text, re.M)) == 8
    kinds = re.findall(r"^(?:from_input|persistent) +(evaluation|forward|backward) ", text, re.M)
    assert len(kinds) == 2 * 2 * 3
