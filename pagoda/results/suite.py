"""Everything that was run, on one page: the paper's tables, the studies, the claims, the runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pagoda import outputs
from pagoda.config.revision import code_revision
from pagoda.evaluation.metrics.failure import BLUR, GRADIENT_SPREAD, LOGIT_GAP, LOST_DETAIL
from pagoda.results import blocks, ledger
from pagoda.results.base_table import base_tables
from pagoda.results.blocks import Block, Charts, Document, Figure, Section, Table, seen_from, table
from pagoda.results.charts import curve_charts, published_charts
from pagoda.results.claim_verdicts import Verdict, all_verdicts
from pagoda.results.claims import Claim, read_claims
from pagoda.results.curve_table import CURVES
from pagoda.results.forest import forest
from pagoda.results.labels import COST, GROUPS, in_a_sentence
from pagoda.results.numbers import listed
from pagoda.results.opposites import opposite_verdicts
from pagoda.results.page import to_html
from pagoda.results.paper_tables import Paper, measured_tables
from pagoda.results.plans import plan_tables
from pagoda.results.published import Published, read_published
from pagoda.results.rank_agreement import rank_table
from pagoda.results.runs import Run, distinct, experiments, find_runs, mlflow_runs
from pagoda.results.speed_figure import SPEED
from pagoda.results.studies import StudyResults, find_studies
from pagoda.results.study_figures import draw_study
from pagoda.results.study_tables import nearest_tables, ran, study_tables
from pagoda.results.suite_front import front_sentence, suite_front
from pagoda.results.text_tables import text_tables

FOLDER, CLAIMS, RANKS = "suite", "claims.md", "rank-agreement"
_PAPER = "The paper"  # a group of sections
_FILES = ("report.md", "index.html", "claims.csv", "study-*.png", "tables/*.csv", "tables/*.tex")
_THRESHOLDS = (
    f"Blur: less than {BLUR:g} of real images' high-frequency energy. Lost detail: less than "
    f"{LOST_DETAIL:g} of the recall of held-out real images, in features of the profile's last "
    f"network. Unstable gradients: largest norm beyond {GRADIENT_SPREAD:g} medians. "
    f"Discriminator wins: mean logit gap beyond {LOGIT_GAP:g}. "
    "Conventions, fixed before the runs."
)
_NOTHING = "Nothing was run yet: `dvc repro`, then `pagoda report`."
_SMALL = (
    "**None is at the paper's full size**: measured values are of scaled-down runs on other data "
    "and are never set against published figures."
)
_READING = (
    "A measured column is a metric under one protocol: what is measured, in which features, on how "
    "many images. FD in the features of a small classifier is not FID. Values of different "
    "protocols or feature networks never share a column; where lines are resolutions, each is "
    "compared with real images of its own.",
    "Hovering over a number, or tapping it, shows where it comes from: seed by seed, n, reference, "
    "features, code and device; of a published figure, its source. The same stands in the CSV of "
    "the table.",
    "Published figures are data with a source and a grade each. Ours and theirs are never blended, "
    "and an empty cell means that nobody could source it: `pagoda report --published FILE` adds a "
    "file of your own.",
)
_MADE = "Every table is here as CSV and LaTeX too, under `tables/`. Page made by code `{}`."


@dataclass(frozen=True)
class Material:
    """All that the page is made from."""

    published: Sequence[Published]  # figures of the paper and of others
    runs: Sequence[Run]  # from reports, MLflow or DVC
    studies: Sequence[StudyResults]  # by profile and name
    claims: Sequence[Claim]
    revision: str  # of the code that makes the page
    reports: Path  # folder that the page's files go to
    plans: Mapping[str, Table] = field(default_factory=dict)  # by the name of their files


def gather(
    *,
    published: Path | None = None,
    from_exp: bool = False,
    from_mlflow: bool = False,
    reports: Path = Path("reports"),
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
    found |= {"DVC": experiments()} if from_exp else {}
    found |= {"MLflow": mlflow_runs()} if from_mlflow else {}
    runs = distinct(run for part in found.values() for run in part)
    figures, studies = read_published(own=published), find_studies(reports)
    claims, plans = read_claims(), plan_tables(reports)
    material = Material(figures, runs, studies, claims, code_revision(), reports, plans)
    folder = write_suite(material)
    counts = ", ".join(f"{len(part)} from {where}" for where, part in found.items())
    sys.stderr.write(
        f"experiments: {counts}; {len(runs)} with results of their own\n"
        f"everything: {folder}/index.html (page), {folder}/report.md (text), "
        f"{reports / CLAIMS} (claims)\n"
    )


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
    verdicts = all_verdicts(material.claims, material.studies)
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        (partial / "tables").mkdir()
        named = suite_tables(material)
        document = compose(material, verdicts, named, partial)
        texts = {
            "report.md": blocks.to_markdown(document),
            "index.html": to_html(document, partial, dense=True),
            "claims.csv": ledger.claims_csv(verdicts),
        }
        for name, made in named.items():
            texts[f"tables/{name}.csv"] = blocks.to_csv(made)
            texts[f"tables/{name}.tex"] = blocks.to_latex(made, name)
        for name, text in texts.items():
            (partial / name).write_text(text, "utf-8")
    claims = ledger.ledger_document(verdicts, material.revision, material.reports)
    outputs.write_text(material.reports / CLAIMS, blocks.to_markdown(claims))
    return folder


def suite_tables(material: Material) -> dict[str, Table]:
    """Every table by the name of its files."""
    paper = Paper(material.published, material.runs)
    made = paper.tables() | text_tables(paper, material.reports) | measured_tables(material.runs)
    made |= base_tables(material.studies)
    for study in material.studies:
        tables = study_tables(study.with_derived())
        made |= {_file_name(study, group): found for group, found in tables.items()}
    ranks = rank_table(material.runs, material.studies)
    made |= {RANKS: ranks} if ranks is not None else {}
    return made | dict(material.plans) | {"sources": paper.source_table()}


def compose(
    material: Material, verdicts: Sequence[Verdict], named: dict[str, Table], folder: Path
) -> Document:
    """Draw the pictures into ``folder`` and put the document together."""
    scatter, curves = published_charts(material.published), _curves(material, folder)
    records = Paper(material.published).records()
    sections = (
        Section("How to read the numbers", (*_READING, _MADE.format(material.revision)),
                "protocols, provenance, empty cells"),
        Section("Claims", (*forest(verdicts), *opposite_verdicts(verdicts))),
        Section("Rules and evidence of every claim",
                ledger.ledger_blocks(verdicts, material.revision, folder),
                "how verdicts are reached, limits, and what would refute each"),
        *([Section("Published one-step generators", (scatter,))] if scatter else []),
        Section("Tables of one-step generators", (*records, *_starting(named, "one-step-")),
                "ordered by FID, with sources; which are below PaGoDA's"),
        *([Section("Learning curves", (curves,), "losses of every stage, to overlay and zoom")]
          if curves else []),
        *_study_sections(material, verdicts, named, folder),
        *_run_sections(material, named, folder),
        *_paper_sections(material, named),
    )  # fmt: skip
    return Document("PaGoDA, reproduced at small sizes", front_sentence(verdicts), sections,
                    suite_front(material.runs, material.studies, folder),
                    _counted(material))  # fmt: skip


def _starting(named: Mapping[str, Table], *starts: str) -> tuple[Table, ...]:
    """The tables whose files' names start so."""
    return tuple(found for name, found in named.items() if name.startswith(starts))


