"""``pagoda prefer``: from images to a page, votes and their report."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pagoda
from pagoda.errors import PagodaError
from pagoda.models import Generator
from pagoda.pipeline import cli
from pagoda.pipeline.stages import prefer
from pagoda.pipeline.stages.prefer_inputs import Wanted
from pagoda.pipeline.stages.prefer_make import Asked, make, question_list
from pagoda.preference.study import PICTURES, VOTES, read_study
from pagoda.preference.votes import read_votes
from tests.preference.voters import judge, post, refused, served, vote, write_images
from tests.tiny_run import GEN, TEACHER

STUDY = Path("study")
COUNTS = {"ring": 3, "star": 2}


def files(**levels: int) -> list[str]:
    for name, level in levels.items():
        write_images(Path(name), level, COUNTS)
    return list(levels)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(here: Path) -> Path:
    make(files(low=20, high=60), STUDY, None, Wanted(), Asked(attention=0.2))
    return STUDY


def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of trouble of a command."""
    monkeypatch.setattr(sys, "argv", ["pagoda", "prefer", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.startswith("error: ") and said.count("\n") == 1
    return said


def picture(stem: str) -> np.ndarray:
    return np.asarray(Image.open(STUDY / PICTURES / f"{stem}.png"))


def test_pictures_are_those_of_the_sources_whatever_holds_them(here: Path) -> None:
    """A folder, a zip archive of it and an array with labels make the same pictures."""
    files(low=20)
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "b.zip", "low"], check=True)
    arrays = [np.asarray(Image.open(f)) for f in sorted(Path("low").rglob("*.png"))]
    np.savez("c.npz", arr_0=np.stack(arrays), labels=[0, 0, 0, 1, 1], classes=["ring", "star"])
    make(["low", "b.zip", "c.npz"], STUDY, None, Wanted(), Asked(attention=0))
    study = read_study(STUDY)
    assert study.generators == ("low", "b", "c") and study.pairs == 15
    assert [item.prompt for item in study.items] == ["ring"] * 3 + ["star"] * 2
    for item, wanted in zip(study.items, arrays, strict=True):
        for stem in item.pictures:
            np.testing.assert_array_equal(picture(stem), wanted)
    names = {f.stem for f in (STUDY / PICTURES).iterdir()}
    assert names == set(study.files) and len(names) == 15


def test_generators_make_what_sample_makes(linked_run: Path) -> None:
    g = pagoda.load(GEN)
    assert isinstance(g, Generator)
    wanted = g.sample([0, 3], range(5, 8)).transpose(0, 2, 3, 1)
    make([GEN, TEACHER], STUDY, "student,teacher", Wanted("0,3", "5-7", steps=2), Asked())
    study = read_study(STUDY)
    assert study.sides == ((16, 16), (8, 8)) and study.sources[1]["nfe"] == 3
    assert study.sources[0]["nfe"] == 1
    for item, image in zip(study.items, wanted, strict=True):
        np.testing.assert_array_equal(picture(item.pictures[0]), image)
    assert [item.prompt for item in study.items] == [g.classes[y] for y in (0, 0, 0, 3, 3, 3)]


def test_images_of_samples_go_with_their_generator(linked_run: Path) -> None:
    """The folder of ``pagoda sample`` knows the names of its classes."""
    from pagoda.pipeline.stages import sample

    sample.run(sample.Request(GEN, Path("samples"), "0,3", "0-1"))
    make([GEN, "samples"], STUDY, "a,b", Wanted("0,3", "0-1"), Asked(attention=0))
    for item in read_study(STUDY).items:
        np.testing.assert_array_equal(picture(item.pictures[0]), picture(item.pictures[1]))


def test_prompts_of_a_file_are_what_the_bootstrap_draws(here: Path) -> None:
    sources = files(low=20, high=60)
    Path("prompts.txt").write_text("a cat\na dog\na cat\nünïcode “x”\na dog\n", encoding="utf-8")
    make(sources, STUDY, None, Wanted(prompts=Path("prompts.txt")), Asked())
    study = read_study(STUDY)
    assert study.over == "prompts"
    assert [i.prompt for i in study.items] == ["a cat"] * 2 + ["a dog"] * 2 + ["ünïcode “x”"]


