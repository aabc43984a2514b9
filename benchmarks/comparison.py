"""Runs of a profile side by side: values, their spread over training seeds, time and memory."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.comparison_grids import draw_grids
from benchmarks.timing import versions
from pagoda.results.labels import generator_label
from pagoda.results.numbers import t_interval
from pagoda.rows import Row, from_json, to_csv

Piece = dict[str, Any]
"""What one piece of a stage took: a line of the log."""

LOG, PREDICTED = "stages.jsonl", "plan.json"
_SHOWN = ("fd", "fid", "fd_test", "fid_test", "precision", "recall", "train_share")
_PLACES = ("data.source=", "data.path=", "data.hub=", "reference.extractors=",
           "reference.weights=", "reference.code=", "reference.download=")  # fmt: skip
"""Settings that say where things are and what results are in, not what is trained."""

_READING = """\
How to read it: a column's name is its protocol; values compare within a column of one size only.
`fd_...` is the Fréchet distance to training images, `fd_test_...` that to held-out ones; with
`classifier` in the features of the embedded classifier, which is **not FID**. `train_share_...` is
the fraction of samples whose nearest real neighbour, among as many training as held-out images, is
a training image: 0.5 without copies, 1 for copies. Real images (floor) are the held-out ones. One
training seed is an indication; how far another seed alone moves a value is in the table over seeds,
if there is one."""


@dataclass(frozen=True)
class Compared:
    """What is compared.

    Attributes:
        work: folder of the runs.
        profile: its name.
        settings: ``key=value`` that all runs have.
        runs: settings of each run's own, and how many stages it has.
        revision: of the code, where rows do not say.
    """

    work: Path
    profile: str
    settings: tuple[str, ...]
    runs: Mapping[str, tuple[tuple[str, ...], int]]
    revision: str | None = None

    @property
    def changed(self) -> tuple[str, ...]:
        """Settings that make it something else than the profile."""
        return tuple(s for s in self.settings if not s.startswith(_PLACES))

    @cached_property
    def rows(self) -> list[Row]:
        """Every value of every run."""
        found = [row for name in self.runs for row in read_run(self.work, name)]
        known = self.revision or "unknown"
        return [replace(row, revision=known) if row.revision == "unknown" else row for row in found]

    @cached_property
    def logged(self) -> list[Piece]:
        """A row a piece of a stage of these runs."""
        lines = (self.work / LOG).read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["run"] in self.runs]

    def params(self, run: str) -> dict[str, Any]:
        """The parameters of a run."""
        return dict(yaml.safe_load((self.work / run / "params.yaml").read_text()))

    def pages(self) -> Path | None:
        """The report of the first run, None if it is not there yet."""
        return next((self.work / next(iter(self.runs))).glob("reports/*/b*"), None)

    def predicted(self) -> dict[tuple[str, str], float]:
        """Seconds that the probe predicted of (run, stage); another seed takes as long as main."""
        found = {}
        for name in self.runs:
            file = self.work / ("main" if name.startswith("seed_") else name) / PREDICTED
            if file.exists():
                for stage in json.loads(file.read_text())["stages"]:
                    hours = stage["hours"].get("this machine", 0.0)
                    found[name, stage["stage"]] = 3600 * hours
        return found


def write_comparison(compared: Compared, folder: Path) -> None:
    """Write ``comparison.md``, its pictures, ``comparison.csv`` and ``stages.csv``.

    The tables have every value and every piece. Runs that are not done have what they have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = compared.rows
    (folder / "comparison.csv").write_text(to_csv(rows))
    pieces = pd.DataFrame(compared.logged, dtype=object).drop(columns="key", errors="ignore")
    pieces.to_csv(folder / "stages.csv", index=False)
    pictures = draw_grids(compared.work, list(compared.runs), folder) if rows else []
    title = f"# `{compared.profile}`: {len(compared.runs)} runs side by side"
    parts = [title, facts(compared), runs_table(compared)]
    if rows:
        parts += ["## Values", distances(rows), _READING]
    if spread := over_seeds(rows):
        parts += ["## Over training seeds", spread]
    if pictures:
        parts += ["## Samples", *(f"![{p.title}]({p.file})\n\n*{p.caption}*" for p in pictures)]
    parts += ["## Time and memory", costs(compared)]
    (folder / "comparison.md").write_text("\n\n".join(parts) + "\n")


