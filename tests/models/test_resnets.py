"""Wide residual networks and heads against the reference code; backbones by name."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn

from lit_ssl.models import (
    MultipliedResNet50,
    PredictionHead,
    ProjectionHead,
    WideResNet,
    create_backbone,
    resnet50w2,
    resnet50w4,
    wide_resnet28_2,
)


class Stack(nn.Module):
    """Network and heads under the names of the reference, in the order of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        backbone = wide_resnet28_2()
        for name, part in backbone.named_children():
            self.add_module(name, part)
        self.fc = ProjectionHead(128, 128, 128, activation=nn.ReLU, init_std=None)
        self.pred = PredictionHead(128)
        self.backbone = [backbone]  # in a list: its parts are registered already

    def forward(self, x):
        h = self.fc(self.backbone[0](x))
        return h, self.pred(h)


@pytest.fixture
def stack():
    """Weights by the rule of the golden file."""
    module = Stack()
    for k, (name, p) in enumerate(module.named_parameters()):
        i = torch.arange(p.numel(), dtype=torch.float64)
        v = torch.sin(0.37 * i * (1 + k % 7) + 0.11 * k)
        if p.ndim == 1:
            v = 1 + 0.1 * v if name.endswith("weight") else 0.1 * v
        else:
            v = v * math.sqrt(2 / p[0].numel())
        p.data.copy_(v.view_as(p))
    return module


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_stack(stack, data):
    """What the golden file holds, by name."""
    results = {}
    # One batch per image size, the small ones last.
    (h32, z32), (h18, z18) = stack(data["x32"]), stack(data["x18"])
    h, z = torch.cat([h32, h18]), torch.cat([z32, z18])
    results |= {"h_train": h.detach(), "z_train": z.detach()}
    results["bn1_running_mean"] = stack.bn1.running_mean.clone()
    results["bn1_running_var"] = stack.bn1.running_var.clone()
    results["l1_bn_running_mean"] = stack.layer1[1].bn1.running_mean.clone()
    index = torch.arange(h.numel(), dtype=torch.float32).view_as(h)
    loss = (h * torch.cos(0.1 * index)).mean() + 0.1 * z.square().mean()
    loss.backward()
    results["loss"] = loss.detach()
    results["grad_norms"] = torch.stack([p.grad.norm() for p in stack.parameters()])
    stack.eval()
    with torch.no_grad():
        outputs = [stack(data["x32"]), stack(data["x18"])]
    for values, key in zip(zip(*outputs, strict=True), ("h_eval", "z_eval"), strict=True):
        results[key] = torch.cat(values)
    return results


def test_wrn28_2_and_heads_equal_the_reference(golden, stack):
    data = golden("paws/wrn28_2")
    assert sum(1 for _ in stack.parameters()) == len(data["grad_norms"]) == 124
    # The weights of the file amplify rounding errors by a factor of 10,000: another order of
    # summation moves features by 0.1 %, and gradients by more. Another network moves them by 100 %.
    results = run_stack(stack, data)
    for key in ("bn1_running_mean", "bn1_running_var", "l1_bn_running_mean", "h_eval", "z_eval"):
        error = (results[key] - data[key]).norm() / data[key].norm()
        assert error < 0.01, key
    assert results["loss"].item() == pytest.approx(data["loss"].item(), rel=0.05)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="other kernels round in another way, and the weights of the file amplify that",
)
def test_wrn28_2_and_heads_equal_the_reference_on_a_machine_like_its_own(golden, stack, one_thread):
    data = golden("paws/wrn28_2")
    for key, value in run_stack(stack, data).items():
        # by norm: what is small among the features moves by more between makers of processors
        assert (value - data[key]).norm() / data[key].norm() < 1e-4, key


def test_sizes_of_the_wide_networks():
    def size(module):
        return sum(p.numel() for p in module.parameters())

    assert size(wide_resnet28_2()) == 1_468_352
    with torch.device("meta"):
        assert round(size(resnet50w2()) / 1e6, 1) == 93.9
        assert round(size(resnet50w4()) / 1e6, 1) == 375.4
        assert resnet50w4().num_features == 8192
    with pytest.raises(ValueError, match="depth of a WideResNet is 10, 16, 22, 28"):
        WideResNet(depth=27)


def test_width_one_is_torchvisions_resnet50():
    reference = torchvision.models.resnet50()
    reference.fc = nn.Identity()
    network = MultipliedResNet50(1)
    network.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network.eval()(images), reference.eval()(images))


def test_backbones_by_name():
    network, width = create_backbone("resnet18", {"in_chans": 1})
    assert (width, network(torch.zeros(2, 1, 32, 32)).shape) == (512, (2, 512))
    assert all(block.bn2.weight.mean() == 1 for block in network.layer1)  # residuals are on
    off, _ = create_backbone("resnet18", {"zero_init_last": True})
    assert all(block.bn2.weight.mean() == 0 for block in off.layer1)
    assert create_backbone("wide_resnet28_2", {"in_chans": 1})[1] == 128
    mobile, width = create_backbone("mobilenetv3_small_050")  # has a hidden layer in its head
    assert mobile.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, width)
    assert create_backbone(network) == (network, 512)
    with pytest.raises(ValueError, match=r"no backbone 'resnet50w3'.*resnet50w2, resnet50w4"):
        create_backbone("resnet50w3")
    with pytest.raises(ValueError, match="neither embed_dim nor num_features"):
        create_backbone(nn.Identity())
    with pytest.raises(ValueError, match="backbone_kwargs belong to"):
        create_backbone(network, {"in_chans": 1})


def test_head_initialisation():
    torch_init = ProjectionHead(256, 64, 8, init_std=None)
    assert torch_init.fc1.weight.abs().max() <= 1 / 16
    assert torch_init.fc1.bias.abs().max() > 0
    assert ProjectionHead(256, 64, 8).fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    head = PredictionHead(64)
    assert head.fc1.out_features == 16
    assert list(dict(head.named_children())) == ["bn1", "fc1", "bn2", "act", "fc2"]
