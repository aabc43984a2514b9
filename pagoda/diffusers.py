"""An exported generator as a pipeline of the library diffusers, without any code in its folder.

    >>> from pagoda.diffusers import PagodaPipeline
    >>> pipe = PagodaPipeline.from_pretrained("rings-and-stars")        # or owner/name of the hub
    >>> pipe(class_labels=["ring", "star"], seeds=[0, 0]).images[0].save("ring.png")

``pagoda export --diffusers`` adds ``model_index.json``, which names the classes of this module, to
an artifact: its weights stay the one safetensors file, whose checksums are compared. diffusers
imports no module that a folder names, and asks for ``trust_remote_code`` where code would come from
a file (``custom_pipeline``); what the program itself has imported it takes. So after ``import
pagoda.diffusers``, ``DiffusionPipeline.from_pretrained(FOLDER)`` finds these classes, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagoda import hub, models
from pagoda.artifacts import MANIFEST, write_json
from pagoda.calls import images_a_call
from pagoda.data.pixels import to_uint8
from pagoda.errors import PagodaError
from pagoda.provenance import INDEX, MODELS

try:
    import diffusers
    from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
    from diffusers.utils.torch_utils import randn_tensor
except ImportError as error:
    raise PagodaError(
        f"pagoda.diffusers needs the package diffusers ({error}): 'uv sync --extra diffusers'"
    ) from error

_OUTPUTS = "pil", "np", "pt"


class OneStepNetwork(ModelMixin):  # type: ignore[misc]
    """A one-step generator as a component of pipelines.

    Attributes:
        model: the generator as :func:`pagoda.load` opens it; its network is this module's.
    """

    def __init__(self, model: models.Generator) -> None:
        super().__init__()
        self.network, self.model = model.network, model

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> OneStepNetwork:
        """Open the generator that a folder holds; diffusers calls this.

        Raises:
            PagodaError: one line: it is none, it is damaged, or ``torch_dtype`` is not float32.
        """
        if options.get("torch_dtype") not in (None, torch.float32):
            raise PagodaError(f"torch_dtype = {options['torch_dtype']}; generators run in float32")
        model = models.load(folder, "cpu")
        if not isinstance(model, models.Generator):
            raise PagodaError(f"{folder} is a teacher; a pipeline is made of a generator")
        return cls(model)

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Copy the artifact, bit for bit, to a folder of its own."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        artifact = self.model.artifact
        for name in (MANIFEST, *artifact.manifest["files"]):
            shutil.copyfile(artifact.path / name, Path(folder) / name)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents (n, 3, b, b) ~ N(0, I) and classes (n,) -> images (n, 3, r, r), in [-1, 1]."""
        return self.network(latents, labels)

    def placed(self) -> models.Generator:
        """The generator, told where its network is now.

        Raises:
            PagodaError: it was made another type than float32.
        """
        if self.dtype != torch.float32:
            raise PagodaError(f"the pipeline was made {self.dtype}; generators run in float32")
        if self.model.device != self.device:
            self.model.device = self.device
            self.model.batch = images_a_call(self.device)
        return self.model


