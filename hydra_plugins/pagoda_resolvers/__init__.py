"""Resolvers that ``experiments/compose.yaml`` uses; Hydra imports every ``hydra_plugins`` package.

``suite.resolutions`` and ``suite.growth`` compute the derived lists of ``params.yaml`` with the
functions that check them when it is read, so that the two cannot disagree.
"""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf

from pagoda.config import derive_growth, derive_resolutions


def _resolutions(base_res: int, target_res: int) -> ListConfig:
    return OmegaConf.create(derive_resolutions(base_res, target_res))


def _growth(base_res: int, target_res: int) -> DictConfig:
    return OmegaConf.create(derive_growth(base_res, target_res))


OmegaConf.register_new_resolver("suite.resolutions", _resolutions, replace=True)
OmegaConf.register_new_resolver("suite.growth", _growth, replace=True)
