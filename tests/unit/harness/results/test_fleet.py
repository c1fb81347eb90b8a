"""What many devices take in a year: known answers, and what is not subtracted from each other."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from documents import FORMULA, make_document, make_row
from msgspec.structs import replace
from rich.console import Console

from modelwright.harness.report.fleet import print_fleet, render_fleet_csv
from modelwright.harness.report.page import render_html
from modelwright.harness.results.file import decode_results, encode_results
from modelwright.harness.results.fleet import count_fleet
from modelwright.harness.results.fleet_record import Fleet, Usage
from modelwright.harness.results.record import Comparison
from modelwright.profiles.grid import GridRegion

REGION = GridRegion(name="OWN", title="own figure", g_per_kwh=420, year=2021, source="the supplier's bill")
PRICED: dict[str, Any] = {"price_per_kwh": 0.3, "currency": "EUR", "price_source": "contract of 2026"}
ROWS = [
    make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=20.0),
    make_row("ort-int8", "ONNX Runtime INT8", latency_ms=10.0, ratio=2.0),
]
"""0.24 and 0.12 J an inference."""


def make_comparison(rows: list[dict[str, Any]] = ROWS) -> Comparison:
    return decode_results(make_document(rows), where="test")


def count(comparison: Comparison, devices: tuple[int, ...] = (1000,), **usage: Any) -> Fleet:
    asked = Usage(devices=devices, **({"inferences": 2016.0, "period": "week"} | usage))
    return count_fleet(comparison, asked, REGION)


def test_energy_carbon_and_costs_of_a_year_have_known_answers() -> None:
    fleet = count(make_comparison(), (1000, 10_000), **PRICED)
    assert fleet.inferences_per_year == pytest.approx(105_120), "2,016 a week are 288 a day, on 365 days"
    found = {(row.target, row.devices): row for row in fleet.rows}
    small = found["ort-int8", 1000]
    assert small.energy_kwh == pytest.approx(0.12 * 105_120 * 1000 / 3.6e6)
    assert small.energy_kwh == pytest.approx(3.504)
    assert small.carbon_kg == pytest.approx(3.504 * 0.42)
    assert small.cost == pytest.approx(3.504 * 0.3)
    assert (small.saved_kwh, small.saved_carbon_kg, small.saved_cost) == pytest.approx((3.504, 1.47168, 1.0512))
    assert small.infers_s == pytest.approx(10.2e-3 * 105_120), "by the mean latency"
    assert found["ort-int8", 10_000].energy_kwh == pytest.approx(35.04)
    assert found["ort-fp32", 1000].saved_kwh == 0.0


@pytest.mark.parametrize(("inferences", "period"), [(288.0, "day"), (2016.0, "week")])
def test_a_week_is_seven_days(inferences: float, period: str) -> None:
    assert count(make_comparison(), inferences=inferences, period=period).inferences_per_year == pytest.approx(105_120)


def test_what_takes_more_than_the_baseline_saves_less_than_nothing() -> None:
    rows = [ROWS[0], make_row("ort-int8", "ONNX Runtime INT8", latency_ms=40.0, ratio=0.5)]
    assert count(make_comparison(rows)).rows[1].saved_kwh == pytest.approx(-7.008)


def test_a_measured_energy_is_not_subtracted_from_an_estimate() -> None:
    rows = [ROWS[0], make_row("ort-int8", "ONNX Runtime INT8", latency_ms=10.0, ratio=2.0, energy="measured:rapl")]
    row = count(make_comparison(rows), **PRICED).rows[1]
    assert row.energy_kwh == pytest.approx(3.504)
    assert (row.saved_kwh, row.saved_carbon_kg, row.saved_cost) == (None, None, None)
    assert [row.is_estimated for row in count(make_comparison(rows)).rows] == [True, False]


def test_without_an_energy_there_is_no_row_and_without_a_price_no_cost() -> None:
    rows = [ROWS[0], make_row("ort-int8", "ONNX Runtime INT8", latency_ms=10.0, ratio=2.0, energy=None)]
    fleet = count(make_comparison(rows))
    assert [row.target for row in fleet.rows] == ["ort-fp32"]
    assert fleet.rows[0].cost is None


def test_it_is_written_and_read_and_shown_with_its_sources() -> None:
    comparison = make_comparison()
    comparison = replace(comparison, fleet=count(comparison, (1000, 10_000), **PRICED))
    assert decode_results(encode_results(comparison), where="test").fleet == comparison.fleet
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    print_fleet(comparison, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    for text in (shown, render_html(comparison)):
        words = " ".join(text.split())
        for part in ("1,000 devices", "10,000 devices", "2,016 inferences a week", "~3.50", "contract of 2026"):
            assert part in words, part
        assert "the supplier" in words
        assert "what devices draw between inferences is not in it" in words
        assert "estimated by the profile" in words


def test_a_measured_energy_is_not_called_an_estimate() -> None:
    comparison = make_comparison([make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=20.0, energy="measured:rapl")])
    comparison = replace(comparison, fleet=count(comparison))
    console = Console(width=200, record=True, file=io.StringIO())
    print_fleet(comparison, console)
    assert "~" not in console.export_text()


def test_more_inferences_than_a_day_has_time_for_are_told() -> None:
    comparison = make_comparison()
    comparison = replace(comparison, fleet=count(comparison, inferences=1e8, period="day"))
    console = Console(width=200, record=True, file=io.StringIO())
    print_fleet(comparison, console)
    assert "beyond one device" in console.export_text()


def test_the_table_has_a_row_a_target_and_size_and_no_formula() -> None:
    comparison = make_comparison([ROWS[0] | {"target": FORMULA}])
    rows = list(csv.DictReader(io.StringIO(render_fleet_csv(count(comparison, (1, 2), **PRICED)))))
    assert [row["devices"] for row in rows] == ["1", "2"]
    assert rows[0]["model_variant"].startswith("'=")
    assert float(rows[1]["energy_kwh"]) == pytest.approx(0.014016)
    assert rows[0]["energy_is_estimated"] == "yes"
