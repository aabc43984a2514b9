"""What the loop promises of every method: any process count, stopped or not, in parts or whole."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.networks.generator import generator_from_teacher
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import find_method
from tests.group import log, run_group
from tests.methods.small import (
    BATCH,
    CASES,
    STEPS,
    Case,
    assert_same,
    denoiser,
    given,
    go,
    make,
    network_of,
    once,
    rows,
    section,
    state,
)

DOUBLE = torch.float64


def _quick(cases: Iterable[str]) -> list[Any]:
    """The first case of each method at once, the others among the longer tests."""
    first = {case.method: what for what, case in reversed(CASES.items())}.values()
    return [w if w in first else pytest.param(w, marks=pytest.mark.longer) for w in cases]


@pytest.mark.parametrize("what", _quick(CASES))
def test_a_section_needs_no_more_than_its_length(what: str) -> None:
    """Adding a key breaks no configuration: it has a default."""
    config = find_method(CASES[what].method).Config
    assert section(CASES[what])
    required = [name for name, field in config.__dataclass_fields__.items() if not field.kw_only]
    assert required == ["optim"]


_PRECISE: list[Any] = [
    pytest.param("teacher", {"optim.optimizer": "radam", "optim.ema_profiles": [0.1]}, id="radam"),
    pytest.param("teacher", {"optim.precision": "bf16", "optim.micro_batch": 3}, id="bf16"),
    pytest.param("one_step", {"optim.precision": "fp16", "discriminator.r1": 0.0}, id="fp16"),
]


@pytest.mark.parametrize("what", _quick(CASES))
def test_stopped_and_continued_equals_uninterrupted(what: str, tmp_path: Path) -> None:
    """Bit for bit, with dropout and averages."""
    _stop_and_continue(what, {}, tmp_path)


@pytest.mark.parametrize(("what", "changes"), _PRECISE)
def test_so_does_it_in_other_precisions_and_by_another_optimiser(
    what: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """With scaled gradients."""
    _stop_and_continue(what, changes, tmp_path)


def _stop_and_continue(what: str, changes: dict[str, Any], tmp_path: Path) -> None:
    def fresh() -> Any:
        return make(what, dropout=0.1, **changes)

    whole = go(fresh(), tmp_path / "whole", save_every_s=1e9)
    before, after = state(fresh()), state(whole)
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
    go(fresh(), tmp_path / "parts", stop_after=2)
    assert list((tmp_path / "parts" / "scratch").glob("*.safetensors"))
    assert_same(go(fresh(), tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def _train_all() -> None:
    """Train every case and leave its state in the working folder."""
    with distributed.group():
        for what in CASES:
            method = make(what, DOUBLE, **{"optim.images": 2 * BATCH})
            if distributed.rank() > 0:  # what a process starts with is the first one's, not its own
                with torch.no_grad():
                    for player in method.players.values():
                        for parameter in player.parameters():
                            parameter.zero_()
            folder = Path(f"{what}-{distributed.world_size()}")
            go(method, folder, save_every_s=1e9)
            kept = {key: value.contiguous() for key, value in state(method).items()}
            safetensors.torch.save_file(kept, folder / f"{distributed.rank()}.safetensors")


def _difference(a: Path, b: Path) -> float:
    left, right = (safetensors.torch.load_file(f) for f in (a, b))
    assert left.keys() == right.keys()
    return max((left[k] - right[k]).abs().max().item() for k in left)


@pytest.mark.longer
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """In float64, every loss term on, shares of unequal size."""
    for world in (1, 2):
        assert run_group(world, _train_all, folder=tmp_path) == [0] * world, log(tmp_path)
    for what in CASES:
        alone, several = tmp_path / f"{what}-1", tmp_path / f"{what}-2"
        first = several / "0.safetensors"
        assert _difference(alone / "0.safetensors", first) < 1e-6, what
        assert _difference(first, several / "1.safetensors") == 0, what  # both hold the same bits
        for left, right in zip(rows(alone), rows(several), strict=True):
            assert left == pytest.approx(right, rel=1e-6, abs=1e-12), what


@pytest.mark.parametrize("what", _quick(what for what in CASES if what != "classifier"))
def test_micro_batches_train_as_the_whole_batch(what: str) -> None:
    """In float64: the statistic of the batch and R1 among the terms; batch norm refuses parts."""
    whole, parts = (make(what, DOUBLE, **{"optim.micro_batch": most}) for most in (None, 2))
    for i in range(2):  # seven images in four parts, the last of one image
        expected = once(whole, i, seed=i)
        assert once(parts, i, seed=i) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    other = state(parts)
    for key, value in state(whole).items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("what", _quick(CASES))
def test_a_loss_that_is_not_finite_is_told_with_its_images(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make(what)
    sources = {id(s): s for s in vars(method).values() if hasattr(s, "image_of")}.values()
    seen: list[list[int]] = []
    for source in sources:

        def read(rows: Any, source: Any = source, whole: Any = source.read) -> Any:
            seen.append(source.image_of(rows).tolist())
            return whole(rows)

        monkeypatch.setattr(source, "read", read)
    with torch.no_grad():
        trained = next(p for p in next(iter(method.players.values())).network.parameters()
                       if p.requires_grad)  # fmt: skip
        trained.fill_(float("nan"))
    with pytest.raises(
        PagodaError, match=r"toy: .*loss.* is not finite at step 0 \(images"
    ) as error:
        go(method, tmp_path)
    assert "\n" not in str(error.value)
    told = json.loads((tmp_path / "scratch" / "not_finite.json").read_text())
    assert told["step"] == 0 and told["images"] == seen[0] and len(seen[0]) == BATCH
    assert not list((tmp_path / "scratch").glob("*.safetensors"))


@pytest.mark.parametrize("what", _quick(CASES))
def test_what_trains_moves_what_is_frozen_does_not_and_curves_are_written(
    what: str, tmp_path: Path
) -> None:
    method = make(what, **{"optim.ema_profiles": [0.1], "optim.ema_snapshots": 2})
    player = next(iter(method.players.values()))
    first = {name: p.detach().clone() for name, p in player.network.named_parameters()}
    go(method, tmp_path)
    averages = [dict(a.named_parameters()) for a in (player.ema, *player.powers)]
    for name, parameter in player.network.named_parameters():
        for now in (parameter, *(average[name] for average in averages)):
            assert torch.equal(now, first[name]) != parameter.requires_grad, name
    written = rows(tmp_path)
    assert [row["step"] for row in written] == list(range(1, STEPS + 1))
    assert all({"loss", "grad_norm", "lr", "images"} <= row.keys() for row in written)
    assert len(list((tmp_path / "scratch" / "snapshots").glob("ema-0.1-*.safetensors"))) == 2


class _Shapes(ImageBatches):
    """A data set of no images, on the device that holds shapes alone."""

    def read(self, rows: Any) -> tuple[torch.Tensor, ...]:
        sides = [store.shape[-1] for store in self.stores]
        return tuple(torch.empty(len(rows), 3, r, r, device="meta") for r in sides)


class _PairShapes(PairBatches):
    def read(self, rows: Any) -> tuple[torch.Tensor, ...]:
        made = torch.empty(len(rows), *self.images.shape[1:], device="meta")
        return torch.empty(len(rows), 3, 8, 8, device="meta"), made


@pytest.mark.parametrize("what", _quick(CASES))
def test_a_step_runs_on_shapes_alone(what: str) -> None:
    """So that operations can be counted without memory."""
    own, meta = given(CASES[what]), torch.device("meta")
    assert own.pairs is not None
    images = _Shapes(stores=own.images.stores, labels=own.images.labels, device=meta)
    pairs = _PairShapes(**{
        f.name: getattr(own.pairs, f.name) for f in dataclasses.fields(own.pairs) if f.init
    } | {"device": meta})  # fmt: skip
    network = network_of(CASES[what].network).to(meta)
    own = dataclasses.replace(own, network=network, images=images, pairs=pairs, device=meta,
                              teacher_pairs=lambda: pairs)  # fmt: skip
    config = section(CASES[what])
    losses = []
    for loss in find_method(CASES[what].method)(config, own).step(GlobalDraw(meta), 0, 0.5):
        loss.value.backward()
        losses.append(loss)
    assert losses and all(loss.value.device.type == "meta" for loss in losses)


@pytest.mark.parametrize(("what", "lacks"), [("consistency", "noise level"), ("mean_flow", "path")])
def test_what_is_no_denoiser_in_one_step_is_one_line(what: str, lacks: str) -> None:
    """Of the methods that take the generator for the end of a path."""
    made, case, grown = find_method(what), CASES[what], Case(what, "grown")
    with pytest.raises(PagodaError, match=rf"no {lacks} at 16x16.* use it in distill"):
        made(section(grown), given(grown))
    raw = generator_from_teacher(denoiser(), sigma_max=80.0, output="raw")
    with pytest.raises(PagodaError, match=r"set distill\.output: denoiser"):
        made(section(case), dataclasses.replace(given(case), network=raw))
    meta = torch.device("meta")  # where operations are counted, whatever the scale
    own = dataclasses.replace(given(case), network=raw.to(meta), device=meta)
    assert made(section(case), own)


_ONE_EACH = list({case.method: what for what, case in reversed(CASES.items())}.values())


@pytest.mark.parametrize("what", _ONE_EACH)
def test_a_network_that_breaks_ends_training_in_one_line_that_names_it(
    what: str, tmp_path: Path
) -> None:
    """At the third step, every network of every method; the second one's checkpoint stays."""
    for name in make(what).players:
        _break(what, name, tmp_path / name)


