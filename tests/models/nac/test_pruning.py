"""Smaller circuits are exactly what they claim to be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.models import KernelOptions

sys.path.insert(0, str(Path(__file__).parent))
from small import circuit, tokens

VARIANTS = [
    {"wiring": "from_input"},
    {"wiring": "persistent", "num_input_modules": 2},
    {"wiring": "from_input", "layer_codes": True, "initial_state": "seeder"},
    {"wiring": "persistent", "share_depth": True, "initial_state": "learned"},
    {"graph": False, "modulation": "none", "initial_state": "learned"},
    {"share_depth": True, "layer_codes": True},
]


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def options(request):
    return request.param


def test_all_modules_are_the_same_network_bit_for_bit(options):
    net = circuit(**options).eval()
    with torch.no_grad():
        assert torch.equal(net.prune(range(7))(tokens()).logits, net(tokens()).logits)


def test_a_few_modules_answer_as_in_the_whole_with_the_others_masked(options):
    net, keep = circuit(**options).eval(), [1, 2, 6]
    small = net.prune(torch.tensor([6, 1, 2]))
    assert small.kept_modules.tolist() == keep
    with torch.no_grad():
        expected = net(tokens(), keep=keep).logits
        assert torch.equal(small(tokens()).logits, expected)
        for block in [*net.propagators, net.read_out]:
            block.attention.bias = masked(block.attention, keep)
        torch.testing.assert_close(net(tokens()).logits, expected, rtol=1e-6, atol=1e-6)
    assert len(net.kept_modules) == 7


def masked(attention, keep):
    """The bias of an attention in which nobody hears the modules that are left out."""
    whole = type(attention).bias

    def bias(receivers, senders, uniforms=None):
        found = whole(attention, receivers, senders, uniforms)
        count = senders.states.shape[1]
        found = torch.zeros(1, receivers.states.shape[1], count) if found is None else found
        gone = torch.ones(count, dtype=torch.bool)
        gone[: count - 7] = False
        gone[torch.tensor(keep) + count - 7] = False
        return found.masked_fill(gone, -torch.inf)

    return bias


def test_outputs_are_pruned_too_and_twice_pruned_keeps_the_first_names(options):
    net = circuit(**options).eval()
    small = net.prune([0, 3, 4, 5], outputs=[2]).prune([1, 3])
    assert small.kept_modules.tolist() == [3, 5]
    assert small.kept_outputs.tolist() == [2]
    with torch.no_grad():
        assert small(tokens()).logits.shape == (3, 5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


def test_weights_of_a_pruned_network_load_into_one_of_its_size(options):
    small = circuit(**options).prune([0, 2, 5], outputs=[0, 1]).eval()
    fresh = circuit(seed=9, **{**options, "num_modules": 3, "num_output_modules": 2}).eval()
    if options.get("num_input_modules") is None and options.get("wiring") == "persistent":
        sizes = {"num_modules": 3, "num_output_modules": 2, "num_input_modules": 1}
        fresh = circuit(seed=9, **{**options, **sizes}).eval()
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert fresh.kept_modules.tolist() == [0, 2, 5]
    with torch.no_grad():
        assert torch.equal(fresh(tokens()).logits, small(tokens()).logits)


def test_a_pruned_network_trains_on(options):
    small = circuit(**options).prune([0, 2, 5]).train()
    small(tokens()).logits.sum().backward()
    assert [n for n, p in small.named_parameters() if p.requires_grad and p.grad is None] == []


def test_folding_changes_no_answer_and_ends_with_training(options):
    net = circuit(**options).eval()
    with torch.no_grad():
        expected = net(tokens()).logits
        assert net.fold() is net
        torch.testing.assert_close(net(tokens()).logits, expected, rtol=1e-6, atol=1e-6)
        if net.is_folded:
            with pytest.raises(InputError, match="prune"):
                net(tokens(), keep=[0])
        for table in net.codes.values():
            table.add_(1.0)
        net.train().eval()
        assert not net.is_folded
        if len(net.codes):
            assert not torch.allclose(net(tokens()).logits, expected)
        net.fold().load_state_dict(net.state_dict())
        assert not net.is_folded


def test_a_pruned_network_has_the_truncation_of_evaluation():
    net = circuit(kernel=KernelOptions(eval_truncation=0.9)).eval()
    assert (net.link_probabilities() > 0).all()
    small = net.prune(range(7))
    assert not (small.link_probabilities() > 0).all()
    assert small.link_probabilities().isfinite().all()


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        ([], "at least one"),
        ([7], "module 7: there are 7"),
        ([-1], "module -1"),
        ([1, 1], "twice"),
        (["a"], "list of module numbers"),
        ([0.5], "list of module numbers"),
        ([[0]], "list of module numbers"),
        (torch.ones(7, dtype=torch.bool), "list of module numbers"),
    ],
)
def test_wrong_lists_are_one_clear_error(keep, match):
    net = circuit()
    with pytest.raises(InputError, match=match):
        net.prune(keep)
    with pytest.raises(InputError, match=match):
        net(tokens(), keep=keep)
    outputs = [3] if list(keep) == [7] else keep
    match = match.replace("module", "output module").replace("7: there are 7", "3: there are 3")
    with pytest.raises(InputError, match=match):
        net.prune([0], outputs=outputs)


def test_no_mediator_at_all():
    """The gate of a sweep: where the read-out hears the inputs, it can do without."""
    net = circuit(wiring="persistent")
    assert net(tokens(), keep=[]).logits.isfinite().all()
    with pytest.raises(InputError, match="at least one"):
        circuit(wiring="persistent", input_to_output=False)(tokens(), keep=[])


def test_a_folded_network_is_pruned_to_one_that_is_not():
    net = circuit().eval()
    expected = net(tokens(), keep=[0, 2, 5]).logits
    small = net.fold().prune([0, 2, 5])
    assert net.is_folded
    assert not small.is_folded
    torch.testing.assert_close(small(tokens()).logits, expected)


@pytest.mark.parametrize("keep", [3, torch.tensor(3), None])
def test_what_is_no_list_is_one_clear_error(keep):
    with pytest.raises(InputError, match="must be a list of module numbers"):
        circuit().prune(keep)


def test_the_read_out_has_a_truncation_of_its_own_after_pruning():
    last = KernelOptions(eval_truncation=0.6, stochastic=False)
    net = circuit(kernel=KernelOptions(eval_truncation=0.9), read_out_kernel=last).eval()
    small = net.prune(range(7))
    assert net.read_out.attention.kernel.truncation is None
    assert small.read_out.attention.kernel.truncation == 0.6
    assert [small.kernel(depth).truncation for depth in range(2)] == [0.9, 0.9]


@pytest.mark.parametrize("wiring", ["from_input", "persistent"])
def test_a_pruned_and_folded_network_is_exported_by_torch(wiring):
    small = circuit(wiring=wiring, pooling="gumbel").prune([0, 2, 5]).fold()
    program = torch.export.export(small, (tokens(),))
    torch.testing.assert_close(program.module()(tokens()).logits, small(tokens()).logits)
