"""A report as one self-contained HTML page: pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from pagoda.report.document import Document, Figure, Table

_TEMPLATE = "page.html.j2"
_WIDE_FROM, _PROSE_FROM = 4, 60  # columns, characters


def to_html(document: Document, folder: Path) -> str:
    """The page, with every picture of ``folder`` embedded as base64."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "inline": inline,
        "verdict": _verdict_class,
        "shape": _shape_class,
        "data_uri": lambda file: _data_uri(folder / file),
    }
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "figure": lambda block: isinstance(block, Figure),
    }
    return environment.get_template(_TEMPLATE).render(document=document)


def inline(text: str) -> Markup:
    """``**strong**``, ````code```` and ``[text](file)`` as HTML, all else escaped."""
    html = str(escape(text))
    html = re.sub(r"`([^`]+)`", _code, html)
    html = re.sub(r"\[([^][]+)\]\(([^()\s]+)\)", r'<a href="\2">\1</a>', html)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html))


def _code(match: re.Match[str]) -> str:
    breakable = re.sub(r"(_(?=[^_]{3})|\.(?=[a-z]{5}))", r"\1<wbr>", match[1])
    return f"<code>{breakable}</code>"


def _shape_class(table: Table) -> str:
    """``wide``: scrolls under a fixed first column; ``prose``: its first column is sentences."""
    wide = "wide" if len(table.header) > _WIDE_FROM else ""
    prose = "prose" if any(len(row[0].text) > _PROSE_FROM for row in table.rows) else ""
    return f"{wide} {prose}".strip()


def _verdict_class(text: str) -> str:
    return {"✓": " good", "✗": " bad"}.get(text[:1], "")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
