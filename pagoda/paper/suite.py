"""Everything that was run, on one page: the paper's tables, the studies, the claims, the runs."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pagoda.errors import PagodaError
from pagoda.paper import tables
from pagoda.paper.claims import Claim, Judgement, judge_all
from pagoda.paper.derived import with_derived
from pagoda.paper.figures import draw_study, drawn_panels, panels_of
from pagoda.paper.ledger import counted, effect_text, ledger_blocks, ledger_document, study_links
from pagoda.paper.printers import to_csv, to_latex
from pagoda.paper.published import Published
from pagoda.paper.runs import Run, pictures
from pagoda.paper.study_tables import study_table
from pagoda.report.document import Block, Document, Figure, Section, Table
from pagoda.report.markdown import to_markdown
from pagoda.report.page import to_html
from pagoda.report.studies import StudyResults

FOLDER, CLAIMS = "suite", "claims.md"
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
    """

    published: Sequence[Published]
    runs: Sequence[Run]
    studies: Sequence[StudyResults]
    claims: Sequence[Claim]
    revision: str
    reports: Path


def write_suite(material: Material) -> Path:
    """Write ``<reports>/suite/`` and ``<reports>/claims.md``.

    The folder holds ``index.html``, ``report.md``, ``claims.csv``, the pictures, and every table as
    CSV and LaTeX. It is replaced whole.

    Returns:
        The folder.

    Raises:
        PagodaError: if the disk is full or a path is not writable.
    """
    folder = material.reports / FOLDER
    partial = folder.parent / f".{FOLDER}.partial-{os.getpid()}"
    judgements = judge_all(material.claims, material.studies)
    try:
        (partial / "tables").mkdir(parents=True)
        named = paper_tables(material)
        for name, table in named.items():
            (partial / "tables" / f"{name}.csv").write_text(to_csv(table))
            (partial / "tables" / f"{name}.tex").write_text(to_latex(table, name))
        document = compose(material, judgements, named, partial)
        (partial / "report.md").write_text(to_markdown(document))
        (partial / "index.html").write_text(to_html(document, partial))
        (partial / "claims.csv").write_text(claims_csv(judgements))
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        ledger = to_markdown(ledger_document(judgements, material.revision, material.reports))
        (material.reports / CLAIMS).write_text(ledger)
    except OSError as error:
        raise PagodaError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def paper_tables(material: Material) -> dict[str, Table]:
    """Every table by the name of its files."""
    published, runs = material.published, material.runs
    made = {f"imagenet-{r}": tables.imagenet_table(published, runs, r) for r in _SIZES}
    made |= {f"fd-dinov2-{r}": tables.dino_table(published, runs, r) for r in (64, 512)}
    made |= {
        "base-resolution": tables.base_resolution_table(published, runs),
        "upsampling": tables.upsampling_table(published, runs),
    }
    made |= {f"one-step-{r}": tables.one_step_table(published, r) for r in _SIZES}
    for profile in dict.fromkeys(run.profile for run in runs):
        own = [run for run in runs if run.profile == profile]
        for res in sorted({res for run in own for res in run.resolutions}):
            made[f"measured-{profile}-{res}"] = tables.measured_table(own, res)
    for study in material.studies:
        made[f"study-{study.card.profile}-{study.card.study}"] = study_table(with_derived(study))
    return made


def compose(
    material: Material, judgements: Sequence[Judgement], named: dict[str, Table], folder: Path
) -> Document:
    """Draw the pictures into ``folder`` and put the document together."""
    since = [t for name, t in named.items() if name.startswith("one-step")]
    measured = [t for name, t in named.items() if name.startswith("measured")]
    paper = [t for name, t in named.items() if name.startswith(("imagenet", "fd-dinov2"))]
    ways = [named["base-resolution"], named["upsampling"]]
    sections = [
        Section("Claims", ledger_blocks(judgements, material.revision, folder)),
        Section("Measured here", (*_runs(material), *measured)),
        Section("Base resolution and upsampling", tuple(ways)),
        *(Section(_study_title(s), _study(s, judgements, named, folder)) for s in material.studies),
        *(
            Section(f"Pictures: {run.profile}, base {run.base_res}", _pictures(run, folder))
            for run in material.runs
            if pictures(run)
        ),
        Section("The paper's tables", tuple(paper)),
        Section("One-step generators since", tuple(since)),
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


def _study_title(study: StudyResults) -> str:
    return f"Study: {study.card.title.lower()} ({study.card.profile})"


def _study(
    study: StudyResults, judgements: Sequence[Judgement], named: dict[str, Table], folder: Path
) -> tuple[Block, ...]:
    card = study.card
    name = f"study-{card.profile}-{card.study}"
    links = study_links(card.study, study, folder)
    blocks: list[Block] = [f"**{card.question}** {card.rule} Study: {links}."]
    mine = [j for j in judgements if j.study is not None and j.study.folder == study.folder]
    blocks += [_verdict_line(j) for j in mine]
    if card.findings:
        blocks.append(f"**Signatures of failure.** {'; '.join(card.findings)}.")
    if (width := draw_study(with_derived(study), folder / f"{name}.png")) is not None:
        caption = (
            f"**{card.title}**, profile `{card.profile}`: {_drawn(with_derived(study))} "
            f"{named[name].caption.split('. ', 1)[-1]}"
        )
        blocks.append(Figure(f"{name}.png", caption, f"Results of the study {card.study}", width))
    blocks.append(named[name])
    for figure in card.figures:
        file = os.path.relpath(study.folder / figure.file, folder)
        blocks.append(Figure(file, figure.caption, figure.alt, figure.width))
    return tuple(blocks)


def _drawn(study: StudyResults) -> str:
    metric = study.card.axis_metric
    how = f"every student over its teacher's {metric}; " if metric else ""
    left_out = len(panels_of(study)) - len(drawn_panels(study))
    more = f" {left_out} more columns are in the table only." if left_out else ""
    return (
        f"{how}a point a training seed, lines or bars at their means, logarithmic where values "
        f"span 8×.{more}"
    )


def _verdict_line(judgement: Judgement) -> str:
    effect, interval = effect_text(judgement)
    measured = f" {judgement.claim.effect} {effect} ({interval})" if effect else ""
    return (
        f"`{judgement.claim.id}`: {judgement.claim.claim} **{judgement.verdict}**, "
        f"{judgement.reason};{measured}, seeds: {len(judgement.seeds)}, `{judgement.protocol}`."
    )


def _reading(material: Material) -> tuple[Block, ...]:
    return (
        "A measured column is a metric under one protocol: what is measured, in which features, on "
        "how many images. FD in the features of a small classifier is not FID. Values of different "
        "protocols, references or feature networks never share a column.",
        "Published figures are data with a source and a grade each; hovering over one shows its "
        "source. Ours and theirs are never blended, and an empty cell means that nobody could "
        "source it: `pagoda report --published FILE` adds a file of your own.",
        f"Every table is here as CSV and LaTeX too, under `tables/`. Page made by code "
        f"`{material.revision}`.",
    )
