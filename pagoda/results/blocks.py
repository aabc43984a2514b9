"""A report as plain blocks, and its printers: Markdown, CSV and LaTeX; HTML is :mod:`.page`.

Text is Markdown with three inline marks only: ``**strong**``, ````code```` and ``[text](file)``, a
file relative to the report's folder.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and its provenance (shown on hover)."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption: what it holds, under which protocol, n and seed."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str  # l or r a column

    def __post_init__(self) -> None:
        widths = {len(self.header), len(self.align), *(len(row) for row in self.rows)}
        if len(widths) != 1:
            raise ValueError(f"table {self.caption!r}: rows of {sorted(widths)} cells")


@dataclass(frozen=True)
class Figure:
    """A PNG, relative to the report's folder."""

    file: str
    caption: str
    alt: str  # for readers who cannot see it
    width: int  # CSS pixels at which its text is readable
    plot: bool = False  # lines, bars and type, whose colours a dark page turns; images stay


_PLOTS = ("curves-", "distances-", "cost.")


def figure_tree(tree: Any) -> Any:
    """A :class:`Figure` as JSON has it; the file's name tells of one stored without ``plot``."""
    if isinstance(tree, dict) and "plot" not in tree:
        return tree | {"plot": str(tree.get("file")).startswith(_PLOTS)}
    return tree


@dataclass(frozen=True)
class Pair:
    """A picture without text whose left half is real images and whose right half generated ones."""

    title: str  # above it
    file: str  # relative to the report's folder
    alt: str
    rows: tuple[str, ...]  # what each line of it shows
    halves: tuple[str, ...]  # what its halves show; one: it has no halves


_Picture = TypeVar("_Picture", Figure, Pair)


