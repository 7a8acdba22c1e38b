"""Heavy packages are imported where they are used, not at start-up."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("matplotlib", "mlxtend", "pl_bolts", "sklearn", "transformers")


def test_package_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); import lit_ssl;"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # the import hook of an editable install may show up
    names = [n for n in eval(done.stdout) if not n.startswith("__editable__")]
    assert names == ["lit_ssl"]


def test_cli_adds_nothing_to_what_lightning_imports():
    code = (
        "import sys, lightning.pytorch.cli, timm; before = set(sys.modules);"
        "import lit_ssl.cli.training, lit_ssl.cli.objects as o; o.import_components();"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
