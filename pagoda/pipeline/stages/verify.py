"""The ratio network of ``class_ratio`` as a verifier: the best of N samples by its log-ratio.

Of every sample N candidates are drawn, of one class, and the one with the highest log r is kept,
r the learned ratio of real to generated density, its logarithm averaged over noise levels. A
control takes one of the N at random. Selection can raise fidelity and lower variety, so precision
and recall stand beside the distance. That the ratio may serve so is the claim of arXiv 2502.08005's
abstract; how, and at which levels, is our choice.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pagoda import distributed
from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.revision import code_revision
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_float
from pagoda.diffusion.edm import ramp
from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import evaluate
from pagoda.evaluation.features.base import Extractor
from pagoda.evaluation.results import check_out, write_results
from pagoda.evaluation.samplers import Draws, Sampler, one_step
from pagoda.evaluation.streaming import even_batch
from pagoda.methods.class_ratio import RATIO_FILE
from pagoda.networks.autoencoder import BESIDE
from pagoda.networks.encoder_logit import EncoderLogit
from pagoda.networks.unet import UNetSpec, UNetTrunk
from pagoda.pipeline.stages.aligned import alignment_of
from pagoda.pipeline.stages.device import device_name, metric_device, pick_device
from pagoda.pipeline.stages.evaluate import open_evaluators, open_inputs, settings_of
from pagoda.pipeline.stages.extractors import metrics_of, open_extractors
from pagoda.pipeline.stages.progress import track
from pagoda.rows import Row, to_json
from pagoda.tensors import read_tensors
from pagoda.weight_files import fitted, positive

METRICS = ("fd", "precision", "recall")
LEVELS = 8  # noise levels of a mean log-ratio, in the middle of equal parts of the ramp

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""uint8 images (n, 3, r, r), their classes (n,) and latents' indices (n,) -> (n,), best highest."""


def scored(sampler: Sampler, count: int, score: Score) -> np.ndarray:
    """Scores (n, count) of ``count`` candidates of every sample.

    Candidate k of sample i has i's class and the latent of index i + k n: the first is the sample
    itself, and a larger count only adds candidates. Processes of a group share the samples.
    """
    n, batch = len(sampler), sampler.draws.batch
    own = np.arange(n)[distributed.local_rows(n, batch)]
    found = np.empty((len(own), count))
    for k in range(count):
        one = candidate(sampler, np.full(n, k))
        for start in range(0, len(own), batch):
            rows = own[start : start + batch]
            indices, labels = one.which(rows)
            found[start : start + batch, k] = score(one.read(rows), labels, indices)
    return distributed.all_gather_rows(found)


def best_of(sampler: Sampler, scores: np.ndarray) -> Sampler:
    """Of every sample the best candidate by its scores (n, count); of equal ones the first.

    ``nfe`` are the generator's evaluations an image; the score's come on top.
    """
    count = scores.shape[1]
    best = candidate(sampler, scores.argmax(axis=1))
    return dataclasses.replace(best, name=f"best_of_{count}", nfe=count * sampler.nfe)


def candidate(sampler: Sampler, which: np.ndarray) -> Sampler:
    """A sampler of one candidate of every sample, number ``which[i]`` of sample i."""
    n = len(sampler)
    indices, labels = sampler.which(np.arange(n))
    chosen = np.stack([indices + which * n, labels], axis=1)
    return dataclasses.replace(sampler, draws=dataclasses.replace(sampler.draws, chosen=chosen))


def random_of(sampler: Sampler, count: int) -> Sampler:
    """The control: of every sample one of ``count`` candidates, whatever it looks like."""
    drawn = standard_normal(sampler.draws.seed, np.arange(len(sampler)), (count,), "control")
    return dataclasses.replace(candidate(sampler, drawn.argmax(axis=1)), name=f"random_of_{count}")


def verified(generator: Artifact, draws: Draws, counts: Sequence[int]) -> list[Sampler]:
    """``best_of_N`` for every count, by the generator's own ratio, and ``random_of_N`` above 1."""
    sampler = one_step(generator, draws)
    scores = scored(sampler, max(counts), log_ratio(generator, draws))
    found = [best_of(sampler, scores[:, :count]) for count in counts]
    return found + [random_of(sampler, count) for count in counts if count > 1]


