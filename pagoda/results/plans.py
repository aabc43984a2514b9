"""What an experiment would take: a plan, and the columns that the command and the page show of it.

``pagoda plan`` counts one. Counting a large profile takes longer than the rest of the page, and
changes only with the profile or the networks; so the page shows what ``pagoda plan --json`` left in
``reports/plans/<profile>.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pagoda.errors import PagodaError
from pagoda.results.blocks import Table, table
from pagoda.results.numbers import number
from pagoda.rows import read_text

FOLDER, SCHEMA = "plans", 1
MEGA, GIGA, PETA = 1e6, 1e9, 1e15
_COUNTED = (
    "Counted on the networks, not run and not measured: a multiply-add is two operations; "
    "pointwise work, normalisation, optimisers and data are not in it."
)


@dataclass(frozen=True)
class Stage:
    """One stage. A multiply-add is two operations; bytes are what stays on disk."""

    stage: str  # as dvc.yaml names it
    parameters: int | None = None  # of the network that it runs
    trainable: int | None = None  # those that train
    judge_trainable: int | None = None  # trained parameters of the discriminator
    forward_flops: float | None = None  # of one image through the network
    flops: float = 0.0  # of the whole stage
    precision: str | None = None  # of autocast
    data_bytes: int = 0  # images or statistics
    latent_bytes: int = 0
    checkpoint_bytes: int = 0  # kept weights
    scratch_bytes: int = 0  # the two checkpoints that a training stage keeps while it runs
    hours: dict[str, float] = field(default_factory=dict)  # on one card, by card
    imported: bool = False  # its weights are taken from elsewhere, so that nothing trains


@dataclass(frozen=True)
class Direct:
    """Diffusion trained directly at a resolution, and growing to it."""

    resolution: int
    parameters: int  # of the teacher's design, levels added down to its lowest resolution
    training_flops: float  # of one of its training images
    times_base: float  # the same over that of the base resolution
    rule: int  # what the paper's 4^n says of it
    flops: float  # of training it on as many images as the teacher
    step_flops: float | None  # of the growth step to this resolution; None at the base
    reached_flops: float  # of teacher, inversion, distillation and all growth up to here


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment; ``pagoda plan --json`` prints it."""

    schema: int
    profile: str
    resolutions: list[int]
    train_images: int
    test_images: int
    pairs: int
    inversion_nfe: int
    utilisation: float
    peak_tflops: dict[str, float]  # by card
    stages: list[Stage]
    growth: list[Direct]
    probed_on: str | None = None  # with --probe
    reached_tflops: dict[str, float] = field(default_factory=dict)  # with --probe, by stage
    extractors: list[str] = field(default_factory=list)  # feature networks that results are in
    uncounted: list[str] = field(default_factory=list)  # those whose operations are not known

    @property
    def all_stages(self) -> Stage:
        """Their sums, and the largest scratch."""

        def total(name: str) -> Any:
            return sum(getattr(stage, name) for stage in self.stages)

        sizes = {name: total(name) for name in ("data_bytes", "latent_bytes", "checkpoint_bytes")}
        hours = {card: sum(s.hours[card] for s in self.stages) for card in self.stages[0].hours}
        scratch = max(stage.scratch_bytes for stage in self.stages)
        return Stage(
            "**all**", flops=total("flops"), hours=hours, scratch_bytes=scratch, **sizes
        )  # fmt: skip


class Column(NamedTuple):
    """A column of the command's table and the page's; one without a head is not in that table."""

    command: str
    page: str
    value: Callable[[Any], str | float | None]  # of a Stage or a Direct
    unit: float = 1.0
    share: str = ""  # a fraction, with the page's format


def stage_columns(cards: Iterable[str]) -> list[Column]:
    """Compute of a stage, and its hours by card."""
    return [
        Column("stage", "Stage", lambda s: s.stage),
        Column("parameters", "Parameters, M", lambda s: s.parameters, MEGA),
        Column("trained", "Trained, M", lambda s: "imported" if s.imported else s.trainable, MEGA),
        Column("discriminator, trained", "", lambda s: s.judge_trainable, MEGA),
        Column("GFLOP an image", "GFLOP an image", lambda s: s.forward_flops, GIGA),
        Column("PFLOP", "PFLOP", lambda s: s.flops, PETA),
        Column("precision", "Precision", lambda s: s.precision),
        *(Column(f"{c} hours", f"{c} hours", lambda s, c=c: s.hours[c]) for c in cards),  # type: ignore[misc]
    ]


