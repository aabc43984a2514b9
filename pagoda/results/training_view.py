"""MLflow's own pages, opened on model training: ``mlflow ui --app-name pagoda``.

MLflow has two menus, GenAI and Model training, keeps the choice in the browser and begins with
GenAI, whatever the tags of an experiment say. This app (entry point ``mlflow.app``) is MLflow's
server, whose first page puts Model training and the list of experiments first and leaves the
assistant's panel closed. What a reader has chosen stays.
"""

from __future__ import annotations

from pathlib import Path

from mlflow.server import app as pages
from mlflow.server.fastapi_app import app

__all__ = ["CHOICES", "app", "first_page", "pages"]

CHOICES = """<script>
localStorage["mlflow.workflowType_v1"] ??= '"machine_learning"';
localStorage["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"] ??= "true";
if (!location.hash) location.hash = "#/experiments";
</script>"""
_INDEX, _VIEW = Path(pages.static_folder or "", "index.html"), "serve"  # MLflow's name of its view


def first_page(html: str) -> str:
    """MLflow's page, with the choices made before its own scripts run."""
    return html.replace("</head>", f"{CHOICES}</head>", 1)


def _serve() -> str:
    return first_page(_INDEX.read_text(encoding="utf-8"))


if _VIEW in pages.view_functions and _INDEX.is_file():
    pages.view_functions[_VIEW] = _serve
