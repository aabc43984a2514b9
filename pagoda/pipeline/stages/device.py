"""The device a stage runs on."""

from __future__ import annotations

import platform

import torch

from pagoda import distributed

NO_BFLOAT16 = "this processor has no bfloat16 instructions, and 'fp32' is faster on it"


def pick_device() -> torch.device:
    """This process's visible GPU, or the CPU. Not a parameter: it must not invalidate a stage."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", distributed.local_rank() % torch.cuda.device_count())


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether the device is a processor without bfloat16 instructions, where float32 is faster."""
    if device.type != "cpu":
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def metric_device(device: torch.device) -> str | None:
    """Where distances between many points are made: by torch on a GPU, else by numpy (None)."""
    return None if device.type == "cpu" else str(device)


def device_name(device: torch.device) -> str:
    """``cpu`` or ``cuda:<card>``, as result rows state it."""
    return "cpu" if device.type == "cpu" else f"cuda:{torch.cuda.get_device_name(device)}"
