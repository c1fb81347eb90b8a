"""Which columns a table has: of texts with several answers the right ones stand in the place of accuracy."""

from __future__ import annotations

from typing import Any

import documents

from modelwright.harness.report.columns import choose_page_columns, choose_terminal_columns
from modelwright.harness.report.terminal import detail_lines

LABELS: dict[str, Any] = {
    "of": "words", "count": 200, "correct": 150, "accuracy": 0.75, "accuracy_ci95": [0.7, 0.8], "accuracy_fp32": 0.76,
    "f1": 0.5, "f1_ci95": [0.4, 0.6], "f1_fp32": 0.51, "sought": 40,
}  # fmt: skip


def test_right_tags_and_entities_have_columns_where_there_are_some() -> None:
    document = documents.single()
    plain = documents.read(document)
    heads = [one.head for one in choose_terminal_columns(plain, plain.measured)]
    assert "acc %" in heads
    assert not {"right %", "F1 %"} & set(heads)
    for row in document["measurements"]:
        row["labels"] = LABELS
    tagged = documents.read(document)
    for choose in (choose_terminal_columns, choose_page_columns):
        shown = {one.column.name: one.show(tagged.measured[0], tagged) for one in choose(tagged, tagged.measured)}
        assert (shown["right"], shown["F1"]) == ("75.0", "50.0")
        assert "accuracy" not in shown
    told = dict(detail_lines(tagged.measured[0], tagged.baseline))["right answers"]
    assert "75.00 % (95 % interval 70.00 to 80.00) of 200 words right" in told
