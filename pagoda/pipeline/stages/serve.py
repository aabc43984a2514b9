"""What ``pagoda serve`` does: a page to try a generator, on this machine.

The page is whole in itself: nothing of it comes from the net, the browser is told to fetch nothing
from there, and nothing is reported to anybody. Files of the machine are not served; uploads and
pictures lie in a folder of their own, which goes when the server ends.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.pipeline.stages.address import is_loopback, listen, url
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.served import Served, open_all

_UPLOAD = "32mb"
_PATIENCE = 2  # seconds that open pages have when the server ends
_POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    b"object-src 'none'"
)


@dataclass(frozen=True)
class Request:
    """The options of ``pagoda serve``."""

    sources: list[str]
    teacher: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7860


def run(request: Request) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        PagodaError: one line, before anything is served: gradio is not installed, the port is in
            use, no generator.
    """
    check_gradio()
    with listen(request.host, request.port) as door:
        served = open_all(request.sources, request.teacher)
        with tempfile.TemporaryDirectory(prefix="pagoda-serve-") as kept:
            os.environ |= {"GRADIO_TEMP_DIR": kept, "GRADIO_ANALYTICS_ENABLED": "False"}
            _serve(served, door, request)


def check_gradio() -> None:
    """Fail before any work if there can be no page.

    Raises:
        PagodaError: the package is not installed.
    """
    if find_spec("gradio") is None:
        raise PagodaError("the page needs the package gradio: 'uv sync --extra serve'")


def _serve(served: Served, door: socket.socket, request: Request) -> None:
    import uvicorn

    config = uvicorn.Config(
        application(served), log_level="warning", access_log=False, ws="none",
        timeout_graceful_shutdown=_PATIENCE,
    )  # fmt: skip
    sides = ", ".join(f"{r} x {r}" for r in served.folders)
    if not is_loopback(door):
        port = door.getsockname()[1]
        log_line(f"whoever reaches port {port} of this machine can use it; there is no password")
    log_line(f"{url(door, request.host)} makes {sides}; Ctrl-C ends it")
    try:
        uvicorn.Server(config).run(sockets=[door])
    except KeyboardInterrupt:
        log_line("ended")


def application(served: Served) -> Any:
    """The page as an ASGI application."""
    import gradio as gr
    from fastapi import FastAPI

    from pagoda.pipeline.stages import page

    silent: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**silent)
    gr.mount_gradio_app(
        app, page.build(served), "/", footer_links=[], run_history=False, app_kwargs=dict(silent),
        allowed_paths=[], show_error=True, max_file_size=_UPLOAD, ssr_mode=False, pwa=False,
        enable_monitoring=False, mcp_server=False, theme=page.THEME, css=page.CSS,
    )  # fmt: skip
    return _told(app)


def _told(app: Callable[..., Any]) -> Callable[..., Any]:
    """The application, whose every answer tells the browser to fetch from nowhere else."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = (b"content-security-policy", _POLICY), (b"referrer-policy", b"no-referrer")
                message = message | {"headers": [*message.get("headers", []), *more]}
            await send(message)

        await app(scope, receive, answer)

    return wrapped
