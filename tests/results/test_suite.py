"""Tables and the page of everything: from results alone, byte for byte, nothing blended."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import report
from pagoda.results import study_tracking, tracking
from pagoda.results.blocks import Cell, Table, escape, to_csv, to_latex
from pagoda.results.claim_verdicts import all_verdicts
from pagoda.results.claims import FOLDER as STUDIES
from pagoda.results.claims import read_claims
from pagoda.results.paper_tables import Paper, measured_table, way_up_table
from pagoda.results.plans import plan_tables
from pagoda.results.published import FOLDER, read_published
from pagoda.results.runs import Facts, Run, distinct, experiments, find_runs, mlflow_runs
from pagoda.results.studies import find_studies, read_study, study_folder, write_study
from pagoda.results.study_tables import write_summary
from pagoda.results.suite import Material, gather, suite_tables, write_suite
from pagoda.rows import Row
from pagoda.rows import to_csv as rows_to_csv
from tests.results.synthetic import Page, make_config, result_rows, write_experiment
from tests.results.synthetic_study import make_card, make_rows

ROOT = Path(__file__).parents[2]
PUBLISHED = read_published(ROOT / FOLDER)


@pytest.fixture(scope="module")
def project(
    finished: tuple[Config, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Config, Path]]:
    """A folder with one reported experiment, one study, claims and published figures."""
    config, reported = finished
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(reported, Paths(config).report)
        rows = make_rows({"few": [3.0, 3.1, 2.9], "many": [1.0, 1.1, 0.9]})
        card = make_card(profile="smoke")
        write_study(study_folder("smoke", "pairs"), card, rows)
        write_summary(read_study(study_folder("smoke", "pairs")))
        shutil.copytree(ROOT / FOLDER, FOLDER)
        shutil.copytree(ROOT / "experiments", "experiments", symlinks=True)
        gather()
        yield config, folder


def make_run(config: Config, **overrides: object) -> Run:
    rows = tuple(Row(**row) for res in config.resolutions for row in result_rows(config, res))
    facts = Facts(0, "discs", 12.0)
    run = Run(config.name, config.base_res, facts, "`here`", rows)
    return dataclasses.replace(run, **overrides)  # type: ignore[arg-type]


def test_other_evaluations_of_a_generator_stand_in_its_line(tmp_path: Path) -> None:
    """FID of the released weights, measured by ``pagoda evaluate``, beside the published ones."""
    rows = [row | {"resolution": 64} for row in result_rows(make_config(), 32)]
    results = tmp_path / "official" / "b8" / "results.csv"
    results.parent.mkdir(parents=True)
    results.write_text(rows_to_csv(Row(**row) for row in rows))
    row = rows[0] | {"generator": "64", "metric": "fid", "value": 1.75,
                     "protocol": "fid_legacy_tensorflow_50k"}  # fmt: skip
    (tmp_path / "official" / "evaluations").mkdir()
    file = tmp_path / "official" / "evaluations" / "top.json"
    file.write_text(
        json.dumps({"reference": {}, "rows": [row, row | {"base_res": None, "value": 9.0}]})
    )
    (run,) = find_runs(tmp_path)
    table = Paper([], [run]).tables()["imagenet-64"]
    assert column(table, "FID ↓ `fid_legacy_tensorflow_50k`") == ["1.75"]
    file.write_text("{}")
    with pytest.raises(PagodaError, match="no rows of 'pagoda evaluate'"):
        find_runs(tmp_path)


def column(table: Table, name: str) -> list[str]:
    return [row[table.header.index(name)].text for row in table.rows]


def test_tables_regenerate_byte_for_byte_from_results(project: tuple[Config, Path]) -> None:
    _, folder = project
    before = {f: f.read_bytes() for f in (folder / "reports" / "suite").rglob("*") if f.is_file()}
    ledger = (folder / "reports" / "claims.md").read_bytes()
    shutil.rmtree(folder / "runs", ignore_errors=True)  # results alone, no artifacts
    gather()
    after = {f: f.read_bytes() for f in (folder / "reports" / "suite").rglob("*") if f.is_file()}
    assert after == before
    assert (folder / "reports" / "claims.md").read_bytes() == ledger
    kinds = {f.suffix for f in before}
    assert kinds == {".csv", ".tex", ".md", ".html", ".png"}


def test_the_projects_tables_are_those_of_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed was not typed, and 'pagoda report --all' ran after the last change."""
    monkeypatch.chdir(ROOT)
    published, reports = read_published(), Path("reports")
    material = Material(published, find_runs(reports), find_studies(reports), read_claims(), "",
                        reports, plan_tables(reports))  # fmt: skip
    made = suite_tables(material)
    folder = reports / "suite" / "tables"
    assert {file.stem for file in folder.iterdir()} == set(made)
    for name, table in made.items():
        assert (folder / f"{name}.csv").read_text() == to_csv(table), name
        assert (folder / f"{name}.tex").read_text() == to_latex(table, name), name
    lines = csv.DictReader((reports / "suite" / "claims.csv").open())
    verdicts = all_verdicts(material.claims, material.studies)
    assert {(r["claim"], r["profile"], r["verdict"], r["reason"]) for r in lines} == {
        (j.claim.id, j.profile, j.outcome, j.reason) for j in verdicts
    }


