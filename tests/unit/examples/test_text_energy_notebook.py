"""The notebook of the study of text models as it lies in the repository, and the tables that it shows."""

from __future__ import annotations

import csv
import json
from typing import Any

import nbformat
import pytest
from lab_checks import find_typed_numbers, list_texts

from modelwright.examples.text_energy.renew import CHOICE, NOTEBOOK
from modelwright.examples.text_energy.trial import TABLE


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_has_its_outputs_and_is_small(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    assert not [output for cell in code for output in cell.outputs if output.output_type in ("error", "stream")]
    assert NOTEBOOK.stat().st_size < 400_000
    assert len([cell for cell in code if cell.source == CHOICE or cell.source.startswith(f"{CHOICE}  #")]) == 1
    images = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(images) >= 3


def test_its_figures_are_those_of_the_tables_beside_it(notebook: Any) -> None:
    assert not find_typed_numbers(notebook)
    tables = sorted(NOTEBOOK.parent.glob("*.csv"))
    rows = [row for path in tables for row in csv.DictReader(path.read_text().splitlines())]
    measured = [row for row in rows if row["status"] == "measured"]
    said = "\n".join(list_texts(notebook))
    assert f"{len(measured)} trials of {len(tables)} model" in said
    for row in measured:
        assert f"{row['correct']} of {row['evaluated']}" in said
    assert all(tuple(row) == TABLE for row in rows)
    assert json.dumps(rows).count("/tmp/") == 0
