"""Tables as CSV and LaTeX; Markdown and HTML are printed by :mod:`pagoda.results`."""

from __future__ import annotations

import csv
import io
import re

from pagoda.results.document import Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "×": r"$\times$",
    "†": r"\textsuperscript{\dag}", "‡": r"\textsuperscript{\ddag}", "–": "--", "−": "$-$",
    "α": r"$\alpha$", "λ": r"$\lambda$", "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "✓": r"$\checkmark$", "✗": r"$\times$",
}  # fmt: skip


def plain(text: str) -> str:
    """Text without the two inline marks."""
    return re.sub(r"`([^`]+)`", r"\1", re.sub(r"\*\*(.+?)\*\*", r"\1", text))


def to_csv(table: Table) -> str:
    """Header and rows as shown; each value column is followed by its provenance."""
    titled = [any(row[i].title for row in table.rows) for i in range(len(table.header))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header: list[str] = []
    for name, more in zip(table.header, titled, strict=True):
        header += [plain(name), f"{plain(name)} provenance"] if more else [plain(name)]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for cell, more in zip(row, titled, strict=True):
            line += [plain(cell.text), cell.title] if more else [plain(cell.text)]
        writer.writerow(line)
    return stream.getvalue()


def to_latex(table: Table, label: str) -> str:
    """A ``table`` with ``booktabs`` rules (``\\usepackage{booktabs,amssymb,graphicx}``)."""
    lines = [
        r"\begin{table}", r"\centering", r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{table.align}}}", r"\toprule",
        _line([escape(h) for h in table.header]), r"\midrule",
        *(_line([escape(cell.text) for cell in row]) for row in table.rows),
        r"\bottomrule", r"\end{tabular}}",
        rf"\caption{{{escape(table.caption)}}}", rf"\label{{tab:{label}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """LaTeX of a text with the two inline marks."""
    parts = re.split(r"(\*\*.+?\*\*|`[^`]+`)", text)
    return "".join(_marked(part) for part in parts)


def _marked(part: str) -> str:
    if part.startswith("**"):
        return rf"\textbf{{{escape(part[2:-2])}}}"
    if part.startswith("`"):
        return rf"\texttt{{{_escaped(part[1:-1])}}}"
    return _escaped(part)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
