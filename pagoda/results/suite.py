"""Everything that was run, on one page: the paper's tables, the studies, the claims, the runs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pagoda import outputs
from pagoda.results import paper_tables as tables
from pagoda.results.claims import Claim, Judgement, judge_all
from pagoda.results.derived import with_derived
from pagoda.results.document import Block, Document, Section, Table
from pagoda.results.ledger import counted, ledger_blocks, ledger_document
from pagoda.results.markdown import to_markdown
from pagoda.results.page import to_html
from pagoda.results.paper_tables import Sources
from pagoda.results.plans import plan_tables
from pagoda.results.printers import to_csv, to_latex
from pagoda.results.published import Published
from pagoda.results.runs import Run, pictures
from pagoda.results.studies import StudyResults
from pagoda.results.study_section import file_name, study_blocks, study_title
from pagoda.results.study_tables import study_tables

FOLDER, CLAIMS = "suite", "claims.md"
_FILES = (
    "report.md", "index.html", "claims.csv", "study-*.png", "tables/*.csv", "tables/*.tex"
)  # fmt: skip
_SIZES = (64, 128, 256, 512)


@dataclass(frozen=True)
class Material:
    """All that the page is made from.

    Attributes:
        published: figures of the paper and of others.
        runs: experiments, from reports, MLflow or DVC.
        studies: by profile and name.
        claims: and their rules.
        revision: of the code that makes the page.
        reports: folder that the page's files go to.
        plans: what profiles would take, by profile, as ``pagoda plan --json`` prints it.
    """

    published: Sequence[Published]
    runs: Sequence[Run]
    studies: Sequence[StudyResults]
    claims: Sequence[Claim]
    revision: str
    reports: Path
    plans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def write_suite(material: Material) -> Path:
    """Write ``<reports>/suite/`` and ``<reports>/claims.md``.

    The folder holds ``index.html``, ``report.md``, ``claims.csv``, the pictures, and every table as
    CSV and LaTeX. It is replaced whole.

    Returns:
        The folder.

    Raises:
        PagodaError: if the folder holds anything else, the disk is full or a path is not writable.
    """
    folder = material.reports / FOLDER
    judgements = judge_all(material.claims, material.studies)
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        (partial / "tables").mkdir()
        named = paper_tables(material)
        for name, table in named.items():
            (partial / "tables" / f"{name}.csv").write_text(to_csv(table), encoding="utf-8")
            (partial / "tables" / f"{name}.tex").write_text(to_latex(table, name), encoding="utf-8")
        document = compose(material, judgements, named, partial)
        (partial / "report.md").write_text(to_markdown(document), encoding="utf-8")
        (partial / "index.html").write_text(
            to_html(document, partial, dense=True), encoding="utf-8"
        )
        (partial / "claims.csv").write_text(claims_csv(judgements), encoding="utf-8")
    ledger = to_markdown(ledger_document(judgements, material.revision, material.reports))
    outputs.write_text(material.reports / CLAIMS, ledger)
    return folder


def paper_tables(material: Material) -> dict[str, Table]:
    """Every table by the name of its files."""
    published, runs, sources = material.published, material.runs, Sources(material.published)
    made = {f"imagenet-{r}": tables.imagenet_table(published, runs, r, sources) for r in _SIZES}
    made |= {f"fd-dinov2-{r}": tables.dino_table(published, runs, r, sources) for r in (64, 512)}
    made |= {
        "base-resolution": tables.base_resolution_table(published, sources),
        "upsampling": tables.upsampling_table(published, sources),
        "growth-baselines": tables.growth_baselines_table(published, sources),
    }
    made |= {f"one-step-{r}": tables.one_step_table(published, r, sources) for r in _SIZES}
    for profile in dict.fromkeys(run.profile for run in runs):
        own = [run for run in runs if run.profile == profile]
        made[f"measured-{profile}"] = tables.measured_table(own)
        made[f"base-resolution-{profile}"] = tables.way_up_table(own)
    for study in map(with_derived, material.studies):
        made |= {file_name(study, group): table for group, table in study_tables(study).items()}
    return made | plan_tables(material.plans) | {"sources": sources.table()}


def compose(
    material: Material, judgements: Sequence[Judgement], named: dict[str, Table], folder: Path
) -> Document:
    """Draw the pictures into ``folder`` and put the document together."""
    since = [t for name, t in named.items() if name.startswith("one-step")]
    measured = [t for name, t in named.items() if name.startswith("measured")]
    planned = [t for name, t in named.items() if name.startswith("plan-")]
    paper = [t for name, t in named.items() if name.startswith(("imagenet", "fd-dinov2"))]
    ways = [named["base-resolution"], named["upsampling"], named["growth-baselines"]]
    ways += [t for name, t in named.items() if name.startswith("base-resolution-")]
    sections = [
        Section("Claims", ledger_blocks(judgements, material.revision, folder)),
        Section("Measured here", (*_runs(material), *measured)),
        Section("Base resolution and growth", tuple(ways)),
        *(
            Section(study_title(s), study_blocks(s, judgements, named, folder))
            for s in map(with_derived, material.studies)
        ),
        *(
            Section(f"Pictures: {run.profile}, base {run.base_res}", _pictures(run, folder))
            for run in material.runs
            if pictures(run)
        ),
        Section("The paper's tables", tuple(paper)),
        Section("One-step generators since", tuple(since)),
        *([Section("What the paper's size would take", tuple(planned))] if planned else []),
        Section("Sources", (named["sources"],)),
        Section("How to read the numbers", _reading(material)),
    ]
    return Document("The reproduction so far", _summary(material, judgements), tuple(sections))


def claims_csv(judgements: Sequence[Judgement]) -> str:
    """Every judgement with the effect of each seed, unrounded."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["claim", "profile", "protocol", "verdict", "reason", "effect", "mean", "low", "high",
         "limit", "direction", "seeds", "effects", "study"]
    )  # fmt: skip
    for j in judgements:
        numbers = ["", "", ""] if j.effect is None else [
            repr(v) for v in (j.effect.mean, j.effect.low, j.effect.high)
        ]  # fmt: skip
        writer.writerow(
            [j.claim.id, j.profile, j.protocol, j.verdict, j.reason, j.claim.effect, *numbers,
             repr(j.claim.limit), "below" if j.claim.below else "above",
             " ".join(str(s) for s in j.seeds), " ".join(repr(v) for v in j.seeds.values()),
             j.claim.study]
        )  # fmt: skip
    return stream.getvalue()


