"""The claims ledger: ``reports/claims.md`` and the claims section of the page."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pagoda.paper.claims import FILE, OPEN, REFUTED, SUPPORTED, Judgement
from pagoda.paper.intervals import CONFIDENCE
from pagoda.report.document import Block, Cell, Document, Section, Table
from pagoda.report.results import number
from pagoda.report.studies import StudyResults
from pagoda.report.study_summary import SUMMARY

_MARKS = {SUPPORTED: "✓", REFUTED: "✗", OPEN: "–"}
_METHOD = (
    f"Each rule was fixed in `{FILE}` before the runs: arms, metric, direction, limit and least "
    "number of seeds. The effect is one number a training seed, from arms that share that seed; a "
    f"ratio is averaged over logarithms. The interval is Student's at {CONFIDENCE:.0%} over seeds "
    "(n − 1 degrees of freedom: wide with few). **Supported**: the whole interval is strictly on "
    "the side that the rule names. **Not supported**: the whole interval is on the other side. "
    "**Not enough evidence**: the limit lies inside the interval, fewer seeds than the rule asks "
    "for have every value, or nothing was run. Values of different protocols, references or "
    "feature networks are never compared. No correction is made for judging many claims: of "
    "twenty effects that are exactly at their limits, one interval is expected to miss it."
)
_SCOPE = (
    "A verdict holds for the profile and data it was judged on. The scaled-down profiles say "
    "whether a mechanism shows at their size; they neither confirm nor refute the paper's figures "
    "on ImageNet."
)


def ledger_document(judgements: Sequence[Judgement], revision: str, folder: Path) -> Document:
    """The whole ledger as a document of its own, to be kept in ``folder``."""
    return Document(
        title="Claims",
        summary=f"{counted(judgements)} {_SCOPE}",
        sections=(Section("Verdicts", ledger_blocks(judgements, revision, folder)),),
    )


def ledger_blocks(
    judgements: Sequence[Judgement], revision: str, folder: Path
) -> tuple[Block, ...]:
    """Method, verdicts and the rules behind them; links start at ``folder``."""
    return (_METHOD, verdict_table(judgements, revision, folder), rule_table(judgements))


def counted(judgements: Sequence[Judgement]) -> str:
    """How many judgements came out how, in one sentence."""
    counts = Counter(j.verdict for j in judgements)
    idle = sum(not j.profile for j in judgements)
    parts = [f"{counts[v]} {v}" for v in (SUPPORTED, REFUTED, OPEN)]
    more = f" ({idle} of these because nothing was run)" if idle else ""
    return f"**{len(judgements)} judgements: {', '.join(parts)}{more}.**"


def verdict_table(judgements: Sequence[Judgement], revision: str, folder: Path) -> Table:
    """A line a claim, profile and protocol."""
    rows = tuple(_line(j, folder) for j in judgements)
    header = ("Claim", "Verdict", "Effect", f"{CONFIDENCE:.0%} interval", "Rule", "Seeds",
              "Protocol", "Judged on")  # fmt: skip
    caption = (
        "**Claims.** Effect: of the arms that the rule names (table below), its unit that of the "
        "protocol, none for a ratio; the effect of each seed shows on hover and is in `claims.csv`."
        f" Ledger made by code `{revision}`."
    )
    return Table(caption, header, rows, "llrrrrll")


def rule_table(judgements: Sequence[Judgement]) -> Table:
    """What decides each claim, and what would refute it."""
    claims = list(dict.fromkeys(j.claim.id for j in judgements))
    first = {j.claim.id: j.claim for j in reversed(judgements)}
    rows = tuple(
        (Cell(f"`{c.id}`"), Cell(c.source), Cell(c.rule()), Cell(" ".join(c.refuted.split())))
        for c in (first[name] for name in claims)
    )
    caption = f"**Rules**, from `{FILE}`."
    return Table(caption, ("Claim", "Source", "Rule", "What would refute it"), rows, "llll")


def effect_text(judgement: Judgement) -> tuple[str, str]:
    """Effect and interval as shown; empty where there are none."""
    effect = judgement.effect
    if effect is None:
        return "", ""
    sign = "×" if judgement.claim.effect == "ratio" else ""
    if effect.n == 1:
        return f"{sign}{number(effect.mean)}", "no interval from one seed"
    return f"{sign}{number(effect.mean)}", f"{_end(effect.low)} to {_end(effect.high)}"


def _end(value: float) -> str:
    return number(value) if math.isfinite(value) else "∞"


def study_links(name: str, study: StudyResults | None, folder: Path) -> str:
    """Links from ``folder`` to a study's README and, once it has run, to its summary."""
    files = {name: FILE.parent / name / "README.md"}
    if study is not None and (study.folder / SUMMARY).is_file():
        files["results"] = study.folder / SUMMARY
    targets = {text: Path(os.path.relpath(file, folder)).as_posix() for text, file in files.items()}
    return ", ".join(f"[{text}]({target})" for text, target in targets.items())


def _line(judgement: Judgement, folder: Path) -> tuple[Cell, ...]:
    claim, study = judgement.claim, judgement.study
    seeds = "; ".join(f"seed {s}: {v!r}" for s, v in judgement.seeds.items())
    effect, interval = effect_text(judgement)
    limit = f"{'<' if claim.below else '>'} {claim.limit:g}"
    judged = "not run" if study is None else f"`{judgement.profile}`: {study.card.data}"
    where = f"{judged}; study {study_links(claim.study, study, folder)}"
    reason = f": {judgement.reason}" if judgement.verdict == OPEN else ""
    return (
        Cell(f"`{claim.id}` {claim.claim}"),
        Cell(f"{_MARKS[judgement.verdict]} {judgement.verdict}{reason}", judgement.reason),
        Cell(effect, seeds),
        Cell(interval, seeds),
        Cell(limit),
        Cell(str(len(judgement.seeds))),
        Cell(f"`{judgement.protocol}`" if judgement.protocol else ""),
        Cell(where, "" if study is None else f"results in {study.folder}"),
    )
