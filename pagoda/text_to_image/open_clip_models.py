"""CLIPs of open_clip by name, their weights from safetensors: opened, and as what scores images.

The score of a picture and its caption is the cosine of their embeddings (Hessel et al. 2021, arXiv
2104.08718, not times 2.5 or 100). Texts may get a prefix, ``A photo depicts `` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import sha256
from pagoda.data.pixels import to_uint8
from pagoda.errors import PagodaError, first_line
from pagoda.extras import package
from pagoda.tensors import read_tensors


def open_model(text: str, spelled: str = "open_clip:") -> tuple[Any, str, dict[str, Any], str]:
    """A model of open_clip, in eval mode, frozen.

    Args:
        text: ``NAME:FILE``.
        spelled: what users write before it, for messages.

    Returns:
        The model, its name, its configuration, and the SHA-256 of its weights.

    Raises:
        PagodaError: one line: the package or the weights are missing, or do not fit the name.
    """
    open_clip = package("open_clip", "text", f"{spelled}{text} needs")
    name, _, file = text.partition(":")
    if name not in open_clip.list_models():
        few = ", ".join(open_clip.list_models()[:4])
        raise PagodaError(f"open_clip has no model {name!r}; it has {few} ...")
    if not file or not Path(file).is_file():
        raise PagodaError(
            f"there are no weights {file or 'given'} of open_clip's {name}; download "
            f"open_clip_model.safetensors of a repository with that model and name it: "
            f"{spelled}{name}:FILE"
        )
    weights = read_tensors(Path(file))
    config: Any = open_clip.get_model_config(name)
    if any(key.startswith("hf_") for key in config["text_cfg"]) or "timm_model_name" in config:
        raise PagodaError(f"{name} of open_clip has a text encoder of another library; use t5: ...")
    try:
        model: Any = open_clip.create_model(name, pretrained=None, load_weights=False)
        model.load_state_dict(weights)
    except Exception as error:  # whatever a foreign file makes of the library
        raise PagodaError(f"{file} holds no weights of {name} ({first_line(error)})") from error
    return model.eval().requires_grad_(False), name, config, sha256(Path(file))


class ClipScorer(nn.Module):
    """A CLIP with open_clip's own preparation of images, and texts with a prefix.

    Args:
        text: ``NAME:FILE``, as :func:`open_model` takes it.
        prefix: stands before each text.
        context: tokens of a text that are read, start and end among them; a longer one is cut.
        batch: images a call.

    Attributes:
        name: of the model.
        fingerprint: SHA-256 of its weights.

    Raises:
        PagodaError: as of :func:`open_model`; or the model reads fewer tokens.
    """

    def __init__(self, text: str, prefix: str = "", context: int = 77, batch: int = 64) -> None:
        super().__init__()
        self.clip, self.name, config, self.fingerprint = open_model(text, "--clip ")
        most = int(config["text_cfg"].get("context_length", 77))
        if not 3 <= context <= most:
            raise PagodaError(
                f"{context} tokens of a caption: {self.name} reads {most}; 3 to {most}"
            )
        open_clip = package("open_clip", "text", "CLIP scores need")
        prepared = open_clip.transform.PreprocessCfg(**self.clip.visual.preprocess_cfg)
        self._prepare: Any = open_clip.transform.image_transform_v2(prepared, is_train=False)
        self._tokenize: Any = open_clip.get_tokenizer(self.name)
        self.prefix, self.context, self._most, self._batch = prefix, context, most, batch

    def images(self, x: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, embed), of length 1; scored as uint8."""
        pixels = to_uint8(x, "images").cpu().numpy().transpose(0, 2, 3, 1)
        parts = []
        for start in range(0, len(pixels), self._batch):
            part = pixels[start : start + self._batch]
            ready = torch.stack([self._prepare(Image.fromarray(image)) for image in part])
            parts.append(self.clip.encode_image(ready.to(x.device)))
        return F.normalize(torch.cat(parts), dim=-1)

    def tokenizer(self, texts: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
        """Tokens (n, most) of texts with the prefix, cut to ``context``; no lines."""
        ids = self._tokenize([self.prefix + text for text in texts], context_length=self.context)
        return F.pad(ids, (0, self._most - self.context)), ()

    def texts(self, rows: Tensor) -> Tensor:
        """Tokens (n, most) -> (n, embed), of length 1."""
        return F.normalize(self.clip.encode_text(rows), dim=-1)
