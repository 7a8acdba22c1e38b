"""A stand-in for the Hugging Face Hub on this machine: the few answers that its client needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


def point_to(url, monkeypatch):
    """Let the client of the hub in this process ask a server."""
    from huggingface_hub import constants, file_download, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download, hf_api):
        if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def be_offline(monkeypatch, offline=True):
    """What HF_HUB_OFFLINE does when the client is imported."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    getattr(_http, "reset_sessions", lambda: None)()  # old versions keep it in their sessions


class Repository:
    """Files by commit; the newest is ``main``."""

    def __init__(self, private=False):
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}

    def commit(self, files):
        now = {**self.files("main"), **files} if self.commits else dict(files)
        name = hashlib.sha1(repr((len(self.commits), sorted(now.items()))).encode()).hexdigest()
        self.commits[name] = now
        return name

    def find(self, revision):
        return list(self.commits)[-1] if revision == "main" else revision

    def files(self, revision):
        return self.commits[self.find(revision)]


class Hub:
    """Repositories, and every request that was made: ``GET model.safetensors``."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def answer(self, status=200, content=b"", **headers):
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def missing(self, code):
                self.answer(404, {"error": code}, X_Error_Code=code)

            def do_GET(self):
                hub.asked.append(f"{self.command} {self.path}")
                parts = self.path.partition("?")[0].strip("/").split("/")
                if parts[:2] == ["api", "whoami-v2"]:
                    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        return self.answer(401, {"error": "no such token"})
                    return self.answer(content={"name": "someone", "type": "user", "auth": {}})
                if parts[:2] == ["api", "models"]:
                    return self.about("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
                if len(parts) > 4 and parts[2] == "resolve":
                    return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
                return self.missing("EntryNotFound")

            do_HEAD = do_GET

            def about(self, name, revision):
                found = hub.repositories.get(name)
                if found is None:
                    return self.missing("RepoNotFound")
                sha = found.find(revision) if found.commits else None
                files = found.files(revision) if found.commits else {}
                about = {"id": name, "modelId": name, "sha": sha, "private": found.private}
                names = [{"rfilename": file} for file in files]
                return self.answer(content={**about, "siblings": names, "tags": []})

            def file(self, name, revision, file):
                found = hub.repositories.get(name)
                if found is None:
                    return self.missing("RepoNotFound")
                commit = found.find(revision)
                if commit not in found.commits:
                    return self.missing("RevisionNotFound")
                about = {"X_Repo_Commit": commit}
                if file not in found.commits[commit]:
                    return self.answer(404, b"", X_Error_Code="EntryNotFound", **about)
                content = found.commits[commit][file]
                tag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.answer(content=content, ETag=tag, **about)

            def do_POST(self):
                hub.asked.append(f"POST {self.path}")
                size = self.headers.get("Content-Length")
                body = self.rfile.read(int(size)) if size is not None else self.chunks()
                parts = self.path.partition("?")[0].strip("/").split("/")
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer(401, {"error": "no such token"})
                if self.path == "/api/validate-yaml":
                    return self.answer(content={"errors": [], "warnings": []})
                if self.path == "/api/repos/create":
                    asked = json.loads(body)
                    name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
                    if name in hub.repositories:
                        about = {"error": "it exists", "url": f"{hub.url}/{name}"}
                        return self.answer(409, about)
                    private = asked.get("private") or asked.get("visibility") == "private"
                    hub.repositories[name] = Repository(bool(private))
                    hub.repositories[name].commit({".gitattributes": b""})
                    return self.answer(content={"url": f"{hub.url}/{name}", "id": name})
                name = "/".join(parts[2:4])
                if parts[4] == "preupload":
                    files = [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]
                    return self.answer(content={"files": files})
                lines = [json.loads(line) for line in body.splitlines()]
                assert {line["key"] for line in lines} <= {"header", "file"}  # nothing is deleted
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                commit = hub.repositories[name].commit(files)
                url = f"{hub.url}/{name}/commit/{commit}"
                about = {"success": True, "commitUrl": url, "commitOid": commit}
                return self.answer(content={**about, "hookOutput": ""})

            def chunks(self):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, **files):
        """Add files, by names with ``__`` for the dot; returns the commit."""
        repository = self.repositories.setdefault(name, Repository())
        return repository.commit({k.replace("__", "."): v for k, v in files.items()})

    def use(self, monkeypatch, cache):
        """Let the client of the hub in this process ask here, with an empty cache."""
        from huggingface_hub import constants

        point_to(self.url, monkeypatch)

        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        be_offline(monkeypatch, False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        return self

    def downloads(self):
        """Names of files that were fetched, each as often as it was."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET /")
                and "/resolve/" in line]  # fmt: skip
