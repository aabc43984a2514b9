"""A plan as markdown, which reads well on a terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pagoda.pipeline.plan.rows import CARDS, THIS_MACHINE, Direct, Plan, Stage

_GIGA = 1e9
_PETA = 1e15


def as_markdown(plan: Plan) -> str:
    """Stages, totals, and growth beside diffusion, with the rules of the count."""
    ladder = " -> ".join(map(str, plan.resolutions))
    head = (
        f"`{plan.profile}`, {ladder}: {plan.train_images:,} training and {plan.test_images:,} "
        f"held-out images, {plan.pairs:,} latents of {plan.inversion_nfe} evaluations each."
    )
    return "\n\n".join([
        head, _compute(plan), _disk(plan), _stage_one(plan), _growth(plan), _rules(plan),
    ]) + "\n"  # fmt: skip


def _compute(plan: Plan) -> str:
    columns = [*plan.peak_tflops, *([THIS_MACHINE] if plan.probed_on else [])]
    header = ["stage", "parameters", "trained", "discriminator, trained", "GFLOP an image",
              "PFLOP", "precision", *(f"{c} hours" for c in columns)]  # fmt: skip
    rows = [
        [s.stage, _millions(s.parameters), "imported" if s.imported else _millions(s.trainable),
         _millions(s.judge_trainable),
         _number(s.forward_flops, _GIGA), _number(s.flops, _PETA), s.precision or "",
         *(_number(h) for h in s.hours.values())]
        for s in plan.stages if s.flops or s.imported
    ]  # fmt: skip
    total = [
        "**all**", "", "", "", "", _number(sum(s.flops for s in plan.stages), _PETA), "",
        *(_number(sum(s.hours[c] for s in plan.stages)) for c in columns),
    ]  # fmt: skip
    return table(header, [*rows, total])


def _disk(plan: Plan) -> str:
    def row(name: str, stages: Sequence[Stage]) -> list[str]:
        columns = (
            [s.data_bytes for s in stages], [s.latent_bytes for s in stages],
            [s.checkpoint_bytes for s in stages], [s.scratch_bytes for s in stages],
        )  # fmt: skip
        kept = [_number(sum(c), _GIGA) if sum(c) else "" for c in columns[:3]]
        most = max(columns[3])
        return [name, *kept, _number(most, _GIGA) if most else ""]

    shown = [s for s in plan.stages if s.data_bytes + s.latent_bytes + s.checkpoint_bytes]
    header = ["stage", "data, GB", "latents, GB", "weights, GB", "while it trains, GB"]
    return table(header, [*(row(s.stage, [s]) for s in shown), row("**all**", plan.stages)])


def _stage_one(plan: Plan) -> str:
    rows = [
        [f"{d.resolution}x{d.resolution}", _millions(d.parameters),
         _number(d.training_flops, _GIGA), _number(d.times_base), str(d.rule),
         _number(d.flops, _PETA)]
        for d in plan.growth
    ]  # fmt: skip
    header = ["diffusion trained at", "parameters", "GFLOP a training image",
              "counted, times the base", "the paper's 4^n",
              "PFLOP for the teacher's images"]  # fmt: skip
    return table(header, rows)


def _growth(plan: Plan) -> str:
    def row(d: Direct) -> list[str]:
        step, fraction = "", ""
        if d.step_flops is not None:
            step, fraction = _number(d.step_flops, _PETA), _percent(d.step_flops / d.flops)
        return [f"{d.resolution}x{d.resolution}", step, fraction, _number(d.reached_flops, _PETA),
                _percent(d.reached_flops / d.flops)]  # fmt: skip

    header = ["grown to", "PFLOP of the step", "of diffusion there, our budgets",
              "PFLOP of all stages so far", "of diffusion there, our budgets"]  # fmt: skip
    return table(header, [row(d) for d in plan.growth])


def _rules(plan: Plan) -> str:
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
        speeds = ", ".join(f"{k} {_number(v)}" for k, v in plan.reached_tflops.items())
        rules.append(
            f"Hours on this machine ({plan.probed_on}) are the counted operations over what a few "
            f"steps of the stage's own networks reached just now, in TFLOP/s: {speeds}. Reference "
            "and evaluation are taken at the speed of the networks they run; loading, metrics and "
            "reports are not in it."
        )
    return "\n".join(f"- {rule}" for rule in rules)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table: first column to the left, others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, unit: float = 1.0) -> str:
    """Three significant digits without exponents, thousands apart."""
    if value is None:
        return ""
    value /= unit
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}".rstrip("0").rstrip(".") if "e" in text else text


def _percent(fraction: float) -> str:
    return f"{_number(100 * fraction)} %"


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f} M"
