"""The pages in a browser: charts drawn, little to read before the first fold, accessible to all.

Needs Chromium, and axe-core's ``axe.min.js`` (``npm pack axe-core``) at ``$AXE`` for its check.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = os.environ.get("AXE", "")
PAGES = ("reports/smoke/b8/index.html", "reports/suite/index.html")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
_MEASURE = """
<script>addEventListener("load", () => setTimeout(async () => {
  const fold = document.querySelector("main details"), found = {
    words: document.body.innerText.split(/\\s+/).filter(Boolean).length,
    fold: (fold.getBoundingClientRect().top + scrollY) / innerHeight,
    overflow: document.documentElement.scrollWidth - innerWidth,
    charts: document.querySelectorAll(".chart").length,
    drawn: document.querySelectorAll(".canvas svg").length,
    cut: [...document.querySelectorAll(".canvas svg")].filter(svg => {
      const room = svg.getBoundingClientRect().right + 1;
      return [...svg.querySelectorAll("text")].some(t => t.getBoundingClientRect().right > room);
    }).length,
    scales: [...document.querySelectorAll(".axis")].map(axis =>
      new Set([...axis.querySelectorAll(".plot")].map(plot => plot.offsetWidth)).size),
  };
  if (window.axe) {
    for (const one of document.querySelectorAll("details")) one.open = true;
    const done = await axe.run(document, { resultTypes: ["violations"] });
    found.axe = done.violations.map(v => [v.impact, v.id, v.nodes[0].target.join(" ")]);
  }
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = "FOUND" + JSON.stringify(found) + "DNUOF";
}, 3000));</script>
"""


def measured(page: str, folder: Path, size: str) -> dict[str, Any]:
    """What the browser finds on a page at a size in pixels."""
    axe = f"<script>{Path(AXE).read_text(encoding='utf-8')}</script>" if AXE else ""
    copy = folder / "page.html"
    text = (ROOT / page).read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"{axe}{_MEASURE}</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size}",
        "--virtual-time-budget=30000", "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    (found,) = re.findall(r"FOUND(\{.*\})DNUOF", done.stdout)
    result: dict[str, Any] = json.loads(found)
    return result


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("size", ["1440,900", "500,844"])  # Chromium has no narrower window
def test_a_page_is_short_drawn_and_accessible(page: str, size: str, tmp_path: Path) -> None:
    found = measured(page, tmp_path, size)
    assert found["words"] <= 3000 and found["fold"] <= 3
    assert found["overflow"] <= 0
    assert found["drawn"] == found["charts"] > 0
    assert found["cut"] == 0 and set(found["scales"]) <= {1}  # legends whole, one scale an axis
    assert [v for v in found.get("axe", []) if v[0] in ("serious", "critical")] == []
