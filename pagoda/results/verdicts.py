"""What to look for: rules fixed here, judged on the experiment's Fréchet distances."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.results.document import Cell, Table
from pagoda.results.experiment import Experiment
from pagoda.results.measured import DISTANCES, distance_protocols, number, pick

STUDENT_TO_TEACHER = 1.5
UNTRAINED_TO_STUDENT = 10.0
GROWN_TO_STUDENT = 3.0
NOISE = 3.0
"""A generator less than this many times nearer than an untrained one satisfies no rule."""

HOLDS, FAILS, NOT_MEASURED = "holds", "does not hold", "not measured"
_MARKS = {HOLDS: "✓", FAILS: "✗", NOT_MEASURED: "–"}


@dataclass(frozen=True)
class Verdict:
    """One rule and how it came out.

    Attributes:
        rule: what should hold, in words.
        measured: the two distances and what follows from them.
        outcome: :data:`HOLDS`, :data:`FAILS` or :data:`NOT_MEASURED`.
    """

    rule: str
    measured: str
    outcome: str


@dataclass(frozen=True)
class _Rule:
    """``value`` must be at most ``limit`` times ``yardstick`` (below it, if strict)."""

    text: str
    value: tuple[str, int]
    yardstick: tuple[str, int]
    limit: float
    strict: bool = False


def verdicts(experiment: Experiment) -> list[Verdict]:
    """Judge every rule under every distance protocol that was measured."""
    rules, protocols = _rules(experiment), distance_protocols(experiment)
    return [_judge(experiment, rule, p) for p in protocols for rule in rules]


def verdict_table(experiment: Experiment) -> Table:
    """The rules and their outcomes."""
    rows = tuple(
        (Cell(v.rule), Cell(v.measured), Cell(f"{_MARKS[v.outcome]} {v.outcome}"))
        for v in verdicts(experiment)
    )
    caption = (
        "**The rules**, fixed in the code. Each compares two Fréchet distances (lower is "
        "better) of one protocol; each distance is to real images of its own resolution. A "
        f"generator that is not {NOISE:g}× nearer than an untrained one satisfies no rule. One run "
        f"with training seed {experiment.config.seed}: an indication, not evidence over seeds."
    )
    return Table(caption, ("Rule", "Measured", "Verdict"), rows, "lll")


def _rules(experiment: Experiment) -> list[_Rule]:
    base = experiment.config.base_res
    student = ("student", base)
    rules = [
        _Rule(
            f"The one-step student is within {STUDENT_TO_TEACHER:g}× of its teacher",
            student, ("teacher", base), STUDENT_TO_TEACHER,
        ),
        _Rule(
            f"The student is at least {UNTRAINED_TO_STUDENT:g}× below an untrained generator",
            student, ("untrained", base), 1 / UNTRAINED_TO_STUDENT,
        ),
    ]  # fmt: skip
    for res in experiment.config.resolutions[1:]:
        rules += [
            _Rule(
                f"At {res}×{res} the grown generator is below plain upsampling of the student",
                ("grown", res), ("upsampled_base", res), 1.0, strict=True,
            ),
            _Rule(
                f"At {res}×{res} the grown generator is within {GROWN_TO_STUDENT:g}× of the "
                f"student at {base}×{base}",
                ("grown", res), student, GROWN_TO_STUDENT,
            ),
        ]  # fmt: skip
    return rules


def _judge(experiment: Experiment, rule: _Rule, protocol: str) -> Verdict:
    value = _distance(experiment, rule.value, protocol)
    yardstick = _distance(experiment, rule.yardstick, protocol)
    if value is None or yardstick is None:
        return Verdict(rule.text, f"`{protocol}` of one of the two is missing", NOT_MEASURED)
    bound = rule.limit * yardstick
    holds = value < bound if rule.strict else value <= bound
    measured = f"{number(value)} against {number(yardstick)}{_ratio(value, yardstick)}"
    noise = _noise(experiment, rule.value[1], protocol)
    if holds and noise is not None and value * NOISE > noise:
        measured += f", but an untrained generator is at {number(noise)}: this is noise"
        holds = False
    return Verdict(rule.text, f"{measured} (`{protocol}`)", HOLDS if holds else FAILS)


def _noise(experiment: Experiment, resolution: int, protocol: str) -> float | None:
    """Distance of the untrained control, at the base resolution where this one has none."""
    places = (("untrained", r) for r in (resolution, experiment.config.base_res))
    found = (_distance(experiment, place, protocol) for place in places)
    return next((value for value in found if value is not None), None)


def _ratio(value: float, yardstick: float) -> str:
    if value <= 0 or yardstick <= 0:
        return ""
    if value > yardstick:
        return f": {number(value / yardstick)}× as far"
    return f": {number(yardstick / value)}× closer"


def _distance(experiment: Experiment, where: tuple[str, int], protocol: str) -> float | None:
    generator, resolution = where
    row = pick(
        experiment.evaluations[resolution].rows,
        lambda r: r.metric in DISTANCES and r.protocol == protocol and r.generator == generator,
    )
    return None if row is None else row.value
