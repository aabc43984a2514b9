"""The four edits with a small run's networks: what must hold whatever they have learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pagoda
from pagoda.artifacts import open_artifact
from pagoda.data.pixels import to_float, to_uint8
from pagoda.data.store import open_images
from pagoda.editing.edits import (
    inpaint,
    interpolate,
    inverted,
    mix_classes,
    solve,
    super_resolve,
    transfer,
)
from pagoda.editing.latents import Shell, cached_shell, norms
from pagoda.editing.observations import averaged, boxes, luminance
from pagoda.editing.posterior import Langevin
from pagoda.editing.search import Search
from pagoda.errors import PagodaError
from pagoda.models import Generator, Teacher
from tests.tiny_run import GEN, TEACHER

FEW = Search(4)
LABELS = [3, 1]


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Path:
    return tiny_run


@pytest.fixture(scope="module")
def g(run: Path) -> Generator:
    found = pagoda.load(run / GEN)
    assert isinstance(found, Generator)
    return found


@pytest.fixture(scope="module")
def t(run: Path) -> Teacher:
    found = pagoda.load(run / TEACHER)
    assert isinstance(found, Teacher)
    return found


@pytest.fixture(scope="module")
def images(run: Path) -> np.ndarray:
    data = open_artifact(run / "runs/tiny/data/16", "images")
    return np.array(open_images(data, "test")[:2])


def test_a_mask_of_ones_gives_the_images_back(g: Generator, t: Teacher, images: np.ndarray) -> None:
    whole = to_float(torch.from_numpy(images))
    for seam in (0, 2):
        edited = inpaint(g, images, np.ones((16, 16)), LABELS, teacher=t, search=FEW, seam=seam,
                         answers=2)  # fmt: skip
        assert edited.images.shape == (2, 2, 3, 16, 16)
        assert (edited.images - whole[:, None]).abs().max() < 1e-6


def test_only_holes_are_filled_and_what_is_in_them_does_not_matter(
    g: Generator, t: Teacher, images: np.ndarray
) -> None:
    kept = boxes("centre", 2, 16)
    held = (kept > 0).expand(2, 3, 16, 16).numpy()
    edited = inpaint(g, images, kept, LABELS, teacher=t, search=FEW, restarts=2)
    back = to_uint8(edited.images[:, 0]).numpy()
    np.testing.assert_array_equal(back[held], images[held])
    other = np.where(held, images, 255 - images)
    again = inpaint(g, other, kept, LABELS, teacher=t, search=FEW, restarts=2)
    torch.testing.assert_close(again.images, edited.images, rtol=0, atol=0)
    assert edited.calls == 2 * FEW.steps
    plain = inpaint(g, images, kept, LABELS, teacher=t, search=FEW, restarts=2, paste=False)
    torch.testing.assert_close(
        plain.images[:, 0], g(plain.latents[:, 0], LABELS), rtol=0, atol=2e-5
    )


def test_an_answer_is_a_function_of_its_image_key_and_seed(
    g: Generator, images: np.ndarray
) -> None:
    kept = boxes("half", 1, 16)[0, 0]
    both = inpaint(g, images, kept, LABELS, search=FEW, answers=2)
    one = inpaint(g, images[1:], kept, LABELS[1:], search=FEW, answers=2, keys=[1])
    torch.testing.assert_close(one.images[0], both.images[1], rtol=0, atol=2e-4)
    other = inpaint(g, images[1:], kept, LABELS[1:], search=FEW, answers=2, keys=[1], seed=1)
    assert (other.images[0] - both.images[1]).abs().max() > 0.01


def test_super_resolution_needs_no_search_and_can_be_made_consistent(
    g: Generator, t: Teacher, images: np.ndarray
) -> None:
    small = averaged(2).apply(to_float(torch.from_numpy(images)))
    edited = super_resolve(g, small, LABELS, teacher=t)
    wanted = g(t.invert(small, LABELS), LABELS)
    torch.testing.assert_close(edited.images[:, 0], wanted, rtol=0, atol=2e-5)
    assert edited.calls == 1
    exact = super_resolve(g, small, LABELS, teacher=t, consistent=True)
    assert averaged(2).errors(exact.images[:, 0], small).max() < 1e-6
    searched = super_resolve(g, small, LABELS, teacher=t, search=FEW)
    see = averaged(2).errors
    assert (see(searched.images[:, 0], small) <= see(edited.images[:, 0], small) + 1e-5).all()


def test_langevin_answers_differ_and_cost_what_is_said(g: Generator, images: np.ndarray) -> None:
    how = Langevin(steps=3)
    edited = inpaint(g, images, boxes("half", 1, 16)[0, 0], LABELS, search=FEW, answers=3,
                     langevin=how, shell=Shell())  # fmt: skip
    assert edited.calls == FEW.steps + how.steps + 1
    apart = (edited.images[:, :, None] - edited.images[:, None]).square().mean((3, 4, 5))
    assert (apart + torch.eye(3) > 1e-6).all()
    with pytest.raises(PagodaError, match="0 answers of 1 searches"):
        inpaint(g, images, boxes("half", 1, 16)[0, 0], LABELS, answers=0)


def test_any_linear_observation_is_met_better_than_at_the_start(
    g: Generator, images: np.ndarray
) -> None:
    grey, x = luminance(), to_float(torch.from_numpy(images))
    start = g.latents([5, 6])
    edited = solve(g, grey, grey.apply(x), LABELS, start=start, search=Search(20))
    before, after = (grey.errors(made, grey.apply(x))
                     for made in (g(start, LABELS), edited.images[:, 0]))  # fmt: skip
    assert (after < before).all()


def test_transfer_to_its_own_class_is_the_reconstruction(
    g: Generator, t: Teacher, images: np.ndarray
) -> None:
    own = transfer(g, t, images, LABELS, LABELS)
    small = averaged(2).apply(to_float(torch.from_numpy(images)))
    torch.testing.assert_close(own.images[:, 0], g(t.invert(small, LABELS), LABELS), rtol=0,
                               atol=2e-5)  # fmt: skip
    other = transfer(g, t, images, LABELS, [7, 7])
    torch.testing.assert_close(other.latents, own.latents)  # the class of the way up is the same
    assert (other.images - own.images).abs().max() > 1e-3


def test_a_path_begins_and_ends_at_its_ends(g: Generator) -> None:
    a, b = g.latents([0, 1]), g.latents([2, 3])
    path = interpolate(g, a, b, LABELS, frames=5)
    assert path.images.shape == (2, 5, 3, 16, 16)
    for end, z in ((0, a), (-1, b)):
        torch.testing.assert_close(path.images[:, end], g(z, LABELS), rtol=0, atol=2e-5)
    ends = torch.stack([norms(a), norms(b)])
    for i in range(5):
        assert (norms(path.latents[:, i]) > 0.9 * ends.min(0).values).all()
    for first, frames, words in ((a, 1, "1 frames have no ends"), (a[:1], 3, "use equal")):
        with pytest.raises(PagodaError, match=words):
            interpolate(g, first, b, LABELS, frames=frames)


def test_classes_mix_over_resolutions(g: Generator) -> None:
    z = g.latents([0, 1])
    mixed = mix_classes(g, z, 3, 4, above=8)
    torch.testing.assert_close(mix_classes(g, z, 3, 3, above=8), g(z, 3), rtol=0, atol=0)
    assert (mixed - g(z, 3)).abs().max() > 1e-4 and (mixed - g(z, 4)).abs().max() > 1e-4
    with pytest.raises(PagodaError, match=r"no level .* begins above 16; levels begin above 8"):
        mix_classes(g, z, 3, 4, above=16)


def test_latents_of_the_cache_lie_in_its_shell(run: Path) -> None:
    latents = open_artifact(run / "runs/tiny/b8/latents", "latents")
    shell = cached_shell(latents)
    found = norms(torch.from_numpy(np.array(latents.array("latents"))))
    inside = (found >= shell.low - 1e-6) & (found <= shell.high + 1e-6)
    assert 0.9 < inside.float().mean() < 1


def test_seeds_of_numpy_are_those_of_python(g: Generator, images: np.ndarray) -> None:
    """A shift of 32 bits in a number of 64 would leave nothing of 2^32."""
    kept = np.ones((16, 16))
    kept[4:8] = 0
    search = Search(1)

    def latents(seed: int) -> torch.Tensor:
        return inpaint(g, images, kept, LABELS, search=search, seed=seed).latents

    of_numpy: Any = np.int64(1 << 32)

    large = 1 << 32
    torch.testing.assert_close(latents(of_numpy), latents(large), rtol=0, atol=0)
    assert (latents(large) != latents(0)).any()
    with pytest.raises(PagodaError, match="there is no seed -1"):
        latents(-1)


def test_what_does_not_fit_is_one_line(g: Generator, t: Teacher, images: np.ndarray) -> None:
    ones, few = np.ones((16, 16)), images[:, :, :12]
    cases = [
        (lambda: inpaint(g, few, ones, LABELS), "shape (2, 3, 12, 16); (n, 3, 16, 16) is needed"),
        (lambda: inpaint(g, images.astype(int), ones, LABELS), "images are torch.int64"),
        (lambda: inpaint(g, images, ones[:4], LABELS), "the mask is of shape (4, 16)"),
        (lambda: inpaint(g, images, ones, [3, 10]), "there is no class 10"),
        (lambda: inpaint(g, images, ones, LABELS, seam=17), "seam = 17; it must be from 0 to 16"),
        (lambda: inpaint(g, images / 1.0, ones, LABELS), "they are uint8, or float in [-1, 1]"),
        (lambda: inpaint(g, images, ones, LABELS, keys=[0]), "1 keys for 2 images"),
        (lambda: inpaint(g, images, ones, LABELS, keys=[2**62, 1], answers=4), "no key 4611686018"),
        (lambda: inpaint(g, images, ones, [3, 3, 3]), "2 whole numbers are needed"),
        (lambda: super_resolve(g, images[..., :8, :8], LABELS, teacher=g),  # type: ignore[arg-type]
         "no diffusion teacher"),
        (lambda: super_resolve(g, images, LABELS), "images of 16 x 16 pixels cannot become 16"),
        (lambda: super_resolve(g, images[..., :5, :5], LABELS), "sides that can: 8, 4, 2"),
        (lambda: transfer(g, t, images[..., :12, :12], 1, 2), "images of 8 x 8 pixels cannot"),
    ]  # fmt: skip
    for call, words in cases:
        with pytest.raises(PagodaError) as caught:
            call()
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_images_of_the_teachers_size_are_inverted_as_they_are(
    t: Teacher, images: np.ndarray
) -> None:
    small = averaged(2).apply(to_float(torch.from_numpy(images)))
    torch.testing.assert_close(inverted(t, small, LABELS), t.invert(small, LABELS))
