"""Which recipe fits a folder of images, with which sizes: the commands to run next."""

from __future__ import annotations

import math
import shlex
from typing import Any, NamedTuple

import yaml

from lit_ssl.cli.recipes import packaged_config
from lit_ssl.datamodules.images.folder_survey import FolderSurvey

__all__ = ["Sizes", "Step", "choose_sizes", "next_steps"]

# Below, a small network learns in minutes, on a CPU too; above, several GPUs have enough to do.
_SMALL, _LARGE = 5_000, 200_000
# How many steps of how many images a training should have: rules of thumb. Few images are seen
# many times; of very many, ImageNet's recipe sees each some hundred times.
_STEPS = {"folder_small": 1_000, "folder": 100_000, "folder_large": 150_000}
_EPOCHS = {"folder_small": (20, 500), "folder": (100, 800), "folder_large": (100, 300)}
_BATCH = {"folder_small": 32, "folder": 64, "folder_large": 1_024}
_CHECKPOINT = "RUN/checkpoints/last.ckpt"


class Step(NamedTuple):
    """A command to run, and what for."""

    purpose: str
    command: str


class Sizes(NamedTuple):
    """What depends on the number of images.

    Attributes:
        recipe: Name of the recipes, such as "folder_small".
        batch_size: Images per batch and process.
        max_epochs: Epochs of pretraining.
        warmup_epochs: Of which the learning rate rises.
        num_prototypes: Of MSN.
        val_size: Training images to hold out; 0: none.
    """

    recipe: str
    batch_size: int
    max_epochs: int
    warmup_epochs: int
    num_prototypes: int
    val_size: int


def choose_sizes(images: int, num_classes: int = 0, has_validation: bool = False) -> Sizes:
    """Choose a recipe and its sizes by the number of images.

    They are rules of thumb: a number of steps that suits the network, batches of which an epoch has
    at least six, four prototypes per class (without classes: twice the root of the number of
    images), a twentieth of the training for the warm-up.

    Args:
        images: Training images, at least 1.
        num_classes: Number of classes; 0: no labels.
        has_validation: Whether there are validation images; if not, and with labels, a fifth of a
            small folder or a tenth of a larger one, at most 5,000, is held out.
    """
    labelled = num_classes > 1
    held_out = 0
    if labelled and not has_validation:
        share = images // 5 if images < 1_000 else images // 10
        held_out = min(5_000, max(share, num_classes if images >= 4 * num_classes else 0))
    trained = max(1, images - held_out)
    recipe = "folder_small" if trained <= _SMALL else "folder"
    recipe = "folder_large" if trained >= _LARGE else recipe
    batch = min(_BATCH[recipe], max(4, _power_of_two(trained / 6, math.floor)))
    low, high = _EPOCHS[recipe]
    epochs = min(high, max(low, round(_STEPS[recipe] / max(1, trained // batch))))
    clusters = 4 * num_classes if labelled else 2 * math.sqrt(trained)
    return Sizes(
        recipe=recipe,
        batch_size=_BATCH["folder"] if recipe == "folder_large" else batch,  # of each of 16
        max_epochs=epochs,
        warmup_epochs=max(1, round(epochs / 20)),
        num_prototypes=min(1_024, max(16, _power_of_two(clusters, round))),
        val_size=held_out,
    )


def next_steps(survey: FolderSurvey, layout: str = "auto") -> list[Step]:
    """Return the commands to run next on a folder; none where it is refused or holds too little.

    Args:
        survey: What is in the folder.
        layout: Of the data module, where it is not its default.
    """
    if survey.problem or "train" not in survey.splits:
        return []
    train = survey.splits["train"].names
    if len(train) - sum(name in survey.unreadable for name in train) < 2:
        return []  # look says so
    names = len(survey.class_names)
    sizes = choose_sizes(len(survey.splits["train"].names), names, "val" in survey.splits)
    data = {"root": str(survey.root)}
    if layout != "auto":
        data["layout"] = layout
    if survey.unreadable:
        data["on_corrupt"] = "skip"
    if any(facts.transparent for facts in survey.readable):
        data["background"] = "[255, 255, 255]"
    held_out = {"val_size": str(sizes.val_size)} if sizes.val_size else {}
    recipe = sizes.recipe
    own = {
        "data.batch_size": sizes.batch_size,
        "model.num_prototypes": sizes.num_prototypes,
        "trainer.max_epochs": sizes.max_epochs,
        "model.warmup_epochs": sizes.warmup_epochs,
        "trainer.check_val_every_n_epoch": max(1, sizes.max_epochs // 10),
    }
    pretrain = f"msn/{recipe}.yaml"
    shapes = {"model.num_prototypes": sizes.num_prototypes}  # else the weights do not fit
    shared = "folder" if recipe == "folder_large" else recipe  # one network, one evaluation
    shown = _CHECKPOINT
    images = len(survey.splits["train"].names)
    if "val" not in survey.splits and not held_out:  # pictures are of validation images
        shown += f" --data.val_size {min(500, max(1, images // 5))}"
    steps = [
        Step(
            "pretrain, without labels",
            _command("fit", pretrain, data | held_out, _changed(pretrain, own)),
        ),
        Step(
            "write the features of the images",
            _command("predict", pretrain, data, _changed(pretrain, shapes), "last"),
        ),
        Step("look at nearest neighbours", "lit-ssl neighbours RUN/predictions.safetensors"),
        Step("draw maps, neighbours, attention, prototypes", f"lit-ssl pictures {shown}"),
    ]
    if names > 1:
        weights = {"model.weights": _CHECKPOINT}
        start = {"model.pretrained": _CHECKPOINT}
        few = {f"dataset.{name}": value for name, value in (data | held_out).items()}
        steps += [
            Step(
                "what the features are worth, with the labels",
                _command("validate", f"eval/{shared}.yaml", data | held_out, weights),
            ),
            Step(
                "train a classifier on all labels, from these weights",
                _command("fit", f"finetune/{shared}.yaml", data | held_out, start),
            ),
            Step(
                "or learn from a few labels of each class, and all images",
                _command("fit", f"paws/{shared}.yaml", few, {}),
            ),
        ]
    return steps


def _power_of_two(number: float, rounding: Any) -> int:
    return 2 ** max(0, rounding(math.log2(max(1.0, number))))


def _changed(recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values that a recipe does not have already."""
    config = yaml.safe_load(packaged_config(recipe).read_text(encoding="utf-8"))
    changed = {}
    for name, value in values.items():
        section, key = name.split(".")
        block = config[section]
        if block.get("init_args", block).get(key) != value:
            changed[name] = value
    return changed


def _command(
    word: str,
    recipe: str,
    data: dict[str, str],
    options: dict[str, Any],
    checkpoint: str | None = None,
) -> str:
    words = ["lit-ssl", word, "--config", recipe]
    for name, value in data.items():
        words += [f"--data.{name}", value]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    if checkpoint:
        words += ["--ckpt_path", checkpoint]
    return shlex.join(words)
