"""Compiled networks (inductor) train as eager ones do, and their checkpoints are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pagoda.training.method import Method
from tests.methods.small import go, make, state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
]


def _assert_near(a: Method, b: Method) -> None:
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("what", ["teacher", "one_step"])
def test_compiled_equals_eager_and_checkpoints_go_both_ways(what: str, tmp_path: Path) -> None:
    """In float64: Adam makes a step of the rounding of gradients that are zero in truth."""

    def fresh(compiled: bool) -> Method:
        plain: dict[str, Any] = {} if what == "teacher" else {"discriminator.r1": 0.0}
        return make(what, torch.float64, **plain, **{"optim.compile": compiled})

    eager, whole = go(fresh(False), tmp_path / "eager"), go(fresh(True), tmp_path / "compiled")
    networks = [player.network for player in whole.players.values()]
    assert all(network._compiled_call_impl is not None for network in networks)
    _assert_near(whole, eager)
    for first in (True, False):
        folder = tmp_path / str(first)
        go(fresh(first), folder, stop_after=3)
        assert list((folder / "scratch").glob("*.safetensors"))
        _assert_near(go(fresh(not first), folder), eager)
