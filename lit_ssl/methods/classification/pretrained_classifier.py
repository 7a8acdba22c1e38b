"""Any trained classifier under the Trainer, for evaluation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_ssl.checkpoints.classes import Names
from lit_ssl.checkpoints.files import read_checkpoint
from lit_ssl.checkpoints.modules import load_module
from lit_ssl.contracts.batches import inputs_of
from lit_ssl.errors import InputError, check_numbers
from lit_ssl.files import read_text
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.metrics import KnownAccuracy
from lit_ssl.models.classifiers import Classifier, load_classifier
from lit_ssl.numerals import whole_number
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.transforms.preprocessing import Preprocessing, vanilla_preprocessing

__all__ = ["PretrainedClassifier"]


class PretrainedClassifier(FromCheckpoint, pl.LightningModule):
    """A trained image classifier of timm, transformers, torchvision or this package, to evaluate.

    ``forward(images)`` and ``logits(images)`` give scores of the classes. Batches are ``(images,
    labels)``, with or without image numbers behind. It cannot be trained.

    Args:
        model: ``timm:NAME``, ``hf:NAME_OR_FOLDER``, ``torchvision:NAME[@WEIGHTS]``, the path of a
            checkpoint of this package (of ``LinearEvaluation``, its best head, or of any module
            with ``logits(images)``), or a module that maps images ``[B, C, H, W]`` to logits.
        pretrained: False leaves the weights random, for trying things out.
        model_kwargs: Passed to timm's or torchvision's constructor.
        class_map: For heads whose outputs are not the classes in their order: the position of each
            class's output. A list, a file with one position per line, or ``background_first`` for
            an additional first output.
        num_classes: Number of classes that the data have; ``lit-ssl`` takes it from the data
            module. A head of another width is refused unless ``class_map`` is given.

    Attributes:
        preprocessing: The transform that the model was made for; data modules read it.
        model_name: For reports.

    Raises:
        ValueError: If the model cannot be loaded, or its outputs are not the classes.
    """

    def __init__(
        self,
        model: str | nn.Module,
        pretrained: bool = True,
        model_kwargs: dict[str, Any] | None = None,
        class_map: str | list[int] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=not_plain(model=model))
        check_numbers(self.hparams)
        is_read = isinstance(model, str) and (pretrained or Path(model).suffix == ".ckpt")
        self.weights = model if is_read else None  # what reports name
        self.preprocessing: Preprocessing
        if isinstance(model, nn.Module):
            self.network: nn.Module = model
            outputs: int | None = getattr(model, "num_classes", None)
            self.preprocessing = getattr(model, "preprocessing", vanilla_preprocessing())
            self.model_name = type(model).__name__
        else:
            is_ours = Path(model).suffix == ".ckpt"
            found = _own(model) if is_ours else load_classifier(model, pretrained, model_kwargs)
            self.network, outputs = found.network, found.outputs
            self.preprocessing, self.model_name = found.preprocessing, found.name
        positions = None if class_map is None else _positions(class_map, num_classes, outputs)
        self.register_buffer("class_map", positions, persistent=False)
        width = outputs if positions is None else len(positions)
        if num_classes is not None and width is not None and width != num_classes:
            raise InputError(_misfit(self.model_name, width, num_classes))
        self.num_classes = num_classes or width
        self.accuracy = None if self.num_classes is None else KnownAccuracy(self.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes: ``[B, C, H, W]`` → ``[B, num_classes]``.

        Args:
            images: normalised, of a size that the network takes.
        """
        scores = getattr(self.network, "logits", self.network)(images)
        return scores if self.class_map is None else scores[:, self.class_map]

    logits = forward

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Log the accuracy; returns logits and labels."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Log the accuracy; returns logits and labels."""
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: Any, split: str) -> dict[str, Tensor]:
        images, labels = batch[0], batch[1]
        logits = self(images)
        if self.accuracy is not None:
            self.accuracy.update(logits, labels)
            self.log(f"{split}/acc1", self.accuracy, prog_bar=True, batch_size=len(labels))
        return {"logits": logits, "labels": labels}

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities ``[B, num_classes]`` of ``images`` or ``(images, labels, …)``."""
        images = inputs_of(batch)
        return self(images).float().softmax(dim=1)

    def configure_optimizers(self) -> None:
        """There is nothing to train."""


class _OwnLogits(nn.Module):
    """``logits`` of a module of this package, alone."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, outputs]``."""
        return self.module.logits(images)


