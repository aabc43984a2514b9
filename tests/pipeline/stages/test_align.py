"""``pagoda captions`` and ``pagoda align``: the set's own pictures follow their captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda.config import parse
from pagoda.data.embedded import SEED, render
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import align
from pagoda.pipeline.stages.score import Source
from tests.tiny import tiny_tree


@pytest.mark.usefixtures("empty_folder")
def test_own_captions_and_those_of_others() -> None:
    config = parse(tiny_tree())
    align.write(config, "test", 30, "long", Path("captions.txt"))
    how: dict[str, Any] = {"seed": SEED, "split": "test", "variety": config.data.variety}
    images, _ = render(np.arange(30), resolution=32, **how)
    np.savez("made.npz", arr_0=images.transpose(0, 2, 3, 1))
    source = Source(Path("made.npz"), None, None, None, False)
    tree = align.run(source, Path("captions.txt"), Path("out.json"))
    found = {row["metric"]: row for row in tree["rows"]}
    assert found["caption"]["value"] >= 0.9 and found["caption_noun"]["value"] == 1
    assert found["caption"]["protocol"] == "caption_30"
    assert found["caption"]["low"] < found["caption"]["value"] <= found["caption"]["high"]
    assert found["caption_noun_by_chance"]["value"] < 0.4
    assert found["caption_tilt"]["n"] == 24  # discs and rings have none
    assert Path("out.json").is_file()
    with pytest.raises(PagodaError, match=r"captions\.txt is there"):
        align.write(config, "test", 5, "short", Path("captions.txt"))
    with pytest.raises(PagodaError, match=r"--split val; it must be one of train, test"):
        align.write(config, "val", 5, "short", None)
    Path("two.txt").write_text("an orange star\na blue cat\n", encoding="utf-8")
    with pytest.raises(PagodaError, match=r"two\.txt, line 2: 'a blue cat' is no caption"):
        align.run(source, Path("two.txt"), None)
    Path("two.txt").write_text("an orange star\na pink disc\n", encoding="utf-8")
    with pytest.raises(PagodaError, match=r"has 30 images and two\.txt 2 captions"):
        align.run(source, Path("two.txt"), None)
    with pytest.raises(PagodaError, match=r"no\.txt is missing"):
        align.run(source, Path("no.txt"), None)


@pytest.mark.usefixtures("empty_folder")
def test_captions_do_not_depend_on_how_many_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any number may be asked for: they are made and written block by block."""
    config = parse(tiny_tree())
    align.write(config, "train", 50, "long", None)
    monkeypatch.setattr(align, "_CAPTIONS", 7)
    align.write(config, "train", 50, "long", Path("captions.txt"))
    shown, written = capsys.readouterr()
    assert Path("captions.txt").read_text(encoding="utf-8") == shown
    assert shown.count("\n") == 50 and written == "written: captions.txt\n"
