"""A small CLIP of captions and images, of open_clip's classes, and the tokenizer of its captions.

The tokenizer is a byte-pair encoding whose merges are learned from the captions, by the package
tokenizers: any text has tokens, words of the captions mostly one each. Image and text encoders are
those of open_clip (Ilharco et al. 2021), with the sizes of the card.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import Artifact
from pagoda.calls import calls_of
from pagoda.errors import PagodaError, first_line
from pagoda.extras import package
from pagoda.networks.captions import CAPTIONS, CAPTIONS_FILE, ENCODER, SCORER, CaptionStates
from pagoda.weight_files import fitted, of_the_card, whole

START, END, PAD = "<start>", "<end>", "<pad>"
SCALE_MOST = 100.0
"""Largest inverse temperature, as in the paper."""
_HEAD = 16  # channels a head of attention
_SHOWN = 40  # characters of a caption in a message
_CALL = 256  # captions a call of the encoder


@dataclass(frozen=True)
class ClipSpec:
    """Sizes of a CLIP, as stored in its card.

    Attributes:
        side: of the images.
        patch: side of a patch of the image encoder.
        width: of both encoders.
        layers: of both encoders.
        embed: width of the space in which images and captions meet.
        context: tokens of a caption, start and end among them.
        vocabulary: number of tokens.
    """

    side: int
    patch: int
    width: int
    layers: int
    embed: int
    context: int
    vocabulary: int


class Tokenizer:
    """Texts to tokens, start and end around them, padded.

    Args:
        text: the tokenizer as the package tokenizers writes it, JSON.
        context: tokens of a text, those of start and end among them.
    """

    def __init__(self, text: str, context: int) -> None:
        self.text, self.context = text, context
        try:
            self._own = _package("tokenizers").Tokenizer.from_str(text)
        except PagodaError:
            raise
        except Exception as error:  # whatever a foreign file makes of the library
            raise PagodaError(f"it holds no tokenizer ({first_line(error)})") from error
        named = {name: self._own.token_to_id(name) for name in (START, END, PAD)}
        if missing := [name for name, number in named.items() if number is None]:
            raise PagodaError(f"its tokenizer is without {missing[0]}")
        self._start, self._end, self._pad = named.values()
        self.size = int(self._own.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
        """Token numbers (n, context), and a line for each text that was cut."""
        rows = torch.full((len(texts), self.context), self._pad)
        cut: list[str] = []
        for i, text in enumerate(texts):
            ids = self._own.encode(text.lower().strip()).ids
            if len(ids) > self.context - 2:
                kept = self._own.decode(ids[: self.context - 2])
                cut.append(
                    f"caption {i + 1} has {len(ids) + 2} tokens and the text encoder reads "
                    f"{self.context}: it is cut after '...{kept[-_SHOWN:]}'"
                )
            ids = [self._start, *ids[: self.context - 2], self._end]
            rows[i, : len(ids)] = torch.tensor(ids)
        return rows, tuple(cut)

    def there(self, rows: Tensor) -> Tensor:
        """(n, context) whether a token is none of the padding."""
        return rows != self._pad


def learn_tokenizer(captions: Iterable[str], size: int) -> str:
    """Byte-pair merges of captions, in lower case: the tokenizer as JSON.

    Args:
        captions: what is learned from.
        size: most tokens; 259 are bytes, start, end and padding.
    """
    library = _package("tokenizers")
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, START, END], show_progress=False,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator((c.lower().strip() for c in captions), trainer)
    return json.dumps(json.loads(made.to_str()), sort_keys=True)


class Clip(nn.Module):
    """Images and captions in one space.

    Args:
        spec: sizes.
        tokenizer: of its captions.
    """

    def __init__(self, spec: ClipSpec, tokenizer: Tokenizer) -> None:
        super().__init__()
        if (tokenizer.size, tokenizer.context) != (spec.vocabulary, spec.context):
            raise PagodaError(
                f"its tokenizer has {tokenizer.size} tokens, its card says {spec.vocabulary}"
            )
        self.spec, self.tokenizer = spec, tokenizer
        model = _package("open_clip").model
        vision = model.CLIPVisionCfg(
            layers=spec.layers, width=spec.width, head_width=_HEAD, patch_size=spec.patch,
            image_size=spec.side,
        )  # fmt: skip
        text = model.CLIPTextCfg(
            context_length=spec.context, vocab_size=spec.vocabulary, width=spec.width,
            heads=max(1, spec.width // _HEAD), layers=spec.layers, pad_id=tokenizer._pad,
            eos_id=tokenizer._end, pool_type="eos",
        )  # fmt: skip
        self.clip: Any = model.CLIP(spec.embed, vision, text)

    def images(self, x: Tensor) -> Tensor:
        """Images (n, 3, r, r) in [-1, 1], resized to the encoder's side -> (n, embed), length 1."""
        side = self.spec.side
        if x.shape[-1] != side:
            x = F.interpolate(x, (side, side), mode="area" if x.shape[-1] > side else "bilinear")
        return F.normalize(self.clip.visual(x), dim=-1)

    def texts(self, rows: Tensor) -> Tensor:
        """Token numbers (n, context) -> (n, embed), of length 1."""
        return F.normalize(self.clip.encode_text(rows), dim=-1)

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, at most :data:`SCALE_MOST`."""
        return self.clip.logit_scale.exp().clamp(max=SCALE_MOST)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> CaptionStates:
        """Captions as a generator is told them; entries of the embeddings have a mean square of 1.

        The encoder is always called with equally many (:func:`pagoda.calls.calls_of`): a caption
        has the same bits whatever stands beside it.
        """
        clip, (rows, cut) = self.clip, self.tokenizer(captions)
        device = clip.positional_embedding.device
        parts: list[tuple[Tensor, Tensor]] = []
        for padded, n in calls_of(np.arange(len(rows)), _CALL):
            full = rows[torch.from_numpy(padded)].to(device)
            h = clip.token_embedding(full) + clip.positional_embedding
            h = clip.ln_final(clip.transformer(h, attn_mask=clip.attn_mask))
            pooled = self.texts(full) * self.spec.embed**0.5
            parts.append((h[:n].float().cpu(), pooled[:n].float().cpu()))
        tokens, found = (torch.cat(p) for p in zip(*parts, strict=True))
        return CaptionStates(tokens, found, self.tokenizer.there(rows), cut)

    def card(self) -> dict[str, Any]:
        """JSON form, from which :func:`build_clip` rebuilds the network."""
        return {"clip": asdict(self.spec), "tokenizer": self.tokenizer.text}

    def forward(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and the tokens of their captions -> both in the common space."""
        return self.images(x), self.texts(rows)


