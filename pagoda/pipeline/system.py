"""What a training stage takes of its machine, sampled beside it: processor, memory, GPU memory.

The samples are lines of JSON in ``system/<stage>.jsonl`` of the run. They are no result: no stage
depends on them, DVC does not know of them, and a stage from its cache has none. ``pagoda track``
puts them into MLflow under the names that MLflow's own sampling has.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

INTERVAL = 5.0
"""Seconds between two samples."""

_MB = 1e6


@contextmanager
def sampled(path: Path, interval: float = INTERVAL) -> Iterator[None]:
    """Sample the machine until the block is over, into a file that is begun anew.

    A disk that is full or a file that cannot be written ends the samples, not the training.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_sample, args=(path, interval, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sample(path: Path, interval: float, stop: threading.Event) -> None:
    with suppress(OSError, psutil.Error):
        path.parent.mkdir(parents=True, exist_ok=True)
        psutil.cpu_percent()  # the first call has nothing to compare with
        process = psutil.Process()
        with path.open("w", encoding="utf-8") as file:
            ended = False
            while not ended:
                ended = stop.wait(interval)
                line = {"time": round(time.time(), 3)} | sample(process)
                file.write(json.dumps(line) + "\n")
                file.flush()


def sample(process: psutil.Process) -> dict[str, float]:
    """Use of the machine since the last call and now, by MLflow's names; memory in MB (10^6)."""
    memory = psutil.virtual_memory()
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": round(memory.used / _MB, 1),
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": round(process.memory_info().rss / _MB, 1),
    }
    torch = sys.modules.get("torch")  # never imported for this
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            found[f"gpu_{i}_memory_usage_megabytes"] = round((total - free) / _MB, 1)
            found[f"gpu_{i}_memory_usage_percentage"] = round(100 * (1 - free / total), 1)
    return found
