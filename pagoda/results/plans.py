"""What a profile would take, from ``pagoda plan --json`` kept in ``reports/plans/<profile>.json``.

Counting a large profile takes longer than the rest of the page, and changes only with the profile
or the networks; so the page shows what was kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError
from pagoda.results.blocks import Table, table
from pagoda.results.numbers import number
from pagoda.rows import read_text

FOLDER = "plans"
SCHEMA = 1
_MEGA, _GIGA, _PETA = 1e6, 1e9, 1e15
_COUNTED = (
    "Counted on the networks, not run and not measured: a multiply-add is two operations; "
    "pointwise work, normalisation, optimisers and data are not in it."
)


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
            plan = json.loads(read_text(path))
            if plan["schema"] != SCHEMA:
                raise PagodaError(f"{path} is of version {plan['schema']}, not {SCHEMA}; {again}")
            made[f"plan-{profile}-stages"] = _stages(profile, plan)
            made[f"plan-{profile}-growth"] = _growth(profile, plan)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PagodaError(f"{path} is no plan; {again}") from error
    return made


def _stages(profile: str, plan: Mapping[str, Any]) -> Table:
    cards = list(plan["peak_tflops"])
    counted = [s for s in plan["stages"] if s["flops"]]
    rows = [
        (s["stage"], _in(s["parameters"], _MEGA), _in(s["trainable"], _MEGA),
         _in(s["forward_flops"], _GIGA), _in(s["flops"], _PETA), s["precision"] or "",
         *(number(s["hours"][card]) for card in cards))
        for s in counted
    ]  # fmt: skip
    rows.append(
        ("**all**", "", "", "", _in(sum(s["flops"] for s in counted), _PETA), "",
         *(number(sum(s["hours"][card] for s in counted)) for card in cards))
    )  # fmt: skip
    header = ("Stage", "Parameters, M", "Trained, M", "GFLOP an image", "PFLOP", "Precision",
              *(f"{card} hours" for card in cards))  # fmt: skip
    peaks = ", ".join(f"{card} {peak:g} TFLOP/s" for card, peak in plan["peak_tflops"].items())
    return table(
        f"**What `{profile}` would take**, {' → '.join(map(str, plan['resolutions']))}, "
        f"{plan['train_images']:,} training images. "
        f"{_COUNTED} Hours: one card at {plan['utilisation']:.0%} of its dense bfloat16 peak "
        f"({peaks}). From `reports/plans/{profile}.json`; more, with disk: "
        f"`pagoda plan --profile {profile}`.",
        header,
        rows,
    )


def _growth(profile: str, plan: Mapping[str, Any]) -> Table:
    rows = []
    for d in plan["growth"]:
        step, whole = d["step_flops"], d["flops"]
        rows.append(
            (f"{d['resolution']}×{d['resolution']}", _in(whole, _PETA), _in(step, _PETA),
             "" if step is None else f"{step / whole:.2%}", _in(d["reached_flops"], _PETA),
             f"{d['reached_flops'] / whole:.1%}")
        )  # fmt: skip
    return table(
        f"**Growth beside diffusion, `{profile}`**: training the teacher's design directly at a "
        "resolution, levels added, on as many images as the teacher, against growing to it. "
        "Our budgets: the fractions rest on how many images the profile gives each stage; the "
        f"paper states no length. {_COUNTED} From `reports/plans/{profile}.json`.",
        ("Resolution", "Diffusion there, PFLOP", "Growth step, PFLOP",
         "of diffusion, our budgets", "All stages so far, PFLOP", "of diffusion, our budgets"),
        rows,
    )  # fmt: skip


def _in(value: float | None, unit: float) -> str:
    return "" if value is None else number(value / unit)
