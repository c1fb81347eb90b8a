"""The notebook of `examples/lab`, run from top to bottom, with each of two runtimes."""

from __future__ import annotations

import pytest
from lab_checks import check_outputs, read_tables

from modelwright.examples.lab.renew import run_notebook

pytest.importorskip("torch", reason="its model")


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "package"), [("ort", "onnxruntime"), ("openvino", "nncf")])
def test_it_runs_and_its_sentences_fit_its_figures(runtime: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{runtime} artifacts")
    notebook = run_notebook(runtime)
    check_outputs(notebook)
    assert all(row["artifact"].startswith(f"{runtime}-") for row in read_tables(notebook)[0])
