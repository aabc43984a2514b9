"""The similarity of images and captions as a loss: its values and slopes in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from pagoda.losses.similarity import similarity_loss


@pytest.mark.parametrize(
    ("degrees", "angle"), [(0, 0), (60, (math.pi / 3) ** 2), (90, (math.pi / 2) ** 2),
                           (180, math.pi**2)]
)  # fmt: skip
def test_values(degrees: int, angle: float) -> None:
    t = math.radians(degrees)
    x, y = torch.tensor([[math.cos(t), math.sin(t)]]), torch.tensor([[1.0, 0.0]])
    assert similarity_loss("angle", x, y).item() == pytest.approx(angle, abs=1e-2)
    assert similarity_loss("cosine", x, y).item() == pytest.approx(-math.cos(t), abs=1e-6)
    both, other = torch.cat([x, y]), torch.cat([y, y])
    assert similarity_loss("angle", both, other).item() == pytest.approx(angle / 2, abs=1e-2)


@pytest.mark.parametrize("cosine", [-0.9, 0.0, 0.3, 0.999])
def test_slopes(cosine: float) -> None:
    """d arccos(c)^2 / dc = -2 arccos(c) / sqrt(1 - c^2), and -1."""
    y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for kind, wanted in (("angle", -2 * math.acos(cosine) / math.sqrt(1 - cosine**2)),
                         ("cosine", -1.0)):  # fmt: skip
        x = torch.tensor([[cosine, 0.0]], dtype=torch.float64, requires_grad=True)
        similarity_loss(kind, x, y).backward()
        assert x.grad is not None and float(x.grad[0, 0]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_slopes_have_a_bound_where_the_angle_has_none(sign: float) -> None:
    x = torch.tensor([[sign, 0.0]], requires_grad=True)
    similarity_loss("angle", x, torch.tensor([[1.0, 0.0]])).backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_half_precision_is_widened() -> None:
    x = torch.nn.functional.normalize(torch.randn(4, 8), dim=1).bfloat16()
    loss = similarity_loss("angle", x, x)
    assert loss.dtype == torch.float32 and loss.item() < 0.05
