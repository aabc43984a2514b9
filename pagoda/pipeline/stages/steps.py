"""One and two evaluations a sample, for generators whose network knows every noise level."""

from __future__ import annotations

from pathlib import Path

from pagoda.config import Config
from pagoda.errors import PagodaError
from pagoda.evaluation.results import check_out
from pagoda.evaluation.samplers import one_step
from pagoda.evaluation.two_steps import two_steps
from pagoda.pipeline.stages.evaluate import open_inputs
from pagoda.pipeline.stages.verify import draws_of, measure


def run(config: Config, sigma: float, out: Path) -> None:
    """Measure both at the base resolution, the second from level ``sigma``; write JSON to ``out``.

    Raises:
        PagodaError: the generator makes images in one step alone, or the level is out of range.
    """
    check_out(out)
    low, high = config.diffusion.sigma_min, config.diffusion.sigma_max
    if not low < sigma < high:
        raise PagodaError(f"--sigma {sigma:g}; it must be between {low:g} and {high:g}")
    inputs = open_inputs(config, config.base_res)
    generator, draws = inputs["base"], draws_of(config)
    made = one_step(generator, draws, "student"), two_steps(generator, draws, low, sigma)
    about = {"generator": generator.fingerprint, "sigma": sigma}
    sets = {sampler.name: sampler for sampler in made}
    measure(config, config.base_res, inputs, sets, out, about)
