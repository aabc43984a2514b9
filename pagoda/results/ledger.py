"""The claims ledger: ``reports/claims.md``, ``claims.csv`` and the claims section of the page."""

from __future__ import annotations

import csv
import io
import math
import os
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pagoda.results.blocks import Block, Cell, Document, Section, Table, table
from pagoda.results.claim_verdicts import (
    OPEN,
    REFUTED,
    SUPPORTED,
    Verdict,
    resting_on_one,
    whole_claims,
)
from pagoda.results.claims import FILE, FOLDER, Claim
from pagoda.results.labels import size_label
from pagoda.results.numbers import CONFIDENCE, number
from pagoda.results.studies import StudyResults
from pagoda.results.study_tables import SUMMARY
from pagoda.rows import grouped

MARKS = {SUPPORTED: "✓", REFUTED: "✗", OPEN: "–"}
"""Sign of each outcome: of a line of the ledger and of the drawing."""

_METHOD = (
    f"Each rule was fixed in `{FILE}` before the runs, except where it says otherwise: variants, "
    "metric, direction, limit and least number of seeds. The effect is one number a training seed "
    "(a seed of images and noise, in a study that trains nothing), from variants that share it; a "
    "ratio is averaged over logarithms. The interval is "
    f"Student's at {CONFIDENCE:.0%} over seeds "
    "(n − 1 degrees of freedom: wide with few). **Supported**: the whole interval is strictly on "
    "the side that the rule names, and its middle is as strong as the weakest effect that counts. "
    "**Not supported**: the whole interval is on the other side, or no effect in it is as strong "
    "as the weakest that the rule counts. "
    "**Not enough evidence**: the limit lies inside the interval, fewer seeds than the rule asks "
    "for have every value, a run of a seed failed or is missing, or nothing was run; of one seed "
    "the value is shown, without interval and without verdict. Counts (FLOPs, parameters, "
    "evaluations) do not depend on the seed and need one. A rule that changed after a run is in "
    "`CHANGELOG.md`. Where a claim had been decided before, with fewer seeds or by runs of another "
    "setting, the interval is wider (5 % error shared by the looks). Where every seed has the same "
    "effect, it has no width. How many seeds would decide what is open, one look "
    "later, is for planning alone: another seed moves mean and spread, and even where they stay "
    "the chance is about even. Values of different protocols, references or feature networks are "
    "never compared. **What an interval does not "
    "hold**: seeds of most studies share one teacher, those of growth one student too, and where "
    "a study names one evaluation seed for all of them, its latents; so it says what another "
    "training from that teacher would give, not what another teacher would."
)
_HEADER = ("Claim", "Protocol", "Verdict", "Effect", f"{CONFIDENCE:.0%} interval", "Limit", "Seeds",
           "At each resolution")  # fmt: skip
_ALIGN = "lllrrrrl"
_SCOPE = (
    "A verdict holds for the profile and data it was reached on. The scaled-down profiles say "
    "whether a mechanism shows at their size; they neither confirm nor refute the paper's figures "
    "on ImageNet."
)


def ledger_document(verdicts: Sequence[Verdict], revision: str, folder: Path) -> Document:
    """The whole ledger as a document of its own, to be kept in ``folder``."""
    section = Section("Verdicts", ledger_blocks(verdicts, revision, folder))
    return Document("Claims", f"{counted(verdicts)} {_SCOPE}", (section,))