def test_what_cannot_be_compared_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files(low=20, high=60)
    write_images(Path("more"), 20, {"ring": 4, "star": 2})
    write_images(Path("other"), 20, {"ring": 3, "blob": 2})
    write_images(Path("flat"), 0, {"ring": 3, "star": 2})
    Path("empty").mkdir()
    Path("loose").mkdir()
    Image.new("RGB", (4, 4)).save("loose/1.png")
    Path("short.txt").write_text("a\nb\n", encoding="utf-8")

    def said(*words: str) -> str:
        found = line(monkeypatch, capsys, "make", *words, "--out", "study")
        assert not STUDY.exists()
        return found

    assert "compares two or more" in said("low")
    assert "two generators are called low" in said("low", "low")
    assert "--names 'a' are 1, for 2 sources" in said("low", "high", "--names", "a")
    assert "other has no images of star, which low has" in said("low", "other")
    assert "more has 4 images of ring, low 3; --per-prompt 3" in said("low", "more")
    assert "empty holds no images" in said("low", "empty")
    assert "there is no gone" in said("low", "gone")
    assert "nobody says what the images show" in said("loose", "loose/", "--names", "a,b")
    assert "short.txt has 2 lines, low 5 images" in said("low", "high", "--prompts", "short.txt")
    assert "so flat that shuffled pixels" in said("flat", "flat/", "--names", "a,b")
    assert "--question 'x'; it is KEY=TEXT" in said("low", "high", "--question", "x")
    assert "none of the --classes" in said("low", "high", "--classes", "blob")


def test_a_study_with_votes_is_not_replaced(made: Path) -> None:
    make(["low", "high"], STUDY, None, Wanted(), Asked(seed=1))  # no votes yet
    (made / VOTES).write_text("")
    with pytest.raises(PagodaError, match="study holds votes, so nothing is written there"):
        make(["low", "high"], STUDY, None, Wanted(), Asked())


def test_the_page_names_no_generator_and_nothing_from_elsewhere(made: Path) -> None:
    with served(made) as address:
        with urllib.request.urlopen(address) as answer:
            page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src 'self' data:")
        now = post(address, "/next", {"voter": "ann"})
        assert not re.search(r"\b(low|high|scrambled)\b", page)
        assert now.keys() == {"trial", "of", "prompt", "left", "right", "ahead"}
        assert not re.search("low|high|scrambled|attention|repeat|pair", json.dumps(now))
        assert not re.search(r"https?://", page)
        for path in (f"/{VOTES}", f"/picture/../{VOTES}", "/picture/study", "/study.json"):
            with pytest.raises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(f"{address}{path}")
            assert raised.value.code == 404


def test_votes_that_are_none_are_refused(made: Path) -> None:
    both = {"quality": "left", "match": "tie"}
    with served(made) as address:
        post(address, "/next", {"voter": "ann"})

        def said(trial: object = 0, answers: object = both, voter: object = "ann", **h: str) -> str:
            tree = {"voter": voter, "trial": trial, "answers": answers, "seconds": 1}
            return "{} {}".format(*refused(address, "/vote", tree, **h))

        assert said(voter=" ").startswith("400 a voter's name")
        assert said(voter="x" * 41).startswith("400 a voter's name")
        assert said(trial="0").startswith("400 a vote says which trial")
        assert said(trial=3).startswith("409 trials before this one")
        assert said(answers={"quality": "left"}).startswith("400 a vote answers quality, match")
        assert said(answers=both | {"match": "both"}).startswith("400 an answer is one of")
        assert said(Content_Type="text/plain").startswith("403 votes come from the page itself")
        assert said(Origin="http://evil.example").startswith("403 votes come from the page itself")
        assert said(Host="evil.example").startswith("421 this is another host")
        assert read_votes(made / VOTES, read_study(made)).count == 0


