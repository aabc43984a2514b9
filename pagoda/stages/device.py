"""The device a stage runs on."""

from __future__ import annotations

import torch


def pick_device() -> torch.device:
    """The first visible GPU, or the CPU. Not a parameter: it must not invalidate a stage."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """``cpu`` or ``cuda:<card>``, as result rows state it."""
    return "cpu" if device.type == "cpu" else f"cuda:{torch.cuda.get_device_name(device)}"