def test_every_measured_number_is_in_the_results(project: tuple[Config, Path]) -> None:
    """A value's provenance holds it unrounded; those are exactly the rows of results.csv."""
    config, folder = project
    results = (folder / Paths(config).report / "results.csv").read_text()
    known = {float(row["value"]) for row in csv.DictReader(io.StringIO(results))}
    shown = set()
    for file in (folder / "reports" / "suite" / "tables").glob("measured-*.csv"):
        shown |= {float(v) for v in re.findall(r"_classifier_2k\w* = ([-\d.e]+)", file.read_text())}
    assert shown
    assert shown <= known


def test_every_published_number_is_in_the_csv(project: tuple[Config, Path]) -> None:
    _, folder = project
    known = {f"{p.value:g}" for p in read_published()}
    for file in (folder / "reports" / "suite" / "tables").glob("imagenet-*.csv"):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        cells = [v for row in rows for k, v in row.items() if k in ("FID ↓", "IS ↑", "Recall ↑")]
        values = {t for cell in cells for t in re.split(r" / ", cell.replace("†", "")) if t}
        assert values
        assert values <= known


def test_the_page_needs_no_network_and_markdown_links_exist(project: tuple[Config, Path]) -> None:
    _, folder = project
    suite = folder / "reports" / "suite"
    html = (suite / "index.html").read_text()
    page = Page()
    page.feed(html)
    assert page.open == []
    files = [link for link in page.links if not link.startswith(("data:image/", "#"))]
    assert set(files) == {
        *(f"../../experiments/{c.study}/README.md" for c in read_claims(ROOT / STUDIES)),
        "../smoke/studies/pairs/summary.md",
        (curves := "../smoke/b8/curves.tsv"),  # of the charts, which the text lacks
    }
    assert all((suite / link).is_file() for link in files)
    linked = re.findall(r"\]\(([^)]+)\)", (suite / "report.md").read_text())
    assert set(files) - {curves} <= set(linked)
    assert any("samples.png" in link for link in linked)
    assert any("neighbours.png" in link for link in linked)
    assert any("curves-distill.png" in link for link in linked)
    assert all((suite / link).is_file() for link in linked)


def test_the_ledger_says_what_the_results_say(project: tuple[Config, Path]) -> None:
    _, folder = project
    text = (folder / "reports" / "claims.md").read_text()
    assert all(f"`{claim.id}`" in text for claim in read_claims(ROOT / STUDIES))
    assert "not enough evidence: the study was not run" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {"../experiments/cost/README.md", "smoke/studies/pairs/summary.md"} <= set(links)
    assert all((folder / "reports" / link).is_file() for link in links)
    lines = list(csv.DictReader((folder / "reports/suite/claims.csv").open()))
    assert {line["verdict"] for line in lines} == {"not enough evidence"}


def test_a_wrong_direction_is_printed_as_not_supported(
    project: tuple[Config, Path], tmp_path: Path
) -> None:
    (claim,) = (c for c in read_claims(ROOT / STUDIES) if c.id == "pairs.one_percent_quality")
    studies = find_studies(project[1] / "reports")
    claims = [dataclasses.replace(claim, value=("few",), against=("many",))]
    write_suite(Material(read_published(), [], studies, claims, "abc", tmp_path))
    assert "✗ not supported" in (tmp_path / "claims.md").read_text()


def test_published_and_measured_never_share_a_column() -> None:
    run = make_run(make_config(), profile="imagenet")
    rows = tuple(dataclasses.replace(r, resolution=r.size * 8) for r in run.rows)
    run = dataclasses.replace(run, rows=rows, base_res=64)
    table = Paper(PUBLISHED, [run]).tables()["imagenet-64"]
    kinds = column(table, "Row")
    assert kinds.count("measured here") == 1
    for name in table.header[4:]:
        filled = {kind for kind, text in zip(kinds, column(table, name), strict=True) if text}
        assert len(filled) <= 1, name


def test_scaled_down_runs_are_labelled_and_stay_out_of_the_papers_columns() -> None:
    run = make_run(make_config())
    for table in (way_up_table([run]), measured_table([run])):
        assert "measured here, scaled down" in table.caption.lower()
        assert not any(name.startswith(("FID", "Source")) for name in table.header)
    full = dataclasses.replace(run, profile="imagenet")
    assert "scaled down" not in measured_table([full]).caption.lower()
    assert all("published, full size" in t.caption for t in Paper(PUBLISHED).tables().values())


