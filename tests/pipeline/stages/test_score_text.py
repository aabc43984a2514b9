"""Images of captions are scored under a protocol whose name says all that changes the value."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pagoda.data.resize import RECIPES
from pagoda.errors import PagodaError
from pagoda.evaluation import streaming
from pagoda.evaluation.files import open_images
from pagoda.pipeline.cli import main
from pagoda.pipeline.stages import score
from pagoda.pipeline.stages.score import Features, Request, Source
from pagoda.pipeline.stages.score_text import Texts, protocol_of, write_captions
from pagoda.tensors import save_tensors
from pagoda.text_to_image.protocols import PROTOCOLS, read_captions
from tests.evaluation.requests import NET
from tests.group import run_group

NAME, PREFIX, N = "ViT-S-32-alt", "A photo depicts ", 12
CUSTOM = Features("custom:scorenet:embed", batch=5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of odd sizes, whose names sort otherwise than their numbers; real ones; captions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("scorenet.py").write_text(NET, "utf-8")
    draw = np.random.default_rng(0)
    for name, n, (h, w) in (("made", N, (33, 40)), ("val", 15, (37, 30))):
        Path(name).mkdir()
        for i in range(n):
            pixels = draw.integers(0, 256, (h + i, w, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{name}/{i}.png")
    Path("captions.txt").write_text("".join(f"a picture, number {i}\n" for i in range(N)), "utf-8")
    return tmp_path


def request(texts: Texts, **changes: Any) -> Request:
    source = Source(Path("made"), crop=texts.crop, size=texts.side)
    plain = Request(source, CUSTOM, Path("val"), metrics="fd", texts=texts)
    return dataclasses.replace(plain, **changes)


def texts(**changes: Any) -> Texts:
    gigagan = PROTOCOLS["gigagan"]
    return dataclasses.replace(Texts(Path("captions.txt"), gigagan.crop, 16), **changes)


def measured(r: Request) -> dict[str, dict[str, Any]]:
    tree = score.measure(r)
    assert tree is not None
    return {row["metric"]: row for row in tree["rows"]}


def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    open_clip = pytest.importorskip("open_clip")
    small = open_clip.get_model_config(NAME)
    small["vision_cfg"] |= {"layers": 1, "width": 64}
    small["text_cfg"] |= {"layers": 2, "width": 64, "heads": 4}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, NAME, small)
    torch.manual_seed(0)
    model, _, prepare = open_clip.create_model_and_transforms(NAME, pretrained=None)
    save_tensors(Path("w.safetensors"), {k: v.contiguous() for k, v in model.state_dict().items()})
    return (model.eval(), prepare, open_clip.get_tokenizer(NAME)), Path("w.safetensors")


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (501, 500), (503, 500), (256, 256)])
def test_crop_and_resize_are_torchvision_and_pillow(size: tuple[int, int], folder: Path) -> None:
    """``center_crop`` of torchvision rounds half a pixel to even; then Pillow's Lanczos."""
    from torchvision.transforms import functional

    w, h = size
    pixels = np.random.default_rng(1).integers(0, 256, (h, w, 3), dtype=np.uint8)
    (folder / "one").mkdir()
    Image.fromarray(pixels).save(folder / "one/0.png")
    gigagan = PROTOCOLS["gigagan"]
    ours = open_images(folder / "one", None, gigagan.crop, gigagan.side).read(np.arange(1))[0]
    square = functional.center_crop(Image.fromarray(pixels), [min(size)] * 2)
    theirs = np.asarray(square.resize((256, 256), Image.Resampling.LANCZOS))
    assert np.array_equal(ours.transpose(1, 2, 0), theirs)


