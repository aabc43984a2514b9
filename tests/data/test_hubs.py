"""Sets that others keep: torchvision's, Hugging Face's and parquet files."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda.errors import PagodaError
from tests.data.animals import ANIMALS, opened, pixels, zipped


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_torchvision_set_from_its_own_files(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for stem in ("train", "t10k"):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(x))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx((np.arange(20) % 10).astype(np.uint8)))
    source = opened("torchvision", tmp_path, hub="FashionMNIST", num_classes=10)
    assert source.classes[9] == "Ankle boot" and source.labels.tolist() == [*range(10)] * 2
    assert np.array_equal(np.asarray(source.load(12))[..., 0], x[12])
    array = source.array()
    assert array is not None and np.array_equal(array[:, 0], x)


def test_torchvision_imagenette_equals_its_files_in_a_zip(tmp_path: Path) -> None:
    """As torchvision unpacks it: imagenette2/{train,val}/SYNSET/*.JPEG, no split called test."""
    from torchvision.datasets import Imagenette

    root, rng = tmp_path / "downloads" / "imagenette2", np.random.default_rng(0)
    synsets = sorted(Imagenette._WNID_TO_CLASS)
    for k, name in enumerate(synsets):
        for split, count in (("train", 2 + k % 2), ("val", 1)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                content = rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
                image = Image.fromarray(content).convert("L" if k == 3 else "RGB")
                image.save(root / split / name / f"{name}_{i}.JPEG")
    for split, n in (("train", 25), ("test", 10)):
        how = {"split": split, "num_classes": 10}
        source = opened("torchvision", root.parent, hub="Imagenette", **how)
        packed = opened("zip", zipped(root, "imagenette2/"), **how)
        assert source.classes == packed.classes == tuple(synsets) and len(source) == n
        assert source.labels.tolist() == packed.labels.tolist()
        assert [f"imagenette2/{name}" for name in packed.names] == source.names
        for i in range(n):
            first, second = (np.asarray(s.load(i)) for s in (source, packed))
            assert np.array_equal(first, second)
        assert len(pickle.dumps(source)) > 0  # other processes decode it
    again = opened("torchvision", root.parent, hub="Imagenette", num_classes=10).fingerprint()
    first = root / "train" / synsets[0] / f"{synsets[0]}_0.JPEG"
    first.write_bytes(first.read_bytes()[:-1] + b"\0")  # of the same size
    source = opened("torchvision", root.parent, hub="Imagenette", num_classes=10)
    assert source.fingerprint() != again


def test_torchvision_offline_points_to_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    nowhere = ["http://127.0.0.1:9/"]  # the discard port: refused at once
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", nowhere)
    with pytest.raises(PagodaError, match=r"cannot get FashionMNIST.*data\.path") as error:
        opened("torchvision", tmp_path, hub="FashionMNIST", num_classes=10)
    assert "\n" not in str(error.value)
    with pytest.raises(PagodaError, match="torchvision has no data set of that name"):
        opened("torchvision", tmp_path, hub="NoSuchSet")


def test_hub_without_its_package_says_how_to_get_it() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(PagodaError, match=r"needs the package datasets.*data\.source=folder"):
            opened("hub", hub="mnist")
    else:
        pytest.skip("datasets is installed")


def test_hub_set_from_a_local_folder(folder: Path) -> None:
    pytest.importorskip("datasets")
    for file in folder.rglob("more/*.png"):  # datasets finds labels in flat folders only
        file.rename(file.parent.parent / file.name)
    source = opened("hub", hub=str(folder))
    assert source.classes == ("ant", "bee", "cat") and len(source) == 9
    seen = {np.asarray(source.load(i)).tobytes() for i in range(9)}
    assert seen == {pixels("train", c, i).tobytes() for c, n in ANIMALS["train"].items()
                    for i in range(n)}  # fmt: skip


def test_hub_split_with_withheld_labels_gives_way_to_validation(tmp_path: Path) -> None:
    """As ImageNet's test split, whose labels are all -1."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    )
    for split, labels in (("train", [0, 1, 2]), ("validation", [2, 1, 0]), ("test", [-1, -1, -1])):
        images = [Image.fromarray(pixels(split, "ant", i)) for i in range(3)]
        rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        rows.to_parquet(str(tmp_path / "data" / f"{split}-00000-of-00001.parquet"))
    source = opened("hub", hub=str(tmp_path), split="test")
    assert source.labels.tolist() == [0, 1, 2]
    assert np.array_equal(np.asarray(source.load(0)), pixels("validation", "ant", 2))


def test_parquet_with_plain_bytes_and_numbers(tmp_path: Path) -> None:
    """A file that no ``datasets`` wrote: image bytes in a struct, labels as numbers, no splits."""
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows: list[Any] = []
    for i in range(12):
        content = io.BytesIO()
        Image.fromarray(pixels("train", "ant", i)).save(content, "PNG")
        rows.append({"image": {"bytes": content.getvalue(), "path": f"{i}.png"}, "label": i % 3})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    sources = [opened("hub", hub=str(tmp_path / "set.parquet"), split=s, test_share=0.25)
               for s in ("train", "test")]  # fmt: skip
    seen = {np.asarray(s.load(i)).tobytes(): s.labels[i] for s in sources for i in range(len(s))}
    assert seen == {pixels("train", "ant", i).tobytes(): i % 3 for i in range(12)}
    assert [len(s) for s in sources] == [9, 3]
    before = [s.fingerprint() for s in sources]
    rows[4]["image"]["bytes"] = rows[4]["image"]["bytes"][:-1] + b"\0"  # of the same size
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    after = [opened("hub", hub=str(tmp_path / "set.parquet"), split=s, test_share=0.25)
             for s in ("train", "test")]  # fmt: skip
    assert sum(a != b.fingerprint() for a, b in zip(before, after, strict=True)) == 1


@pytest.mark.parametrize("exif", [False, True])
def test_hub_images_are_turned_only_where_asked_for(tmp_path: Path, exif: bool) -> None:
    """``datasets`` itself would turn them; a row without an image is named."""
    datasets = pytest.importorskip("datasets")
    upright, turn, content = pixels("train", "ant", 0), Image.Exif(), io.BytesIO()
    turn[0x0112] = 3
    Image.fromarray(upright).save(content, "PNG", exif=turn)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant"])}
    )
    images = [{"bytes": content.getvalue(), "path": None}, None]
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 0]}, features=features)
    rows.to_parquet(str(tmp_path / "data" / "train-00000-of-00001.parquet"))
    source = opened("hub", hub=str(tmp_path), num_classes=1, exif=exif)
    seen = upright[::-1, ::-1] if exif else upright
    assert np.array_equal(np.asarray(source.load(0)), seen)
    with pytest.raises(PagodaError, match=r"train image 1 of .* does not decode .there is none"):
        source.load(1)
    with pytest.raises(PagodaError, match=r"^1 of .* cannot be read .there is none"):
        source.fingerprint()
