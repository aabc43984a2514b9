"""What the site does beside rendering: files of the repository that pages link to come along.

Pages are written for the repository, where ``../reports/...`` is a file. A linked file that is no
Markdown is copied into the site; a link to Markdown or a folder becomes its path in code. A link to
what is not there stops the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_COPIED = {".png", ".html", ".csv", ".json", ".tsv", ".svg"}


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Rewrite links that leave the folder of the documentation."""

    def link(match: re.Match[str]) -> str:
        image, text, target = match[1], match[2], match[3]
        source = ROOT / target
        if not source.exists():
            raise PluginError(f"{page.file.src_path}: ../{target} is not there")
        if source.suffix not in _COPIED:
            return f"{text} (`{target}`)" if text != target else f"`{target}`"
        name = f"repository/{target}"
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(source)))
        return f"{image}[{text}]({name})"

    return _LINK.sub(link, markdown)
