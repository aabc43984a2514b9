"""Drifting: generated features follow a field of attraction to data and repulsion from themselves.

Deng et al. 2026 (arXiv 2602.04770). In a frozen feature space phi, with weights A of all real and
generated points seen from a generated x,

    V(x) = sum_ij A_i A_j (y_i - w_j),    y real, w generated, of the class of x,
    A = sqrt(softmax over points x softmax over x),  both of -|x - .| / tau,
    || phi(x) - sg(phi(x) + V(phi(x))) ||^2

V changes its sign when data and generated points change places, so it is zero where they are equal.
There is no teacher's score and no critic, and a step of the generator is one evaluation.

The form of the field, the temperatures and both normalisations (features by their mean distance,
fields by their mean square) are the paper's as others quote it. Our choices: phi is the teacher's
encoder at a low noise level, instead of a masked autoencoder; its maps are seen by their mean,
their standard deviation and the means of their quarters; the real images of a step are as many as
the generated ones and of the same classes, without queues; there is no guidance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.training.method import Given, Loss, Method
from pagoda.training.settings import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from pagoda.training.draw import GlobalDraw

_TINY = 1e-6
_SEEN = 6  # vectors of a map: mean, standard deviation, four quarters


@dataclass(frozen=True)
class DriftingConfig(MethodConfig):
    """Drift of generated features."""

    temperatures: list[float] = opt(
        "tau of the kernels, in mean distances of the features; their fields add up",
        default=[0.02, 0.05, 0.2],
    )
    normalise: bool = opt("divide every field by its root mean square", default=True)
    feature_sigma: float = opt("noise level that the teacher's encoder is told", default=0.1, gt=0)

    def checks(self, at: str) -> Iterator[Check]:
        """Kernels have a width."""
        taus = self.temperatures
        yield (len(taus) > 0 and all(tau > 0 for tau in taus), f"{at}temperatures", taus,
               "a list of numbers above 0")  # fmt: skip


def drift(x: Tensor, real: Tensor, made: Tensor, tau: float, seen: Tensor | None = None) -> Tensor:
    """V (..., n, d) at x (..., n, d).

    Args:
        real, made: points that attract and repel, (..., k, d) and (..., m, d).
        tau: width of the kernel, in units of the distance.
        seen: (n, k + m) which of them a point of x sees; None: all. One that sees none of a kind
            stays where it is.
    """
    import torch

    k = real.shape[-2]
    logits = -torch.cat([torch.cdist(x, real), torch.cdist(x, made)], dim=-1) / tau
    if seen is not None:
        logits = torch.where(seen, logits, torch.full_like(logits, -1e9))
    weights = (logits.softmax(-1) * logits.softmax(-2)).sqrt()
    if seen is not None:  # a row or column of none is as even as a full one
        weights = weights * seen
    to_real, to_made = weights[..., :k], weights[..., k:]
    attract = to_real * to_made.sum(-1, keepdim=True)
    repel = to_made * to_real.sum(-1, keepdim=True)
    return attract @ real - repel @ made


class Drifting(Method):
    """The generator's features move along the field; nothing else trains."""

    Config = DriftingConfig

    def __init__(self, config: DriftingConfig, given: Given) -> None:
        from pagoda.networks.discriminators import EncoderDiscriminator
        from pagoda.networks.generator import Generator
        from pagoda.training.player import Player

        assert isinstance(given.network, Generator) and given.teacher is not None
        self.config, self.images, self.generator = config, given.images, given.network
        teacher, side = given.teacher(), given.network.resolution
        known, classes = teacher.spec.resolution, given.network.spec.num_classes
        if known != side:
            raise PagodaError(
                f"drifting sees images by the encoder of a teacher that knows {known}x{known}, not "
                f"{side}x{side}; use it in distill, not in grow"
            )
        if config.optim.batch <= classes:
            raise PagodaError(
                f"drifting needs several images of a class in a batch; optim.batch = "
                f"{config.optim.batch} must be above the number of classes, {classes}"
            )
        encoder = EncoderDiscriminator(teacher, config.feature_sigma, classes, max_channels=4)
        self.encoder = encoder.to(given.device, given.images.dtype)
        self.player = Player(given.network, config.optim, given.device)
        self.players = {"generator": self.player}

    def card(self) -> dict[str, Any]:
        """What it needed."""
        return {"needs": ["data", "teacher's encoder"], "nfe": [1],
                "temperatures": self.config.temperatures}  # fmt: skip

    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """One update of the generator, by the whole batch's field."""
        import torch

        from pagoda.training.micro_batch import in_parts

        n, most = self.config.optim.batch, self.config.optim.micro_batch
        real, labels = draw.images(self.images, n)
        z = draw.normal(n, *self.generator.spec.shape, on=real.device, dtype=real.dtype)
        with self.player.autocast():
            made = in_parts(self.generator, most, z, labels)
            of_made = in_parts(self._vectors, most, made, labels)
            with torch.no_grad():
                of_real = in_parts(self._vectors, most, real, labels)
        classes = _everyone(draw, labels.to(real.dtype)[:, None], n)[:, 0]
        same = classes[:, None] == classes
        seen = torch.cat([same, same & ~torch.eye(n, dtype=torch.bool, device=same.device)], 1)
        loss = real.new_zeros(())
        for mine, data in zip(self._split(of_made), self._split(of_real), strict=True):
            loss = loss + self._loss(draw, mine, data, seen)
        loss = draw.mean(loss, n)
        yield Loss("generator", loss, stats={"loss": loss.detach()})

    def _loss(self, draw: GlobalDraw, mine: Tensor, data: Tensor, seen: Tensor) -> Tensor:
        """Of one map's vectors (6, n, c), summed over them: a mean over this process's images."""
        import torch

        from pagoda import distributed

        n, width = self.config.optim.batch, mine.shape[-1]
        with torch.no_grad():
            made, real = (_everyone(draw, x.transpose(0, 1), n).transpose(0, 1)
                          for x in (mine, data))  # fmt: skip
            apart = torch.cat([torch.cdist(made, real), torch.cdist(made, made)], dim=-1)
            mean = (apart * seen).sum((1, 2), keepdim=True) / seen.sum()
            scale = math.sqrt(width) / mean.clamp(min=_TINY)
            made, real = made * scale, real * scale
            field = torch.zeros_like(made)
            for tau in self.config.temperatures:
                one = drift(made, real, made, tau * math.sqrt(width), seen)
                if self.config.normalise:
                    size = one.square().mean((1, 2), keepdim=True).sqrt()
                    one = one / size.clamp(min=_TINY)
                field = field + one
            rows = distributed.local_rows(n)
            wanted = (made + field)[:, rows]
        return (mine * scale - wanted).square().mean((1, 2)).sum()

    def _vectors(self, x: Tensor, labels: Tensor) -> Tensor:
        """Images (n, 3, r, r) -> (n, ...): of every map its mean, deviation and quarters."""
        import torch
        from torch.nn import functional as F

        from pagoda.networks.layers import at_least_float32

        parts = []
        for found in self.encoder.features(x, labels):
            m = at_least_float32(found)
            mean = m.mean((2, 3))
            spread = (m.var((2, 3), unbiased=False) + _TINY).sqrt()
            quarters = F.adaptive_avg_pool2d(m, 2).flatten(2).mT
            parts += [mean, spread, quarters.flatten(1)]
        return torch.cat(parts, dim=1)

    def _split(self, vectors: Tensor) -> Iterator[Tensor]:
        """What :meth:`_vectors` made, as (6, n, c) a map."""
        spec = self.encoder.frozen.spec
        widths = [spec.channels * m for m in spec.channel_mult]
        for part, c in zip(vectors.split([_SEEN * c for c in widths], 1), widths, strict=True):
            yield part.unflatten(1, (_SEEN, c)).transpose(0, 1)


def _everyone(draw: GlobalDraw, mine: Tensor, n: int) -> Tensor:
    """Rows (n, d) of all processes, from this one's; no gradient."""
    from pagoda import distributed

    rows = mine.new_zeros(n, *mine.shape[1:])
    rows[distributed.local_rows(n)] = mine.detach()
    return draw.total(rows)
