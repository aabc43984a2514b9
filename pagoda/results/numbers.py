"""Numbers as they are shown, with their spread over seeds and where they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.special import nctdtrinc, stdtrit

from pagoda.results.blocks import Cell
from pagoda.rows import Row, grouped

CONFIDENCE = 0.95
SPREAD = " ±: standard deviation over the subsets or splits of the protocol."
"""Of a caption, where a value has one."""


class Interval(NamedTuple):
    """A mean and its two-sided interval; infinite from one value."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a mean: m ± t(n − 1) s / √n, s with n − 1 in the denominator.

    Args:
        values: one a seed, at least one.
        confidence: probability that the interval covers the mean of a normal distribution.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    return interval_of(mean, spread_of(values), n, confidence)


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation of a sample, n - 1 in the denominator; two values at least."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def interval_of(mean: float, spread: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of n values, two at least, that have this mean and standard deviation."""
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def detectable(spread: float, n: int, power: float = 0.8) -> float:
    """Mean that Student's interval of n values tells from 0 with the given probability.

    The non-centrality d of t(n - 1) with P(t > t(n - 1, 0.975)) = power, times
    spread / sqrt(n).

    Args:
        spread: standard deviation of the values.
        n: values, at least two.
        power: the probability.
    """
    critical = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))
    return float(nctdtrinc(n - 1, 1 - power, critical)) * spread / math.sqrt(n)


def number(value: float) -> str:
    """Three significant digits, thousands separated: 6.13, 20.8, 1,887."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def with_half(found: Interval) -> str:
    """A mean and half of its interval, to two digits of the half: ``1.630 ± 0.091``."""
    half = found.high - found.mean
    if not math.isfinite(half) or half <= 1e-12 * abs(found.mean):
        return number(found.mean)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{number(found.mean)} ± {number(half)}"
    return f"{found.mean:,.{decimals}f} ± {half:,.{decimals}f}"


def with_ends(text: str, low: float, high: float) -> str:
    """A value and its interval: ``6.13 (5.90 to 6.40)``; alone if there is none, or no width."""
    if low == high or not math.isfinite(low):
        return text
    return f"{text} ({number(low)} to {number(high)})"


def short(fingerprint: str) -> str:
    """First digits of a fingerprint, as code."""
    return f"`{fingerprint[:10]}`"


def listed(values: Iterable[object], joint: str = ", ") -> str:
    """Each value once, in order of first appearance."""
    return joint.join(dict.fromkeys(str(value) for value in values))


def value_cell(row: Row) -> Cell:
    """A value to three digits, with its deviation if it has one; its provenance on hover."""
    title = (
        f"{row.protocol} = {row.number!r}; n {row.n}, seed {row.seed}, NFE {row.nfe}, "
        f"{row.resolution}×{row.resolution}; {_origin(row)}"
    )
    if row.interval:
        title += f"; {row.interval} {row.low!r} to {row.high!r}"
    return Cell(number(row.number) + ("" if row.sd is None else f" ± {number(row.sd)}"), title)


def mean_cell(rows: Sequence[Row], scale: float = 1.0) -> Cell:
    """``mean ± half`` over training seeds; every seed, unscaled, and its provenance on hover."""
    seeds = "; ".join(f"seed {r.training_seed}: {r.number!r}" for r in rows)
    first = rows[0]
    title = f"{first.protocol}, n {first.n}, NFE {first.nfe}; {seeds}; {_origin(first)}"
    return Cell(with_half(t_interval([r.number * scale for r in rows])), title)


def _origin(row: Row) -> str:
    compared = f"reference {row.reference[:10]} (n {row.reference_n}), " if row.reference else ""
    features = f"features {row.features[:10]}; " if row.features else ""
    return f"{compared}{features}code {row.revision}; {row.device}"


def references(rows: Iterable[Row]) -> str:
    """Each reference set once: its size, and the metrics that use fewer of its images."""
    texts = []
    for (size, fingerprint), own in sorted(grouped(rows, lambda r: (r.size, r.reference)).items()):
        by_count = grouped(own, lambda r: r.reference_n or 0)
        most, *fewer = sorted(by_count, reverse=True)
        text = f"{most:,} real images" if most else "real images"
        text += f" at {size}×{size} ({short(fingerprint)})"
        for n in filter(None, fewer):  # some use none of them
            metrics = listed((r.metric.replace("_", " ") for r in by_count[n]), " and ")
            text += f", {metrics} {n:,} of them"
        texts.append(text)
    return "; ".join(texts)


def provenance(rows: Sequence[Row]) -> str:
    """One sentence a fact: seed, reference set, feature network, code, device."""
    return (
        f"{'Seed' if len({r.seed for r in rows}) == 1 else 'Seeds'} "
        f"{listed(r.seed for r in rows)}. Compared with {references(rows)}. "
        f"Features {listed(short(r.features) for r in rows if r.features)}. "
        f"Code {listed(f'`{r.revision}`' for r in rows)}, on {listed(r.device for r in rows)}."
    )
