"""A sharded array reads and writes like one array."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from pagoda import artifacts
from pagoda.data import shards
from pagoda.data.shards import ShardedArray, create_shards, open_rows, read_at_random, shard_names
from pagoda.errors import PagodaError


def test_names() -> None:
    assert shard_names("z", 10, 10) == ["z.npy"]
    assert shard_names("z", 3, 10) == ["z.npy"]
    assert shard_names("z", 11, 5) == [f"z-0000{i}-of-00003.npy" for i in range(3)]


@pytest.mark.parametrize("shard", [1, 4, 7, 23, 100])
def test_rows_are_those_of_one_array(tmp_path: Path, shard: int) -> None:
    values = np.random.default_rng(0).standard_normal((23, 2, 3)).astype(np.float32)
    store = create_shards(tmp_path, "z", "float32", values.shape, shard)
    assert store.shape == values.shape and len(store) == 23 and store.dtype == np.float32
    for start in range(0, 23, 5):
        rows = slice(start, min(start + 5, 23))
        store[rows] = values[rows]
        store.flush(rows)
    again = create_shards(tmp_path, "z", "float32", values.shape, shard)  # opens what is there
    assert sorted(p.name for p in tmp_path.iterdir()) == shard_names("z", 23, shard)
    picked = np.array([22, 0, 7, 7, 3, 19])
    for one in (store, again):
        assert np.array_equal(one[picked], values[picked])
        assert np.array_equal(one[3:17], values[3:17]) and np.array_equal(one[:99], values)


def test_an_artifact_of_shards(tmp_path: Path) -> None:
    values = np.arange(5 * 3 * 2 * 2, dtype=np.float16).reshape(5, 3, 2, 2)
    with artifacts.create(tmp_path / "a", "latents", config={}) as out:
        store = create_shards(out, "latents", "float16", values.shape, 2)
        store[0:5] = values
        for name in ("indices", "labels"):
            np.save(out / f"{name}.npy", np.arange(5))
        np.save(out / "flips.npy", np.zeros(5, np.uint8))
        artifacts.write_json(out / "card.json", {})
    made = artifacts.open_artifact(tmp_path / "a", "latents")
    rows = open_rows(made, "latents")
    assert isinstance(rows, ShardedArray) and len(rows.parts) == 3
    assert np.array_equal(rows[0:5], values)
    assert made.manifest["files"]["latents-00001-of-00003.npy"]["units"].startswith("latents")
    with (tmp_path / "a" / "latents-00002-of-00003.npy").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    with pytest.raises(PagodaError, match="checksums differ"):
        artifacts.open_artifact(tmp_path / "a", "latents")


def _advised(path: Path) -> bool:
    """Whether the kernel marks this process's mapping of a file as read at random ("rr")."""
    blocks = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags:")
    return any(
        str(path) in here and "rr" in after.splitlines()[0].split()
        for here, after in itertools.pairwise(blocks)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_large_mapped_arrays_are_read_without_their_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(4 * 5000, dtype=np.float32).reshape(4, 5000)
    store = create_shards(tmp_path, "z", "float32", values.shape, 3)
    store[0:4] = values
    read_at_random(store)
    names = [tmp_path / name for name in shard_names("z", 4, 3)]
    assert not any(map(_advised, names))
    monkeypatch.setattr(shards, "LARGE", values.nbytes)
    read_at_random(store)  # decided by the size of the whole, not of a part
    assert all(map(_advised, names))
    assert np.array_equal(store[np.array([3, 0, 2])], values[[3, 0, 2]])
    read_at_random(values)  # an array in memory has nothing to advise
