"""The notebook of `examples/lab`: run from top to bottom with one runtime, and its first section with the others."""

from __future__ import annotations

import pytest
from lab_checks import check_first_section, check_outputs, read_tables

from modelwright.examples.lab.renew import run_notebook

pytest.importorskip("torch", reason="its model")


@pytest.mark.slow
def test_it_runs_and_its_sentences_fit_its_figures() -> None:
    pytest.importorskip("onnxruntime", reason="its artifacts")
    check_outputs(run_notebook())


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "package"), [("openvino", "nncf"), ("tflite", "ai_edge_litert")])
def test_its_first_section_runs_with_another_runtime(runtime: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{runtime} artifacts")
    notebook = run_notebook(runtime, until="How many samples")
    check_first_section(notebook)
    assert all(row["artifact"].startswith(f"{runtime}-") for row in read_tables(notebook)[0])
