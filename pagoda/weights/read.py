"""A file of released weights to a network of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pagoda.errors import PagodaError
from pagoda.weight_files import read_state
from pagoda.weights.adm import convert_adm, is_adm
from pagoda.weights.converted import Found, Options, network
from pagoda.weights.edm import convert_edm
from pagoda.weights.pickles import read_pickle


@dataclass(frozen=True)
class Imported:
    """A network with the file's weights, its kind of artifact, and what was found."""

    module: nn.Module
    kind: str
    found: Found


def read_weights(path: Path, options: Options) -> Imported:
    """Read EDM's ``.pkl``, or a ``.pt`` of Consistency Models or PaGoDA; nothing in it runs.

    Raises:
        PagodaError: one line if the file is no such thing, or does not say what it is.
    """
    try:
        found = _found(path, options)
        kind = _kind(path, found, options)
        return Imported(network(path, found, kind, options), kind, found)
    except PagodaError:
        raise
    except Exception as error:  # whatever a foreign network's parts make of our layout
        why = f"{type(error).__name__} {error}".splitlines()[0]
        raise PagodaError(f"{path}: its parts form no network that pagoda knows ({why})") from error


def _found(path: Path, options: Options) -> Found:
    if path.suffix == ".pkl":
        return convert_edm(path, read_pickle(path))
    if path.suffix not in (".pt", ".pth"):
        raise PagodaError(f"{path}: pagoda imports .pkl (EDM) and .pt (Consistency Models, PaGoDA)")
    weights = read_state(path)
    if not is_adm(weights):
        raise PagodaError(f"{path}: its names ({next(iter(weights))}, ...) are no ADM U-Net's")
    return convert_adm(path, weights, options)


def _kind(path: Path, found: Found, options: Options) -> str:
    if found.levels and options.kind == "teacher":
        raise PagodaError(f"{path} has {len(found.levels)} doublings, so it is no teacher")
    if options.kind is not None:
        return options.kind
    if found.levels:
        return "generator"
    if found.format == "edm":
        return "teacher"
    raise PagodaError(
        f"{path}: a denoiser and a one-step generator have the same names; say --kind teacher "
        "(edm_imagenet64_ema.pt) or --kind generator (PaGoDA's decoder_ema)"
    )
