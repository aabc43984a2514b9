"""The device a stage runs on."""

from __future__ import annotations

import torch

from pagoda import distributed


def pick_device() -> torch.device:
    """This process's visible GPU, or the CPU. Not a parameter: it must not invalidate a stage."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", distributed.local_rank() % torch.cuda.device_count())


def metric_device(device: torch.device) -> str | None:
    """Where distances between many points are made: by torch on a GPU, else by numpy (None)."""
    return None if device.type == "cpu" else str(device)


def device_name(device: torch.device) -> str:
    """``cpu`` or ``cuda:<card>``, as result rows state it."""
    return "cpu" if device.type == "cpu" else f"cuda:{torch.cuda.get_device_name(device)}"
