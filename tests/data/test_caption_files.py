"""Captions beside images, in webdatasets and in files of COCO's."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.data.caption_files import captions_beside, captions_of_coco
from pagoda.errors import PagodaError

NAMES = ["train/a/1.png", "train/b/2.png"]


def folder(root: Path) -> Path:
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name)
    (root / "train/a/1.txt").write_text("a red\nring \n", encoding="utf-8")
    (root / "train/b/2.json").write_text(json.dumps({"caption": "ein Größenvergleich", "n": 1}))
    return root


def test_beside_images_in_a_folder_and_in_an_archive_under_any_folder(tmp_path: Path) -> None:
    wanted = ["a red ring", "ein Größenvergleich"]
    root = folder(tmp_path / "set" / "around")
    assert captions_beside(root, NAMES) == wanted
    assert captions_beside(tmp_path / "set", NAMES) == wanted
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(root, "data")
    assert captions_beside(tmp_path / "s.tar", NAMES) == wanted


def test_of_cocos_captions_the_first_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    tree = {"images": [{"id": 7, "file_name": "2.png"}, {"id": 9, "file_name": "x/1.png"}],
            "annotations": [{"id": 5, "image_id": 7, "caption": "later"},
                            {"id": 2, "image_id": 7, "caption": "first "},
                            {"id": 1, "image_id": 9, "caption": "one"}]}  # fmt: skip
    file.write_text(json.dumps(tree))
    assert captions_of_coco(file, NAMES) == ["one", "first"]
    for spoiled, wrong in (({"images": []}, "no file of COCO's"), ([], "no file of COCO's"),
                           (tree | {"annotations": []}, "1.png has no caption")):  # fmt: skip
        file.write_text(json.dumps(spoiled))
        with pytest.raises(PagodaError, match=wrong) as error:
            captions_of_coco(file, NAMES)
        assert "\n" not in str(error.value)


def test_a_missing_or_empty_caption_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/a/1.txt").write_text(" \n")
    with pytest.raises(PagodaError, match=r"train/a/1\.png has an empty caption"):
        captions_beside(root, NAMES)
    (root / "train/a/1.txt").unlink()
    with pytest.raises(PagodaError, match=r"train/a/1\.png has no caption .*a \.txt beside it"):
        captions_beside(root, NAMES)
    (root / "train/a/1.json").write_text("{")
    with pytest.raises(PagodaError, match="is no JSON"):
        captions_beside(root, NAMES)
