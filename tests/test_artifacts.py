"""Artifacts: what goes in comes out, whole or not at all, and damage never goes unnoticed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.kinds import KINDS
from tests.disk import another_user

CONFIG = {"name": "tiny", "base_res": 8}


def latents(seed: int = 0, n: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "latents": rng.standard_normal((n, 3, 8, 8)).astype(np.float32),
        "indices": np.arange(n) // 2,
        "flips": (np.arange(n) % 2).astype(np.uint8),
        "labels": rng.integers(0, 10, n),
    }


def write(path: Path, arrays: dict[str, np.ndarray] | None = None, **more: Any) -> Artifact:
    arrays = latents() if arrays is None else arrays
    with artifacts.create(path, "latents", **({"config": CONFIG} | more)) as out:
        for name, array in arrays.items():
            np.save(out / f"{name}.npy", array)
        artifacts.write_json(out / "card.json", {"steps": 4, "solver": "heun"})
    return artifacts.open_artifact(path, "latents")


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[PagodaError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_every_field_comes_back(tmp_path: Path) -> None:
    arrays = latents()
    parent = write(tmp_path / "parent", latents(9))
    made = write(tmp_path / "a" / "b", arrays, inputs={"data": parent})
    for name, array in arrays.items():
        back = made.array(name)
        assert back.dtype == array.dtype and np.array_equal(back, array)
    assert made.card() == {"steps": 4, "solver": "heun"}
    assert made.config == CONFIG
    assert made.manifest["inputs"] == {"data": parent.fingerprint}
    entry = made.manifest["files"]["latents.npy"]
    assert entry["shape"] == [5, 3, 8, 8] and entry["dtype"] == "float32"
    assert entry["bytes"] == (made.path / "latents.npy").stat().st_size
    assert entry["units"] == KINDS["latents"]["latents.npy"].units


def test_arrays_are_read_only(tmp_path: Path) -> None:
    big = latents(n=2000)  # over a megabyte: memory-mapped
    assert big["latents"].nbytes > 1 << 20
    back = write(tmp_path / "a", big).array("latents")
    assert np.array_equal(back, big["latents"])
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 0


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    module = module.to(memory_format=torch.channels_last)
    with artifacts.create(tmp_path / "t", "teacher", config=CONFIG) as out:
        artifacts.save_model(out, module, {"width": 4})
    back = artifacts.open_artifact(tmp_path / "t", "teacher", CONFIG)
    weights = back.weights()
    assert back.card() == {"width": 4} and weights.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(weights[name], value)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    assert a.fingerprint == b.fingerprint
    manifests = [(x.path / artifacts.MANIFEST).read_bytes() for x in (a, b)]
    assert manifests[0] == manifests[1]
    other = latents()
    other["latents"][0, 0, 0, 0] += 1
    assert write(tmp_path / "c", other).fingerprint != a.fingerprint


def test_an_older_artifact_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a")
    again = write(tmp_path / "a", latents(1))
    assert np.array_equal(again.array("latents"), latents(1)["latents"])
    assert left_over(tmp_path) == ["a"]


def test_a_missing_file_of_the_kind(tmp_path: Path) -> None:
    incomplete = latents()
    del incomplete["flips"]
    with pytest.raises(PagodaError) as error:
        write(tmp_path / "a", incomplete)
    one_line(error, "flips.npy", "latents")
    assert left_over(tmp_path) == []


def test_nothing_is_left_when_the_body_raises(tmp_path: Path) -> None:
    before = write(tmp_path / "a")
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="boom"),
        artifacts.create(tmp_path / "a", "latents", config=CONFIG) as out,
    ):
        np.save(out / "latents.npy", latents(1)["latents"])
        raise RuntimeError("boom")
    assert left_over(tmp_path) == ["a"]
    assert artifacts.open_artifact(tmp_path / "a", "latents").fingerprint == before.fingerprint


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(PagodaError) as error,
        artifacts.create(tmp_path / "a", "latents", config=CONFIG),
    ):
        raise OSError(28, os.strerror(28))
    one_line(error, str(tmp_path / "a"), os.strerror(28))
    assert left_over(tmp_path) == []


def test_a_truncated_array(tmp_path: Path) -> None:
    file = write(tmp_path / "a").path / "latents.npy"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "latents")
    one_line(error, "latents.npy", "truncated", "dvc repro")


def test_a_changed_byte(tmp_path: Path) -> None:
    file = write(tmp_path / "a").path / "latents.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "latents")
    one_line(error, "latents.npy", "checksum", "dvc repro")


def test_a_deleted_file(tmp_path: Path) -> None:
    (write(tmp_path / "a").path / "labels.npy").unlink()
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "latents")
    one_line(error, "labels.npy", "missing", "dvc repro")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"kind": "latents"}',
        "[]",
        "7",
    ],
)
def test_a_damaged_manifest(tmp_path: Path, text: str) -> None:
    (write(tmp_path / "a").path / artifacts.MANIFEST).write_text(text)
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "latents")
    one_line(error, artifacts.MANIFEST, "damaged")


def test_another_kind(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "teacher")
    one_line(error, "latents", "teacher")


def test_another_configuration_names_key_and_both_values(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert artifacts.open_artifact(tmp_path / "a", "latents", CONFIG).config == CONFIG
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "a", "latents", {"name": "tiny", "base_res": 16})
    one_line(error, "base_res", "= 8", "16", "dvc repro")


def test_a_missing_artifact(tmp_path: Path) -> None:
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(tmp_path / "nothing", "latents")
    one_line(error, str(tmp_path / "nothing"), "missing", "dvc repro")


@pytest.mark.parametrize(
    ("name", "array"),
    [("latents", np.zeros((5, 8, 8), np.float32)), ("flips", np.zeros(5, np.int64))],
)
def test_an_array_of_another_form_is_refused(tmp_path: Path, name: str, array: np.ndarray) -> None:
    made = write(tmp_path / "a", latents() | {name: array})
    with pytest.raises(PagodaError) as error:
        made.array(name)
    one_line(error, f"{name}.npy", "damaged")


def test_digest_ignores_the_order_of_keys() -> None:
    a = {"x": 1, "y": {"a": 2, "b": 3}}
    b = json.loads('{"y": {"b": 3, "a": 2}, "x": 1}')
    assert artifacts.digest(a) == artifacts.digest(b) != artifacts.digest(a | {"x": 2})


def test_large_files_are_read_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setattr(artifacts, "_LARGE", 500)
    read: list[str] = []
    plain = artifacts.sha256

    def counted(path: Path) -> str:
        read.append(path.name)
        return plain(path)

    monkeypatch.setattr(artifacts, "sha256", counted)
    made = write(tmp_path / "runs" / "a")
    assert "latents.npy" in read
    read.clear()
    artifacts.open_artifact(made.path, "latents")
    assert "latents.npy" not in read and "labels.npy" in read
    file = made.path / "latents.npy"
    shutil.copy(file, tmp_path / "copy")
    (tmp_path / "copy").rename(file)  # as a checkout does: the same bytes, another file
    artifacts.open_artifact(made.path, "latents")
    assert "latents.npy" in read
    read.clear()
    artifacts.open_artifact(made.path, "latents")
    assert "latents.npy" not in read
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(PagodaError, match=r"latents\.npy is damaged \(checksums differ\)"):
        artifacts.open_artifact(made.path, "latents")
    assert left_over(tmp_path / "runs") == ["a"]  # the record lies elsewhere


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan = tmp_path / f".a.partial-{platform.node()}-{dead.pid}"
    alive = tmp_path / f".a.partial-{platform.node()}-{os.getppid()}"
    elsewhere = tmp_path / f".a.partial-another-machine-{dead.pid}"
    for folder in (orphan, alive, elsewhere):
        folder.mkdir()
    write(tmp_path / "a")
    assert not orphan.exists() and alive.exists() and elsewhere.exists()


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / artifacts.MANIFEST).read_text())
    change(manifest)
    (path / artifacts.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(files={}), "its fingerprint is not that of its files"),
        (lambda m: m.update(files={}, fingerprint=artifacts.digest({})), "lists no latents.npy"),
        (lambda m: m.update(fingerprint="0" * 64), "its fingerprint is not that of its files"),
        (lambda m: m["files"].pop("flips.npy"), "its fingerprint is not that of its files"),
        (lambda m: m["files"].update({"../x": m["files"]["flips.npy"]}), "'../x' is no file of it"),
        (lambda m: m["files"]["flips.npy"].update(bytes="9"), "'flips.npy' is no file of it"),
        (lambda m: m["files"].update({"flips.npy": None}), "is damaged"),
        (lambda m: m.update(files=[]), "is damaged"),
        (lambda m: m.update(config=[1]), "is damaged"),
        (lambda m: m.pop("fingerprint"), "is damaged"),
        (lambda m: m.update(format=2), "format 2, which a newer pagoda wrote.*reads up to 1"),
        (lambda m: m.update(format="new"), "format 'new'"),
        (lambda m: m.update(format=True), None),  # equal to 1
        (lambda m: m.pop("format"), None),  # as before there was one
    ],
)
def test_a_manifest_is_held_against_its_files(
    change: Callable[[dict[str, Any]], object], said: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "a").path
    assert json.loads((path / artifacts.MANIFEST).read_text())["format"] == 1
    rewritten(path, change)
    if said is None:
        artifacts.open_artifact(path, "latents")
        return
    with pytest.raises(PagodaError, match=said) as error:
        artifacts.open_artifact(path, "latents")
    one_line(error, "a")


@pytest.mark.parametrize(
    "text", ["[" * 20_000, '{"kind": NaN}', "\xff\xfe".encode("latin-1"), "[1]", '"x"']
)
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str | bytes) -> None:
    path = write(tmp_path / "a").path
    for name in (artifacts.MANIFEST, "card.json"):
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PagodaError) as error:
        artifacts.open_artifact(path, "latents")
    one_line(error, artifacts.MANIFEST, "damaged")
    with pytest.raises(PagodaError) as error:
        Artifact(path, {"kind": "latents"}).card()
    one_line(error, "card.json", "damaged")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_written(value: float, tmp_path: Path) -> None:
    for weight, card in ((value, 0.0), (0.0, value)):
        with (
            pytest.raises(PagodaError, match="NaN or infini") as error,
            artifacts.create(tmp_path / "t", "teacher", config={}) as out,
        ):
            artifacts.save_weights(out, {"a": torch.tensor([weight])}, {"loss": card})
        one_line(error)
        assert left_over(tmp_path) == []


def test_a_damaged_array_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a").path
    for content in (b"", b"\x93NUMPY\x01\x00v\x00{'descr': [", b"PK\x03\x04", os.urandom(200)):
        (path / "flips.npy").write_bytes(content)
        with pytest.raises(PagodaError) as error:
            Artifact(path, {"kind": "latents"}).array("flips")
        one_line(error, "flips.npy", "damaged")


@pytest.mark.parametrize("name", [artifacts.MANIFEST, "latents.npy"])
def test_what_may_not_be_read_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    write(tmp_path / "made")
    (tmp_path / "made" / name).chmod(0)
    with another_user(tmp_path), pytest.raises(PagodaError, match=f"{name}: permission denied"):
        artifacts.open_artifact("made", "latents")
