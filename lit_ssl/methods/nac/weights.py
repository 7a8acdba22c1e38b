"""Circuits of other runs: their weights, or the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_ssl.checkpoints.classes import Names
from lit_ssl.checkpoints.encoders import fit_weights
from lit_ssl.checkpoints.files import located, read_checkpoint, read_file
from lit_ssl.checkpoints.modules import load_module
from lit_ssl.checkpoints.prefixes import StateDict, all_tensors
from lit_ssl.errors import InputError
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit

__all__ = ["build_circuit", "load_circuit"]

_CLASSIFIER = "head.classifier."


def load_circuit(net: NeuralAttentiveCircuit, path: str | Path) -> str:
    """Load the weights of another circuit into this one, all but the classifier.

    Args:
        net: a [`NeuralAttentiveCircuit`][lit_ssl.models.NeuralAttentiveCircuit].
        path: checkpoint of a run with a circuit as ``net``, or the state dict of a circuit.

    Returns:
        What was read, in words.

    Raises:
        InputFileNotFoundError: if there is no such file.
        InputError: if it cannot be read, or its weights do not fit.
    """
    file, path = located(path)
    tensors = all_tensors(read_file(file))
    below = {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}
    state: StateDict = {
        k: v.clone()  # the file may be overwritten
        for k, v in (below or tensors).items()
        if not k.startswith(_CLASSIFIER)
    }
    own = {k: v for k, v in net.state_dict().items() if k.startswith(_CLASSIFIER)}
    mend = "give net the class and arguments of the run that wrote them"
    fit_weights(net, state | own, path, "net", mend)
    return f"{path} ({'checkpoint of a run' if below else 'state dict of a network'})"


def build_circuit(
    path: str | Path, instead: str = "build the network yourself and give it as net"
) -> tuple[NeuralAttentiveCircuit, Any]:
    """The circuit of a checkpoint, as its configuration says and with its weights.

    The file chooses no code: see ``lit_ssl.checkpoints.classes.Names``.

    Args:
        path: checkpoint of a run of the command line, with a circuit as ``net``.
        instead: what to do where it cannot be built, for messages.

    Returns:
        The network, and its configuration (class path and arguments).

    Raises:
        InputFileNotFoundError: if there is no such file.
        InputError: if it is of another kind, or the network was built in Python.
    """
    hparams = read_checkpoint(path).get("hyper_parameters", {})
    class_path, config = hparams.get("_class_path"), hparams.get("net")
    if not isinstance(class_path, str) or not isinstance(config, Mapping):
        raise InputError(
            f"{path} does not say how its network is built, since that was done in Python, or it "
            f"is not a checkpoint of NAC: {instead}"
        )
    names = Names(path, how=instead)
    names.check(hparams)
    module = load_module(path, names.find(class_path), hparams)
    if not isinstance(getattr(module, "net", None), NeuralAttentiveCircuit):
        raise InputError(f"{path} is a checkpoint of {class_path}, whose net is no circuit")
    return module.net, config
