"""A file that runs code when it is unpickled, put at every door, runs none and is one line.

The doors are opened for real, with the loaders of others behind them; what is watched is what
happens, not what our source says: whether the code ran, and whether anything unpickled a name.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import open_extractor
from pagoda.evaluation.features.dinov2 import weight_file as dinov2_file
from pagoda.evaluation.features.inception import MODES, weight_file
from pagoda.evaluation.files import open_images
from pagoda.evaluation.metrics.lpips import Lpips
from pagoda.evaluation.reference import from_artifact
from pagoda.evaluation.statistics_files import read_statistics, refuse_pickle
from pagoda.kinds import KINDS
from pagoda.losses.distances import LpipsDistance
from pagoda.networks.backbones import Backbone
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import load_generator
from pagoda.text_to_image.model import load_diffusers
from pagoda.weight_files import LPIPS
from pagoda.weights.converted import Options
from pagoda.weights.read import read_weights
from tests.evaluation.features.stand_ins import write_inception

CPU = torch.device("cpu")
HUB = Path("hub/checkpoints")
_SEEN: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _SEEN is not None and event == "pickle.find_class":
        _SEEN.append(".".join(args))


sys.addaudithook(_watch)


@contextlib.contextmanager
def unpickled() -> Iterator[list[str]]:
    """Names that any plain unpickler of this process looks up, whoever calls it."""
    global _SEEN
    seen: list[str] = []
    _SEEN = seen
    try:
        yield seen
    finally:
        _SEEN = None


class Evil:
    """Makes the folder ``ran`` when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def archive(file: Path) -> None:
    torch.save({"a": Evil()}, file)


def legacy(file: Path) -> None:
    torch.save({"a": Evil()}, file, _use_new_zipfile_serialization=False)


def plain(file: Path) -> None:
    file.write_bytes(pickle.dumps(Evil()))


def text(file: Path) -> None:
    file.write_bytes(pickle.dumps(Evil(), protocol=0))


def objects(file: Path) -> None:
    evil = np.array([Evil()])
    np.savez(file.with_suffix(".npz"), mu=evil, sigma=np.eye(1), arr_0=evil)
    file.with_suffix(".npz").rename(file)


FORMS = (archive, legacy, plain, text, objects)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HUB.mkdir(parents=True)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"), raising=False)


def weights_given(extractor: str) -> Callable[[Path], Any]:
    return lambda file: open_extractor(extractor, CPU, 2, file)


def in_the_cache(name: str, door: Callable[[], Any]) -> Callable[[Path], Any]:
    def opened(file: Path) -> Any:
        file.rename(HUB / name)
        return door()

    return opened


def in_a_folder(name: str, door: Callable[[str], Any]) -> Callable[[Path], Any]:
    def opened(file: Path) -> Any:
        Path("folder").mkdir()
        file.rename(Path("folder") / name)
        return door("folder")

    return opened


def dinov2(file: Path) -> Any:
    Path("code").mkdir()
    Path("code/hubconf.py").write_text(
        "import torch\ndef dinov2_vits14(*, pretrained):\n    return torch.nn.Linear(1, 1)\n",
        encoding="utf-8",
    )
    return open_extractor("dinov2:vits14", CPU, 2, file, Path("code"))


def imported(suffix: str) -> Callable[[Path], Any]:
    return lambda file: read_weights(file.rename(file.with_suffix(suffix)), Options())


def in_an_artifact(kind: str, name: str, door: Callable[[Any], Any]) -> Callable[[Path], Any]:
    def opened(file: Path) -> Any:
        with artifacts.create("made", kind, config={}) as out:
            for other in KINDS[kind]:
                (out / other).write_text("{}")
                if other.endswith(".npy"):
                    np.save(out / other, np.zeros((1, 1)))
        held = artifacts.peek("made", kind)
        file.rename(held.path / name)  # behind the checksums, as whoever writes these would do
        return door(held)

    return opened


def in_a_pipeline(name: str) -> Callable[[Path], Any]:
    """Of diffusers, as the weights of its U-Net under a name."""

    def opened(file: Path) -> Any:
        pytest.importorskip("diffusers")
        index = {"_class_name": "IFPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
                 "scheduler": ["diffusers", "DDPMScheduler"]}  # fmt: skip
        for place, tree in (("model_index", index), ("scheduler/scheduler_config", {}),
                            ("unet/config", {"cross_attention_dim": 8})):  # fmt: skip
            Path("pipe", place).parent.mkdir(parents=True, exist_ok=True)
            artifacts.write_json(Path("pipe", f"{place}.json"), tree)
        file.rename(Path("pipe/unet") / name)
        return load_diffusers("pipe", "cpu")

    return opened


