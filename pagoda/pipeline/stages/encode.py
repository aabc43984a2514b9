"""Images of one resolution to the codes that a latent-space experiment models."""

from __future__ import annotations

import shutil

import numpy as np
import torch
from torch.nn import functional as F

from pagoda import artifacts, distributed
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.data.shards import ShardedArray, shard_names
from pagoda.data.store import SHARD_BYTES, open_images
from pagoda.kinds import CARD_FILE
from pagoda.networks.autoencoder import BESIDE, BESIDE_FILE, Autoencoder, load_autoencoder
from pagoda.outputs import link_or_copy
from pagoda.pipeline.stages.decoder import CALL, encoded
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.filled import Filled, history_of
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.scratch import stage_scratch
from pagoda.tensors import save_tensors

_BATCH = 4 * CALL  # images that count as done together


def run(config: Config, resolution: int) -> None:
    """Encode the training images and their mirror images and write the ``codes`` artifact.

    With ``autoencoder.pyramid: codes`` those below the target resolution are means of the target's
    codes over squares; otherwise each resolution's images are encoded.

    Several processes share the work, and a run that was stopped goes on after the last finished
    batch, as inversion does; the codes are the same bits.
    """
    with distributed.group():
        paths, device = Paths(config), pick_device()
        out = paths.codes(resolution)
        artifacts.check_out(out, "codes")
        autoencoder, pyramid = open_made(config, "autoencoder"), config.autoencoder.pyramid
        of = config.target_res if pyramid == "codes" else resolution
        data = {f"data/{r}": open_made(config, f"data/{r}") for r in sorted({resolution, of})}
        network = autoencoder.network(load_autoencoder).to(device).eval()
        images, side = open_images(data[f"data/{of}"], "train"), resolution // network.factor
        shape = len(images), 2, network.channels, side, side
        inputs = {**data, "autoencoder": autoencoder}
        folder = stage_scratch(f"encode-{resolution}", {}, inputs, of=of, pyramid=pyramid)
        shard = max(1, SHARD_BYTES // (4 * int(np.prod(shape[1:]))))
        store = Filled(folder, "train_images", "float32", shape, shard, _BATCH)

        def make(rows: slice) -> np.ndarray:
            return _codes(network, np.asarray(images[rows]), of // resolution, device)

        history = paths.history(f"encode-{resolution}")
        with history_of(history, folder, 2 * store.finished) as tell:
            store.fill(make, f"encode {resolution}", lambda rows: tell(2 * rows))
        if not distributed.is_main_process():
            return
        here = data[f"data/{resolution}"]
        card = {key: here.card().get(key) for key in ("classes", "recipe", "exif")}
        card |= {
            "resolution": resolution, "factor": network.factor, "channels": network.channels,
            "pyramid": pyramid, **_moments(store.rows),
            BESIDE: autoencoder.card() | {"fingerprint": autoencoder.fingerprint},
        }  # fmt: skip
        of_codes = identity(config, f"codes/{resolution}")
        with artifacts.create(out, "codes", config=of_codes, inputs=inputs) as made:
            np.save(made / "train_labels.npy", np.asarray(here.array("train_labels")))
            save_tensors(made / BESIDE_FILE, autoencoder.weights())
            artifacts.write_json(made / CARD_FILE, card)
            for name in shard_names("train_images", len(images), shard):
                link_or_copy(folder / name, made / name)
        shutil.rmtree(folder)


def _moments(codes: ShardedArray) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel, of images that are not mirrored."""
    sums = np.zeros((2, codes.shape[2]))
    for start in range(0, len(codes), CALL):
        z = codes[start : start + CALL][:, 0].astype(np.float64)
        sums += [(z**k).mean((2, 3)).sum(0) for k in (1, 2)]
    mean, square = sums / len(codes)
    return {"code_mean": mean.tolist(), "code_std": np.sqrt(square - mean**2).tolist()}


def _codes(
    network: Autoencoder, pixels: np.ndarray, factor: int, device: torch.device
) -> np.ndarray:
    """(n, 2, c, h, w): of images and of their mirror images, averaged over ``factor`` squares."""
    both = [encoded(network, np.array(x), device) for x in (pixels, pixels[..., ::-1])]
    return torch.stack([F.avg_pool2d(z, factor) for z in both], 1).numpy()
