"""``pagoda report`` beyond one experiment: what was run, wherever it is kept, on one page.

Experiments come from their reports below ``reports/``; on request also from DVC experiments, whose
reports are in their commits, and from MLflow, whose runs keep the report as an artifact. Equal
results found twice are one experiment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pagoda.errors import PagodaError
from pagoda.paper.claims import read_claims
from pagoda.paper.plans import read_plans
from pagoda.paper.published import read_published
from pagoda.paper.runs import RESULTS, TEXT, Run, distinct, find_runs, make_run
from pagoda.paper.suite import CLAIMS, Material, write_suite
from pagoda.report.studies import find_studies
from pagoda.stages.revision import code_revision

REPORTS = Path("reports")
_EXPERIMENTS = "refs/exps/"


def gather(
    *,
    published: Path | None = None,
    from_exp: bool = False,
    from_mlflow: bool = False,
    reports: Path = REPORTS,
) -> None:
    """Write the page of everything and the claims ledger.

    Args:
        published: a user's CSV of published figures, to fill empty cells.
        from_exp: add the experiments of ``dvc exp run`` that are still there.
        from_mlflow: add the finished runs of MLflow.
        reports: folder of the reports.

    Raises:
        PagodaError: one line for what is missing, damaged or unreachable.
    """
    found = {f"{reports}/": find_runs(reports)}
    if from_exp:
        found["DVC"] = experiments()
    if from_mlflow:
        found["MLflow"] = mlflow_runs()
    runs = distinct(run for part in found.values() for run in part)
    material = Material(
        published=read_published(own=published),
        runs=runs,
        studies=find_studies(reports),
        claims=read_claims(),
        plans=read_plans(reports),
        revision=code_revision(),
        reports=reports,
    )
    folder = write_suite(material)
    counts = ", ".join(f"{len(part)} from {where}" for where, part in found.items())
    sys.stderr.write(
        f"experiments: {counts}; {len(runs)} with results of their own\n"
        f"everything: {folder}/index.html (page), {folder}/report.md (text), "
        f"{reports / CLAIMS} (claims)\n"
    )


def experiments() -> list[Run]:
    """The reports in the commits of DVC's experiments, by profile and base resolution.

    Raises:
        PagodaError: if this is no git repository.
    """
    lines = _git("for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS).splitlines()
    found = []
    for line in lines:
        commit, ref = line.split(" ", 1)
        first, *rest = ref.removeprefix(_EXPERIMENTS).split("/")
        if len(first) == 2:  # the base commit, cut in two; others are DVC's own: stash, exec
            found += list(_committed(commit, first + rest[0], rest[-1]))
    return sorted(found, key=lambda run: (run.profile, run.base_res, run.origin))


def mlflow_runs() -> list[Run]:
    """The finished experiments of the store, from the reports they keep.

    Raises:
        PagodaError: if the store is unreachable or a report is damaged.
    """
    from pagoda.mlflow_store import connected, find_store

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a small file
    store, found = find_store(), []
    with connected(store) as client, tempfile.TemporaryDirectory() as folder:
        # Evaluations of any images have no parameters, studies no identity.
        wanted = (
            "attributes.status = 'FINISHED' and tags.identity != '' and tags.parameters_hash != ''"
        )
        experiments_ = [e.experiment_id for e in client.search_experiments()]
        for run in client.search_runs(experiments_, wanted) if experiments_ else ():
            run_id, profile = run.info.run_id, run.data.tags["profile"]
            results, text = (
                Path(client.download_artifacts(run_id, f"report/{name}", folder)).read_text("utf-8")
                for name in (RESULTS, TEXT)
            )
            origin, where = f"MLflow run `{run_id[:8]}`", f"MLflow run {run_id}"
            found.append(make_run(profile, results, text, origin, where))
    return sorted(found, key=lambda run: (run.profile, run.base_res, run.origin))


def _committed(commit: str, base: str, name: str) -> Iterator[Run]:
    """Reports that the experiment wrote; those that it found in its base are not its own."""
    files = _git("ls-tree", "-r", "--name-only", commit, "--", "reports/").splitlines()
    changed = _git("diff", "--name-only", "--no-renames", base, commit, "--", "reports/")
    for file in sorted(set(files) & set(changed.splitlines())):
        parts = Path(file).parts
        if len(parts) == 4 and parts[2].startswith("b") and parts[3] == RESULTS:
            text_file = str(Path(file).parent / TEXT)
            text = _git("show", f"{commit}:{text_file}") if text_file in files else ""
            where, origin = f"experiment {name}: {file}", f"DVC experiment `{name}`"
            yield make_run(parts[1], _git("show", f"{commit}:{file}"), text, origin, where)


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