def test_crops_differ_by_a_pixel_where_half_a_pixel_is_left() -> None:
    ramp = np.repeat(np.arange(13, dtype=np.uint8)[None] * 10, 10, axis=0)
    image = Image.fromarray(np.stack([ramp] * 3, axis=2))
    cuts = [np.asarray(RECIPES[name](image, 10))[0, 0, 0] for name in ("lanczos_torchvision",
                                                                      "lanczos")]  # fmt: skip
    assert cuts == [20, 10]  # 1.5 pixels: to 2, and to 1


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_clip_score_is_open_clips_own(
    prefix: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model, prepare, tokenize), file = tiny_clip(monkeypatch)
    asked = texts(clip=f"{NAME}:{file}", prefix=prefix)
    row = measured(request(asked))["clip_score"]
    images = [Image.open(f"made/{i}.png") for i in range(N)]  # in the captions' order
    squares = [RECIPES[asked.crop or ""](image, 16) for image in images]
    x = model.encode_image(torch.stack([prepare(s) for s in squares]), normalize=True)
    said = [f"{prefix}a picture, number {i}" for i in range(N)]
    y = model.encode_text(tokenize(said), normalize=True)
    assert row["value"] == pytest.approx((x * y).sum(1).mean().item(), abs=1e-6)
    assert row["n"] == N and row["low"] < row["value"] < row["high"]
    assert ("prefix_A_photo_depicts" if prefix else "no_prefix") in row["protocol"]
    assert f"clip_score_{N}_{NAME}_" in row["protocol"] and "77tokens" in row["protocol"]


def test_a_caption_beyond_the_limit_is_cut_as_by_the_tokenizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model, prepare, tokenize), file = tiny_clip(monkeypatch)
    long = [f"{i} " + "very " * 100 for i in range(N)]
    Path("captions.txt").write_text("\n".join(long), "utf-8")
    rows = [measured(request(texts(clip=f"{NAME}:{file}", tokens=t)))["clip_score"]
            for t in (77, 8)]  # fmt: skip
    images = [RECIPES["lanczos_torchvision"](Image.open(f"made/{i}.png"), 16) for i in range(N)]
    x = model.encode_image(torch.stack([prepare(image) for image in images]), normalize=True)
    y = model.encode_text(tokenize(long), normalize=True)
    assert rows[0]["value"] == pytest.approx((x * y).sum(1).mean().item(), abs=1e-6)
    assert rows[1]["value"] != rows[0]["value"] and "8tokens" in rows[1]["protocol"]


def _in_a_group(block: int) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(streaming, "BLOCK", block)
    sys.path.insert(0, ".")
    _, file = tiny_clip(patch)
    score.run(request(texts(clip=f"{NAME}:{file}"), out=Path(f"of-{block}.json")))


@pytest.mark.slow
def test_two_processes_share_the_images_and_give_the_values_of_one(folder: Path) -> None:
    pytest.importorskip("open_clip")
    assert run_group(2, _in_a_group, 5, folder=folder) == [0, 0]  # three blocks
    assert run_group(1, _in_a_group, 64, folder=folder) == [0]
    found = [json.loads(Path(f"of-{block}.json").read_text("utf-8"))["rows"] for block in (5, 64)]
    for a, b in zip(*found, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6) and a["protocol"] == b["protocol"]


def test_a_set_is_at_no_distance_from_itself(folder: Path) -> None:
    row = measured(request(texts(), reference=Path("made")))["fd"]
    assert abs(row["value"]) < 1e-6


def test_whatever_changes_the_value_changes_the_name(folder: Path) -> None:
    """Captions, their order, real images, crop, side, and n: none shares a column with another."""
    lines = Path("captions.txt").read_text("utf-8").splitlines()
    Path("turned.txt").write_text("\n".join(reversed(lines)), "utf-8")
    variants = [
        request(texts()),
        request(texts(file=Path("turned.txt"))),
        request(texts(), reference=Path("made")),
        request(texts(crop="lanczos")),
        request(texts(side=12)),
    ]
    rows = [measured(r)["fd"] for r in variants]
    Path("made/11.png").unlink()
    rows.append(measured(request(texts(), n=N - 1))["fd"])
    names = [row["protocol"] for row in rows]
    assert len(set(names)) == len(names)
    assert all(re.search(r"_captions_.+_[0-9a-f]{8}_", name) for name in names)
    assert names[0].startswith(f"fd_custom_scorenet_embed_{N}_captions_captions_")
    assert "_real_val_15_" in names[0] and names[0].endswith("_lanczos_torchvision16")
    assert f"_{N - 1}_captions" in names[-1]


