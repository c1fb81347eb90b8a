"""Runs the notebook and keeps its outputs: `python -m modelwright.examples.text_energy.renew [TABLE.csv ...]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("text_energy.ipynb")
CHOICE = "TABLES = []"
"""The line that chooses the tables; none are those beside the notebook."""
CELL_TIMEOUT_S = 300


def run_notebook(tables: Sequence[Path] = ()) -> Any:
    """Returns the notebook with the outputs of a run.

    Args:
        tables: Of studies; none for those that come with the example.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(CHOICE) and tables:
            cell.source = f"TABLES = {[str(table.resolve()) for table in tables]}"
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", record_timing=False)
    return client.execute()


def main() -> None:
    """Replaces the outputs in the file, or writes a notebook of other tables."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tables", nargs="*", type=Path, metavar="TABLE.csv", help="of studies; none renews the example's"
    )
    parser.add_argument("--out", type=Path, help="where a notebook of given tables goes")
    given = parser.parse_args()
    if bool(given.tables) is not bool(given.out):
        parser.error("tables and --out go together")
    missing = [str(table) for table in given.tables if not table.is_file()]
    if missing:
        parser.error(f"there is no {missing[0]}: run the study first, which writes trials.csv into its folder")
    nbformat.write(run_notebook(given.tables), given.out or NOTEBOOK)


if __name__ == "__main__":
    main()
