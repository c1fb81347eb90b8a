"""The four panels: what is drawn of which row, in which units, and that a grey print tells the kinds apart."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from documents import HOSTILE, make_document, make_row

pytest.importorskip("matplotlib", reason="the extra [study]")

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from modelwright.harness.results.file import decode_results
from modelwright.harness.results.record import Comparison
from modelwright.harness.study import plot
from modelwright.harness.study.plot import draw_study

BASE = make_row("teacher/ort-fp32", "ONNX Runtime FP32 of teacher", latency_ms=20.0)
FAST = make_row("student/ort-int8", "ONNX Runtime INT8 of student", latency_ms=5.0, ratio=4.0, precision="int8")


def make_comparison(*rows: dict[str, Any]) -> Comparison:
    return decode_results(make_document(list(rows), baseline="teacher/ort-fp32"), where="test")


def draw(*rows: dict[str, Any], line: float = 67.0) -> Figure:
    return plot._Panels(make_comparison(*rows), line, Figure).draw()


def test_each_panel_has_its_figures_in_its_unit() -> None:
    energy, carbon, latency, reduction = draw(BASE, FAST).axes
    assert [bar.get_width() for bar in energy.patches] == pytest.approx([240.0, 60.0])
    assert "mJ" in energy.get_xlabel()
    assert [bar.get_width() for bar in carbon.patches] == pytest.approx([28.0, 7.0])
    assert "at 420 g/kWh, µg CO2e" in carbon.get_xlabel()
    assert [bar.get_width() for bar in latency.patches] == pytest.approx([20.0, 5.0])
    assert "median latency, ms" in latency.get_xlabel()
    assert [bar.get_width() for bar in reduction.patches] == pytest.approx([75.0, 75.0]), "of energy and of carbon"
    assert "%" in reduction.get_xlabel()
    assert [line.get_xdata()[0] for line in reduction.lines if line.get_linestyle() == "--"] == [67.0]


def test_intervals_are_those_of_the_ratio() -> None:
    _, _, latency, _ = draw(BASE, FAST).axes
    (interval,) = (list(line.get_xdata()) for line in latency.lines)
    assert interval == pytest.approx([20.0 / (4.0 * 1.01), 20.0 / (4.0 * 0.99)])


def test_an_estimate_is_called_one_and_a_measurement_is_not() -> None:
    assert "(estimated)" in draw(BASE, FAST).axes[0].get_xlabel()
    measured = [row | {"energy": {"per_inference_j": 0.2, "source": "measured:rapl"}} for row in (BASE, FAST)]
    figure = draw(*measured)
    assert "estimated" not in figure.axes[0].get_xlabel()
    assert not [text.get_text() for text in figure.axes[0].texts if "~" in text.get_text()]


def test_other_meters_are_not_subtracted_and_what_is_missing_has_no_bar() -> None:
    other = FAST | {"energy": {"per_inference_j": 0.01, "source": "measured:rapl"}}
    reduction = draw(BASE, other).axes[3]
    assert not reduction.patches
    assert any("not comparable" in text.get_text() for text in reduction.texts)
    none = FAST | {"energy": {"reason": "no meter"}, "carbon": {}}
    assert len(draw(BASE, none).axes[0].patches) == 1


def test_kinds_differ_in_lightness_or_hatch() -> None:
    kinds = [*plot._KINDS.values(), plot._OTHER]
    assert len({hatch for _, hatch in kinds}) == len(kinds)
    grey = {
        face: sum(part * weight for part, weight in zip(to_rgb(face), (0.3, 0.59, 0.11), strict=True))
        for face, _ in kinds
    }
    assert abs(grey[plot._KINDS["float"][0]] - grey[plot._KINDS["int8"][0]]) > 0.2


def test_both_files_are_images_with_every_row_and_the_same_twice() -> None:
    comparison = make_comparison(BASE, FAST)
    png, svg = draw_study(comparison, 67.0)
    assert draw_study(comparison, 67.0) == (png, svg)
    assert imread(io.BytesIO(png)).shape[1] == 1650
    text = svg.decode()
    assert "student/ort-int8" in text
    assert "teacher/ort-fp32 (baseline)" in text
    assert "target 67 %" in text
    assert not re.search(r"<script|href=\"http", text)


def test_names_from_outside_are_only_text() -> None:
    hostile = FAST | {"target": HOSTILE}
    _, svg = draw_study(make_comparison(BASE, hostile), 50.0)
    assert "<script" not in svg.decode()
    dollars = FAST | {"target": r"a$\frac{$/ort-int8"}
    assert b"<svg" in draw_study(make_comparison(BASE, dollars), 50.0)[1]
