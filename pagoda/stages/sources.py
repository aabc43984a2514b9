"""The images that ``params.yaml`` asks for."""

from __future__ import annotations

from pathlib import Path

from pagoda.config import Config
from pagoda.data.base import ImageSource
from pagoda.data.embedded import SEED
from pagoda.data.sources import open_source
from pagoda.stages.root import project_root


def open_split(config: Config, split: str) -> ImageSource:
    """Open one split of the experiment's images.

    A relative path that is not here is looked for in the project's root, and torchvision downloads
    to ``data/`` there: queued experiments run in copies of the project, which hold no data.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    data = config.data
    path = data.path
    if data.source == "torchvision":
        path = str(project_root() / (path or "data"))
    elif path is not None and not Path(path).exists() and (project_root() / path).exists():
        path = str(project_root() / path)
    hub = data.hub
    if hub is not None and data.source == "hub" and (project_root() / hub).exists():
        hub = str(project_root() / hub)
    return open_source(
        data.source, split=split, path=path, hub=hub, num_classes=data.num_classes,
        limit=getattr(data, f"{split}_images"), render_res=data.render_res, seed=SEED,
        test_share=data.test_share, exif=data.exif,
    )  # fmt: skip
