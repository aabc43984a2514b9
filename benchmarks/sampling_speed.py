"""How fast one step is: latency and images/s of a run's generators, by resolution and batch.

    python -m benchmarks.sampling_speed [--params FILE | --profile NAME] [--out FOLDER]

Eager, torch.compile, torch.export and ONNX (onnxruntime, as many threads), beside the teacher with
its profile's steps and the cascade of diffusion models, all in turn, so that other load meets all
alike; ratios to eager are of one turn. What should give eager's images is compared with them first.
Then where a call's time goes, part by part, and a cold ``pagoda sample`` of one image, a process
each. Networks are those of the run beside FILE (``params.yaml``) where it has them; others, and
those of ``--profile``, have random weights, on which no time depends. FOLDER
(``reports/speed/<name>``) gets ``speed.md``, ``speed.csv``, ``parts.csv``, ``parts.png`` and
``speed.json``, from which the same command goes on where it stopped; ``--again`` measures anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import (
    Results,
    Row,
    interleaved,
    kernels,
    machine,
    median_interval,
    with_own_kernels,
)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "speed.json"
COLD = "cold"
_FEW = 4  # repeats of a case with --quick


def measure(given: argparse.Namespace, config: Any, results: Results) -> None:
    """Every case that ``results`` lack."""
    import torch

    from benchmarks.sampling_parts import part_seconds
    from benchmarks.sampling_variants import Models, Ways

    models = Models(config, torch.device(given.device), given.bf16)
    without = frozenset(filter(None, given.without.split(",")))
    for resolution in config.resolutions:
        ways = None
        for batch in given.batches:
            case = f"{resolution}x{resolution}, batch {batch}"
            if results.has(case):
                continue
            ways = ways or Ways(models, resolution, without)
            jobs, apart, evaluations = ways.jobs(batch)
            facts = {"resolution": resolution, "batch": batch}
            rows = interleaved(case, jobs, batch, given.repeats, warm=2)
            for row in rows:
                name = row["implementation"]
                many = name.startswith(("teacher", "cascade"))
                row |= {**facts, "nfe": evaluations if many else 1, "apart": apart.get(name)}
            parts = part_seconds(ways.network, *models.inputs(batch), given.repeats, warm=2)
            parts = {name: [round(s, 7) for s in seconds] for name, seconds in parts.items()}
            missing = [{"case": f"missing: {case}", "implementation": name, "why": why}
                       for name, why in ways.missing.items()]  # fmt: skip
            results.add([*rows, {"case": f"parts: {case}", **facts, "parts": parts}, *missing])
            _say(case, rows)


def _say(case: str, rows: list[Row]) -> None:
    for row in rows:
        median, low, high = (1e3 * s for s in median_interval(row["wall_s"]))
        line = f"{case}, {row['implementation']}: {median:.2f} ms ({low:.2f} to {high:.2f})"
        print(line, file=sys.stderr, flush=True)


def cold(given: argparse.Namespace, config: Any, results: Results) -> None:
    """``pagoda sample`` of one image in a new process, beside a process that imports torch."""
    from pagoda.artifacts import MANIFEST
    from pagoda.config.paths import Paths

    folder = Paths(config).generator(config.target_res)
    if results.has(COLD) or not given.cold or not (folder / MANIFEST).is_file():
        return
    with tempfile.TemporaryDirectory() as work:
        picture = ["--classes", "0", "--seeds", "0", "--out", str(Path(work) / "x.png")]
        commands = {
            "pagoda sample, one image": ["-m", "pagoda", "sample", str(folder.resolve()), *picture],
            "import torch": ["-c", "import torch"],
        }
        rows: dict[str, Row] = {
            name: {"case": COLD, "implementation": name, "images": 1,
                   "wall_s": [], "user_s": [], "system_s": []}
            for name in commands
        }  # fmt: skip
        for turn in range(1 + given.cold):  # the first reads files that are not in memory
            for name, command in commands.items():
                times = _process([sys.executable, *command])
                if turn:
                    for key, value in times.items():
                        rows[name][key].append(round(value, 4))
    results.add(list(rows.values()))


def _process(command: list[str]) -> dict[str, float]:
    """Run a command and wait for it: its seconds, and those of the processor.

    Raises:
        SystemExit: it failed.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path},
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command[1:4])} failed: {said.strip()}")
    return {"wall_s": wall, "user_s": usage.ru_utime, "system_s": usage.ru_stime}


def conditions(given: argparse.Namespace, config: Any) -> dict[str, Any]:
    """What all rows have in common."""
    import torch

    from benchmarks.sampling_variants import Models
    from pagoda.config.revision import package_revision

    models = Models(config, torch.device(given.device))
    return {
        "benchmark": "sampling speed", "name": config.name, "base_res": config.base_res,
        "weights": "of the run" if models.trained() else "random", "device": given.device,
        "revision": package_revision(), **machine("onnxruntime"), "blas": kernels(),
        "repeats": given.repeats, "cold": given.cold, "bf16": given.bf16,
    }  # fmt: skip


def experiment(given: argparse.Namespace) -> Any:
    """The experiment; the working folder becomes that of its run.

    Raises:
        SystemExit: one line.
    """
    from pagoda.config import load, parse
    from pagoda.errors import PagodaError

    try:
        if given.profile:
            from pagoda.pipeline.derive import profile_tree

            return parse(profile_tree(given.profile, ROOT))
        config = load(given.params)
    except PagodaError as error:
        raise SystemExit(f"error: {error}") from error
    os.chdir(given.params.resolve().parent)
    return config


def main() -> None:
    given = arguments()
    with_own_kernels("benchmarks.sampling_speed", given.threads)
    import torch

    from benchmarks.sampling_speed_page import write

    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: there is no GPU here; take --device cpu")
    torch.set_num_threads(given.threads or torch.get_num_threads())
    given.params, out = given.params.resolve(), given.out and given.out.resolve()
    config = experiment(given)
    if given.profile:
        work = tempfile.TemporaryDirectory()  # no run of that name is taken for its own
        os.chdir(work.name)
    folder = out or ROOT / "reports" / "speed" / config.name
    if given.again:
        (folder / RESULTS).unlink(missing_ok=True)
    results = Results(folder / RESULTS, conditions(given, config))
    measure(given, config, results)
    cold(given, config, results)
    os.chdir(ROOT)
    print(write(results, config.resolutions, folder))


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"),
                        help="parameters of the run that lies beside them")  # fmt: skip
    parser.add_argument("--profile", help="networks of a profile with random weights instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="eager and compiled in bfloat16, too")
    parser.add_argument("--threads", type=int, help="of torch and onnxruntime; all cores")
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")],
                        default=[1, 8, 64], metavar="N,N,...")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=15, help="turns of every case")
    parser.add_argument("--cold", type=int, default=9, help="processes of one image; 0: none")
    parser.add_argument("--without", default="", metavar="NAME,...",
                        help="of compiled, exported, ONNX, teacher, cascade")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="batches 1 and 8, few turns")
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    parser.add_argument("--out", type=Path, help="folder; reports/speed/<name of the profile>")
    given = parser.parse_args()
    if given.quick:
        given.batches, given.repeats, given.cold = [1, 8], _FEW, min(given.cold, 3)
    return given


if __name__ == "__main__":
    main()
