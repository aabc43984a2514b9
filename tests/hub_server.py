"""A small hub on this machine: the routes of Hugging Face's that pushing and loading use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories as dicts of files.

    Attributes:
        files: content by name, by repository.
        asked: method and path of every request.
        breaks: whether connections break in the middle of a file.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.breaks = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Routes(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.breaks and len(content) > 1 << 16:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _json(self, tree: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(tree).encode(), status, Content_Type="application/json", **headers)

    def _missing(self, what: str) -> None:
        self._json({"error": "not found"}, 404, X_Error_Code=what, X_Error_Message="not found")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[3])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+|/tree/\w+)?", path):
            self._about(found[1], "/tree/" in path)
        else:
            self._missing("")

    def _file(self, repo: str, name: str) -> None:
        files = self.server.files.get(repo)
        if files is None:
            self._missing("RepoNotFound")
        elif name not in files:
            self._missing("EntryNotFound")
        else:
            etag = hashlib.sha1(files[name]).hexdigest()
            self._send(files[name], ETag=f'"{etag}"', X_Repo_Commit=_commit(files))

    def _about(self, repo: str, tree: bool) -> None:
        files = self.server.files.get(repo)
        if files is None:
            self._missing("RepoNotFound")
        elif tree:
            sums = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
            self._json([{"type": "file", "path": name, "size": len(files[name]), "oid": oid}
                        for name, oid in sums.items()])  # fmt: skip
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repo, "modelId": repo, "sha": _commit(files), "siblings": siblings,
                        "private": False, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.server.asked.append(f"POST {path}")
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            names = [f["path"] for f in json.loads(body)["files"]]
            self._json({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False}
                                  for name in names]})  # fmt: skip
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._missing("")

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else ""
        if self.headers.get("Authorization") != "Bearer good":
            self._json({"error": "Invalid username or password."}, 401)
        elif repo in self.server.files:
            self._json({"error": "exists", "url": f"{self.server.url}/{repo}"}, 409)
        else:
            self.server.files[repo] = {".gitattributes": b""}
            self._json({"url": f"{self.server.url}/{repo}", "name": repo})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.files[repo]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        oid = _commit(files)
        url = f"{self.server.url}/{repo}/commit/{oid}"
        self._json({"commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _commit(files: dict[str, bytes]) -> str:
    content = repr(sorted((name, hashlib.sha1(c).hexdigest()) for name, c in files.items()))
    return hashlib.sha1(content.encode()).hexdigest()


@contextmanager
def local_hub() -> Iterator[Hub]:
    """A hub that answers until the block is over."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