def log_ratio(generator: Artifact, draws: Draws) -> Score:
    """log r by the ratio network beside a generator, a mean over :data:`LEVELS` noise levels.

    The noise is a function of (seed, index of the latent, level).

    Raises:
        PagodaError: there is no such network, or its log-ratio is not finite, with the noise level.
    """
    network, facts = load_ratio(generator.path, generator.card())
    network = network.to(draws.device)
    at = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    levels = ramp(at, facts["sigma_high"], facts["sigma_low"], facts["rho"]).tolist()

    @torch.inference_mode()
    def score(images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        total = np.zeros(len(images))
        for start in range(0, len(images), draws.batch):
            rows = slice(start, start + draws.batch)
            x = to_float(torch.from_numpy(images[rows]).to(draws.device))
            y = torch.from_numpy(labels[rows]).to(draws.device)
            for i, sigma in enumerate(levels):
                drawn = standard_normal(draws.seed, indices[rows], images.shape[1:], f"verify-{i}")
                noisy = x + sigma * torch.from_numpy(drawn).to(x)
                logits = network(noisy, x.new_full((len(x),), sigma), y)
                if not logits.isfinite().all():
                    raise PagodaError(
                        f"{generator.path}: the ratio network's log-ratio is not finite at noise "
                        f"level {sigma:.3g}; train it again with a lower ratio.lr"
                    )
                total[rows] += logits.double().cpu().numpy() / LEVELS
        return total

    return score


def run(config: Config, resolution: int, counts: Sequence[int], out: Path) -> None:
    """Measure the best of each count and the random choice of as many; write JSON to ``out``."""
    check_out(out)
    inputs = open_inputs(config, resolution)
    generator, draws = inputs["generator"], draws_of(config)
    sets = {sampler.name: sampler for sampler in verified(generator, draws, counts)}
    about = {"generator": generator.fingerprint, "levels": LEVELS}
    measure(config, resolution, inputs, sets, out, about)


def draws_of(config: Config) -> Draws:
    """The samples that the experiment's evaluation takes."""
    section = config.evaluate
    return Draws(section.seed, section.samples, even_batch(section.batch), pick_device())


def measure(
    config: Config, resolution: int, inputs: dict[str, Artifact], sets: dict[str, Any], out: Path,
    about: dict[str, Any], *, metrics: Sequence[str] = METRICS, intervals: bool = False,
) -> list[Row]:  # fmt: skip
    """Distance, precision and recall of sets of images, shown and written to ``out`` as JSON.

    Args:
        inputs: what :func:`pagoda.pipeline.stages.evaluate.open_inputs` found.
        about: facts beside the rows.
        metrics: keys of what is measured, in the networks that have it.
        intervals: with 95 % intervals over the images, where there are.

    Returns:
        The rows, to the first process.
    """
    section, device = config.evaluate, pick_device()
    extractors = open_extractors(config, inputs["features"], device, section.batch)
    evaluators = [dataclasses.replace(e, metrics=_of(e.extractor, metrics))
                  for e in open_evaluators(config, resolution, inputs, extractors)]  # fmt: skip
    facts = {"seed": section.seed, "resolution": resolution, "base_res": config.base_res,
             "revision": code_revision(), "device": device_name(device)}  # fmt: skip
    alignment = alignment_of(inputs["generator"], sets, device)
    seeing: dict[str, Any] = {} if alignment is None else {"seen": alignment.see}
    with track(sum(map(len, sets.values())), f"measure {resolution}") as bar:
        rows = evaluate(sets, evaluators, settings_of(section, evaluators, sets), facts,
                        intervals=intervals, device=metric_device(device),
                        advance=bar.advance, **seeing)  # fmt: skip
    rows += [] if alignment is None else alignment.rows(facts)
    if not distributed.is_main_process():
        return []
    for row in rows:
        over = "" if row.low is None else f"  [{row.low:.6g}, {row.high:.6g}]"
        sys.stdout.write(f"{row.generator:<14} {row.protocol:<32} {row.number:.6g}{over}\n")
    write_results(out, {"rows": to_json(rows), **about})
    return rows


def _of(extractor: Extractor, wanted: Sequence[str]) -> tuple[str, ...]:
    """Of what is wanted, what a network has."""
    has = metrics_of(extractor)
    return tuple(key for key in wanted if key in has)


def count_list(text: str) -> list[int]:
    """``1,2,4,8`` -> [1, 2, 4, 8].

    Raises:
        PagodaError: for anything but different whole numbers from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts) or len(set(parts)) < len(parts):
        raise PagodaError(f"--counts {text!r}; it must be different whole numbers from 1: 1,2,4,8")
    return [int(part) for part in parts]


def load_ratio(folder: Path, card: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The ratio network beside a generator, and what its card says of it.

    Returns:
        x (n, 3, r, r), sigma (n,), labels (n,) -> log r (n,); and ``sigma_low``, ``sigma_high`` and
        ``rho`` of the noise levels that it learned.

    Raises:
        PagodaError: the generator has none, or weights and card do not belong together.
    """
    file, facts = folder / RATIO_FILE, card.get("ratio")
    if facts is None or not file.is_file():
        raise PagodaError(
            f"{folder} has no ratio network, which the method class_ratio leaves there; train the "
            "generator with method: class_ratio"
        )

    if BESIDE in card:
        raise PagodaError(
            f"{folder} makes codes, and its ratio network judges codes: samples are compared as "
            "images; verify a generator of images"
        )

    def build(facts: dict[str, Any]) -> nn.Module:
        spec = UNetSpec.from_card(facts["unet"])
        return EncoderLogit(UNetTrunk(spec), positive(facts, "sigma_data"))

    known = {key: positive(facts, key) for key in ("sigma_low", "sigma_high", "rho")}
    try:
        return fitted(build, read_tensors(file), facts), known
    except PagodaError as error:
        raise PagodaError(f"{file}: {error}; train it again") from error