def ledger_blocks(verdicts: Sequence[Verdict], revision: str, folder: Path) -> tuple[Block, ...]:
    """Method, verdicts and the rules behind them; links start at ``folder``."""
    return (
        _METHOD,
        *multiplicity(verdicts),
        verdict_table(verdicts, revision, folder),
        rule_table(verdicts),
    )


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts there are of each kind, and how many claims."""
    counts, claims = Counter(j.outcome for j in verdicts), whole_claims(verdicts)
    idle = sum(j.effect is None for j in verdicts)
    parts = [f"{counts[v]} {v}" for v in (SUPPORTED, REFUTED, OPEN)]
    more = f" ({idle} of these because nothing was run)" if idle else ""
    found = f"**{len(verdicts)} verdicts: {', '.join(parts)}{more}.**"
    if not claims:
        return found
    return (
        f"{found} A claim has one for every profile, protocol and feature network: of "
        f"{claims.total()} that were tested {claims[SUPPORTED]} are supported everywhere, "
        f"{resting_on_one(verdicts)} of them by a single verdict, "
        f"{claims[REFUTED]} nowhere, {claims[OPEN]} are undecided or come out differently."
    )


def multiplicity(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """What testing many claims means for their number, a paragraph; none without intervals.

    Every verdict with an interval has a one-sided p-value, Student's of its distance from the
    limit, times its looks, for Benjamini and Hochberg's procedure (1995) and Holm's (1979) at the
    error of one side.
    """
    from scipy.stats import false_discovery_control, ttest_1samp

    chances, supported = [], []
    for j in verdicts:
        values = [j.claim.on_scale(value) for value in j.seeds.values()]
        if j.effect is None or len({*values}) < 2:
            continue
        side = "less" if j.claim.below else "greater"
        limit = j.claim.on_scale(j.claim.limit)
        chance = float(ttest_1samp(values, limit, alternative=side).pvalue)
        chances.append(min(1.0, chance * j.claim.looks))
        supported.append(j.outcome == SUPPORTED)
    if not chances:
        return ()
    error, m = (1.0 - CONFIDENCE) / 2, len(chances)
    ranked = sorted(chances)
    wrong = next((p for k, p in enumerate(ranked) if p > error / (m - k)), math.inf)  # Holm 1979
    single = sum(s and p < wrong for s, p in zip(supported, chances, strict=True))
    among = false_discovery_control(chances) <= error
    rate = sum(s and bool(k) for s, k in zip(supported, among, strict=True))
    return (
        f"**Many claims are tested**: {m} verdicts here have an interval that seeds gave a width. "
        f"If every effect were exactly at its limit, {m * error:.1f} of them at most would be "
        f"expected to be false support. Of the {sum(supported)} that are supported, {rate} stay "
        f"where {error:.1%} of what stays may be wrong (Benjamini and Hochberg), and {single} "
        f"where the chance of a single wrong one is {error:.1%} (Holm); claims that share runs are "
        "taken as independent.",
    )


def verdict_table(verdicts: Sequence[Verdict], revision: str, folder: Path) -> Table:
    """A line a claim, profile and protocol; the first of a claim's lines has its words."""
    rows, before = [], dict[str, Claim]()  # claims as the first of their lines had them
    for j in verdicts:
        where = f"`{j.profile}`" if j.study else "not run"
        place = f"{where} ({study_links(j.claim.study, j.study, folder)})"
        first = before.get(j.claim.id)
        before.setdefault(j.claim.id, j.claim)
        told = f"`{j.claim.id}`" if first else _told(j.claim)
        if j.claim.caveat and not (first and first.caveat == j.claim.caveat):
            told += f" Caveat: {_caveat(j.claim)}"
        title = f"results in {j.study.folder}" if j.study else ""
        rows.append((Cell(told), Cell(place, title), *_line(j)))
    ran = {j.profile: j.study.card.data for j in verdicts if j.study is not None}
    data = "; ".join(f"`{p}` ({size_label(p)}): {text}" for p, text in ran.items()) or "nothing"
    caption = (
        "**Claims.** Effect: of the variants that the rule names (table below), its unit that of "
        "the protocol, none for a ratio; at each resolution, its mean there, where a claim is over "
        "several; the effect of each seed shows on hover and is in "
        f"`claims.csv`. Data: {data}. Ledger made by code `{revision}`."
    )
    return table(caption, (_HEADER[0], "Profile", *_HEADER[1:]), rows, "l" + _ALIGN)


def study_verdicts(verdicts: Sequence[Verdict]) -> Table:
    """The verdicts on one study's claims, each told once: with other protocols it has its name.

    Caveats are notes below the table, which they would make tall and narrow.
    """
    notes: dict[str, str] = {}
    rows: list[tuple[Cell, ...]] = []
    for name, (first, *others) in grouped(verdicts, lambda v: v.claim.id).items():
        claim = first.claim
        told = _told(claim)
        if claim.caveat:
            letter = notes.setdefault(_caveat(claim), string.ascii_lowercase[len(notes)])
            told += f" (caveat {letter})"
        rows.append((Cell(told), *_line(first)))
        rows += [(Cell(f"`{name}`"), *_line(other)) for other in others]
    caption = "**Claims of this study**, decided as the section on claims says."
    caption += "".join(f" **{letter}**: {note}" for note, letter in notes.items())
    shown = len(_HEADER) - (not any(row[-1].text for row in rows))  # several resolutions, if any
    return table(caption, _HEADER[:shown], [row[:shown] for row in rows], _ALIGN[:shown])


