"""A pipeline of diffusers in a folder: its parts found, checked and opened.

Weights are read from safetensors only and nothing else of a folder is run: classes are diffusers'
and transformers' own, each named here. Files that could hold code (``.bin``, ``.ckpt``) are left
closed; configurations that name code of their own are refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pagoda import hub
from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError, denied, first_line
from pagoda.extras import package
from pagoda.provenance import INDEX
from pagoda.weight_files import some

PIPELINES = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline", "IFPipeline")
PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "scheduler": (
        "DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LCMScheduler",
        "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
    ),
    "text_encoder": ("CLIPTextModel", "T5EncoderModel"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast"),
}  # fmt: skip
"""Parts that are read, and the classes of each."""
_FOREIGN = "auto_map", "quantization_config"  # keys of configurations that bring code or programs
_PICKLES = "*.bin", "*.ckpt", "*.pt", "*.pth"


class Folder:
    """A folder with ``model_index.json`` and a folder a part.

    Attributes:
        path: where it is.
        pipeline: one of :data:`PIPELINES`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / INDEX).is_file():
            raise PagodaError(
                f"{path} is no pipeline of diffusers: it has no {INDEX}; give the folder that "
                "'save_pretrained' wrote or 'hf download' made"
            )
        self._index = _json(path / INDEX)
        self.pipeline = self._index.get("_class_name")
        if self.pipeline not in PIPELINES:
            raise PagodaError(f"{path} is a {self.pipeline!r}; pagoda reads {', '.join(PIPELINES)}")

    def kind(self, part: str) -> str | None:
        """The class of a part, as the index names it; None: the pipeline is without it.

        Raises:
            PagodaError: it is none of :data:`PARTS`.
        """
        entry = self._index.get(part)
        name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if name is not None and name not in PARTS[part]:
            known = ", ".join(PARTS[part])
            raise PagodaError(f"the {part} of {self.path} is a {name!r}; pagoda reads {known}")
        return name

    def part(self, part: str) -> Path:
        """The folder of a part.

        Raises:
            PagodaError: it is not there.
        """
        folder = self.path / part
        if self.kind(part) is None or not folder.is_dir():
            raise PagodaError(f"{self.path} is without {part}/, {self._hint(part)}")
        return folder

    def network(self, part: str) -> nn.Module:
        """A network in float32, frozen, in eval mode, every weight from the folder's files.

        Raises:
            PagodaError: one line: a file is missing or damaged, weights are missing, have another
                shape or are not finite, or its configuration names code.
        """
        folder, name = self.part(part), self.kind(part)
        config = _json(self._file(part, "config.json"))
        if foreign := [key for key in _FOREIGN if config.get(key)]:
            raise PagodaError(
                f"{folder}/config.json has {foreign[0]}, which pagoda does not follow"
            )
        variant = self._variant(part)
        own = name in ("CLIPTextModel", "T5EncoderModel")
        library: Any = _library("transformers" if own else "diffusers")
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True,
                                   "variant": variant, "output_loading_info": True}  # fmt: skip
        if own:  # eager: a configuration cannot name an implementation to be fetched
            options |= {"dtype": torch.float32, "attn_implementation": "eager"}
        else:
            options |= {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        try:
            with _quiet(library):
                network, info = getattr(library, str(name)).from_pretrained(folder, **options)
        except Exception as error:  # whatever a damaged file makes of the library
            why = first_line(error)
            raise PagodaError(f"{folder} makes no {name} ({why}); get it again") from error
        wrong = [*info["missing_keys"], *info["mismatched_keys"]]
        wrong += [] if own else info["unexpected_keys"]  # encoders come with heads of their own
        if wrong:
            names = some(map(str, wrong))
            raise PagodaError(
                f"the weights in {folder} are not those of its config.json ({names}); get it again"
            )
        if not all(bool(p.isfinite().all()) for p in network.parameters()):
            raise PagodaError(f"{folder} holds NaN or infinity as weights; get it again")
        return network.eval().requires_grad_(False)

    def scheduler(self) -> Any:
        """diffusers' scheduler: noise levels, what the network predicts, limits of its images."""
        folder, name = self.part("scheduler"), self.kind("scheduler")
        self._file("scheduler", "scheduler_config.json")
        library = _library("diffusers")
        try:
            return getattr(library, str(name)).from_pretrained(folder, local_files_only=True)
        except Exception as error:
            why = first_line(error)
            raise PagodaError(f"{folder} makes no {name} ({why}); get it again") from error

    def tokenizer(self) -> Any:
        """The tokenizer of transformers.

        Raises:
            PagodaError: one line: its files are missing or damaged.
        """
        folder, name = self.part("tokenizer"), str(self.kind("tokenizer"))
        if not any(
            (folder / f).is_file() for f in ("tokenizer.json", "vocab.json", "spiece.model")
        ):
            raise PagodaError(
                f"{folder} has none of tokenizer.json, vocab.json (CLIP) and spiece.model (T5), "
                f"{self._hint('tokenizer')}"
            )
        library = _library("transformers")
        try:
            kind = getattr(library, name.removesuffix("Fast"))
            return kind.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            why = first_line(error)
            raise PagodaError(f"{folder} makes no {name} ({why}); get it again") from error

    def fingerprint(self) -> str:
        """SHA-256 over index, configurations and the weights that make images."""
        files = [self.path / INDEX]
        for part in ("unet", "vae", "scheduler"):
            if self.kind(part):
                kept = sorted(self.part(part).glob("*.json"))
                files += [*kept, *(f for f in sorted(self.part(part).glob("*.safetensors")))]
        return digest({str(f.relative_to(self.path)): sha256(f) for f in files})

    def _file(self, part: str, name: str) -> Path:
        if not (file := self.part(part) / name).is_file():
            raise PagodaError(f"there is no {file}, {self._hint(part)}")
        return file

    def _variant(self, part: str) -> str | None:
        """Which of the files of weights is read: the plain one, else ``fp16``.

        Raises:
            PagodaError: there are no safetensors, or an index names something else.
        """
        folder = self.part(part)
        names = [f.name for f in sorted(folder.glob("*.safetensors"))]
        if not names:
            pickles = [f.name for kind in _PICKLES for f in sorted(folder.glob(kind))]
            stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
            if pickles:
                raise PagodaError(
                    f"{folder} holds {pickles[0]} and no .safetensors; a pickle can run code, so "
                    "it is not read: get the safetensors of the same weights, or convert them "
                    "where you trust the file (save_pretrained)"
                )
            raise PagodaError(f"there is no {folder}/{stem}.safetensors, {self._hint(part)}")
        for index in folder.glob("*.safetensors.index*.json"):
            named = set(map(str, dict(_json(index).get("weight_map", {})).values()))
            if strange := sorted(n for n in named if n not in names):
                raise PagodaError(f"{index} names {strange[0]}, which is no safetensors file there")
        if (folder / "adapter_config.json").exists():
            raise PagodaError(f"{folder} holds an adapter, which pagoda does not read; merge it")
        return None if any(".fp16" not in name for name in names) else "fp16"

    def _hint(self, part: str) -> str:
        hint = f"which the pipeline needs; 'hf download OWNER/NAME --include \"{part}/*\"' gets it"
        if part in ("text_encoder", "tokenizer"):
            hint = hint.replace("the pipeline needs", "prompts need")
            hint += ", or give embeddings of the prompts, (n, l, d), in their place"
        return hint


def find(source: str) -> Path:
    """The folder of a folder's name or of ``owner/name``, fetched where it is the hub's.

    Raises:
        PagodaError: one line: there is none, and the hub does not give it.
    """
    if not hub.is_name(source):
        return Path(source)
    parts = [f"{part}/*.{end}" for part in PARTS for end in ("json", "txt", "model", "safetensors")]
    return hub.fetch_files(source, INDEX, [INDEX, *parts], ["*.fp16*", "*.non_ema*"])


def _library(name: str) -> Any:
    """diffusers or transformers."""
    return package(name, "diffusers", "a pipeline of diffusers needs")


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """What a library logs is of no use beside our own check of the weights."""
    logging = library.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise denied(error) from error
    except (OSError, ValueError, RecursionError) as error:
        raise PagodaError(f"{file} cannot be read as JSON ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise PagodaError(f"{file} holds a {type(found).__name__}, expected names and values")
    return found
