"""The table of ``benchmarks/metrics.py``, and what each of its rows is to reach."""

from __future__ import annotations

import statistics
from typing import Any

SQRTM, EIGVALS = "clean-fid (scipy sqrtm)", "numpy eigvals (torch-fidelity)"
RATIO_GOALS = {
    ("manifold", "prdc"): 2.5, ("statistics", "numpy cov (pytorch-fid)"): 1.0,
    ("KID, 100 subsets of 1000", "clean-fid"): 1.0,
}  # fmt: skip
"""Least CPU seconds of a peer over those of pagoda's first of its row."""
MEMORY_GOALS = {("manifold", "prdc"): 5.0}
"""Least peak memory of a peer over pagoda's."""
MIB_GOALS = {("statistics", "pagoda"): 200.0, ("manifold of 50k", "pagoda"): 2048.0}
"""Most memory of pagoda beyond its inputs."""
ERROR_GOAL = 1e-12  # most relative error of pagoda where the truth is known


def table(results: list[dict[str, Any]]) -> str:
    """A line an implementation: median and range of seconds, ratio to pagoda's, memory, goals."""
    ours: dict[str, dict[str, Any]] = {}
    for result in results:
        if result["name"].startswith("pagoda"):
            ours.setdefault(result["row"], result)
    head = "row | implementation | CPU s: median (range) | x pagoda | peak MiB | value | goal"
    lines = [f"| {head} |", "|---|---|---|---|---|---|---|"]
    for result in results:
        seconds = [run["seconds"] for run in result["runs"]]
        ratio = _median(result) / _median(ours[result["row"]])
        lines.append(
            f"| {result['row']} | {result['name']} | {_median(result):.2f} "
            f"({min(seconds):.2f} to {max(seconds):.2f}) | {ratio:.2f} | {_mib(result):.0f} | "
            f"{_short(result)} | {_goals(result, ours[result['row']])} |"
        )
    return "\n".join(lines)


def _goals(result: dict[str, Any], ours: dict[str, Any]) -> str:
    """Each goal that the line is about, and whether it is met."""
    key, value = (result["row"], result["name"]), result["runs"][0]["value"]
    found = []
    if (least := RATIO_GOALS.get(key)) is not None:
        found.append((f"at least {least:g}x", _median(result) >= least * _median(ours)))
    if (least := MEMORY_GOALS.get(key)) is not None:
        found.append((f"memory at least {least:g}x", _mib(result) >= least * _mib(ours)))
    if (most := MIB_GOALS.get(key)) is not None:
        found.append((f"at most {most:g} MiB", _mib(result) <= most))
    if isinstance(value, dict) and "relative_error" in value and result is ours:
        met = value["relative_error"] <= ERROR_GOAL
        found.append((f"at most {ERROR_GOAL:g}", met))
    return ", ".join(f"{goal}: {'met' if met else 'NOT met'}" for goal, met in found)


def _mib(result: dict[str, Any]) -> float:
    return float(max(run["mib"] for run in result["runs"]))


def _median(result: dict[str, Any]) -> float:
    return statistics.median(run["seconds"] for run in result["runs"])


def _short(result: dict[str, Any]) -> str:
    value = result["runs"][0]["value"]
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:.4g}" for key, number in value.items())
    return f"{value:.9g}"
