"""Models opened for use: samples of (seed, class) alone, parity with the pipeline, one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pagoda
from pagoda import artifacts
from pagoda.data.pixels import to_uint8
from pagoda.data.store import open_images
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.evaluation.samplers import Draws, one_step
from pagoda.models import Generator, Teacher
from tests.tiny_run import GEN, TEACHER


@pytest.fixture
def run(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_run)
    return tiny_run


def generator(path: str = GEN) -> Generator:
    found = pagoda.load(path)
    assert isinstance(found, Generator)
    return found


def teacher() -> Teacher:
    found = pagoda.load(TEACHER)
    assert isinstance(found, Teacher)
    return found


def test_a_sample_is_a_function_of_its_seed_and_class(run: Path) -> None:
    """The same bits alone, among others, in another order, and by the evaluation's sampler."""
    g = generator()
    images = g.sample(classes=[3, 0], seeds=range(11))
    assert images.shape == (22, 3, 16, 16) and images.dtype == np.uint8
    np.testing.assert_array_equal(g.sample(0, 7)[0], images[11 + 7])
    np.testing.assert_array_equal(g.sample([3], [9, 2]), images[[9, 2]])
    draws = Draws(seed=0, n=40, batch=g.batch, device=torch.device("cpu"))
    scored = one_step(artifacts.open_artifact(GEN, "generator"), draws)
    np.testing.assert_array_equal(scored.read(np.array([3])), g.sample(3, 3))
    assert scored.labels[13] == 3


def test_a_call_gives_the_sampled_images_and_gradients(run: Path) -> None:
    g = generator()
    z = g.latents([0, 1, 2])
    x = g(z, 4)
    off = np.abs(to_uint8(x).numpy().astype(int) - g.sample(4, [0, 1, 2]).astype(int))
    assert off.max() <= 1 and (off > 0).mean() < 1e-3  # batches of another size: the last digit
    np.testing.assert_array_equal(g(z.numpy(), np.array([4, 4, 4])), x)
    moved = z.clone().requires_grad_()
    g(moved, [4, 4, 4]).sum().backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in g.network.parameters())


def test_truncation_shortens_latents_and_keeps_their_direction(run: Path) -> None:
    g = generator()
    z, short = g.latents(range(5)), g.latents(range(5), truncation=0.5)
    assert short.flatten(1).norm(dim=1).numpy() == pytest.approx(0.5 * (3 * 8 * 8) ** 0.5)
    assert torch.cosine_similarity(z.flatten(1), short.flatten(1)).numpy() == pytest.approx(1)
    torch.testing.assert_close(g.latents(range(5), truncation=9.0), z, rtol=0, atol=0)
    assert (g.sample(1, 2, truncation=0.5) != g.sample(1, 2)).any()


def test_classes_have_the_names_of_the_images_trained_on(run: Path) -> None:
    g = generator()
    assert g.classes[:3] == ["disc", "square", "triangle"] and g.num_classes == 10
    np.testing.assert_array_equal(g.sample("square", 5), g.sample(1, 5))
    assert pagoda.load("runs/tiny/b8/gen/8").classes == [str(y) for y in range(10)]  # says nothing


def test_the_teacher_inverts_as_its_run_did(run: Path) -> None:
    """The stored latents again, bit for bit, of images without and with a mirror."""
    data = artifacts.open_artifact("runs/tiny/data/8", "images")
    latents = artifacts.open_artifact("runs/tiny/b8/latents", "latents")
    indices, flips = latents.array("indices")[:9], latents.array("flips")[:9]
    images = np.asarray(open_images(data, "train")[indices])
    images = np.where(flips[:, None, None, None] > 0, images[..., ::-1], images)
    t, labels = teacher(), latents.array("labels")[:9]
    found = t.invert(images, labels, keys=indices * 2 + flips, run_seed=3)
    np.testing.assert_allclose(found, latents.array("latents")[:9], rtol=0, atol=1e-5)
    alone = t.invert(images[4:5], int(labels[4]), keys=[int(indices[4] * 2 + flips[4])], run_seed=3)
    np.testing.assert_array_equal(alone[0], found[4])


def test_inversion_undoes_sampling(run: Path) -> None:
    """Latents -> images -> latents, on a fine grid without noise; latents can be optimised."""
    t, z = teacher(), teacher().latents(range(3))
    x = t(z, [0, 1, 2], steps=80)
    back = t.invert(x, [0, 1, 2], steps=80, noise=0.0, clamp=False)
    assert (back - z).abs().mean() < 0.02 < z.abs().mean()
    assert back.requires_grad_().square().sum().requires_grad


