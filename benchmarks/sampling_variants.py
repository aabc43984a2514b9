"""Ways to run one network, for ``benchmarks.sampling_speed``: eager, compiled, exported, ONNX.

Beside a generator: the teacher with its profile's steps and the cascade. What should give eager's
images is compared with them before it is timed.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import whole_float32
from pagoda import artifacts
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.diffusion.solver import nfe
from pagoda.errors import first_line
from pagoda.evaluation.cascade import super_resolve
from pagoda.evaluation.samplers import heun, untrained
from pagoda.networks.generator import load_generator
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.export import PARITY
from pagoda.training.player import autocast
from pagoda.weights import graphs

EAGER = "eager, fp32"
Jobs = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Models:
    """The networks of one experiment: those of its run where it has them, otherwise random ones.

    Neither a time nor a count depends on weights.

    Attributes:
        config: the experiment; its run lies below the working folder.
        device: where networks are.
        bf16: whether eager and compiled come in bfloat16 (autocast), too.
    """

    config: Config
    device: torch.device
    bf16: bool = False

    def trained(self) -> bool:
        """Whether every generator is the run's own."""
        return all((self._folder(r) / artifacts.MANIFEST).is_file()
                   for r in self.config.resolutions)  # fmt: skip

    def generator(self, resolution: int) -> Any:
        """The generator that ends at a resolution."""
        if self.trained():
            artifact = artifacts.open_artifact(self._folder(resolution), "generator")
            network = artifact.network(load_generator)
        else:
            network = untrained(self._untrained(torch.device("meta")).generator(resolution).card(),
                                0)  # fmt: skip
        return self._ready(network)

    def many_steps(self, resolution: int) -> tuple[str, int, Callable[[Tensor, Tensor], Tensor]]:
        """Name, evaluations and map of the teacher (at the base) or the cascade (above it)."""
        config, schedule = self.config, self.config.diffusion
        networks, steps = self._untrained(self.device), config.evaluate.teacher_steps
        denoiser = self._ready(networks.denoiser())
        above = [r for r in config.resolutions if config.base_res < r <= resolution]
        cascade = config.studies.cascade
        resolvers = {r: self._ready(networks.resolver(r)) for r in above}
        levels = dataclasses.asdict(schedule)
        base = heun(denoiser, levels, steps)

        def run(z: Tensor, labels: Tensor) -> Tensor:
            x = base(z, labels, np.arange(len(z)))
            for side, resolver in resolvers.items():
                noise = torch.randn(len(x), 3, side, side, device=x.device)
                noise = noise.contiguous(memory_format=torch.channels_last)
                x = super_resolve(resolver, x, labels, levels, cascade.steps, cascade.noise, noise,
                                  noise)  # fmt: skip
            return x

        count = nfe(steps, "heun") + len(above) * nfe(cascade.steps, "heun")
        return ("cascade" if above else "teacher"), count, run

    def inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Latents and classes, the same for every way."""
        side = self.config.base_res
        z = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(batch))
        labels = torch.arange(batch) % self.config.data.num_classes
        z = z.to(self.device).contiguous(memory_format=torch.channels_last)
        return z, labels.to(self.device)

    def _folder(self, resolution: int) -> Path:
        return Paths(self.config).generator(resolution)

    def _untrained(self, device: torch.device) -> Untrained:
        return Untrained(self.config, self.config.data.num_classes, images=1, device=device)

    def _ready(self, network: nn.Module) -> Any:
        network = network.to(self.device).to(memory_format=torch.channels_last)
        return network.eval().requires_grad_(False)


class Ways:
    """Every way to run the generator of one resolution, opened once for all batches.

    Attributes:
        network: the generator itself.
        missing: ways that this machine does not have, and why.
    """

    def __init__(self, models: Models, resolution: int, without: frozenset[str]) -> None:
        self.models, self.resolution, self.without = models, resolution, without
        self.network = models.generator(resolution)
        self.missing: dict[str, str] = {}

    def jobs(self, batch: int) -> tuple[Jobs, dict[str, float], int]:
        """What takes turns on one batch; how far each is from eager; evaluations of the many-step
        sampler.

        Raises:
            SystemExit: a graph gives other images.
        """
        torch.compiler.reset()  # which gives up silently after a few sizes of one network
        z, labels = self.models.inputs(batch)
        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {EAGER: self.network}
        for name, make in (("compiled", self._compiled), ("exported", self._exported),
                           ("ONNX", self._onnx)):  # fmt: skip
            if name in self.without or name in self.missing:
                continue
            try:
                way = make()
                with torch.inference_mode():
                    way(z, labels)  # compilers speak at the first call
            except Exception as error:  # of compilers, exporters and what they stand on
                self.missing[name] = first_line(error)
            else:
                ways[f"{name}, fp32"] = way
        apart = self._apart(ways, z, labels)
        jobs = {name: self._job(way, z, labels, "fp32") for name, way in ways.items()}
        if self.models.bf16:
            for name in ("eager", "compiled"):
                if f"{name}, fp32" in ways:
                    way = self.network if name == "eager" else self._compiled()
                    jobs[f"{name}, bf16"] = self._job(way, z, labels, "bf16")
        kind, evaluations, run = self._many_steps()
        if kind not in self.without:
            named = f"{kind}, {evaluations} evaluations"
            jobs[f"{named}, fp32"] = self._job(run, z, labels, "fp32")
            if self.models.bf16:
                jobs[f"{named}, bf16"] = self._job(run, z, labels, "bf16")
        return jobs, apart, evaluations

    def _job(self, way: Callable[[Tensor, Tensor], Tensor], z: Tensor, labels: Tensor,
             precision: str) -> Callable[[], object]:  # fmt: skip
        @torch.inference_mode()
        def run() -> Tensor:
            with autocast(self.models.device, precision):
                return way(z, labels)

        return run

    @cache  # noqa: B019  # as long as the object
    def _many_steps(self) -> tuple[str, int, Callable[[Tensor, Tensor], Tensor]]:
        return self.models.many_steps(self.resolution)

    def _compiled(self) -> Any:
        """A copy for every batch, which is compiled for its size."""
        network = copy.deepcopy(self.network)
        network.compile(dynamic=False)
        return network

    @cache  # noqa: B019
    def _program(self) -> Any:
        return graphs.traced(copy.deepcopy(self.network).cpu())

    @cache  # noqa: B019
    def _exported(self) -> Any:
        program = self._program()
        if self.models.device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self.models.device)
        return program.module()

    @cache  # noqa: B019
    def _onnx(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The file that ``pagoda export --onnx`` writes, with as many threads as torch has."""
        import onnxruntime

        wanted = "CUDAExecutionProvider" if self.models.device.type == "cuda" else (
            "CPUExecutionProvider")  # fmt: skip
        if wanted not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this onnxruntime has no {wanted}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            graphs.write_onnx(self._program(), graphs.example(self.network, 2), file)
            session = onnxruntime.InferenceSession(file, options, providers=[wanted])

        def run(z: Tensor, labels: Tensor) -> Tensor:
            given = {"latents": z.contiguous().cpu().numpy(), "labels": labels.cpu().numpy()}
            return torch.from_numpy(np.asarray(session.run(["images"], given)[0]))

        return run

    def _apart(
        self, ways: dict[str, Callable[[Tensor, Tensor], Tensor]], z: Tensor, labels: Tensor
    ) -> dict[str, float]:
        """Largest difference of each way's images from eager's."""
        with torch.inference_mode(), whole_float32():
            wanted = ways[EAGER](z, labels).cpu()
            apart = {name: float((way(z, labels).cpu() - wanted).abs().max())
                     for name, way in ways.items() if name != EAGER}  # fmt: skip
        for name, difference in apart.items():
            if not difference <= PARITY:
                where = f"{self.resolution}x{self.resolution}, batch {len(z)}"
                raise SystemExit(f"error: {where}: {name} is {difference:.1e} from eager")
        return apart
