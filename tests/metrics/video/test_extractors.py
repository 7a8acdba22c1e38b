"""Feature extractors: modules, files of TorchScript and exported programs, and what is neither."""

from __future__ import annotations

import copy
import hashlib
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_ssl.errors import InputError
from lit_ssl.metrics import load_extractor

sys.path.insert(0, str(Path(__file__).parent))
from clip_networks import LikeStyleGANV, Small, clips

VIDEO = clips(3).transpose(1, 2)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Both kinds of file, each with the network `Small`, and a script like stylegan-v's."""
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but published files are such
        torch.jit.save(torch.jit.script(Small()), folder / "script.pt")
        torch.jit.save(torch.jit.script(LikeStyleGANV()), folder / "i3d_torchscript.pt")
        dynamic = {"video": {0: torch.export.Dim("batch", min=1, max=64)}}
        program = torch.export.export(Small(), (VIDEO,), dynamic_shapes=dynamic)
        torch.export.save(program, folder / "exported.pt2")
    return folder


@pytest.mark.parametrize("name", ["script.pt", "exported.pt2"])
def test_files_give_what_the_module_gives(files, name):
    extractor = load_extractor(files / name)
    expected = Small()(VIDEO)
    torch.testing.assert_close(extractor(VIDEO), expected)
    content = (files / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert extractor.card() == {"name": name, "sha256": digest, "called_with": {}}
    for again in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        torch.testing.assert_close(again(VIDEO[:1]), expected[:1])


def test_a_script_of_stylegan_v_resizes_and_scales_itself(files):
    extractor = load_extractor(str(files / "i3d_torchscript.pt"))
    features = extractor(VIDEO)
    assert list(extractor.card()["called_with"]) == ["rescale", "resize", "return_features"]
    torch.testing.assert_close(features, VIDEO.float().mean(dim=(2, 3, 4)) / 127.5 - 1)


def test_a_module_is_left_as_it_was():
    network = nn.Sequential(Small(), nn.BatchNorm1d(6), nn.Dropout(0.9))
    network[2].eval()
    network[1].running_mean.fill_(2.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    extractor = load_extractor(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = extractor(VIDEO)
    torch.testing.assert_close(features, (Small()(VIDEO) - 2) / (1 + 1e-5) ** 0.5)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert [m.training for m in network] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert extractor.card() == {"name": "Sequential", "sha256": None, "called_with": {}}


class Convolves(nn.Module):
    """Takes floats, and at least three frames."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 6, 3)

    def forward(self, video):
        return self.conv(video).mean(dim=(2, 3, 4))


def test_what_a_file_cannot_take_is_one_line(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Convolves()), tmp_path / "script.pt")
        program = torch.export.export(Small(), (VIDEO,))
        torch.export.save(program, tmp_path / "three.pt2")
    script, three = (load_extractor(tmp_path / name) for name in ("script.pt", "three.pt2"))
    assert script(VIDEO.float()).shape == (3, 6)
    for extractor, video, message in (
        (script, VIDEO, r"script.pt cannot take clips torch.uint8 .* with tats it gets floats$"),
        (script, VIDEO[:, :, :2].float(), r"\[3, 3, 2, 7, 9\] \(.*Kernel size can't be greater"),
        (three, VIDEO[:1], r"three.pt2 .* it has to take any number of clips"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            extractor(video)
        assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="Input type") as caught:  # a module is the user's own
        load_extractor(Convolves())(VIDEO)
    assert not isinstance(caught.value, InputError)


class Gives(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, video):
        return self.outputs


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (torch.rand(3, 6, 1, 1, 1), r"gives torch.float32 \[3, 6, 1, 1, 1\] for \[3, 3, 4, 7, 9\]"),
        (torch.rand(1, 6), r"expected floats \[3, F\]"),
        (torch.ones(3, 6).long(), "gives torch.int64"),
        ((torch.rand(3, 6),), r"gives tuple, expected a tensor \[B, F\]"),
    ],
)
def test_other_outputs_are_refused(outputs, message):
    with pytest.raises(InputError, match=message):
        load_extractor(Gives(outputs))(VIDEO)


class Runs:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


def test_files_that_hold_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Small().state_dict(), "weights.pt")
    Path("text.pt").write_text("hello")
    torch.save(Runs(), "evil.pt")
    Path("old.pt").write_bytes(pickle.dumps(Runs()))
    for name, message in (
        ("weights.pt", "weights.pt holds weights only, no network: save it by torch.jit.save"),
        ("evil.pt", "holds weights only, no network"),
        ("old.pt", "old.pt holds no network"),
        ("text.pt", "text.pt holds no network"),
        ("missing.pt", "no feature extractor at missing.pt; for FVD .*Nothing is downloaded"),
    ):
        with pytest.raises(InputError, match=message):
            load_extractor(name)
    assert not Path("it_ran").exists()
    with pytest.raises(InputError, match="a file or a module, not int"):
        load_extractor(3)


def test_a_damaged_file(files, tmp_path):
    broken = zipfile.ZipFile(tmp_path / "broken.pt", "w")
    with zipfile.ZipFile(files / "script.pt") as source, broken as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, b"?" if name.endswith("data.pkl") else content)
    with pytest.raises(InputError, match=r"broken.pt is TorchScript that cannot be loaded here"):
        load_extractor(tmp_path / "broken.pt")
