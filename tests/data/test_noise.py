"""Noise is a function of seed, stream and index, and is standard normal."""

from __future__ import annotations

import numpy as np

from pagoda.data.noise import standard_normal


def test_a_row_depends_on_its_index_alone() -> None:
    indices = np.array([5, 0, 123456789, 5])
    rows = standard_normal(3, indices, (3, 4, 4))
    assert rows.shape == (4, 3, 4, 4) and rows.dtype == np.float32
    assert np.array_equal(rows[0], rows[3])
    assert np.array_equal(standard_normal(3, indices[2:3], (3, 4, 4))[0], rows[2])


def test_a_larger_row_begins_with_the_smaller_one() -> None:
    """The stream of an index is read from its start."""
    few, many = (standard_normal(0, np.arange(4), (n,)) for n in (5, 50))
    assert np.array_equal(many[:, :5], few)


def test_seed_stream_and_index_give_independent_standard_normals() -> None:
    index, shape = np.arange(200), (100,)
    draws = [
        standard_normal(0, index, shape), standard_normal(1, index, shape),
        standard_normal(0, index + 200, shape), standard_normal(0, index, shape, "teacher"),
    ]  # fmt: skip
    flat = np.stack([draw.ravel() for draw in draws]).astype(float)
    n = flat.shape[1]
    assert np.abs(flat.mean(1)).max() < 4.5 / np.sqrt(n)
    assert np.abs(flat.var(1) - 1).max() < 4.5 * np.sqrt(2 / n)
    assert np.abs((flat**4).mean(1) - 3).max() < 4.5 * np.sqrt(96 / n)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 4.5 / np.sqrt(n)
    rows = np.corrcoef(draws[0].astype(float)) - np.eye(len(index))
    assert np.abs(rows).max() < 6 / np.sqrt(shape[0])
