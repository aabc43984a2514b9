"""An experiment to a report folder: pictures, ``report.md``, ``index.html``, ``results.csv``."""

from __future__ import annotations

from pathlib import Path

from pagoda import artifacts, outputs
from pagoda.config import NO_WEIGHTS, Config
from pagoda.results import curves, sheets
from pagoda.results.document import Block, Cell, Document, Figure, Section, Table
from pagoda.results.experiment import Evaluation, Experiment
from pagoda.results.markdown import to_markdown
from pagoda.results.measured import (
    DISTANCES,
    distance_protocols,
    generator_label,
    main_rows,
    metrics_tree,
    number,
    provenance,
    results_csv,
    results_table,
    short,
)
from pagoda.results.page import to_html
from pagoda.results.verdicts import FAILS, HOLDS, verdict_table, verdicts

_FILES = (
    "report.md", "index.html", "results.csv", "samples.png", "neighbours.png",
    "teacher_vs_student.png", "generators-*.png", "distances-*.png", "curves-*.png",
)  # fmt: skip
"""What a report's folder holds; another file there is the user's, and the folder stays."""

_STAGES = {
    "features": "Feature network (evaluation only)",
    "teacher": "Stage 1, diffusion teacher",
    "invert": "Stage 2, inversion",
    "distill": "Stage 2, one-step student",
}


def write_report(
    experiment: Experiment, folder: Path, metrics: Path, others: Table | None = None
) -> None:
    """Replace ``folder`` with the experiment's report and write ``metrics.json``.

    The folder is replaced whole: an interrupted run leaves the old report. ``others`` is a table
    of results that are not the experiment's own.

    Raises:
        PagodaError: if the folder holds anything else, the disk is full or a path is not writable.
    """
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        document = compose(experiment, partial, others)
        (partial / "report.md").write_text(to_markdown(document), encoding="utf-8")
        (partial / "index.html").write_text(to_html(document, partial), encoding="utf-8")
        (partial / "results.csv").write_text(results_csv(experiment), encoding="utf-8")
    artifacts.write_json(metrics, metrics_tree(experiment))


def compose(experiment: Experiment, folder: Path, others: Table | None = None) -> Document:
    """Draw the pictures into ``folder`` and put the document together."""
    config = experiment.config
    return Document(
        title=f"{config.name}: {' → '.join(f'{r}×{r}' for r in config.resolutions)}",
        summary=_summary(experiment),
        sections=(
            Section("What to look for", (verdict_table(experiment),)),
            Section("What was run", (_run_table(experiment), _time_table(experiment))),
            Section("Results", _results(experiment, folder) + ((others,) if others else ())),
            Section("Samples", _samples(experiment, folder)),
            Section("Training", _training(experiment, folder)),
            Section("How to read the numbers", _reading(experiment)),
        ),
    )


def _summary(experiment: Experiment) -> str:
    config = experiment.config
    outcomes = [v.outcome for v in verdicts(experiment)]
    held, judged = outcomes.count(HOLDS), outcomes.count(HOLDS) + outcomes.count(FAILS)
    grown = " → ".join(f"{r}×{r}" for r in config.resolutions[1:])
    made = f"then grown to {grown}" if grown else "with no growth: the base is the target"
    time = sum(h.seconds for h in experiment.histories.values())
    return (
        f"Profile `{config.name}`: a diffusion teacher at {config.base_res}×{config.base_res}, "
        f"distilled into a one-step generator, {made}. **{held} of {judged} rules hold.** "
        f"The training stages took {_duration(time)}."
    )


