"""``pagoda doctor``: what is wrong with this machine or this configuration, in one screen."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.artifacts import MANIFEST
from pagoda.config import NO_WEIGHTS, Config, DistillConfig, GrowConfig, check_counts, load
from pagoda.config.revision import code_revision, revision_trouble
from pagoda.config.root import project_root
from pagoda.errors import PagodaError
from pagoda.methods.autoencoder import AutoencoderConfig
from pagoda.methods.one_step import LPIPS
from pagoda.results.mlflow_store import check_store, find_store, shown

if TYPE_CHECKING:
    from pagoda.data.base import ImageSource

_GIB = 1 << 30
_MEMORY_GIB = 4  # peak of the default profile, all included
_DISK_GIB = 2
_LOOKED_AT = 50  # images, for their size


@dataclass(frozen=True)
class Finding:
    """One line of the examination; a remedy of what is not broken saves time or surprises."""

    topic: str
    state: str
    remedy: str = ""
    broken: bool = False  # stops work

    @property
    def level(self) -> str:
        """``ok``, ``note`` or ``broken``."""
        return "broken" if self.broken else "note" if self.remedy else "ok"


def examine(params: Path) -> list[Finding]:
    """Look at the machine, the project and the configuration in ``params``. Changes nothing."""
    if missing := _missing():
        state, remedy = f"missing: {', '.join(missing)}", "'uv sync --frozen' installs them"
        found = [check() for check in (_python, _memory, _disk, _git)]
        return [*found, Finding("packages", state, f"{remedy}; the rest is not looked at before",
                                True)]  # fmt: skip
    findings = [check() for check in (_python, _torch, _threads, _memory, _disk, _git, _dvc)]
    try:
        config = load(params)
    except PagodaError as error:
        return [*findings, Finding("params", str(error), "nothing runs before", True), _store()]
    ladder = " -> ".join(map(str, config.resolutions))
    findings.append(Finding("params", f"{config.name}, {ladder}"))
    return [
        *findings, *_precision(config), _data(config), *_weights(config), *_networks(config),
        _store(),
    ]  # fmt: skip


def show(findings: list[Finding]) -> None:
    """Print the findings as a table, then the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "note": "yellow", "broken": "bold red"}
    table = Table.grid(padding=(0, 2))
    for f in findings:
        text = Text(f.state)
        if f.remedy:
            text.append(f"\n-> {f.remedy}", style="bold")
        table.add_row(Text(f.level, style=colours[f.level]), f.topic, text)
    broken = sum(f.broken for f in findings)
    console = Console()
    console.print(table)
    console.print(f"{broken} to mend before anything runs" if broken else "ready")


def _python() -> Finding:
    alone = sys.prefix != sys.base_prefix
    remedy = "" if alone else "no virtual environment: 'uv sync --frozen' makes one in .venv"
    return Finding("python", f"{platform.python_version()} in {sys.prefix}", remedy)


def _missing() -> list[str]:
    """Packages that pagoda always needs and that are not installed."""
    try:
        needed = metadata.requires("pagoda") or []
    except metadata.PackageNotFoundError:  # run from its folder
        return []
    names = [re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line]
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        remedy = "delete .venv, then 'uv sync --frozen'"
        return Finding("torch", f"does not load ({error})", remedy, True)
    if torch.cuda.is_available():
        return Finding("torch", f"{torch.__version__}, {torch.cuda.get_device_name(0)}")
    driver = shutil.which("nvidia-smi")
    remedy = "there is an NVIDIA driver: compare its CUDA version (nvidia-smi) with torch's"
    state = f"{torch.__version__}, no CUDA device: stages run on the CPU"
    return Finding("torch", state, remedy if driver else "")


def _threads() -> Finding:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch, load = sys.modules.get("torch"), os.getloadavg()[0]
    threads = torch.get_num_threads() if torch else cores
    remedy = ""
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        remedy = "unset OMP_WAIT_POLICY: PASSIVE makes training 1.6x slower on an idle machine"
    elif threads > cores:
        remedy = "more threads than cores: unset OMP_NUM_THREADS"
    elif load > cores and threads > 1:
        remedy = "busy: several threads then wait for each other; OMP_NUM_THREADS=1 is faster"
    elif threads == 1 and cores > 1 and load < cores - 1:
        remedy = "one thread only: unset OMP_NUM_THREADS"
    return Finding("cpu", f"{threads} threads on {cores} cores, load {load:.1f}", remedy)


