"""Scratch of an interrupted stage: atomic, checksummed, the last two kept.

Scratch lives outside DVC's outputs, under ``.scratch/<stage>/<fingerprint>/``, so that a stage
that is run again goes on where it stopped and changed parameters never pick up old state. It is
safetensors, never a pickle.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError
from pagoda.outputs import new_file, write_text
from pagoda.tensors import save_tensors
from pagoda.training import sharding

_log = logging.getLogger(__name__)


class Scratch:
    """Checkpoints of one stage.

    Args:
        folder: a folder named after everything that the result depends on.
        modules: modules to save and restore.
        optimizers: optimisers to save and restore, over parameters of those modules.
    """

    def __init__(
        self,
        folder: Path,
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
    ) -> None:
        self.folder, self.modules, self.optimizers = folder, modules, optimizers

    def save(self, step: int, seconds: float) -> None:
        """Write the state after ``step`` steps; at most two checkpoints remain.

        In a group the main process writes, full tensors where each process holds a slice; all
        must call this.
        """
        tensors = sharding.full_state_on_main(self._tensors())
        if not distributed.is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"{step:09d}.safetensors"
        with new_file(final) as partial:
            save_tensors(partial, tensors, {"step": str(step), "seconds": repr(seconds)})
            write_text(final.with_suffix(".sha256"), sha256(partial))
        for old in self._files()[:-2]:
            old.with_suffix(".sha256").unlink(missing_ok=True)
            old.unlink()

    def check(self, stage: str, step: int) -> None:
        """Refuse weights, of any player or average, that are not finite; all must call this.

        Raises:
            PagodaError: one is not; no checkpoint holds it.
        """
        found = {
            f"{name}.{key}": sharding.local(value)
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
            if value.is_floating_point()
        }
        flags = distributed.all_reduce_max(
            [float(not value.isfinite().all()) for value in found.values()]
        )
        bad = [name for name, flag in zip(found, flags, strict=True) if flag]
        if bad:
            raise PagodaError(
                f"{stage}: {len(bad)} of {len(found)} tensors of weights are not finite after step "
                f"{step} ({', '.join(bad[:3])}{', ...' if bad[3:] else ''}); the last checkpoint "
                f"is kept in {self.folder}; lower the learning rate or use fp32, then run again"
            )

    def restore(self) -> tuple[int, float]:
        """Load the newest sound checkpoint; return its step and seconds, (0, 0.0) if none.

        In a group the main process reads it and hands it to the others, tensor by tensor: machines
        may not share a scratch folder.
        """
        facts, tensors = self._read() if distributed.is_main_process() else ({}, {})
        kinds = {key: (tuple(value.shape), value.dtype) for key, value in tensors.items()}
        facts, kinds = distributed.broadcast_object((facts, kinds))
        if not facts:
            return 0, 0.0

        def fetch(key: str, like: Tensor) -> Tensor:
            shape, dtype = kinds[key]
            full = tensors[key] if key in tensors else torch.empty(shape, dtype=dtype)
            distributed.broadcast_([full])
            return sharding.copy_like(full, like) if shape == like.shape else full

        for name, module in self.modules.items():
            state = module.state_dict().items()
            module.load_state_dict({k: fetch(f"module/{name}/{k}", like) for k, like in state})
        for name, optimizer in self.optimizers.items():
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            found: dict[int, dict[str, Tensor]] = {}
            for key in kinds:
                if key.startswith(f"optimizer/{name}/"):
                    number, entry = key.split("/")[-2:]
                    found.setdefault(int(number), {})[entry] = fetch(key, trained[int(number)])
            optimizer.load_state_dict(optimizer.state_dict() | {"state": found})
        return int(facts["step"]), float(facts["seconds"])

    def _read(self) -> tuple[dict[str, str], dict[str, Tensor]]:
        for file in reversed(self._files()):
            checksum = file.with_suffix(".sha256")
            if checksum.is_file() and checksum.read_bytes() == sha256(file).encode():
                with safetensors.safe_open(file, "pt") as stream:
                    facts = stream.metadata()
                return facts, safetensors.torch.load_file(file)
            _log.warning("%s is damaged and was passed over", file)
        return {}, {}

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _tensors(self) -> dict[str, Tensor]:
        out = {
            f"module/{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    out[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
        return out


def scratch_folder(root: Path, stage: str, identity: dict[str, Any]) -> Path:
    """``<root>/.scratch/<stage>/<fingerprint of identity>``."""
    return root / ".scratch" / stage / digest(json.loads(json.dumps(identity)))[:16]