def test_a_teacher_samples_by_the_solver(run: Path) -> None:
    t = teacher()
    schedule = t.card["diffusion"]
    grid = edm_grid(5, schedule["sigma_min"], schedule["sigma_max"], schedule["rho"])
    with torch.no_grad():
        x = sample(t.network, t.latents([6]) * schedule["sigma_max"], grid, torch.tensor([2]))
    off = np.abs(to_uint8(x).numpy().astype(int) - t.sample(2, 6, steps=5).astype(int))
    assert off.max() <= 1


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (lambda: pagoda.load("nowhere"), "there is no nowhere; give the folder"),
        (lambda: pagoda.load("runs/tiny/b8"), r"no generator or teacher.*there is .*gen/16"),
        (
            lambda: pagoda.load("runs/tiny/data/8"),
            "is an artifact of kind images, not generator or",
        ),
        (lambda: generator().sample(10), r"no class 10; .* 0 to 9 \(disc, square"),
        (lambda: generator().sample("bird"), "no class 'bird'"),
        (lambda: generator().sample(0, -1), "no seed -1"),
        (lambda: generator().sample(0, "x"), "whole numbers from 0"),  # type: ignore[arg-type]
        (lambda: generator().sample(0, []), "nothing to make"),
        (lambda: generator().sample([3.7]), r"no class 3\.7"),  # type: ignore[list-item]
        (lambda: generator().sample([None]), "no class None"),  # type: ignore[list-item]
        (lambda: generator().latents(0, truncation=-1), "truncation = -1; it must be more than 0"),
        (
            lambda: generator()(torch.zeros(1, 3, 8, 8), "ring"),  # type: ignore[arg-type]
            r"labels are class numbers; numbers\('ring'\) gives",
        ),
        (lambda: generator().sample(0, truncation=0), "it must be more than 0"),
        (lambda: generator()(torch.zeros(2, 3, 16, 16), 0), r"takes \(n, 3, 8, 8\)"),
        (lambda: generator()(torch.zeros(2, 3, 8, 8), [0]), "2 whole numbers are needed"),
        (lambda: generator()(torch.zeros(1, 3, 8, 8), [-1]), "no class -1"),
        (lambda: teacher().invert(torch.zeros(1, 3, 16, 16), 0), "shrink them to 8 pixels"),
        (lambda: teacher().invert(torch.zeros(1, 3, 8, 8), 0, step=4), "invert knows no step"),
        (lambda: teacher().invert(torch.zeros(1, 3, 8, 8, dtype=torch.int64), 0), "they are uint8"),
        (lambda: teacher().invert(torch.full((1, 3, 8, 8), 200.0), 0), "from 200 to 200; they are"),
        (lambda: teacher().invert(torch.full((1, 3, 8, 8), torch.nan), 0), "from nan to nan"),
        (lambda: teacher().invert(torch.zeros(0, 3, 8, 8), 0), "there are no images"),
        (lambda: teacher().invert(torch.zeros(1, 3, 8, 8), 0, clamp="no"), "clamp = 'no'"),
        (
            lambda: teacher().invert(torch.zeros(1, 3, 8, 8), 0, keys=[1, 2], noise=0.1),
            "2 keys for 1 images",
        ),
        (
            lambda: teacher().invert(torch.zeros(1, 3, 8, 8), 0, keys=[0.5], noise=0.1),  # type: ignore[list-item]
            r"keys = \[0\.5\]; they are whole",
        ),
        (lambda: teacher().sample(0, 0, steps=0), "a grid of 0 noise levels"),
        (lambda: pagoda.load(GEN, device="gpu"), "device = 'gpu' is not to be had here"),
        (lambda: teacher().sample(0, guidance=2.0), "trained with every class told"),
    ],
)
def test_mistakes_are_one_line(run: Path, use: Callable[[], object], line: str) -> None:
    with pytest.raises(pagoda.PagodaError, match=line) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_numbers_of_any_library_are_classes_and_seeds(run: Path) -> None:
    g = generator()
    z, expected = g.latents([4, 5]), g(g.latents([4, 5]), [3, 1])
    for labels in (np.array([3, 1], np.uint16), np.array([3, 1], ">i8")):
        torch.testing.assert_close(g(z, labels), expected, rtol=0, atol=0)
    wanted = g.sample(3, 4)
    for y, seed in ((np.int64(3), np.int64(4)), (torch.tensor(3), torch.tensor(4)),
                    (np.array([3]), np.array(4)), ([torch.tensor(3)], range(4, 5))):  # fmt: skip
        np.testing.assert_array_equal(g.sample(y, seed), wanted)  # type: ignore[arg-type]


def test_no_images_a_call_is_refused(run: Path) -> None:
    g, t = generator(), teacher()
    g.batch = t.batch = 0
    for use in (lambda: g.sample(3), lambda: t.invert(torch.zeros(1, 3, 8, 8), 3)):
        with pytest.raises(pagoda.PagodaError, match="0 images a call; at least 1 is needed"):
            use()


@pytest.mark.parametrize("told", [None, [80.0], {"sigma_min": 0.002, "sigma_max": "80"}])
def test_a_teacher_whose_card_tells_no_noise_levels_is_refused(
    run: Path, tmp_path: Path, told: object
) -> None:
    there = artifacts.open_artifact(TEACHER, "teacher")
    with artifacts.create(tmp_path / "t", "teacher", config=there.config) as out:
        artifacts.save_weights(out, there.weights(), there.card() | {"diffusion": told})
    with pytest.raises(pagoda.PagodaError, match=r"card\.json has no sigma_min, .* in diffusion"):
        pagoda.load(tmp_path / "t")


def test_a_damaged_generator_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(GEN, tmp_path / "g")
    with (tmp_path / "g/model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    with pytest.raises(pagoda.PagodaError, match="damaged"):
        pagoda.load(tmp_path / "g")
