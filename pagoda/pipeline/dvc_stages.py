"""What DVC files say about the code and the studies, written from the imports and ``study.yaml``.

Studies are a DVC project of their own in ``experiments/``, so that the main pipeline's status,
experiments and lock know nothing of them. It sees ``params.yaml`` and ``pagoda/`` through links:
what DVC ignores (bytecode) it ignores below its own root only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pagoda.config import BY_METHOD, derive_code
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.code import ROOT, dependencies
from pagoda.pipeline.stages.study_spec import (
    STEPS,
    STUDIES,
    TIMED,
    Study,
    Variant,
    load_study,
    studies,
)
from pagoda.results.claims import read_claims

_SHARED = ("name", "base_res", "target_res", "data", "reference.extractors", "evaluate",
           "studies.samples", "studies.cascade")  # fmt: skip
_MODELLED = "codes", "captioned"
_HEAD = "# Written by 'pagoda derive --stages' from study.yaml and the imports of pagoda/.\n"


def write_stages() -> list[str]:
    """Bring ``dvc.yaml`` and every ``experiments/<study>/dvc.yaml`` up to date.

    Returns:
        The files that changed.

    Raises:
        PagodaError: a study or one of its claims is none; nothing is written then.
    """
    read_claims(STUDIES)
    wanted = {Path("dvc.yaml"): with_code(Path("dvc.yaml").read_text(encoding="utf-8"))}
    wanted |= {STUDIES / name / "dvc.yaml": study_text(load_study(name)) for name in studies()}
    changed = {file: text for file, text in wanted.items()
               if not file.is_file() or file.read_text(encoding="utf-8") != text}  # fmt: skip
    for file, text in changed.items():
        file.write_text(text, encoding="utf-8")
    return [str(file) for file in changed]


def with_code(text: str) -> str:
    """``dvc.yaml`` with the code dependencies of each stage as its imports have them."""

    def renewed(stage: re.Match[str]) -> str:
        command = re.search(r"python -m pagoda (\w+)", stage[0])
        lines = re.search(r"(?:^ +- pagoda/[^\s$]+\n)+", stage[0], re.MULTILINE)
        if command is None or lines is None:
            return stage[0]
        indent = lines[0].partition("-")[0]
        paths = re.findall(r"^ +- (\S+)$", stage[0], re.MULTILINE)
        code = "".join(f"{indent}- {d}\n" for d in code_of(command[1], *chosen(paths)))
        return stage[0][: lines.start()] + code + stage[0][lines.end() :]

    return re.sub(r"^  \w+:\n(?:^(?:    .*)?\n)*", renewed, text, flags=re.MULTILINE)


def chosen(paths: Iterable[str]) -> list[str]:
    """Packages of which a parameter names the file that a stage depends on."""
    return [match[1] or "methods" for path in paths
            if (match := re.match(r"pagoda/([\w/]+)/\$\{|\$\{code\.", path))]  # fmt: skip


def code_of(stage: str, *packages: str) -> list[str]:
    """The code that a stage depends on.

    Args:
        stage: its name.
        packages: those :func:`chosen`, whose file is another dependency: added are the folders
            that any of their files imports, and none of them.
    """
    found = set(dependencies(f"pagoda.pipeline.stages.{stage}"))
    for package in packages:
        files = (ROOT / "pagoda" / package).glob("[!_]*.py")
        several = {d for f in files for d in _dependencies_of(f)}
        found |= {d for d in several if not d.startswith(f"pagoda/{package}")}
    return sorted(found)


def _dependencies_of(file: Path) -> list[str]:
    return dependencies(".".join(file.relative_to(ROOT).with_suffix("").parts))


def study_text(study: Study) -> str:
    """The study's ``dvc.yaml``: a stage a variant, a matrix of its seeds, and the collection."""
    stages = {name: _stage(study, variant) for name, variant in study.variants.items()}
    tree = {"vars": ["../params.yaml"], "stages": stages | {"collect": _collect(study)}}
    return _HEAD + yaml.safe_dump(tree, sort_keys=False, width=100, default_flow_style=None)


