"""Finished experiments as the tables need them: measured rows and where they come from."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from PIL import Image

from pagoda.errors import PagodaError
from pagoda.results.document import Figure
from pagoda.results.experiment import Row, check_row
from pagoda.results.measured import FULL_SIZE
from pagoda.results.results_files import read_results

RESULTS, TEXT, EVALUATIONS = "results.csv", "report.md", "evaluations"
_PIXELS = 1.8  # of a picture's file a CSS pixel, near what sheets and curves are drawn at
_PICTURE = re.compile(r"^!\[([^]]*)\]\(([^)/]+\.png)\)\n\n\*(.+)\*$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One experiment.

    Attributes:
        profile: its name.
        base_res: resolution of its teacher.
        seed: training seed; None if its report does not say.
        data: the images, one phrase; empty if its report does not say.
        train_seconds: wall time of the training stages; None if its report does not say.
        origin: where its rows were read: a folder, a DVC experiment or an MLflow run.
        rows: every value measured.
        text: its ``report.md``; empty if there is none.
        folder: where the pictures of ``text`` are; None if they are not at hand.
    """

    profile: str
    base_res: int
    seed: int | None
    data: str
    train_seconds: float | None
    origin: str
    rows: tuple[Row, ...]
    text: str = ""
    folder: Path | None = None

    @property
    def label(self) -> str:
        """Reader's name."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"`{self.profile}`, base {self.base_res}{seed}"

    @property
    def full_size(self) -> bool:
        """True for the paper's own data and networks."""
        return self.profile in FULL_SIZE

    @property
    def resolutions(self) -> list[int]:
        """Where it was measured, ascending."""
        return sorted({row.resolution for row in self.rows})

    def main(self, resolution: int) -> list[Row]:
        """Rows of the generator the experiment is about at one resolution."""
        name = "student" if resolution == self.base_res else "grown"
        return [r for r in self.rows if r.resolution == resolution and r.generator == name]


def find_runs(reports: Path = Path("reports")) -> list[Run]:
    """Every experiment whose report is below ``reports``, by profile and base resolution."""
    folders = {p.parent for p in reports.glob(f"*/b*/{RESULTS}")}
    return sorted((read_run(f) for f in folders), key=lambda r: (r.profile, r.base_res))


def read_run(folder: Path) -> Run:
    """Read ``reports/<profile>/b<base>/``, and ``../evaluations`` for values of its generators.

    Those are files of ``pagoda evaluate --images``, e.g. FID against published statistics.

    Raises:
        PagodaError: one line for what is damaged.
    """
    text = (folder / TEXT).read_text("utf-8") if (folder / TEXT).is_file() else ""
    where = folder / RESULTS
    made = make_run(folder.parent.name, where.read_text("utf-8"), text, f"`{folder}`", str(where))
    other = tuple(_evaluated(folder.parent / EVALUATIONS, made.base_res))
    return dataclasses.replace(made, folder=folder, rows=made.rows + other)


def _evaluated(folder: Path, base_res: int) -> Iterable[Row]:
    """Rows of the files in ``folder`` that are of generators with this base resolution."""
    names = {f.name for f in dataclasses.fields(Row)}
    for file in sorted(folder.glob("*.json")):
        for row in read_results(file)["rows"]:
            if row["base_res"] == base_res:
                main = "student" if row["resolution"] == base_res else "grown"
                yield Row(**{k: row[k] for k in names if k in row} | {"generator": main})


def make_run(profile: str, results: str, text: str, origin: str, where: str) -> Run:
    """A run from the texts of its ``results.csv`` and ``report.md``.

    Raises:
        PagodaError: one line for what is damaged.
    """
    rows = tuple(_rows(results, where))
    if not rows:
        raise PagodaError(f"{where} has no rows; 'pagoda report' makes it again")
    if len(bases := {row.base_res for row in rows}) > 1:
        raise PagodaError(f"{where} mixes base resolutions {sorted(bases)}")
    seed, seconds = _fact(text, "Training seed"), _fact(text, "**Sum**")
    return Run(
        profile=profile,
        base_res=bases.pop(),
        seed=int(seed) if seed else None,
        data=_fact(text, "Data"),
        train_seconds=float(seconds.replace(",", "")) if seconds else None,
        origin=origin,
        rows=rows,
        text=text,
    )


def pictures(run: Run) -> list[Figure]:
    """Every picture of the run's report with its caption, the same as there."""
    found = []
    for alt, file, caption in _PICTURE.findall(run.text):
        path = None if run.folder is None else run.folder / file
        if path is not None and path.is_file():
            with Image.open(path) as image:
                width = round(image.width / _PIXELS)
            found.append(Figure(file, caption, alt, width))
    return found


def _fact(text: str, name: str) -> str:
    """Last filled cell of the first table line that begins with ``name``; empty if none does."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if line.startswith("| ") and cells[0] == name:
            return next((cell for cell in reversed(cells[1:]) if cell.strip("| ")), "")
    return ""


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Runs without those that were found twice: equal rows are one experiment."""
    return list({(run.profile, run.rows): run for run in reversed(list(runs))}.values())[::-1]


def _rows(text: str, where: str) -> Iterable[Row]:
    hints = get_type_hints(Row)
    needed = {f.name for f in dataclasses.fields(Row) if f.default is dataclasses.MISSING}
    for number, line in enumerate(csv.DictReader(text.splitlines()), 2):
        if needed - set(line) or None in line.values():
            raise PagodaError(f"{where} line {number}: {sorted(needed - set(line))} missing")
        try:
            row = {k: _value(line[k], hints[k]) for k in hints if k in line}
            yield Row(**check_row(row, f"{where} line {number}"))
        except ValueError as error:
            raise PagodaError(f"{where} line {number}: {error}") from error


def _value(text: str, hint: Any) -> Any:
    kinds = getattr(hint, "__args__", (hint,))
    return None if not text and type(None) in kinds else kinds[0](text)