def read_run(work: Path, name: str) -> list[Row]:
    """All result rows of a run, each with the run's name as its variant, and training seed."""
    folder = work / name
    seed = yaml.safe_load((folder / "params.yaml").read_text())["seed"]
    files = sorted(folder.glob("runs/*/b*/evaluate/*/results.json"), key=lambda p: int(p.parts[-2]))
    return [
        replace(row, variant=name, training_seed=seed)
        for file in files
        for row in from_json(json.loads(file.read_text())["rows"], str(file))
    ]


def facts(compared: Compared) -> str:
    """What was measured, with what, on what."""
    rows, logged = compared.rows, [row for row in compared.logged if "at" in row]
    packages = versions("torch", "numpy")
    loads = [row["load_before"] for row in logged]
    found = {
        "Profile": f"`{compared.profile}`",
        "Changed for all runs": ", ".join(f"`{s}`" for s in compared.changed) or "nothing",
        "Images": _images(compared),
        "Images a generator": _listed(f"{row.n:,}" for row in rows),
        "Evaluation seed": _listed(row.seed for row in rows),
        "Compared with": _references(rows),
        "Features": _listed(f"`{row.features[:10]}`" for row in rows if row.features),
        "Code": _listed(f"`{row.revision}`" for row in rows),
        "Device": f"{_listed(row.device for row in rows)}; {platform.machine()}, "
        f"{os.cpu_count()} cores",
        "Versions": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in packages.items()),
        "Measured": f"{logged[0]['at']} to {logged[-1]['at']}" if logged else "",
        "Load when stages began": f"{min(loads)} to {max(loads)} (1-minute average, all programs)"
        if loads else "",
    }  # fmt: skip
    return _table(["", ""], ([name, text] for name, text in found.items() if text))


def _images(compared: Compared) -> str:
    """Source and size of the data; the folder it lay in says nothing to anybody else."""
    first = next(iter(compared.runs))
    tree = compared.params(first)
    target = tree["resolutions"][-1]
    card = compared.work / first / "runs" / tree["name"] / "data" / str(target) / "card.json"
    if not card.exists():
        return ""
    n = json.loads(card.read_text())["n"]
    source = tree["data"]["source"]
    return f"{source}, {n['train']:,} training and {n['test']:,} held-out"


def _references(rows: Iterable[Row]) -> str:
    shown = (
        f"{row.reference_n:,} real images at {row.size}x{row.size} (`{row.reference[:10]}`)"
        for row in rows
        if row.metric in ("fd", "fid", "fd_test", "fid_test")
    )
    return _listed(shown, "; ")


def _listed(values: Iterable[object], between: str = ", ") -> str:
    return between.join(dict.fromkeys(map(str, values)))


def runs_table(compared: Compared) -> str:
    """What each run changes, and how much of it is done."""
    done = {
        name: len({row["key"] for row in compared.logged if row["run"] == name and row["done"]})
        for name in compared.runs
    }
    lines = []
    for name, (settings, stages) in compared.runs.items():
        ladder = " → ".join(map(str, compared.params(name)["resolutions"]))
        own = ", ".join(f"`{s}`" for s in settings).replace("{half_base}", "half of the profile's")
        state = "done" if done[name] == stages else f"{done[name]} of {stages} stages"
        lines.append([name, ladder, own or "–", state])
    return _table(["run", "sizes", "changes", "state"], lines)


