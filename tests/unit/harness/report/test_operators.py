"""Where the time goes, as the terminal and the page show it."""

from __future__ import annotations

import io
from typing import Any

import documents
from rich.console import Console

from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile
from modelwright.harness.report.operators import SHOWN_TYPES, list_types, print_operators
from modelwright.harness.report.page import render_html
from modelwright.harness.report.terminal import render_comparison
from modelwright.targets.profiling import TimedOperator, make_profile


def profile(*rows: tuple[str, str, str | None, float], nodes: tuple[str, ...] = ("a",)) -> OperatorProfile:
    operators = [
        TimedOperator(name=f"n{n}", type=name, kind=kind, precision=precision, nodes=nodes, times_us=[time_us])  # type: ignore[arg-type]
        for n, (name, kind, precision, time_us) in enumerate(rows)
    ]
    return make_profile("a script", operators, [2 * sum(row[3] for row in rows)], {})


SMALL = profile(("Conv", "compute", "int8", 620), ("Relu", "other", "fp32", 180), ("Reorder", "conversion", None, 200))


def make_comparison(shown: OperatorProfile, **more: Any) -> Any:
    executed = {"precision": "int8", "shares": shown.shares_by_precision(), "source": "a script"}
    row = documents.make_row(
        "ort-int8", "ONNX Runtime INT8", latency_ms=1.0, operators=encode(shown), precision_executed=executed, **more
    )
    return documents.read(documents.make_document([row]))


def print_lines(shown: OperatorProfile, width: int) -> list[str]:
    text = io.StringIO()
    print_operators(shown, Console(file=text, width=width, force_terminal=True, color_system=None), longest=True)
    return text.getvalue().splitlines()


def test_the_precision_that_it_ran_in_is_told_by_shares_of_the_time() -> None:
    text = io.StringIO()
    render_comparison(make_comparison(SMALL), Console(file=text, width=100), verbose=True)
    assert "ran in: int8 (62 % of the time), conversions (20 %), fp32 (18 %)" in text.getvalue()
    assert "62.0 %  620 µs  INT8        1 Conv" in text.getvalue()
    assert "20.0 %  200 µs  conversion  1 Reorder" in text.getvalue()


def test_times_are_shown_in_one_line_each_at_80_columns() -> None:
    lines = print_lines(profile(*[(f"Type{n}", "other", "fp32", 100.0 + n) for n in range(30)], nodes=("x" * 199,)), 80)
    assert max(map(len, lines)) <= 80
    assert sum(" %" in line for line in lines) == SHOWN_TYPES + 1 + 15
    assert sum(line.count("x") for line in lines) == 15 * 199, "a long name is folded, not cut"


def test_types_that_are_not_shown_are_summed_up() -> None:
    lines = list_types(profile(*[(f"T{n}", "other", "fp32", 10.0) for n in range(20)]))
    assert len(lines) == SHOWN_TYPES + 1
    assert lines[-1].name == "8 of 8 other types"
    assert round(sum(line.share for line in lines), 6) == 100


def test_an_operator_of_several_nodes_names_the_first() -> None:
    assert any(
        "a and 2 more" in line
        for line in print_lines(profile(("Conv", "compute", "int8", 1), nodes=("a", "b", "c")), 80)
    )


def test_the_page_folds_a_table_for_each_target() -> None:
    page = render_html(make_comparison(SMALL))
    assert page.count("<details class='operators'>") == 1
    assert "int8 (62 % of the time), conversions (20 %), fp32 (18 %)" in page
    assert "width='62.00'" in page
    assert "conversions of types and layouts" in page
    assert "<h2>Where the time goes</h2>" not in render_html(documents.read(documents.images()))


def test_names_of_strangers_are_cleaned_and_escaped() -> None:
    hostile = profile((documents.HOSTILE, "other", "fp32", 1), nodes=(documents.HOSTILE,))
    page = render_html(make_comparison(hostile))
    assert "<script>alert" not in page
    assert "\x1b" not in page
    text = "\n".join(print_lines(hostile, 80))
    assert "\x1b" not in text
    assert "\u202e" not in text
