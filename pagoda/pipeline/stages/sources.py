"""The images that ``params.yaml`` asks for."""

from __future__ import annotations

from pagoda.config import Config, check_counts
from pagoda.config.root import project_root
from pagoda.data.base import ImageSource
from pagoda.data.embedded import SEED
from pagoda.data.registry import SPLITS, Wanted, open_source


def open_splits(config: Config, where: str = "params.yaml") -> dict[str, ImageSource]:
    """Open both splits of the experiment's images, as many as the experiment needs.

    ``where`` is what messages call the parameters.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    sources = {split: open_split(config, split) for split in SPLITS}
    check_counts(config, {split: len(source) for split, source in sources.items()}, where)
    return sources


def open_split(config: Config, split: str) -> ImageSource:
    """Open one split of the experiment's images.

    What is not here is looked for in the project's root: queued experiments run in copies of the
    project, which hold no data.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    data = config.data
    wanted = Wanted(
        split, data.path, data.hub, data.num_classes, getattr(data, f"{split}_images"),
        data.test_share, data.exif, data.render_res, data.variety, SEED, project_root(),
    )  # fmt: skip
    return open_source(data.source, wanted)
