"""Text-to-image tables: published figures with their protocols, measured ones in their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.errors import PagodaError
from pagoda.results.blocks import Table
from pagoda.results.paper_tables import Paper
from pagoda.results.published import read_published
from pagoda.results.runs import find_runs
from pagoda.results.text_tables import PROTOCOLS, measured_text_table, text_tables
from pagoda.rows import read_csv, read_text
from tests.results.test_suite import column

FID = "fid_clean_30k_captions_val2014_00000000_real_val2014_40504_{}_lanczos_torchvision256"
SCORE = "clip_score_30k_ViT-g-14_00000000_no_prefix_77tokens_captions_val2014_00000000_lanczos256"
TABLES = {f"text-to-image-{name}": key for name, key in (
    ("coco2014", "table5_t2i_coco2014"), ("coco2017", "table4_t2i_coco2017"),
    ("coco2017-amd", "t2i_coco2017_amd"))}  # fmt: skip


def made(reports: Path) -> dict[str, Table]:
    return text_tables(Paper(read_published()), reports)


def row(protocol: str, **changes: Any) -> dict[str, Any]:
    plain = {"metric": "fid", "protocol": protocol, "value": 12.5, "n": 30_000, "generator": "32",
             "seed": 0, "resolution": 256, "base_res": 8, "nfe": 1}  # fmt: skip
    return plain | changes


def write(
    reports: Path, rows: list[dict[str, Any]], name: str = "mine", *, captions: bool = True,
    **card: Any,
) -> None:  # fmt: skip
    file = reports / f"text/evaluations/{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    tree = {"rows": rows, "reference": {}, "images": [card] if card else []}
    tree |= {"captions": {}} if captions else {}
    file.write_text(json.dumps(tree), "utf-8")


def test_every_published_row_is_there_and_no_other(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.keys() == TABLES.keys()
    for name, table in found.items():
        own = [p for p in read_published() if p.table == TABLES[name]]
        told = {(p.method, f"{p.value:g}") for p in own}
        heads = ("Method", "Pixels", "Guidance", "NFE", "Protocol", "Params, M", "Source")
        values = [i for i, head in enumerate(table.header) if head not in heads]
        shown = {(line[0].text, line[i].text.rstrip("†"))
                 for line in table.rows for i in values if line[i].text}  # fmt: skip
        assert shown == told


def test_every_published_row_says_what_is_known_of_its_protocol(tmp_path: Path) -> None:
    found = made(tmp_path)
    for table in found.values():
        assert not {"", "not stated"} & set(column(table, "Protocol"))
    known = read_csv(read_text(PROTOCOLS), "", ("table", "dataset", "source", "protocol"), ())
    rows = {(p.table, p.dataset, p.source) for p in read_published()}
    assert {(x["table"], x["dataset"], x["source"]) for _, x in known} <= rows


def test_lines_are_in_the_order_of_distances_of_one_kind(tmp_path: Path) -> None:
    for table in made(tmp_path).values():
        for head in (head for head in table.header if head.startswith("FID")):
            values = [float(text.rstrip("†")) for text in column(table, head) if text]
            assert values == sorted(values)
        kinds = [next(i for i, cell in enumerate(line) if table.header[i].startswith("FID")
                      and cell.text) for line in table.rows]  # fmt: skip
        assert kinds == sorted(kinds)


def test_measured_values_have_a_table_and_a_column_a_protocol(tmp_path: Path) -> None:
    names = [FID.format("11111111"), FID.format("22222222"), SCORE]
    write(tmp_path, [row(name, value=i + 1.5) for i, name in enumerate(names)],
          resolution=32, parameters=1_500_000)  # fmt: skip
    found = made(tmp_path)
    table = found.pop("text-to-image-measured")
    assert {f"`{name}`" for name in names} <= set(table.header)
    for i, name in enumerate(names):
        assert column(table, f"`{name}`") == [f"{i + 1.5}0"]
        assert not any(name in head for other in found.values() for head in other.header)
    assert column(table, "Params, M") == ["1.5"] and "Latency, s" not in table.header
    assert column(table, "Pixels") == ["32"]


def test_latency_is_that_of_the_benchmark_of_the_profile(tmp_path: Path) -> None:
    lines = ["resolution,batch,implementation,latency_ms,device,gpu,threads,revision",
             "32,8,\"eager, fp32\",9,cpu,,2,abc", "32,1,\"compiled, fp32\",8,cpu,,2,abc",
             "16,1,\"eager, fp32\",7,cpu,,2,abc", "32,1,\"eager, fp32\",6,cpu,,2,abc"]  # fmt: skip
    (tmp_path / "speed/text").mkdir(parents=True)
    (tmp_path / "speed/text/speed.csv").write_text("\n".join(lines), "utf-8")
    write(tmp_path, [row(SCORE)], resolution=32)
    table = measured_text_table(tmp_path)
    assert table is not None
    (cell,) = [line[table.header.index("Latency, s")] for line in table.rows]
    assert float(cell.text) == 0.006 and "2 threads" in cell.title


def test_they_stay_out_of_the_lines_of_the_run(tmp_path: Path) -> None:
    """A generator's images, enlarged to 256, are no images of its own size."""
    from pagoda.rows import Row, to_csv

    results = tmp_path / "text/b8/results.csv"
    results.parent.mkdir(parents=True)
    plain = Row(metric="fd", protocol="fd_classifier_2k", value=1.0, n=2048, base_res=8,
                resolution=32, generator="grown")  # fmt: skip
    results.write_text(to_csv([plain]), "utf-8")
    write(tmp_path, [row(SCORE)])
    write(tmp_path, [row("fid_clean_2k", n=2048)], "plain", captions=False)
    (run,) = find_runs(tmp_path)
    assert [r.protocol for r in run.rows] == ["fd_classifier_2k", "fid_clean_2k"]


def test_nothing_measured_is_no_table_and_damage_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, [row("fid_clean_30k")], captions=False)
    assert measured_text_table(tmp_path) is None
    (tmp_path / "text/evaluations/mine.json").write_text("{}", "utf-8")
    with pytest.raises(PagodaError, match="no rows of 'pagoda evaluate'"):
        measured_text_table(tmp_path)
