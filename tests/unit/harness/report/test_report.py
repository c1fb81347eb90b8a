"""The three reports: what they show, and that no name can break out of them."""

import csv
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import documents
import pytest
from rich.console import Console

from modelwright.core.files import write_text
from modelwright.core.records.codec import encode
from modelwright.harness.report import render_comparison, render_csv, render_html
from modelwright.harness.report.charts import Bar, Point, _Box, draw_bars, place_labels, text_width
from modelwright.harness.report.table import COLUMNS

ALL, judge = documents.ALL, documents.judge


def print_report(document: dict[str, Any], *, width: int = 80, terminal: bool = True, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    render_comparison(documents.read(document), console, **options)
    assert console.width == width
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("name", list(ALL))
def test_terminal_fits_and_cuts_nothing(name: str, width: int) -> None:
    document = ALL[name]()
    shown = print_report(document, width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "\u2026" not in shown
    letters = re.sub(r"\s", "", shown)
    for row in document["measurements"]:
        assert row["target"].replace(" ", "") in letters


@pytest.mark.parametrize("name", list(ALL))
def test_terminal_acts_on_no_name(name: str) -> None:
    for verbose in (False, True):
        shown = print_report(ALL[name](), verbose=verbose)
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    if name == "hostile":
        assert "[red]" in shown, "markup in a name is text"


def test_pipe_gets_one_plain_line_per_target() -> None:
    lines = print_report(documents.images(), terminal=False).splitlines()
    row = next(line for line in lines if " openvino-int8 " in line)
    assert row.split() == [
        *(">*", "openvino-int8", "6.00", "0.217", "0.261", "4600", "142", "~2.61", "98.9", "99.4", "4.60x", "4.55-4.65")
    ]
    assert next(line for line in lines if " openvino-bf16 " in line).startswith("    "), "not on the front"
    assert all(char.isascii() for line in lines for char in line)
    assert sum("Ship OpenVINO INT8" in line and "15 of 360 samples" in line for line in lines) == 1


def test_terminal_says_why_figures_and_targets_are_missing() -> None:
    shown = print_report(documents.transformer(), width=140)
    assert "- p99: needs 662 inferences, 410 were timed\n" in shown
    assert "skipped tensorrt-fp16: package tensorrt>=10 is not installed" in shown
    assert "hint: pip install 'modelwright[tensorrt]'" in shown
    assert "failed tflite-int8: built, but" in shown
    assert "warning: OpenVINO INT8 is not faster than BF16 here" in shown


def test_cosine_never_stands_under_agreement() -> None:
    document = documents.transformer()
    lines = print_report(document, terminal=False).splitlines()
    assert "agree %" in lines[0]
    assert next(line for line in lines if "ort-fp32" in line).split()[8] == "-"
    for row in document["measurements"]:
        row["agreement"] = None
    lines = print_report(document, terminal=False).splitlines()
    assert "cosine" in lines[0]
    assert next(line for line in lines if "openvino-bf16" in line).split()[9] == "0.99998"


def test_verbose_adds_details() -> None:
    document = documents.images()
    document["measurements"][0]["notes"] = ["first layer left in float"]
    assert "first layer left in float" not in print_report(document)
    shown = print_report(document, verbose=True)
    assert "first layer left in float" in shown
    assert "load 31.0 ms" in shown


def test_saved_verdict_is_used_and_a_foreign_one_is_not() -> None:
    document = documents.images()
    document["verdict"] = encode(judge(document)) | {"sentence": "As saved."}
    assert "As saved." in print_report(document)
    document["measurements"].pop()
    assert "As saved." not in print_report(document)


class _Page(HTMLParser):
    """Collects tags, text and what a page would load, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", list(ALL))
def test_page_is_whole_and_loads_nothing(name: str) -> None:
    page = _Page()
    page.feed(render_html(documents.read(ALL[name]())))
    assert page.open == []
    assert page.tags.count("script") == 1, "no name becomes a script"
    names = {key for key, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "data", "action"}
    assert not [key for key in names if key.startswith("on")]
    assert "@import" not in page.text
    assert "url(" not in page.text
    for svg in re.findall(r"<svg.*?</svg>", render_html(documents.read(ALL[name]())), re.DOTALL):
        ET.fromstring(svg)


def test_page_shows_verdict_table_charts_and_environment() -> None:
    html = render_html(documents.read(documents.images()))
    assert "<h2>Ship OpenVINO INT8</h2>" in html
    assert html.count("<tr class='ship'>") == 1
    assert html.count("'tag front'") == 2
    assert 'class="front"' in html
    assert "logarithmic" in html, "0.18 to 7 ms is more than tenfold"
    assert "2.61 mJ (estimate)" in html
    assert "url(#hatch-e)" in html
    assert "AMD EPYC 9R45" in html
    assert "1.31.1" in html
    assert "prefers-color-scheme: dark" in html


def test_page_says_what_is_missing() -> None:
    html = render_html(documents.read(documents.transformer()))
    assert "Not measured: no meter." in html
    assert "url(#hatch-e)" not in html
    assert "p99: needs 662 inferences, 410 were timed" in html
    assert "package tensorrt&gt;=10 is not installed" in html


def test_measured_energy_is_not_hatched() -> None:
    document = documents.images()
    for row in document["measurements"]:
        row["energy"]["source"] = "measured:rapl"
    html = render_html(documents.read(document))
    assert "url(#hatch-e)" not in html
    assert "estimate" not in html.split("<h2>Target by target</h2>")[1].split("</section>")[0]


def test_bar_lengths_are_proportional() -> None:
    bars = [Bar(label=name, value=value, text=name, color=0) for name, value in (("a", 10.0), ("b", 5.0))]
    chart = draw_bars(bars, title="t", hatch_id="h")
    widths = [float(width) for width in re.findall(r'<rect class="bar c0"[^>]* width="([\d.]+)"', chart)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)


@pytest.mark.parametrize("label", ["ONNX Runtime FP32 of the larger teacher", "\u5bb9" * 40, "short"])
def test_the_label_of_the_recommended_bar_is_not_cut_off(label: str) -> None:
    bars = [Bar(label=label, value=1.0, text="1", color=0, is_ship=True), Bar(label="b", value=1.0, text="1", color=0)]
    chart = draw_bars(bars, title="t", hatch_id="h")
    end, shown = re.findall(r'<text class="t ship" x="([\d.]+)"[^>]*text-anchor="end">([^<]+)<title>', chart)[0]
    assert float(end) - text_width(shown) * 1.12 >= 0, "bold is an eighth wider"
    assert f"<title>{label}</title>" in chart


def test_how_pictures_became_inputs_is_told() -> None:
    html = render_html(documents.read(documents.images()))
    assert "--preprocess" not in html
    document = documents.images()
    preprocess = {"input": "image", "size": [32, 32], "mean": [0.5], "std": [0.25]}
    document["samples"]["pictures"] = {
        "preprocess": preprocess, "classes": ["cat", "dog"], "order": "their names", "taken": 1200, "copies": 3,
    }  # fmt: skip
    html = render_html(documents.read(document))
    told = "1,200 by --preprocess size=32,interpolation=bilinear,channels=rgb,scale=1/255,mean=0.5,std=0.25"
    assert told in html
    assert "0: cat, 1: dog, in the order of their names" in html


def test_a_whisker_that_leaves_the_chart_ends_in_an_arrow() -> None:
    bars = [Bar(label=name, value=10.0, text=name, color=0, upper=upper) for name, upper in (("a", 15.0), ("b", 60.0))]
    inside, beyond = re.findall(r'<path class="whisker" d="([^"]+)"', draw_bars(bars, title="t", hatch_id="h"))
    assert "V" in inside
    assert "L" not in inside
    assert "L" in beyond
    assert "V" not in beyond


def test_labels_do_not_touch() -> None:
    """Ten targets in one spot of the chart: every label that is drawn stands free."""
    points = [
        Point(label=f"Runtime INT8 {index}", x=1, y=1, whisker=None, color=0, is_float=True, on_front=index < 2,
              is_ship=index == 0, tooltip="")
        for index in range(10)
    ]  # fmt: skip
    area = _Box(left=0, top=0, right=600, bottom=400)
    spots = [(300.0 + index, 200.0) for index in range(10)]
    boxes = [box for box in place_labels(points, spots, area) if box is not None]
    assert len(boxes) >= 8
    assert all(box.within(area) for box in boxes)
    assert not any(box.overlaps(other) for box in boxes for other in boxes if box is not other)
    assert place_labels(points, spots, area)[0] is not None, "the recommended target has its label"


def read_rows(document: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(documents.read(document)))))


def test_csv_columns_and_known_values() -> None:
    rows = read_rows(documents.images())
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert tuple(COLUMNS)[:17] == (
        *("run_id", "model_variant", "timestamp", "num_parameters", "model_size_mb", "num_inferences"),
        *("total_energy_kwh", "energy_per_inference_wh", "carbon_total_kg", "carbon_per_inference_g"),
        *("inference_time_ms", "inferences_per_second", "energy_reduction_pct", "carbon_reduction_pct", "speedup"),
        *("device", "energy_source"),
    ), "programs may count them"
    assert len(rows) == 10
    int8 = next(row for row in rows if row["model_variant"] == "openvino-int8")
    joules = 0.012 / 4.6
    expected = {
        "num_parameters": 78_666,
        "model_size_mb": 6.0,
        "num_inferences": 1200,
        "total_energy_kwh": joules * 1200 / 3.6e6,
        "energy_per_inference_wh": joules / 3600,
        "carbon_total_kg": joules / 3.6e6 * 0.42 * 1200,
        "carbon_per_inference_g": joules / 3.6e6 * 420,
        "inference_time_ms": 1 / 4.6,
        "inferences_per_second": 4600,
        "energy_reduction_pct": (1 - 1 / 4.6) * 100,
        "carbon_reduction_pct": (1 - 1 / 4.6) * 100,
        "speedup": 4.6,
    }
    assert {key: float(int8[key]) for key in expected} == pytest.approx(expected)
    assert int8["timestamp"] == "2026-11-21T10:15:00+00:00"
    assert int8["energy_source"] == "estimated:tdp_util"
    slow = next(row for row in rows if row["model_variant"] == "ort-int8-dynamic")
    assert float(slow["energy_reduction_pct"]) == pytest.approx(-600), "takes more: negative, and still a number"


def test_csv_leaves_unknown_cells_empty() -> None:
    rows = read_rows(documents.transformer())
    assert [row["energy_per_inference_wh"] for row in rows] == [""] * 6
    skipped = rows[4]
    assert skipped["model_variant"] == "tensorrt-fp16"
    assert [key for key, value in skipped.items() if value] == [
        "run_id", "model_variant", "timestamp", "num_parameters", "device"
    ]  # fmt: skip


def test_csv_compares_no_estimate_with_a_measurement() -> None:
    document = documents.images()
    document["measurements"][0]["energy"]["source"] = "measured:rapl"
    rows = read_rows(document)
    assert rows[0]["energy_reduction_pct"] == "0"
    assert rows[1]["energy_reduction_pct"] == ""


def test_csv_cells_are_no_formulas(tmp_path: Path) -> None:
    write_text(tmp_path / "results.csv", render_csv(documents.read(documents.hostile())))
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model_variant"] for row in rows][1:3] == ["'" + documents.FORMULA, "'@SUM(1)"]
    for row in rows:
        texts = (row["model_variant"], row["device"], row["energy_source"], row["run_id"])
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in texts)


def test_targets_that_miss_for_one_reason_are_named_together() -> None:
    make_unmeasured = documents.make_unmeasured
    reason = "cannot be built: it runs the PyTorch program, and the source is ONNX"
    document = documents.images()
    document["measurements"] += [
        make_unmeasured(name, name, "skipped", f"{name} {reason}", "give the .pt2")
        for name in ("torch-fp32", "torch-fp16")
    ]
    shown = print_report(document, width=140)
    assert f"skipped torch-fp16, torch-fp32: {reason}\n  hint: give the .pt2\n" in shown
    assert shown.count(reason) == 1


def test_an_fp32_that_speed_ups_are_not_over_is_named_in_full() -> None:
    document = documents.images()
    rows = {row["target"]: row for row in document["measurements"]}
    slow = dict(rows["ort-fp32"]) | {"target": "torch-fp32", "title": "PyTorch FP32", "runtime": "torch"}
    document["measurements"].append(slow)
    over_ort, over_torch = judge(document), judge(document | {"baseline": "torch-fp32"})
    assert any("7.0 times slower than FP32 (" in text for text in over_ort.warnings)
    assert "times as fast as PyTorch FP32" in over_torch.sentence
    assert any("7.0 times slower than ONNX Runtime FP32 (" in text for text in over_torch.warnings)
