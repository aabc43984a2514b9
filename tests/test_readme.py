"""What the documentation tells people to type exists."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pagoda.pipeline.cli import app
from pagoda.training.method import find_method, registered
from tests.tiny import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FILES = ("python", "yaml", "markdown")
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def commands(document: Path) -> list[list[str]]:
    """Words of every command line in fenced blocks, and of inline code that is a command."""
    text = document.read_text(encoding="utf-8")
    blocks = [block for kind, block in _FENCE.findall(text) if kind not in _FILES]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += _INLINE.findall(_FENCE.sub("", text))
    split = [shlex.split(line, comments=True) for line in lines if line.count("'") % 2 == 0]
    return [words for words in split if len(words) > 1]


def by_program(name: str) -> list[Any]:
    found = [(d, words) for d in DOCUMENTS for words in commands(d) if words[0] == name]
    return [pytest.param(words, id=f"{d.name}: {' '.join(words)}") for d, words in found]


@cache
def _command() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize("words", by_program("pagoda"))
def test_pagoda_commands_and_options_exist(words: list[str]) -> None:
    group = _command()
    command = group.commands.get(words[1], group)
    assert command is not group or words[1].startswith("-"), f"no command {words[1]}"
    parts = [group, command]
    while isinstance(parts[-1], typer.core.TyperGroup) and parts[-1] is not group:
        if not (word := next(iter(words[len(parts) :]), "")):
            break
        assert word in parts[-1].commands, f"no command {' '.join(words[: len(parts) + 1])}"
        parts.append(parts[-1].commands[word])
    known = {o for part in parts for p in part.params for o in p.opts}
    given = {word.split("=")[0] for word in words[1:] if word.startswith("-")}
    assert given <= known | {"--help", "-h"}


@pytest.mark.parametrize("words", by_program("make"))
def test_make_targets_exist(words: list[str]) -> None:
    rules = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    targets = {word for word in words[1:] if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert targets <= rules


def settings() -> list[Any]:
    found = [
        (document.name, words[i + 1])
        for document in DOCUMENTS
        for words in commands(document)
        for i, word in enumerate(words[:-1])
        if word == "-S"
    ]
    return [pytest.param(setting, id=f"{name}: {setting}") for name, setting in found]


@pytest.mark.parametrize("setting", settings())
def test_set_parameters_exist(setting: str) -> None:
    key, _, value = setting.lstrip("+~").partition("=")
    if key == "profile":
        file = f"experiments/profile/{value}.yaml"
        assert (ROOT / file).is_file() or f"`{file}`:" in (ROOT / "docs/extending.md").read_text()
        return
    if setting == "+distill.width=16":  # of the method that docs/extending.md adds
        return
    if setting.startswith("+"):  # of a method that params.yaml does not name
        configs = [find_method(name).Config for name in registered()]
        assert any(key.split(".")[1] in config.__dataclass_fields__ for config in configs)
        return
    node = yaml.safe_load((ROOT / "params.yaml").read_text())
    for part in key.split("."):
        assert part in node, f"params.yaml has no {key}"
        node = node[part]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_linked_files_exist(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    relative = [t for t in targets if not re.match(r"[a-z]+:", t)]
    missing = [t for t in relative if not (document.parent / t).exists()]
    assert not missing


def test_the_readme_says_something_to_type() -> None:
    """So that none of the above passes because nothing was found."""
    first = {words[0] for words in commands(ROOT / "README.md")}
    assert {"make", "dvc", "pagoda"} <= first and settings()
