"""Masking rate and strategy on scenes of real digits: what is learned from captions.

    python examples/vl_masking_rates.py                    # everything; hours on one core
    python examples/vl_masking_rates.py --only rates       # one part: rates, strategies, steps,
                                                           # corruption, split_words
    python examples/vl_masking_rates.py --quick            # seconds, and no result

Pretrains one small ViLT (170,000 parameters, 1,500 steps of 16 pairs) for each masking rate,
strategy and seed on 8,000 scenes with a caption each, and measures on test scenes, half of whose
objects are combinations of colour and digit never seen in training:

- MLM: content words at a fixed 15 % mask of whole words, with the image and with another one;
- ITM: does a caption belong to an image? of the true image and of another one, each half;
- foil: is the caption scored above one with a wrong colour or digit?
- R@1: the right one of 64 images and of 64 captions, mean of both (chance 1.6 %);
- NLVR2-like statements on two scenes after 250 steps of fine-tuning: accuracy and consistency.

Nothing is chosen on these numbers: settings are those of the recipe vl/digit_scenes.yaml, and the
seeds are not those with which it was tuned. A run that was done before is read from ``--out``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import logging
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_ssl.callbacks import StepSeeder
from lit_ssl.datamodules import DigitScenesDataModule, DigitScenesNLVR2DataModule
from lit_ssl.methods import NLVR2Classifier, VLPretraining
from lit_ssl.models import ViltBackbone
from lit_ssl.text import (
    ContentWordMasker,
    NounVerbMasker,
    PMIMasker,
    PMIVocabulary,
    SpanMasker,
    UniformMasker,
    WholeWordMasker,
    build_collocations,
)

MASKERS = {
    "uniform": UniformMasker, "whole word": WholeWordMasker, "span": SpanMasker, "pmi": PMIMasker,
    "noun-verb": NounVerbMasker, "content": ContentWordMasker,
}  # fmt: skip
RATES = (0.15, 0.30, 0.45, 0.60, 0.75)
MEASURES = ("mlm", "mlm rolled", "grounding", "itm", "foil", "r@1", "nlvr2", "consistency")
# captions have no verbs
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS = frozenset((*NUMBERS, "digit", "digits", "corner", "image", "images"))
FUNCTION_WORDS = frozenset(("a", "and", "at", "in", "of", "than", "the", "with"))


@dataclass(frozen=True)
class Setting:
    """What one row of the table trains."""

    strategy: str = "uniform"
    rate: float = 0.60
    steps: int = 1500
    mask_only: bool = False
    prediction_rate: float | None = None
    split_words: bool = False  # every content word has two pieces, not one in three

    @property
    def name(self) -> str:
        """The row's name."""
        more = [f"{self.steps} steps"] if self.steps != 1500 else []
        more += ["mask only"] if self.mask_only else []
        more += [f"predict {self.prediction_rate:.0%}"] if self.prediction_rate else []
        more += ["split words"] if self.split_words else []
        return ", ".join([f"{self.strategy} {self.rate:.0%}", *more])


PARTS = {
    "rates": [Setting(rate=rate) for rate in RATES],
    "strategies": [
        Setting(strategy, rate)
        for strategy in ("whole word", "span", "pmi", "noun-verb", "content")
        for rate in RATES
    ],
    "steps": [Setting(rate=0.15, steps=6000), Setting(rate=0.15), Setting(rate=0.60)],
    "corruption": [
        Setting(), Setting(mask_only=True), Setting(prediction_rate=0.15), Setting(rate=0.15),
    ],
    "split_words": [
        Setting(strategy, rate, split_words=True)
        for rate in (0.15, 0.60)
        for strategy in ("uniform", "whole word")
    ],
}  # fmt: skip


