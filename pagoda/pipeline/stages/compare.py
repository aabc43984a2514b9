"""Compare two sets of images pair by pair: ``pagoda compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pagoda.config.revision import package_revision
from pagoda.evaluation.pairs import compare, pair_names
from pagoda.evaluation.results import check_out, write_results
from pagoda.pipeline.stages.device import device_name, pick_device
from pagoda.pipeline.stages.progress import track
from pagoda.pipeline.stages.score import Source
from pagoda.rows import to_json


def run(
    first: Source,
    second: Source,
    metrics: str,
    network: str,
    weights: Path | None,
    out: Path | None,
) -> dict[str, Any]:
    """Show how the first images differ from the second, and write the JSON file.

    Args:
        first, second: images and their originals.
        metrics: names with commas between.
        network: of LPIPS: ``alex``, ``vgg`` or ``squeeze``.
        weights: torchvision's file of that network; None lets torch.hub find it.
        out: JSON file to write.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    if out is not None:
        check_out(out)
    names, device = pair_names(metrics), pick_device()
    x, y = first.open(), second.open()
    with track(len(x), f"compare {x.where}") as bar:
        rows = compare(x, y, names, network, weights, str(device), bar.advance)
    for row in rows:
        between = f"  [{row.low:.6g}, {row.high:.6g}]" if row.interval else ""
        value = "infinite: there are equal pairs" if row.value is None else f"{row.value:.6g}"
        sys.stdout.write(f"{row.protocol:<32} {value}{between}\n")
    tree = {
        "rows": to_json(rows), "first": x.card(), "second": y.card(),
        "revision": package_revision(), "device": device_name(device),
    }  # fmt: skip
    if out is not None:
        write_results(out, tree)
    return tree
