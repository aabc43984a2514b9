"""A study's results as a page of Markdown: tables of means over seeds, findings, pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pagoda.results.derived import with_derived
from pagoda.results.markdown import block_text
from pagoda.results.quantities import GROUPS
from pagoda.results.studies import StudyCard, StudyResults, StudyRow
from pagoda.results.study_tables import study_tables

SUMMARY = "summary.md"


def write_summary(folder: Path, card: StudyCard, rows: Iterable[StudyRow]) -> None:
    """Write ``summary.md``: every value of ``results.csv``, a table a kind of quantity."""
    study = with_derived(StudyResults(card, tuple(rows), folder))
    parts = [
        f"# {card.title}",
        card.question,
        f"**Rule, fixed before the run.** {card.rule}",
        f"Profile `{card.profile}`; {card.data}; code `{card.revision}`.",
    ]
    for group, table in study_tables(study).items():
        parts += [f"## {GROUPS[group].capitalize()}", block_text(table)]
    if card.findings:
        parts += ["## Signatures of failure", "\n".join(f"- {text}" for text in card.findings)]
    parts += [f"![{f.alt}]({f.file})\n\n*{f.caption}*" for f in card.figures]
    (folder / SUMMARY).write_text("\n\n".join(parts) + "\n", "utf-8")
