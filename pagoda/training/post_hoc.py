"""Averages of weights chosen after training (Karras et al. 2024, arXiv 2312.02696, section 3.2).

Snapshots of averages by a power of time span many others: the one that is wanted is their linear
combination whose density over training is nearest to its own, in the mean square.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.kinds import MODEL_FILE

Doubles = NDArray[np.float64]
_NAME = re.compile(r"ema-([0-9.e-]+)-(\d{9})\.safetensors")


def exponent(sigma_rel: float) -> float:
    """gamma of the profile of relative width ``sigma_rel``, in (0, 0.28).

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)): the variance of the density
    (gamma + 1) tau^gamma on (0, 1]. The largest root.
    """
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def snapshot_name(sigma_rel: float, step: int) -> str:
    """File name of a snapshot after ``step`` steps."""
    return f"ema-{sigma_rel:g}-{step:09d}.safetensors"


def inner_products(t_a: Doubles, gamma_a: Doubles, t_b: Doubles, gamma_b: Doubles) -> Doubles:
    """(n, m) integrals of products of densities (gamma + 1) tau^gamma / t^(gamma + 1) on (0, t].

    (gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) min(t)^(gamma_a + gamma_b + 1) /
    (t_a^(gamma_a + 1) t_b^(gamma_b + 1)), with one ratio of times so that no power overflows.
    """
    ta, ga = t_a[:, None], gamma_a[:, None]
    tb, gb = t_b[None, :], gamma_b[None, :]
    power = np.where(ta < tb, (ta / tb) ** gb, (tb / ta) ** ga)
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * power / np.maximum(ta, tb)


def blend(times: Doubles, gammas: Doubles, time: float, gamma: float) -> Doubles:
    """(n,) factors of snapshots (times, gammas) whose sum is nearest to the profile (time, gamma).

    They sum to one, as each density does; the least squares are over densities.
    """
    n = len(times)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = inner_products(times, gammas, times, gammas)
    system[:n, n] = system[n, :n] = 1
    wanted = inner_products(times, gammas, np.array([time]), np.array([gamma]))[:, 0]
    return np.asarray(np.linalg.lstsq(system, np.append(wanted, 1), rcond=None)[0][:n])


def weights_beside(artifact: Artifact) -> list[str]:
    """Files of other weights that a model keeps beside its own, but its snapshots."""
    names = sorted(artifact.manifest["files"])
    return [n for n in names if n.endswith(".safetensors") and n != MODEL_FILE
            and not _NAME.fullmatch(n)]  # fmt: skip


def synthesise(
    source: Path, sigma_rel: float, out: Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write the artifact ``out``: that of ``source`` with the average of width ``sigma_rel``.

    Args:
        source: a teacher or generator artifact with snapshots (``optim.ema_profiles``).
        facts: for the card, what only the run beside ``source`` tells.

    Raises:
        PagodaError: if it has none, or the width is outside what its profiles span.
    """
    import torch

    from pagoda.tensors import read_tensors

    kind = artifacts.peek(source, "teacher", "generator").manifest["kind"]
    artifacts.check_out(out, kind)
    artifact = artifacts.open_artifact(source, kind)
    files = {f: m for f in sorted(source.iterdir()) if (m := _NAME.fullmatch(f.name))}
    if not files:
        raise PagodaError(
            f"{source} has no snapshots; train with optim.ema_profiles=[0.05,0.1] to have them"
        )
    widths = np.array([float(m[1]) for m in files.values()])
    times = np.array([float(m[2]) for m in files.values()])
    if not widths.min() <= sigma_rel <= widths.max():
        raise PagodaError(
            f"sigma_rel = {sigma_rel:g}; the snapshots of {source} span {widths.min():g} to "
            f"{widths.max():g}"
        )
    gammas = np.array([exponent(w) for w in widths])
    factors = blend(times, gammas, times.max(), exponent(sigma_rel))
    state: dict[str, torch.Tensor] = {}
    like = artifact.weights()
    for file, factor in zip(files, factors, strict=True):
        for key, value in read_tensors(file).items():
            if key not in like or value.shape != like[key].shape:
                raise PagodaError(f"{file} is no snapshot of this network: {key} is not its own")
            part = value.double() * factor if value.is_floating_point() else value
            state[key] = state[key] + part if key in state and value.is_floating_point() else part
    model = {k: v.to(like[k].dtype) for k, v in state.items()}
    card = artifact.card() | dict(facts or {})
    card |= {"ema": {"sigma_rel": sigma_rel, "snapshots": len(files)}}
    with artifacts.create(
        out, kind, config=artifact.config, inputs={"snapshots": artifact}
    ) as folder:
        artifacts.save_weights(folder, model, card)
        for name in weights_beside(artifact):
            shutil.copyfile(source / name, folder / name)
