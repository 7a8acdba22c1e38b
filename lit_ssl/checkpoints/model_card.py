"""The card of an exported encoder: what it is, how it was trained and measured, how to load it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import yaml

from lit_ssl.checkpoints.card_texts import (
    code_block,
    last_word,
    markdown_text,
    table,
    without_places,
)
from lit_ssl.checkpoints.encoder_to_export import Exportable
from lit_ssl.checkpoints.run_files import Report
from lit_ssl.models.nac.described import CIRCUITS
from lit_ssl.version import __version__

__all__ = ["CONFIG_NAME", "model_card"]

CONFIG_NAME = "config.yaml"
# class of a method → its paper
_PAPERS = {
    "MSN": ("Masked Siamese Networks for Label-Efficient Learning", "2204.07141"),
    "PMSN": ("The Hidden Uniform Cluster Prior in Self-Supervised Learning", "2210.07277"),
    "PAWS": (
        "Semi-Supervised Learning of Visual Features by Non-Parametrically Predicting View "
        "Assignments with Support Samples",
        "2104.13963",
    ),
    "RoPAWS": (
        "RoPAWS: Robust Semi-supervised Representation Learning from Uncurated Data",
        "2302.14483",
    ),
    "SuNCEt": (
        "Supervision Accelerates Pre-training in Contrastive Semi-Supervised Learning of Visual "
        "Representations",
        "2006.10803",
    ),
    "NAC": ("Neural Attentive Circuits", "2210.08031"),
    "GroupRobustClassifier": (
        "Distributionally Robust Neural Networks for Group Shifts",
        "1911.08731",
    ),
    "BARACK": ("BARACK: Partially Supervised Group Robustness With Guarantees", "2201.00072"),
    "JTT": (
        "Just Train Twice: Improving Group Robustness without Training Group Information",
        "2107.09044",
    ),
}
_SELF_SUPERVISED = ("MSN", "PMSN")
# what a report may hold, by the beginnings of its fields → what it is called
_PROTOCOLS = {"knn": "k-NN", "linear": "linear", "lowshot": "low-shot", "soft_nn": "PAWS-NN"}
_FIELD = re.compile(r"(knn|linear|lowshot|soft_nn)(?:_(\w+))?_acc(\d)")
_MOST = 30  # rows of a table of results


def model_card(
    encoder: Exportable,
    loading: Sequence[tuple[str, str]],
    library: str,
    licence: str | None = None,
    report: Report | None = None,
    files: Sequence[str] = (),
) -> str:
    """The text of ``README.md``, with what the hub reads at its top.

    Whatever comes out of a checkpoint, a config or a report is escaped, and paths are cut to their
    last part.

    Args:
        encoder: what is exported.
        loading: libraries, and the Python code by which each loads it.
        library: which one the hub should show, as its ``library_name``.
        licence: of the weights, as the hub spells it; None is said.
        report: what was measured; None is said.
        files: names of further files in the folder: ``config.yaml``, ``index.html``.
    """
    method, data = _method(encoder), _data_name(encoder)
    title = f"{method or 'Encoder'}, {encoder.name}"
    head = _front_matter(encoder, title, library, licence, report)
    parts = [f"---\n{head}---", f"# {markdown_text(title)}", _about(encoder, method, data)]
    parts += ["## Load it", *_loading(loading)]
    if encoder.size:
        parts += ["## Images", _images(encoder)]
    parts += ["## Training", *_training(encoder, method, data, files)]
    parts += ["## Results", *_results(report, files)]
    parts += ["## What was not measured", _unmeasured(report)]
    parts += ["## Licence", _licence(licence)]
    parts.append(f"Written by `lit-ssl export` of lit_ssl {__version__}.")
    return "\n\n".join(parts) + "\n"


def _method(encoder: Exportable) -> str:
    return last_word(encoder.method)


def _data(encoder: Exportable) -> Mapping[str, Any]:
    """Hyper-parameters of the data module, of a composed one those of the inner one."""
    data = encoder.recipe.get("data") or {}
    inner = data.get("dataset")
    if isinstance(inner, Mapping) and "class_path" in inner:
        args = inner.get("init_args")
        return {"_class_path": inner["class_path"], **(args if isinstance(args, Mapping) else {})}
    return data


def _data_name(encoder: Exportable) -> str:
    return last_word(str(_data(encoder).get("_class_path") or ""))


def _front_matter(
    encoder: Exportable, title: str, library: str, licence: str | None, report: Report | None
) -> str:
    method = _method(encoder)
    tags = ["feature-extraction", "lit_ssl"]
    tags += [method.lower()] if method else []
    tags += ["self-supervised-learning"] if method in _SELF_SUPERVISED else []
    about: dict[str, Any] = {"library_name": library, "tags": tags}
    if encoder.size:
        about["pipeline_tag"] = "image-feature-extraction"
    if licence is not None:
        about["license"] = licence
    if results := _index(report):
        about["model-index"] = [{"name": title, "results": results}]
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True)


def _index(report: Report | None) -> list[dict[str, Any]]:
    """Results as the hub reads them; none where it is not known of which data they are."""
    if report is None or not report.data:
        return []
    metrics = [
        {"type": "accuracy", "name": f"{_label(name)} accuracy", "value": round(100 * value, 2)}
        for name, value in _accuracies(report.rows[0])
    ]
    kind = re.sub(r"\W+", "-", report.data).strip("-").lower()
    data = {"name": report.data, "type": kind or "unknown"}
    if report.split:
        data["split"] = report.split
    task = {"type": "image-classification", "name": "Evaluation of frozen features"}
    return [{"task": task, "dataset": data, "metrics": metrics}] if metrics else []


def _about(encoder: Exportable, method: str, data: str) -> str:
    count = sum(value.numel() for value in encoder.network.parameters())
    what = f"The encoder `{encoder.name}`" if "`" not in encoder.name else "An encoder"
    by = f", trained by {markdown_text(method)}" if method else ""
    on = f" on `{data}`" if data and "`" not in data else ""
    size = f"{count / 1e6:,.1f} million parameters" if count >= 1e5 else f"{count:,} parameters"
    width = encoder.features.shape[-1]
    gives = f"one vector of {width:,} numbers for an image" if encoder.size else "features"
    inside = "its classifier is in it" if encoder.name in CIRCUITS else "no classifier is in it"
    return f"{what}{by}{on}: {size}, {gives}; {inside}."


def _loading(loading: Sequence[tuple[str, str]]) -> list[str]:
    parts = []
    for library, code in loading:
        parts += [f"With {library}:", code_block(code, "python")]
    return parts


def _images(encoder: Exportable) -> str:
    channels, height, width = encoder.size
    lines = [f"- {width} × {height} pixels, {channels} channel{'s' if channels > 1 else ''}"]
    if encoder.resizing is None:
        lines.append("- how images were resized for evaluation is not known")
    else:
        lines.append(
            f"- evaluation: the shorter side resized to {encoder.resizing.resize} pixels "
            f"({encoder.resizing.interpolation}, antialiased), then the centre cut out"
        )
    if encoder.mean:
        mean, std = (", ".join(f"{v:g}" for v in part) for part in (encoder.mean, encoder.std))
        lines.append(f"- scaled to [0, 1], then minus {mean}, divided by {std} (one per channel)")
    else:
        lines.append("- mean and standard deviation are not known")
    return "\n".join(lines)


def _training(encoder: Exportable, method: str, data: str, files: Sequence[str]) -> list[str]:
    recipe = encoder.recipe
    if not recipe:
        return ["The file of weights says nothing of its training."]
    rows = [("method", markdown_text(method))] if method else []
    if method in _PAPERS and encoder.method.startswith("lit_ssl."):
        title, number = _PAPERS[method]
        rows.append(("paper", f"[{title}](https://arxiv.org/abs/{number}), arXiv:{number}"))
    if data:
        rows.append(("data", f"`{data}`" if "`" not in data else markdown_text(data)))
    if isinstance(recipe.get("global_step"), int):
        rows.append(("steps", f"{recipe['global_step']:,}"))
    if isinstance(recipe.get("epoch"), int):
        rows.append(("epoch at the end", f"{recipe['epoch']:,} (from 0)"))
    model, module = recipe.get("model") or {}, recipe.get("data") or {}
    for name, source, key in (
        ("images in a batch and process", module, "batch_size"),
        ("learning rate", model, "lr"),
        ("weight decay", model, "weight_decay"),
        ("weights at the start", model, "pretrained"),
    ):
        value = without_places(source.get(key))
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            rows.append((name, markdown_text(f"{value:g}" if isinstance(value, float) else value)))
    parts = [table(("setting", "value"), rows)]
    if CONFIG_NAME in files:
        parts.append(
            f"All settings are in `{CONFIG_NAME}`; places on the machine of the training are cut to"
            " their last part there."
        )
    return parts


def _results(report: Report | None, files: Sequence[str]) -> list[str]:
    if report is None:
        return ["Nothing: no report was given (`lit-ssl export --report`)."]
    fields = [name for name, _ in _accuracies(report.rows[0])][:_MOST]
    names = [str(row.get("features", "")) or "features" for row in report.rows]
    rows = []
    for field in fields:
        cells = [_cell(row, field) for row in report.rows]
        rows.append((markdown_text(_label(field)), *cells))
    on = f" on {markdown_text(report.split)} images" if report.split else ""
    of = f" of `{report.data}`" if report.data and "`" not in report.data else ""
    parts = [f"Accuracy in % of the frozen features{on}{of}:"]
    parts.append(table(("protocol", *map(markdown_text, names)), rows))
    if report.protocol:
        parts.append("How it was measured, as the report has it:")
        said = yaml.safe_dump(report.protocol, sort_keys=False, allow_unicode=True)
        parts.append(code_block(said, "yaml"))
    if not report.data:
        parts.append("The report does not say of which data these numbers are.")
    if "index.html" in files:
        parts.append("[index.html](index.html) shows the report with its pictures.")
    return parts


def _cell(row: Mapping[str, Any], field: str) -> str:
    value, spread = row.get(field), row.get(f"{field.rpartition('_')[0]}_std")
    if not _is_share(value):
        return "–"
    text = f"{100 * value:.1f}"
    return f"{text} ± {100 * spread:.1f}" if _is_share(spread) and spread else text


def _accuracies(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(k, v) for k, v in row.items() if _FIELD.fullmatch(str(k)) and _is_share(v)]


def _is_share(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _label(field: str) -> str:
    found = _FIELD.fullmatch(field)
    assert found is not None
    method, chosen, top = found.groups()
    name = _PROTOCOLS[method]
    if chosen:
        chosen = f"{chosen}-shot" if chosen.isdigit() else chosen
        name = chosen if method == "lowshot" else f"{chosen} {name}"
    return f"{name}, top-{top}"


def _unmeasured(report: Report | None) -> str:
    lines = []
    if report is not None:
        measured = {name for row in report.rows for name, _ in _accuracies(row)}
        missing = [
            label
            for start, label in _PROTOCOLS.items()
            if not any(name.startswith(start) for name in measured)
        ]
        lines += [f"- {', '.join(missing)} accuracy"] if missing else []
    lines += [
        "- other data than those above, fine-tuning, detection, segmentation",
        "- robustness to other kinds of images, and whether features treat groups of people alike",
    ]
    return "\n".join(lines)


def _licence(licence: str | None) -> str:
    if licence is None:
        return "None was named: ask the author before you use the weights."
    return f"{markdown_text(licence)}, named by whoever exported the weights."
