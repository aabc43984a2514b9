"""Images of one resolution to the codes that a latent-space experiment models."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn import functional as F

from pagoda import artifacts, distributed
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.data.shards import create_shards
from pagoda.data.store import SHARD_BYTES, open_images
from pagoda.kinds import CARD_FILE
from pagoda.networks.autoencoder import BESIDE, BESIDE_FILE, Autoencoder, load_autoencoder
from pagoda.pipeline.stages.decoder import CALL, encoded
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.progress import track
from pagoda.tensors import save_tensors
from pagoda.training.history import History


def run(config: Config, resolution: int) -> None:
    """Encode the training images and their mirror images and write the ``codes`` artifact.

    With ``autoencoder.pyramid: codes`` those below the target resolution are means of the target's
    codes over squares; otherwise each resolution's images are encoded.
    """
    if not distributed.is_main_process():
        return
    out, device = Paths(config).codes(resolution), pick_device()
    artifacts.check_out(out, "codes")
    autoencoder = open_made(config, "autoencoder")
    of = config.target_res if config.autoencoder.pyramid == "codes" else resolution
    data = {f"data/{r}": open_made(config, f"data/{r}") for r in sorted({resolution, of})}
    network = autoencoder.network(load_autoencoder).to(device).eval()
    images = open_images(data[f"data/{of}"], "train")
    here = data[f"data/{resolution}"]
    side = resolution // network.factor
    shape = len(images), 2, network.channels, side, side
    inputs = {**data, "autoencoder": autoencoder}
    begun = time.monotonic()
    sums = np.zeros((2, network.channels))
    with artifacts.create(out, "codes", config=identity(config, f"codes/{resolution}"),
                          inputs=inputs) as folder:  # fmt: skip
        each = max(1, SHARD_BYTES // (4 * int(np.prod(shape[1:]))))
        stored = create_shards(folder, "train_images", "float32", shape, each)
        with track(len(images), f"encode {resolution}") as bar:
            for start in range(0, len(images), CALL):
                rows = slice(start, min(start + CALL, len(images)))
                codes = _codes(network, np.asarray(images[rows]), of // resolution, device)
                stored[rows] = codes
                sums += [(codes[:, 0].astype(np.float64) ** k).mean((2, 3)).sum(0) for k in (1, 2)]
                bar.advance(len(codes))
        stored.flush(slice(0, len(images)))
        mean, square = sums / len(images)
        np.save(folder / "train_labels.npy", np.asarray(here.array("train_labels")))
        card = {key: here.card().get(key) for key in ("classes", "recipe", "exif")}
        card |= {
            "resolution": resolution, "factor": network.factor, "channels": network.channels,
            "pyramid": config.autoencoder.pyramid,
            BESIDE: autoencoder.card() | {"fingerprint": autoencoder.fingerprint},
            "code_mean": mean.tolist(), "code_std": np.sqrt(square - mean**2).tolist(),
        }  # fmt: skip
        save_tensors(folder / BESIDE_FILE, autoencoder.weights())
        artifacts.write_json(folder / CARD_FILE, card)
    with History(Paths(config).history(f"encode-{resolution}")) as history:
        history.write(images=2 * len(images), step=0, seconds=time.monotonic() - begun)


def _codes(
    network: Autoencoder, pixels: np.ndarray, factor: int, device: torch.device
) -> np.ndarray:
    """(n, 2, c, h, w): of images and of their mirror images, averaged over ``factor`` squares."""
    both = [encoded(network, np.ascontiguousarray(x), device) for x in (pixels, pixels[..., ::-1])]
    return torch.stack([F.avg_pool2d(z, factor) for z in both], 1).numpy()