def _run_table(experiment: Experiment) -> Table:
    config, rows = experiment.config, experiment.rows
    data, latents = experiment.data, experiment.latents
    facts = {
        "Profile": f"`{config.name}`",
        "Data": f"{config.data.source}, {len(experiment.classes)} classes, {data['n']['train']:,} "
        f"training and {data['n']['test']:,} held-out images, `{data['recipe']}` downsampling "
        f"({short(experiment.data_fingerprint)} at {config.target_res}×{config.target_res})",
        "Resolutions": " → ".join(str(r) for r in config.resolutions),
        **_imported(config),
        "Training seed": str(config.seed),
        "Evaluation seed": ", ".join(sorted({str(r.seed) for r in rows})),
        "Images a generator": ", ".join(
            f"{n:,}" for n in sorted({r.n for r in main_rows(experiment)})
        ),
        "Inversion": f"{latents['solver']}, {latents['nfe']} NFE; round-trip error "
        f"{number(latents['round_trip_mse'])} (MSE, pixels in [-1, 1])",
        "Inverted latents": f"mean {latents['latent_mean']:.3f}, standard deviation "
        f"{latents['latent_std']:.3f}, kurtosis {latents['latent_kurtosis']:.2f} "
        f"(standard normal: 0, 1, 3)",
        "Device": ", ".join(sorted({r.device for r in rows})),
        "Code": ", ".join(sorted({f"`{r.revision}`" for r in rows})),
    }
    lines = tuple((Cell(name), Cell(text)) for name, text in facts.items())
    caption = (
        "**What was run.** Networks, data and budgets are the profile's; figures of a profile "
        "smaller than the paper's are not comparable with the paper's."
    )
    return Table(caption, ("", ""), lines, "ll")


def _imported(config: Config) -> dict[str, str]:
    """Where weights came from that were not trained here; nothing if all were."""
    folders = {
        "teacher": config.teacher.imported,
        "distill": config.distill.imported,
        "grow": config.grow.imported,
    }
    taken = [f"{k} from `{folder}`" for k, folder in folders.items() if folder != NO_WEIGHTS]
    return {"Imported, not trained here": ", ".join(taken)} if taken else {}


def _time_table(experiment: Experiment) -> Table:
    lines = []
    for stage, history in experiment.histories.items():
        rate = history.images_per_second
        cells = (
            stage_label(stage),
            f"{history.images:,}",
            f"{history.seconds:,.1f}",
            "" if rate is None else f"{rate:,.0f}",
        )
        lines.append(tuple(Cell(text) for text in cells))
    total = sum(h.seconds for h in experiment.histories.values())
    lines.append((Cell("**Sum**"), Cell(""), Cell(f"{total:,.1f}"), Cell("")))
    caption = (
        "**Time of the training stages**, from their histories: loading, evaluation and this "
        "report are not in it. Times vary between runs of one machine; nothing else here does."
    )
    return Table(caption, ("Stage", "Images seen", "Seconds", "Images/s"), tuple(lines), "lrrr")


