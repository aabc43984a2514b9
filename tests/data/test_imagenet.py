"""ImageNet as it is distributed: synset folders, and where the truth about ``val`` comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.errors import PagodaError
from tests.data.animals import opened, pixels, zipped


def imagenet(root: Path, prefix: str = "ILSVRC/Data/CLS-LOC/") -> list[str]:
    """Three synsets; returns those of the validation images, in the order of their names."""
    truth = ["n03", "n01", "n02", "n01"]
    for i, name in enumerate(["n01", "n02", "n03"] * 2):
        (root / prefix / "train" / name).mkdir(parents=True, exist_ok=True)
        place = root / prefix / "train" / name / f"{name}_{i}.JPEG"
        Image.fromarray(pixels("train", name, i)).save(place, "JPEG")
    (root / prefix / "val").mkdir()
    for i, name in enumerate(truth, 1):
        place = root / prefix / "val" / f"ILSVRC2012_val_{i:08d}.JPEG"
        Image.fromarray(pixels("val", name, i)).save(place, "JPEG")
    return truth


def kaggle(root: Path, truth: list[str]) -> None:
    rows = [f"ILSVRC2012_val_{i:08d},{n} 1 2 3 4 " for i, n in enumerate(truth, 1)]
    text = "\n".join(["ImageId,PredictionString", *rows[::-1]])  # its rows are in no order
    (root / "LOC_val_solution.csv").write_text(text)


def devkit(root: Path, truth: list[str]) -> None:
    """IDs follow the order n02, n03, n01, not that of names; one internal synset besides."""
    from scipy.io import savemat

    ids = {"n02": 1, "n03": 2, "n01": 3, "n99": 4}
    table = np.array([(i, n) for n, i in ids.items()], [("ILSVRC2012_ID", "f8"), ("WNID", "O")])
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": table})
    text = "".join(f"{ids[n]}\n" for n in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("how", [kaggle, devkit])
@pytest.mark.parametrize("prefix", ["ILSVRC/Data/CLS-LOC/", ""])
@pytest.mark.parametrize("packed", [False, True])
def test_imagenet_as_it_is_distributed(
    tmp_path: Path, how: Callable[[Path, list[str]], None], prefix: str, packed: bool
) -> None:
    root = tmp_path / "in1k"
    truth = imagenet(root, prefix)
    how(root, truth)
    path = zipped(root) if packed else root
    train, test = (opened("imagenet", path, split=s) for s in ("train", "test"))
    assert train.classes == test.classes == ("n01", "n02", "n03")
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert test.passed_over == ""  # the truth is read
    for i, name in enumerate(test.names):
        number = int(name[-13:-5])
        assert test.classes[test.labels[i]] == truth[number - 1]
        with Image.open(root / prefix / "val" / name.rsplit("/", 1)[1]) as image:
            assert np.array_equal(np.asarray(test.load(i)), np.asarray(image))


def test_imagenet_with_val_in_synset_folders_needs_no_ground_truth(tmp_path: Path) -> None:
    truth = imagenet(tmp_path, "")
    for i, name in enumerate(truth, 1):
        (tmp_path / "val" / name).mkdir(exist_ok=True)
        file = tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.JPEG"
        file.rename(tmp_path / "val" / name / file.name)
    test = opened("imagenet", tmp_path, split="test")
    assert sorted(test.classes[y] for y in test.labels) == sorted(truth)


def test_imagenet_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match="no train/SYNSET"):
        opened("imagenet", tmp_path)
    truth = imagenet(tmp_path, "")
    assert len(opened("imagenet", tmp_path)) == 6
    with pytest.raises(PagodaError, match=r"no ground truth of val/; put LOC_val_solution\.csv"):
        opened("imagenet", tmp_path, split="test")
    kaggle(tmp_path, truth[:-1])
    with pytest.raises(PagodaError, match="has no line for ILSVRC2012_val_00000004"):
        opened("imagenet", tmp_path, split="test")
    kaggle(tmp_path, ["n07", *truth[1:]])
    with pytest.raises(PagodaError, match="synset n07 is in val but not in train; unpack all"):
        opened("imagenet", tmp_path, split="test")
    (tmp_path / "LOC_val_solution.csv").unlink()
    devkit(tmp_path, truth[:-1])
    with pytest.raises(PagodaError, match="3 lines for 4 images"):
        opened("imagenet", tmp_path, split="test")