DOORS: dict[str, Callable[[Path], Any]] = {
    **{f"inception {mode}": weights_given(f"inception:{mode}") for mode in MODES},
    **{
        f"inception {mode} in the cache": in_the_cache(
            weight_file(mode).name, partial(open_extractor, f"inception:{mode}", CPU, 2)
        )
        for mode in MODES
    },
    "dinov2": dinov2,
    "dinov2 in the cache": in_the_cache(
        dinov2_file("vits14").name, lambda: dinov2(None)  # type: ignore[arg-type]
    ),
    "custom": lambda file: open_extractor(f"custom:{file}", CPU, 2),
    "lpips": lambda file: Lpips("alex", file),
    "lpips in the cache": in_the_cache(LPIPS["squeeze"].name, lambda: Lpips("squeeze")),
    "distance in the cache": in_the_cache(
        LPIPS["vgg"].name, lambda: LpipsDistance("pretrained")
    ),
    **{
        f"backbone {suffix}": in_a_folder(
            f"resnet10t{suffix}", lambda folder: Backbone("resnet10t", folder)
        )
        for suffix in (".pth", ".pt", ".safetensors")
    },
    **{f"import {suffix}": imported(suffix) for suffix in (".pkl", ".pt", ".pth")},
    "teacher": in_an_artifact(
        "teacher", "model.safetensors", lambda held: held.network(load_denoiser)
    ),
    "generator": in_an_artifact(
        "generator", "model.safetensors", lambda held: held.network(load_generator)
    ),
    "reference": in_an_artifact("reference", "manifold.npy", lambda held: from_artifact(held)),
    "diffusers": in_a_pipeline("diffusion_pytorch_model.safetensors"),
    "diffusers, a pickle": in_a_pipeline("diffusion_pytorch_model.bin"),
    "statistics": lambda file: read_statistics(file, None),
    "pickled statistics": lambda file: refuse_pickle(file.with_suffix(".pkl")),
    "images": lambda file: open_images(file.rename(file.with_suffix(".npz")), None, None, None),
    "pickled images": lambda file: open_images(
        file.rename(file.with_suffix(".pt")), None, None, None
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_code_in_a_file_runs_at_no_door(door: str, form: Callable[[Path], None]) -> None:
    file = Path("weights of mine")
    form(file)
    with unpickled() as seen, pytest.raises(PagodaError) as raised:
        DOORS[door](file)
    assert not Path("ran").exists() and "posix.mkdir" not in seen
    line = str(raised.value)
    assert "\n" not in line and "weights_only" not in line and "persistent IDs" not in line


def test_the_files_are_what_they_claim_to_be() -> None:
    """Each runs its code where a loader is not careful, and the watch sees it."""
    for form in FORMS:
        file = Path("weights of mine")
        form(file)
        with unpickled() as seen, contextlib.suppress(AttributeError):
            if form in (archive, legacy):
                torch.load(file, weights_only=False)
            elif form is objects:
                np.load(file, allow_pickle=True)["mu"]
            else:
                pickle.loads(file.read_bytes())
        assert "posix.mkdir" in seen
        Path("ran").rmdir()


def test_torchscript_that_is_not_the_published_file_is_not_run() -> None:
    """Loading one runs it, so that what it says of itself comes too late."""
    write_inception(Path(weight_file("clean").name))
    for given in (None, Path(), Path(weight_file("clean").name)):
        with pytest.raises(PagodaError, match="is not the published inception-2015-12-05"):
            open_extractor("inception:clean", CPU, 2, given)


@pytest.mark.parametrize("name", [LPIPS["alex"].name, "mine.pth"])
def test_a_name_with_a_hash_is_held_to_it(name: str) -> None:
    """A file under torch.hub's name has the content of that name; under another it is taken."""
    torch.save({"features.0.weight": torch.zeros(1)}, name)
    said = "is not the published" if name != "mine.pth" else "lacks the weights of"
    with pytest.raises(PagodaError, match=said):
        Lpips("alex", Path(name))