def _stage(study: Study, variant: Variant) -> dict[str, Any]:
    seeds = f"${{studies.{study.size}.seeds}}"
    read = [variant, *([study.variants[variant.compute_of]] if variant.compute_of else [])]
    counted = [step for v in read for step in (*v.steps, *v.counts)]
    sections = [s for step in counted for s in STEPS[step].sections]
    keys = [
        *_SHARED,
        *(f"studies.{study.size}.{key}" for key in ("fraction", "scale")),
        *dict.fromkeys(sections),
    ]
    methods = [file for v in read for file in _methods_of(v)]
    return {
        "desc": variant.label,
        "matrix": {"seed": [f"{seeds[:-1]}[0]}}"] if variant.once else seeds},
        "cmd": f"cd ../.. && python -m pagoda variant {study.name} {variant.name} "
               "--seed ${item.seed}",
        "deps": [*dict.fromkeys([*_inputs(study, variant), *methods, *_code(variant.stage)])],
        "params": [{"../params.yaml": keys},
                   {"study.yaml": ["size", *(f"variants.{v.name}" for v in read)]}],
        "outs": [f"{_folder(study, variant)}/s${{item.seed}}"],
    }  # fmt: skip


def _collect(study: Study) -> dict[str, Any]:
    return {
        "desc": "Table, pictures and summary of the study",
        "cmd": f"cd ../.. && python -m pagoda study {study.name}",
        "deps": ["../../runs/${name}/data/${resolutions[-1]}", f"../runs/${{name}}/{study.name}",
                 "study.yaml", *_code("study")],
        "params": [{"../params.yaml": ["name", "base_res", "target_res", "studies"]}],
        "outs": [{f"../../reports/${{name}}/studies/{study.name}": {"cache": False}}],
    }  # fmt: skip


def _methods_of(variant: Variant) -> list[str]:
    """Files of the methods that train a variant: its own choice, or that of ``params.yaml``."""
    chosen = {key: {"method": method} for key, method in variant.methods.items()}
    trained = {step.partition("_")[0] for step in (*variant.steps, *variant.counts)}  # grow_each
    files = {key: f"${{code.{key}}}" for key in BY_METHOD if key in trained} | derive_code(chosen)
    return [f"../{f}" if f.startswith("pagoda/") else f"../../{f}" for f in files.values()]


def _code(stage: str) -> list[str]:
    return [f"../{d}" for d in code_of(stage, *(["methods"] if stage == "variant" else []))]


def _folder(study: Study, variant: Variant) -> str:
    return f"../runs/${{name}}/{study.name}/{variant.name}"


def _modelled(kind: str) -> list[str]:
    """What a step may read in place of images, if a variant makes it."""
    what, _, where = kind.partition("/")
    return [f"{m}/{where}" for m in _MODELLED] if what == "data" else []


def _inputs(study: Study, variant: Variant) -> list[str]:
    """What a variant reads: images, the evaluator's network, and what it does not make itself.

    Raises:
        PagodaError: it reads an artifact of another base resolution of the main pipeline.
    """
    read, own = dict[str, None](), set[str]()
    for step in variant.steps:
        kinds = [made for kind in STEPS[step].reads for made in (kind, *_modelled(kind))]
        read |= dict.fromkeys(kind for kind in kinds if kind not in own)
        own |= set(STEPS[step].makes)
    compared = set(variant.steps) - set(TIMED)
    found = ["features", "data", *(["reference"] if compared else [])]
    parents = dict[str, None]()
    for kind in read:
        maker = study.variants.get(variant.of or "")
        while maker is not None and not any(kind in STEPS[s].makes for s in maker.steps):
            maker = study.variants.get(maker.of or "")
        if maker is not None:
            seed = f"${{studies.{study.size}.seeds[0]}}" if maker.once else "${item.seed}"
            parents[f"{_folder(study, maker)}/s{seed}"] = None
        elif (what := kind.partition("/")[0]) not in ("data", *_MODELLED):
            if variant.doublings:
                raise PagodaError(
                    f"study {study.name}: {variant.name} doubles the base resolution and reads "
                    f"the main pipeline's {what}, which is the profile's; add the step for it"
                )
            found.append(f"b${{resolutions[0]}}/{what}")
    return [*dict.fromkeys(f"../../runs/${{name}}/{f}" for f in found), *parents]
