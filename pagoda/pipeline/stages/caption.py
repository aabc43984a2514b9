"""Images with captions for labels: what an experiment with text models."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from pagoda import artifacts, distributed, outputs
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.kinds import CARD_FILE
from pagoda.methods.clip import OWN
from pagoda.networks.captions import CAPTIONS, CAPTIONS_FILE, ENCODER, SCORER, CaptionStates
from pagoda.networks.clip import load_clip
from pagoda.pipeline.stages.captioned import Captions, captions_of
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.progress import log_line
from pagoda.tensors import save_tensors
from pagoda.text_to_image.encoders import open_reader
from pagoda.training.history import History

_MOST = 2 << 30  # bytes of a table of captions, which is part of every network


def run(config: Config, resolution: int) -> None:
    """Write the ``captioned`` artifact of one resolution.

    Its images are those of the ``images`` artifact; the label of each is the number of its caption
    in the table beside them: the different captions of all images, as the text encoder reads them.

    Raises:
        PagodaError: no text encoder, no CLIP that scores, images without captions, or a table that
            no network can hold.
    """
    if not distributed.is_main_process():
        return
    out = Paths(config).captioned(resolution)
    artifacts.check_out(out, "captioned")
    begun, data = time.monotonic(), open_made(config, f"data/{resolution}")
    captions = captions_of(config, data)
    scorer = open_made(config, "scorer")
    inputs = {"data": data, "scorer": scorer}
    weights: dict[str, torch.Tensor] = {}
    if config.text.encoder == OWN:
        inputs["clip"] = clip = open_made(config, "clip")
        read: Callable[[list[str]], CaptionStates] = clip.network(load_clip).read
        encoder, fingerprint, weights = clip.card(), clip.fingerprint, clip.weights()
    else:
        read, fingerprint = open_reader(config.text.encoder, config.text.context)
        encoder = {"name": config.text.encoder, "context": config.text.context}
    _check_size(read(captions.texts[:1]), len(captions.texts))  # before hours of reading
    states = read(captions.texts)
    for line in states.cut[:3]:
        log_line(line)
    card = {key: data.card().get(key) for key in ("recipe", "exif", "resolution", "storage")}
    card |= {
        "classes": captions.texts,
        CAPTIONS: {
            "length": config.text.held_out, "cut": len(states.cut), "fingerprint": fingerprint,
            "encoder": encoder, "scorer": scorer.card() | {"fingerprint": scorer.fingerprint},
        },
    }  # fmt: skip
    tensors = table(captions, states)
    for prefix, beside in ((ENCODER, weights), (SCORER, scorer.weights())):
        tensors |= {f"{prefix}{name}": value for name, value in beside.items()}
    with artifacts.create(
        out, "captioned", config=identity(config, f"captioned/{resolution}"), inputs=inputs
    ) as folder:
        for file in sorted(data.path.glob("train_*")):
            if file.suffix in (".npy", ".webp") and file.name != "train_labels.npy":
                outputs.link_or_copy(file, folder / file.name)
        np.save(folder / "train_labels.npy", captions.rows["train"])
        save_tensors(folder / CAPTIONS_FILE, tensors)
        artifacts.write_json(folder / CARD_FILE, card)
    with History(Paths(config).history(f"caption-{resolution}")) as history:
        history.write(images=len(captions.texts), step=0, seconds=time.monotonic() - begun)


def table(captions: Captions, states: CaptionStates) -> dict[str, torch.Tensor]:
    """The tensors of a table of captions, and which of them held-out images have."""
    return states.tensors() | {
        "held_out": torch.from_numpy(captions.rows["test"]),
        "class_of": torch.from_numpy(captions.class_of),
    }


def _check_size(one: CaptionStates, count: int) -> None:
    """Of so many captions, each as large as the one that was read."""
    size = one.tokens.numel() * one.tokens.element_size() * count
    if size > _MOST:
        raise PagodaError(
            f"{count:,} different captions make a table of {size >> 30} GiB, and "
            f"every network holds it; at most {_MOST >> 30} GiB fit: take fewer images "
            "(data.train_images), a smaller text.context, or a narrower text encoder"
        )