def _profiles(material: Material) -> list[str]:
    return list(dict.fromkeys(run.profile for run in material.runs))


def _counted(material: Material) -> str:
    """How many experiments and studies there are, at which size."""
    full = sum(run.full_size for run in material.runs)
    size = f"{full} of them at the paper's full size." if full else _SMALL
    profiles = listed(f"`{profile}`" for profile in _profiles(material)) or "none"
    return (
        f"Experiments: {len(material.runs)} (profiles {profiles}); studies: "
        f"{len(material.studies)}. {size}"
    )


def _study_sections(
    material: Material, verdicts: Sequence[Verdict], named: dict[str, Table], folder: Path
) -> Iterator[Section]:
    for study in (study.with_derived() for study in material.studies):
        title = f"{study.card.title} ({study.card.profile})"
        made = study_blocks(study, verdicts, named, folder)
        yield Section(title, made, study.card.question, "Studies")


def _run_sections(
    material: Material, named: Mapping[str, Table], folder: Path
) -> Iterator[Section]:
    """All runs in tables, the pictures of each, and how the feature networks agree on them."""
    lines = (
        f"{run.label}: {run.facts.data or 'data not recorded'}; {run.origin}; code "
        + listed(f"`{row.revision}`" for row in run.rows)
        for run in material.runs
    )
    told = f"Experiments, one run each: {'. '.join(lines)}." if material.runs else _NOTHING
    yield Section("All runs", (told, *_starting(named, "measured-")),
                  "every generator, metric and resolution", "Runs")  # fmt: skip
    for run in material.runs:
        if (home := run.folder) and run.facts.figures:
            told = f"Profile {run.label}; as in the report of this run, {run.origin}."
            there = [f for f in run.facts.figures if (home / f.file).is_file()]
            pictures = (seen_from(folder, home, figure) for figure in there)
            title = f"Pictures: {run.profile}, base {run.base_res}"
            yield Section(title, (told, *pictures), run.facts.data.split(",")[0], "Runs")
    if RANKS in named:
        yield Section("How the feature networks agree", _starting(named, RANKS),
                      "the same generators in two networks", "Runs")  # fmt: skip


