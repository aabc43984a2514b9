"""A study's results as a page of Markdown: a table of means over seeds, findings, pictures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from pagoda.report.results import number
from pagoda.report.studies import StudyCard, StudyRow

SUMMARY = "summary.md"


def write_summary(folder: Path, card: StudyCard, rows: Iterable[StudyRow]) -> None:
    """Write ``summary.md``: every value of ``results.csv`` that the card puts first, and more.

    A cell is the mean over seeds; with several seeds it carries their sample standard deviation.
    """
    rows = list(rows)
    parts = [
        f"# {card.title}\n",
        f"{card.question}\n",
        f"**Rule, fixed before the run.** {card.rule}\n",
        f"Profile `{card.profile}`; {card.data}; code `{card.revision}`.\n",
    ]
    for resolution in sorted({row.resolution for row in rows}):
        here = [row for row in rows if row.resolution == resolution]
        parts.append(f"## {resolution}×{resolution}\n")
        parts.append(_table(card, here))
    if card.findings:
        parts.append("## Signatures of failure\n")
        parts.append("\n".join(f"- {finding}" for finding in card.findings) + "\n")
    parts += [f"![{f.alt}]({f.file})\n\n*{f.caption}*\n" for f in card.figures]
    (folder / SUMMARY).write_text("\n".join(parts))


def _table(card: StudyCard, rows: list[StudyRow]) -> str:
    protocols = _columns(card, rows)
    header = ["Arm", "Generator", "NFE", "Seeds", *(f"`{name}`" for name in protocols)]
    lines = [_line(header), _line(["---", "---", *["---:"] * (len(header) - 2)])]
    for arm, label in card.arms.items():
        of_arm = [row for row in rows if row.arm == arm]
        for generator in dict.fromkeys(row.generator for row in of_arm):
            held = [row for row in of_arm if row.generator == generator]
            cells = [_cell([r.value for r in held if r.protocol == name]) for name in protocols]
            if any(cells):
                evaluations = {str(row.nfe) for row in held if row.nfe is not None}
                seeds = str(len({row.seed for row in held}))
                shown = "" if generator == "none" else generator
                lines.append(_line([label, shown, ", ".join(sorted(evaluations)), seeds, *cells]))
    return "\n".join(lines) + "\n"


def _columns(card: StudyCard, rows: list[StudyRow]) -> list[str]:
    """Protocols of the card's metrics first, then those of all others; parts have a figure."""
    order = {metric: i for i, metric in enumerate(card.metrics)}
    found = {(order.get(row.metric, len(order)), row.protocol) for row in rows
             if not row.metric.startswith("part_")}  # fmt: skip
    return [name for _, name in sorted(found)]


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean = number(statistics.fmean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
