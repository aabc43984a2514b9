"""Compare two sets of images pair by pair: ``pagoda compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pagoda.evaluation.metrics.lpips import Lpips
from pagoda.evaluation.pairs import compare, pair_metrics
from pagoda.evaluation.results import check_out, write_results
from pagoda.stages.device import device_name, pick_device
from pagoda.stages.progress import track
from pagoda.stages.request import Source
from pagoda.stages.revision import package_revision


def run(
    first: Source,
    second: Source,
    metrics: str,
    network: str,
    weights: Path | None,
    out: Path | None,
) -> dict[str, Any]:
    """Show the values and write the JSON file.

    Args:
        first: images that are judged.
        second: what they are held against.
        metrics: names with commas between.
        network: of LPIPS: ``alex``, ``vgg`` or ``squeeze``.
        weights: torchvision's file of that network; None lets torch.hub find it.
        out: JSON file to write.

    Returns:
        What is in the file.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    if out is not None:
        check_out(out)
    names, device = pair_metrics(metrics), pick_device()
    sets = [source.open() for source in (first, second)]
    lpips = Lpips(network, weights, str(device)) if "lpips" in names else None
    with track(len(sets[0]), f"compare {sets[0].where}") as bar:
        rows = compare(sets[0], sets[1], names, lpips, bar.advance)
    tree = {
        "rows": rows, "first": sets[0].card(), "second": sets[1].card(),
        "revision": package_revision(), "device": device_name(device),
    }  # fmt: skip
    for row in rows:
        sys.stdout.write(f"{row['protocol']:<32} {_text(row)}\n")
    if out is not None:
        write_results(out, tree)
    return tree


def _text(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "infinite: there are equal pairs"
    between = f"  [{row['low']:.6g}, {row['high']:.6g}]" if row["interval"] else ""
    return f"{row['value']:.6g}{between}"
