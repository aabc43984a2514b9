"""A small CLIP, trained on the captions of the training images.

Its text encoder tells the teacher and the generators of captions, and a loss may ask for its
agreement. A second one, of another width and seed, scores how well pictures follow theirs, and
nothing else is told by it. The loss is that of Radford et al. 2021 (arXiv 2103.00020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw

NO_CAPTIONS = "none"
OWN_CAPTIONS = "own"
SAME = "same"
IN_FILES = "folder", "zip", "tar"
"""Sources whose images may have captions of their own."""
OWN = "trained"
LONGEST = 256


@dataclass(frozen=True)
class ClipConfig(MethodConfig):
    """Captions for labels, and the CLIP that reads them."""

    captions: str = opt(
        "what teacher and generators are told: none, classes; short or long, captions of the "
        "embedded set in these lengths, mixed, half of each; own, the .txt or .json beside each "
        "image of a folder, zip or tar",
        default=NO_CAPTIONS, choices=(NO_CAPTIONS, "short", "long", "mixed", OWN_CAPTIONS),
    )  # fmt: skip
    asked: str = opt(
        "captions of held-out images, which samples are asked for: same, of the kind of captions; "
        "short or long of the embedded set",
        default=SAME, choices=(SAME, "short", "long"),
    )  # fmt: skip
    file: str | None = opt(
        "of captions own: a file of COCO's captions (.json) instead; null = beside the images",
        default=None,
    )
    encoder: str = opt(
        "text encoder of the captions: trained, the CLIP of this section; clip:FOLDER, t5:FOLDER, "
        "an encoder of transformers with its tokenizer, or the hub's OWNER/NAME; "
        "open_clip:NAME:FILE, one of open_clip by name with its weights as safetensors",
        default=OWN,
    )  # fmt: skip
    context: int = opt(
        "tokens of a caption that are read, those of its start and end among them", default=12,
        ge=4, le=LONGEST,
    )  # fmt: skip
    vocabulary: int = opt("most tokens of the trained CLIP's tokenizer", default=512, ge=300)
    width: int = opt("width of its two encoders", default=64, ge=16)
    layers: int = opt("layers of each", default=2, ge=1)
    embed: int = opt("width of the space in which images and captions meet", default=64, ge=8)
    scorer_width: int = opt(
        "width of the two encoders of the second CLIP, which scores samples and no loss sees",
        default=48, ge=16,
    )  # fmt: skip
    patch: int = opt("side of a patch of the image encoder", default=4, ge=1, power_of_two=True)

    @property
    def held_out(self) -> str:
        """The kind of captions of held-out images."""
        return self.captions if self.asked == SAME else self.asked

    def checks(self, at: str) -> Iterator[Check]:
        """Whole heads; an encoder that is known."""
        yield (self.file is None or self.captions == OWN_CAPTIONS, f"{at}file", self.file,
               f"null while {at}captions is {self.captions}")  # fmt: skip
        drawn = self.captions in ("short", "long", "mixed")
        yield (drawn or self.asked == SAME, f"{at}asked", self.asked,
               f"{SAME} while {at}captions is {self.captions}")  # fmt: skip
        for key in ("width", "scorer_width"):
            value = getattr(self, key)
            yield value % 16 == 0, f"{at}{key}", value, "a multiple of 16"
        kind, _, name = self.encoder.partition(":")
        known = kind in ("clip", "t5", "open_clip") and bool(name)
        yield (self.encoder == OWN or known, f"{at}encoder", self.encoder,
               f"{OWN}, clip:FOLDER, t5:FOLDER or open_clip:NAME:FILE")  # fmt: skip


@dataclass(frozen=True)
class CaptionedGiven(Given):
    """What the CLIP is trained on besides: its labels are numbers of captions.

    Attributes:
        texts: (captions, context) tokens of each caption.
    """

    texts: Tensor | None = None


class Clip(Method):
    """Contrastive loss over the whole batch, whatever the number of processes."""

    of_generators = False
    Config = ClipConfig

    def __init__(self, config: ClipConfig, given: Given) -> None:
        from pagoda.networks import clip
        from pagoda.training.player import Player

        assert isinstance(given.network, clip.Clip) and isinstance(given, CaptionedGiven)
        assert given.texts is not None
        self.config, self.images = config, given.images
        self.texts = given.texts.to(given.device)
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"clip": self.player}

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update."""
        from pagoda.losses.contrastive import contrastive_loss
        from pagoda.training.micro_batch import in_parts

        n, most = self.config.optim.batch, self.config.optim.micro_batch
        network: Any = self.player.network
        images, labels = draw.images(self.images, n)
        with self.player.autocast():
            x = in_parts(network.images, most, images)
            y = in_parts(network.texts, most, self.texts[labels])
        loss = contrastive_loss(_of_all(x, n), _of_all(y, n), network.scale)
        value = draw.mean(loss, n, rows=len(images))
        yield Loss("clip", value, stats={"loss_clip": value.detach()})


def _of_all(features: Tensor, n: int) -> Tensor:
    """This process's features (m, d) -> those of the whole batch (n, d), with their gradient."""
    from torch.nn import functional as F

    from pagoda import distributed

    rows = distributed.local_rows(n)
    placed = F.pad(features, (0, 0, rows.start, n - rows.stop))
    return distributed.all_reduce_with_gradient(placed)
