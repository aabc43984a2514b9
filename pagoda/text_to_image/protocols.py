"""How text-to-image images are scored: captions, real images, crop and resize, all in the name.

FID on COCO of one model differs by several points from paper to paper, because captions, real
images, their number, cutting and feature network differ. So a row's protocol says all of them:
``fid_clean_30k_captions_val2014_1a2b3c4d_real_val2014_40504_9f8e7d6c_lanczos_torchvision256``.

Crops of two evaluators differ where the longer side exceeds the shorter by an odd number. Those of
EDM and StyleGAN-T leave the odd pixel at the right (``lanczos``); torchvision's, which GigaGAN's
and DMD2's evaluators take, rounds half a pixel to even (``lanczos_torchvision``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.artifacts import digest
from pagoda.data import resize
from pagoda.data.caption_files import captions_of_coco
from pagoda.errors import PagodaError
from pagoda.evaluation.files import FileImages
from pagoda.evaluation.pairs import in_order
from pagoda.evaluation.samplers import Sampler
from pagoda.evaluation.streaming import Images, subset
from pagoda.rows import Row, read_text

COCO_IMAGES = 30_000
"""Captions that ``FID-30K`` is measured with."""
TORCHVISION = "lanczos_torchvision"


@dataclass(frozen=True)
class TextProtocol:
    """What a published protocol does with images and captions.

    Attributes:
        crop: recipe of :mod:`pagoda.data.resize`, or :data:`TORCHVISION`.
        side: what images are cut to.
        extractor: of the FID.
        prefix: of captions, for the CLIP score.
        about: what else it says, in a line.
    """

    crop: str
    side: int
    extractor: str
    prefix: str
    about: str


PROTOCOLS = {
    "gigagan": TextProtocol(
        TORCHVISION, 256, "inception:clean", "A photo depicts ",
        "GigaGAN's and DMD2's: real images are the whole of val2014; CLIP is OpenAI's ViT-B/32 "
        "(open_clip: ViT-B-32-quickgelu), or ViT-g-14 of LAION-2B",
    ),
    "stylegan_t": TextProtocol(
        "lanczos", 256, "inception:legacy_tensorflow", "",
        "StyleGAN-T's fid30k_coco256 and cs10k_coco, which scores 30,000 images too; CLIP is "
        "ViT-g-14",
    ),
}  # fmt: skip


def _torchvision(image: Image.Image, resolution: int) -> Image.Image:
    """The central square as torchvision's ``center_crop`` takes it, then Lanczos."""
    side = min(image.size)
    left, top = (round((have - side) / 2) for have in image.size)  # half to even
    square = image.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)


resize.RECIPES[TORCHVISION] = _torchvision  # of scoring; training data are not cut so


@dataclass(frozen=True)
class Captions:
    """Captions in the order of the images.

    Attributes:
        name: of their file, without its ending.
        texts: one an image.
    """

    name: str
    texts: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the texts in their order, whatever file they came from."""
        return digest(list(self.texts))

    def first(self, n: int) -> Captions:
        """The first ``n``."""
        return replace(self, texts=self.texts[:n])


def read_captions(file: Path, n: int | None = None) -> Captions:
    """Captions of a file: a line each, or of COCO's JSON.

    Of COCO's there is one an image, that of the lowest ``id``, of a fixed random choice of ``n``
    images (None: 30,000, or all where there are fewer), in the order of the images' ``id``.

    Raises:
        PagodaError: one line: it is no such file, it has fewer, or a line is empty.
    """
    texts = _of_coco(file, n) if file.suffix == ".json" else read_text(file).splitlines()
    texts = [" ".join(text.split()) for text in texts]
    if empty := [i for i, text in enumerate(texts, 1) if not text]:
        raise PagodaError(f"{file}, line {empty[0]} is empty; every image needs a caption")
    if len(texts) < max(2, n or 0):
        raise PagodaError(f"{file} has {len(texts)} captions, {n or 2} are needed")
    return Captions(_slug(file.stem), tuple(texts[:n]))


def _of_coco(file: Path, n: int | None) -> list[str]:
    try:
        listed = sorted(json.loads(read_text(file))["images"], key=lambda image: image["id"])
        names = [Path(image["file_name"]).name for image in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PagodaError(
            f"{file} is no file of COCO's captions, which is JSON with 'images' (id, file_name) "
            "and 'annotations' (id, image_id, caption), such as captions_val2014.json"
        ) from error
    if n is not None and n > len(names):
        raise PagodaError(f"{file} has {len(names)} images, {n} captions are needed")
    chosen = subset(len(names), COCO_IMAGES if n is None else n)
    return captions_of_coco(file, [names[i] for i in chosen])


class Prompted:
    """Images that a model makes of captions, image i of caption i and latent i of a seed.

    Args:
        where: what messages call it.
        texts: the captions.
        made: captions and their numbers -> a sampler of one image each.
        seed: of the latents.
    """

    def __init__(
        self, where: str, texts: Sequence[str],
        made: Callable[[Sequence[str], np.ndarray], Sampler], seed: int = 0,
    ) -> None:  # fmt: skip
        self.where, self._texts, self._made, self.seed = where, texts, made, seed
        first = made(texts[:1], np.arange(1))
        self.resolution, self.nfe, self.base_res = first.resolution, first.nfe, first.base_res
        self.fingerprint, self.parameters = first.fingerprint, first.parameters

    def __len__(self) -> int:
        return len(self._texts)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r)."""
        return self._made([self._texts[i] for i in rows], rows).read(np.arange(len(rows)))

    def card(self) -> dict[str, Any]:
        """Fingerprint of the weights, the seed; side of the images and parameters of the model."""
        return {"generator": self.fingerprint, "seed": self.seed, "n": len(self),
                "resolution": self.resolution[0], "parameters": self.parameters}  # fmt: skip


