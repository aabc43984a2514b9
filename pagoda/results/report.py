"""An experiment to a report folder: pictures, tables, ``report.md``, ``index.html``, data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts, outputs
from pagoda import rows as files
from pagoda.config import NO_WEIGHTS
from pagoda.results import curves, front, grids
from pagoda.results.blocks import (
    Block,
    Document,
    Figure,
    Gallery,
    Grid,
    Section,
    Table,
    table,
    to_markdown,
)
from pagoda.results.charts import curve_charts
from pagoda.results.classes import class_labels
from pagoda.results.curve_table import CURVES, curve_table
from pagoda.results.experiment import Evaluation, Experiment
from pagoda.results.grids import Group
from pagoda.results.labels import (
    DISTANCES,
    generator_label,
    generator_order,
    generator_within,
    metric_label,
    metric_order,
    stage_label,
)
from pagoda.results.numbers import SPREAD, listed, number, provenance, short, value_cell
from pagoda.results.page import to_html
from pagoda.results.runs import FACTS, RESULTS, Facts
from pagoda.results.verdicts import distance_protocols, verdict_table
from pagoda.rows import Row

_FILES = (
    "report.md", "index.html", RESULTS, FACTS, CURVES, "samples.png", "uncurated.png",
    "neighbours.png", "teacher_vs_student.png", "beside-*.png", "generators-*.png",
    "distances-*.png", "curves-*.png",
)  # fmt: skip
"""What a report's folder holds; another file there is the user's, and the folder stays."""


@dataclasses.dataclass(frozen=True)
class Uncurated:
    """Samples of seeds 0, 1, ... in a few classes, as ``pagoda sample`` makes them."""

    generator: str  # where it lies
    classes: tuple[str, ...]
    images: NDArray[np.uint8]  # (classes, n, 3, R, R), n a square number


def write_report(
    experiment: Experiment, folder: Path, metrics: Path, others: Table | None = None,
    uncurated: Uncurated | None = None,
) -> None:  # fmt: skip
    """Replace ``folder`` with the experiment's report and write ``metrics.json``.

    The folder is replaced whole: an interrupted run leaves the old report. ``others`` is a table
    of results that are not the experiment's own, ``uncurated`` samples to be shown in full.

    Raises:
        PagodaError: if the folder holds anything else, the disk is full or a path is not writable.
    """
    with outputs.new_folder(folder, outputs.only(*_FILES)) as partial:
        learned = curve_table(experiment.histories.values())
        document = compose(experiment, partial, learned, others, uncurated)
        seed, seconds = experiment.config.seed, round(experiment.seconds, 1)
        (beside,) = (block for block in document.lead if isinstance(block, Gallery))
        facts = Facts(seed, _data(experiment), seconds, tuple(document.figures), beside)
        artifacts.write_json(partial / FACTS, dataclasses.asdict(facts))
        (partial / "report.md").write_text(to_markdown(document), "utf-8")
        (partial / "index.html").write_text(to_html(document, partial), "utf-8")
        (partial / RESULTS).write_text(files.to_csv(experiment.rows), "utf-8")
        (partial / CURVES).write_text(learned, "utf-8")
    artifacts.write_json(metrics, metrics_tree(experiment))


def compose(
    experiment: Experiment, folder: Path, learned: str, others: Table | None = None,
    uncurated: Uncurated | None = None,
) -> Document:  # fmt: skip
    """Draw the pictures into ``folder`` and put the document together.

    ``learned`` is the table of its learning curves, the rest as of :func:`write_report`.
    """
    config = experiment.config
    shown = (Section("Uncurated samples", (_uncurated(uncurated, experiment, folder),),
                     "every one of the first latents"),) if uncurated else ()  # fmt: skip
    charts = curve_charts({config.name: learned})
    return Document(
        title=f"{config.name}: {' → '.join(f'{r}×{r}' for r in config.resolutions)}",
        summary=front.sentence(experiment),
        more=front.size(experiment),
        lead=(front.gallery(experiment, folder), front.headline(experiment)),
        sections=(
            Section(
                "How to read the numbers", _reading(experiment), "protocols, floor, fingerprints"
            ),
            Section("Rules", (verdict_table(experiment),), front.rules(experiment)),
            *([Section("Learning curves", (charts,))] if charts else []),
            Section(
                "Samples",
                _samples(experiment, folder),
                "grids of the same latents, every generator, nearest real images",
            ),
            *shown,
            Section(
                "Every measurement",
                _results(experiment, folder) + ((others,) if others else ()),
                "every generator, metric and resolution, with provenance",
            ),
            Section(
                "Training",
                _training(experiment, folder),
                "gradient norms, schedules and logits of every stage",
            ),
            Section(
                "What was run",
                (_run_table(experiment), _time_table(experiment)),
                "data, seeds, budgets, seconds, code",
            ),
        ),
    )


def results_table(evaluation: Evaluation) -> Table:
    """Every generator at one resolution; a column holds one metric under one protocol."""
    rows, res = evaluation.rows, evaluation.resolution
    grid = Grid("Generator", "NFE", "n", "Seed", optional=("Seed",))
    ordered = sorted(rows, key=lambda r: (metric_order(r.metric), r.metric, r.protocol))
    columns = dict.fromkeys(_column(row) for row in ordered)
    for row in sorted(rows, key=_line_order):
        label = generator_label(row.generator)
        label = f"**{label}**" if row.generator == evaluation.main else label
        nfe = "–" if row.nfe is None else str(row.nfe)
        grid.line(label, nfe, f"{row.n:,}", str(row.seed)).add(_column(row), value_cell(row))
    caption = (
        f"**Results at {res}×{res}.** NFE: network evaluations an image; n: images a generator. "
        f"{provenance(rows)}"
    )
    return grid.table(caption + SPREAD * any(r.sd is not None for r in rows), columns)


def _column(row: Row) -> str:
    return f"{metric_label(row.metric)} `{row.protocol}`"


def _line_order(row: Row) -> tuple[object, ...]:
    return generator_order(row.generator), -1 if row.nfe is None else row.nfe, row.n, row.seed or 0


def metrics_tree(experiment: Experiment) -> dict[str, Any]:
    """``metrics.json``: what ``dvc metrics diff`` and ``dvc exp show`` line up.

    ``final`` holds the generator at the target resolution, ``student`` the one at the base
    resolution, ``resolution`` the main generator of each, keyed by four digits. The names are
    protocols, so that values of different protocols stay in different columns.
    """
    main = {
        f"{r:04d}": {row.protocol: row.value for row in e.rows if row.generator == e.main}
        for r, e in experiment.evaluations.items()
    }
    config = experiment.config
    return {
        "final": main[f"{config.target_res:04d}"],
        "student": main[f"{config.base_res:04d}"],
        "resolution": main,
    }


def _data(experiment: Experiment) -> str:
    """The images, one phrase."""
    config, card = experiment.config, experiment.data
    return (
        f"{config.data.source}, {len(experiment.classes)} classes, {card['n']['train']:,} "
        f"training and {card['n']['test']:,} held-out images, `{card['recipe']}` downsampling "
        f"({short(experiment.data_fingerprint)} at {config.target_res}×{config.target_res})"
    )


def _run_table(experiment: Experiment) -> Table:
    config, rows, latents = experiment.config, experiment.rows, experiment.latents
    tried = config.report.settings_tried
    facts = {
        "Profile": f"`{config.name}`",
        "Data": _data(experiment),
        "Resolutions": " → ".join(str(r) for r in config.resolutions),
        "Imported, not trained here": ", ".join(
            f"{name} from `{folder}`" for name in ("teacher", "distill", "grow")
            if (folder := getattr(config, name).imported) != NO_WEIGHTS
        ),
        "Training seed": str(config.seed),
        "Settings tried": f"{tried}, then this one chosen (`docs/recipe.md`)" if tried else "",
        "Evaluation seed": _seeds(experiment),
        "Images a generator": listed(f"{n:,}" for n in sorted({r.n for r in experiment.main_rows})),
        "Inversion": f"{latents['solver']}, {latents['nfe']} NFE; round-trip error "
        f"{number(latents['round_trip_mse'])} (MSE, pixels in [-1, 1])",
        "Inverted latents": f"mean {latents['latent_mean']:.3f}, standard deviation "
        f"{latents['latent_std']:.3f}, kurtosis {latents['latent_kurtosis']:.2f} "
        f"(standard normal: 0, 1, 3)",
        "Device": listed(sorted({r.device for r in rows})),
        "Code": listed(sorted({f"`{r.revision}`" for r in rows})),
    }  # fmt: skip
    caption = (
        "**What was run.** Networks, data and budgets are the profile's; figures of a profile "
        "smaller than the paper's are not comparable with the paper's."
    )
    return table(caption, ("", ""), [(k, v) for k, v in facts.items() if v], "ll")


def _time_table(experiment: Experiment) -> Table:
    lines = []
    for stage, h in experiment.histories.items():
        rate = f"{h.images / h.seconds:,.0f}" if h.seconds > 0 else ""
        lines.append((stage_label(stage), f"{h.images:,}", f"{h.seconds:,.1f}", rate))
    lines.append(("**Sum**", "", f"{experiment.seconds:,.1f}", ""))
    caption = (
        "**Time of the training stages**, from their histories: loading, evaluation and this "
        "report are not in it. Times vary between runs of one machine; nothing else here does."
    )
    return table(caption, ("Stage", "Images seen", "Seconds", "Images/s"), lines)


def _results(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    blocks: list[Block] = [results_table(e) for e in experiment.evaluations.values()]
    for protocol in distance_protocols(experiment):
        file = f"distances-{protocol}.png"
        rows = [r for r in experiment.rows if r.protocol == protocol and r.metric in DISTANCES]
        caption = (
            f"**Fréchet distances**, `{protocol}`, logarithmic; every panel is compared with real "
            f"images of its own resolution. {provenance(rows)}"
        )
        width = curves.draw_distances(rows, folder / file)
        blocks.append(Figure(file, caption, f"Distances under {protocol}", width, plot=True))
    return tuple(blocks)


def _samples(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    evaluations = experiment.evaluations
    classes = _class_names(experiment)
    blocks: list[Block] = []

    def draw(file: str, groups: list[Group], text: str, alt: str, columns: int = 0) -> None:
        shown = grids.draw(groups, classes, folder / file)
        more = "" if shown.classes == len(classes) else f" of the first {shown.classes}"
        how = (
            f"The first {columns or shown.columns} latents of each class{more} "
            f"(seed {_seeds(experiment)}), not selected."
        )
        blocks.append(Figure(file, f"{text} {how}", alt, shown.width))

    draw(
        "samples.png",
        [Group(f"{r}×{r}, {generator_within(e.main)}", e.samples[0])
         for r, e in evaluations.items()],
        "**One row a class, the same latents at every resolution**, in the same order. "
        "Enlarged to one size, nearest neighbour.",
        "Samples, one row a class, a group of columns a resolution",
    )  # fmt: skip
    for res, e in evaluations.items():
        if len(e.names) > 1:
            base, names = res == min(evaluations), " | ".join(map(_lower, e.names))
            draw(
                "teacher_vs_student.png" if base else f"generators-{res}.png",
                [Group(generator_label(name), images)
                 for name, images in zip(e.names, e.samples, strict=True)],
                f"**The same latents through different generators** at {res}×{res}: {names}.",
                f"Samples at {res} by {res}: {names}",
            )  # fmt: skip
    if experiment.config.report.real_images:
        last = evaluations[max(evaluations)]
        samples, nearest = last.samples[0], last.neighbours[0]
        draw(
            "neighbours.png",
            [Group(f"latent {j}", np.stack([samples[:, j], nearest[:, j]], axis=1))
             for j in range(nearest.shape[1])],
            f"**Nearest real images.** In each pair: left, a sample of the {_lower(last.main)} at "
            f"{last.resolution}×{last.resolution}; right, the training image nearest to it in "
            "pixels (Euclidean).",
            "Samples beside training images",
            columns=nearest.shape[1],
        )  # fmt: skip
    return tuple(blocks)


def _uncurated(made: Uncurated, experiment: Experiment, folder: Path) -> Figure:
    """A square of samples a class, side by side."""
    (k, n), side = made.images.shape[:2], made.images.shape[-1]
    square = round(n**0.5)
    squares = made.images.reshape(k, square, square, *made.images.shape[2:])
    words = _class_names(experiment)[: len(made.classes)]
    groups = [Group(name, images) for name, images in zip(words, squares, strict=True)]
    shown = grids.beside(groups, folder / "uncurated.png")
    names = listed(words)
    caption = (
        f"**Every one of the first {n} latents** (seeds 0 to {n - 1} of `pagoda sample`, row by "
        f"row, the same for both) in the classes {names} at {side}×{side}, the first classes of "
        f"the set: nothing is left out or put in order. `pagoda sample {made.generator} --classes "
        f"{','.join(made.classes)} --seeds 0-{n - 1} --out sheet.png` makes them, too."
    )
    return Figure("uncurated.png", caption, f"Uncurated samples of {names}", shown.width)


def _training(experiment: Experiment, folder: Path) -> tuple[Block, ...]:
    blocks: list[Block] = []
    config = experiment.config
    for stage, history in experiment.histories.items():
        file = f"curves-{stage}.png"
        if (width := curves.draw_history(history, folder / file)) is not None:
            seed = config.features.seed if stage == "features" else config.seed
            caption = (
                f"**{stage_label(stage)}**: {history.images:,} images in {history.steps:,} steps, "
                f"training seed {seed}. Thin: every row logged; thick: running mean over 5 % of "
                "the rows, where there are at least 40. Schedules as they are."
            )
            blocks.append(Figure(file, caption, f"Learning curves of {stage}", width, plot=True))
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
    if others := experiment.config.reference.extractors[1:]:
        lines.append(
            "What is said of FD above is of the protocols with `classifier` in their names. The "
            f"others are in features of {', '.join(f'`{name}`' for name in others)}, which no "
            "discriminator and no distance of the training saw; only Inception's make a FID."
        )
    rows = [("images", f"`{experiment.data_fingerprint}`")]
    rows += [(f"evaluation at {r}×{r}", f"`{e.fingerprint}`")
             for r, e in experiment.evaluations.items()]  # fmt: skip
    caption = "**Fingerprints** (SHA-256) of the artifacts that this report was made from."
    return (*lines, table(caption, ("Artifact", "Fingerprint"), rows, "ll"))


def _class_names(experiment: Experiment) -> tuple[str, ...]:
    return class_labels(experiment.classes, experiment.config.data.hub)


def _seeds(experiment: Experiment) -> str:
    return listed(sorted({str(r.seed) for r in experiment.rows}))


def _lower(name: str) -> str:
    label = generator_label(name)
    return label[0].lower() + label[1:]
