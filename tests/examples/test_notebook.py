"""The notebook on photographs runs from its first cell to its last."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from lit_ssl.__main__ import main

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("skimage")
pytest.importorskip("sklearn")
pytest.importorskip("IPython")
RUN = subprocess.run
NOTEBOOK = Path(__file__).parents[2] / "examples/photos_to_embeddings.ipynb"
SMALL = {"TILES": 6, "VAL_SIZE": 24, "EPOCHS": 1}


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def cut(source):
    """The cell of parameters with sizes that take seconds."""
    lines = source.splitlines()
    for name, value in SMALL.items():
        (line,) = (n for n, text in enumerate(lines) if text.startswith(f"{name} = "))
        lines[line] = f"{name} = {value}"
    return "\n".join(lines)


def test_it_is_stored_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []
    assert [n for n, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])] == [
        0
    ]


def in_this_process(words, **options):
    """Runs `python -m lit_ssl ...` without another start of Python."""
    if words[:3] != [sys.executable, "-m", "lit_ssl"]:
        return RUN(words, **options)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["lit-ssl", *words[3:]]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def test_cells_in_this_process(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.run", in_this_process)
    monkeypatch.setattr("IPython.display.display", lambda *shown: None)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        source = cell.source if number else cut(cell.source)
        exec(compile(source, f"cell {number}", "exec"), names)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {
        "photos/chelsea/00.jpg",
        "photos_to_embeddings/look/sheet.png",
        "photos_to_embeddings/features/predictions.csv",
        "photos_to_embeddings/neighbours/neighbours.png",
        "photos_to_embeddings/encoder.safetensors",
    } <= found
    assert "timm gives the same features: (24, 128)" in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_in_a_kernel(notebook, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = cut(first.source)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment)
    images = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 4  # samples, map, neighbours by the callback and by the command
