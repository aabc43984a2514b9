"""A real ``mlflow server`` on the loopback interface: tracking to it, and what its pages show."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib import metadata
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
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "pagoda",
               "--host", "127.0.0.1", "--workers", "1",
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
        assert page.startswith(f"http://{server}/#/experiments/")
        assert "/runs?workflowType=machine_learning&" in page
        assert "s3cret" not in told and "alice" not in told


def test_mlflows_first_page_is_as_it_was_but_for_the_choices() -> None:
    (entry,) = metadata.entry_points(group="mlflow.app", name="pagoda")
    assert entry.load().title == "MLflow Tracking Server"
    from pagoda.results import training_view

    served = training_view.pages.test_client().get("/")
    assert served.status_code == 200 and served.mimetype == "text/html"
    before, script, after = served.text.partition(training_view.CHOICES)
    index = Path(training_view.pages.static_folder or "", "index.html")
    assert script and before + after == index.read_text(encoding="utf-8")
    assert before.count("<script") == before.count("<script defer")  # these run after ours
    assert training_view.first_page("another form") == "another form"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
def test_a_fresh_browser_opens_on_model_training(server: str, tmp_path: Path) -> None:
    """The menu has no prompts of language models, which is MLflow's own first choice."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
               f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom",
               f"http://{server}/"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "#/experiments" in done.stdout and "#/models" in done.stdout
    assert "#/prompts" not in done.stdout