def test_voters_of_known_preference_are_understood(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One who prefers contrast, one who agrees, and one who answers at random and is found out."""
    with served(made) as address:
        for seed, name in enumerate(("ann", "bob")):
            done = vote(address, name, judge(1.0), seed)
        vote(address, "cat", lambda *_: "tie", 9)
        again = vote(address, "ann", judge(-1.0), 3)
    assert done == len(read_study(made).trials("ann", 0)) and again == 0
    prefer.report(made, None, 0.25)
    text = (made / "report/report.md").read_text(encoding="utf-8")
    assert "20 votes" not in text and "by 2 of 3 voters" in text
    assert "high" in capsys.readouterr().out.splitlines()[0].split()[1]
    assert "| low against high | 0 | 0 | 10 | 0.000 |" in text and "high preferred" in text
    assert "ann" not in text and "(1: all agree" not in text
    rows = list(csv.DictReader((made / "report/results.csv").read_text().splitlines()))
    assert {row["metric"] for row in rows} == {"bradley_terry", "win_rate"}
    prefer.report(made, Path("kept"), 1.0)
    assert "by 3 of 3 voters" in Path("kept/report.md").read_text(encoding="utf-8")


def test_where_no_voter_counts_no_order_is_told(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(made) as address:
        vote(address, "cat", lambda *_: "tie", 9)
    prefer.report(made, None, 0.0)
    told = capsys.readouterr().out.splitlines()
    assert told and all(line.endswith(" no votes") for line in told)


def test_questions_of_ones_own(made: Path) -> None:
    asked = question_list(["sharp=Which is sharper?"])
    make(["low", "high"], STUDY, None, Wanted(), Asked(asked))
    with served(STUDY) as address:
        vote(address, "ann", judge(1.0), 0, ("sharp",))
    prefer.report(STUDY, None, 0.25)
    assert "Which is sharper?" in (STUDY / "report/report.md").read_text(encoding="utf-8")


@pytest.mark.longer
def test_trouble_with_a_study_is_one_line(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        return line(monkeypatch, capsys, *words)

    assert "low holds no study.json" in said("serve", "low")
    assert "study has no votes" in said("report", "study")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "address already in use" in said("serve", "study", "--port", port)
    with served(made) as address:
        vote(address, "ann", judge(1.0), 0, most=2)
        assert "open for votes in another program" in said("serve", "study", "--port", "0")
    kept = (made / VOTES).read_text()
    (made / VOTES).write_text(kept.replace('"quality": "', '"quality": "no', 1))
    assert "line 2 is damaged" in said("report", "study")
    assert "line 2 is damaged" in said("serve", "study", "--port", "0")
    (made / VOTES).write_text(kept)
    monkeypatch.setitem(sys.modules, "evalica", None)
    assert "'uv sync --extra prefer'" in said("report", "study")
    next((made / PICTURES).iterdir()).write_bytes(b"x")
    assert "is not the picture of this study" in said("serve", "study", "--port", "0")


@pytest.mark.slow
def test_a_served_study_outlives_its_server(made: Path) -> None:
    """Killed without warning, the votes that were promised are there; Ctrl-C ends it in order."""
    words = [sys.executable, "-m", "pagoda", "prefer", "serve", "study", "--port", "0"]
    count = 0
    env = os.environ | {"PYTHONPATH": str(Path(pagoda.__file__).parents[1])}
    for number in (signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env) as server:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.match(r"(http://127\.0\.0\.1:\d+) asks about 5 pairs", line)
            assert found, line
            count += vote(found[1], "ann", judge(1.0), 0, most=2)
            server.send_signal(number)
            rest = server.stderr.read()
        assert server.returncode == (-9 if number == signal.SIGKILL else 0)
    assert rest == "ended; 4 votes in study/votes.jsonl\n"
    assert read_votes(made / VOTES, read_study(made)).count == count == 4


@pytest.mark.slow
@pytest.mark.parametrize("tie", [0.0, 0.3])
def test_the_known_order_of_four_comes_out(here: Path, tie: float) -> None:
    """Strengths are those that the voters were given, within their intervals."""
    levels = {"c": 30, "a": 50, "d": 10, "b": 40}
    for name, level in levels.items():
        write_images(Path(name), level, {"ring": 15, "star": 15})
    make(list(levels), STUDY, None, Wanted(), Asked(per_voter=90))
    per_level: Callable[..., str] = judge(0.08, tie)
    with served(STUDY) as address:
        for seed in range(8):
            vote(address, f"voter {seed}", per_level, seed)
    prefer.report(STUDY, None, 0.25)
    lines = list(csv.DictReader((STUDY / "report/results.csv").read_text().splitlines()))
    for question in ("quality", "match"):
        own = [r for r in lines if r["protocol"] == f"bradley_terry_{question}"]
        order = [r["generator"] for r in sorted(own, key=lambda r: -float(r["value"]))]
        assert order == ["a", "b", "c", "d"]
        if not tie:  # ties as half wins draw strengths together
            mean = np.mean(list(levels.values()))
            for row in own:
                truth = 0.08 * (levels[row["generator"]] - mean)
                assert float(row["low"]) - 0.15 <= truth <= float(row["high"]) + 0.15
