"""Whether samples of models that are told captions follow them, beside the other metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from pagoda.artifacts import Artifact
from pagoda.data.captions import LENGTHS, MIXED
from pagoda.errors import PagodaError
from pagoda.evaluation.alignment import Alignment
from pagoda.evaluation.samplers import Sampler
from pagoda.evaluation.streaming import Images, StoredImages
from pagoda.networks.captions import CAPTIONS, held_out
from pagoda.networks.clip import scorer_beside
from pagoda.provenance import class_names


def alignment_of(
    model: Artifact, sets: Mapping[str, Images], device: torch.device, held: str = ""
) -> Alignment | None:
    """What looks at the samples of some sets; None: the model is told classes.

    Args:
        model: whose table of captions all samplers share.
        sets: samplers, and others, which are passed over.
        device: where the CLIP runs.
        held: the set of the held-out images, whose captions are in the table, if there is one.

    Raises:
        PagodaError: the captions themselves are not found.
    """
    in_turn, texts = held_out(model), class_names(model)
    if in_turn is None:
        return None
    if texts is None:
        raise PagodaError(
            f"the captions that {model.path} was told are not in the run's folder any more; "
            "'dvc repro caption' makes them again"
        )
    captions: dict[str, list[str]] = {}
    for name, images in sets.items():
        if isinstance(images, Sampler):
            rows = images.which(np.arange(len(images)))[1]
        elif name == held and isinstance(images, StoredImages):
            rows = in_turn.rows[images.kept]
        else:
            continue
        captions[name] = [texts[i] for i in rows]
    side = next(images.resolution[0] for name, images in sets.items() if name in captions)
    readable = model.card()[CAPTIONS].get("length") in (*LENGTHS, MIXED)
    return Alignment(captions, scorer_beside(model), side, device, readable=readable)
