"""The report of a preference study: Markdown, one page, tables as CSV, and rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pagoda import outputs
from pagoda import rows as files
from pagoda.evaluation.metrics.intervals import fraction_interval
from pagoda.preference.analysis import (
    LEVEL,
    MOST_FAILED,
    POWER,
    RESAMPLES,
    Agreement,
    Strengths,
    Voter,
    WinRate,
    agreement,
    judgements,
    strengths,
    voters,
    win_rates,
)
from pagoda.preference.study import Study
from pagoda.preference.votes import Record
from pagoda.results.blocks import Block, Cell, Document, Section, Table, table, to_csv, to_markdown
from pagoda.results.numbers import listed, number, short
from pagoda.results.page import to_html
from pagoda.rows import Row

RESULTS = "results.csv"
OURS = outputs.only("report.md", "index.html", RESULTS, "tables/*.csv")
"""What a report's folder holds; another file there is the user's, and the folder stays."""

_NONE = "–"


@dataclass(frozen=True)
class Answers:
    """What the votes say to one question."""

    strengths: Strengths
    rates: list[WinRate]
    agreement: Agreement
    n: int


@dataclass(frozen=True)
class Findings:
    """Everything that a report says.

    Attributes:
        study: what was asked.
        voters: all of them.
        counted: names of those whose votes count.
        answers: by question.
        most_failed: the rule by which they count.
        cut: lines of votes that a crash cut off.
        revision: of the code that counted.
    """

    study: Study
    voters: list[Voter]
    counted: list[str]
    answers: dict[str, Answers]
    most_failed: float
    cut: int
    revision: str


def analyse(
    study: Study, record: Record, revision: str, most_failed: float = MOST_FAILED
) -> Findings:
    """Count the votes.

    Args:
        study: what was asked.
        record: its votes.
        revision: of the code.
        most_failed: see :meth:`.analysis.Voter.counts`.
    """
    everyone = voters(study, record)
    counted = [voter.name for voter in everyone if voter.counts(most_failed)]
    answers = {}
    for question in study.questions:
        found = judgements(study, record, question, counted)
        answers[question] = Answers(
            strengths(found, len(study.generators), seed=study.seed),
            win_rates(found, len(study.generators)),
            agreement(found, study.seed),
            len(found),
        )
    return Findings(study, everyone, counted, answers, most_failed, record.cut, revision)


def write_report(found: Findings, folder: Path) -> None:
    """Replace ``folder`` with the report.

    Raises:
        PagodaError: it holds anything else, or cannot be written.
    """
    document, named = compose(found)
    with outputs.new_folder(folder, OURS) as partial:
        (partial / "tables").mkdir()
        (partial / "report.md").write_text(to_markdown(document), "utf-8")
        (partial / "index.html").write_text(to_html(document, partial), "utf-8")
        (partial / RESULTS).write_text(files.to_csv(rows(found)), "utf-8")
        for name, made in named.items():
            (partial / "tables" / f"{name}.csv").write_text(to_csv(made), "utf-8")


def compose(found: Findings) -> tuple[Document, dict[str, Table]]:
    """The document, and its tables by the names of their files."""
    study, named = found.study, {}
    sections = []
    for key, text in study.questions.items():
        answers = found.answers[key]
        named[f"{key}-strength"] = _strengths_table(found, key)
        named[f"{key}-win-rate"] = _rates_table(found, key)
        blocks: list[Block] = [f"Asked: “{text}” {_agreed(answers.agreement)}"]
        blocks += [named[f"{key}-strength"], named[f"{key}-win-rate"]]
        sections.append(Section(key[0].upper() + key[1:], tuple(blocks)))
    named |= {"voters": _voters_table(found), "generators": _generators_table(study)}
    sections += [
        Section("Voters", (_rule(found), named["voters"])),
        Section("What was compared", (named["generators"],)),
        Section("How to read the numbers", _reading(found)),
    ]
    title = f"Preference: {', '.join(study.generators)}"
    return Document(title, _summary(found), tuple(sections)), named


def rows(found: Findings) -> list[Row]:
    """Strengths and win rates as rows; what there are no votes for is left out."""
    made = []
    for key, answers in found.answers.items():
        for g, name in enumerate(found.study.generators):
            if math.isfinite(answers.strengths.values[g]):
                s = answers.strengths
                made.append(_row(found, g, name, f"bradley_terry_{key}", "bradley_terry",
                                 answers.n, (s.values[g], s.low[g], s.high[g]),
                                 f"bootstrap_{found.study.over}_{LEVEL * 100:g}"))  # fmt: skip
        for rate in answers.rates:
            if (i := rate.interval) is not None:
                first, second = (found.study.generators[g] for g in (rate.first, rate.second))
                made.append(_row(found, rate.first, first, f"win_rate_{key}_against_{second}",
                                 "win_rate", rate.n, (i.value, i.low, i.high), str(i)))  # fmt: skip
    return made


def _row(
    found: Findings, generator: int, name: str, protocol: str, metric: str, n: int,
    ends: tuple[float, float, float], interval: str,
) -> Row:  # fmt: skip
    value = float(ends[0])
    low, high = (float(end) if math.isfinite(end) else None for end in ends[1:])
    return Row(
        metric=metric, protocol=protocol, value=value, n=n, generator=name, seed=found.study.seed,
        resolution=found.study.sides[generator][0], low=low, high=high,
        interval=None if low is None else interval,
        reference=found.study.fingerprint, revision=found.revision,
    )  # fmt: skip


def _summary(found: Findings) -> str:
    study, n = found.study, sum(v.pairs for v in found.voters if v.name in found.counted)
    return (
        f"{n:,} votes on {study.pairs:,} pairs of pictures, by {len(found.counted)} of "
        f"{len(found.voters)} voters; {len(study.items):,} items of "
        f"{len({item.prompt for item in study.items}):,} prompts, "
        f"{len(study.generators)} generators. Study {short(study.fingerprint)}, seed {study.seed}, "
        f"code `{found.revision}`."
    )


def _strengths_table(found: Findings, key: str) -> Table:
    answers, study = found.answers[key], found.study
    s = answers.strengths
    order = np.argsort(-s.values, kind="stable")
    lines = []
    for g in order.tolist():
        if not math.isfinite(s.values[g]):
            lines.append([study.generators[g], _NONE, _NONE])
            continue
        title = (f"bradley_terry_{key} = {float(s.values[g])!r}; n {answers.n}, "
                 f"{_origin(found)}")  # fmt: skip
        lines.append([
            study.generators[g], Cell(_signed(s.values[g]), title),
            f"{_signed(s.low[g])} to {_signed(s.high[g])}" if math.isfinite(s.low[g]) else _NONE,
        ])  # fmt: skip
    caption = (
        f"**Strength** by Bradley-Terry, {answers.n:,} votes, best first; the mean is 0. A "
        "difference d of two strengths says that the stronger one is preferred with probability "
        f"1 / (1 + exp(-d)). {LEVEL:.0%} interval: percentiles of {RESAMPLES:,} resamples of "
        f"{_units(study)}. Every two generators that were compared get one tie more, which keeps "
        "strengths finite; "
        "where some won every vote on the rest, the votes do not say how far apart they are, and "
        "there is no interval."
    )
    return table(caption, ("Generator", "Strength", f"{LEVEL:.0%} interval"), lines)


def _rates_table(found: Findings, key: str) -> Table:
    study = found.study
    lines: list[list[str | Cell]] = []
    for rate in found.answers[key].rates:
        first, second = (study.generators[g] for g in (rate.first, rate.second))
        head = [f"{first} against {second}", str(rate.wins), str(rate.ties), str(rate.losses)]
        least = _NONE if rate.detectable is None else f"{rate.detectable:.3f}"
        if rate.interval is None:
            lines.append([*head, _NONE, _NONE, "not enough evidence", least])
            continue
        i = rate.interval
        title = f"win_rate_{key}_against_{second} = {i.value!r}; n {rate.n}, {_origin(found)}"
        said = first if i.low > 0.5 else second if i.high < 0.5 else ""
        lines.append([
            *head, Cell(f"{i.value:.3f}", title), f"{i.low:.3f} to {i.high:.3f}",
            f"{said} preferred" if said else "not enough evidence",
            Cell(least, f"{rate.effective:.1f} independent votes"),
        ])  # fmt: skip
    caption = (
        "**Win rate** of the one named first, a tie being half a win, with Wilson's "
        f"{LEVEL:.0%} interval; intervals are not adjusted for the number of lines. Least shown: "
        f"the smallest win rate that so many votes tell from 0.5 with probability {POWER:g}. In "
        f"both, votes on the same {study.over[:-1]} count as the fewer independent ones that they "
        "are worth. “Not enough evidence” does not mean equal: a "
        "smaller difference would not have shown."
    )
    header = ("Generators", "Wins", "Ties", "Losses", "Win rate", f"{LEVEL:.0%} interval",
              "Verdict", "Least shown")  # fmt: skip
    return table(caption, header, lines, "lrrrrrlr")


def _voters_table(found: Findings) -> Table:
    kept = [voter for voter in found.voters if voter.name in found.counted]
    seconds = float(np.median([v.seconds for v in kept])) if kept else math.nan
    every = Voter("", sum(v.pairs for v in kept), _all(v.attention for v in kept),
                  _all(v.repeats for v in kept), _all(v.lefts for v in kept),
                  _all(v.ties for v in kept), seconds)  # fmt: skip
    lines = [_voter_line(f"voter {i}", voter, "yes" if voter.name in found.counted else "no")
             for i, voter in enumerate(found.voters, 1)]  # fmt: skip
    lines.append(_voter_line("all that count", every, ""))
    same, left = _wilson(every.repeats), _wilson(every.lefts)
    caption = (
        "**Voters**, in the order in which they joined, without their names. Attention: answers "
        "that took the picture over its scrambled version. Repeats: answers that were the same "
        f"when the pair came again, sides exchanged (all: {same}). Left: how often the left one "
        f"was taken, ties apart (all: {left}); sides are random, so far from 0.5 is a habit. "
        "Seconds: median of a vote. Repeats and attention pairs are counted here only."
    )
    header = ("Voter", "Pairs", "Attention", "Repeats", "Left", "Ties", "Seconds", "Counts")
    return table(caption, header, lines, "lrrrrrrl")


def _voter_line(label: str, voter: Voter, counts: str) -> list[str]:
    seconds = number(voter.seconds) if math.isfinite(voter.seconds) else _NONE
    return [
        label, str(voter.pairs), _of(voter.attention), _of(voter.repeats), _fraction(voter.lefts),
        _fraction(voter.ties), seconds, counts,
    ]  # fmt: skip


def _all(answers: Iterable[tuple[bool, ...]]) -> tuple[bool, ...]:
    return tuple(chain.from_iterable(answers))


def _generators_table(study: Study) -> Table:
    lines = [
        [name, str(source.get("source", "")), f"{w}×{h}", short(str(source.get("identity", "")))]
        for name, source, (w, h) in zip(study.generators, study.sources, study.sides, strict=True)
    ]
    caption = (
        "**Generators**: where their pictures are from, size, and fingerprint of the weights or "
        "images. All are shown at one size on the screen."
    )
    return table(caption, ("Generator", "Source", "Size", "Fingerprint"), lines, "llrl")


def _rule(found: Findings) -> str:
    out = len(found.voters) - len(found.counted)
    unseen = sum(not v.attention for v in found.voters if v.name in found.counted)
    cut = f" {found.cut} line(s) that a crash cut off were passed over." if found.cut else ""
    return (
        f"A voter's votes count if at most {found.most_failed:.0%} of their answers to attention "
        "pairs are wrong: a picture stands beside the same with its pixels shuffled, and a tie is "
        f"wrong, too. {out} of {len(found.voters)} did not count; {unseen} that do had no such "
        f"pair yet.{cut}"
    )


def _reading(found: Findings) -> tuple[Block, ...]:
    study = found.study
    shown = "all pairs" if study.per_voter is None else f"{study.per_voter} pairs"
    return (
        f"Every voter sees {shown} in a random order of their own, each once, on random sides, "
        f"without names of generators; {study.repeats:.0%} come again with the sides exchanged, "
        f"and {study.attention:.0%} more are attention pairs.",
        "Values of different questions are never put together. All of them, unrounded, are in "
        f"`{RESULTS}`; every table is in `tables/`.",
    )


def _agreed(a: Agreement) -> str:
    if not a.pairs:
        return "No pair was judged by two voters, so nothing is known of their agreement."
    alpha = "is undefined, all answers being the same"
    if math.isfinite(a.alpha):
        alpha = f"{a.alpha:.2f} ({LEVEL:.0%} interval {a.low:.2f} to {a.high:.2f})"
    return (
        f"On {a.pairs:,} pairs that two or more voters judged, two of their answers were the same "
        f"in {a.same:.0%}; Krippendorff's alpha (ordinal; 1: all agree, 0: as by chance) {alpha}."
    )


def _origin(found: Findings) -> str:
    return f"study {found.study.fingerprint[:10]}, code {found.revision}"


def _units(study: Study) -> str:
    return "prompts" if study.over == "prompts" else "items (a class and a number)"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _of(answers: Sequence[bool]) -> str:
    return f"{sum(answers)} of {len(answers)}" if answers else _NONE


def _fraction(answers: Sequence[bool]) -> str:
    return f"{np.mean(answers):.2f}" if answers else _NONE


def _wilson(answers: Sequence[bool]) -> str:
    if len(answers) < 2:
        return "too few"
    i = fraction_interval(np.array(answers, float), LEVEL)
    return f"{i.value:.2f}, {i.low:.2f} to {i.high:.2f}"


def told(found: Findings) -> str:
    """A few lines for the terminal."""
    lines = []
    for key, answers in found.answers.items():
        if not answers.n:
            lines.append(f"{key:<12} no votes\n")
            continue
        order = np.argsort(-answers.strengths.values, kind="stable").tolist()
        names = [found.study.generators[g] for g in order]
        s = [answers.strengths.values[g] for g in order]
        shown = (f"{n} {_signed(v)}" if math.isfinite(v) else f"{n} {_NONE}"
                 for n, v in zip(names, s, strict=True))  # fmt: skip
        lines.append(f"{key:<12} {listed(shown)}  ({answers.n} votes)\n")
    return "".join(lines)
