"""One run of one variant of a study: its training steps, then its measurements."""

from __future__ import annotations

import numpy as np

from pagoda import artifacts, distributed
from pagoda.config import Config, VariantConfig
from pagoda.data.noise import standard_normal
from pagoda.data.shards import create_shards
from pagoda.pipeline.stages import (
    autoencoder,
    caption,
    clip,
    distill,
    encode,
    grow,
    invert,
    measure,
    scorer,
    super_resolution,
    teacher,
)
from pagoda.pipeline.stages.compute import (
    resolution_of,
    stages_of,
    training_compute,
    with_compute,
)
from pagoda.pipeline.stages.decoder import behind
from pagoda.pipeline.stages.made import identity, locate, open_made, training_set
from pagoda.pipeline.stages.models import without
from pagoda.pipeline.stages.study_spec import STEPS, Study, Variant, variant_config


def run(config: Config, study: Study, variant: Variant, seed: int) -> None:
    """Do the steps of a variant with one training seed and write its ``measurement``.

    Every step is the stage of that name of the main pipeline, given the variant's configuration.
    Processes of a group share the steps; the first one measures alone, so that nothing else is
    timed.
    """
    made = config_of(config, study, variant, seed)
    with distributed.group():
        for step in variant.steps:
            if STEPS[step].makes:  # others only name what is measured
                _STEPS[step](made)
            distributed.barrier()  # until the first has written what the next step reads
    if distributed.is_main_process():
        measure.run(made, study, variant)


def config_of(config: Config, study: Study, variant: Variant, seed: int) -> VariantConfig:
    """A variant's configuration, with the images that ``compute_of`` gives it."""
    made = variant_config(config, study, variant, seed)
    if variant.compute_of is None:
        return made
    other = study.variants[variant.compute_of]
    there = variant_config(config, study, other, seed)
    steps, known = variant.steps or variant.counts, training_set(config)
    end = max(resolution_of(made, stage) for stage in stages_of(made, steps))
    costs = training_compute(there, other.steps or other.counts, *known, up_to=end)
    return with_compute(made, steps, sum(costs.values()), *known)


def _grow(config: VariantConfig) -> None:
    """Grow the variant's own generator, doubling by doubling."""
    for step in config.growth.values():
        grow.run(config, step["from"], step["to"])
        distributed.barrier()


def _grow_each(config: VariantConfig) -> None:
    """Grow each of the main pipeline's generators by one doubling."""
    for step in config.growth.values():
        grow.run(without(config, f"gen/{step['from']}"), step["from"], step["to"])


def _cascade(config: VariantConfig) -> None:
    for step in config.growth.values():
        super_resolution.run(config, step["from"], step["to"])


def pair_randomly(config: Config) -> None:
    """Real images beside random latents: what distillation would be without inversion.

    The artifact has the images, classes and size that ``invert`` would give it; the latents are
    standard normal and know nothing of their images.
    """
    if not distributed.is_main_process():
        return
    section, data = config.invert, open_made(config, config.modelled(config.base_res))
    labels = data.array("train_labels")
    count = min(section.images or len(labels), len(labels))
    indices = np.arange(count)
    shape = (count, *config.shape(config.base_res))
    card = {"units": "x(sigma_max) / sigma_max", "to_normalised": 1.0, "solver": "none",
            "nfe": 0, "round_trip_mse": None, "round_trip_images": 0,
            "recipe": data.card()["recipe"], **behind(data).card}  # fmt: skip
    where, of = locate(config, "latents"), identity(config, "latents")
    with artifacts.create(where, "latents", config=of, inputs={"data": data}) as out:
        latents = create_shards(out, "latents", "float32", shape, section.shard)
        for start in range(0, count, section.batch):
            rows = slice(start, min(start + section.batch, count))
            latents[rows] = standard_normal(config.seed, indices[rows], shape[1:], "random_pairs")
        latents.flush(slice(0, count))
        np.save(out / "indices.npy", indices.astype(np.int64))
        np.save(out / "flips.npy", np.zeros(count, np.uint8))
        np.save(out / "labels.npy", np.asarray(labels[:count], np.int64))
        artifacts.write_json(out / "card.json", card)


def _encode(config: VariantConfig) -> None:
    """Codes of every resolution."""
    for resolution in config.resolutions:
        encode.run(config, resolution)


def _caption(config: VariantConfig) -> None:
    """Captions for labels of images of every resolution."""
    for resolution in config.resolutions:
        caption.run(config, resolution)


_STEPS = {
    "clip": clip.run,
    "scorer": scorer.run,
    "caption": _caption,
    "autoencoder": autoencoder.run,
    "encode": _encode,
    "teacher": teacher.run,
    "invert": invert.run,
    "pair_randomly": pair_randomly,
    "distill": distill.run,
    "grow": _grow,
    "grow_each": _grow_each,
    "cascade": _cascade,
}