class PagodaPipeline(DiffusionPipeline):  # type: ignore[misc]
    """One-step sampling: classes and seeds in, images out, one evaluation of the network."""

    def __init__(self, network: OneStepNetwork) -> None:
        super().__init__()
        self.register_modules(network=network)

    @classmethod
    def download(cls, name: str, **_: Any) -> Path:
        """Fetch a pipeline of the hub: the files that its manifest lists, compared with it."""
        return hub.fetch(name, MODELS)

    @torch.no_grad()
    def __call__(
        self, class_labels: models.Classes, seeds: int | Iterable[int] | None = None, *,
        latents: Tensor | None = None, generator: Any = None, truncation: float | None = None,
        output_type: str = "pil", return_dict: bool = True,
    ) -> Any:  # fmt: skip
        """Image i of class i and seed i; one class or one seed is that of all.

        Args:
            class_labels: by number or name.
            seeds: whole numbers; the images are those of :meth:`pagoda.models.Generator.sample`,
                bit for bit. None: 0, 1, ...
            latents: (n, 3, b, b), standard normal, instead of seeds.
            generator: torch's, one or one an image, that latents are drawn with instead.
            truncation: of the latents of seeds, as in ``sample``.
            output_type: ``pil``, ``np`` (n, r, r, 3) or ``pt`` (n, 3, r, r), both in [0, 1].
            return_dict: whether in diffusers' ``ImagePipelineOutput``, otherwise in a tuple.

        Raises:
            PagodaError: an unknown class, seeds and classes of different numbers, another type of
                output.
        """
        if output_type not in _OUTPUTS:
            raise PagodaError(f"output_type = {output_type!r}; it is one of {', '.join(_OUTPUTS)}")
        if sum(given is not None for given in (seeds, latents, generator)) > 1:
            raise PagodaError("seeds, latents and generator say the same thing; give one of them")
        model: models.Generator = self.network.placed()
        labels = model.numbers(class_labels)
        if latents is None and generator is None:
            pixels = _of_seeds(model, labels, seeds, truncation)
        else:
            shape = len(labels), *model.latent_shape
            z = randn_tensor(shape, generator, model.device) if latents is None else latents
            y = torch.tensor(_as_many(labels, len(z)))
            calls = zip(z.split(model.batch), y.split(model.batch), strict=True)
            pixels = to_uint8(torch.cat([model(*call) for call in calls])).cpu().numpy()
        images = _as(output_type, pixels)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def _of_seeds(
    model: models.Generator, labels: list[int], seeds: int | Iterable[int] | None,
    truncation: float | None,
) -> np.ndarray:  # fmt: skip
    """uint8 (n, 3, r, r): image i of label i and seed i."""
    given = range(len(labels)) if seeds is None else seeds
    draws = model.draws(labels, given, truncation)  # every seed in every class
    assert draws.chosen is not None
    wanted = draws.chosen[: len(draws.chosen) // len(labels), 0].tolist()
    n = max(len(wanted), len(labels))
    chosen = np.array([_as_many(wanted, n), _as_many(labels, n)]).T
    return model.sampler(replace(draws, n=n, chosen=chosen)).read(np.arange(n))


def _as_many(values: list[int], n: int) -> list[int]:
    """One value for all, or one each.

    Raises:
        PagodaError: they are neither.
    """
    if len(values) not in (1, n):
        raise PagodaError(f"{len(values)} do not go with {n}; give a class and a seed an image")
    return values * n if len(values) == 1 else values


def _as(output_type: str, pixels: np.ndarray) -> Any:
    if output_type == "pt":
        return torch.from_numpy(pixels).float() / 255
    hwc = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return [Image.fromarray(x) for x in hwc] if output_type == "pil" else np.float32(hwc) / 255


def write_index(folder: Path) -> None:
    """Write ``model_index.json``, by which diffusers knows a pipeline."""
    network = [OneStepNetwork.__module__, OneStepNetwork.__name__]
    about = {"_class_name": PagodaPipeline.__name__, "_diffusers_version": diffusers.__version__}
    write_json(folder / INDEX, about | {"network": network})


def same_images(folder: Path, model: models.Generator) -> bool:
    """Whether diffusers opens a folder and makes a generator's images of it, bit for bit."""
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    finally:
        diffusers.utils.logging.enable_progress_bar()
    classes, seeds = model.numbers()[:2], [0, 1]
    pairs = [y for y in classes for _ in seeds], seeds * len(classes)
    made = [np.asarray(image) for image in pipe(*pairs).images]
    return np.array_equal(np.stack(made).transpose(0, 3, 1, 2), model.sample(classes, seeds))


diffusers.PagodaPipeline = PagodaPipeline  # where DiffusionPipeline looks a class up by its name
