"""A network under the names of others, written out by hand, comes back as the same function."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.generator import Generator, load_generator
from pagoda.networks.unet import UNetSpec
from pagoda.pipeline.cli import app
from pagoda.pipeline.stages.import_weights import run
from pagoda.weights.converted import Options

SPEC = UNetSpec(8, 32, (1, 2), 1, (4,), 16, 0.0, 5, min_group=1)
OPTIONS = Options(resolution=8, head_channels=16)

ADM = {
    "trunk.time_in": "time_embed.0",
    "trunk.time_out": "time_embed.2",
    "trunk.label": "label_emb",
    "trunk.stem": "input_blocks.0.0",
    "trunk.encoder.0.block": "input_blocks.1.0",
    "trunk.encoder.1.block": "input_blocks.2.0",
    "trunk.encoder.2.block": "input_blocks.3.0",
    "trunk.encoder.2.attention": "input_blocks.3.1",
    "trunk.middle.0.block": "middle_block.0",
    "trunk.middle.0.attention": "middle_block.1",
    "trunk.middle.1.block": "middle_block.2",
    "trunk.decoder.0.0.block": "output_blocks.0.0",
    "trunk.decoder.0.0.attention": "output_blocks.0.1",
    "trunk.decoder.1.0.block": "output_blocks.1.0",
    "trunk.decoder.1.0.attention": "output_blocks.1.1",
    "trunk.decoder.1.1.block": "output_blocks.1.2",
    "trunk.decoder.2.0.block": "output_blocks.2.0",
    "trunk.decoder.3.0.block": "output_blocks.3.0",
    "levels.0.stages.0": "output_blocks.4.0",
    "levels.0.stages.1": "output_blocks.5.0",
    "levels.0.stages.2": "output_blocks.6.0",
    "levels.1.stages.0": "output_blocks.7.0",
    "levels.1.stages.1": "output_blocks.8.0",
    "levels.1.stages.2": "output_blocks.9.0",
    "head.0": "out.0",
    "head.2": "out.2",
}
ADM_PARTS = {
    "in_norm": "in_layers.0", "in_conv": "in_layers.2", "emb": "emb_layers.1",
    "out_norm": "out_layers.0", "out_conv": "out_layers.3", "shortcut": "skip_connection",
    "norm": "norm", "qkv": "qkv", "proj": "proj_out",
}  # fmt: skip
EDM = {
    "trunk.time_in": "map_layer0",
    "trunk.time_out": "map_layer1",
    "trunk.label": "map_label",
    "trunk.stem": "enc.8x8_conv",
    "trunk.encoder.0": "enc.8x8_block0",
    "trunk.encoder.1": "enc.4x4_down",
    "trunk.encoder.2": "enc.4x4_block0",
    "trunk.middle.0": "dec.4x4_in0",
    "trunk.middle.1": "dec.4x4_in1",
    "trunk.decoder.0.0": "dec.4x4_block0",
    "trunk.decoder.1.0": "dec.4x4_block1",
    "trunk.decoder.1.1": "dec.8x8_up",
    "trunk.decoder.2.0": "dec.8x8_block0",
    "trunk.decoder.3.0": "dec.8x8_block1",
    "head.0": "out_norm",
    "head.2": "out_conv",
}
EDM_PARTS = {
    "block.in_norm": "norm0", "block.in_conv": "conv0", "block.emb": "affine",
    "block.out_norm": "norm1", "block.out_conv": "conv1", "block.shortcut": "skip",
    "attention.norm": "norm2", "attention.qkv": "qkv", "attention.proj": "proj",
}  # fmt: skip


def shake(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def renamed(module: nn.Module, blocks: dict[str, str], parts: dict[str, str]) -> dict[str, Tensor]:
    """The module's weights under names of a table; every one must have its name there."""
    found = {}
    for name, tensor in module.state_dict().items():
        stem, _, end = name.rpartition(".")
        block = max((b for b in blocks if f"{stem}.".startswith(f"{b}.")), key=len)
        part = stem.removeprefix(block).lstrip(".")
        found[".".join(filter(None, (blocks[block], parts[part] if part else "", end)))] = tensor
    assert len(found) == len(module.state_dict())
    return found


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 3, 8, 8), torch.tensor([0.01, 0.7, 60.0]), torch.arange(3)


