"""A real browser without a window, for tests of pages."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

_QUIET = (
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-domain-reliability", "--disable-extensions", "--disable-sync", "--no-first-run",
    "--disable-features=OptimizationHints,MediaRouter,Translate,NetworkTimeServiceQuerying",
)  # fmt: skip
# What Chromium asks of its maker by itself, whatever it shows.
_ITS_OWN = re.compile(rb"\w+ (https?://)?[\w.-]+\.(google|googleapis|gvt1)\.com[:/]")
_FRAME = """<!DOCTYPE html><html><head><title>waiting</title></head><body style="margin:0">
<iframe src="{address}" width="{width}" height="{height}" style="border:0"></iframe>
<script>window.onload = () => {{
  const root = document.querySelector("iframe").contentDocument.documentElement;
  document.title = "width " + root.scrollWidth;
}};</script></body></html>"""


class Look(NamedTuple):
    """What a browser made of a page: its tree as text, its pixels, and connections it asked for."""

    dom: str
    pixels: np.ndarray
    requests: list[bytes]


class Browser:
    """Chromium, which is given no network but a proxy that counts and refuses."""

    def __init__(self, folder: Path) -> None:
        self.program = shutil.which("chromium") or shutil.which("chromium-browser")
        if self.program is None:
            pytest.skip("there is no chromium: apt-get install chromium, as .ci/run does")
        self.folder = folder

    def look(self, page: Path, width: int, height: int, *flags: str) -> Look:
        picture = self.folder / f"{page.stem}_{width}.png"
        with _Proxy() as proxy:
            words = [
                self.program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--force-device-scale-factor=1", *_QUIET, f"--user-data-dir={self.folder}/profile",
                f"--proxy-server=127.0.0.1:{proxy.port}", f"--window-size={width},{height}",
                f"--screenshot={picture}", "--dump-dom", *flags, page.absolute().as_uri(),
            ]  # fmt: skip
            done = subprocess.run(words, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
        asked = [line for line in proxy.asked if not _ITS_OWN.match(line)]
        return Look(done.stdout, np.array(Image.open(picture).convert("RGB")), asked)

    def look_at_phone(self, page: Path, width: int, height: int) -> tuple[Look, int]:
        """Look through a frame as narrow as a phone, and tell how wide the page got in it."""
        frame = self.folder / f"frame_{page.stem}.html"
        address = page.absolute().as_uri()
        frame.write_text(_FRAME.format(address=address, width=width, height=height))
        flags = ("--allow-file-access-from-files", "--virtual-time-budget=2000")
        seen = self.look(frame, max(width, 500), height, *flags)
        found = seen.dom.partition("<title>width ")[2].partition("<")[0]
        return seen._replace(pixels=seen.pixels[:, :width]), int(found)


class _Proxy:
    """Keeps the first line of every request, and answers none."""

    def __enter__(self) -> _Proxy:
        self.asked: list[bytes] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self.asked.append(connection.recv(1000).partition(b"\r\n")[0])
                except OSError:
                    self.asked.append(b"")

    def __exit__(self, *error: object) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(timeout=10)
