"""The page of how feature networks follow what was done to real images: ``reports/evaluators/``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from benchmarks.known_truth_sets import CHANGES, HELD_OUT, NO_IMAGES, UNTRAINED
from pagoda import outputs
from pagoda import rows as files
from pagoda.results import style
from pagoda.results.blocks import Cell, Document, Figure, Grid, Section, Table, table, to_markdown
from pagoda.results.labels import metric_label, metric_order
from pagoda.results.numbers import number, provenance, value_cell
from pagoda.rows import Row, grouped

FOLDER = Path("reports/evaluators")
RESULTS, REPORT, RESPONSES = "results.csv", "report.md", "responses.png"
OWN = outputs.only(RESULTS, REPORT, RESPONSES)
NEAR_ZERO = 0.05  # the largest precision and coverage of what is no image of the set
_OF_INCEPTION = {"fid": "fd", "kid": "kd"}
_DRAWN = {"fd": "FD over the floor's", "precision": "precision", "recall": "recall",
          "coverage": "coverage"}  # fmt: skip
_LOOKS = tuple(zip((style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE,
                    style.SKY), "os^DvP", strict=True))  # fmt: skip


class Seen(NamedTuple):
    """A set of images in the features of a network: what was done, how much, and the metric."""

    kind: str
    amount: float | None
    metric: str


Evaluators = dict[str, dict[Seen, Row]]
"""Rows by what was seen, by the name of data and network."""


class Rule(NamedTuple):
    """What must hold of the values of some sets, in order."""

    text: str
    metric: str
    sets: tuple[tuple[str, float | None], ...]
    how: str  # rises or falls; empty: at most NEAR_ZERO

    def holds(self, values: Sequence[float]) -> bool:
        """Whether it does."""
        match self.how:
            case "rises":
                return all(a < b for a, b in pairwise(values))
            case "falls":
                return all(a >= b for a, b in pairwise(values))
        return max(values) <= NEAR_ZERO


def rules() -> list[Rule]:
    """All that is asked of a feature network."""
    found = []
    for kind, change in CHANGES.items():
        sets = ((HELD_OUT, None), *((kind, amount) for amount in change.amounts))
        for how in ("rises", "falls"):
            for metric in getattr(change, how):
                label = metric_label(metric).rstrip(" ↓↑")
                found.append(Rule(f"{kind}: {label} {how}", metric, sets, how))
    for kind in (*NO_IMAGES, UNTRAINED):
        for metric in ("precision", "coverage"):
            text = f"{kind}: {metric_label(metric).rstrip(' ↓↑')} at most {NEAR_ZERO:g}"
            found.append(Rule(text, metric, ((kind, None),), ""))
    return found


def read(folder: Path) -> list[Row]:
    """The rows of a page.

    Raises:
        PagodaError: one line: there is none, or it is damaged.
    """
    return files.from_csv(files.read_text(folder / RESULTS), str(folder / RESULTS))


def write(rows: Sequence[Row], folder: Path) -> None:
    """Replace the folder with the page of these rows.

    Raises:
        PagodaError: if the folder holds anything else, the disk is full or a path is not writable.
    """
    with outputs.new_folder(folder, OWN) as partial:
        width = draw(by_evaluator(rows), partial / RESPONSES)
        (partial / RESULTS).write_text(files.to_csv(rows), "utf-8")
        (partial / REPORT).write_text(to_markdown(page(rows, width)), "utf-8")


def by_evaluator(rows: Sequence[Row]) -> Evaluators:
    """Rows by data and network, whose name is the middle of its protocols'."""
    found: Evaluators = {}
    for (data, features), own in grouped(rows, lambda r: (r.variant, r.features)).items():
        first = own[0]
        network = "_".join(first.protocol.removeprefix(first.metric).split("_")[1:-1])
        seen = {Seen(r.generator, r.axis, _OF_INCEPTION.get(r.metric, r.metric)): r for r in own}
        assert len(seen) == len(own), features
        found[f"`{data}` {first.resolution}×{first.resolution}, `{network}`"] = seen
    return found


def page(rows: Sequence[Row], width: int) -> Document:
    """Summary, rules, responses and every value; ``width`` is the figure's."""
    found = by_evaluator(rows)
    n, amounts = rows[0].n, "; ".join(
        f"{kind}: {change.unit}, {', '.join(f'{a:g}' for a in change.amounts)}"
        for kind, change in CHANGES.items()
    )  # fmt: skip
    caption = (
        f"Left to right what is done to held-out images grows. Their own value comes first: {n:,} "
        "images beside as many training images. Lower is nearer in the first row, whose axis is "
        "logarithmic."
    )
    return Document(
        "What feature networks see",
        f"Real images made worse by known amounts ({amounts}), and what is no image of the set, "
        "in the features that results are in: do distances grow and precision fall with what was "
        "done? Amounts and rules were written before networks of natural images were measured, but "
        "for coverage, added where precision had failed; one choice of images was measured. "
        "Written by `python -m benchmarks.known_truth`; every value with its provenance is in "
        "`results.csv`.",
        (
            Section("What must hold", (summary_table(found), rule_table(found))),
            Section("Responses", (Figure(RESPONSES, caption, "Responses to each change", width),)),
            Section("Every value", tuple(value_table(name, list(own.values()))
                                         for name, own in found.items())),
        ),
    )  # fmt: skip


