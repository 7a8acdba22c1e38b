"""The page of results, from the reports and configs of runs that are stored in ``docs/results/``.

    python docs/site/results.py                 # write the tables of docs/results.md anew
    python docs/site/results.py train msn ...   # train and evaluate first, and store what comes out

A training that is there already is not repeated. Its files lie in ``runs/results/``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lit_ssl.files import write_file, write_json
from lit_ssl.runs import compare_runs
from lit_ssl.runs.formats import as_markdown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
STORED = ROOT / "docs" / "results"
SEEDS = (0, 1, 2)
# recipe, and the options of its evaluation
RECIPES = {
    "msn": ("msn/mnist5k.yaml", []),
    "supervised": ("supervised/mnist5k.yaml", ["--trainer.callbacks.feature_method", "forward"]),
}
_SECTION = re.compile(r"(<!-- results: ([\w-]+) -->\n)(?:.*?)(<!-- end -->)", re.DOTALL)


def page_text(text: str) -> str:
    """The page with the tables of the stored runs.

    Args:
        text: the page; what lies between ``<!-- results: NAME -->`` and ``<!-- end -->`` is
            replaced.
    """
    return _SECTION.sub(lambda part: f"{part[1]}\n{_tables(part[2])}\n{part[3]}", text)


def _tables(name: str) -> str:
    """The tables of one folder of ``docs/results/``."""
    return as_markdown(compare_runs([STORED / name]))


def train(name: str, seed: int, threads: int) -> Path:
    """Train and evaluate a recipe with a seed, where its report is not there yet.

    Args:
        name: of ``RECIPES``.
        seed: of the run.
        threads: of torch.

    Returns:
        The folder of the run.
    """
    recipe, options = RECIPES[name]
    folder = Path("runs", "results", name, f"seed_{seed}")
    if (ROOT / folder / "report.json").exists():
        return ROOT / folder
    common = [
        "--seed_everything", str(seed), "--trainer.default_root_dir", str(folder),
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    program = [sys.executable, "-m", "lit_ssl"]
    fit = [*program, "fit", "--config", recipe, *common]
    test = [*program, "test", "--config", recipe, "--config", "eval/mnist5k.yaml", *common]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    for command in (fit, [*test, "--ckpt_path", "last", *options]):
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return ROOT / folder


def store(folder: Path, name: str) -> None:
    """Keep the report and the config of a run in ``docs/results/``.

    Args:
        folder: of the run: the report lies in it, the config below.
        name: of ``RECIPES``.
    """
    home = STORED / name / folder.name
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    checkpoint = Path(report["protocol"]["checkpoint"])
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(checkpoint.parents[1] / "config.yaml", home)
    report["protocol"]["checkpoint"] = checkpoint.relative_to(folder).as_posix()
    write_json(home / "report.json", report)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = parser.add_subparsers(dest="word")
    trained = words.add_parser("train", help="train, evaluate, store, and write the page")
    trained.add_argument("names", nargs="*", choices=[*RECIPES, []], help="by default all")
    trained.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    trained.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args()
    if args.word == "train":
        for name in args.names or RECIPES:
            for seed in args.seeds:
                store(train(name, seed, args.threads), name)
    text = page_text(PAGE.read_text(encoding="utf-8"))
    write_file(PAGE, lambda file: file.write(text))


if __name__ == "__main__":
    main()
