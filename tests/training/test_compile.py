"""Compiled networks (inductor) train as eager ones do, and their checkpoints are the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pagoda.config import parse
from pagoda.stages.optim import compile_networks
from pagoda.training.loop import Step
from tests.tiny import tiny_tree
from tests.training.steps import go, state
from tests.training.test_processes import one_step, teacher_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
]
COMPILE = parse(tiny_tree(**{"teacher.optim.compile": True})).teacher.optim


def _compiled(make: Callable[[], Step]) -> Callable[[], Step]:
    def made() -> Step:
        step = make()
        trained = [
            step.modules[n] for n in ("denoiser", "generator", "discriminator") if n in step.modules
        ]
        compile_networks(COMPILE, *trained)
        return step

    return made


def _assert_near(a: Step, b: Step) -> None:
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "make", [teacher_step, lambda: one_step(False, r1=0.0)], ids=["teacher", "one-step"]
)
def test_compiled_equals_eager_and_checkpoints_go_both_ways(
    make: Callable[[], Step], tmp_path: Path
) -> None:
    """In float64: Adam makes a step of the rounding of gradients that are zero in truth."""
    eager = go(make, tmp_path / "eager")
    whole = go(_compiled(make), tmp_path / "compiled")
    assert any(m._compiled_call_impl is not None for m in whole.modules.values())
    _assert_near(whole, eager)
    for name, first, then in (("there", _compiled(make), make), ("back", make, _compiled(make))):
        go(first, tmp_path / name, stop_after=3)
        assert list((tmp_path / name / "scratch").glob("*.safetensors"))
        _assert_near(go(then, tmp_path / name), eager)
