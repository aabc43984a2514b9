"""What every stage that trains does around its objective: scratch, loop, curves, artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config, OptimConfig
from pagoda.stages.optim import keep_snapshots, loop_spec
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.revision import package_revision
from pagoda.stages.scratch import HISTORY, SNAPSHOTS, stage_scratch
from pagoda.training import sharding
from pagoda.training.checkpoint import Scratch
from pagoda.training.ema import EMA, PowerAverages
from pagoda.training.history import History, read_rows
from pagoda.training.loop import Step, train

_NO_METRICS = ("images", "step", "seconds", "lr")  # of a row of the training curves


class AveragedStep(Step, Protocol):
    """A step that keeps a moving average of the network it trains."""

    ema: EMA


@dataclass(frozen=True)
class Trained:
    """The artifact that a stage writes: kind, folder, identity and the card beside the weights."""

    kind: str
    path: Path
    identity: dict[str, Any]
    card: dict[str, Any]


def train_network(
    config: Config,
    stage: str,
    step: AveragedStep,
    optim: OptimConfig,
    trained: Trained,
    *,
    inputs: dict[str, Artifact],
    sections: dict[str, Any],
    averages: PowerAverages | None = None,
    ahead: Callable[[int], None] | None = None,
) -> None:
    """Run ``step`` to its end, from scratch or from where it stopped, and write the average.

    Args:
        stage: name of the stage, of its scratch folder and of its history.
        trained: what is written; to its card are added ``images_seen`` and, as ``metrics``, the
            statistics of the last step.
        inputs: artifacts that the stage reads.
        sections: configuration sections that the result depends on.
        averages: kept beside the weights if there are any.
        ahead: reads the batch of a later step (:func:`pagoda.training.loop.train`).
    """
    artifacts.check_out(trained.path, trained.kind)
    folder = stage_scratch(stage, sections, inputs, seed=config.seed)
    if averages:
        averages.folder = folder / SNAPSHOTS
    scratch = Scratch(folder, step.modules, step.optimizers)
    with track(optim.images, stage) as bar:
        train(
            step,
            loop_spec(stage, optim, config.seed),
            scratch,
            lambda kept: History(Paths(config).history(stage), kept, folder / HISTORY),
            bar.advance,
            ahead,
        )
    weights = sharding.full_state_on_main(step.ema.model.state_dict())
    if not distributed.is_main_process():
        return
    with artifacts.create(
        trained.path, trained.kind, config=trained.identity, inputs=inputs,
        revision=package_revision(),
    ) as out:  # fmt: skip
        facts = {"images_seen": optim.images, "metrics": _last(folder / HISTORY)}
        artifacts.save_weights(out, weights, trained.card | facts)
        keep_snapshots(averages, out)
    scratch.discard()


def _last(history: Path) -> dict[str, float]:
    """Statistics of the last row of training curves."""
    row = json.loads(read_rows(history)[-1])
    return {key: value for key, value in row.items() if key not in _NO_METRICS}
