"""The table of metrics: a row of it is a metric everywhere."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter

import documents
import pytest
from rich.console import Console

from modelwright.harness.formatting import format_ms, format_significant
from modelwright.harness.report import columns, page, render_comparison, render_csv, render_html, table
from modelwright.harness.results import metrics, schema
from modelwright.harness.results.metrics import LIMITS, METRICS
from modelwright.harness.results.places import Column, Csv, Detail, Metric
from modelwright.harness.results.record import Comparison

MADE_UP = Metric(
    key="import_ms",
    title="time to import the runtime",
    unit="ms",
    better="lower",
    column=Column(head="imp ms", name="import", unit="milliseconds", show=format_significant),
    detail=Detail(line="times", name="import", show=format_ms),
    csv=(Csv(name="import_time_ms"), Csv(name="import_time_s", per=1000)),
)


def read() -> Comparison:
    document = documents.images()
    for index, row in enumerate(document["measurements"]):
        row["import_ms"] = 100.0 + index
    return documents.read(document)


def test_every_key_leads_to_a_figure() -> None:
    rows = [row for make in documents.ALL.values() for row in documents.read(make()).measurements]
    for metric in METRICS:
        for row in rows:
            metric.read(row)
    assert [key for key, count in Counter(metric.key for metric in METRICS).items() if count > 1] == []


def test_what_stands_under_or_beside_a_column_is_one() -> None:
    shown = {metric.key: metric.column for metric in METRICS if metric.column is not None}
    for column in shown.values():
        assert column.under in {None, *shown}
        assert column.note in {None, *shown}


def test_a_new_row_is_in_the_tables_the_details_and_the_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tuple(table.COLUMNS)
    for module in (metrics, columns, page, schema, table):
        monkeypatch.setattr(module, "METRICS", (*METRICS, MADE_UP))
    monkeypatch.setattr(table, "COLUMNS", table._arrange_columns())
    first = next(iter(csv.DictReader(io.StringIO(render_csv(read())))))
    assert tuple(first) == (*before, "import_time_ms", "import_time_s")
    assert (first["import_time_ms"], first["import_time_s"]) == ("100", "0.1")
    html = render_html(read())
    assert "<button type='button'>import</button><small>milliseconds</small>" in html
    assert re.search(r"<th scope='row'>times</th><td>[^<]*, import 100 ms</td>", html)
    console = Console(file=io.StringIO(), width=200)
    render_comparison(read(), console, verbose=True)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "imp ms" in text.splitlines()[0]
    assert "import 100 ms" in text
    described = schema.describe_results()["$defs"]["Measurement"]["properties"]["import_ms"]
    assert described["title"] == "time to import the runtime"
    assert described["description"].startswith("Time to import the runtime; in ms; lower is better.")


def test_limits_are_options_of_the_commands() -> None:
    from modelwright.cli.compare import compare

    options = {parameter.name: parameter for parameter in compare.params}
    assert list(LIMITS) == ["max_p50_ms", "min_accuracy", "min_agreement", "max_size_mb", "max_drop"]
    for name, (_, limit) in LIMITS.items():
        assert options[name].opts == [f"--{name.replace('_', '-')}"]
        assert limit.help