def test_arrays_are_cut_like_files(folder: Path) -> None:
    """Images of one size in an array and as files have the same distance."""
    pixels = np.random.default_rng(2).integers(0, 256, (N, 33, 24, 3), dtype=np.uint8)
    Path("same").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(f"same/{i}.png")
    np.savez("same.npz", arr_0=pixels)
    cut = texts()
    found = [measured(request(cut, source=Source(Path(p), crop=cut.crop, size=cut.side)))["fd"]
             for p in ("same", "same.npz")]  # fmt: skip
    assert found[0]["value"] == pytest.approx(found[1]["value"], rel=1e-9)
    assert found[0]["protocol"] == found[1]["protocol"]


def test_cocos_captions_are_one_an_image_that_of_the_lowest_id(folder: Path) -> None:
    images = [{"id": i, "file_name": f"COCO_val2014_{i}.jpg"} for i in reversed(range(N))]
    told = [{"id": 100 * k + i, "image_id": i, "caption": f"image  {i}, caption {k}"}
            for k in (1, 0) for i in range(N)]  # fmt: skip
    Path("coco.json").write_text(json.dumps({"images": images, "annotations": told}), "utf-8")
    found = read_captions(Path("coco.json"))
    assert found.texts == tuple(f"image {i}, caption 0" for i in range(N))
    few = read_captions(Path("coco.json"), 5)
    assert len(few.texts) == 5 and set(few.texts) < set(found.texts)
    write_captions(Path("coco.json"), 5, Path("five.txt"))
    assert read_captions(Path("five.txt")).fingerprint == few.fingerprint


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        (
            N - 1,
            {},
            r"made has 12 images, and there are 11 captions in captions; they must be as many",
        ),
        (N, {"clip": f"{NAME}:none.safetensors"}, r"no weights none.safetensors of open_clip's"),
        (N, {"clip": "ViT-nobody:w.safetensors"}, r"open_clip has no model 'ViT-nobody'"),
        (N, {"file": Path("none.txt")}, r"none.txt is missing"),
    ],
)
def test_refused_in_one_line(
    lines: int, changes: dict[str, Any], message: str, folder: Path
) -> None:
    pytest.importorskip("open_clip")
    kept = Path("captions.txt").read_text("utf-8").splitlines()[:lines]
    Path("captions.txt").write_text("\n".join(kept), "utf-8")
    with pytest.raises(PagodaError, match=message):
        score.measure(request(texts(**changes)))


@pytest.mark.parametrize(("crop", "same"), [("lanczos_torchvision", True), ("lanczos", False)])
def test_a_kept_reference_is_taken_where_it_was_cut_alike(
    crop: str, same: bool, folder: Path
) -> None:
    score.make_reference(Source(Path("val"), None, crop, 16), CUSTOM, None, 10, False, Path("ref"))
    kept = request(texts(), reference=Path("ref"))
    if same:
        assert measured(kept)["fd"]["value"] == measured(request(texts()))["fd"]["value"]
        return
    with pytest.raises(PagodaError, match=r"ref was cut by the recipe lanczos, images of"):
        score.measure(kept)


def test_an_empty_caption_is_named(folder: Path) -> None:
    Path("captions.txt").write_text("one\n\nthree\n", "utf-8")
    with pytest.raises(PagodaError, match=r"captions.txt, line 2 is empty"):
        read_captions(Path("captions.txt"))


def test_the_command_takes_a_protocol_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["pagoda", "evaluate", "--images", "made", "--reference", "val", "--extractor",
            "custom:scorenet:embed", "--metrics", "fd", "--captions", "captions.txt"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*argv, "--protocol", "gigagan", "--size", "16"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert "_lanczos_torchvision16" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*argv, "--protocol", "other"])
    with pytest.raises(SystemExit):
        main()
    assert "--protocol other; it must be one of: gigagan" in capsys.readouterr().err
    assert protocol_of(None) is None