def test_equal_protocols_of_different_references_get_columns_of_their_own() -> None:
    first = make_run(make_config())
    rows = tuple(dataclasses.replace(r, reference="bb" * 32) for r in first.rows)
    second = dataclasses.replace(first, profile="other", rows=rows)
    third = dataclasses.replace(second, profile=first.profile, facts=Facts(1))
    for table in (way_up_table([first, second]), measured_table([first, third])):
        names = [name for name in table.header if name.startswith("FD ")]
        assert names
        for name in names:
            runs = {r[0].text for r in table.rows if r[table.header.index(name)].text}
            assert len(runs) == 1


def test_one_step_generators_have_one_order() -> None:
    for size in (64, 128, 256, 512):
        table = Paper(PUBLISHED).tables()[f"one-step-{size}"]
        fids = [float(re.split(r"[†‡ ]", text)[0]) for text in column(table, "FID ↓") if text]
        assert fids == sorted(fids) and len(fids) > 1


def test_records_name_every_one_step_figure_below_the_papers_and_no_other(
    tmp_path: Path,
) -> None:
    texts = Paper(PUBLISHED).records()
    kept = [text for text in texts if "no one-step FID here is below" in text]
    assert len(texts) == 4 and len(kept) == 1 and kept[0].startswith("**128×128**: ")
    assert "pMF-H + FD-Inception post-training 0.72† (trained on the distance itself)" in texts[2]
    own, head = tmp_path / "own.csv", (FOLDER / "one_step.csv").read_text().splitlines()[0]
    rows = {"below": 1.2, "equal": 1.21, "two": 1.1}
    lines = [f"in64_onestep,ImageNet,64,{name},n/r,FID,{value},{2 if name == 'two' else 1},,,mine"
             for name, value in rows.items()]  # fmt: skip
    own.write_text("\n".join([head, *lines]))
    first = Paper(read_published(ROOT / FOLDER, own=own)).records()[0]
    assert first.endswith("GDD-I 1.16; below 1.2‡.")
    assert "equal" not in first and "two" not in first


def test_a_users_file_fills_the_papers_table_of_base_resolutions(tmp_path: Path) -> None:
    own, head = tmp_path / "own.csv", (FOLDER / "one_step.csv").read_text().splitlines()[0]
    line = 'table2_base_resolution,ImageNet,64,"PaGoDA, base {}",no,FID,9.5,1,,,mine'
    own.write_text("\n".join([head, line.format(32), line.format(16)]))
    before = Paper(PUBLISHED).tables()["base-resolution"]
    table = Paper(read_published(ROOT / FOLDER, own=own)).tables()["base-resolution"]
    assert column(before, "FID 64×64 ↓")[1] == ""
    assert column(table, "Method")[1:] == ["PaGoDA, base 32", "PaGoDA, base 16"]
    assert column(table, "FID 64×64 ↓")[1:] == ["9.5‡", "9.5‡"]
    assert column(table, "FID 32×32 ↓") == [*column(before, "FID 32×32 ↓"), ""]


def test_an_empty_cell_stays_empty_until_the_documented_file_of_a_user_fills_it(
    tmp_path: Path,
) -> None:
    def shown(paper: Paper) -> tuple[str, str]:
        table = paper.tables()["imagenet-64"]
        (row,) = [r for r in table.rows if r[0].text == "**PaGoDA**"]
        return row[table.header.index("IS ↑")].text, row[table.header.index("Source")].text

    assert shown(Paper(PUBLISHED))[0] == ""
    lines = (ROOT / "docs" / "report.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    table,dataset,"))
    own = tmp_path / "own.csv"
    own.write_text("\n".join(line.strip() for line in lines[start : start + 2]) + "\n")
    paper = Paper(read_published(ROOT / FOLDER, own=own))
    value, cited = shown(paper)
    assert value.endswith("‡")
    listed = {r[0].text: (r[1].text, r[2].text) for r in paper.source_table().rows}
    assert ("where I read it", "user") in {listed[number] for number in cited.split(", ")}


def test_every_table_of_the_paper_is_there_as_text_csv_latex_and_html(
    project: tuple[Config, Path],
) -> None:
    suite = project[1] / "reports" / "suite"
    text, html = (suite / "report.md").read_text(), (suite / "index.html").read_text()
    wanted = {
        *(f"imagenet-{r}" for r in (64, 128, 256, 512)), "fd-dinov2-64", "fd-dinov2-512",
        "base-resolution", "upsampling", "growth-baselines", "sources",
        *(f"one-step-{r}" for r in (64, 128, 256, 512)),
    }  # fmt: skip
    assert {f.stem for f in (suite / "tables").glob("*.csv")} >= wanted
    for name in wanted:
        caption = re.search(
            r"\\caption{\\textbf{(.+?)}", (suite / f"tables/{name}.tex").read_text()
        )
        assert caption is not None
        title = caption[1].replace(r"$\times$", "×")
        assert f"**{title}**" in text and f"<strong>{title}</strong>" in html


