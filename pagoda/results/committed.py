"""The last lines of ``make reproduce``: distances beside the committed ones, what Git sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pagoda import rows as files
from pagoda.errors import PagodaError
from pagoda.results.labels import DISTANCES
from pagoda.results.numbers import number
from pagoda.results.runs import RESULTS
from pagoda.rows import Row

ROUNDING = 1.6
"""Larger over smaller distance of the same seed and settings under other rounding: 0.688 and 0.431,
with one thread and with two, before growth clipped its gradients (docs/recipe.md)."""


def beside_committed(report: Path) -> str:
    """What to say of a report whose folder is in Git.

    Args:
        report: ``reports/<profile>/b<base>``, relative to the working folder, a repository's root.
    """
    committed = _git("show", f"HEAD:{(report / RESULTS).as_posix()}")
    changed = [line[3:] for line in (_git("status", "--porcelain") or "").splitlines()]
    lines = _distances(report, committed) if committed else ["No results of it are committed."]
    if changed:
        few = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
        lines.append(
            f"Git sees changes in {few}: results of a run replace those in the checkout. "
            "'git commit' keeps them, 'git checkout FILE' brings back what was committed."
        )
    return "\n".join(lines)


def _distances(report: Path, committed: str) -> list[str]:
    here = _main(files.from_csv((report / RESULTS).read_text("utf-8"), str(report / RESULTS)))
    there = _main(files.from_csv(committed, "the committed results"))
    both = [(key, here[key], there[key]) for key in here if key in there]
    if both and all(mine == theirs for _, mine, theirs in both):
        return ["Distances are the committed ones, to the last digit."]
    lines = ["Distances here and as committed:"]
    for (protocol, size), mine, theirs in both:
        ratio = max(mine, theirs) / min(mine, theirs) if min(mine, theirs) > 0 else float("inf")
        how = "within" if ratio <= ROUNDING else "beyond"
        lines.append(
            f"  {size}x{size} {protocol}: {number(mine)}, {number(theirs)} "
            f"({ratio:.2f} times, {how} what rounding alone did)"
        )
    lines.append(
        "Processors and thread counts round differently, and training carries that on: "
        f"{ROUNDING} times was seen between one thread and two (docs/recipe.md)."
    )
    return lines


def _main(rows: list[Row]) -> dict[tuple[str, int], float]:
    """Distance of the main generator of every resolution, by protocol."""
    found = [r for r in rows if r.metric in DISTANCES and r.generator in ("student", "grown")]
    return {(r.protocol, r.size): r.number for r in found}


def _git(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    try:
        print(beside_committed(Path(sys.argv[1])))
    except PagodaError as error:
        sys.exit(f"error: {error}")
