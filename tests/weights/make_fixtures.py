"""Writes the folder ``fixtures`` with the reference code; the tests read what it left there.

    python tests/weights/make_fixtures.py EDM CONSISTENCY_MODELS PAGODA

The arguments are git checkouts of NVlabs/edm, openai/consistency_models and sony/pagoda; einops
must be importable. Their code is run, never copied: the source text that EDM's pickles carry is
left out of the file. The networks are small, their weights noise; the files are written by the
unchanged code in float32.

Expected outputs are computed twice from the same weights: by the unchanged code, as far as its
float32 and float16 go, and in float64 by a copy of it in which every ``float32``, ``.float()`` and
``.half()`` reads ``float64`` or ``.double()``. No GPU is needed: flash attention, which PaGoDA's
released generators were trained with, is replaced by that code's own attention of the same order
of channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import lzma
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

FIXTURES = Path(__file__).parent / "fixtures"
PERIOD = 257  # prime, so rows of a matrix differ; short, so the files compress
CLASSES = 5
SPELT_DOUBLE = (("float32", "float64"), (".float()", ".double()"), (".half()", ".double()"))
UNUSED = ("mpi4py", "blobfile")  # imported beside the networks, never called


def fill(network: nn.Module) -> nn.Module:
    """Weights of one short period, each parameter's beginning at another place of it."""
    noise = torch.randn(PERIOD, generator=torch.Generator().manual_seed(0))
    for i, (name, parameter) in enumerate(network.named_parameters()):
        vector = parameter.ndim == 1
        values = noise * (0.25 if vector else 0.125) + float(vector and name.endswith("weight"))
        index = (torch.arange(parameter.numel()) + 31 * i) % PERIOD
        parameter.data.copy_(values[index].reshape(parameter.shape))
    return network.eval().requires_grad_(False)


@contextlib.contextmanager
def reference(checkout: Path, double: bool) -> Iterator[None]:
    """The checkout's packages importable, as they are or in float64; forgotten afterwards."""
    before = set(sys.modules)
    with tempfile.TemporaryDirectory() as folder:
        code = shutil.copytree(checkout, f"{folder}/code", ignore=shutil.ignore_patterns(".git"))
        for file in Path(code).rglob("*.py"):
            text = file.read_text()
            if file.match("cm/unet.py"):  # what follows in PaGoDA's is no Python
                text = text.partition('\nif __name__ == "__main__":')[0]
            for old, new in SPELT_DOUBLE if double else ():
                text = text.replace(old, new)
            file.write_text(text)
        sys.path.insert(0, str(code))
        for name in UNUSED:
            sys.modules.setdefault(name, types.ModuleType(name)).MPI = None  # type: ignore[attr-defined]
        try:
            yield
        finally:
            sys.path.remove(str(code))
            for name in set(sys.modules) - before:
                if folder in str(getattr(sys.modules[name], "__file__", "")):
                    del sys.modules[name]


def both(checkout: Path, outputs: Callable[[torch.dtype], Tensor]) -> dict[str, Tensor]:
    """What the unchanged code and its float64 copy answer."""
    found = {}
    with torch.no_grad():
        for key, dtype in (("unchanged", torch.float32), ("out", torch.float64)):
            with reference(checkout, double=dtype == torch.float64):
                found[key] = outputs(dtype)
    return found


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Images, noise levels and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0.01, 0.7, 60.0], dtype=torch.float64), torch.tensor([4, 0, 2])


def keep(name: str, data: bytes) -> None:
    (FIXTURES / f"{name}.xz").write_bytes(lzma.compress(data, preset=9))