def rule_table(verdicts: Sequence[Verdict]) -> Table:
    """What decides each claim, and what would refute it; what was known of late rules."""
    claims = {j.claim.id: j.claim for j in verdicts}
    rows = [
        (f"`{c.id}`", c.source,
         c.rule() + (f". After the run: {c.after_run}" if c.after_run else ""), _power(c),
         " ".join(c.refuted.split()))
        for c in claims.values()
    ]  # fmt: skip
    header = ("Claim", "Source", "Rule", "What its seeds can show", "What would refute it")
    caption = (
        f"**Rules**, from `{FILE}`. What its seeds can show: the effect that four of five repeats "
        "of the whole study would find beyond the limit at a first look, if it varies over seeds "
        "as in the earlier run that is named."
    )
    return table(caption, header, rows, "lllll")


def _power(claim: Claim) -> str:
    shown = claim.shown()
    if shown is None:
        return "a count" if claim.exact else "not known before"
    return (
        f"{'×' * (claim.effect == 'ratio')}{number(shown)} or {'less' if claim.below else 'more'} "
        f"(spread {claim.pilot['spread']:g}, {claim.pilot['run']})"
    )


def at_each(verdict: Verdict) -> str:
    """The effect at each resolution that a verdict is over: ``16×16: ×0.31, 32×32: ×1.1``.

    Empty for a claim on one resolution. A mean over several may be on the claim's side while the
    effect at one of them is not.
    """
    times = "×" * (verdict.claim.effect == "ratio")
    return ", ".join(f"{n}×{n}: {times}{number(v)}" for n, v in verdict.sizes.items())


def claims_csv(verdicts: Sequence[Verdict]) -> str:
    """Every verdict with the effect of each seed, unrounded."""
    header = ("claim", "profile", "protocol", "verdict", "reason", "effect", "mean", "low", "high",
              "limit", "direction", "seeds", "effects", "study")  # fmt: skip
    lines = (
        (j.claim.id, j.profile, j.protocol, j.outcome, j.reason, j.claim.effect,
         *(j.effect[:3] if j.effect else ("", "", "")), j.claim.limit,
         "below" if j.claim.below else "above", " ".join(map(str, j.seeds)),
         " ".join(map(repr, j.seeds.values())), j.claim.study)
        for j in verdicts
    )  # fmt: skip
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *lines])
    return stream.getvalue()


def study_links(name: str, study: StudyResults | None, folder: Path) -> str:
    """Links from ``folder`` to a study's README and, once it has run, to its summary."""
    files = {"study": FOLDER / name / "README.md"}
    if study is not None and (study.folder / SUMMARY).is_file():
        files["results"] = study.folder / SUMMARY
    targets = {text: Path(os.path.relpath(file, folder)).as_posix() for text, file in files.items()}
    return ", ".join(f"[{text}]({target})" for text, target in targets.items())


def _told(claim: Claim) -> str:
    late = " (Rule written when an earlier run was known.)" if claim.after_run else ""
    return f"`{claim.id}` {claim.claim}{late}"


def _caveat(claim: Claim) -> str:
    return " ".join(claim.caveat.split())


def _line(verdict: Verdict) -> tuple[Cell, ...]:
    """A verdict, without what is claimed."""
    claim, found = verdict.claim, verdict.effect
    effect = interval = ""
    if found is not None:
        effect = "×" * (claim.effect == "ratio") + number(found.mean)
        interval = f"{number(found.low)} to {number(found.high)}".replace("-∞", "∞")
        if found.low == found.high and claim.exact:
            interval = "a count"
        elif found.n == 1:
            interval = "one seed: none"
        elif claim.looks > 1:
            interval += f" (at {claim.confidence:.1%})"
    seeds = "; ".join(f"seed {s}: {v!r}" for s, v in verdict.seeds.items())
    reason = f": {verdict.reason}" if verdict.outcome == OPEN else ""
    return (
        Cell(f"`{verdict.protocol}`" if verdict.protocol else ""),
        Cell(f"{MARKS[verdict.outcome]} {verdict.outcome}{reason}", verdict.reason),
        Cell(effect, seeds),
        Cell(interval, seeds),
        Cell(f"{'<' if claim.below else '>'} {claim.limit:g}"),
        Cell(str(len(verdict.seeds))),
        Cell(at_each(verdict)),
    )
