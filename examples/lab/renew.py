"""Runs the notebook from top to bottom and keeps its outputs: `python -m modelwright.examples.lab.renew`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("ptq_lab.ipynb")
CHOICE = 'RUNTIME = "ort"'
"""The line that chooses the runtime."""
CELL_TIMEOUT_S = 1200
"""Of one cell, on a machine that has other work: with ONNX Runtime all of them took 73 s of processor time."""


def run_notebook(runtime: str = "ort", *, until: str | None = None) -> Any:
    """Returns the notebook with the outputs of a run.

    Args:
        runtime: Stands in the line that chooses it.
        until: The heading of the first section that is left out, with all that follow; None runs all.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if until is not None:
        place = next(place for place, cell in enumerate(notebook.cells) if cell.source.startswith(f"## {until}"))
        notebook.cells[place:-1] = []  # the last one takes away what the others wrote
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(CHOICE):
            cell.source = cell.source.replace(CHOICE, f'RUNTIME = "{runtime}"')
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", record_timing=False)
    return client.execute()


def main() -> None:
    """Replaces the outputs in the file."""
    import nbformat

    argparse.ArgumentParser(description=__doc__).parse_args()
    nbformat.write(run_notebook(), NOTEBOOK)


if __name__ == "__main__":
    main()
