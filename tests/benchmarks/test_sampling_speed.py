"""The speed of one step: intervals, parts and tables, and a whole run on tiny networks."""

from __future__ import annotations

import csv
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.sampling_parts import REST, Stopwatch, names, part_seconds
from benchmarks.timing import median_interval
from pagoda.config import parse
from pagoda.pipeline.stages.compute import Untrained
from tests.tiny import ROOT, tiny_tree


@pytest.mark.parametrize(("n", "k"), [(6, 1), (9, 2), (15, 4), (25, 8), (100, 40)])
def test_the_interval_holds_the_median_in_95_percent(n: int, k: int) -> None:
    """Ranks as in tables of the sign test; one rank further in would hold it too seldom."""
    assert median_interval(range(1, n + 1)) == ((n + 1) / 2, k, n + 1 - k)

    def holds(rank: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n

    assert holds(k) >= 0.95 > holds(k + 1)


def test_of_few_values_the_interval_is_the_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert median_interval([5.0]) == (5.0, 5.0, 5.0)


def test_parts_inside_each_other_share_no_time() -> None:
    ticks = itertools.count()  # a second between any two looks
    watch = Stopwatch(lambda: float(next(ticks)))
    with watch.part("outer"):
        with watch.part("inner"):
            pass
        with watch.part("inner"):
            pass
    assert watch.seconds == {"outer": 3, "inner": 2}


def test_every_part_of_a_generator_is_timed_and_it_stays_as_it_was() -> None:
    config = parse(tiny_tree(target_res=32))
    network = Untrained(config, 10, images=1, device=torch.device("cpu")).generator(32).eval()
    z, labels = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    before, keys = network(z, labels), [set(vars(m)) for m in network.modules()]
    found = part_seconds(network, z, labels, repeats=2)
    assert list(found) == [n for n in found if n in names(config.resolutions)]
    assert set(found) == set(names(config.resolutions)) and REST in found
    assert all(len(v) == 2 and min(v) >= 0 for v in found.values())
    assert [set(vars(m)) for m in network.modules()] == keys
    torch.testing.assert_close(network(z, labels), before, rtol=0, atol=0)


@pytest.mark.slow
def test_a_whole_run_and_again_from_its_results(tmp_path: Path, linked_run: Path) -> None:
    tree = tiny_tree(target_res=16, seed=3)
    (linked_run / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    out = tmp_path / "speed"
    command = [
        sys.executable,
        "-m",
        "benchmarks.sampling_speed",
        "--params",
        "params.yaml",
        "--quick",
        "--without=compiled",
        "--cold=1",
        "--threads=1",
        f"--out={out}",
    ]
    path = {"PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": "Haswell"}
    pages = []
    for _ in range(2):
        done = subprocess.run(command, cwd=linked_run, env=os.environ | path, text=True,
                              capture_output=True, check=True)  # fmt: skip
        pages.append(done.stdout)
    assert pages[0] == pages[1] == (out / "speed.md").read_text() + "\n"
    assert done.stderr.count(" ms (") == 0  # nothing was measured again
    with (out / "speed.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    ways = {(r["resolution"], r["implementation"].partition(",")[0]) for r in rows}
    assert ways == {(side, way) for side, more in (("8", "teacher"), ("16", "cascade"))
                    for way in ("eager", "exported", "ONNX", more)}  # fmt: skip
    assert all(float(r["largest_difference"]) < 1e-4 for r in rows if r["largest_difference"])
    assert (out / "parts.png").stat().st_size and "pagoda sample, one image" in pages[0]