def test_sources_that_differ_are_both_shown() -> None:
    table = Paper(PUBLISHED).tables()["imagenet-64"]
    cells = [c for row in table.rows for c in row if " / " in c.text]
    assert cells
    assert all(";" in c.title for c in cells)


def test_runs_found_twice_are_one(project: tuple[Config, Path]) -> None:
    runs = find_runs(project[1] / "reports")
    assert [r.facts.seed for r in runs] == [project[0].seed]
    again = dataclasses.replace(runs[0], origin="elsewhere")
    assert distinct([*runs, again]) == runs


def test_experiments_of_dvc_are_read_from_their_commits(project: tuple[Config, Path]) -> None:
    config, folder = project

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    with pytest.raises(PagodaError, match="--from-exp reads DVC's experiments from git"):
        experiments()
    git("init", "-q")
    assert experiments() == []
    git("commit", "-qm", "base", "--allow-empty")
    base = git("rev-parse", "HEAD")
    git("add", "reports")
    git("commit", "-qm", "x")
    made = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/tall-cat", made)
    git("update-ref", "refs/exps/stash", made)
    git("commit", "-qm", "later, of something else", "--allow-empty")
    git("update-ref", f"refs/exps/{made[:2]}/{made[2:]}/idle-dog", "HEAD")
    (found,) = experiments()
    assert (found.profile, found.base_res, found.facts.seed) == (config.name, 8, config.seed)
    assert "tall-cat" in found.origin
    assert found.rows == find_runs(folder / "reports")[0].rows
    shutil.rmtree(folder / ".git")


@pytest.mark.longer
def test_runs_of_mlflow_are_read_from_their_reports(
    blank_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(blank_store, tmp_path / "m.db")
    config = make_config(base_res=32)
    write_experiment(config, columns=1)
    report.run(config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    tracking.track(config)
    tracking.track_rows({"rows": result_rows(config, 32)})  # no experiment, and no study is
    write_study(study_folder("smoke", "pairs"), make_card(), make_rows({"few": [3.0]}))
    study_tracking.track_studies()
    (found,) = mlflow_runs()
    (local,) = find_runs()
    assert (found.rows, found.facts) == (local.rows, local.facts)
    assert distinct([local, found]) == [local]


def test_latex_is_escaped_and_balanced() -> None:
    assert escape("a_b & `x_1` **50 %** {↓}") == (
        r"a\_b \& \texttt{x\_1} \textbf{50 \%} \{$\downarrow$\}"
    )
    table = Paper(PUBLISHED).tables()["imagenet-512"]
    text = to_latex(table, "t")
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    width = len(re.findall(r"(?<!\\)&", text.split(r"\toprule")[1].split(r"\midrule")[0]))
    assert all(len(re.findall(r"(?<!\\)&", line)) == width for line in body)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.isascii()


def test_csv_keeps_provenance_beside_the_value() -> None:
    table = Table("c", ("A", "B ↓ `p`"), ((Cell("**x**"), Cell("1.0", "from y")),), "lr")
    assert list(csv.reader(io.StringIO(to_csv(table)))) == [
        ["A", "B ↓ p", "B ↓ p provenance"], ["x", "1.0", "from y"],
    ]  # fmt: skip


def test_a_reworded_report_changes_nothing(project: tuple[Config, Path], tmp_path: Path) -> None:
    """Facts and figures of a run are data: its text may say anything, in any language."""
    config, folder = project
    shutil.copytree(folder / Paths(config).report, tmp_path / "smoke" / "b8")
    (before,) = find_runs(tmp_path)
    assert before.facts.train_seconds == 360.0 and "10 classes" in before.facts.data
    assert {f.file for f in before.facts.figures} >= {"samples.png", "curves-teacher.png"}
    (tmp_path / "smoke" / "b8" / "report.md").write_text("# Bericht\n\n| Startwert | keiner |\n")
    assert find_runs(tmp_path) == [before]
    (tmp_path / "smoke" / "b8" / "facts.json").write_text('{"seed": 1, "mood": "good"}')
    with pytest.raises(PagodaError, match=r"facts\.json beside .*b8/results\.csv is damaged"):
        find_runs(tmp_path)
    (tmp_path / "smoke" / "b8" / "facts.json").unlink()
    assert find_runs(tmp_path)[0].facts == Facts()
