"""A report as plain blocks, printed as Markdown or HTML by other modules.

Text is Markdown with three inline marks only: ``**strong**``, ````code```` and ``[text](file)``, a
file relative to the report's folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell: what it shows, and its provenance (shown on hover)."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Attributes:
        caption: what it holds, under which protocol, n and seed.
        header: column heads.
        rows: cells, each row as long as ``header``.
        align: one of ``l`` and ``r`` a column.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str

    def __post_init__(self) -> None:
        widths = {len(self.header), len(self.align), *(len(row) for row in self.rows)}
        if len(widths) != 1:
            raise ValueError(f"table {self.caption!r}: rows of {sorted(widths)} cells")


@dataclass(frozen=True)
class Figure:
    """A picture in the report folder.

    Attributes:
        file: name of the PNG.
        caption: what it shows, under which protocol, n and seed.
        alt: short text for readers who cannot see it.
        width: natural width in CSS pixels, at which its text is readable.
    """

    file: str
    caption: str
    alt: str
    width: int


Block = str | Table | Figure


@dataclass(frozen=True)
class Section:
    """A headed run of paragraphs, tables and figures."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    summary: str
    sections: tuple[Section, ...]

    @property
    def figures(self) -> list[Figure]:
        """Every picture, in order."""
        return [b for s in self.sections for b in s.blocks if isinstance(b, Figure)]