class Captioned:
    """Images in the order of their captions, cut as the protocol says.

    Files go with captions in the order of the numbers in their names (``2.png`` before
    ``10.png``), images of an array in its order.

    Args:
        images: as many as captions; files are cut already.
        captions: one each.
        crop: recipe; None leaves images as they are.
        side: what they are cut to.

    Raises:
        PagodaError: another number of images than of captions.
    """

    def __init__(
        self, images: Images, captions: Captions, crop: str | None = None, side: int | None = None
    ) -> None:
        if len(images) != len(captions.texts):
            raise PagodaError(
                f"{images.where} has {len(images)} images, and there are {len(captions.texts)} "
                f"captions in {captions.name}; they must be as many, image i of caption i"
            )
        self._images, self.captions, self.where = images, captions, images.where
        self._order = in_order(images)
        self._cut = (crop, side) if crop and side and not isinstance(images, FileImages) else None
        self.resolution = (side, side) if self._cut and side else images.resolution
        self.exif: bool | None = getattr(images, "exif", None)
        self.nfe: int | None = getattr(images, "nfe", None)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, h, w) of captions ``rows``."""
        images = self._images.read(self._order[rows])
        if self._cut is None or images.shape[2:] == self.resolution:
            return images
        recipe, side = self._cut
        pictures = (Image.fromarray(image.transpose(1, 2, 0)) for image in images)
        return np.stack([resize.cut(p, side, recipe).transpose(2, 0, 1) for p in pictures])

    def card(self) -> dict[str, Any]:
        """That of the images."""
        return self._images.card()


def named(
    rows: Sequence[Row], captions: Captions, cut: str, reference: Mapping[str, Any], real: str
) -> list[Row]:
    """Rows whose protocol says captions, real images, and how all images were cut.

    Args:
        rows: of metrics.
        captions: of the images.
        cut: recipe and side.
        reference: card of the reference.
        real: name of the real images.
    """
    n, images = reference["n"], reference["images"]
    about = f"real_{_slug(real)}_{n or 'n-unknown'}_{str(images or 'unknown')[:8]}"
    told = f"captions_{captions.name}_{captions.fingerprint[:8]}"
    return [replace(row, protocol=f"{row.protocol}_{told}_{about}_{cut}") for row in rows]


def named_score(
    rows: Sequence[Row], captions: Captions, cut: str, clip: str, prefix: str, tokens: int
) -> list[Row]:
    """Rows of CLIP scores: the model with its weights, prefix, tokens, captions and cutting.

    Args:
        rows: of scores.
        captions: of the images.
        cut: recipe and side.
        clip: model and start of its weights' SHA-256.
        prefix: of the captions; empty: none.
        tokens: most of a caption.
    """
    before = f"prefix_{_slug(prefix.strip())}" if prefix.strip() else "no_prefix"
    about = f"{clip}_{before}_{tokens}tokens_captions_{captions.name}_{captions.fingerprint[:8]}"
    return [replace(row, protocol=f"{row.protocol}_{about}_{cut}") for row in rows]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_") or "unnamed"
