"""A report as Markdown with links to its pictures."""

from __future__ import annotations

from pagoda.results.document import Block, Document, Figure, Table


def to_markdown(document: Document) -> str:
    """The whole document; pictures are links to files in the same folder."""
    parts = [f"# {document.title}", document.summary]
    for section in document.sections:
        parts += [f"## {section.title}", *(block_text(block) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def block_text(block: Block) -> str:
    """One block, without an empty line at its end."""
    match block:
        case Table():
            return _table(block)
        case Figure():
            return f"![{block.alt}]({block.file})\n\n*{block.caption}*"
        case _:
            return block


def _table(table: Table) -> str:
    rule = ["---:" if a == "r" else "---" for a in table.align]
    lines = [_line(list(table.header)), _line(rule)]
    lines += [_line([_escape(cell.text) for cell in row]) for row in table.rows]
    return "\n".join(lines) + f"\n\n*{table.caption}*"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
