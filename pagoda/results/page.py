"""A report as one self-contained HTML page: nothing is fetched."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from pagoda.results.blocks import (
    Cell,
    Charts,
    Document,
    Figure,
    Forest,
    Gallery,
    Section,
    Table,
    plain,
)
from pagoda.results.charts import library

_WIDE_FROM, _CARDS_FROM, _PROSE_FROM = 4, 3, 60  # columns, columns, characters
_LARGE = 64_000  # bytes of a picture
_KINDS = {"table": Table, "figure": Figure, "gallery": Gallery, "charts": Charts, "forest": Forest}
_PROTOCOL = re.compile(r"^(.*\S)\s+`([^`]+)`$")


def to_html(document: Document, folder: Path, *, dense: bool = False) -> str:
    """The page, with every picture of ``folder`` embedded as base64.

    Args:
        document: what it says.
        folder: where its pictures are.
        dense: embed large pictures as lossless WebP, a third smaller than PNG, which takes time.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "anchor": anchor,
        "inline": inline,
        "plain": plain,
        "spec": _spec,
        "head": lambda text: inline(re.sub(r" ([↓↑])", "\u00a0\\1", text)),
        "heads": _heads,
        "name": lambda table: plain(table.caption).split(". ")[0].split(": ")[0],
        "verdict": lambda text: {"✓": " good", "✗": " bad"}.get(text[:1], ""),
        "shape": _shape_class,
        "data_uri": lambda file: _data_uri(folder / file, dense),
    }
    for name, kind in _KINDS.items():
        environment.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    shown = [*document.lead, *(b for section in document.sections for b in section.blocks)]
    charted = any(isinstance(block, Charts) for block in shown)
    return environment.get_template("page.html.j2").render(
        document=document,
        groups=_groups(document.sections),
        blocks=environment.get_template("blocks.html.j2").module,
        library=library() if charted else "",
    )


def anchor(title: str) -> str:
    """A title as an address on the page: ``study-base-resolution``."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def inline(text: str) -> Markup:
    """``**strong**``, ````code```` and ``[text](file)`` as HTML, all else escaped.

    Links are to files and to ``http``; text of any other scheme stays text.
    """

    def code(match: re.Match[str]) -> str:
        breakable = re.sub(r"((?<=\w{4})_(?=[^_]{3})|\.(?=[a-z]{5}))", r"\1<wbr>", match[1])
        return f"<code>{breakable}</code>"

    html = re.sub(r"`([^`]+)`", code, str(escape(text)))
    link = r"\[([^][]+)\]\(((?:https?:|(?![^/#]*:))[^()\s]+)\)"
    html = re.sub(link, r'<a href="\2">\1</a>', html)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html))


def _groups(sections: tuple[Section, ...]) -> list[tuple[str, list[Section]]]:
    """Neighbouring sections of one group under its name."""
    return [(g, list(own)) for g, own in itertools.groupby(sections, lambda s: s.group)]


def _heads(table: Table) -> list[Cell]:
    """Heads without the protocol, which shows on hover, where they still tell columns apart."""
    found = [_PROTOCOL.match(head) for head in table.header]
    short = [match[1] if match else head
             for match, head in zip(found, table.header, strict=True)]  # fmt: skip
    seen = Counter(short)
    return [
        Cell(text, f"protocol: {match[2]}") if match and seen[text] == 1 else Cell(head)
        for text, match, head in zip(short, found, table.header, strict=True)
    ]


def _shape_class(table: Table) -> str:
    """``wide``: scrolls under a fixed first column; ``cards``: its lines are cards on a phone;
    ``prose``: its first column is sentences.
    """
    wide = "wide" if len(table.header) > _WIDE_FROM else ""
    cards = "cards" if len(table.header) >= _CARDS_FROM else ""
    prose = "prose" if any(len(row[0].text) > _PROSE_FROM for row in table.rows) else ""
    return " ".join(filter(None, (wide, cards, prose)))


def _spec(spec: Mapping[str, Any]) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _data_uri(path: Path, dense: bool) -> str:
    kind, data = "png", path.read_bytes()
    if dense and len(data) > _LARGE:
        stream = io.BytesIO()
        with Image.open(path) as image:
            opaque = "RGBA" if image.mode == "RGBA" else "RGB"
            image.convert(opaque).save(stream, "WEBP", lossless=True, method=2)
        kind, data = min(("webp", stream.getvalue()), (kind, data), key=lambda found: len(found[1]))
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
