"""The claims ledger: ``reports/claims.md`` and the claims section of the page."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pagoda.paper.claims import FILE, FOLDER, OPEN, REFUTED, SUPPORTED, Claim, Judgement, exact
from pagoda.report.document import Block, Cell, Document, Section, Table
from pagoda.report.intervals import CONFIDENCE
from pagoda.report.results import number, size_label
from pagoda.report.studies import StudyResults
from pagoda.report.study_summary import SUMMARY

_MARKS = {SUPPORTED: "✓", REFUTED: "✗", OPEN: "–"}
_METHOD = (
    f"Each rule was fixed in `{FILE}` before the runs, except where it says otherwise: arms, "
    "metric, direction, limit and least number of seeds. The effect is one number a training seed, "
    "from arms that share that seed; a ratio is averaged over logarithms. The interval is "
    f"Student's at {CONFIDENCE:.0%} over seeds "
    "(n − 1 degrees of freedom: wide with few). **Supported**: the whole interval is strictly on "
    "the side that the rule names. **Not supported**: the whole interval is on the other side. "
    "**Not enough evidence**: the limit lies inside the interval, fewer seeds than the rule asks "
    "for have every value, a run of a seed failed or is missing, or nothing was run; of one seed "
    "the value is shown, without interval and without verdict. Counts (FLOPs, parameters, "
    "evaluations) do not depend on the seed and need one. A rule that changed after a run is in "
    "`CHANGELOG.md`. Values of different protocols, references or feature networks are never "
    "compared. No correction is made for judging many claims: of twenty effects that are exactly "
    "at their limits, one interval is expected to miss it."
)
_HEADER = ("Claim", "Verdict", "Effect", f"{CONFIDENCE:.0%} interval", "Limit", "Seeds", "Protocol")
_ALIGN = "llrrrrl"
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
    rows = tuple(
        (*_line(j), Cell(_judged_on(j, folder), f"results in {j.study.folder}" if j.study else ""))
        for j in judgements
    )
    ran = {j.profile: j.study.card.data for j in judgements if j.study is not None}
    data = "; ".join(f"`{p}` ({size_label(p)}): {text}" for p, text in ran.items()) or "nothing"
    caption = (
        "**Claims.** Effect: of the arms that the rule names (table below), its unit that of the "
        "protocol, none for a ratio; the effect of each seed shows on hover and is in `claims.csv`."
        f" Judged on {data}. Ledger made by code `{revision}`."
    )
    return Table(caption, (*_HEADER, "Judged on, study"), rows, _ALIGN + "l")


def study_verdicts(judgements: Sequence[Judgement]) -> Table:
    """The verdicts on one study's claims."""
    rows = tuple(_line(j) for j in judgements)
    caption = "**Claims of this study**, judged as the section on claims says."
    return Table(caption, _HEADER, rows, _ALIGN)


def rule_table(judgements: Sequence[Judgement]) -> Table:
    """What decides each claim, and what would refute it."""
    claims = list(dict.fromkeys(j.claim.id for j in judgements))
    first = {j.claim.id: j.claim for j in reversed(judgements)}
    rows = tuple(
        (Cell(f"`{c.id}`"), Cell(c.source), Cell(_rule(c)), Cell(" ".join(c.refuted.split())))
        for c in (first[name] for name in claims)
    )
    caption = f"**Rules**, from `{FILE}`."
    return Table(caption, ("Claim", "Source", "Rule", "What would refute it"), rows, "llll")


def _rule(claim: Claim) -> str:
    """The rule in words; one that came after a run says what was known then."""
    return claim.rule() + (f". After the run: {claim.after_run}" if claim.after_run else "")


def effect_text(judgement: Judgement) -> tuple[str, str]:
    """Effect and interval as shown; empty where there are none."""
    effect = judgement.effect
    if effect is None:
        return "", ""
    sign = "×" if judgement.claim.effect == "ratio" else ""
    if effect.low == effect.high and exact(judgement.claim):
        return f"{sign}{number(effect.mean)}", "a count"
    if effect.n == 1:
        return f"{sign}{number(effect.mean)}", "one seed: none"
    return f"{sign}{number(effect.mean)}", f"{_end(effect.low)} to {_end(effect.high)}"


def _end(value: float) -> str:
    return number(value) if math.isfinite(value) else "∞"


def study_links(name: str, study: StudyResults | None, folder: Path) -> str:
    """Links from ``folder`` to a study's README and, once it has run, to its summary."""
    files = {name: FOLDER / name / "README.md"}
    if study is not None and (study.folder / SUMMARY).is_file():
        files["results"] = study.folder / SUMMARY
    targets = {text: Path(os.path.relpath(file, folder)).as_posix() for text, file in files.items()}
    return ", ".join(f"[{text}]({target})" for text, target in targets.items())


def _judged_on(judgement: Judgement, folder: Path) -> str:
    links = study_links(judgement.claim.study, judgement.study, folder)
    return f"`{judgement.profile}`, {links}" if judgement.study else f"not run, {links}"


def _line(judgement: Judgement) -> tuple[Cell, ...]:
    claim = judgement.claim
    seeds = "; ".join(f"seed {s}: {v!r}" for s, v in judgement.seeds.items())
    effect, interval = effect_text(judgement)
    reason = f": {judgement.reason}" if judgement.verdict == OPEN else ""
    late = " (Rule written after the run.)" if claim.after_run else ""
    return (
        Cell(f"`{claim.id}` {claim.claim}{late}"),
        Cell(f"{_MARKS[judgement.verdict]} {judgement.verdict}{reason}", judgement.reason),
        Cell(effect, seeds),
        Cell(interval, seeds),
        Cell(claim.side),
        Cell(str(len(judgement.seeds))),
        Cell(f"`{judgement.protocol}`" if judgement.protocol else ""),
    )