def _break(what: str, name: str, folder: Path) -> None:
    method, at = make(what), 2
    whole = method.step
    order: list[str] = []

    def step(draw: GlobalDraw, i: int, progress: float) -> Any:
        for loss in whole(draw, i, progress):
            if i == at:
                order.append(loss.player)
                if loss.player == name and order.count(name) == 1:
                    value = loss.value * float("nan")
                    loss = dataclasses.replace(loss, value=value)
            yield loss

    method.step = step  # type: ignore[method-assign]
    with pytest.raises(PagodaError) as error:
        go(method, folder)
    message, shown = str(error.value), name.replace("_", " ")
    assert "\n" not in message
    assert message.startswith(f"toy: loss of the {shown} ") and f"at step {at} " in message
    if what in ("class_ratio", "distribution_matching"):
        assert "at noise levels" in message
    newest = max(p.stem for p in (folder / "scratch").glob("*.safetensors"))
    assert newest == f"{at:09d}"


@pytest.mark.parametrize(
    ("what", "network"), [("class_ratio", "ratio"), ("distribution_matching", "critic")]
)
def test_the_noise_levels_that_broke_a_network_are_told(
    what: str, network: str, tmp_path: Path
) -> None:
    """What it makes of noisier images than level 1 is not finite: no lower level is named."""
    method = make(what)

    def broken(_: Any, inputs: Any, out: torch.Tensor) -> torch.Tensor:
        noisy = inputs[1].reshape(-1, *[1] * (out.ndim - 1)) > 1
        return out.masked_fill(noisy, float("nan"))

    method.players[network].network.register_forward_hook(broken)
    with pytest.raises(PagodaError) as error:
        go(method, tmp_path)
    found = re.match(
        rf"toy: loss of the {network} at noise levels? ([\d.]+)(?: to ([\d.]+))? is not finite at "
        r"step 0 \(images",
        str(error.value),
    )
    assert found and float(found[1]) > 1