def distances(rows: Iterable[Row]) -> str:
    """A table a resolution: a line a run and generator, a column a protocol."""
    tables = []
    shown = [row for row in rows if row.metric in _SHOWN]
    for resolution in sorted({row.size for row in shown}):
        here = [row for row in shown if row.size == resolution]
        order = {row.protocol: _SHOWN.index(row.metric) for row in here}
        names = sorted(order, key=lambda name: order[name])
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for row in here:
            line = lines.setdefault((row.variant, generator_label(row.generator)), {})
            line[row.protocol] = f"{row.number:.3g}"
        cells = [[*key, *(line.get(name, "") for name in names)] for key, line in lines.items()]
        title = f"{resolution}x{resolution}"
        tables.append(_table(["run", f"generator, {title}", *(f"`{n}`" for n in names)], cells))
    return "\n\n".join(tables)


def over_seeds(rows: Iterable[Row]) -> str:
    """Every training seed, least, mean, deviation and the mean's 95 % interval (Student's).

    Only runs that differ in the seed. Empty with one seed. The least is the paper's "best of
    three" and is biased.
    """
    found: dict[tuple[str, int, str], dict[int, float]] = {}
    for row in rows:
        main = row.variant == "main" or row.variant.startswith("seed_")
        if main and row.metric in _SHOWN and row.generator != "real":
            key = generator_label(row.generator), row.size, row.protocol
            found.setdefault(key, {})[row.training_seed or 0] = row.number
    lines = []
    for (generator, resolution, name), values in found.items():
        if len(values) > 1:
            of = list(values.values())
            each = ", ".join(f"{value:.3g}" for _, value in sorted(values.items()))
            about = t_interval(of)
            spread = [f"{min(of):.3g}", f"{about.mean:.3g}", f"{statistics.stdev(of):.2g}"]
            between = f"{about.low:.3g} to {about.high:.3g}"
            lines.append([generator, str(resolution), f"`{name}`", each, *spread, between])
    head = ["generator", "size", "protocol", "each training seed", "least", "mean", "sd",
            "95 % interval of the mean"]  # fmt: skip
    return _table(head, lines) if lines else ""


def costs(compared: Compared) -> str:
    """Seconds of every stage over all its pieces, what the probe predicted, images/s, memory.

    A stage that was linked from another run has no line. Images/s is that of the stage's own clock,
    without start and loading.
    """
    lines: dict[tuple[str, str], list[Piece]] = {}
    for row in compared.logged:
        if "seconds" in row:
            lines.setdefault((row["run"], row["stage"]), []).append(row)
    predicted, cells = compared.predicted(), []
    sums: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in compared.runs}
    for (run, stage), pieces in lines.items():
        seconds, last = sum(r["seconds"] for r in pieces), pieces[-1]
        said = predicted.get((run, plan_name(stage)))
        of_run = sums[run]
        of_run[0] += seconds
        if said:
            of_run[1], of_run[2] = of_run[1] + seconds, of_run[2] + said
        cells.append([
            run, stage, f"{seconds:,.0f}", _number(said), f"{seconds / said:.2f}" if said else "",
            str(len(pieces)), _number(last["images_per_second"]),
            _number(max((r["peak_host_gib"] or 0.0) for r in pieces)),
            _number(max(r["peak_gpu_gib"] for r in pieces)),
        ])  # fmt: skip
    for run, (seconds, counted, said) in sums.items():
        ratio = f"{counted / said:.2f}" if said else ""
        cells.append([f"**{run}**", "**all**", f"{seconds:,.0f}", _number(said), ratio, *[""] * 4])
    head = ["run", "stage", "seconds", "predicted", "seconds over predicted", "pieces", "images/s",
            "host GiB", "GPU GiB"]  # fmt: skip
    note = (
        "Predicted are the seconds of `pagoda plan --probe` before the run: arithmetic only, "
        "without start, loading, metrics and reports, which the seconds hold; a sum's ratio is "
        "over the stages that it names. Host memory is the peak of the stage's process, GPU memory "
        "that of all programs. What a run took over from another one has no line."
    )
    return f"{_table(head, cells)}\n\n{note}"


def plan_name(stage: str) -> str:
    """A stage's command line as ``pagoda plan`` names it: ``grow --from 16 --to 32``, grow@32."""
    words = stage.split()
    return words[0] if len(words) == 1 else f"{words[0]}@{words[-1]}"


def _number(value: float | None) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
