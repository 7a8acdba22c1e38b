"""Local servers over the files of a folder: one of the web, one that speaks S3."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class RangeHandler(SimpleHTTPRequestHandler):
    """Files of a folder, whole or in parts; remembers what was asked."""

    def __init__(self, *args, asked, **kwargs):
        self.asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self):
        part = self.headers.get("Range")
        self.asked.append((self.path, part))
        path = Path(self.translate_path(self.path))
        if part is None or not path.is_file():
            return super().do_GET()
        first, last = map(int, part.removeprefix("bytes=").split("-"))
        content = path.read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextmanager
def web_server(folder):
    """Serve a folder; yields its URL, and the list of what is asked of it."""
    asked = []
    handler = partial(RangeHandler, directory=str(folder), asked=asked)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@contextmanager
def s3_server(folder):
    """Put the files of a folder into a bucket; yields its URL."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    before = {name: os.environ.get(name) for name in names}
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    try:
        server.start()
    except OSError as error:
        pytest.skip(f"the S3-like server cannot start here: {error}")
    host, port = server.get_host_and_port()
    os.environ.update(
        zip(names, (f"http://{host}:{port}", "key", "secret", "us-east-1"), strict=True)
    )
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    for path in Path(folder).rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "pictures", f"sets/one/{path.relative_to(folder)}")
    yield "s3://pictures/sets/one"
    client.close()
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def closed_port():
    """A port of this machine at which nobody answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()[1]
