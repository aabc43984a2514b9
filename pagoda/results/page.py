"""A report as one self-contained HTML page: pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from pagoda.results.blocks import Document, Figure, Table

_WIDE_FROM, _PROSE_FROM = 4, 60  # columns, characters
_LARGE = 64_000  # bytes of a picture


def to_html(document: Document, folder: Path, *, dense: bool = False) -> str:
    """The page, with every picture of ``folder`` embedded as base64.

    Args:
        document: what it says.
        folder: where its pictures are.
        dense: embed large pictures as lossless WebP, a third smaller than PNG, which takes time.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "inline": inline,
        "head": lambda text: inline(re.sub(r" ([↓↑])", "\u00a0\\1", text)),
        "verdict": lambda text: {"✓": " good", "✗": " bad"}.get(text[:1], ""),
        "shape": _shape_class,
        "data_uri": lambda file: _data_uri(folder / file, dense),
    }
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "figure": lambda block: isinstance(block, Figure),
    }
    return environment.get_template("page.html.j2").render(document=document)


def inline(text: str) -> Markup:
    """``**strong**``, ````code```` and ``[text](file)`` as HTML, all else escaped."""

    def code(match: re.Match[str]) -> str:
        breakable = re.sub(r"((?<=\w{4})_(?=[^_]{3})|\.(?=[a-z]{5}))", r"\1<wbr>", match[1])
        return f"<code>{breakable}</code>"

    html = re.sub(r"`([^`]+)`", code, str(escape(text)))
    html = re.sub(r"\[([^][]+)\]\(([^()\s]+)\)", r'<a href="\2">\1</a>', html)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html))


def _shape_class(table: Table) -> str:
    """``wide``: scrolls under a fixed first column; ``prose``: its first column is sentences."""
    wide = "wide" if len(table.header) > _WIDE_FROM else ""
    prose = "prose" if any(len(row[0].text) > _PROSE_FROM for row in table.rows) else ""
    return f"{wide} {prose}".strip()


def _data_uri(path: Path, dense: bool) -> str:
    kind, data = "png", path.read_bytes()
    if dense and len(data) > _LARGE:
        stream = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(stream, "WEBP", lossless=True, method=2)
        kind, data = min(("webp", stream.getvalue()), (kind, data), key=lambda found: len(found[1]))
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
