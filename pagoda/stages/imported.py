"""Weights that are at hand, in the place of a training stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.stages.paths import Paths
from pagoda.stages.revision import package_revision
from pagoda.stages.train_network import Trained
from pagoda.training.history import History

Load = Callable[[dict[str, Tensor], dict[str, Any]], nn.Module]


def take_network(
    config: Config,
    stage: str,
    folder: Path,
    load: Load,
    trained: Trained,
    *,
    data: Artifact,
    resolution: int,
) -> None:
    """Write what ``stage`` would have trained from the weights in ``folder``.

    The card keeps the network of ``folder`` and where that came from; the history is one row.

    Args:
        config: the experiment, which the network must fit.
        stage: name of the stage's history.
        folder: an artifact of the same kind, as ``pagoda import`` makes it.
        load: builds the network from weights and card.
        trained: what is written; its card is added to the one in ``folder``.
        data: images of the stage.
        resolution: side of the network's images.

    Raises:
        PagodaError: one line if nothing is there, or a network of another resolution, number of
            classes or noise law.
    """
    begun = time.monotonic()
    if not (folder / artifacts.MANIFEST).is_file():
        raise PagodaError(f"no weights in {folder}; 'pagoda import FILE --out {folder}' puts some")
    artifacts.check_out(trained.path, trained.kind)
    source = artifacts.open_artifact(folder, trained.kind)
    card = source.card()
    _check(folder, card, config, len(data.card()["classes"]), resolution)
    network = source.network(load)
    if not distributed.is_main_process():
        return
    origin = card.get("imported") or {"artifact": str(folder), "fingerprint": source.fingerprint}
    card = {**card, **trained.card, "images_seen": 0, "imported": origin}
    with artifacts.create(
        trained.path, trained.kind, config=trained.identity,
        inputs={"data": data, "imported": source}, revision=package_revision(),
    ) as out:  # fmt: skip
        artifacts.save_model(out, network, card)
    with History(Paths(config).history(stage)) as history:
        history.write(images=0, step=0, seconds=time.monotonic() - begun)


def _check(
    folder: Path, card: Mapping[str, Any], config: Config, classes: int, resolution: int
) -> None:
    unet, law = card["unet"], config.diffusion
    facts = {
        "base resolution": (unet["resolution"], config.base_res),
        "resolution": (unet["resolution"] << len(card.get("levels", [])), resolution),
        "sigma_data": (card["sigma_data"], law.sigma_data),
        "sigma_max": (card.get("sigma_max", law.sigma_max), law.sigma_max),
        "number of classes": (unet["num_classes"], classes),
    }
    for name, (found, wanted) in facts.items():
        if found != wanted:
            raise PagodaError(
                f"{folder}: its {name} is {found}, the experiment's is {wanted}; import other "
                "weights or change params.yaml"
            )
