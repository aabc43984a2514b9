"""What every stage that trains does around its method: scratch, loop, curves, artifact."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import artifacts, distributed
from pagoda.artifacts import Artifact
from pagoda.calls import shown
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.config.revision import package_revision
from pagoda.data.shards import open_rows
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.networks.clip import clip_for_loss
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import Generator
from pagoda.pipeline.stages.decoder import behind, check_codes
from pagoda.pipeline.stages.device import NO_BFLOAT16, emulates_bfloat16
from pagoda.pipeline.stages.made import identity, kind_of, locate
from pagoda.pipeline.stages.progress import log_line, track
from pagoda.pipeline.stages.scratch import stage_scratch
from pagoda.tensors import save_tensors
from pagoda.training import sharding
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.history import HISTORY, History, read_rows
from pagoda.training.loop import SNAPSHOTS, train
from pagoda.training.method import ByMethod, Given, Method, find_method
from pagoda.training.settings import OptimConfig
from pagoda.training.sharding import place

_NO_METRICS = ("images", "step", "seconds", "lr")  # of a row of the training curves


def train_stage(
    config: Config,
    stage: str,
    method: Method,
    optim: OptimConfig,
    key: str,
    card: dict[str, Any],
    *,
    device: torch.device,
    inputs: dict[str, Artifact],
    sections: dict[str, Any],
    code: str,
    tested: Callable[[dict[str, Tensor]], dict[str, Any]] = lambda weights: {},
    beside: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Train to the end, from scratch or from where it stopped, and write the first average.

    Args:
        stage: name of the stage, of its scratch folder and of its history.
        key: of the artifact that is written, as :mod:`pagoda.pipeline.stages.made` has it.
        card: beside its weights; added are ``images_seen`` and, as ``metrics``, the statistics of
            the last step.
        inputs: artifacts that the stage reads.
        sections: configuration sections that the result depends on.
        code: name of the method.
        tested: facts about the trained weights for the card.
        beside: other weights to keep beside them, as those of ``Method.beside``.
    """
    out, kind = locate(config, key), kind_of(key)
    artifacts.check_out(out, kind)
    folder = stage_scratch(stage, sections, inputs, method=code, seed=config.seed)
    with track(optim.images, stage) as bar:
        train(
            method, optim, name=stage, seed=config.seed, device=device, folder=folder,
            curves=Paths(config).history(stage), advance=bar.advance,
        )  # fmt: skip
    average = next(iter(method.players.values())).ema
    weights = sharding.full_state_on_main(average.state_dict())
    others = {name: sharding.full_state_on_main(w) for name, w in method.beside().items()}
    if not distributed.is_main_process():
        return
    found = tested(weights)
    with artifacts.create(
        out, kind, config=identity(config, key), inputs=inputs, revision=package_revision()
    ) as partial:
        row = json.loads(read_rows(folder / HISTORY)[-1])
        metrics = {key: value for key, value in row.items() if key not in _NO_METRICS}
        facts = {"images_seen": optim.images, "metrics": metrics}
        artifacts.save_weights(partial, weights, card | facts | found)
        for file in sorted((folder / SNAPSHOTS).glob("*.safetensors")):
            shutil.copyfile(file, partial / file.name)
        for name, tensors in (others | dict(beside or {})).items():
            save_tensors(partial / f"{name}.safetensors", tensors)
    shutil.rmtree(folder, ignore_errors=True)


def train_generator(
    config: Config,
    stage: str,
    section: ByMethod,
    generator: Generator,
    pairs: PairBatches,
    *,
    inputs: dict[str, Artifact],
    sections: dict[str, Any],
    teacher_pairs: Callable[[], PairBatches] | None = None,
) -> None:
    """Train a generator by the method of its section and write its artifact and history.

    Args:
        inputs: ``data``, the real images of its resolution, and ``teacher`` are among them.
        teacher_pairs: as :class:`pagoda.training.method.Given` has them.
    """
    device = pairs.device
    check_codes(inputs["data"], inputs["teacher"])
    beside = behind(inputs["data"])
    check_device(stage.partition("-")[0], section.optim, device)
    torch.manual_seed(config.seed)
    generator = place(generator, device)
    given = Given(
        generator, image_batches(device, inputs["data"]), device, config.seed, config.diffusion,
        pairs, lambda: inputs["teacher"].network(load_denoiser), teacher_pairs,
        inputs.get("below"), lambda: clip_for_loss(inputs["data"]),
    )  # fmt: skip
    method = find_method(section.method)(section, given)
    trainable = sum(p.numel() for p in generator.parameters() if p.requires_grad)
    card = {**generator.card(), "trainable": trainable, **method.card(), **beside.card}
    key = f"gen/{generator.resolution * config.factor}"
    train_stage(
        config, stage, method, section.optim, key, card, device=device, inputs=inputs,
        sections=sections, code=section.method, beside=beside.weights,
    )  # fmt: skip


def check_same(folder: Path, facts: Mapping[str, tuple[Any, Any]], remedy: str) -> None:
    """Refuse an imported artifact that is not of this experiment.

    Args:
        facts: of each name, what the artifact has and what the experiment has.

    Raises:
        PagodaError: one line for the first that differs.
    """
    for name, (found, wanted) in facts.items():
        if found != wanted:
            raise PagodaError(
                f"{folder}: its {name} is {shown(found)}, the experiment's is {shown(wanted)}; "
                f"{remedy}"
            )


