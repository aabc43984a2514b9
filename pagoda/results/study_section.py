"""A study on the page of everything: question, verdicts, what failed, what is nearest, numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagoda.evaluation.metrics.failure import BLUR, GRADIENT_SPREAD, LOGIT_GAP, LOST_DETAIL
from pagoda.results.claims import Judgement
from pagoda.results.document import Block, Cell, Figure, Table
from pagoda.results.figures import draw_study, drawn_panels, panels_of
from pagoda.results.intervals import CONFIDENCE, t_interval
from pagoda.results.ledger import study_links, study_verdicts
from pagoda.results.measured import DISTANCES, METRICS, size_label
from pagoda.results.quantities import GROUPS, OWN
from pagoda.results.studies import StudyResults, StudyRow
from pagoda.results.study_tables import arm_cell

_FAILURE = re.compile(r"(.*), growth to (\d+×\d+): (.*) \((\d+ of \d+) seeds\)")
_THRESHOLDS = (
    f"Blur: less than {BLUR:g} of real images' high-frequency energy. Lost detail: less than "
    f"{LOST_DETAIL:g} of the recall of held-out real images. Unstable gradients: largest norm "
    f"beyond {GRADIENT_SPREAD:g} medians. Discriminator wins: mean logit gap beyond {LOGIT_GAP:g}. "
    "Conventions, fixed before the runs."
)


def file_name(study: StudyResults, group: str) -> str:
    """Of the files of a study's table or figure."""
    return f"study-{study.card.profile}-{study.card.study}-{group}"


def study_title(study: StudyResults) -> str:
    """Head of its section."""
    return f"Study: {study.card.title.lower()} ({study.card.profile})"


def study_blocks(
    study: StudyResults, judgements: Sequence[Judgement], named: dict[str, Table], folder: Path
) -> tuple[Block, ...]:
    """Question, verdicts, and for every kind of quantity the figure and the table.

    Args:
        study: with derived rows.
        judgements: of all studies.
        named: every table by the name of its files.
        folder: of the page; figures are drawn into it.
    """
    card = study.card
    links = study_links(card.study, study, folder)
    mine = [j for j in judgements if j.study is not None and j.study.folder == study.folder]
    blocks: list[Block] = [f"**{card.question}** {card.rule} Study: {links}."]
    blocks += [study_verdicts(mine)] if mine else []
    blocks += [*nearest_tables(study), *_failures(study)]
    for group, what in GROUPS.items():
        name = file_name(study, group)
        if (width := draw_study(study, group, folder / f"{name}.png")) is not None:
            alt = f"Results of the study {card.study}: {what}"
            blocks.append(Figure(f"{name}.png", _drawn(study, group, named[name]), alt, width))
        blocks += [named[name]] if name in named else []
    for figure in card.figures:
        file = os.path.relpath(study.folder / figure.file, folder)
        blocks.append(Figure(file, f"{figure.caption} {_ran(study)}", figure.alt, figure.width))
    return tuple(blocks)


@dataclass(frozen=True)
class _Ranked:
    """An arm's values at one resolution, seed by seed."""

    label: str
    rows: tuple[StudyRow, ...]

    @property
    def mean(self) -> float:
        return t_interval([row.value for row in self.rows]).mean


def nearest_tables(study: StudyResults) -> list[Table]:
    """Which arm is nearest to the data, and which furthest, at every resolution, by protocol.

    Only arms' own generators, only where at least two arms were measured under one protocol
    against one reference. Claims ask a question each; this says what came out on the whole.
    """
    own = [r for r in study.rows if r.metric in DISTANCES and r.generator in OWN]
    keys = sorted({(r.protocol, r.resolution, r.reference, r.features) for r in own})
    lines = []
    for key in keys:
        held = [r for r in own if (r.protocol, r.resolution, r.reference, r.features) == key]
        ranked = sorted(_ranked(study, held), key=lambda arm: arm.mean)
        if len(ranked) > 1:
            lines.append((f"{key[1]}×{key[1]}", ranked))
    if not lines:
        return []
    metrics = ", ".join(dict.fromkeys(f"{METRICS[r.metric]} `{r.protocol}`" for r in own))
    n, seeds = (", ".join(f"{v:,}" for v in sorted(of)) for of in (
        {r.n for r in own}, {r.seed for r in own}))  # fmt: skip
    caption = (
        f"**Nearest to the data**, lowest mean first: {metrics}, n {n} images, mean over training "
        f"seeds {seeds} ± half of Student's {CONFIDENCE:.0%} interval where there are several. No "
        f"claim rests on it: with intervals that overlap, the order is not settled. {_ran(study)}"
    )
    header = ("Resolution", "Nearest", "Distance", "Second", "Distance", "Furthest", "Distance")
    shown = 7 if any(len(ranked) > 2 for _, ranked in lines) else 5
    rows = tuple(_places(*line)[:shown] for line in lines)
    return [Table(caption, header[:shown], rows, "llrlrlr"[:shown])]


def _ranked(study: StudyResults, rows: Sequence[StudyRow]) -> list[_Ranked]:
    arms = [a for a in study.card.arms if any(r.arm == a for r in rows)]
    by_arm = {a: sorted((r for r in rows if r.arm == a), key=lambda r: r.seed) for a in arms}
    return [_Ranked(study.card.arms[a], tuple(by_arm[a])) for a in arms]


def _places(size: str, ranked: Sequence[_Ranked]) -> tuple[Cell, ...]:
    places = [ranked[0], ranked[1], ranked[-1] if len(ranked) > 2 else None]
    cells = [(Cell(p.label), arm_cell(p.rows)) if p else (Cell(""), Cell("")) for p in places]
    return Cell(size), *(cell for pair in cells for cell in pair)


def _failures(study: StudyResults) -> list[Block]:
    """Signatures of failure, a line an arm and resolution; as text where they read otherwise."""
    findings = study.card.findings
    if not findings:
        return []
    found = [_FAILURE.fullmatch(text) for text in findings]
    names = list(dict.fromkeys(match[3] for match in found if match))
    if None in found:
        return [f"**Signatures of failure.** {'; '.join(findings)}."]
    seen = {(m[1], m[2], m[3]): m[4] for m in found if m}
    rows = tuple(
        (Cell(arm), Cell(size), *(Cell(seen.get((arm, size, name), "–")) for name in names))
        for arm, size in dict.fromkeys((arm, size) for arm, size, _ in seen)
    )
    caption = (
        "**Signatures of failure**, training seeds that show one. Arms and resolutions that show "
        f"none are left out. {_THRESHOLDS} The values are in the tables below. {_ran(study)}"
    )
    return [Table(caption, ("Arm", "Growth to", *(n.capitalize() for n in names)), rows,
                  "lr" + "r" * len(names))]  # fmt: skip


def _drawn(study: StudyResults, group: str, table: Table) -> str:
    """The table's caption, and how it is drawn."""
    metric = study.card.axis_metric
    how = f"every student over its teacher's {metric}; " if metric else ""
    left_out = len(panels_of(study, group)) - len(drawn_panels(study, group))
    more = " The intervals are in the table." if "±" in table.caption else ""
    more += f" Panels that are in the table only: {left_out}." if left_out else ""
    return (
        f"{table.caption} Drawn: {how}a point a training seed, lines or bars at their means, "
        f"logarithmic where values span 8×.{more}"
    )


def _ran(study: StudyResults) -> str:
    card = study.card
    return f"Profile `{card.profile}` ({size_label(card.profile)}), {card.data}."
