"""A stage's optimiser, length and schedule from its configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from pagoda.config import OptimConfig
from pagoda.errors import PagodaError
from pagoda.training import sharding
from pagoda.training.ahead import Ahead
from pagoda.training.ema import PowerAverages
from pagoda.training.loop import LoopSpec
from pagoda.training.optim import OptimSpec


def optim_spec(optim: OptimConfig) -> OptimSpec:
    """The optimiser of a stage."""
    return OptimSpec(optim.optimizer, optim.lr, (optim.beta1, optim.beta2), optim.weight_decay)


def loop_spec(name: str, optim: OptimConfig, seed: int) -> LoopSpec:
    """Length and schedule of a stage's training."""
    return LoopSpec(name, optim.images, optim.batch, optim.warmup, optim.decay, seed)


def check_device(name: str, optim: OptimConfig, device: torch.device) -> None:
    """Refuse what a device cannot do.

    Raises:
        PagodaError: fp16 without a GPU, ``compile`` without a compiler or with cut weights.
    """
    if optim.precision == "fp16" and device.type != "cuda":
        raise PagodaError(
            f"{name}.optim.precision = 'fp16' needs a GPU; on the CPU use 'bf16' or 'fp32'"
        )
    if optim.compile and sharding.wanted():
        raise PagodaError(
            f"{sharding.SHARD}=1 cannot be combined with {name}.optim.compile = true; set one to 0 "
            "or false"
        )
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if optim.compile and not any(shutil.which(c) for c in compilers if c):
        raise PagodaError(
            f"{name}.optim.compile = true needs a C++ compiler such as g++ and there is none; "
            "install one or set it to false"
        )


def compile_networks(optim: OptimConfig, *networks: nn.Module) -> None:
    """Compile calls of networks, in place, if the configuration says so; weights stay theirs."""
    if optim.compile:
        for network in networks:
            network.compile()


def power_averages(optim: OptimConfig, module: nn.Module) -> PowerAverages | None:
    """The averages of ``ema_profiles``, None without any."""
    if not optim.ema_profiles:
        return None
    steps = optim.images // optim.batch
    return PowerAverages(module, optim.ema_profiles, steps, optim.ema_snapshots)


def keep_snapshots(averages: PowerAverages | None, out: Path) -> None:
    """Copy snapshots from scratch into an artifact."""
    if averages and averages.folder:
        for file in sorted(averages.folder.glob("*.safetensors")):
            shutil.copyfile(file, out / file.name)


def reads_ahead(device: torch.device) -> Ahead | None:
    """Reads batches ahead for a GPU; on a CPU there is nothing idle that could."""
    return Ahead() if device.type == "cuda" else None