def _results(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    blocks: list[Block] = [results_table(e) for e in experiment.evaluations.values()]
    for protocol in distance_protocols(experiment):
        file = f"distances-{protocol}.png"
        width = curves.draw_distances(experiment, protocol, folder / file)
        rows = [r for r in experiment.rows if r.protocol == protocol and r.metric in DISTANCES]
        caption = (
            f"**Fréchet distances**, `{protocol}`, logarithmic; every panel is held against real "
            f"images of its own resolution. {provenance(rows)}"
        )
        blocks.append(Figure(file, caption, f"Distances under {protocol}", width))
    return tuple(blocks)


def _samples(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    evaluations = experiment.evaluations
    sheet = sheets.draw_resolutions(experiment, folder / "samples.png")
    blocks: list[Block] = [
        Figure(
            "samples.png",
            f"**One row a class, the same latents at every resolution**, in the same order. "
            f"Enlarged to one size, nearest neighbour. {_uncurated(experiment, sheet)}",
            "Sample sheet, one row a class, a group of columns a resolution",
            sheet.width,
        )
    ]
    for res, evaluation in evaluations.items():
        if len(evaluation.sheets) > 1:
            blocks.append(_comparison(experiment, evaluation, folder, base=res == min(evaluations)))
    if experiment.config.report.real_images:
        blocks.append(_neighbours(experiment, evaluations[max(evaluations)], folder))
    return tuple(blocks)


def _neighbours(experiment: Experiment, last: Evaluation, folder: Path) -> Figure:
    sheet = sheets.draw_neighbours(last, experiment.classes, folder / "neighbours.png")
    caption = (
        f"**Nearest real images.** In each pair: left, a sample of the {_lower(last.main)} at "
        f"{last.resolution}×{last.resolution}; right, the training image nearest to it in pixels "
        f"(Euclidean). {_uncurated(experiment, sheet, pairs=len(last.neighbours[0][0]))}"
    )
    return Figure("neighbours.png", caption, "Samples beside training images", sheet.width)


def _comparison(
    experiment: Experiment, evaluation: Evaluation, folder: Path, *, base: bool
) -> Figure:
    res = evaluation.resolution
    file = "teacher_vs_student.png" if base else f"generators-{res}.png"
    sheet = sheets.draw_sheets(evaluation, experiment.classes, folder / file)
    names = " | ".join(_lower(name) for name in evaluation.sheets)
    caption = (
        f"**The same latents through different generators** at {res}×{res}: {names}. "
        f"{_uncurated(experiment, sheet)}"
    )
    return Figure(file, caption, f"Sample sheets at {res} by {res}: {names}", sheet.width)


def _training(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for stage, history in experiment.histories.items():
        file = f"curves-{stage}.png"
        if (width := curves.draw_history(history, folder / file)) is not None:
            caption = (
                f"**{stage_label(stage)}**: {history.images:,} images in {history.steps:,} steps, "
                f"training seed {_seed(experiment, stage)}. Thin: every row logged; thick: running "
                f"mean over 5 % of the rows, where there are at least 40. Schedules as they are."
            )
            blocks.append(Figure(file, caption, f"Learning curves of {stage}", width))
    return tuple(blocks)


def _reading(experiment: Experiment) -> tuple[Block, ...]:
    lines = [
        "A metric's name is its protocol: what is measured, in which features, on how many images. "
        "Values of different protocols are never compared or put into one column. Distances at "
        "different resolutions have different real images to compare with.",
        "FD is the Fréchet distance between Gaussians fitted to features of real and generated "
        "images. These are features of a small classifier trained on this data, not Inception: it "
        "is not FID and cannot be set against published FID. The floor is the distance of held-out "
        "real images; no generator can be expected to go below it.",
        "All values, unrounded and with their provenance, are in `results.csv`; hovering over a "
        "value on the HTML page shows its own.",
    ]
    table = tuple(
        (Cell(f"evaluation at {r}×{r}"), Cell(f"`{e.fingerprint}`"))
        for r, e in experiment.evaluations.items()
    )
    shared = (Cell("images"), Cell(f"`{experiment.data_fingerprint}`"))
    caption = "**Fingerprints** (SHA-256) of the artifacts that this report was made from."
    return (*lines, Table(caption, ("Artifact", "Fingerprint"), (shared, *table), "ll"))


def stage_label(stage: str) -> str:
    """Reader's name of a stage: ``grow-16`` -> ``Stage 3, growth to 16×16``."""
    if stage.startswith("grow-"):
        size = stage.removeprefix("grow-")
        return f"Stage 3, growth to {size}×{size}"
    return _STAGES[stage]


def _uncurated(experiment: Experiment, sheet: sheets.Sheet, pairs: int | None = None) -> str:
    columns = sheet.columns if pairs is None else pairs
    more = "" if sheet.classes == len(experiment.classes) else f" of the first {sheet.classes}"
    seeds = ", ".join(sorted({str(r.seed) for r in experiment.rows}))
    return f"The first {columns} latents of each class{more} (seed {seeds}), not selected."


def _seed(experiment: Experiment, stage: str) -> int:
    config = experiment.config
    return config.features.seed if stage == "features" else config.seed


def _lower(name: str) -> str:
    label = generator_label(name)
    return label[0].lower() + label[1:]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