def torch_bytes(tree: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(tree, stream)
    return stream.getvalue()


def edm(checkout: Path) -> dict[str, Tensor]:
    """A snapshot as EDM's training loop writes it; D(x; sigma, y) of EDMPrecond."""

    def build() -> Any:
        networks = importlib.import_module("training.networks")
        return fill(networks.EDMPrecond(
            8, 3, CLASSES, model_channels=32, channel_mult=[1, 4], num_blocks=1,
            attn_resolutions=[4], dropout=0.1,
        ))  # fmt: skip

    x, sigma, labels = inputs()

    def outputs(dtype: torch.dtype) -> Tensor:
        one_hot = nn.functional.one_hot(labels, CLASSES).to(dtype)
        return build().to(dtype)(x.to(dtype), sigma.to(dtype), one_hot)

    with reference(checkout, double=False):
        loss = importlib.import_module("training.loss").EDMLoss()
        network = build()
        for part in (loss, *network.modules()):
            if hasattr(part, "_orig_module_src"):
                type(part)._orig_module_src = ""
        tree = {"ema": network, "loss_fn": loss, "augment_pipe": None,
                "dataset_kwargs": {"class_name": "training.dataset", "xflip": False}}  # fmt: skip
        keep("edm.pkl", pickle.dumps(tree))
    found = both(checkout, outputs)
    return {"edm.x": x, "edm.sigma": sigma, "edm.labels": labels} | named("edm", found)


def consistency_models(checkout: Path) -> dict[str, Tensor]:
    """A state dict; D(x; sigma, y) of KarrasDenoiser, as its teachers are used."""

    def build() -> Any:
        unet = without_flash()
        return fill(unet.UNetModel(
            image_size=8, in_channels=3, model_channels=32, out_channels=3, num_res_blocks=1,
            attention_resolutions=(2,), channel_mult=(1, 2), num_classes=CLASSES,
            num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True,
        ))  # fmt: skip

    x, sigma, labels = inputs()

    def outputs(dtype: torch.dtype) -> Tensor:
        diffusion = importlib.import_module("cm.karras_diffusion").KarrasDenoiser(loss_norm="l2")
        network = build().to(dtype)
        return diffusion.denoise(network, x.to(dtype), sigma.to(dtype), y=labels)[1]

    with reference(checkout, double=False):
        keep("consistency_models.pt", torch_bytes(build().state_dict()))
    found = both(checkout, outputs)
    given = {"consistency_models.x": x, "consistency_models.sigma": sigma,
             "consistency_models.labels": labels}  # fmt: skip
    return given | named("consistency_models", found)


def pagoda(
    checkout: Path, output: int, channels: int, high: tuple[float, ...]
) -> dict[str, Tensor]:
    """A state dict grown from 8 to ``output``; G(z, y) = F(c_in(80) 80 z, 80, y)."""
    name, rows = f"pagoda_{output}", {8: 3, 16: 2, 32: 1}[output]

    def build() -> Any:
        unet = without_flash()
        with contextlib.redirect_stdout(io.StringIO()):
            network = unet.UNetModel(
                input_size=8, output_size=output, model_channels_high=channels,
                use_scale_shift_norm_high=False, num_res_blocks_high=2,
                encoder_channel_mult=(1, 2), decoder_channel_mult=(*high, 1, 2),
                attention_resolutions=(2,), in_channels=3, model_channels=32, out_channels=3,
                num_res_blocks=1, num_classes=CLASSES, num_head_channels=16,
                use_scale_shift_norm=True, resblock_updown=True, attention_type="legacy",
            )  # fmt: skip
        for module in network.modules():
            if isinstance(module, unet.AttentionBlock):
                module.attention = unet.QKVAttention(module.num_heads)
        return fill(network)

    z, _, labels = (tensor[:rows] for tensor in inputs())

    def outputs(dtype: torch.dtype) -> Tensor:
        sigma = torch.full((rows,), 80.0, dtype=dtype)
        c_in = 1 / (sigma**2 + 0.25).sqrt()
        network = build().to(dtype)
        return network(c_in[:, None, None, None] * 80 * z.to(dtype), sigma, labels)

    with reference(checkout, double=False):
        keep(f"{name}.pt", torch_bytes(build().state_dict()))
    found = both(checkout, outputs)
    return {f"{name}.z": z, f"{name}.labels": labels} | named(name, found)


def without_flash() -> Any:
    """``cm.unet`` whose attention does not ask for the flash_attn package, which needs a GPU."""
    unet = importlib.import_module("cm.unet")
    init = unet.AttentionBlock.__init__
    init.__defaults__ = tuple("legacy" if d == "flash" else d for d in init.__defaults__)
    return unet


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def provenance(checkouts: dict[str, Path]) -> dict[str, Any]:
    """What wrote the fixtures, and their checksums."""
    revisions = {}
    for repository, folder in checkouts.items():
        git = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(git, check=True, capture_output=True, text=True)
        revisions[f"https://github.com/{repository}"] = done.stdout.strip()
    files = sorted(p for p in FIXTURES.iterdir() if p.name != "provenance.json")
    return {
        "script": "tests/weights/make_fixtures.py",
        "revisions": revisions,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def main() -> None:
    names = ("NVlabs/edm", "openai/consistency_models", "sony/pagoda")
    checkouts = dict(zip(names, map(Path, sys.argv[1:]), strict=True))
    ours, theirs, grown = checkouts.values()
    FIXTURES.mkdir(exist_ok=True)
    expected = edm(ours) | consistency_models(theirs)
    expected |= pagoda(grown, 8, 32, ())
    expected |= pagoda(grown, 16, 32, (1,))
    expected |= pagoda(grown, 32, 64, (0.5, 1))
    save_file({k: v.contiguous() for k, v in expected.items()}, FIXTURES / "expected.safetensors")
    text = json.dumps(provenance(checkouts), indent=2)
    (FIXTURES / "provenance.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