def _memory() -> Finding:
    meminfo = Path("/proc/meminfo")
    text = meminfo.read_text("utf-8") if meminfo.is_file() else ""
    if found := re.search(r"^MemAvailable: +(\d+)", text, re.MULTILINE):
        free = int(found[1]) * 1024 / _GIB
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    remedy = f"the default profile takes up to {_MEMORY_GIB} GiB: close other programs"
    return Finding("memory", f"{free:.1f} GiB available", remedy if free < _MEMORY_GIB else "")


def _disk() -> Finding:
    if not os.access(root := project_root(), os.W_OK):
        return Finding("disk", f"{root} is not yours to write to", "work in one that is", True)
    free = shutil.disk_usage(".").free / _GIB
    little = free < _DISK_GIB
    remedy = f"free {_DISK_GIB} GiB; 'dvc gc --workspace' drops what no experiment needs"
    return Finding("disk", f"{free:.1f} GiB free here", remedy if little else "", little)


def _git() -> Finding:
    why, _, remedy = revision_trouble().partition("; ")
    if why:
        return Finding("git", f"{why}: results would carry no revision", remedy, True)
    revision = code_revision()
    if not revision.endswith("+dirty"):
        return Finding("git", revision)
    state = f"{revision}: uncommitted changes under pagoda/"
    return Finding("git", state, "commit them, so that results name their code")


def _dvc() -> Finding:
    import logging

    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it chats about stages without outputs
    version = metadata.version("dvc")
    try:
        with Repo(str(project_root())) as repo:
            stages, changed = len(repo.index.stages), len(repo.status())
    except NotDvcRepoError:
        return Finding("dvc", f"{version}, no project here", "work in a clone of pagoda", True)
    except LockError:
        return Finding("dvc", f"{version}, another DVC command is at work here")
    except DvcException as error:
        why, remedy = " ".join(str(error).split()), "mend dvc.yaml or .dvc, see 'dvc status'"
        return Finding("dvc", f"{version}: {why}", remedy, True)
    state = f"{changed} of {stages} stages to run" if changed else f"{stages} stages, up to date"
    return Finding("dvc", f"{version}, {state}")


def _precision(config: Config) -> list[Finding]:
    """Stages that train in bfloat16 on a processor that only emulates it."""
    trained = ["teacher", "distill", "grow"]
    trained += ["autoencoder"] * (config.data.space == "latent")
    trained += ["text"] * (config.text.captions != "none")
    slow = [key for key in trained if getattr(config, key).optim.precision == "bf16"]
    if not slow:
        return []
    from pagoda.pipeline.stages.device import NO_BFLOAT16, emulates_bfloat16, pick_device

    if not emulates_bfloat16(pick_device()):
        return []
    changes = " ".join(f"-S {key}.optim.precision=fp32" for key in slow)
    return [Finding("precision", f"bf16 in {', '.join(slow)}; {NO_BFLOAT16}", changes)]


def _data(config: Config) -> Finding:
    from pagoda.data.registry import SPLITS, find
    from pagoda.pipeline.stages.sources import open_split

    data = config.data
    if find(data.source).fetched:
        return _hub(data.source, str(data.hub), data.path)
    try:
        sources = {split: open_split(config, split) for split in SPLITS}
        largest = _too_small(config, sources["train"])
    except PagodaError as error:
        return Finding("data", str(error), "nothing can be cut before", True)
    counts = {split: len(source) for split, source in sources.items()}
    state = f"{data.source}: {counts['train']} training and {counts['test']} test images"
    if passed_over := sources["test"].passed_over:
        state += f"; {passed_over}"
    try:
        check_counts(config, counts)
    except PagodaError as error:
        return Finding("data", f"{state}; {error}", "or add images", True)
    if largest:
        state += f"; those looked at have {largest} pixels at most on the shorter side"
        fits, remedy = 1 << largest.bit_length() - 1, f"-S data.pad_to={config.target_res}"
        if fits >= max(8, config.base_res):
            remedy = f"-S target_res={fits}, or {remedy}"
        return Finding("data", state, remedy)
    return Finding("data", state)


