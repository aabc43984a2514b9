"""The verdicts on all claims as one drawing: a claim a line, its intervals one below the other.

Every effect is drawn as its distance from the limit of its rule, turned so that the claim's side is
on the left: ratios on one logarithmic axis, differences on a linear axis for each unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from pagoda.results.blocks import Axis, Block, Forest, Mark, Span
from pagoda.results.claim_verdicts import OPEN, REFUTED, SUPPORTED, Verdict
from pagoda.results.labels import quantity
from pagoda.results.ledger import MARKS, at_each
from pagoda.results.numbers import CONFIDENCE, number, with_ends
from pagoda.rows import grouped

_ROOM = 0.06  # of the width, at both ends
_Scale = Callable[[float], float]
_Ticks = Callable[[float, float], list[tuple[float, str]]]


def forest(verdicts: Sequence[Verdict]) -> tuple[Block, ...]:
    """The drawing, and in words what no run has tested."""
    tested = [v for v in verdicts if v.effect is not None]
    idle = [v for v in verdicts if v.effect is None]
    ratios = [v for v in tested if v.claim.effect == "ratio"]
    others = [v for v in tested if v.claim.effect != "ratio"]
    axes = [
        *([_axis("Ratios, over the limit", ratios, _log_ticks)] if ratios else []),
        *(_axis(f"Differences{unit}, from the limit", of, _linear_ticks)
          for unit, of in grouped(others, _unit).items()),
    ]  # fmt: skip
    made: list[Block] = []
    if axes:
        counts = Counter(v.outcome for v in tested)
        caption = (
            f"**Effects with their {CONFIDENCE:.0%} intervals over seeds**, as distances from the "
            "limit of the rule (the line). Left of it is what the claim says. A claim has a dot "
            "for each profile and protocol that tested it, and on the right their verdicts in the "
            "same order. A dot without an interval has no spread over seeds. Hover over a dot for "
            "its numbers, elsewhere for the rule."
        )
        shown = tuple((o, counts[o]) for o in (SUPPORTED, REFUTED, OPEN) if counts[o])
        made.append(Forest(tuple(axes), shown, caption))
    if idle:
        claims = ", ".join(dict.fromkeys(v.claim.id for v in idle))
        made.append(f"Not drawn, since nothing was run for them: {len(idle)} verdicts ({claims}).")
    return tuple(made)


def _unit(verdict: Verdict) -> str:
    """What differences of one axis have in common, as its title says it: " in dB"."""
    unit = quantity(verdict.claim.metric).measured_in
    return f" in {unit}" if unit else ""


def _away(verdict: Verdict, value: float) -> float:
    """Distance from the limit, negative on the claim's side; logarithms of ratios."""
    claim = verdict.claim
    sign = 1.0 if claim.below else -1.0
    return sign * (claim.on_scale(value) - claim.on_scale(claim.limit))


def _axis(
    title: str,
    verdicts: Sequence[Verdict],
    ticks: _Ticks,
) -> Axis:
    ends = [0.0, *(_away(v, e) for v in verdicts if v.effect for e in v.effect[:3]
                   if math.isfinite(e) and (v.claim.effect != "ratio" or e > 0))]  # fmt: skip
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0
    low, high = low - _ROOM * width, high + _ROOM * width

    def place(away: float) -> float:
        return round(100 * min(1.0, max(0.0, (away - low) / (high - low))), 2)

    spans = tuple(_span(of, place) for of in grouped(verdicts, lambda v: v.claim.id).values())
    places = tuple((place(where), text) for where, text in ticks(low, high))
    return Axis(title, place(0.0), places, spans)


def _span(verdicts: Sequence[Verdict], place: _Scale) -> Span:
    claim, alone = verdicts[0].claim, len(verdicts) == 1
    marks = tuple(_mark(verdict, place) for verdict in verdicts)
    title = f"{claim.id}: {claim.rule()}".replace("`", "")
    return Span(claim.claim, _effect(verdicts[0]) if alone else "", marks, title)


def _effect(verdict: Verdict) -> str:
    assert verdict.effect is not None
    mean, low, high = verdict.effect[:3]
    return with_ends(f"{'×' * (verdict.claim.effect == 'ratio')}{number(mean)}", low, high)


def _mark(verdict: Verdict, place: _Scale) -> Mark:
    effect = verdict.effect
    assert effect is not None
    ends = sorted(
        (place(_away(verdict, e)) for e in (effect.low, effect.high))
        if math.isfinite(effect.low)
        else [place(_away(verdict, effect.mean))] * 2
    )
    told = f"{verdict.profile}, {verdict.protocol}: {verdict.outcome}, {_effect(verdict)}"
    told += f" ({parts})" if (parts := at_each(verdict)) else ""
    middle, sign = place(_away(verdict, effect.mean)), MARKS[verdict.outcome]
    title = f"{told}; {verdict.reason}"
    return Mark(verdict.outcome, sign, ends[0], middle, ends[1], title)


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.ceil(low / math.log(10)), math.floor(high / math.log(10)) + 1)
    return [(p * math.log(10), "limit" if p == 0 else f"÷{10**-p:,}" if p < 0 else f"×{10**p:,}")
            for p in powers]  # fmt: skip


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = 10 ** math.floor(math.log10(max(high, -low)))
    steps = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [(i * step, "limit" if i == 0 else f"{'+' if i > 0 else '−'}{abs(i) * step:g}")
            for i in steps if i % max(1, len(steps) // 5) == 0]  # fmt: skip
