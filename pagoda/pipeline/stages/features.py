"""Train the embedded feature network on real images. It is used for evaluation only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config, derive_resolutions
from pagoda.config.paths import Paths
from pagoda.data.shards import read_at_random
from pagoda.data.store import Images, open_images
from pagoda.errors import PagodaError
from pagoda.networks.classifier import FeatureNetwork, degrade, extract
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.progress import track
from pagoda.pipeline.stages.scratch import stage_scratch
from pagoda.training.checkpoint import Scratch
from pagoda.training.history import HISTORY, History
from pagoda.training.loop import orderly_stop

_LOWEST_RES = 8  # the network serves every resolution from here up to its own
_WEIGHT_DECAY = 0.05
_WARMUP = 0.2  # fraction of training in which the learning rate rises
_SHORTEST = 6  # steps of a schedule: torch's divides by the length of the rise, 0 for 5
_DEGRADATION_WEIGHT = 0.05  # enough to notice blur, too little to make it all that counts
_LOG_EVERY = 10  # steps
_SAVE_EVERY_S = 60.0
_AT_ONCE = 256  # held-out images in memory


def run(config: Config) -> None:
    """Train the network at the target resolution and write the ``features`` artifact.

    Its seed is ``features.seed``, never the run's, and nothing depends on the base resolution: all
    runs of a profile are measured with the same network.
    """
    paths, device = Paths(config), pick_device()
    artifacts.check_out(paths.features, "features")
    identity = {"name": config.name, "resolution": config.target_res}
    data = artifacts.open_artifact(paths.data(config.target_res), "images", identity)
    classes = data.card()["classes"]
    ladder = derive_resolutions(min(_LOWEST_RES, config.target_res), config.target_res)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.features.seed)
        network = FeatureNetwork(
            len(classes), config.target_res, config.features.channels, config.features.dim,
            len(ladder),
        )  # fmt: skip
    network = network.to(device).to(memory_format=torch.channels_last)
    folder = stage_scratch("features", {"features": config.features}, {"data": data})
    train_set = open_images(data, "train"), data.array("train_labels")
    scratch = _train(config, network, *train_set, ladder, folder)
    network.eval()
    card = {
        "architecture": network.architecture,
        "classes": classes,
        "parameters": sum(p.numel() for p in network.parameters()),
        "images_seen": config.features.images,
        "seed": config.features.seed,
        "accuracy": _accuracy(network, data, ladder),
        "data": data.fingerprint,
    }
    where = {"name": config.name, "target_res": config.target_res}
    with artifacts.create(paths.features, "features", config=where, inputs={"data": data}) as out:
        artifacts.save_model(out, network, card)
    scratch.discard()


def _train(
    config: Config, network: FeatureNetwork, images: Images, labels: np.ndarray,
    ladder: list[int], folder: Path,
) -> Scratch:  # fmt: skip
    """Train from the newest checkpoint; batches and rates before it are passed over.

    Ctrl-C or SIGTERM ends the step, saves a checkpoint and leaves.
    """
    section, device = config.features, next(network.parameters()).device
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=section.lr, weight_decay=_WEIGHT_DECAY, fused=True
    )
    steps = section.images // section.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, section.lr, total_steps=max(_SHORTEST, steps), pct_start=_WARMUP
    )
    scratch = Scratch(folder, {"network": network}, {"network": optimizer})
    done, before = scratch.restore()
    for _ in range(done):
        schedule.step()
    seen = done * section.batch
    start = saved = time.monotonic()
    batches = _batches(images, labels, section.batch, steps, section.seed, done)
    history = History(Paths(config).history("features"), seen, folder / HISTORY)
    with track(section.images, "features") as bar, history as log, orderly_stop() as asked:
        bar.advance(seen)
        for step, (x, y) in enumerate(batches, done + 1):
            losses = _step(network, x.to(device), y.to(device), ladder)
            optimizer.zero_grad(set_to_none=True)
            (losses[0] + _DEGRADATION_WEIGHT * losses[1]).backward()
            rate = float(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            seen += len(x)
            bar.advance(len(x))
            if step % _LOG_EVERY == 0 or step == steps:
                seconds = before + time.monotonic() - start
                log.write(
                    images=seen, step=step, seconds=seconds, loss=losses[0].item(),
                    loss_degradation=losses[1].item(), accuracy=losses[2].item(), lr=rate,
                    images_per_second=seen / seconds,
                )  # fmt: skip
            last, stop = step == steps, asked()
            save = stop or (not last and time.monotonic() - saved > _SAVE_EVERY_S)
            if last or save:
                scratch.check("features", step)
            if save:
                log.sync()
                scratch.save(step, before + time.monotonic() - start)
                saved = time.monotonic()
            if stop and not last:
                raise KeyboardInterrupt
    return scratch


def _batches(
    images: Images, labels: np.ndarray, batch: int, steps: int, seed: int, done: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled epochs of uint8 images, each mirrored with probability 1/2, after ``done`` steps."""
    read_at_random(images)
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for step in range(steps):
        while len(order) < batch:
            order = np.concatenate([order, rng.permutation(len(images))])
        rows, order = order[:batch], order[batch:]
        mirrored = rng.random(batch) < 0.5
        if step < done:
            continue
        pixels = images[rows]
        pixels[mirrored] = pixels[mirrored, :, :, ::-1]
        yield torch.from_numpy(pixels), torch.from_numpy(labels[rows])


def _step(
    network: FeatureNetwork, images: Tensor, labels: Tensor, ladder: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Class loss, degradation loss and accuracy, a part of the batch at each resolution."""
    parts = [
        network.prepare(degrade(part, res))
        for part, res in zip(images.tensor_split(len(ladder)), ladder, strict=True)
    ]
    sizes = torch.tensor([len(part) for part in parts])
    degradations = torch.repeat_interleave(torch.arange(len(ladder)), sizes).to(labels.device)
    features = network.embed(torch.cat(parts))
    logits = network.class_head(features)
    return (
        F.cross_entropy(logits, labels),
        F.cross_entropy(network.degradation_head(features), degradations),
        (logits.argmax(1) == labels).float().mean(),
    )


def _accuracy(network: FeatureNetwork, data: Artifact, ladder: list[int]) -> dict[str, float]:
    """Fraction of held-out images named right, at each resolution."""
    images, labels = open_images(data, "test"), data.array("test_labels")
    right = dict.fromkeys(ladder, 0)
    for start in range(0, len(labels), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        part = torch.from_numpy(np.array(images[rows]))
        for res in ladder:
            _, logits = extract(network, degrade(part, res).numpy())
            if not np.isfinite(logits).all():
                raise PagodaError(
                    "features: the trained network's answers are not finite; lower the learning "
                    "rate features.lr, then run again"
                )
            right[res] += int((logits.argmax(1) == labels[rows]).sum())
    return {str(res): count / len(labels) for res, count in right.items()}