def _too_small(config: Config, source: ImageSource) -> int:
    """The longest of the shorter sides of some images, if all are below the target; else 0."""
    if (config.data.pad_to or 0) >= config.target_res:
        return 0
    rows = range(0, len(source), max(1, len(source) // _LOOKED_AT))
    largest = 0
    for row in rows:
        largest = max(largest, min(source.load(row).size))
        if largest >= config.target_res:
            return 0
    return largest


def _weights(config: Config) -> list[Finding]:
    """What is imported instead of trained; no line where all is trained."""
    named = [config.teacher.imported, config.distill.imported]
    named += [config.autoencoder.imported] if config.latent else []
    folders = [folder for folder in named if folder != NO_WEIGHTS]
    if config.grow.imported != NO_WEIGHTS:
        folders += [f"{config.grow.imported}/{r}" for r in config.growth]
    if missing := [f for f in folders if not (Path(f) / MANIFEST).is_file()]:
        remedy = f"'pagoda import FILE --out {missing[0]}'"
        return [Finding("weights", f"nothing in {', '.join(missing)}", remedy, True)]
    if (folder := config.features.imported) != NO_WEIGHTS:
        if not (Path(folder) / MANIFEST).is_file():
            remedy = "name the folder features of a run, or features.imported=weights/none"
            return [Finding("weights", f"no classifier in {folder}", remedy, True)]
        folders.insert(0, folder)
    return [Finding("weights", f"imported: {', '.join(folders)}")] if folders else []


def _networks(config: Config) -> list[Finding]:
    """Published networks that stages will open, opened as they do; no line where there is none."""
    import torch

    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched here; read when timm is imported

    from pagoda.networks.backbones import PRETRAINED, RANDOM
    from pagoda.networks.packaged import PACKAGED
    from pagoda.pipeline.stages.extractors import open_published

    section, cpu = config.reference, torch.device("cpu")
    found = [
        _network(f"{text} of reference.extractors",
                 partial(open_published, section, text, cpu, download=False), section.download)
        for text in section.extractors[1:]
    ]  # fmt: skip
    stages: list[DistillConfig | GrowConfig | AutoencoderConfig] = [config.distill]
    stages += [config.grow] if config.growth else []
    stages += [config.autoencoder] if config.latent else []
    named = {n for stage in stages if stage.imported == NO_WEIGHTS for n in stage.published()}
    return found + [
        _network(name, partial(_open_network, name, weights),
                 weights == PRETRAINED and name not in PACKAGED)
        for name, weights in sorted(named) if weights != RANDOM
    ]  # fmt: skip


def _network(name: str, opener: Callable[[], object], fetched: bool) -> Finding:
    try:
        opener()
    except PagodaError as error:
        if not fetched:
            return Finding("weights", str(error), "a stage would end there", True)
        state = f"{name}: not here; the stage that needs it fetches it"
        return Finding("weights", state, "fetch it before where the machine has no network")
    return Finding("weights", f"{name}: found")


def _open_network(name: str, weights: str) -> None:
    import torch

    from pagoda.losses.distances import LpipsDistance
    from pagoda.networks.backbones import PRETRAINED, Backbone

    if name != LPIPS:
        Backbone(name, weights)
    elif weights != PRETRAINED:
        LpipsDistance(weights)
    elif not list(Path(torch.hub.get_dir()).glob("checkpoints/vgg16-*.pth")):
        raise PagodaError(f"no weights of {name} in {torch.hub.get_dir()}/checkpoints")


def _hub(source: str, name: str, folder: str | None) -> Finding:
    if source == "torchvision" and (project_root() / (folder or "data") / name).is_dir():
        return Finding("data", f"torchvision {name}, downloaded")
    if source == "hub" and not find_spec("datasets"):
        remedy = "'uv sync --extra hub', or use data.source=folder with data.path"
        return Finding("data", f"hub {name}: the package datasets is missing", remedy, True)
    state = f"{source} {name}, not downloaded yet"
    if source == "torchvision" and not _torchvision_answers(name):
        remedy = "check the network, or use data.source=npz, zip or folder with data.path"
        return Finding("data", f"{state}, and its server does not answer", remedy, True)
    return Finding("data", f"{state}: the first stage fetches it")


def _torchvision_answers(name: str) -> bool:
    """Whether the first address that a torchvision set names answers; True if it names none."""
    import torchvision

    maker = getattr(torchvision.datasets, name, None)
    urls = [*getattr(maker, "mirrors", []), getattr(maker, "url", None)]
    if not isinstance(urls[0], str):
        return True
    try:
        urllib.request.urlopen(urls[0], timeout=5).close()
    except OSError as error:  # a folder may have no listing, but someone answered
        return isinstance(error, urllib.error.HTTPError)
    return True


def _store() -> Finding:
    uri = find_store().uri
    try:
        check_store(uri)
    except PagodaError as error:
        return Finding("mlflow", str(error), broken=True)
    return Finding("mlflow", shown(uri))