def _paper_sections(material: Material, named: Mapping[str, Table]) -> Iterator[Section]:
    ways = ("upsampling", "growth-baselines",
            *(f"base-resolution-{profile}" for profile in _profiles(material)))  # fmt: skip
    bases = named["base-resolution"], *_starting(named, "base-resolution-study-")
    yield Section("Base resolution and growth", (*bases, *(named[name] for name in ways)),
                  "the paper's tables 2 and 3, figures 4 and 7, and what was measured here",
                  _PAPER)  # fmt: skip
    yield Section("The paper's tables", _starting(named, "imagenet-", "fd-dinov2-"),
                  "ImageNet from 64×64 to 512×512", _PAPER)  # fmt: skip
    if text := _starting(named, "text-to-image"):
        yield Section("Text to image", text, "FID on COCO, CLIP score, latency, parameters",
                      _PAPER)  # fmt: skip
    if material.plans:
        yield Section("What the paper's size would take", _starting(named, "plan-"),
                      "compute, memory and disk, counted", _PAPER)  # fmt: skip
    yield Section("Sources", (named["sources"],), "of every published figure", _PAPER)


def _curves(material: Material, folder: Path) -> Charts | None:
    """Learning curves of the runs that keep them, by profile and base resolution."""
    kept = [run for run in material.runs if run.folder and (run.folder / CURVES).is_file()]
    files = {f"{run.profile}, base {run.base_res}": Path(run.folder or "", CURVES) for run in kept}
    links = [f"[{f.relative_to(material.reports).as_posix()}]({os.path.relpath(f, folder)})"
             for f in files.values()]  # fmt: skip
    return curve_charts({name: file.read_text("utf-8") for name, file in files.items()}, links)


def study_blocks(
    study: StudyResults, verdicts: Sequence[Verdict], named: dict[str, Table], folder: Path
) -> tuple[Block, ...]:
    """Question, verdicts, and for every kind of quantity the figure and the table.

    Args:
        study: with derived rows.
        verdicts: of all studies.
        named: every table by the name of its files.
        folder: of the page; figures are drawn into it.
    """
    card = study.card
    mine = [j for j in verdicts if j.study is not None and j.study.folder == study.folder]
    links = ledger.study_links(card.study, study, folder)
    made: list[Block] = [f"**{card.question}** {card.rule} More: {links}."]
    made += [ledger.study_verdicts(mine)] if mine else []
    made += [*nearest_tables(study), *_failures(study)]
    # A study of times has a picture of its own, of what it asks.
    apart = {COST} if any(figure.file == SPEED for figure in card.figures) else set()
    for group, what in GROUPS.items():
        name = _file_name(study, group)
        drawn = None if group in apart else draw_study(study, group, folder / f"{name}.png")
        if drawn is not None:
            width, left_out = drawn
            told = named[name].caption
            metric = card.axis_metric and in_a_sentence(card.axis_metric)
            how = f"every student over its teacher's {metric}; " if metric else ""
            caption = (
                f"{told} Drawn: {how}a point a seed, lines or bars at their means, "
                "logarithmic where values span 8×."
            )
            caption += " The intervals are in the table." if "±" in told else ""
            caption += f" Panels that are in the table only: {left_out}." if left_out else ""
            alt = f"Results of the study {card.study}: {what}"
            made.append(Figure(f"{name}.png", caption, alt, width, plot=True))
        made += [named[name]] if name in named else []
    for figure in card.figures:
        shown = seen_from(folder, study.folder, figure)
        made.append(replace(shown, caption=f"{figure.caption} {ran(card)}"))
    return tuple(made)


def _file_name(study: StudyResults, group: str) -> str:
    return f"study-{study.card.profile}-{study.card.study}-{group}"


def _failures(study: StudyResults) -> list[Table]:
    """Signatures of failure, a line a variant and resolution."""
    card = study.card
    seen = {(f.variant, f.resolution, f.signature): f"{f.seeds} of {f.of}" for f in card.failures}
    if not seen:
        return []
    signatures = list(dict.fromkeys(f.signature for f in card.failures))
    order = {variant: i for i, variant in enumerate(card.variants)}
    places = sorted({(f.variant, f.resolution) for f in card.failures},
                    key=lambda place: (order.get(place[0], len(order)), *place))  # fmt: skip
    rows = [
        (card.variants.get(variant, variant), f"{size}×{size}",
         *(seen.get((variant, size, name), "–") for name in signatures))
        for variant, size in places
    ]  # fmt: skip
    caption = (
        "**Signatures of failure**, training seeds that show one. Variants and resolutions that "
        f"show none are left out. {_THRESHOLDS} The values are in the tables below. {ran(card)}"
    )
    return [table(caption, ("Variant", "Growth to", *(n.capitalize() for n in signatures)), rows)]