def take_network(
    config: Config,
    stage: str,
    folder: Path,
    load: Callable[[dict[str, Tensor], dict[str, Any]], nn.Module],
    key: str,
    card: dict[str, Any],
    data: Artifact,
) -> None:
    """Write what ``stage`` would have trained from the weights in ``folder``.

    The card keeps the network of ``folder`` and where that came from; the history is one row.

    Args:
        folder: an artifact of the same kind, as ``pagoda import`` makes it.
        load: builds the network from weights and card.
        key: of what is written.
        card: is added to the one in ``folder``.
        data: images of the stage, of the network's resolution.

    Raises:
        PagodaError: one line if nothing is there, or a network of another resolution, number of
            classes or noise schedule.
    """
    begun = time.monotonic()
    if not (folder / artifacts.MANIFEST).is_file():
        raise PagodaError(f"no weights in {folder}; 'pagoda import FILE --out {folder}' puts some")
    where, kind = locate(config, key), kind_of(key)
    artifacts.check_out(where, kind)
    source = artifacts.open_artifact(folder, kind)
    known, noise = source.card(), config.diffusion
    unet = known["unet"]
    limits = {
        "base resolution": (unet["resolution"], config.base_res),
        "resolution": (
            unet["resolution"] << len(known.get("levels", [])),
            identity(config, key).get("resolution", config.base_res),
        ),
        "sigma_data": (known["sigma_data"], noise.sigma_data),
        "sigma_max": (known.get("sigma_max", noise.sigma_max), noise.sigma_max),
        "number of classes": (unet["num_classes"], len(data.card()["classes"])),
    }
    check_same(folder, limits, "import other weights or change params.yaml")
    network = source.network(load)
    if not distributed.is_main_process():
        return
    origin = known.get("imported") or {"artifact": str(folder), "fingerprint": source.fingerprint}
    with artifacts.create(
        where, kind, config=identity(config, key), inputs={"data": data, "imported": source},
        revision=package_revision(),
    ) as out:  # fmt: skip
        facts = {"images_seen": 0, "imported": origin}
        artifacts.save_model(out, network, known | card | facts)
    with History(Paths(config).history(stage)) as history:
        history.write(images=0, step=0, seconds=time.monotonic() - begun)


def image_batches(device: torch.device, *data: Artifact) -> ImageBatches:
    """The training images of one or more resolutions, lowest first, and their labels."""
    stores = [open_images(images, "train") for images in data]
    return ImageBatches(stores=stores, labels=data[-1].array("train_labels"), device=device)


def pair_batches(latents: Artifact, images: Artifact, device: torch.device) -> PairBatches:
    """Inverted latents and their real images, at the images' resolution.

    Raises:
        PagodaError: the latents are of images that were cut by another recipe, of another
            autoencoder's codes, of images that are not there, or of classes that are not.
    """
    check_codes(images, latents)
    recipe, of_latents = (a.card().get("recipe") for a in (images, latents))
    if recipe != of_latents:
        raise PagodaError(
            f"{images.path} was cut by the recipe {recipe}, the images of {latents.path} by "
            f"{of_latents}; 'dvc repro' makes all of them by data.recipe"
        )
    rows, pixels = open_rows(latents, "latents"), open_images(images, "train")
    limits = {"indices": len(pixels), "flips": 2, "labels": len(images.card()["classes"])}
    of = {name: _below(limit, latents, name, len(rows)) for name, limit in limits.items()}
    card = latents.card()
    weight = card.get("guidance", 1.0)
    return PairBatches(
        latents=rows, images=pixels, indices=of["indices"], flips=of["flips"], labels=of["labels"],
        device=device, scale=card["to_normalised"], weights=_weights(latents, len(rows)),
        weight_range=(weight, card.get("guidance_max", weight)),
    )  # fmt: skip


def _weights(latents: Artifact, count: int) -> np.ndarray | None:
    """The weight of the guidance of each latent, where they differ."""
    if latents.card().get("guidance_max") is None:
        return None
    found = latents.array("weights")
    if found.shape != (count,) or not np.isfinite(found).all():
        raise PagodaError(
            f"{latents.path} has {count} latents and weights of shape {found.shape}, or some are "
            "not finite; invert again"
        )
    return np.asarray(found, np.float32)


def _below(limit: int, latents: Artifact, name: str, count: int) -> np.ndarray:
    """An array of an entry a latent, all from 0 to below ``limit``."""
    array = latents.array(name)
    if len(array) != count:
        raise PagodaError(
            f"{latents.path} has {count} latents and {len(array)} {name}; invert again"
        )
    bad = np.flatnonzero((array < 0) | (array >= limit))
    if len(bad):
        raise PagodaError(
            f"{latents.path}: {name} holds {array[bad[0]]} at row {bad[0]}, and the images allow 0 "
            f"to {limit - 1}; invert again"
        )
    return array


def check_device(name: str, optim: OptimConfig, device: torch.device) -> None:
    """Refuse what a device cannot do, and say what it does slowly.

    Raises:
        PagodaError: fp16 without a GPU, ``compile`` without a compiler or with sharded weights.
    """
    if optim.precision == "fp16" and device.type != "cuda":
        raise PagodaError(
            f"{name}.optim.precision = 'fp16' needs a GPU; on the CPU use 'bf16' or 'fp32'"
        )
    if optim.precision == "bf16" and emulates_bfloat16(device):
        log_line(f"{name}.optim.precision = 'bf16': {NO_BFLOAT16}")
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