def split_pieces(words: Sequence[str]) -> list[str]:
    """A vocabulary that cuts every content word into two pieces.

    Args:
        words: All words of captions and statements.
    """
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for word in sorted(set(words)):
        if word in FUNCTION_WORDS or len(word) < 3:
            pieces.append(word)
        else:
            middle = (len(word) + 1) // 2
            pieces += [word[:middle], f"##{word[middle:]}"]
    return list(dict.fromkeys(pieces))


@cache
def data_of(
    split_words: bool, train: int, test: int
) -> tuple[DigitScenesDataModule, DigitScenesNLVR2DataModule]:
    """Scenes and statements; made once in a process."""
    scenes = DigitScenesDataModule(sizes=(train, 0, test), batch_size=16, seed=0)
    arguments: dict[str, Any] = {"batch_size": 16, "seed": 0}
    sizes = (max(train // 8, 4), 0, max(3 * test // 20, 4))
    statements = DigitScenesNLVR2DataModule(sizes=sizes, **arguments)
    rows = scenes.load_rows("train")
    assert rows is not None
    texts: Any = rows.source
    words = [text.split() for text in texts.texts]
    if split_words:
        said: Any = statements.load_rows("train")
        every = [word for text in words for word in text]
        every += [word for text in said.source.texts for word in text.split()]
        pieces = split_pieces(every)
        shape: dict[str, Any] = {"tokenizer": pieces, "max_length": 32}
        scenes = DigitScenesDataModule(sizes=(train, 0, test), batch_size=16, seed=0, **shape)
        statements = DigitScenesNLVR2DataModule(sizes=sizes, **arguments, **shape)
    vocabulary = PMIVocabulary(entry.words for entry in build_collocations(words).entries)
    scenes.word_columns["unit_ids"] = vocabulary.segment
    scenes.word_columns["nouns"] = lambda text: [word in NOUNS for word in text]
    return scenes, statements


class Scenes(VLPretraining):
    """Noun-verb masking prefers nouns, all others that have a preference content words."""

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step."""
        inputs, numbers = batch
        if isinstance(self.masker, NounVerbMasker) and not isinstance(
            self.masker, ContentWordMasker
        ):
            inputs = {**inputs, "candidates": inputs["nouns"]}
        return super().training_step((inputs, numbers), batch_idx)


def trainer(steps: int) -> pl.Trainer:
    """Trains silently; nothing is chosen, the end counts."""
    return pl.Trainer(
        max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False, limit_val_batches=0,
        callbacks=[StepSeeder()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0,
    )  # fmt: skip


def pretrain(setting: Setting, seed: int, data: DigitScenesDataModule) -> VLPretraining:
    """Train one network."""
    pl.seed_everything(seed, verbose=False)
    data.seed = seed
    backbone = ViltBackbone(
        {
            "vocab_size": data.vocab_size, "hidden_size": 64, "num_hidden_layers": 3,
            "num_attention_heads": 4, "intermediate_size": 128, "image_size": 32, "patch_size": 16,
            "max_position_embeddings": data.max_length,
        },
        initialization="fan_in",
    )  # fmt: skip
    masker: Any = MASKERS[setting.strategy]
    share = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0} if setting.mask_only else {}
    module = Scenes(
        backbone, masker(setting.rate), prediction_rate=setting.prediction_rate, wpa_weight=0.0,
        lr=3e-3, **share,
    )  # fmt: skip
    trainer(setting.steps).fit(module, datamodule=data)
    return module.eval()


@torch.no_grad()
def measure(module: VLPretraining, data: DigitScenesDataModule) -> dict[str, float]:
    """All that is measured without fine-tuning, in %."""
    data.setup("test")
    batches = [data.on_after_batch_transfer(b, 0)[0] for b in data.test_dataloader()]
    width = max(batch["input_ids"].shape[1] for batch in batches)

    def whole(name: str) -> Tensor:
        fill = {"word_ids": -1, "unit_ids": -1}.get(name, 0)
        room = (0, width) if name != "images" else None
        parts = [
            b[name] if room is None else torch.nn.functional.pad(
                b[name], (0, width - b[name].shape[1]), value=fill
            )
            for b in batches
        ]  # fmt: skip
        return torch.cat(parts)

    inputs = {name: whole(name) for name in batches[0] if name not in ("nouns", "unit_ids")}
    shown = module.embed(inputs)
    count = len(inputs["input_ids"])
    rolled = {k: v.roll(1, 0) if k.startswith("image_") else v for k, v in shown.items()}
    mask = module.fixed_mask(inputs) & inputs["candidates"].bool()
    wanted = inputs["input_ids"][mask]
    words = [percent(module.guess(x, mask).argmax(1) == wanted) for x in (shown, rolled)]
    true, other = module.match(shown), module.match(rolled)
    foils = {**shown, **data.encode(data.foils("test"))}
    foils = {k: v for k, v in foils.items() if k in ("input_ids", "attention_mask") or "image" in k}
    size = min(64, count // 2)
    return {
        "mlm": words[0],
        "mlm rolled": words[1],
        "grounding": words[0] - words[1],
        "itm": (percent(true > 0) + percent(other < 0)) / 2,
        "foil": percent(true > module.match(foils)),
        "r@1": statistics.mean(first_places(module, shown, size * k, size) for k in (0, 1)),
    }


def first_places(module: VLPretraining, shown: dict[str, Tensor], start: int, size: int) -> float:
    """R@1 among some images and their captions, mean of both directions, in %."""
    rows = torch.arange(start, start + size)
    image, text = rows.repeat_interleave(size), rows.repeat(size)
    pairs = {k: v[image if k.startswith("image_") else text] for k, v in shown.items()}
    scores = module.match(pairs).view(size, size)
    right = torch.arange(size)
    return (percent(scores.argmax(1) == right) + percent(scores.argmax(0) == right)) / 2


def finetune(
    module: VLPretraining, seed: int, data: DigitScenesNLVR2DataModule, steps: int
) -> dict[str, float]:
    """Accuracy and consistency on statements, in %."""
    pl.seed_everything(seed, verbose=False)
    data.seed = seed
    backbone = copy.deepcopy(module.backbone)
    backbone.second_image_from_first_()
    judge = NLVR2Classifier(backbone, lr=1e-3)
    trainer(steps).fit(judge, datamodule=data)
    found = trainer(1).test(judge, datamodule=data, verbose=False)[0]
    return {"nlvr2": 100 * found["test/acc1"], "consistency": 100 * found["test/consistency"]}


def percent(hits: Tensor) -> float:
    """Share of hits, in %."""
    return 100 * hits.double().mean().item()


Job = tuple[Setting, int, Path, int, int, int]


def place(job: Job) -> tuple[Path, dict[str, Any]]:
    """File of a run, and what it depends on."""
    setting, seed, out, train, test, tuning = job
    path = out / f"{setting.name.replace(', ', '_').replace(' ', '_')}_{seed}.json"
    return path, {**asdict(setting), "seed": seed, "train": train, "test": test, "tuning": tuning}


def found(job: Job) -> dict[str, Any] | None:
    """What a run gave that was done before; None if it was not."""
    path, sizes = place(job)
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return record if record.get("sizes") == sizes else None


def run(job: Job) -> dict[str, Any]:
    """One network: pretrained, measured, fine-tuned; or what was found before."""
    record = found(job)
    if record is not None:
        return record
    setting, seed, _, train, test, tuning = job
    path, sizes = place(job)
    silence()
    begin = time.process_time()
    scenes, statements = data_of(setting.split_words, train, test)
    module = pretrain(setting, seed, scenes)
    scores = {**measure(module, scenes), **finetune(module, seed, statements, tuning)}
    record = {
        "name": setting.name, "sizes": sizes, "scores": scores,
        "cpu_seconds": time.process_time() - begin,
    }  # fmt: skip
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(path)
    row = "  ".join(f"{name} {scores[name]:.1f}" for name in MEASURES)
    print(f"# {setting.name}, seed {seed}: {row}", flush=True)
    return record


def silence() -> None:
    """One thread, and no lines of the Trainer's."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def mean_sd(values: Sequence[float]) -> str:
    """Mean and standard deviation as text."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def print_table(title: str, settings: Sequence[Setting], records: list[dict[str, Any]]) -> None:
    """One row per setting, mean ± sd over seeds."""
    if not {setting.name for setting in settings} & {record["name"] for record in records}:
        return
    print(f"\n{title}: %, mean ± sd over seeds\n\n| | seeds | {' | '.join(MEASURES)} |")
    print(f"|---|{'--:|' * (len(MEASURES) + 1)}")
    for setting in dict.fromkeys(settings):
        own = [record["scores"] for record in records if record["name"] == setting.name]
        if not own:
            continue
        cells = [mean_sd([scores[name] for scores in own]) for name in MEASURES]
        print(f"| {setting.name} | {len(own)} | {' | '.join(cells)} |")


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Measures over the rate, a line per strategy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = ("mlm", "grounding", "itm", "nlvr2")
    figure, axes = plt.subplots(1, len(shown), figsize=(15, 3.8))
    plain = {setting.name: setting for setting in (*PARTS["rates"], *PARTS["strategies"])}
    for axis, measure_name in zip(axes, shown, strict=True):
        for shift, strategy in enumerate(MASKERS):
            points: dict[float, list[float]] = {}
            for record in records:
                setting = plain.get(record["name"])
                if setting is not None and setting.strategy == strategy:
                    value = record["scores"][measure_name]
                    points.setdefault(setting.rate, []).append(value)
            if not points:
                continue
            rates = sorted(points)
            means = [statistics.mean(points[r]) for r in rates]
            spread = [statistics.stdev(v) if len(v := points[r]) > 1 else 0.0 for r in rates]
            places = [100 * r + 0.6 * (shift - 2.5) for r in rates]  # bars side by side
            axis.errorbar(places, means, spread, fmt="o-", ms=4, capsize=2, label=strategy)
        axis.set(xlabel="masking rate, %", title=f"{measure_name}, %")
        axis.set_xticks([round(100 * rate) for rate in RATES])
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what is asked for, print the tables, write every number and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--found", action="store_true", help="only report what is in --out")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, one core each")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few scenes")
    parser.add_argument("--out", type=Path, default=Path("runs/vl_masking_rates"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = {name: PARTS[name] for name in options.only}
    sizes = (8000, 2000, 250)
    if options.quick:
        sizes = (64, 40, 2)
        parts = {name: [quick(one) for one in settings] for name, settings in parts.items()}
    settings = list(dict.fromkeys(one for part in parts.values() for one in part))
    jobs = [(one, seed, options.out, *sizes) for seed in options.seeds for one in settings]
    if options.found:
        records = [record for job in jobs if (record := found(job)) is not None]
    elif options.jobs == 1:
        records = [run(job) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            records = pool.map(run, jobs, chunksize=1)
    for name, part in parts.items():
        print_table(name, part, records)
    with open(options.out / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "seed", *MEASURES])
        writer.writerows(
            [record["name"], record["sizes"]["seed"], *(record["scores"][m] for m in MEASURES)]
            for record in records
        )
    plot(records, options.out / "masking_rates.png")
    spent = sum(record["cpu_seconds"] for record in records)
    machine = f"{platform.machine()}, 1 thread each, torch {torch.__version__}"
    print(f"\n{spent:.0f} CPU-seconds on {machine}; {options.out}/results.csv")


def quick(setting: Setting) -> Setting:
    """The same with as few steps as show that it runs."""
    return Setting(**{**asdict(setting), "steps": 2})


if __name__ == "__main__":
    main()
