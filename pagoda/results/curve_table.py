"""Learning curves as one table, for programs that draw: ``dvc plots`` and the VS Code extension."""

from __future__ import annotations

from collections.abc import Iterable

from pagoda.results.experiment import History

CURVES = "curves.tsv"


def curve_table(histories: Iterable[History]) -> str:
    """Losses and accuracies of every stage as tab-separated values, a line a point.

    Columns: ``curve`` (``teacher: loss``), ``images`` (seen by then) and ``value`` (six significant
    digits). Curves of one point are left out, as in the report's figures. Gradient norms, rates
    and schedules stay in ``runs/<profile>/**/history/``.
    """
    lines = ["curve\timages\tvalue"]
    for history in histories:
        for name in history.names():
            images, values = history.curve(name)
            if (name.startswith("loss") or name.endswith("accuracy")) and len(images) > 1:
                points = zip(images, values, strict=True)
                lines += [f"{history.stage}: {name}\t{i:.0f}\t{v:.6g}" for i, v in points]
    return "\n".join(lines) + "\n"
