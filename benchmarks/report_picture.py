"""A picture of a report's page, as in the README: ``docs/images/report.png``.

    make demo
    python benchmarks/report_picture.py runs/demo/index.html docs/images/report.png

It needs Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image


def draw(page: Path, picture: Path, width: int, height: int, colours: int = 256) -> None:
    """Open a page in a browser without a window, and keep what it shows.

    Args:
        page: the file.
        picture: PNG to write.
        width: of the window, pixels.
        height: of the window, pixels.
        colours: of the picture, by which it stays small.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("there is no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.png"
        words = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={folder}/profile", f"--window-size={width},{height}",
            f"--screenshot={whole}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(words, check=True, timeout=120, capture_output=True)
        image = Image.open(whole).convert("RGB")
    picture.parent.mkdir(parents=True, exist_ok=True)
    few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)
    print(f"{picture}: {image.width}×{image.height}, {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=2340)
    given = parser.parse_args()
    draw(given.page, given.picture, given.width, given.height)