def summary_table(found: Evaluators) -> Table:
    """A line a network on data: how many rules of each kind hold, and what noise is taken for."""
    kinds = {"Distances rise": ("fd", "kd"), "Precision falls": ("precision",),
             "Coverage falls": ("coverage",), "Recall falls": ("recall",),
             "Class accuracy falls": ("class_accuracy",)}  # fmt: skip
    lines = []
    for name, own in found.items():
        outcomes = [
            [_outcome(rule, own)[0] for rule in rules() if rule.how and rule.metric in metrics]
            for metrics in kinds.values()
        ]
        worst = [
            max((own[Seen(kind, None, metric)] for kind in (*NO_IMAGES, UNTRAINED)),
                key=lambda row: row.number) for metric in ("precision", "coverage")
        ]  # fmt: skip
        held = [f"{o.count('✓')} of {len(o) - o.count('–')}" for o in outcomes]
        told = [f"{_plain(r.number)}" + f", {r.generator}" * (r.number > 0) for r in worst]
        lines.append((name, *held, *told))
    caption = (
        "**Summary**: changes at whose every step a metric follows, and the largest precision and "
        "coverage of what is no image of the set, which must be near 0."
    )
    header = ("Images, features", *kinds, "Precision of no image", "Coverage of no image")
    return table(caption, header, lines)


def rule_table(found: Evaluators) -> Table:
    """A line a rule, a column a network on data: whether it holds, and the values in order."""
    lines = [(rule.text, *(_outcome(rule, own) for own in found.values())) for rule in rules()]
    caption = (
        "**What must hold**, and the values in the order of the amounts, from held-out images as "
        "they are on: a distance rises at every step, precision, recall and class accuracy do not "
        "rise at any. No allowance is made for the noise of a sample. Class accuracy needs a "
        "network that knows the classes by name."
    )
    return table(caption, ("Rule", *found), lines, "l" * (1 + len(found)))


def _outcome(rule: Rule, own: dict[Seen, Row]) -> str:
    rows = [own.get(Seen(kind, amount, rule.metric)) for kind, amount in rule.sets]
    values = [row.number for row in rows if row is not None]
    if len(values) < len(rows):
        return "–"
    return f"{'✓' if rule.holds(values) else '✗'} {' → '.join(map(_plain, values))}"


def _plain(value: float) -> str:
    return "0" if value == 0 else number(value)


def value_table(name: str, rows: Sequence[Row]) -> Table:
    """Every set in the features of one network."""
    grid = Grid("Images", "Amount")
    for row in sorted(rows, key=lambda r: metric_order(r.metric)):
        amount = "" if row.axis is None else f"{row.axis:g}"
        cell = Cell(_plain(row.number), value_cell(row).title)
        grid.line(row.generator, amount).add(f"`{row.protocol}`", cell)
    return grid.table(f"**{name}.** {provenance(rows)}")


def draw(found: Evaluators, path: Path) -> int:
    """A row a metric, a column a change, a line a network; returns the figure's width."""
    shown = {kind: change for kind, change in CHANGES.items() if "fd" in change.rises}
    with style.applied():
        figure, axes = style.panels(len(_DRAWN) * len(shown), len(shown), (2.1, 1.7), 0.6)
        for i, ax in enumerate(axes):
            metric, (kind, change) = (
                list(_DRAWN)[i // len(shown)],
                list(shown.items())[i % len(shown)],
            )
            sets = [(HELD_OUT, None), *((kind, amount) for amount in change.amounts)]
            _panel(ax, found, metric, [Seen(*at, metric) for at in sets])
            ax.set_xticks(range(len(sets)), ["0", *(f"{a:g}" for a in change.amounts)])
            if i < len(shown):
                ax.set_title(kind, loc="left", fontweight="bold")
            if i % len(shown) == 0:
                ax.set_ylabel(_DRAWN[metric])
            if i >= len(axes) - len(shown):
                ax.set_xlabel(change.unit)
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="upper center", ncols=2, fontsize=6.5,
            bbox_to_anchor=(0.5, 1.005 - 1 / len(_DRAWN)), labelspacing=0.3,
        )  # fmt: skip
        return style.save(figure, path)


def _panel(ax: Axes, found: Evaluators, metric: str, sets: Sequence[Seen]) -> None:
    for (name, own), (colour, marker) in zip(found.items(), _LOOKS, strict=False):
        values = [own[at].number for at in sets]
        floor = values[0] if metric == "fd" else 1.0
        ax.plot([v / floor for v in values], label=name.replace("`", ""), color=colour,
                marker=marker, markersize=3.5, linewidth=1.2)  # fmt: skip
    if metric == "fd":
        ax.set_yscale("log")
    else:
        ax.set_ylim(-0.03, 1.03)
