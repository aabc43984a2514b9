"""The embedded set: determinism, independence of the batch, symmetry, contrast, separability."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pagoda.data import embedded, scenes
from pagoda.data.embedded import CLASSES, render
from pagoda.errors import PagodaError


def draw(indices: object, resolution: int, *, seed: int = 0, split: str = "train") -> np.ndarray:
    return render(np.asarray(indices), resolution=resolution, seed=seed, split=split)[0]


def box(images: np.ndarray, factor: int) -> np.ndarray:
    n, c, h, w = images.shape
    return images.reshape(n, c, h // factor, factor, w // factor, factor).mean((3, 5))


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_an_image_does_not_depend_on_its_batch(resolution: int) -> None:
    indices = np.random.default_rng(0).permutation(257)
    together = draw(indices, resolution)
    for place in (0, 3, 100, 256):
        assert np.array_equal(draw([indices[place]], resolution)[0], together[place])
    again = draw(np.arange(257), resolution)
    assert np.array_equal(again[indices], together)


def test_shapes_types_and_labels() -> None:
    images, labels = render([7, 7, 123], resolution=16, seed=3, split="test")
    assert images.shape == (3, 3, 16, 16) and images.dtype == np.uint8
    assert labels.tolist() == [7, 7, 3] and labels.dtype == np.int64
    assert np.array_equal(images[0], images[1])
    assert len(CLASSES) == len(set(CLASSES)) == 10


def test_seed_split_and_index_all_matter() -> None:
    base = draw([40], 32)
    for other in (draw([50], 32), draw([40], 32, seed=1), draw([40], 32, split="test")):
        assert np.abs(base.astype(int) - other).mean() > 5


def test_no_two_training_images_are_equal_and_none_is_in_the_test_split() -> None:
    images = np.concatenate([draw(np.arange(2000), 16), draw(np.arange(500), 16, split="test")])
    assert len({image.tobytes() for image in images}) == 2500


@pytest.mark.parametrize("resolution", [7, 0, 48, 1024])
def test_other_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(PagodaError, match=f"resolution {resolution} .*power of two"):
        draw([0], resolution)


def test_the_scene_is_the_same_at_every_resolution() -> None:
    """A drawing boxed down stays close to one drawn small; another scene is far away."""
    indices = np.arange(200)
    fine = draw(indices, 64)
    for resolution in (32, 16, 8):
        small = draw(indices, resolution)
        error = np.abs(box(fine, 64 // resolution) - small).mean((1, 2, 3))
        assert error.mean() < 1.5 and error.max() < 6
    assert np.abs(fine[10:].astype(int) - fine[:-10]).mean() > 30


def test_there_is_detail_that_lower_resolutions_lose() -> None:
    images = draw(np.arange(100), 64).astype(float)
    for factor in (2, 4, 8):
        small = box(images, factor)
        back = small.repeat(factor, 2).repeat(factor, 3)
        assert np.abs(images - back).mean() > 2


def test_largest_resolution_draws_every_class() -> None:
    images = draw(np.arange(10), 512)
    assert images.shape == (10, 3, 512, 512)
    assert np.abs(box(images, 16) - draw(np.arange(10), 32)).mean() < 2


def test_mirroring_the_scene_mirrors_the_image_exactly() -> None:
    scene = scenes.scenes(np.arange(50), seed=0, split="train")
    other = dataclasses.replace(scene, mirror=-scene.mirror)
    for label in range(10):
        rows = np.flatnonzero(scene.label == label)
        image = embedded._draw(scene[rows], label, 32)
        assert np.array_equal(embedded._draw(other[rows], label, 32), image[..., ::-1])


def test_distribution_is_symmetric_under_mirroring() -> None:
    """The mean image of a class equals its mirror image up to sampling error."""
    images = draw(np.arange(6000), 8).astype(float)
    assert abs((scenes.scenes(np.arange(6000), seed=0, split="train").mirror).mean()) < 0.05
    for label in range(10):
        odd = images[label::10] - images[label::10, ..., ::-1]
        z = odd.mean(0) / (odd.std(0) / np.sqrt(len(odd)) + 1e-9)
        assert np.abs(z).max() < 5  # 192 values, half of them independent


def test_uniforms_are_uniform_and_independent() -> None:
    u = scenes.uniforms(np.arange(20000), columns=8, seed=0, split="train")
    assert u.min() >= 0 and u.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in u.T])
    chi2 = ((counts - 1000) ** 2 / 1000).sum(1)
    assert chi2.max() < 50  # 19 degrees of freedom; P(>50) = 1e-4 a column
    along = np.corrcoef(np.concatenate([u[1:], u[:-1]], axis=1), rowvar=False)
    assert np.abs(along - np.eye(16)).max() < 5 / np.sqrt(20000)
    few = scenes.uniforms(np.array([7]), columns=3, seed=0, split="train")
    assert np.array_equal(few[0], u[7, :3])


def test_object_and_background_always_differ() -> None:
    s = scenes.scenes(np.arange(5000), seed=0, split="train")
    colours = (s.colour, s.accent, s.ground + s.ground_slope, s.ground - s.ground_slope)
    assert all(c.min() >= 0 and c.max() <= 1 for c in colours)
    luma = [c @ scenes.LUMA for c in colours]
    assert min(abs(luma[0] - end).min() for end in luma[2:]) > 0.2
    turn = abs(s.hue - s.ground_hue)
    assert np.minimum(turn, 1 - turn).min() > 0.17
    assert abs(luma[0] - luma[1]).min() > 0.2  # the second colour of stripes and checkers


def test_objects_fill_a_good_part_and_stay_inside() -> None:
    s = scenes.scenes(np.arange(5000), seed=0, split="train")
    assert s.radius.min() >= 0.22 and s.radius.max() <= 0.4
    assert (abs(s.centre).max(1) + s.radius).max() <= 0.48


def test_variety_is_the_range_of_everything_but_hue_and_mirroring() -> None:
    """A uniform number's standard deviation shrinks with it; at 0 each class has one pose."""
    index = np.arange(4000)
    whole = scenes.scenes(index, seed=0, split="train")
    half = scenes.scenes(index, seed=0, split="train", variety=0.5)
    none = scenes.scenes(index, seed=0, split="train", variety=0.0)
    for field in ("radius", "tilt", "shading"):
        for label in range(10):
            spread = [getattr(s, field)[label::10].std() for s in (whole, half, none)]
            np.testing.assert_allclose(spread, spread[0] * np.array([1, 0.5, 0]), atol=1e-12)
    assert np.array_equal(whole.hue, none.hue) and np.array_equal(whole.mirror, none.mirror)
    assert none.is_light.all() and not none.centre.any() and not none.tilt.any()
    assert half.is_light.all() and whole.is_light.mean() == pytest.approx(0.5, abs=0.03)
    assert np.ptp(none.light, axis=0).max() == np.ptp(none.gradient, axis=0).max() == 0


def test_classes_are_tellable_at_8x8() -> None:
    """A small convolutional network, trained for a moment, names held-out 8x8 images."""
    import torch

    torch.manual_seed(0)
    pixels, labels = draw(np.arange(3000), 32), np.arange(3000) % 10
    x = torch.from_numpy(box(pixels, 4) / 127.5 - 1).float()
    held_out = torch.from_numpy(box(draw(np.arange(500), 32, split="test"), 4) / 127.5 - 1).float()
    y, steps = torch.from_numpy(labels), 150
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip
    adam = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    right = net(held_out).argmax(1) == torch.arange(500) % 10
    assert right.float().mean() > 0.6
    assert min(float(right[label::10].float().mean()) for label in range(10)) > 0.2
