"""A plan as markdown, which reads well on a terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pagoda.results.plans import (
    DIFFUSION,
    DISK,
    GROWTH,
    MEGA,
    Column,
    Direct,
    Plan,
    Stage,
    stage_columns,
)

CARDS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bfloat16 tensor-core peaks in TFLOP/s, NVIDIA's data sheets (H100 and H200 SXM, A100)."""


def as_markdown(plan: Plan) -> str:
    """Stages, totals, and growth beside diffusion, with the rules of the count."""
    ladder = " -> ".join(map(str, plan.resolutions))
    head = (
        f"`{plan.profile}`, {ladder}: {plan.train_images:,} training and {plan.test_images:,} "
        f"held-out images, {plan.pairs:,} latents of {plan.inversion_nfe} evaluations each."
    )
    total = plan.all_stages
    run = [s for s in plan.stages if s.flops or s.imported]
    kept = [s for s in plan.stages if s.data_bytes + s.latent_bytes + s.checkpoint_bytes]
    return "\n\n".join([
        head, _table(stage_columns(total.hours), [*run, total]), _table(DISK, [*kept, total]),
        _table(DIFFUSION, plan.growth), _table(GROWTH, plan.growth),
        "\n".join(f"- {rule}" for rule in _rules(plan)),
    ]) + "\n"  # fmt: skip


def _rules(plan: Plan) -> list[str]:
    named = ", ".join(
        f"{name} {peak:g}" + (" (NVIDIA's data sheet)" if CARDS.get(name) == peak else "")
        for name, peak in plan.peak_tflops.items()
    )
    rules = [
        "A multiply-add is two operations. Convolutions, matrix products and attention count; "
        "pointwise work, normalisation, optimisers and data loading do not.",
        "Training is counted forward and backward on the real networks: three forward passes where "
        "all trains; a frozen part costs its forward pass and what of the backward pass goes "
        "through it. Discriminator, its feature networks and the distance are in it.",
        f"Hours are those of one card at {100 * plan.utilisation:g} % of its dense bfloat16 peak "
        f"in TFLOP/s: {named}. They divide by the number of cards only as far as these scale, and "
        "stages in fp32 take longer.",
        "Lossless WebP is taken as 0.42 of raw pixels. Weights are float32; a stage that trains "
        "keeps two checkpoints until it is done.",
        "Diffusion at a resolution is the teacher's design with levels added down to its lowest "
        "resolution, trained on as many images as the teacher. Our budgets: the "
        "shares rest on how many images the profile gives each stage; the paper states no length.",
    ]
    if len(plan.extractors) > 1:
        counted = [name for name in plan.extractors if name not in plan.uncounted]
        rules.append(
            f"Reference and evaluation count every feature network of `reference.extractors`, in "
            f"float32: {', '.join(counted)}."
            + (f" Not known and not counted: {', '.join(plan.uncounted)}." * bool(plan.uncounted))
        )
    if any(stage.imported for stage in plan.stages):
        rules.append("What imported networks cost whoever trained them is in no sum.")
    if plan.probed_on:
        speeds = ", ".join(f"{name} {_digits(v)}" for name, v in plan.reached_tflops.items())
        rules.append(
            f"Hours on this machine ({plan.probed_on}) are the counted operations over what a few "
            f"steps of the stage's own networks reached just now, in TFLOP/s: {speeds}. Reference "
            "and evaluation are taken at the speed of the networks they run; loading, metrics and "
            "reports are not in it."
        )
    return rules


def _table(columns: Iterable[Column], lines: Sequence[Stage | Direct]) -> str:
    """A markdown table: first column to the left, others to the right."""
    shown = [column for column in columns if column.command]
    cells = [[_cell(column, column.value(line)) for column in shown] for line in lines]
    rule = ["---", *["---:"] * (len(shown) - 1)]
    rows = [[column.command for column in shown], rule, *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(column: Column, value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if column.share:
        return f"{_digits(100 * value)} %"
    value /= column.unit
    return f"{value:.2f} M" if column.unit == MEGA else _digits(value)


def _digits(value: float) -> str:
    """Three significant digits without exponents, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in text else text
