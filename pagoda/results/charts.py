"""Charts of the page as Vega-Lite: learning curves, and published FID over network evaluations.

They need no network: :func:`library` is the code that draws them, inside the page.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pagoda.results.blocks import Chart, Charts
from pagoda.results.curve_table import CURVES
from pagoda.results.labels import stage_label
from pagoda.results.paper_tables import SIZES
from pagoda.results.published import Published
from pagoda.rows import grouped

_FOLDER = Path(__file__).parent / "vega"
_LOG_FROM = 4.0  # largest over smallest value, from which a positive axis is logarithmic
_TWO_COLUMNS = 22  # characters of the longest name, up to which a legend has two columns
_DASHES = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [1, 4])
_OURS = "PaGoDA"
_ADVERSARIAL = ("loss_adv", "loss_d")
_NAMES = {
    "loss": "total", "loss_rec": "reconstruction", "loss_dstl": "noise to data",
    "loss_features": "in features", "loss_adv": "generator", "loss_d": "discriminator",
    "accuracy": "accuracy, training batch", "test_accuracy": "accuracy, held out",
}  # fmt: skip
# Shift and wheel: the wheel alone scrolls the page.
_ZOOM = {"name": "zoom", "bind": "scales",
         "select": {"type": "interval", "zoom": "wheel![event.shiftKey]"}}  # fmt: skip
_HOW = "Drag to move, Shift and wheel to zoom, double click to go back."


@cache
def library() -> str:
    """Vega and Vega-Lite as base64 of gzip, which browsers unpack by themselves."""
    text = b"\n".join((_FOLDER / f"{n}.min.js").read_bytes() for n in ("vega", "vega-lite"))
    return base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()


@cache
def _template() -> dict[str, Any]:
    """A panel of the learning curves of ``dvc plots``, with its anchors filled in."""
    text = (_FOLDER / "learning_curves.json").read_text(encoding="utf-8")
    for anchor, name in (("X_LABEL", "images seen"), ("X", "images"), ("Y", "value")):
        text = text.replace(f"<DVC_METRIC_{anchor}>", name)
    panel: dict[str, Any] = json.loads(text)["spec"]
    return panel


def curve_charts(
    tables: Mapping[str, str], where: Sequence[str] = (f"`{CURVES}`",)
) -> Charts | None:
    """A chart a stage, in which its losses, and the runs, lie over each other.

    Args:
        tables: ``curves.tsv`` of each run, by the run's name; see :mod:`.curve_table`.
        where: those files, as the caption names them.

    Returns:
        None if there is no curve.
    """
    points = [
        (run, *line.split("\t"))
        for run, text in tables.items()
        for line in text.splitlines()[1:]
    ]  # fmt: skip
    stages = grouped(points, lambda p: (p[1].split(": ")[0], p[1].endswith(_ADVERSARIAL)))
    if not stages:
        return None
    made = tuple(_curves(*stage, own, list(tables)) for stage, own in stages.items())
    overlay = ", a dash a run" if len(tables) > 1 else ""
    return Charts(made, (
        f"**Losses over images seen**, a colour a loss{overlay}; logarithmic where values span "
        f"{_LOG_FROM:g}×. A click on the legend leaves one curve, a second all. {_HOW} The values "
        f"are in {' and '.join(where)}."
    ))  # fmt: skip


def _curves(
    stage: str, adversarial: bool, points: Sequence[tuple[str, ...]], runs: Sequence[str]
) -> Chart:
    """Of one stage; a run has the same dash in every chart, and the legend names those shown."""
    values = [float(p[3]) for p in points]
    log = 0 < _LOG_FROM * min(values) < max(values)
    lines = [f"{run}\t{_name(curve)}\t{images}\t{value}"
             for run, curve, images, value in points]  # fmt: skip
    panel = _template()
    scale = {"type": "log", "nice": False} if log else {"zero": False}
    encoding = panel["encoding"] | {
        "y": panel["encoding"]["y"] | {"scale": scale, "axis": {"tickCount": 4, "format": "~r"}},
        "color": {"field": "curve", "type": "nominal", "sort": None,
                  "legend": {"title": None, "orient": "bottom", "columns": 2}},
        "opacity": {"condition": {"param": "shown", "value": 1}, "value": 0.08},
        "tooltip": [{"field": "run"}, *panel["encoding"]["tooltip"][1:]],
    }  # fmt: skip
    if len(runs) > 1:
        own = [run for run in runs if any(p[0] == run for p in points)]
        columns = 2 if max(map(len, own)) <= _TWO_COLUMNS else 1
        dashes = [_DASHES[i % len(_DASHES)] for i in range(len(runs))]
        encoding["strokeDash"] = {
            "field": "run", "type": "nominal", "scale": {"domain": list(runs), "range": dashes},
            "legend": {"title": None, "orient": "bottom", "columns": columns, "values": own,
                       "symbolSize": 500},
        }  # fmt: skip
    shown = {"name": "shown", "select": {"type": "point", "fields": ["curve"]}, "bind": "legend"}
    title = stage_label(stage, numbered=False) + ", adversarial losses" * adversarial
    spec = {
        "data": {"values": "\n".join(["run\tcurve\timages\tvalue", *lines]),
                 "format": {"type": "tsv"}},
        "height": 140,
        "params": [_ZOOM, shown],
        "mark": panel["mark"],
        "encoding": encoding,
    }  # fmt: skip
    return Chart(title, spec, f"Losses of the stage {title.lower()} over images seen")


def published_charts(published: Sequence[Published]) -> Charts | None:
    """FID over network evaluations, a chart a resolution of ImageNet; None without figures."""
    made = []
    for size in SIZES:
        points = [
            {"method": p.method, "fid": p.value, "nfe": nfe, "source": p.source, "kind": kind}
            for p in published
            if (p.dataset, p.metric, p.resolution) == ("ImageNet", "FID", size)
            and (nfe := evaluations(p.nfe)) and p.value > 0
            and (kind := _OURS if p.method == _OURS else "guidance" if p.guidance == "yes"
                 else "no guidance, or not said")
        ]  # fmt: skip
        if points:
            made.append(_scatter(size, sorted(points, key=lambda p: p["kind"] == _OURS)))
    caption = (
        "**FID over network evaluations an image, published, full size** (lower and further left "
        "is better; both axes are logarithmic). 50,000 images by the evaluator of each source; a "
        "doubled evaluation for guidance counts twice. Values without a stated number of "
        f"evaluations are in the tables only. {_HOW} Hover over a point for its method and source."
    )
    return Charts(tuple(made), caption) if made else None


def evaluations(nfe: str) -> int:
    """Network evaluations as printed (``250x2``) as a number; 0 if none is stated."""
    parts = nfe.split("x")
    if not all(part.isdigit() for part in parts):
        return 0
    return int(parts[0]) * (int(parts[1]) if len(parts) == 2 else 1)


def _name(curve: str) -> str:
    """``distill: loss_rec`` as ``reconstruction``."""
    key = curve.split(": ")[1]
    return _NAMES.get(key, key.removeprefix("loss_").replace("_", " "))


def _scatter(size: int, points: list[dict[str, Any]]) -> Chart:
    kinds = [_OURS, "guidance", "no guidance, or not said"]
    spec = {
        "data": {"values": points},
        "height": 180,
        "params": [_ZOOM],
        "mark": {"type": "point", "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "nfe", "type": "quantitative", "title": "network evaluations an image",
                  "scale": {"type": "log", "domain": [0.8, 1200]},
                  "axis": {"values": [1, 10, 100, 1000]}},
            "y": {"field": "fid", "type": "quantitative", "title": "FID",
                  "scale": {"type": "log"}, "axis": {"tickCount": 4, "format": "~r"}},
            "color": {"field": "kind", "type": "nominal", "scale": {"domain": kinds},
                      "legend": {"title": None, "orient": "bottom", "columns": 2}},
            "size": {"condition": {"test": f"datum.kind == '{_OURS}'", "value": 140}, "value": 45},
            "shape": {"field": "kind", "type": "nominal",
                      "scale": {"domain": kinds, "range": ["diamond", "triangle-up", "circle"]}},
            "tooltip": [{"field": "method"}, {"field": "fid", "title": "FID"},
                        {"field": "nfe", "title": "evaluations"}, {"field": "source"}],
        },
    }  # fmt: skip
    title = f"ImageNet {size}×{size}"
    return Chart(title, spec, f"Published FID over network evaluations on {title}")
