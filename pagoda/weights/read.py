"""A file of released weights to a network of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import build_generator
from pagoda.weight_files import NoRandomValues, misfit, read_state, some
from pagoda.weights.adm import is_adm, read_adm
from pagoda.weights.converted import Found, Options
from pagoda.weights.edm import read_edm
from pagoda.weights.pickles import read_pickle


@dataclass(frozen=True)
class Imported:
    """A network with the file's weights in float32, its kind of artifact, and what was found.

    Attributes:
        read: how many weights were read.
        unused: the file's names of the others.
    """

    module: nn.Module
    kind: str
    found: Found
    read: int
    unused: tuple[str, ...]


def read_weights(path: Path, options: Options) -> Imported:
    """Read EDM's ``.pkl``, or a ``.pt`` of Consistency Models or PaGoDA; nothing in it runs.

    Raises:
        PagodaError: one line if the file is no such thing, does not say what it is, or its weights
            lack, have another shape, or have no place.
    """
    try:
        found = _found(path, options)
        return _network(path, found, _kind(path, found, options), options)
    except PagodaError:
        raise
    except Exception as error:  # whatever a foreign network's parts make of our layout
        why = f"{type(error).__name__} {error}".splitlines()[0]
        raise PagodaError(f"{path}: its parts form no network that pagoda knows ({why})") from error


def _found(path: Path, options: Options) -> Found:
    if path.suffix == ".pkl":
        return read_edm(path, read_pickle(path))
    if path.suffix not in (".pt", ".pth"):
        raise PagodaError(f"{path}: pagoda imports .pkl (EDM) and .pt (Consistency Models, PaGoDA)")
    weights = read_state(path)
    if not is_adm(weights):
        raise PagodaError(f"{path}: its names ({next(iter(weights))}, ...) are no ADM U-Net's")
    return read_adm(path, weights, options)


def _kind(path: Path, found: Found, options: Options) -> str:
    if found.levels and options.kind == "teacher":
        raise PagodaError(f"{path} has {len(found.levels)} doublings, so it is no teacher")
    if options.kind is None and not found.levels and found.format != "edm":
        raise PagodaError(
            f"{path}: a denoiser and a one-step generator have the same names; say --kind teacher "
            "(edm_imagenet64_ema.pt) or --kind generator (PaGoDA's decoder_ema)"
        )
    return options.kind or ("generator" if found.levels else "teacher")


def _network(path: Path, found: Found, kind: str, options: Options) -> Imported:
    with torch.device("meta"), NoRandomValues():
        module: nn.Module = Denoiser(found.spec, found.sigma_data)
        if kind != "teacher":
            module = build_generator({
                "unet": found.spec.to_card(), "levels": [list(level) for level in found.levels],
                "sigma_max": options.sigma_max, "sigma_data": found.sigma_data,
                "output_scale": 1.0,
            })  # fmt: skip
    given, names = {}, {}
    for name in module.state_dict():
        ours = name.removeprefix("net.") if kind == "teacher" else name
        if (theirs := found.theirs(ours)) in found.weights:
            given[name], names[name] = found.fit(ours, found.weights[theirs]), theirs
    if why := misfit(module, given, names):
        raise PagodaError(f"{path} {why}")
    used = set(names.values())
    unused = tuple(name for name in found.weights if name not in used)
    if unused and not options.allow_unused:
        raise PagodaError(
            f"{path}: {some(unused)} have no place in pagoda's network, which would then "
            "compute something else; --allow-unused imports the rest"
        )
    module.load_state_dict({k: v.float() for k, v in given.items()}, assign=True)
    return Imported(module.eval(), kind, found, len(given), unused)
