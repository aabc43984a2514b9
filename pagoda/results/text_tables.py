"""Text-to-image models: published figures with their protocols, and what was measured here.

Published rows are those of ``reports/published``; ``protocols/text_to_image.csv`` there says for
each source what is known of its protocol. Measured rows are those of ``pagoda evaluate --captions``
in ``reports/*/evaluations``; they have a table and columns of their own, never one with published
figures, and the time of a step is that of ``reports/speed``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pagoda.results.blocks import Cell, Grid, Line, Table
from pagoda.results.evaluations import of_captions, read_evaluation
from pagoda.results.numbers import number, value_cell
from pagoda.results.paper_tables import KEY, Paper, joined
from pagoda.results.published import FOLDER, Published
from pagoda.results.runs import EVALUATIONS
from pagoda.rows import read_csv, read_text

PROTOCOLS = FOLDER / "protocols" / "text_to_image.csv"
_COLUMNS = ("table", "dataset", "source", "protocol")
_MEASURED = "text-to-image-measured"
_NAMES = {
    "table5_t2i_coco2014": ("text-to-image-coco2014", "FID-30K on COCO-2014"),
    "table4_t2i_coco2017": ("text-to-image-coco2017", "FID-5K and CLIP score on COCO-2017"),
    "t2i_coco2017_amd": ("text-to-image-coco2017-amd", "FID and CLIP score on COCO-2017, AMD's"),
}
_HEADS = {"latency_s": "Latency, s ↓", "CLIP": "CLIP score ↑"}
_SPEED = Path("speed")  # below reports/, a folder a profile
_STEP = "eager, fp32"


def text_tables(paper: Paper, reports: Path = Path("reports")) -> dict[str, Table]:
    """Tables by the name of their files.

    Args:
        paper: published figures and the numbers of their sources.
        reports: folder of the reports.

    Raises:
        PagodaError: one line for a file that is damaged.
    """
    known = _protocols()
    made = {
        name: _published(paper, [p for p in paper.published if p.table == key], title, known)
        for key, (name, title) in _NAMES.items()
    }
    made = {name: found for name, found in made.items() if found.rows}
    measured = measured_text_table(reports)
    return made | ({} if measured is None else {_MEASURED: measured})


def _protocols() -> dict[tuple[str, ...], str]:
    """What is known of a source's protocol, by table, data set and source."""
    if not PROTOCOLS.is_file():
        return {}
    lines = read_csv(read_text(PROTOCOLS), str(PROTOCOLS), _COLUMNS, _COLUMNS)
    return {(x["table"], x["dataset"], x["source"]): x["protocol"] for _, x in lines}


def _published(
    paper: Paper, rows: Sequence[Published], title: str, known: dict[tuple[str, ...], str]
) -> Table:
    grid = Grid("Method", "Pixels", "Guidance", "NFE", "Protocol", joined=joined)
    for p in rows:
        told = known.get((p.table, p.dataset, p.source), "not stated")
        head = (p.method, str(p.resolution or ""), p.guidance, p.nfe, told)
        line = grid.line(*head, key=(*head, p.source))
        paper.add(line, _head(p.metric), p)
        if p.params_millions is not None:
            line.add("Params, M", Cell(f"{p.params_millions:g}", p.source))
    best = list(dict.fromkeys(_head(p.metric) for p in rows if p.metric.startswith("FID")))
    lines = sorted(grid.lines.items(), key=lambda item: _rank(item[1], best))
    grid.lines = dict(lines)
    said = "".join(
        f" {p.method}, one step: {p.value:g} times as fast (figure 9)."
        for p in paper.published if p.metric == "speedup_x"
    )  # fmt: skip
    return grid.table(
        f"**Text to image, {title}**, published, ordered by distance. Values compare only where "
        "the protocol is the same, and most sources do not say theirs in full; latency is on the "
        "source's machine. PaGoDA's own distances and scores are in pictures of its paper and "
        f"could not be read.{said} {KEY}",
        best,
    )


def _head(metric: str) -> str:
    return _HEADS.get(metric, f"{metric} ↓")


def _rank(line: Line, best: Sequence[str]) -> tuple[int, float]:
    """The first column of distances that a line has, and its value there."""
    for i, column in enumerate(best):
        if found := line.cells.get(column):
            return i, float(found[0].text.rstrip("†‡"))
    return len(best), math.inf


def measured_text_table(reports: Path) -> Table | None:
    """What ``pagoda evaluate --captions`` measured; None: nothing.

    Raises:
        PagodaError: one line for a file that is damaged.
    """
    grid = Grid("Images", "Seed", "Pixels", "NFE", "n", "Results", optional=("Seed",))
    for file in sorted(reports.glob(f"*/{EVALUATIONS}/*.json")):
        rows, tree = read_evaluation(file)
        for row in rows if of_captions(tree) else []:
            card: dict[str, Any] = next(iter(tree.get("images") or [{}]))
            side, seed = card.get("resolution"), "–" if row.seed is None else str(row.seed)
            nfe = "–" if row.nfe is None else str(row.nfe)
            line = grid.line(row.generator, seed, str(side or row.resolution or "–"), nfe,
                             f"{row.n:,}", f"`{file.relative_to(reports).as_posix()}`")  # fmt: skip
            line.add(f"`{row.protocol}`", value_cell(row))
            if (count := card.get("parameters")) and "Params, M" not in line.cells:
                line.add("Params, M", Cell(f"{count / 1e6:.4g}", f"{count} parameters, counted"))
            if (one := _latency(reports, file.parent.parent.name, side, row.nfe)) is not None:
                line.cells["Latency, s"] = [one]
    if not grid.lines:
        return None
    return grid.table(
        "**Text to image, measured here** by `pagoda evaluate --captions`. A column is one "
        "protocol: metric, features, n, captions, real images, crop and size; of a CLIP score "
        "model, weights and prefix. It is set against no published figure. Latency: one image, one "
        f"step, {_STEP}, by `benchmarks/sampling_speed.py`, machine on hover; parameters of all "
        "networks that make an image."
    )


def _latency(reports: Path, profile: str, side: int | None, nfe: int | None) -> Cell | None:
    """Seconds of one image by a profile's generator, as the benchmark of speed has it."""
    file = reports / _SPEED / profile / "speed.csv"
    if side is None or nfe != 1 or not file.is_file():
        return None
    for line in csv.DictReader(io.StringIO(read_text(file))):
        case = line.get("resolution"), line.get("batch"), line.get("implementation")
        if case == (str(side), "1", _STEP) and line.get("latency_ms"):
            seconds = float(line["latency_ms"]) / 1e3
            where = f"{line.get('gpu') or line.get('device')}, {line.get('threads')} threads"
            return Cell(number(seconds), f"{seconds!r} s; {where}; code {line.get('revision')}")
    return None
