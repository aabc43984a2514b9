"""Text encoders that others trained, by name, as readers of captions.

=======================  ===========================================================================
``clip:FOLDER``          CLIP's text encoder and tokenizer, of transformers
``t5:FOLDER``            T5's encoder and tokenizer, of transformers
``open_clip:NAME:FILE``  one of open_clip's models by name, its weights as safetensors; the
                         tokenizer comes with the package
=======================  ===========================================================================

A folder is one that ``save_pretrained`` wrote, a pipeline of diffusers, or the hub's
``OWNER/NAME``. Weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pagoda import hub
from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError
from pagoda.evaluation.alignment import Reader
from pagoda.extras import package
from pagoda.networks.captions import CAPTIONS, CaptionStates
from pagoda.text_to_image.folder import Folder
from pagoda.text_to_image.open_clip_models import open_model
from pagoda.text_to_image.prompts import TextEncoder

_Read = tuple[Tensor, Tensor, Tensor, list[str]]
"""Tokens (1, l, d), pooled (1, p), which are there (1, l); a line if the caption was cut."""

_CLASSES = {
    "clip": {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"},
    "t5": {"text_encoder": "T5EncoderModel", "tokenizer": "T5Tokenizer"},
}


class EncoderFolder(Folder):
    """A text encoder and its tokenizer, in one folder or in the two of a pipeline.

    Args:
        path: where they are.
        kind: ``clip`` or ``t5``.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self._kind = path, kind
        if not path.is_dir():
            raise PagodaError(
                f"there is no text encoder {path}; give a folder with config.json, tokenizer and "
                "safetensors ('hf download OWNER/NAME' makes one)"
            )

    def kind(self, part: str) -> str | None:
        """The class of a part."""
        return _CLASSES[self._kind].get(part)

    def part(self, part: str) -> Path:
        """The folder of a part."""
        return self.path / part if (self.path / part).is_dir() else self.path


def open_reader(name: str, context: int) -> tuple[Reader, str]:
    """What reads captions, and a fingerprint of its weights.

    Args:
        name: as ``text.encoder`` has it.
        context: tokens of a caption that are read.

    Raises:
        PagodaError: one line: which file is missing, damaged, or not of that encoder.
    """
    kind, _, rest = name.partition(":")
    if kind == "open_clip":
        return _of_open_clip(rest, context)
    if kind not in _CLASSES or not rest:
        raise PagodaError(
            f"text encoder {name!r}; it must be clip:FOLDER, t5:FOLDER or open_clip:NAME:FILE"
        )
    path = Path(rest)
    if hub.is_name(rest):
        wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
        path = hub.fetch_files(rest, "config.json", wanted, ["*.fp16*", "*.non_ema*"])
    folder = EncoderFolder(path, kind)
    encoder = TextEncoder(folder.tokenizer(), folder.network("text_encoder"), context, kind == "t5")
    files = sorted(folder.part("text_encoder").glob("*.safetensors"))
    return _reader(encoder, kind), digest([sha256(f) for f in files])


def reader_of(card: Mapping[str, Any]) -> Reader | None:
    """What reads prompts for a model that is told captions; None: the CLIP beside it does.

    Args:
        card: of the model.

    Raises:
        PagodaError: as of :func:`open_reader`.
    """
    encoder = (card.get(CAPTIONS) or {}).get("encoder", {})
    if "name" not in encoder:
        return None
    return open_reader(str(encoder["name"]), int(encoder["context"]))[0]


def _reader(encoder: TextEncoder, kind: str) -> Reader:
    def read(i: int, caption: str) -> _Read:
        ids, mask, lines = encoder.tokens(i, caption)
        found = encoder.network(ids, attention_mask=mask)
        states, there = found.last_hidden_state.float(), mask.bool()
        mean = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        return states, found.pooler_output.float() if kind == "clip" else mean, there, lines

    return partial(_read_all, read)


def _read_all(read: Callable[[int, str], _Read], captions: Sequence[str]) -> CaptionStates:
    """Captions one at a time: equal bits whatever stands beside them."""
    with torch.no_grad():
        parts = [read(i, caption) for i, caption in enumerate(captions)]
    return CaptionStates(
        torch.cat([_unit(part[0]) for part in parts]),
        torch.cat([_unit(part[1]) for part in parts]),
        torch.cat([part[2] for part in parts]),
        tuple(line for part in parts for line in part[3]),
    )


def _of_open_clip(rest: str, context: int) -> tuple[Reader, str]:
    model, name, config, fingerprint = open_model(rest)
    open_clip = package("open_clip", "text", f"open_clip:{rest} needs")
    text = getattr(model, "text", None) or model
    tokenizer: Any = open_clip.get_tokenizer(name)
    length = min(context, int(config["text_cfg"].get("context_length", context)))

    def read(i: int, caption: str) -> _Read:
        n = len(tokenizer.encode(caption)) + 2
        cut = [f"caption {i + 1} has {n} tokens and {length} of them are read"] * (n > length)
        ids = tokenizer([caption], context_length=length)
        h = text.token_embedding(ids) + text.positional_embedding[:length]
        mask = text.attn_mask
        h = text.transformer(h, attn_mask=None if mask is None else mask[:length, :length])
        h, end = text.ln_final(h), ids.argmax(1)
        there = torch.arange(length)[None] <= end[:, None]
        return h, h[:, end[0]] @ text.text_projection, there, cut

    return partial(_read_all, read), fingerprint


def _unit(x: Tensor) -> Tensor:
    """With a mean square of 1 over the last axis, as the trained CLIP's are read."""
    return x * x.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()
