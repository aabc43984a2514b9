"""What ``dvc exp run`` does while it composes ``params.yaml``; Hydra imports every plugin here.

A parameter that cannot be is refused here, before DVC has touched ``params.yaml`` or removed the
outputs of a stage:

- :class:`StrictSource` reads every composed file as pagoda reads it, :class:`StrictFiles` makes
  Hydra use it;
- ``suite.derived``, in ``experiments/compose.yaml``, computes the derived keys, drops those of
  methods that are not chosen, and holds the whole composition against the rules of
  :mod:`pagoda.config`; where stages will run, it opens other images than the last, too.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import Container, DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from pagoda.config import (
    BY_METHOD,
    DERIVED,
    Config,
    for_its_methods,
    parse,
    read_yaml,
    with_derived,
)
from pagoda.data import registry
from pagoda.errors import PagodaError

_NEEDED = ("numpy", "torch", "typer", "yaml")
_WHERE = "params.yaml, which stays as it was"
_opened: list[list[Any]] = []  # what was looked at: every derived key, and every sweep, asks
_projects: list[Path] = []  # that are composed, the last one now


class Refused(DvcException, InterpolationResolutionError):  # type: ignore[misc] # DVC has no types
    """One line of DVC's from a resolver: OmegaConf adds nothing to an error of its own kind."""

    _initialized = True


class StrictFiles(SearchPathPlugin):
    """Hydra's hook at the start of a composition."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Read a project's files by :class:`StrictSource`; other programs of Hydra keep theirs."""
        for element in search_path.get_path():
            folder = Path(element.path.removeprefix("file://"))
            if element.provider == "main" and (folder / "profile" / "smoke.yaml").is_file():
                element.path = f"{StrictSource.scheme()}://{folder}"
                _projects.append(folder.parent)
                if _will_run():
                    _check_python()


class StrictSource(FileConfigSource):
    """Files of configuration, each refused where :func:`pagoda.config.read_yaml` refuses it."""

    @staticmethod
    def scheme() -> str:
        """What addresses of such files begin with."""
        return "strict"

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file; a profile that is not there is one line, not Hydra's."""
        found = super().is_config(config_path)
        folder, _, name = config_path.rpartition("/")
        if folder == "profile" and name != "None" and not found:  # None: no profile is asked for
            known = ", ".join(sorted(file.stem for file in Path(self.path, folder).glob("*.yaml")))
            raise DvcException(f"no profile {name}; there are {known}, in experiments/profile")
        return bool(found)

    def load_config(self, config_path: str) -> ConfigResult:
        """One file, as Hydra reads it."""
        file = Path(self.path, self._normalize_file_name(config_path)).resolve()  # past a link
        with _refusals(DvcException):
            if file.is_file():
                read_yaml(file)
        return super().load_config(config_path)


@contextmanager
def _refusals(kind: type[DvcException]) -> Iterator[None]:
    try:
        yield
    except PagodaError as error:
        raise kind(str(error)) from None


def _will_run() -> bool:
    """Whether DVC is the program that runs, and will start stages."""
    return "dvc.cli" in sys.modules


def _check_python() -> None:
    """Refuse to begin where the stages' ``python`` is not that of the environment.

    Raises:
        DvcException: it is not there, or lacks what every stage imports.
    """
    python = shutil.which("python")
    if python is not None and Path(python).parent == Path(sys.executable).parent:
        return
    look = f"import importlib.util as i, sys; sys.exit(not all(map(i.find_spec, {_NEEDED})))"
    if python is None or subprocess.run([python, "-c", look], check=False).returncode:
        raise DvcException(
            f"the stages run 'python', which is {python or 'not on the PATH'} and lacks "
            "pagoda's packages; activate the environment first: source .venv/bin/activate"
        )


def _check_images(config: Config, data: Any) -> None:
    """Open other images than the last experiment's, which cutting will read.

    Raises:
        PagodaError: they are not there, their listing is damaged, or they are too few.
    """
    asked = [config.data, config.evaluate, config.reference]
    fetched = registry.find(config.data.source).fetched
    if fetched or asked in _opened or not _cuts_anew(config, data):
        return
    from pagoda.pipeline.stages.sources import open_splits

    open_splits(config, _WHERE)
    _opened.append(asked)


def _cuts_anew(config: Config, data: Any) -> bool:
    """Whether cut images have to be made, or replaced by those of other ``data``."""
    project = _projects[-1]
    before = read_yaml(project / "params.yaml") or {}
    if before.get("name") == config.name:
        return bool(before.get("data") != data)
    cut = project / "runs" / config.name / "data"
    return not all((cut / str(side)).is_dir() for side in config.resolutions)


def _derived(key: str, *, _root_: DictConfig) -> Container:
    """One of the derived keys, after the whole composition was checked."""
    with _refusals(Refused):
        whole = copy.deepcopy(_root_)
        sections = {name: whole[name] for name in BY_METHOD if OmegaConf.is_dict(whole.get(name))}
        ends = {end: whole.get(end) for end in ("base_res", "target_res")}
        told = {key: OmegaConf.to_container(whole[key]) for key in ("data", "text")
                if OmegaConf.is_dict(whole.get(key))}  # fmt: skip
        derived = with_derived(ends | sections | told)
        for name in DERIVED:
            if OmegaConf.is_interpolation(whole, name):  # not computed yet, and not overridden
                whole[name] = derived[name]
        tree: Any = OmegaConf.to_container(whole, resolve=True)
        kept = for_its_methods(tree)
        config = parse(kept, _WHERE)
        if _will_run():
            _check_images(config, kept["data"])
        for section in BY_METHOD:
            with open_dict(_root_[section]):
                for other in tree[section].keys() - kept[section].keys():
                    del _root_[section][other]
        return OmegaConf.create(derived[key])


OmegaConf.register_new_resolver("suite.derived", _derived, replace=True)
