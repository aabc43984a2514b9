"""What comes before every generator, run for real."""

from __future__ import annotations

from pagoda.config import Config
from pagoda.pipeline.stages import downsample, features, reference


def prepare(config: Config) -> None:
    """Images, feature network and reference."""
    for resolution in config.resolutions:
        downsample.run(config, resolution)
    features.run(config)
    for resolution in config.resolutions:
        reference.run(config, resolution)
