"""Networks that turn clips into features: a module, or a file that holds a whole network.

TorchScript and exported files are programs. They are not pickles, but what they compute is up to
whoever wrote them: load files of people that you trust, and compare the hash on the card.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_ssl.errors import InputError, InputFileNotFoundError, InputTypeError

__all__ = ["Extractor", "load_extractor"]

# arguments of the TorchScript files of stylegan-v: it resizes and scales, and stops before softmax
_SCRIPT_OPTIONS = {"rescale": True, "resize": True, "return_features": True}
_WHY_BYTES = (
    ", as uint8: with protocol stylegan_v the network scales them itself; with tats it gets floats"
)
_USUAL_PLACE = (
    "for FVD it is usually i3d_torchscript.pt, for the Inception Score c3d_ucf101.pt, which the"
    " code of universome/stylegan-v (src/metrics) points to. Nothing is downloaded"
)


class Extractor:
    """A network that a metric calls but does not own: it is in no state dict and is not trained.

    It runs in evaluation mode, without gradients, outside of autocast, and follows the device of
    what it gets.

    Args:
        network: which gives the features.
        name: file name, or class of the module.
        path: the file; None for a module.
        sha256: of the file; None for a module.

    Attributes:
        name: file name, or class of the module.
        sha256: of the file; None for a module.
    """

    def __init__(
        self, network: nn.Module, name: str, path: Path | None = None, sha256: str | None = None
    ) -> None:
        self.network = network
        self.name = name
        self.path = path
        self.sha256 = sha256
        self.options = _options(network)
        self.device: torch.device | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Features of clips.

        Args:
            inputs: ``[B, 3, T, H, W]``, uint8, or float where the protocol prepares them.

        Returns:
            float ``[B, F]``.

        Raises:
            ValueError: The network gives something else, which the message describes.
        """
        if self.device != inputs.device:
            self.network.to(inputs.device)
            self.device = inputs.device
        off = torch.autocast(device_type=inputs.device.type, enabled=False)
        with torch.no_grad(), off, _evaluating(self.network, self.path is None):
            features = self._features(inputs)
        if not isinstance(features, Tensor):
            kind = type(features).__name__
            raise InputTypeError(f"{self.name} gives {kind}, expected a tensor [B, F]")
        if features.ndim != 2 or len(features) != len(inputs) or not features.is_floating_point():
            raise InputError(
                f"{self.name} gives {features.dtype} {list(features.shape)} for"
                f" {list(inputs.shape)}, expected floats [{len(inputs)}, F]: one row of features"
                " for each clip"
            )
        return features

    def _features(self, inputs: Tensor) -> Any:
        try:
            return self.network(inputs, **self.options)
        except (RuntimeError, AssertionError, IndexError) as error:
            if self.path is None or isinstance(error, torch.OutOfMemoryError):
                raise  # of a module its own traceback says more
            why = (str(error).strip() or type(error).__name__).splitlines()[-1]
            hint = _WHY_BYTES if inputs.dtype == torch.uint8 and not self.options else ""
            raise InputError(
                f"{self.name} cannot take clips {inputs.dtype} {list(inputs.shape)} ({why}); it has"
                f" to take any number of clips, of this length and size{hint}"
            ) from error

    def __reduce__(self) -> tuple[Callable[..., Extractor], tuple[Any, ...]]:
        """Copies of a file's network read the file again, for TorchScript cannot be pickled."""
        if self.path is None:
            return Extractor, (self.network, self.name)
        return load_extractor, (self.path,)

    def card(self) -> dict[str, Any]:
        """Name, hash of the file, and with which arguments it is called."""
        return {"name": self.name, "sha256": self.sha256, "called_with": self.options}


def load_extractor(source: str | Path | nn.Module | Extractor) -> Extractor:
    """Return the network of a score.

    Args:
        source: A module that maps clips ``[B, 3, T, H, W]`` to ``[B, F]``; or a file with one, of
            ``torch.jit.save`` or ``torch.export.save``. Files are programs: see the file's
            docstring. One with the arguments ``rescale``, ``resize`` and ``return_features`` gets
            them as True.

    Raises:
        ValueError: There is no such file, or weights alone or something else is in it.
    """
    if isinstance(source, Extractor):
        return source
    if isinstance(source, nn.Module):
        return Extractor(source, type(source).__name__)
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise InputTypeError(f"a feature extractor is a file or a module, not {kind}")
    path = Path(source)
    if not path.is_file():
        raise InputFileNotFoundError(f"no feature extractor at {path}; {_USUAL_PLACE}")
    network = _read(path)
    return Extractor(network, path.name, path.absolute(), _sha256(path))


def _read(path: Path) -> nn.Module:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()] + archive.namelist()
    except zipfile.BadZipFile:
        names = []
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        read, kind = _read_script, "TorchScript"
    elif any("exported_program" in name or name.startswith("models/") for name in names):
        read, kind = _read_exported, "an exported program"
    else:
        weights = "weights only, " if "data.pkl" in names else ""
        raise InputError(
            f"{path} holds {weights}no network: save it by torch.jit.save(torch.jit.script(net),"
            f" ...) or torch.export.save, or give the module; {_USUAL_PLACE}"
        )
    try:
        return read(path)
    except Exception as error:  # of any kind, for such files are of any version
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} is {kind} that cannot be loaded here ({why})") from error


def _read_script(path: Path) -> nn.Module:
    with warnings.catch_warnings():  # the published files are of this kind, whatever torch advises
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        network: nn.Module = torch.jit.load(str(path), map_location="cpu")
    return network.eval()


def _read_exported(path: Path) -> nn.Module:
    program: nn.Module = torch.export.load(str(path)).module()
    return program


def _options(network: nn.Module) -> dict[str, bool]:
    """What stylegan-v's files are called with, where the network knows these arguments."""
    schema = getattr(network.forward, "schema", None)  # TorchScript has one
    known = {argument.name for argument in schema.arguments} if schema is not None else set()
    return dict(_SCRIPT_OPTIONS) if known >= set(_SCRIPT_OPTIONS) else {}


@contextmanager
def _evaluating(network: nn.Module, is_live: bool) -> Iterator[None]:
    """A module that somebody else uses too is left in the modes that it had."""
    if not is_live:
        yield
        return
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