@pytest.mark.parametrize("levels", [[], [(32, 2)], [(64, 2), (32, 2)]])
def test_adm_names_of_a_generator(levels: list[tuple[int, int]], tmp_path: Path) -> None:
    module = Generator(SPEC, levels, sigma_max=80.0, sigma_data=0.5, output_scale=1.0).eval()
    shake(module)
    torch.save(renamed(module, ADM, ADM_PARTS), tmp_path / "g.pt")
    options = OPTIONS if levels else dataclasses.replace(OPTIONS, kind="generator")
    run(tmp_path / "g.pt", tmp_path / "gen", options)
    artifact = artifacts.open_artifact(tmp_path / "gen", "generator")
    back = load_generator(artifact.weights(), artifact.card())
    z, _, labels = inputs()
    with torch.no_grad():
        assert torch.equal(back(z, labels), module(z, labels))
    assert back.card() == module.card()


def test_the_command_tells_what_it_read(tmp_path: Path) -> None:
    file, out = str(adm_file(tmp_path)), str(tmp_path / "t")
    words = ["import", file, "--out", out, "--kind", "teacher", "--resolution", "8",
             "--head-channels", "16"]  # fmt: skip
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "teacher, 8x8, 5 classes" in done.output and "0 unused" in done.output


def adm_file(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(2)
    module = Denoiser(SPEC, 0.5).net
    shake(module)
    weights = renamed(module, ADM, ADM_PARTS) | changes
    torch.save({k: v for k, v in weights.items() if v is not None}, folder / "t.pt")
    return folder / "t.pt"


def test_adm_names_of_a_denoiser(tmp_path: Path) -> None:
    run(adm_file(tmp_path), tmp_path / "t", dataclasses.replace(OPTIONS, kind="teacher"))
    artifact = artifacts.open_artifact(tmp_path / "t", "teacher")
    torch.manual_seed(2)
    module = Denoiser(SPEC, 0.5).eval()
    shake(module.net)
    with torch.no_grad():
        back = load_denoiser(artifact.weights(), artifact.card())(*inputs())
        assert torch.equal(back, module(*inputs()))
    with pytest.raises(PagodaError, match="say --kind teacher"):
        run(adm_file(tmp_path), tmp_path / "t", OPTIONS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out.2.bias": None}, "lacks the weights of net.head.2.bias"),
        ({"out.2.bias": torch.ones(4)}, r"out\.2\.bias is \(4,\), not \(3,\)"),
        ({"out.2.bias": torch.full((3,), torch.nan)}, r"out\.2\.bias holds NaN or infinity"),
        ({"out.2.bias": torch.tensor([0, 0, torch.inf])}, r"out\.2\.bias holds NaN or infinity"),
        (
            {"out.2.bias": torch.full((3,), 1e60, dtype=torch.float64)},
            r"out\.2\.bias holds NaN or infinity",
        ),
        ({"out.2.bias": torch.ones(3).long()}, r"out\.2\.bias holds int64, not float32"),
        ({"out.2.bias": torch.ones(3).bool()}, r"out\.2\.bias holds bool, not float32"),
        ({"out.2.bias": torch.ones(3) + 1j}, r"out\.2\.bias holds complex64, not float32"),
        ({"out.2.bias": torch.ones(3).to_sparse()}, "expected tensors by name"),
        ({"out.2.bias": torch.ones(1).expand(1 << 40)}, "larger than itself"),
        ({"input_blocks.3.1.qkv.weight": torch.ones(120, 40, 1)}, "40 channels .* heads of 16"),
        ({"time_embed.0.weight": torch.ones(3)}, "the weights|holds another network"),
        ({"input_blocks.0.0.weight": torch.tensor(1.0)}, "form no network that pagoda knows"),
        ({"label_emb.weight": None}, "class-conditional"),
        ({"time_embed.0.weight": None}, "no ADM U-Net"),
        ({"step": 3}, "'step' is a int"),
        ({"input_blocks.1.0.emb_layers_s.1.bias": torch.ones(3)}, "have no place"),
    ],
)
def test_another_network_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, kind="teacher")
    with pytest.raises(PagodaError, match=said):
        run(adm_file(tmp_path, **changes), tmp_path / "t", options)
    assert not (tmp_path / "t").exists()


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("a pickle's function was called")


class Persistent:
    """Pickles as NVIDIA's persistence writes an object, with source code that must not run."""

    def __init__(self, name: str, **state: Any) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('ran')",
                     "class_name": name, "state": state}  # fmt: skip

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,)


