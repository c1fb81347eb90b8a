"""The notebook as it lies in the repository: with outputs, small, and with no number in its prose that was typed."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from lab_checks import check_outputs, find_typed_numbers

from modelwright.examples.lab.renew import CHOICE, NOTEBOOK


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_has_its_outputs_and_is_small(notebook: Any) -> None:
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert NOTEBOOK.stat().st_size < 400_000


def test_one_line_chooses_the_runtime(notebook: Any) -> None:
    assert len([cell for cell in notebook.cells if cell.source.startswith(CHOICE)]) == 1
    other = [cell.source for cell in notebook.cells if cell.cell_type == "code" and not cell.source.startswith(CHOICE)]
    assert not [name for name in ("ort", "openvino", "tflite") for source in other if f'"{name}' in source]


def test_no_number_of_its_prose_is_typed(notebook: Any) -> None:
    assert not find_typed_numbers(notebook)
    notebook.cells[0].source += "\nINT8 is 2.4 times as fast."
    said = next(cell for cell in notebook.cells if cell.cell_type == "code" and "say(" in cell.source)
    said.source += '\nsay(f"It loses 3 answers of {len(pool)}.")'
    assert len(find_typed_numbers(notebook)) == 2
