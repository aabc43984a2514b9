"""Networks as graphs that need no code of ours: ``torch.export`` and ONNX, of any batch size.

A generator is (latents, labels) -> images, a teacher's denoiser (x, sigma, labels) -> denoised; all
float32 and int64, as :class:`pagoda.networks.generator.Generator` and
:class:`pagoda.networks.denoiser.Denoiser` take and give them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pagoda.errors import PagodaError, first_line
from pagoda.networks.autoencoder import Decoded
from pagoda.networks.generator import Generator

_MOST = 1 << 16  # images a call


def example(network: Any, n: int) -> dict[str, Tensor]:
    """Inputs of a generator or a denoiser by name, ``n`` of each, drawn with torch's generator."""
    spec = network.spec
    images = torch.randn(n, *spec.shape)
    labels = torch.arange(n) % spec.num_classes
    if isinstance(network, Generator | Decoded):
        return {"latents": images, "labels": labels}
    return {"x": images, "sigma": torch.linspace(0.1, 10, n), "labels": labels}


def traced(network: Any) -> ExportedProgram:
    """The graph of a generator or a denoiser on the CPU, in eval mode."""
    batch = Dim("batch", min=1, max=_MOST)
    inputs = tuple(example(network, 2).values())
    with _quiet():
        shapes = tuple({0: batch} for _ in inputs)
        return torch.export.export(network.eval(), inputs, dynamic_shapes=shapes)


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a graph as ``.pt2``, which ``torch.export.load(path).module()`` opens."""
    with _quiet():
        torch.export.save(program, path)


def check_onnx() -> None:
    """Fail before any work if ONNX cannot be written and run.

    Raises:
        PagodaError: a package is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PagodaError(
            f"ONNX needs packages that are not here ({first_line(error)}); install them: "
            "'uv sync --extra export'"
        ) from error


def write_onnx(program: ExportedProgram, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write a graph as ONNX, inputs by their names, output ``images``."""
    import onnx

    with _quiet():
        made = torch.onnx.export(
            program, tuple(inputs.values()), dynamo=True, verbose=False,
            input_names=list(inputs), output_names=["images"],
        )  # fmt: skip
    assert made is not None
    proto = made.model_proto
    old = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = "batch" if dim.dim_param == old != "" else dim.dim_param
    onnx.save(proto, str(path))


def onnx_difference(network: Any, path: Path) -> float:
    """The largest difference between a network and its ONNX file, which onnxruntime runs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        names = [i.name for i in session.get_inputs()]
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(np.asarray(session.run(None, given)[0]))

    return _difference(network, run)


def program_difference(network: Any, path: Path) -> float:
    """The largest difference between a network and its ``.pt2``."""
    with _quiet():
        return _difference(network, torch.export.load(path).module())


@torch.no_grad()
def _difference(network: Any, other: Any) -> float:
    """For batches of 1 and of 3."""
    found = []
    for n in (1, 3):
        inputs = example(network, n).values()
        found.append((network(*inputs) - other(*inputs)).abs().max().item())
    return max(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say to their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