def persistence_pickle(file: Path, tree: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("torch_utils.persistence")
    function = _reconstruct_persistent_obj
    monkeypatch.setattr(module, function.__name__, function, raising=False)
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    file.write_bytes(pickle.dumps(tree))
    return file


def nested(weights: dict[str, Tensor]) -> Any:
    """Modules in modules, each with its own parameters, as ``torch.nn.Module`` keeps them."""
    children: dict[str, dict[str, Tensor]] = {}
    own = {}
    for name, tensor in weights.items():
        head, _, rest = name.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = tensor
        else:
            own[head] = nn.Parameter(tensor, requires_grad=False)
    modules = {name: Persistent("Part", **nested(part)) for name, part in children.items()}
    return {"_parameters": own, "_buffers": {}, "_modules": modules}


def test_edm_names_of_a_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(SPEC, channel_mult=(1, 4), head_channels=64, time_scale=1.0,
                               min_group=4)  # fmt: skip
    module = Denoiser(spec, 0.5).eval()
    shake(module)
    weights = renamed(module.net, EDM, EDM_PARTS)
    weights["map_label.weight"] = weights["map_label.weight"].T.clone()
    for name in [n for n in weights if ".qkv." in n]:  # (3, head, d) -> (head, d, 3)
        tensor = weights[name]
        split = tensor.reshape(3, 2, 64, *tensor.shape[1:])
        weights[name] = torch.stack([split[i] for i in range(3)], dim=2).reshape(tensor.shape)
    weights["enc.4x4_down.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.25)
    model = {"model": Persistent("DhariwalUNet", **nested(weights))}
    facts = {"img_resolution": 8, "img_channels": 3, "label_dim": 5, "sigma_data": 0.5}
    network = Persistent("EDMPrecond", **facts, _modules=model)
    file = persistence_pickle(
        tmp_path / "n.pkl", {"ema": network, "augment_pipe": None}, monkeypatch
    )
    run(file, tmp_path / "t", Options())
    artifact = artifacts.open_artifact(tmp_path / "t", "teacher")
    with torch.no_grad():
        back = load_denoiser(artifact.weights(), artifact.card())(*inputs())
        assert torch.equal(back, module(*inputs()))


def edm_file(folder: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> Path:
    """Two levels, of 32 and of ``width`` channels; attention, in one head, at the second."""
    spec = dataclasses.replace(SPEC, channel_mult=(1, width // 32), head_channels=width)
    weights = renamed(Denoiser(spec, 0.5).net, EDM, EDM_PARTS)
    weights["map_label.weight"] = weights["map_label.weight"].T.clone()
    model = {"model": Persistent("DhariwalUNet", **nested(weights))}
    facts = {"img_resolution": 8, "img_channels": 3, "label_dim": 5, "sigma_data": 0.5}
    network = Persistent("EDMPrecond", **facts, _modules=model)
    return persistence_pickle(folder / "n.pkl", {"ema": network}, monkeypatch)


@pytest.mark.parametrize("width", [32, 96, 160])
def test_heads_that_are_not_edms_are_one_line(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EDM makes ``width // 64`` heads: one of 96 channels, two of 80."""
    file = edm_file(tmp_path, monkeypatch, width)
    with pytest.raises(PagodaError, match=f"attention over {width} channels .* heads of 64$"):
        run(file, tmp_path / "t", Options())


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"_modules": {}},
        {"_modules": {"model": Persistent("DhariwalUNet")}},
        {"img_channels": 3, "_modules": {"model": Persistent("DhariwalUNet")}},
        {"img_channels": 3, "_modules": None},
    ],
)
def test_edms_network_without_its_parts_is_one_line(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Persistent("EDMPrecond", **state)
    file = persistence_pickle(tmp_path / "n.pkl", {"ema": network}, monkeypatch)
    with pytest.raises(PagodaError) as raised:
        run(file, tmp_path / "t", Options())
    assert "\n" not in str(raised.value) and not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("outer", "inner", "said"),
    [("Precond", "UNet", "EDM2"), ("VPPrecond", "", "VPP"), ("EDMPrecond", "SongUNet", "Song")],
)
def test_other_networks_of_nvidia_are_refused_by_name(
    outer: str, inner: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Persistent(outer, img_channels=3, _modules={"model": Persistent(inner)})
    file = persistence_pickle(tmp_path / "n.pkl", {"ema": network}, monkeypatch)
    with pytest.raises(PagodaError, match=said):
        run(file, tmp_path / "t", Options())