def seen_from(folder: Path, home: Path, picture: _Picture) -> _Picture:
    """A picture of the report in ``home`` for a document in ``folder``."""
    return replace(picture, file=os.path.relpath(home / picture.file, folder))


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, and one below the other on a phone."""

    pairs: tuple[Pair, ...]
    caption: str


@dataclass(frozen=True)
class Chart:
    """A drawing that the page makes from data, which can be zoomed."""

    title: str
    spec: Mapping[str, Any]  # Vega-Lite
    alt: str


@dataclass(frozen=True)
class Charts:
    """Charts of one kind. Text and CSV say the same elsewhere: only the page has them."""

    charts: tuple[Chart, ...]
    caption: str


@dataclass(frozen=True)
class Mark:
    """An effect in a line of a :class:`Forest`: places in percent of the width."""

    outcome: str
    sign: str  # of the outcome
    low: float
    middle: float
    high: float
    title: str  # on hover


@dataclass(frozen=True)
class Span:
    """A line of a :class:`Forest`: what it is about, and its effects."""

    text: str
    effect: str  # in numbers; empty if there are several
    marks: tuple[Mark, ...]
    title: str  # on hover


@dataclass(frozen=True)
class Axis:
    """Lines of a :class:`Forest` with one scale."""

    title: str
    limit: float  # where the effect turns, in percent of the width
    ticks: tuple[tuple[float, str], ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Forest:
    """Effects with their intervals, one below the other. Only the page has it, beside a table."""

    axes: tuple[Axis, ...]
    counts: tuple[tuple[str, int], ...]  # how many marks have each outcome
    caption: str


Block = str | Table | Figure | Gallery | Charts | Forest
_RIGHT = ("NFE", "n", "Seed", "Seeds")  # leading columns of a grid that are numbers


@dataclass(frozen=True)
class Section:
    """A headed run of paragraphs, tables and figures."""

    title: str
    blocks: tuple[Block, ...]
    folded: str = ""  # what the page shows while the section is folded; empty: it is not folded
    group: str = ""  # folded sections of one group stand under one head


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    lead: tuple[Block, ...] = ()  # what the first screen shows
    more: str = ""  # after the summary, smaller

    @property
    def figures(self) -> list[Figure]:
        """Every picture, in order."""
        return [b for s in self.sections for b in s.blocks if isinstance(b, Figure)]


def table(caption: str, header: Sequence[str], rows: Iterable[Iterable[str | Cell]],
          align: str = "") -> Table:  # fmt: skip
    """A table of texts or cells; without ``align`` the first column is left, the others right."""
    cells = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(caption, tuple(header), cells, align or "l" + "r" * (len(header) - 1))


@dataclass
class Line:
    """A line of a :class:`Grid`: leading texts, values by column, numbers of its sources."""

    head: tuple[str, ...]
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    sources: set[int] = field(default_factory=set)

    def add(self, column: str, *cells: Cell) -> None:
        """Put values into a column; several become one cell."""
        self.cells.setdefault(column, []).extend(cells)


class Grid:
    """Values filled in by line and column, in the order in which those first appear.

    Args:
        heads: names of the leading columns; one without a name is not shown.
        optional: those that are left out where every line has the same text.
        joined: one cell of those that are in one place.
    """

    def __init__(
        self,
        *heads: str,
        optional: Iterable[str] = (),
        joined: Callable[[list[Cell]], Cell] = lambda cells: cells[-1],
    ) -> None:
        self.heads, self.optional, self.joined = heads, set(optional), joined
        self.lines: dict[tuple[object, ...], Line] = {}

    def line(self, *head: str, key: tuple[object, ...] = ()) -> Line:
        """The line of that head (or key), made if there is none."""
        return self.lines.setdefault(key or head, Line(head))

    def table(self, caption: str, first: Iterable[str] = ()) -> Table:
        """Leading columns that say something, columns of values, and sources if there are any.

        Args:
            caption: of the table; ``{same}`` in it becomes what left-out columns say.
            first: columns of values to begin with, even if empty.
        """
        lines = list(self.lines.values())
        columns = list(dict.fromkeys([*first, *(c for line in lines for c in line.cells)]))
        texts = {name: [x.head[i] for x in lines] for i, name in enumerate(self.heads) if name}
        used = {
            name: found for name, found in texts.items()
            if set(found) != {""} and (len(set(found)) > 1 or name not in self.optional)
        }  # fmt: skip
        cited = any(line.sources for line in lines)
        rows = [
            [
                *(found[i] for found in used.values()),
                *(self.joined(line.cells[c]) if c in line.cells else "" for c in columns),
                *([", ".join(map(str, sorted(line.sources)))] if cited else []),
            ]
            for i, line in enumerate(lines)
        ]
        same = [f"{name if name == 'NFE' else name[0].lower() + name[1:]} {found[0]}"
                for name, found in texts.items() if name not in used and any(found)]  # fmt: skip
        caption = caption.replace("{same}", f" In every line: {', '.join(same)}." if same else "")
        header = [*used, *columns, *["Source"] * cited]
        align = "".join("l" if name in used and name not in _RIGHT else "r" for name in header)
        return table(caption, header, rows, align)


def to_markdown(document: Document) -> str:
    """The whole document; pictures are links to files."""
    parts = [f"# {document.title}", document.summary, document.more]
    parts += [block_text(block) for block in document.lead]
    for section in document.sections:
        parts += [f"## {section.title}", *(block_text(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def block_text(block: Block) -> str:
    """One block as Markdown, without an empty line at its end; empty for what only a page has."""
    match block:
        case Charts() | Forest():
            return ""
        case Gallery():
            pictures = "\n".join(f"![{pair.alt}]({pair.file})" for pair in block.pairs)
            return f"{pictures}\n\n*{block.caption}*"
        case Figure():
            return f"![{block.alt}]({block.file})\n\n*{block.caption}*"
        case Table():
            texts = [[c.text.replace("|", "\\|").replace("\n", " ") for c in r] for r in block.rows]
            rule = ["---:" if a == "r" else "---" for a in block.align]
            lines = ("| " + " | ".join(cells) + " |" for cells in [block.header, rule, *texts])
            return "\n".join(lines) + f"\n\n*{block.caption}*"
        case _:
            return block


def plain(text: str) -> str:
    """Text without the marks for strong and code."""
    return re.sub(r"`([^`]+)`", r"\1", re.sub(r"\*\*(.+?)\*\*", r"\1", text))


def to_csv(table: Table) -> str:
    """Header and rows as shown; a column of values is followed by their provenance."""
    titled = [any(row[i].title for row in table.rows) for i in range(len(table.header))]
    header = [(plain(name), f"{plain(name)} provenance") for name in table.header]
    lines = [header, *([(plain(cell.text), cell.title) for cell in row] for row in table.rows)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(
        [text for cell, more in zip(line, titled, strict=True) for text in cell[: 1 + more]]
        for line in lines
    )
    return stream.getvalue()


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "×": r"$\times$",
    "†": r"\textsuperscript{\dag}", "‡": r"\textsuperscript{\ddag}", "–": "--", "−": "$-$",
    "α": r"$\alpha$", "λ": r"$\lambda$", "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "✓": r"$\checkmark$", "✗": r"$\times$", "∞": r"$\infty$",
})  # fmt: skip


def to_latex(table: Table, label: str) -> str:
    """A ``table`` with ``booktabs`` rules (``\\usepackage{booktabs,amssymb,graphicx}``)."""
    lines = [table.header, *([cell.text for cell in row] for row in table.rows)]
    header, *rows = (" & ".join(map(escape, texts)) + r" \\" for texts in lines)
    return "\n".join([
        r"\begin{table}", r"\centering", r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{table.align}}}", r"\toprule", header, r"\midrule", *rows,
        r"\bottomrule", r"\end{tabular}}", rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{label}}}", r"\end{table}", "",
    ])  # fmt: skip


def escape(text: str) -> str:
    """LaTeX of a text with the marks for strong and code."""
    made = ""
    for part in re.split(r"(\*\*.+?\*\*|`[^`]+`)", text):
        if part.startswith("**"):
            made += rf"\textbf{{{escape(part[2:-2])}}}"
        elif part.startswith("`"):
            made += rf"\texttt{{{part[1:-1].translate(_LATEX)}}}"
        else:
            made += part.translate(_LATEX)
    return made
