"""Arrays in an npz file: images, labels, names; and files that hold no such thing."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from tests.data.animals import npz, opened


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz_round_trip(tmp_path: Path, channels: int | None) -> None:
    rng = np.random.default_rng(1)
    shape = (9, 5, 7) if channels is None else (9, 5, 7, channels)
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    source = opened("npz", npz(tmp_path / "set.npz", x_train=x))
    assert source.classes == ("shoe", "shirt", "bag")
    assert source.labels.tolist() == [0, 1, 2] * 3 and source.labels.dtype == np.int64
    order = [0, 3, 4, 1, 5, 7, 2, 6, 8]
    assert source.names == [f"x_train[{i}]" for i in order]
    expected = np.broadcast_to(x.reshape(9, 5, 7, -1), (9, 5, 7, 3))[order]
    for i in range(9):
        assert np.array_equal(np.asarray(source.load(i)), expected[i])
    array = source.array()
    assert array is not None
    assert np.array_equal(np.broadcast_to(array, (9, 3, 5, 7)), expected.transpose(0, 3, 1, 2))


def test_npz_without_class_names_or_with_pickled_ones_numbers_them(tmp_path: Path) -> None:
    assert opened("npz", npz(tmp_path / "a.npz", classes=None)).classes == ("0", "1", "2")
    names = np.array(["shoe", None, "bag"], dtype=object)
    assert opened("npz", npz(tmp_path / "b.npz", classes=names)).classes == ("0", "1", "2")


def test_compressed_and_plain_npz_hold_the_same(tmp_path: Path) -> None:
    plain = npz(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", **np.load(plain))
    a, b = opened("npz", plain), opened("npz", tmp_path / "b.npz")
    assert isinstance(a.pictures._pixels, np.memmap)  # type: ignore[attr-defined]
    assert np.array_equal(a.array(), b.array()) and a.fingerprint() == b.fingerprint()  # type: ignore[arg-type]


def test_npz_without_a_test_split_holds_a_share_out(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x_test=None, y_test=None)
    with pytest.raises(PagodaError, match="lacks x_test"):
        opened("npz", path, split="test")
    whole = np.load(path)
    train, test = (opened("npz", path, split=s, test_share=0.34) for s in ("train", "test"))
    rows = [int(n[8:-1]) for s in (train, test) for n in s.names]
    assert sorted(rows) == list(range(9)) and np.bincount(test.labels).tolist() == [1, 1, 1]
    for source in (train, test):
        array = source.array()
        assert array is not None
        where = [int(name[8:-1]) for name in source.names]
        assert np.array_equal(array[:, 0], whole["x_train"][where])
        assert np.array_equal(source.labels, whole["y_train"][where])
    assert train.fingerprint() != test.fingerprint()


def test_bytes_damaged_inside_an_npz_are_found(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # among the pixels of the first member
    path.write_bytes(content)
    with pytest.raises(PagodaError, match=r"x_train is damaged.*copy the file again"):
        opened("npz", path)


def test_other_files_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(PagodaError, match="no npz file"):
        opened("npz", tmp_path / "plain.npy")
    with pytest.raises(PagodaError, match="no npz file"):
        opened("npz", tmp_path / "text.npz")


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", y_train=np.array([0, 1, 2, 0, 1, 7, 0, 1, 2]))
    with pytest.raises(PagodaError, match=r"label 7 of train image 5 is out of range.*0 to 2"):
        opened("npz", path)
    path = npz(tmp_path / "set.npz", y_train=np.array([0, -1, 2, 0, 1, 1, 0, 1, 2]))
    with pytest.raises(PagodaError, match="label -1 of train image 1"):
        opened("npz", path)


def test_arrays_that_make_no_images_are_named(tmp_path: Path) -> None:
    mixed = np.empty(9, object)
    mixed[:] = [np.zeros((4 + i % 2, 4), np.uint8) for i in range(9)]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x_train": mixed}, "x_train is no plain array .mixed sizes"),
        ({"x_train": np.zeros((9, 4, 4), np.float32)}, "x_train is float32"),
        ({"x_train": np.zeros((9, 4, 4, 4), np.uint8)}, "x_train is uint8 with shape"),
        ({"x_train": np.zeros((8, 4, 4), np.uint8)}, "8 images and 9 labels"),
        ({"x_train": None}, "lacks x_train"),
        ({"y_train": np.linspace(0, 2, 9)}, "y_train must hold one whole number an image"),
    ]
    for i, (changes, message) in enumerate(cases):
        with pytest.raises(PagodaError, match=message):
            opened("npz", npz(tmp_path / f"{i}.npz", **changes))


def header(shape: object, dtype: str = "|u1", order: bool = False) -> bytes:
    """The head of an npy file that states what it likes."""
    text = repr({"descr": dtype, "fortran_order": order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def packed(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members with one name
        for name, content in members:
            archive.writestr(f"{name}.npy", content)
    return path


def flagged(path: Path, mark: bytes, offset: int, value: int) -> Path:
    """Set two bytes behind every zip header that starts with ``mark``."""
    content, at = bytearray(path.read_bytes()), -1
    while (at := content.find(mark, at + 1)) >= 0:
        content[at + offset : at + offset + 2] = struct.pack("<H", value)
    path.write_bytes(content)
    return path


def _pixels(**how: Any) -> tuple[str, bytes]:
    return "x_train", header((9, 5, 7), **how) + bytes(9 * 5 * 7)


def _labels() -> tuple[str, bytes]:
    return "y_train", header((9,)) + bytes([0, 1, 2] * 3)


def _encrypted(path: Path) -> Path:
    file = flagged(packed(path, _pixels(), _labels()), b"PK\x01\x02", 8, 1)
    return flagged(file, b"PK\x03\x04", 6, 1)


def _oddly_compressed(path: Path) -> Path:
    return flagged(packed(path, _pixels(), _labels()), b"PK\x01\x02", 10, 93)


def _scored(path: Path) -> np.ndarray:
    images = open_images(path, "train")
    return images.read(np.arange(len(images)))


READERS = {"pipeline": lambda path: opened("npz", path), "scoring": _scored}

HOSTILE: list[tuple[Callable[[Path], Path], str]] = [
    (_encrypted, "x_train is encrypted"),
    (_oddly_compressed, "x_train is compressed in a way that cannot be read"),
    (lambda p: packed(p, ("x_train", header((10, 5, 7)) + bytes(315)), _labels()),
     r"header says uint8 of shape \(10, 5, 7\), which is 4\d\d bytes, and it has 3\d\d"),
    (lambda p: packed(p, ("x_train", header((10**9, 5, 7)) + bytes(315)), _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", header((-9, 5, -7)) + bytes(315)), _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", header((9, 0, 7))), _labels()), "images must be uint8"),
    (lambda p: packed(p, ("x_train", header((10**9, 5, 7), "|V0")), _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", header("nine")), _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", b"no array"), _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(10**6)),
                      _labels()), "damaged"),
    (lambda p: packed(p, ("x_train", header((9,), "|O") + b"."), _labels()), "no plain array"),
    (lambda p: packed(p, _pixels(), _pixels(), _labels()), r"holds x_train.npy twice"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_npz_is_one_line_for_every_reader(
    tmp_path: Path, make: Callable[[Path], Path], message: str, reader: str
) -> None:
    path = make(tmp_path / "set.npz")
    with pytest.raises(PagodaError, match=message) as raised:
        READERS[reader](path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_an_unpacked_bomb_takes_no_memory(tmp_path: Path) -> None:
    """32 MiB of zeros behind the header of nine images, or as labels of nine images."""
    bomb = bytes(1 << 25)
    for members, message in (
        ([("x_train", header((9, 5, 7)) + bomb), _labels()], "x_train is damaged"),
        ([_pixels(), ("y_train", header((1 << 25,)) + bomb)], "9 images and 33554432 labels"),
        ([_pixels(), _labels(), ("classes", header((1 << 25,)) + bomb)], "one name a class"),
    ):
        path = packed(tmp_path / "bomb.npz", *members, method=zipfile.ZIP_DEFLATED)
        tracemalloc.start()
        with pytest.raises(PagodaError, match=message):
            opened("npz", path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 22, message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_fortran_order_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    x = np.random.default_rng(3).integers(0, 256, (9, 5, 7, 3), dtype=np.uint8)
    plain = npz(tmp_path / "c.npz", x_train=x)
    arrays = {**np.load(plain), "x_train": np.asfortranarray(x)}
    save(tmp_path / "f.npz", **arrays)
    c, f = opened("npz", plain), opened("npz", tmp_path / "f.npz")
    assert np.array_equal(f.array(), c.array()) and f.fingerprint() == c.fingerprint()  # type: ignore[arg-type]
    scored = open_images(tmp_path / "f.npz", "train")
    for rows in (np.array([4, 7]), np.arange(9)):
        assert np.array_equal(scored.read(rows), x[rows].transpose(0, 3, 1, 2))
