"""Finished experiments: measured rows and the facts beside them, wherever they are kept.

``reports/<profile>/b<base>/`` holds ``results.csv`` and ``facts.json``. DVC's experiments keep them
in their commits, MLflow's runs as artifacts. Equal results found twice are one experiment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda import rows as files
from pagoda.errors import PagodaError
from pagoda.results.blocks import Figure, Gallery, Pair, figure_tree
from pagoda.results.evaluations import of_captions, read_evaluation
from pagoda.results.labels import FULL_SIZE
from pagoda.rows import Row

RESULTS, FACTS, EVALUATIONS = "results.csv", "facts.json", "evaluations"
_EXPERIMENTS = "refs/exps/"


@dataclass(frozen=True)
class Facts:
    """What the report of an experiment knows beside its rows: ``facts.json``."""

    seed: int | None = None  # of training
    data: str = ""  # the images, one phrase
    train_seconds: float | None = None  # wall time of all training stages
    figures: tuple[Figure, ...] = ()  # in the report's folder
    beside: Gallery | None = None  # real images beside generated ones


@dataclass(frozen=True)
class Run:
    """One experiment."""

    profile: str
    base_res: int  # of its teacher
    facts: Facts
    origin: str  # where its rows were read: a folder, a DVC experiment or an MLflow run
    rows: tuple[Row, ...]
    folder: Path | None = None  # of its figures; None if they are not at hand

    @property
    def label(self) -> str:
        """Reader's name."""
        seed = "" if self.facts.seed is None else f", seed {self.facts.seed}"
        return f"`{self.profile}`, base {self.base_res}{seed}"

    @property
    def full_size(self) -> bool:
        """True for the paper's own data and networks."""
        return self.profile in FULL_SIZE

    @property
    def resolutions(self) -> list[int]:
        """Where it was measured, ascending."""
        return sorted({row.size for row in self.rows})

    @property
    def order(self) -> tuple[str, int, str]:
        """Place among other runs."""
        return self.profile, self.base_res, self.origin

    def main(self, resolution: int) -> list[Row]:
        """Rows of the generator the experiment is about at one resolution."""
        name = _main(resolution, self.base_res)
        return [r for r in self.rows if r.resolution == resolution and r.generator == name]


def find_runs(reports: Path = Path("reports")) -> list[Run]:
    """Every experiment whose report is below ``reports``, with evaluations of its generators.

    Those are files of ``pagoda evaluate --images`` in ``../evaluations``, e.g. FID against
    published statistics.

    Raises:
        PagodaError: one line for what is damaged.
    """
    found = []
    for path in reports.glob(f"*/b*/{RESULTS}"):
        folder, facts = path.parent, path.with_name(FACTS)
        text = files.read_text(facts) if facts.is_file() else ""
        run = make_run(folder.parent.name, files.read_text(path), text, f"`{folder}`", str(path))
        others = [
            dataclasses.replace(row, generator=_main(row.size, run.base_res))
            for file in sorted((folder.parent / EVALUATIONS).glob("*.json"))
            for rows, tree in [read_evaluation(file)]
            if not of_captions(tree)
            for row in rows
            if row.base_res == run.base_res
        ]
        found.append(dataclasses.replace(run, folder=folder, rows=(*run.rows, *others)))
    return sorted(found, key=lambda run: run.order)


def _main(resolution: int, base_res: int) -> str:
    """The generator that an experiment is about."""
    return "student" if resolution == base_res else "grown"


def make_run(profile: str, results: str, facts: str, origin: str, where: str) -> Run:
    """A run from the texts of its ``results.csv`` and ``facts.json`` (empty: none is known).

    Raises:
        PagodaError: one line for what is damaged.
    """
    rows = files.from_csv(results, where)
    if not rows:
        raise PagodaError(f"{where} has no rows; 'pagoda report' makes it again")
    if len(bases := {row.base_res or 0 for row in rows}) > 1:
        raise PagodaError(f"{where} mixes base resolutions {sorted(bases)}")
    try:
        tree: dict[str, Any] = json.loads(facts) if facts else {}
        figures = tuple(Figure(**figure_tree(f)) for f in tree.get("figures", ()))
        known = Facts(**tree | {"figures": figures, "beside": _gallery(tree.get("beside"))})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PagodaError(
            f"{FACTS} beside {where} is damaged ({error}); 'pagoda report' makes it again"
        ) from error
    return Run(profile, bases.pop(), known, origin, tuple(rows))


def _gallery(tree: dict[str, Any] | None) -> Gallery | None:
    if not tree:
        return None
    pairs = (p | {"rows": tuple(p["rows"]), "halves": tuple(p["halves"])} for p in tree["pairs"])
    return Gallery(tuple(Pair(**p) for p in pairs), tree["caption"])


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Runs without those that were found twice: equal rows are one experiment."""
    return list({(run.profile, run.rows): run for run in reversed(list(runs))}.values())[::-1]


def experiments() -> list[Run]:
    """The reports in the commits of DVC's experiments, by profile and base resolution.

    Reports that an experiment found in its base commit are not its own.

    Raises:
        PagodaError: if this is no git repository.
    """
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS).splitlines()
    found = []
    for line in lines:
        commit, ref = line.split(" ", 1)
        first, *rest = ref.removeprefix(_EXPERIMENTS).split("/")
        if len(first) != 2:  # of the base commit, cut in two; others are DVC's own: stash, exec
            continue
        there = set(_git("ls-tree", "-r", "--name-only", commit, "--", "reports/").splitlines())
        changes = "diff", "--name-only", "--no-renames", first + rest[0], commit, "--", "reports/"
        for file in sorted(there & set(_git(*changes).splitlines())):
            if match := re.fullmatch(rf"reports/([^/]+)/b[^/]*/{re.escape(RESULTS)}", file):
                beside = file.removesuffix(RESULTS) + FACTS
                facts = _git("show", f"{commit}:{beside}") if beside in there else ""
                where, origin = f"experiment {rest[-1]}: {file}", f"DVC experiment `{rest[-1]}`"
                results = _git("show", f"{commit}:{file}")
                found.append(make_run(match[1], results, facts, origin, where))
    return sorted(found, key=lambda run: run.order)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, encoding="utf-8", errors="replace", check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise PagodaError(
            "--from-exp reads DVC's experiments from git, which did not answer; run it inside the "
            "project's repository"
        ) from error
    return done.stdout


def mlflow_runs() -> list[Run]:
    """The finished experiments of the store, from the reports they keep.

    Raises:
        PagodaError: if the store is unreachable or a report is damaged.
    """
    from pagoda.results.mlflow_store import MOST_RUNS, connected, find_store

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a small file
    store, found = find_store(), []
    with connected(store) as client, tempfile.TemporaryDirectory() as folder:
        # Evaluations of any images have no parameters, studies no identity.
        wanted = (
            "attributes.status = 'FINISHED' and tags.identity != '' and tags.parameters_hash != ''"
        )
        where = [e.experiment_id for e in client.search_experiments()]
        for run in client.search_runs(where, wanted, max_results=MOST_RUNS) if where else ():
            run_id = run.info.run_id
            kept = {file.path for file in client.list_artifacts(run_id, "report")}
            results, facts = (
                files.read_text(Path(client.download_artifacts(run_id, f"report/{name}", folder)))
                if f"report/{name}" in kept else ""
                for name in (RESULTS, FACTS)
            )  # fmt: skip
            origin, told = f"MLflow run `{run_id[:8]}`", f"MLflow run {run_id}"
            found.append(make_run(run.data.tags["profile"], results, facts, origin, told))
    return sorted(found, key=lambda run: run.order)