def build_clip(card: dict[str, Any]) -> Clip:
    """A CLIP with fresh random weights from a card."""
    spec = ClipSpec(**card["clip"])
    whole(asdict(spec), *asdict(spec))
    return Clip(spec, Tokenizer(str(card["tokenizer"]), spec.context))


def load_clip(weights: dict[str, Tensor], card: dict[str, Any]) -> Clip:
    """A CLIP from an artifact's weights and card, in eval mode, frozen."""
    return fitted(build_clip, weights, card).requires_grad_(False)


def clip_beside(model: Artifact) -> Clip | None:
    """The CLIP whose text encoder a model was told captions by; None: there is none.

    Args:
        model: a teacher, a generator, or captioned images.

    Raises:
        PagodaError: one line: its weights do not fit its card.
    """
    return _beside(model, ENCODER)


def scorer_beside(model: Artifact) -> Clip | None:
    """The CLIP that scores samples of a model; None: there is none.

    Raises:
        PagodaError: one line: its weights do not fit its card.
    """
    return _beside(model, SCORER)


def clip_for_loss(images: Artifact) -> Clip:
    """The CLIP whose text encoder captions of images were read by, for training to ask.

    Raises:
        PagodaError: one line: there is none, or it is the one that scores samples: whatever a loss
            asks of a network is no measurement of it any more.
    """
    if (found := clip_beside(images)) is None:
        raise PagodaError(
            f"{images.path} has no CLIP with an image encoder, which clip_loss.weight and "
            "estimator.kind ask for; set text.encoder: trained, or clip_loss.weight: 0 and "
            "estimator.kind: image"
        )
    card, scorer = images.card()[CAPTIONS], scorer_beside(images)
    same = card["fingerprint"] == card.get("scorer", {}).get("fingerprint")
    if same or (scorer is not None and _equal(found, scorer)):
        raise PagodaError(
            f"the CLIP that training asks is the one that scores samples "
            f"({card['fingerprint'][:12]}), and a score that was trained for measures nothing; "
            "make another scorer, of another text.scorer_width"
        )
    return found


def _equal(a: Clip, b: Clip) -> bool:
    weights = [network.state_dict() for network in (a, b)]
    return weights[0].keys() == weights[1].keys() and all(
        torch.equal(value, weights[1][key]) for key, value in weights[0].items()
    )


def _beside(model: Artifact, prefix: str) -> Clip | None:
    card = (model.card().get(CAPTIONS) or {}).get(prefix.removesuffix("."), {})
    if "clip" not in card:
        return None
    kept = model.weights(CAPTIONS_FILE)
    own = {k.removeprefix(prefix): v for k, v in kept.items() if k.startswith(prefix)}
    with of_the_card(model.path / CAPTIONS_FILE, "CLIP"):
        return load_clip(own, card)


def _package(name: str) -> Any:
    return package(name, "text", "captions need")
