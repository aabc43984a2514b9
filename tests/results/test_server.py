"""Tracking to a real ``mlflow server`` on the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagoda.config import Config
from tests.tiny import ROOT


@pytest.fixture
def server(blank_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server with an empty store."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    store = folder / "served.db"
    store.write_bytes(blank_store.read_bytes())
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
               "--port", host.partition(":")[2], "--backend-store-uri", f"sqlite:///{store}",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as p:
        end = time.monotonic() + 300
        while not _answers(host):
            assert time.monotonic() < end and p.poll() is None, (folder / "log").read_text("utf-8")
            time.sleep(0.1)
        yield host
        p.terminate()


def _answers(host: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{host}/health", timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_the_hint_is_the_servers_own_page_and_no_password_is_printed(
    copy: Config, server: str
) -> None:
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"http://alice:s3cret@{server}",
        "PYTHONPATH": str(ROOT),
    }
    code = (
        "from tests.results.synthetic import make_config\n"
        "from pagoda.pipeline.stages import track\n"
        "track.run(make_config(base_res=32))"
    )
    for verb in ("added to", "already in"):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                              text=True, check=True)  # fmt: skip
        told = done.stdout + done.stderr
        assert f"{verb} MLflow: experiment pagoda-smoke" in told
        page = told.split("to look at it: ")[1].strip()
        assert page.startswith(f"http://{server}/#/experiments/") and page.endswith("/runs")
        assert "s3cret" not in told and "alice" not in told
