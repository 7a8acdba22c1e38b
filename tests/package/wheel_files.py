"""Which files of the tree a wheel holds."""

from __future__ import annotations

from pathlib import Path

MAPPED = ("callbacks", "cli_configs", "datamodules")


def wheel_files(root: Path) -> set[str]:
    """Every module, every recipe, every list, and the typing marker, by their installed names."""
    expected = {"lit_ssl/py.typed"}
    for folder in ("lit_ssl", *MAPPED):
        prefix = "" if folder == "lit_ssl" else "lit_ssl/"
        for pattern in ("*.py", "*.yaml"):
            for path in (root / folder).rglob(pattern):
                expected.add(prefix + path.relative_to(root).as_posix())
    lists = root / "datamodules" / "selection" / "lists"
    for path in lists.rglob("*"):
        if path.is_file():
            expected.add(f"lit_ssl/{path.relative_to(root).as_posix()}")
    return expected
