"""The page of ``pagoda prefer serve`` over HTTP.

``/`` is the page, whole in itself, ``/picture/NAME`` a picture, ``/next`` what a voter sees next,
``/vote`` takes their answers. Nothing that the browser is told names a generator. Only the page
itself can vote: requests must be JSON, which pages of others cannot send, and of this origin.
"""

from __future__ import annotations

import ipaddress
import json
import math
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jinja2

import pagoda.preference
from pagoda.errors import PagodaError
from pagoda.preference.study import Study
from pagoda.preference.votes import LONGEST_NAME, Store, check_answers, check_voter

_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LARGEST = 1 << 16  # bytes of a request
_CRISP = 256  # pixels a side below which pictures are enlarged without smoothing
_LONGEST = 86_400.0  # seconds that a vote can have taken
_JSON = "application/json"


class _RefusedError(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, line: str) -> None:
        super().__init__(line)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves one study on a socket that listens already.

    Args:
        study: what is asked.
        store: where votes go.
        pictures: the folder of the pictures.
        door: the socket.
        host: as it was typed.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, study: Study, store: Store, pictures: Path, door: socket.socket, host: str
    ) -> None:
        super().__init__(door.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = door
        self.study, self.store, self.pictures = study, store, pictures
        self.page = render(study).encode()
        self.host = host

    def is_here(self, name: str | None) -> bool:
        """Whether a request is to us, by the name of its host.

        A page of others could point a name of its own at this machine, and then vote.
        """
        host = (name or "").rpartition(":")[0].strip("[]") or name
        if host in (self.host, "localhost"):
            return True
        try:
            ipaddress.ip_address(str(host))
        except ValueError:
            return self.host in ("0.0.0.0", "::") and host == socket.gethostname()
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no trouble."""


def serve(study: Study, store: Store, pictures: Path, door: socket.socket, host: str) -> None:
    """Answer requests until Ctrl-C."""
    Server(study, store, pictures, door, host).serve_forever(poll_interval=0.2)


def render(study: Study) -> str:
    """The page of a study."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(pagoda.preference.__file__).parent),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    width, height = max(study.sides)
    return environment.get_template("page.html.j2").render(
        questions=study.questions, longest=LONGEST_NAME, width=width, height=height,
        crisp=max(max(side) for side in study.sides) < _CRISP,
    )  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pagoda", ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, or a picture."""
        self._answered(self._get)

    def do_POST(self) -> None:
        """What comes next, or a vote."""
        self._answered(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not listed: votes are."""

    def _answered(self, answer: Any) -> None:
        try:
            if not self.server.is_here(self.headers.get("Host")):
                raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this is another host")
            answer()
        except _RefusedError as error:
            self._send_json({"error": str(error)}, error.status)
        except PagodaError as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _get(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(self.server.page, "text/html; charset=utf-8", "no-store")
            return
        name = path.removeprefix("/picture/")
        if path == f"/picture/{name}" and name in self.server.study.files:
            content = (self.server.pictures / f"{name}.png").read_bytes()
            self._send(content, "image/png", "private, max-age=31536000, immutable")
            return
        raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self) -> None:
        said = self._read()
        voter, store = check_voter(said.get("voter")), self.server.store
        if self.path == "/vote":
            number, seconds = said.get("trial"), said.get("seconds")
            if not (type(number) is int and isinstance(seconds, int | float)):
                raise PagodaError("a vote says which trial, and how many seconds it took")
            took = float(seconds) if math.isfinite(seconds) else 0.0
            answers = check_answers(said.get("answers"), self.server.study)
            if number > store.position(voter):
                raise _RefusedError(HTTPStatus.CONFLICT, "trials before this one have no vote yet")
            store.add(voter, number, answers, min(max(took, 0.0), _LONGEST))
        elif self.path != "/next":
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
        self._send_json(self._next(voter))

    def _next(self, voter: str) -> dict[str, Any]:
        """What a voter sees now, and the pictures of the trial after it."""
        study, trials = self.server.study, self.server.store.join(voter)
        at = self.server.store.position(voter)
        shown = [
            [f"/picture/{study.picture(t, side)}" for side in (t.left, t.right)]
            for t in trials[at : at + 2]
        ]
        if not shown:
            return {"trial": None, "of": len(trials)}
        ahead = shown[1] if len(shown) > 1 else []
        return {"trial": at, "of": len(trials), "prompt": study.items[trials[at].item].prompt,
                "left": shown[0][0], "right": shown[0][1], "ahead": ahead}  # fmt: skip

    def _read(self) -> dict[str, Any]:
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip()
        length = self.headers.get("Content-Length") or ""
        if not length.isdecimal() or int(length) > _LARGEST:
            self.close_connection = True
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a vote is a few words")
        content = self.rfile.read(int(length))
        origin = self.headers.get("Origin")
        if kind != _JSON or origin not in (None, f"http://{self.headers.get('Host')}"):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "votes come from the page itself, as JSON")
        try:
            said = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise PagodaError("a vote is JSON") from error
        if not isinstance(said, dict):
            raise PagodaError("a vote is JSON with names")
        return said

    def _send_json(self, tree: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(tree).encode(), _JSON, "no-store", status)

    def _send(
        self, content: bytes, kind: str, cache: str, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(content))),
            ("Cache-Control", cache), ("Content-Security-Policy", _POLICY),
            ("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
