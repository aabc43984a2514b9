"""What a study leaves for the report: ``reports/<profile>/studies/<study>/``.

The folder holds ``results.csv``, ``study.json`` and any PNG that ``study.json`` names. It is all
that tables, figures, the claims ledger and MLflow know of a study, so it stands in git and the
report can be made again without the study's artifacts.

``results.csv``: one measured value a line, the columns those of :class:`StudyRow`; an empty field
is "unknown" or "does not apply". Lines are sorted and floats printed in full, so that equal results
give equal files. Any metric is welcome: the report shows what it finds. Quantities of an arm that
no image evaluation gives are rows like others, with their unit in the name of the protocol, e.g.
metric ``drift``, protocol ``drift_px_1k``; ``seconds_per_image``, ``seconds_per_image_b64``;
``parameters``, ``parameters``; ``high_frequency``, ``high_frequency_ratio_1k``. Rules pair values
by arm and seed. A teacher (generator ``teacher``) that several arms share may stand under an arm of
its own with their place on the axis.

``study.json``: the fields of :class:`StudyCard`.

A claim in ``study.yaml`` names arms, metric, generator and resolution; see
:mod:`pagoda.paper.claims`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pagoda.errors import PagodaError

RESULTS, CARD = "results.csv", "study.json"


@dataclass(frozen=True)
class StudyRow:
    """One measured value of one arm and seed, with all that is needed to trace it.

    Attributes:
        arm: name of the arm, as in ``study.yaml``.
        axis: where the arm stands on the study's axis; None if it is not a number.
        seed: training seed of the arm.
        base_res: resolution of the arm's teacher.
        resolution: of the images that were measured.
        generator: ``teacher``, ``student``, ``grown``, ``cascade``, … or ``none`` for a quantity
            of the arm itself.
        nfe: network evaluations an image.
        metric: what is measured: ``fd``, ``recall``, ``drift``, ``train_flops``, …
        protocol: metric, features and n, or metric and unit; never compared with another protocol.
        value: the number.
        n: images, or what else was counted.
        eval_seed: seed of the latents.
        reference: fingerprint of the reference statistics.
        reference_n: real images in them.
        features: fingerprint of the feature network.
        revision: code that measured.
        device: where it was measured.
        images_seen: training images of all stages of the arm up to this generator.
        train_flops: floating-point operations of that training.
        train_seconds: its wall time.
    """

    arm: str
    axis: float | None
    seed: int
    base_res: int
    resolution: int
    generator: str
    nfe: int | None
    metric: str
    protocol: str
    value: float
    n: int
    eval_seed: int | None
    reference: str
    reference_n: int | None
    features: str
    revision: str
    device: str
    images_seen: int | None = None
    train_flops: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class StudyFigure:
    """A picture the study drew itself, e.g. a drift map.

    Attributes:
        file: name of a PNG in the study's folder.
        caption: what it shows, with units, n, seed and protocol.
        alt: short text for readers who cannot see it.
        width: natural width in CSS pixels.
    """

    file: str
    caption: str
    alt: str
    width: int


@dataclass(frozen=True)
class StudyCard:
    """What a study is about.

    Attributes:
        study: name, the folder in ``experiments/``.
        title: reader's name.
        question: what it asks, one sentence.
        rule: what decides, one sentence; the exact rules are the study's claims.
        profile: name of the profile it ran at.
        data: the images, one sentence.
        revision: code revision of the run.
        axis_label: what :attr:`StudyRow.axis` is, with its unit; empty without a numeric axis.
        axis_log: draw that axis logarithmically.
        axis_metric: metric of the teacher to draw on the horizontal axis instead, e.g. ``fd`` for
            student against teacher distance; empty for ``axis``.
        arms: reader's name of each arm, in the order of the tables.
        series: curve that an arm belongs to in the figure, by arm; empty for one curve.
        metrics: metrics to draw and tabulate first, in this order.
        findings: sentences computed from the results, e.g. failure signatures and where they show.
        figures: pictures in the study's folder.
    """

    study: str
    title: str
    question: str
    rule: str
    profile: str
    data: str
    revision: str
    axis_label: str
    axis_log: bool
    axis_metric: str
    arms: dict[str, str]
    series: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    figures: tuple[StudyFigure, ...] = ()


@dataclass(frozen=True)
class StudyResults:
    """A study that ran: its card, its rows and where they were read from."""

    card: StudyCard
    rows: tuple[StudyRow, ...]
    folder: Path


def study_folder(profile: str, study: str, reports: Path = Path("reports")) -> Path:
    """``reports/<profile>/studies/<study>``."""
    return reports / profile / "studies" / study


def write_study(folder: Path, card: StudyCard, rows: Iterable[StudyRow]) -> None:
    """Write ``results.csv`` and ``study.json``; pictures are the caller's.

    Raises:
        PagodaError: if a row names an arm that the card lacks, or a value is not finite.
    """
    lines = sorted({_fields(row) for row in rows})
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / RESULTS).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([f.name for f in dataclasses.fields(StudyRow)])
        writer.writerows(lines)
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n"
    (folder / CARD).write_text(text, "utf-8")
    read_study(folder)


def read_study(folder: Path) -> StudyResults:
    """Read and check a study's folder.

    Raises:
        PagodaError: one line for what is missing or damaged.
    """
    card = _read_card(folder / CARD)
    rows = tuple(_read_rows(folder / RESULTS))
    if unknown := {row.arm for row in rows} - set(card.arms):
        raise PagodaError(f"{folder / RESULTS}: arms {sorted(unknown)} are not in {CARD}")
    return StudyResults(card, rows, folder)


def find_studies(reports: Path = Path("reports")) -> list[StudyResults]:
    """Every study below ``reports``, by profile and name."""
    return [read_study(card.parent) for card in sorted(reports.glob(f"*/studies/*/{CARD}"))]


def _fields(row: StudyRow) -> tuple[str, ...]:
    values = dataclasses.astuple(row)
    return tuple("" if v is None else repr(v) if isinstance(v, float) else str(v) for v in values)


def _read_card(path: Path) -> StudyCard:
    tree = _json(path)
    names = {f.name for f in dataclasses.fields(StudyCard)}
    if wrong := names ^ set(tree):
        raise PagodaError(f"{path}: missing or unknown entries: {', '.join(sorted(wrong))}")
    figures = tuple(StudyFigure(**figure) for figure in tree.pop("figures"))
    for key in ("metrics", "findings"):
        tree[key] = tuple(tree[key])
    return StudyCard(**tree, figures=figures)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise PagodaError(f"{path} is missing; run the study again") from error
    except ValueError as error:
        raise PagodaError(f"{path} is not JSON ({error}); run the study again") from error


def _read_rows(path: Path) -> list[StudyRow]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise PagodaError(f"{path} is missing; run the study again") from error
    return [_row(line, f"{path} line {number}") for number, line in enumerate(lines, 2)]


def _row(line: Mapping[str, str | None], where: str) -> StudyRow:
    hints = get_type_hints(StudyRow)
    if wrong := set(hints) ^ set(line):
        raise PagodaError(f"{where}: missing or unknown columns: {sorted(map(str, wrong))}")
    row = StudyRow(**{key: _value(line[key], hint, key, where) for key, hint in hints.items()})
    if not math.isfinite(row.value):
        raise PagodaError(f"{where}: value {row.value} is not a finite number")
    return row


def _value(text: str | None, hint: Any, key: str, where: str) -> Any:
    kinds = getattr(hint, "__args__", (hint,))
    if not text:
        if type(None) in kinds:
            return None
        if str in kinds:
            return ""
        raise PagodaError(f"{where}: {key} is empty")
    try:
        return kinds[0](text)
    except ValueError as error:
        raise PagodaError(f"{where}: {key} = {text!r} is not {kinds[0].__name__}") from error