def _summary(material: Material, judgements: Sequence[Judgement]) -> str:
    profiles = ", ".join(dict.fromkeys(f"`{run.profile}`" for run in material.runs)) or "none"
    full = sum(run.full_size for run in material.runs)
    size = (
        f"{full} of them at the paper's full size."
        if full
        else "**None is at the paper's full size**: measured values are of scaled-down runs on "
        "other data and are never set against published figures."
    )
    return (
        f"Experiments: {len(material.runs)} (profiles {profiles}); studies: "
        f"{len(material.studies)}. {size} {counted(judgements)}"
    )


def _runs(material: Material) -> tuple[Block, ...]:
    if not material.runs:
        return ("Nothing was run yet: `dvc repro`, then `pagoda report`.",)
    lines = [
        f"{run.label}: {run.data or 'data not recorded'}; {run.origin}; code "
        + ", ".join(dict.fromkeys(f"`{row.revision}`" for row in run.rows))
        for run in material.runs
    ]
    return ("Experiments, one run each: " + ". ".join(lines) + ".",)


def _pictures(run: Run, folder: Path) -> tuple[Block, ...]:
    """The run's own pictures: distances, sheets, nearest real images, learning curves."""
    assert run.folder is not None
    blocks: list[Block] = [f"Profile {run.label}; as in the report of this run, {run.origin}."]
    for figure in pictures(run):
        blocks.append(replace(figure, file=os.path.relpath(run.folder / figure.file, folder)))
    return tuple(blocks)


def _reading(material: Material) -> tuple[Block, ...]:
    return (
        "A measured column is a metric under one protocol: what is measured, in which features, on "
        "how many images. FD in the features of a small classifier is not FID. Values of different "
        "protocols or feature networks never share a column; where lines are resolutions, each is "
        "held against real images of its own.",
        "Hovering over a number, or tapping it, shows where it comes from: seed by seed, n, "
        "reference, features, code and device; of a published figure, its source. The same stands "
        "in the CSV of the table.",
        "Published figures are data with a source and a grade each. Ours and theirs are never "
        "blended, and an empty cell means that nobody could source it: "
        "`pagoda report --published FILE` adds a file of your own.",
        f"Every table is here as CSV and LaTeX too, under `tables/`. Page made by code "
        f"`{material.revision}`.",
    )