DISK = (
    Column("stage", "", lambda s: s.stage),
    Column("data, GB", "", lambda s: s.data_bytes or None, GIGA),
    Column("latents, GB", "", lambda s: s.latent_bytes or None, GIGA),
    Column("weights, GB", "", lambda s: s.checkpoint_bytes or None, GIGA),
    Column("while it trains, GB", "", lambda s: s.scratch_bytes or None, GIGA),
)
DIFFUSION = (
    Column("diffusion trained at", "", lambda d: f"{d.resolution}x{d.resolution}"),
    Column("parameters", "", lambda d: d.parameters, MEGA),
    Column("GFLOP a training image", "", lambda d: d.training_flops, GIGA),
    Column("counted, times the base", "", lambda d: d.times_base),
    Column("the paper's 4^n", "", lambda d: str(d.rule)),
    Column("PFLOP for the teacher's images", "", lambda d: d.flops, PETA),
)
GROWTH = (
    Column("grown to", "", lambda d: f"{d.resolution}x{d.resolution}"),
    Column("", "Resolution", lambda d: f"{d.resolution}×{d.resolution}"),
    Column("", "Diffusion there, PFLOP", lambda d: d.flops, PETA),
    Column("PFLOP of the step", "Growth step, PFLOP", lambda d: d.step_flops, PETA),
    Column("of diffusion there, our budgets", "of diffusion, our budgets",
           lambda d: None if d.step_flops is None else d.step_flops / d.flops, share=".2%"),
    Column("PFLOP of all stages so far", "All stages so far, PFLOP", lambda d: d.reached_flops,
           PETA),
    Column("of diffusion there, our budgets", "of diffusion, our budgets",
           lambda d: d.reached_flops / d.flops, share=".1%"),
)  # fmt: skip


def plan_tables(reports: Path) -> dict[str, Table]:
    """Compute by stage, and growth beside diffusion, by the name of their files.

    Raises:
        PagodaError: one line for a file that is damaged or of another version.
    """
    made: dict[str, Table] = {}
    for path in sorted((reports / FOLDER).glob("*.json")):
        profile = path.stem
        again = f"'pagoda plan --profile {profile} --json > {path}' makes it again"
        try:
            tree = json.loads(read_text(path))
            if tree["schema"] != SCHEMA:
                raise PagodaError(f"{path} is of version {tree['schema']}, not {SCHEMA}; {again}")
            stages = [Stage(**stage) for stage in tree["stages"]]
            growth = [Direct(**direct) for direct in tree["growth"]]
            plan = Plan(**tree | {"stages": stages, "growth": growth})
            made[f"plan-{profile}-stages"] = _stages(profile, plan)
            made[f"plan-{profile}-growth"] = _growth(profile, plan)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise PagodaError(f"{path} is no plan; {again}") from error
    return made


def _stages(profile: str, plan: Plan) -> Table:
    peaks = ", ".join(f"{card} {peak:g} TFLOP/s" for card, peak in plan.peak_tflops.items())
    caption = (
        f"**What `{profile}` would take**, {' → '.join(map(str, plan.resolutions))}, "
        f"{plan.train_images:,} training images. "
        f"{_COUNTED} Hours: one card at {plan.utilisation:.0%} of its dense bfloat16 peak "
        f"({peaks}). From `reports/plans/{profile}.json`; more, with disk: "
        f"`pagoda plan --profile {profile}`."
    )
    lines = [*(stage for stage in plan.stages if stage.flops), plan.all_stages]
    return _table(caption, stage_columns(plan.peak_tflops), lines)


def _growth(profile: str, plan: Plan) -> Table:
    caption = (
        f"**Growth beside diffusion, `{profile}`**: training the teacher's design directly at a "
        "resolution, levels added, on as many images as the teacher, against growing to it. "
        "Our budgets: the fractions rest on how many images the profile gives each stage; the "
        f"paper states no length. {_COUNTED} From `reports/plans/{profile}.json`."
    )
    return _table(caption, GROWTH, plan.growth)


def _table(caption: str, columns: Iterable[Column], lines: Sequence[Stage | Direct]) -> Table:
    shown = [column for column in columns if column.page]
    rows = [[_cell(column, column.value(line)) for column in shown] for line in lines]
    return table(caption, [column.page for column in shown], rows)


def _cell(column: Column, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return format(value, column.share) if column.share else number(value / column.unit)
