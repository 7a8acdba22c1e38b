"""The forms of a batch, and their parts; docs/design.md, "Batches", describes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from lit_ssl.errors import InputError, InputTypeError, listed

__all__ = [
    "Batch",
    "check_labels",
    "describe",
    "first_view",
    "grouped_batch",
    "inputs_of",
    "labelled_batch",
    "labelled_clips",
    "labelled_inputs",
    "num_samples",
    "parts_of",
    "refuse_clips",
    "scored_inputs",
    "split_batch",
    "two_stream_batch",
    "view_major",
]


class Batch(NamedTuple):
    """The parts of a batch.

    Attributes:
        inputs: Images ``[B, C, H, W]``, videos ``[B, T, C, H, W]``, points ``[B, P, 3]``, a list
            of views ``[B, count, C, H, W]``, or a dictionary of tensors.
        labels: int64 ``[B]``, −1 where unknown; None where the batch has none.
        extra: Groups or image numbers, or scores float ``[B, A]`` in place of labels; None where
            the batch has none.
    """

    inputs: Any
    labels: Tensor | None = None
    extra: Tensor | None = None


def parts_of(batch: Any) -> Batch:
    """Take a batch of any form apart.

    Args:
        batch: ``inputs``, ``(inputs, labels)``, ``(inputs, labels, extra)`` or, with inputs in a
            dictionary, ``(inputs, scores)``; or a dictionary whose entry ``unlabelled`` is one of
            these.

    Returns:
        Its parts; of another form, inputs of None.
    """
    if isinstance(batch, dict) and "unlabelled" in batch:
        return parts_of(batch["unlabelled"])
    if isinstance(batch, Tensor):
        return Batch(batch)
    if isinstance(batch, list | tuple) and len(batch) > 0:
        has_labels = len(batch) in (2, 3) and isinstance(batch[1], Tensor) and batch[1].ndim == 1
        if has_labels and isinstance(batch[0], Tensor | dict):
            return Batch(*batch)
        if has_labels and isinstance(batch[0], list | tuple):
            return Batch(list(batch[0]), *batch[1:])
        if all(isinstance(view, Tensor) for view in batch):
            return Batch(list(batch))
        if _has_scores(batch):
            return Batch(batch[0], None, batch[1])
    return Batch(None)


def split_batch(batch: Any) -> tuple[Tensor | list[Tensor], Tensor | None]:
    """Images or views, and labels, of a batch of any form.

    Args:
        batch: what a loader gave.

    Returns:
        Images ``[B, C, H, W]``, or a list of views ``[B, count, C, H, W]``; labels ``[B]``, None
        where the batch has none.

    Raises:
        TypeError: If the batch has another form.
    """
    inputs, labels, _ = parts_of(batch)
    if inputs is None:
        raise InputTypeError(
            f"cannot read a batch of type {describe(batch)}: expected (images, labels) with images "
            "[B, C, H, W] and labels [B], or (views, labels) with a list of [B, count, C, H, W]; "
            "see docs/design.md, 'Batches'"
        )
    return inputs, labels


def inputs_of(batch: Any) -> Any:
    """The inputs of a batch, whatever comes with them.

    Args:
        batch: what a loader gave: ``(inputs, …)``, or the inputs alone.
    """
    return batch[0] if isinstance(batch, list | tuple) else batch


def refuse_clips(inputs: Any, who: str) -> None:
    """Raise where a network that takes images is given clips ``[B, T, C, H, W]``.

    Args:
        inputs: Of a batch.
        who: Name of the method, for the message.

    Raises:
        ValueError: They are clips.
    """
    if isinstance(inputs, Tensor) and inputs.ndim == 5:
        raise InputError(
            f"{who} takes images, got clips {describe(inputs)}: take the frames of videos as "
            "images with VideoFramesDataModule"
        )


def labelled_batch(
    batch: Any, num_classes: int | None = None, look: bool = False
) -> tuple[Tensor, Tensor]:
    """Images ``[B, C, H, W]`` and labels ``[B]`` of a batch.

    Args:
        batch: Of any form.
        num_classes: Check the labels, as ``check_labels`` does.
        look: See there.

    Raises:
        ValueError: If it is another kind of batch, or its labels lie out of range.
    """
    images, labels, _ = parts_of(batch)
    if isinstance(images, Tensor) and images.ndim == 4 and labels is not None:
        if num_classes is not None:
            check_labels(labels, num_classes, look)
        return images, labels
    if isinstance(images, Tensor) and images.ndim == 5 and labels is not None:
        raise InputError(
            f"trains on images, got {describe(batch)}: for videos use SupervisedVideo, or take "
            "their frames as images with VideoFramesDataModule"
        )
    raise InputError(
        "trains on labelled batches (images [B, C, H, W], labels [B]): leave out the data "
        "module's train_transform or give it a SingleView"
    )


def labelled_clips(batch: Any, num_classes: int, look: bool = False) -> tuple[Tensor, Tensor]:
    """Videos ``[B, T, C, H, W]`` and labels ``[B]`` of a batch.

    Args:
        batch: Of any form.
        num_classes: Check the labels, as ``check_labels`` does.
        look: See there.

    Raises:
        ValueError: If it is another kind of batch, or its labels lie out of range.
    """
    videos, labels, _ = parts_of(batch)
    if isinstance(videos, Tensor) and videos.ndim == 5 and labels is not None:
        check_labels(labels, num_classes, look)
        return videos, labels
    raise InputError(
        "needs batches of clips (videos [B, T, C, H, W], labels [B]), such as those of "
        f"UCF101DataModule or VideoFolderDataModule, got {describe(batch)}"
    )


def labelled_inputs(batch: Any, num_classes: int, look: bool = False) -> tuple[Any, Tensor]:
    """Inputs of any kind and labels ``[B]`` of a batch; the inputs are a tensor or a dictionary.

    Args:
        batch: Of any form.
        num_classes: Check the labels, as ``check_labels`` does.
        look: See there.

    Raises:
        ValueError: If it has no labels or holds views, or its labels lie out of range.
    """
    inputs, labels, _ = parts_of(batch)
    if isinstance(inputs, Tensor | dict) and labels is not None:
        check_labels(labels, num_classes, look)
        return inputs, labels
    raise InputError(
        "needs labelled batches (inputs, labels [B]), with inputs a tensor or a dictionary of "
        f"tensors, got {describe(batch)}: leave out the data module's train_transform or give it a "
        "SingleView"
    )


def scored_inputs(batch: Any, num_classes: int, look: bool = False) -> tuple[Any, Tensor]:
    """Inputs and scores of all answers of a batch of questions.

    Args:
        batch: ``(inputs, scores)``: a dictionary of tensors, and what each answer is worth, in
            [0, 1], floats ``[B, num_classes]``.
        num_classes: Number of answers.
        look: Check the scores on accelerators, too, where the host has to wait.

    Raises:
        ValueError: If it is of another form, or a score lies outside [0, 1].
    """
    if not isinstance(batch, list | tuple) or len(batch) < 2 or not isinstance(batch[0], dict):
        raise InputError(
            "needs batches (inputs, scores [B, num_classes]) with a dictionary of tensors, such as "
            f"those of VQAv2DataModule, got {describe(batch)}"
        )
    inputs, scores = batch[:2]
    of_shape = isinstance(scores, Tensor) and scores.shape[1:] == (num_classes,)
    if not of_shape or not scores.is_floating_point():
        kind = f" of {scores.dtype}" if isinstance(scores, Tensor) else ""
        raise InputError(
            f"needs what each of {num_classes} answers is worth, floats [B, {num_classes}], got "
            f"{describe(scores)}{kind}: do the data have num_classes answers?"
        )
    if len(scores) and (look or scores.device.type == "cpu"):
        low, high = (float(bound) for bound in scores.aminmax())
        if not 0 <= low <= high <= 1:
            raise InputError(f"got scores from {low:g} to {high:g}: they must lie in [0, 1]")
    return inputs, scores


def _has_scores(batch: list[Any] | tuple[Any, ...]) -> bool:
    if len(batch) != 2 or not isinstance(batch[0], dict) or not isinstance(batch[1], Tensor):
        return False
    return batch[1].ndim == 2 and batch[1].is_floating_point()


def check_labels(
    labels: Tensor, num_classes: int, look: bool = False, unknown: bool = True
) -> None:
    """Check that labels are classes, before a loss fails on them in its own words.

    Args:
        labels: ``[B]``.
        num_classes: C.
        look: Also on accelerators, where the host has to wait.
        unknown: Whether −1 may stand for an unknown class.

    Raises:
        ValueError: If one lies outside ``[0, C)``.
    """
    if not len(labels) or not (look or labels.device.type == "cpu"):
        return
    low, high = (int(bound) for bound in labels.aminmax())
    if high >= num_classes or low < (-1 if unknown else 0):
        raise InputError(
            f"got labels from {low} to {high} where num_classes is {num_classes}: labels must lie "
            f"in [0, num_classes){', or be −1 where unknown' if unknown else ''}"
        )


def grouped_batch(batch: Any) -> tuple[Any, Tensor, Tensor]:
    """Inputs, labels ``[B]`` and groups of a batch.

    Args:
        batch: what a loader gave.

    Raises:
        ValueError: If it is another kind of batch.
    """
    inputs, labels, groups = parts_of(batch)
    if labels is not None and isinstance(groups, Tensor):
        return inputs, labels, groups
    raise InputError(
        "needs batches (inputs, labels [B], groups [B]) of a data module with groups, got "
        f"{describe(batch)}"
    )


def two_stream_batch(batch: Any) -> tuple[list[Tensor], Tensor, Tensor]:
    """Take a batch of two streams apart.

    Args:
        batch: See [`PAWS`][lit_ssl.methods.PAWS].

    Returns:
        Unlabelled views, one ``[B, count, C, H, W]`` per size; support views ``[M, V, C, H, W]``;
        their labels ``[M]``.

    Raises:
        ValueError: If the batch is of another form.
    """
    refuse_clips(parts_of(batch).inputs, "it")
    problem = f"a batch of type {type(batch).__name__}"
    if isinstance(batch, dict) and {"unlabelled", "support"} <= set(batch):
        views = parts_of(batch).inputs
        problem = "no two large crops first in the unlabelled views"
        if isinstance(views, list) and views[0].ndim == 5 and views[0].shape[1] == 2:
            images, labels = batch["support"]
            images = images[0] if isinstance(images, list | tuple) else images
            return views, images if images.ndim == 5 else images.unsqueeze(1), labels
    raise InputError(
        f"got {problem}: it trains on dictionaries with `unlabelled`: views [B, count, C, H, "
        "W], count 2 for the first crop size, and `support`: (views, labels). Use "
        "SemiSupervisedDataModule with a data set whose train_transform is a MultiCrop"
    )


def view_major(views: Tensor) -> Tensor:
    """``[B, V, …]`` → ``[V * B, …]``.

    Args:
        views: ``[B, V, …]``: V views of each of B samples.
    """
    return views.transpose(0, 1).flatten(0, 1)


def first_view(inputs: Tensor | list[Tensor]) -> Tensor:
    """The images, or the first view of each sample, ``[B, C, H, W]``.

    Args:
        inputs: images ``[B, C, H, W]``, or a list of views ``[B, count, C, h, w]``, whose first
            counts.
    """
    first = inputs if isinstance(inputs, Tensor) else inputs[0]
    return first[:, 0] if first.ndim == 5 else first


def num_samples(inputs: Any) -> int:
    """B of the inputs of a batch: a tensor, a list of views, or a dictionary of tensors.

    Args:
        inputs: of a batch, without labels; a dictionary's first tensor counts.
    """
    first = inputs
    if isinstance(inputs, dict):
        first = next(iter(inputs.values()))
    elif not isinstance(inputs, Tensor):
        first = inputs[0]
    return len(first)


def describe(value: Any) -> str:
    """Short description of a value's type and shape for error messages.

    Args:
        value: anything, such as a batch.
    """
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({listed([describe(item) for item in value], 4)})"
    return type(value).__name__
