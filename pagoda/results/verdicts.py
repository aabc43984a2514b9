"""What to look for: rules fixed here, checked on the experiment's Fréchet distances."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.results.blocks import Table, table
from pagoda.results.experiment import Experiment
from pagoda.results.labels import DISTANCES
from pagoda.results.numbers import number

STUDENT_TO_TEACHER = 1.5
UNTRAINED_TO_STUDENT = 10.0
GROWN_TO_STUDENT = 3.0
NOISE = 3.0
"""A generator less than this many times nearer than an untrained one satisfies no rule."""

HOLDS, FAILS, NOT_MEASURED = "holds", "does not hold", "not measured"
_MARKS = {HOLDS: "✓", FAILS: "✗", NOT_MEASURED: "–"}
_Rule = tuple[str, tuple[str, int], tuple[str, int], float]
"""In words; the value and its yardstick, each a generator and its resolution; what the value is at
most (or below), in yardsticks."""


@dataclass(frozen=True)
class Verdict:
    """One rule and how it came out."""

    rule: str  # what should hold, in words
    measured: str  # the two distances and what follows from them
    outcome: str  # HOLDS, FAILS or NOT_MEASURED


def distance_protocols(experiment: Experiment) -> list[str]:
    """Protocols of Fréchet distances under which a main generator was measured."""
    return sorted({r.protocol for r in experiment.main_rows if r.metric in DISTANCES})


def verdicts(experiment: Experiment) -> list[Verdict]:
    """Check every rule under every distance protocol that was measured."""
    base = experiment.config.base_res
    student = ("student", base)
    rules: list[_Rule] = [
        (f"The one-step student is within {STUDENT_TO_TEACHER:g}× of its teacher",
         student, ("teacher", base), STUDENT_TO_TEACHER),
        (f"The student is at least {UNTRAINED_TO_STUDENT:g}× below an untrained generator",
         student, ("untrained", base), 1 / UNTRAINED_TO_STUDENT),
    ]  # fmt: skip
    for res in experiment.config.resolutions[1:]:
        at, grown = f"At {res}×{res} the grown generator is", ("grown", res)
        rules += [
            (f"{at} below plain upsampling of the student", grown, ("upsampled_base", res), 1.0),
            (f"{at} within {GROWN_TO_STUDENT:g}× of the student at {base}×{base}", grown, student,
             GROWN_TO_STUDENT),
        ]  # fmt: skip
    return [_check(experiment, p, rule) for p in distance_protocols(experiment) for rule in rules]


def verdict_table(experiment: Experiment) -> Table:
    """The rules and their outcomes."""
    found = verdicts(experiment)
    return table(
        "**The rules**, fixed in the code. Each compares two Fréchet distances (lower is better) "
        "of one protocol; each distance is to real images of its own resolution. A generator that "
        f"is not {NOISE:g}× nearer than an untrained one satisfies no rule. One run with training "
        f"seed {experiment.config.seed}: an indication, not evidence over seeds.",
        ("Rule", "Measured", "Verdict"),
        [(v.rule, v.measured, f"{_MARKS[v.outcome]} {v.outcome}") for v in found],
        "lll",
    )


def _check(experiment: Experiment, protocol: str, rule: _Rule) -> Verdict:
    text, of, to, limit = rule

    def distance(generator: str, resolution: int) -> float | None:
        found = [r for r in experiment.evaluations[resolution].rows if r.metric in DISTANCES
                 and r.protocol == protocol and r.generator == generator]  # fmt: skip
        if len(found) > 1:  # a rule over an ambiguous value would mean nothing
            raise ValueError(f"{len(found)} rows where one was expected: {found[0]}")
        return found[0].number if found else None

    value, yardstick = distance(*of), distance(*to)
    if value is None or yardstick is None:
        return Verdict(text, f"`{protocol}` of one of the two is missing", NOT_MEASURED)
    bound = limit * yardstick
    holds = value < bound if to[0] == "upsampled_base" else value <= bound
    measured = f"{number(value)} against {number(yardstick)}"
    if min(value, yardstick) > 0:
        far, near = f"{number(value / yardstick)}× as far", f"{number(yardstick / value)}× closer"
        measured += f": {far if value > yardstick else near}"
    # Of the untrained control, at the base resolution where this one has none.
    noise = distance("untrained", of[1])
    noise = distance("untrained", experiment.config.base_res) if noise is None else noise
    if holds and noise is not None and value * NOISE > noise:
        measured += f", but an untrained generator is at {number(noise)}: this is noise"
        holds = False
    return Verdict(text, f"{measured} (`{protocol}`)", HOLDS if holds else FAILS)
