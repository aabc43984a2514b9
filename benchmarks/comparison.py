"""Values of several runs of a profile side by side, and their spread over training seeds."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]
Column = tuple[int, str]
"""Resolution and protocol: values of different columns are never compared."""

_SHOWN = ("fd", "fid", "precision", "recall", "train_share", "fd_test", "fid_test")


def write_comparison(work: Path, runs: Sequence[str]) -> None:
    """Write ``comparison.csv``, every value of every run, and ``comparison.md``, the tables."""
    rows = [row for name in runs for row in read_run(work, name)]
    with (work / "comparison.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    logged = [json.loads(line) for line in (work / "stages.jsonl").read_text().splitlines()]
    parts = [distances(rows), over_seeds(rows), costs(logged, runs)]
    (work / "comparison.md").write_text("\n\n".join(part for part in parts if part) + "\n")


def read_run(work: Path, name: str) -> list[Row]:
    """All result rows of a run, each with the run's name and training seed."""
    folder = work / name
    seed = yaml.safe_load((folder / "params.yaml").read_text())["seed"]
    files = sorted(folder.glob("runs/*/b*/evaluate/*/results.json"), key=lambda p: int(p.parts[-2]))
    about = {"run": name, "training_seed": seed}
    return [about | row for file in files for row in json.loads(file.read_text())["rows"]]


def distances(rows: Iterable[Row]) -> str:
    """A table a resolution: a line a run and generator, a column a protocol."""
    tables = []
    shown = [row for row in rows if row["metric"] in _SHOWN]
    for resolution in sorted({row["resolution"] for row in shown}):
        here = [row for row in shown if row["resolution"] == resolution]
        names = list(dict.fromkeys(row["protocol"] for row in here))
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for row in here:
            line = lines.setdefault((row["run"], row["generator"]), {})
            line[row["protocol"]] = f"{row['value']:.3g}"
        cells = [[*key, *(line.get(name, "") for name in names)] for key, line in lines.items()]
        title = f"{resolution}x{resolution}"
        tables.append(_table(["run", f"generator, {title}", *(f"`{n}`" for n in names)], cells))
    return "\n\n".join(tables)


def over_seeds(rows: Iterable[Row]) -> str:
    """Every training seed, least, mean and standard deviation; only runs that differ in the seed.

    Empty with one seed. The least is the paper's "best of three" and is biased.
    """
    found: dict[tuple[str, Column], dict[int, float]] = {}
    for row in rows:
        main = row["run"] == "main" or row["run"].startswith("seed_")
        if main and row["metric"] in _SHOWN and row["generator"] != "real":
            key = row["generator"], (row["resolution"], row["protocol"])
            found.setdefault(key, {})[row["training_seed"]] = row["value"]
    lines = []
    for (generator, (resolution, name)), values in found.items():
        if len(values) > 1:
            of = list(values.values())
            each = ", ".join(f"{value:.3g}" for _, value in sorted(values.items()))
            spread = [f"{min(of):.3g}", f"{statistics.mean(of):.3g}", f"{statistics.stdev(of):.2g}"]
            lines.append([generator, str(resolution), f"`{name}`", each, *spread])
    head = ["generator", "size", "protocol", "each training seed", "least", "mean", "sd"]
    return _table(head, lines) if lines else ""


def costs(logged: Iterable[Row], runs: Sequence[str]) -> str:
    """Seconds of every stage over all its pieces, images/s and peak memory; linked ones left out.

    Images/s is that of the stage's own clock, without start and loading.
    """
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in logged:
        if row["run"] in runs and "seconds" in row:
            lines.setdefault((row["run"], row["stage"]), []).append(row)
    cells = [
        [
            *key, f"{sum(r['seconds'] for r in pieces):.0f}", str(len(pieces)),
            *("" if (v := pieces[-1][k]) is None else f"{v:,.3g}"
              for k in ("images_per_second", "peak_gpu_gib")),
        ]
        for key, pieces in lines.items()
    ]  # fmt: skip
    return _table(["run", "stage", "seconds", "pieces", "images/s", "GPU GiB"], cells)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
