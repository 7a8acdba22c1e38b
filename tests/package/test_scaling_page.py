"""The commands of docs/scaling.md are valid, and its estimates are those of its own formula."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from lit_ssl.__main__ import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
# width, blocks, million parameters
SIZES = {"vit_small": (384, 12, 22), "vit_base": (768, 12, 86), "vit_large": (1024, 24, 304)}


def commands():
    lines = "".join(BLOCKS).replace("\\\n", " ").splitlines()
    return [line[line.index("lit-ssl") :] for line in lines if "lit-ssl" in line]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_valid(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.partition("--auto_resume")[0])
    if words[1] != "fit":
        pytest.skip("a test of its own part")
    monkeypatch.setattr(sys, "argv", [*words, "--print_config"])
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == 0, shown.err
    config = yaml.safe_load(shown.out)
    assert config["trainer"]["devices"] is not None


def test_commands_were_found():
    assert len(commands()) >= 7


@pytest.mark.parametrize("name", re.findall(r"^\| (msn/\S+) \|", PAGE, re.M))
def test_estimates_follow_the_formula(name):
    config = yaml.safe_load((ROOT / f"cli_configs/{name}.yaml").read_text())
    options = config["model"]["init_args"]
    kind = options["backbone"].rsplit("_patch", 1)[0]
    width, blocks, millions = SIZES[kind]
    found = int(re.search(r"patch(\d+)", options["backbone"])[1])
    patch = options.get("backbone_kwargs", {}).get("patch_size", found)
    seen = int((224 // patch) ** 2 * (1 - options["mask_ratio"]) + 1e-9) + 1
    tokens = seen + 10 * ((96 // patch) ** 2 + 1)
    images = -(-config["global_batch"] // 8)
    fixed = 22 * millions * 1e6
    plain = fixed + 34 * width * blocks * tokens * images
    less = fixed + (4 * blocks + 34) * width * tokens * images
    row = re.search(rf"^\| {name} \| (\S+) \| (\d+) \| (\d+) \| (\d+) \|", PAGE, re.M)
    expected = (f"{tokens:,}", str(images), f"{plain / 1e9:.0f}", f"{less / 1e9:.0f}")
    assert row.groups() == expected
    header = (ROOT / f"cli_configs/{name}.yaml").read_text()
    assert f"--data.batch_size {images}" in header
    assert f"about {less / 1e9 if plain > 64e9 else plain / 1e9:.0f} GB each" in header.replace(
        "\n# ", " "
    )
