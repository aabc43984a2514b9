"""Codes of images, the autoencoder beside them and their models, and what belongs together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.artifacts import Artifact
from pagoda.calls import in_calls
from pagoda.data.pixels import to_float
from pagoda.errors import PagodaError
from pagoda.networks.autoencoder import BESIDE, BESIDE_FILE, Autoencoder
from pagoda.networks.captions import CAPTIONS, CAPTIONS_FILE, states_of

CALL = 64
"""Images a call of the encoder; always so many, so that an image's codes have the same bits."""


@dataclass(frozen=True)
class Behind:
    """What codes, captioned images and their models keep beside their own: nothing, of images.

    Attributes:
        card: ``autoencoder``, ``captions``: its card, or that of what reads them, with fingerprint.
        weights: its tensors, by the stem of their file.
    """

    card: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def behind(images: Artifact) -> Behind:
    """The autoencoder that codes are of, the text encoder of captions; nothing of images."""
    card = images.card()
    if CAPTIONS in card:
        kept = images.weights(CAPTIONS_FILE)
        table = states_of(images)
        assert table is not None
        beside = {k: v for k, v in kept.items() if k not in table.tensors()}  # networks hold it
        return Behind({CAPTIONS: card[CAPTIONS]}, {CAPTIONS: beside})
    if BESIDE not in card:
        return Behind()
    return Behind({BESIDE: card[BESIDE]}, {BESIDE: images.weights(BESIDE_FILE)})


def fingerprint(artifact: Artifact) -> str | None:
    """Of the autoencoder whose codes an artifact is made of; None: it is made of images."""
    return (artifact.card().get(BESIDE) or {}).get("fingerprint")


def check_codes(images: Artifact, made: Artifact) -> None:
    """Latents, a teacher or a generator are of these codes, or of these images.

    Raises:
        PagodaError: they are of another autoencoder's; both fingerprints are named.
    """
    own, other = fingerprint(images), fingerprint(made)
    if own != other:
        words = [f"codes of the autoencoder {f[:12]}" if f else "images" for f in (own, other)]
        raise PagodaError(
            f"{images.path} holds {words[0]}, {made.path} was made from {words[1]}; 'dvc repro' "
            "makes it again from the experiment's"
        )


@torch.inference_mode()
def encoded(network: Autoencoder, pixels: np.ndarray, device: torch.device) -> Tensor:
    """Codes, on the CPU, of images (n, 3, r, r) uint8.

    The network is always called with :data:`CALL` images: an image's codes have the same bits
    whatever is encoded beside it.
    """

    def codes(part: Tensor) -> Tensor:
        x = to_float(part.to(device)).contiguous(memory_format=torch.channels_last)
        return network.encode(x).float().cpu()

    return in_calls(codes, CALL, torch.from_numpy(pixels))