class _BestHead(nn.Module):
    """The best of the heads that ``LinearEvaluation`` has trained, on its features."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.kind, index = divmod(module.best_head, module.per_kind)
        self.extract = module.extract
        self.head = module.heads[self.kind].select(index)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, outputs]``."""
        return self.head(self.extract(images)[self.kind])


def _own(path: str) -> Classifier:
    content = read_checkpoint(path)
    hparams = content.get("hyper_parameters", {})
    class_path = hparams.get("_class_path")
    if class_path is None:
        raise InputError(
            f"{path} was made in Python and does not name its class: load it there, and give the "
            "module itself as model"
        )
    names = Names(path, how="load it in Python, and give the module itself as model")
    module_class: Any = names.find(class_path)
    if not hasattr(module_class, "logits") and not hasattr(module_class, "best_head"):
        raise InputError(
            f"{path} holds a {class_path.rpartition('.')[2]}, which has no classifier "
            "(logits(images)): train one on its features first, with LinearEvaluation, or with "
            "ImageClassifier and freeze_backbone"
        )
    module = load_module(path, module_class, hparams)
    preprocessing = _of_data(content.get("datamodule_hyper_parameters", {}))
    name = f"{class_path.rpartition('.')[2]} ({Path(path).name})"
    network = _OwnLogits(module) if hasattr(module, "logits") else _BestHead(module)
    return Classifier(network, int(module.num_classes), preprocessing, name)


def _of_data(hparams: Mapping[str, Any]) -> Preprocessing:
    """The evaluation transform of the data module that a checkpoint was trained on."""
    transform = hparams.get("eval_transform") or {}
    options = transform.get("init_args", {}) if isinstance(transform, Mapping) else {}
    size = options.get("size") or hparams.get("image_size") or 224
    known = {name: hparams[name] for name in ("mean", "std") if hparams.get(name)}
    return vanilla_preprocessing(int(size), **known)


def _positions(class_map: str | Sequence[int], classes: int | None, outputs: int | None) -> Tensor:
    """The output of each class, int64 ``[num_classes]``."""
    if class_map == "background_first":
        if outputs is None:
            raise InputError("class_map background_first needs a model that tells its num_classes")
        return torch.arange(1, outputs)
    if isinstance(class_map, str):
        path = Path(class_map)
        if not path.is_file():
            raise InputError(f"class_map: no file {class_map} (one position per line)")
        words = read_text(path).split()
        numbers = [whole_number(word) for word in words]
        if not words or not all(n is not None and n >= 0 for n in numbers):
            raise InputError(f"class_map: {class_map} must hold one position, from 0, per line")
        class_map = [n for n in numbers if n is not None]
    positions = torch.tensor(list(class_map), dtype=torch.int64)
    outside = outputs is not None and (positions.min() < 0 or positions.max() >= outputs)
    if outside or (classes is not None and len(positions) != classes):
        each = "class" if classes is None else f"of {classes} classes"
        below = "" if outputs is None else f", below {outputs}"
        raise InputError(
            f"class_map has {len(positions)} positions from {int(positions.min())} to "
            f"{int(positions.max())}: expected one for each {each}{below}"
        )
    return positions


def _misfit(name: str, outputs: int, num_classes: int) -> str:
    extra = outputs == num_classes + 1
    hint = "background_first, if the first output is a background class, or " if extra else ""
    return (
        f"{name} has {outputs} outputs and the data have {num_classes} classes: its outputs are "
        f"not these classes. Give class_map: {hint}a file with the position of each class's output"
    )
